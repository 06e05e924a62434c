"""The outbox: bounded, in order, and honest about what it dropped."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.outbox import Outbox, OutboxFull, SlowClient
from actors.update import Stream, Update
from tests.actors.fakes import Hole, update


def outbox(policy: SlowClient, limit: int = 4, most_bytes: int = 1 << 20) -> Outbox[str]:
    return Outbox(
        limit,
        policy,
        lambda u: " ".join(str(entry) for _, entry in u.places),
        lambda topic, first, last, items: f"gap-{topic}{first}..{last}",
        most_bytes,
    )


def drain(box: Outbox[str]) -> list[str]:
    taken = []
    while (payload := box.take()) is not None:
        taken.append(payload)
    return taken


def test_everything_leaves_in_the_order_in_which_it_came() -> None:
    """Answers, notices and updates share one way."""
    box = outbox(SlowClient.DISCONNECT)
    box.put("answer")
    box.put_update(update("a", 1))
    box.put("notice")
    assert len(box) == 3
    assert drain(box) == ["answer", "a1", "notice"]
    assert not box


def test_disconnect_says_so_instead_of_dropping() -> None:
    """Under `disconnect` the message beyond the bound raises, and nothing was dropped."""
    box = outbox(SlowClient.DISCONNECT)
    box.put_update(update("a", 1, 4))
    with pytest.raises(OutboxFull):
        box.put_update(update("a", 5))
    assert box.dropped == 0


@pytest.mark.parametrize("what", ["update", "answer"])
def test_bytes_are_bounded_like_messages(what: str) -> None:
    """Under `disconnect` the byte beyond the bound raises, however few messages wait, and names the bound."""
    box = outbox(SlowClient.DISCONNECT, limit=100, most_bytes=10)
    box.put("x" * 6)
    box.put_update(update("a", 1, 1))
    assert (len(box), box.bytes) == (2, 8)
    with pytest.raises(OutboxFull, match=r"^10 bytes$"):
        box.put("xxx") if what == "answer" else box.put_update(update("a", 2, 2))
    assert box.dropped == 0


@pytest.mark.parametrize("policy", list(SlowClient))
def test_a_payload_of_any_length_may_wait_alone(policy: SlowClient) -> None:
    """What is longer than the bound is taken when nothing waits: otherwise nobody could ever get it."""
    box = outbox(policy, limit=100, most_bytes=10)
    box.put("x" * 50)
    assert drain(box) == ["x" * 50]
    if policy is not SlowClient.CONFLATE:
        box.put_update(update("a", 1, 9))
        assert drain(box) == [" ".join(f"a{n}" for n in range(1, 10))]


def test_what_is_too_long_loses_its_oldest_and_says_so() -> None:
    """Under `drop_oldest` only as much is dropped as the bytes demand; answers and the newest entry stay."""
    box = outbox(SlowClient.DROP_OLDEST, limit=100, most_bytes=20)
    box.put("answer")
    box.put_update(update("a", 1, 4))  # 11 bytes
    box.put_update(update("b", 1, 3))  # 8 bytes more: 5 too many
    assert box.bytes <= 20
    assert drain(box) == ["answer", "gap-a1..2", "a3 a4", "b1 b2 b3"]
    box.put_update(update("a", 5))
    box.put("x" * 30)
    assert drain(box) == ["a5", "x" * 30]


def test_conflating_bounds_bytes_too() -> None:
    """Under `conflate` too many bytes shrink to one message a topic, as too many messages do."""
    box = outbox(SlowClient.CONFLATE, limit=100, most_bytes=20)
    box.put_update(update("a", 1, 6))
    box.put_update(update("b", 1, 2))
    assert drain(box) == ["gap-a1..5", "a6", "gap-b1..1", "b2"]


def test_long_answers_alone_cannot_grow_without_bound() -> None:
    """They are never dropped, so twice the bound of bytes ends it, whatever the policy."""
    box = outbox(SlowClient.DROP_OLDEST, limit=100, most_bytes=10)
    box.put("x" * 10)
    box.put("y" * 10)
    with pytest.raises(OutboxFull, match=r"^20 bytes$"):
        box.put("z")


def test_nothing_passes_the_place_of_a_long_message() -> None:
    """Neither messages nor gaps leave before it has; what came before it leaves first."""
    box = outbox(SlowClient.DROP_OLDEST)
    box.put("before")
    box.mark()
    box.put_update(update("a", 1, 3))
    assert drain(box) == ["before"]
    assert box.at_mark
    assert box
    box.unmark()
    assert not box.at_mark
    assert drain(box) == ["gap-a1..1", "a2 a3"]
    assert (len(box), box.bytes) == (0, 0)


def test_drop_oldest_announces_the_gap_in_its_place() -> None:
    """Losses are announced before the next message of that topic, and answers stay."""
    box = outbox(SlowClient.DROP_OLDEST)
    box.put("answer")
    box.put_update(update("a", 1, 2))
    box.put_update(update("b", 1))
    box.put_update(update("a", 3))
    box.put_update(update("a", 4))
    assert drain(box) == ["answer", "b1", "gap-a1..2", "a3", "a4"]
    assert box.dropped == 2


def test_no_more_is_dropped_than_has_to_be() -> None:
    """One too many costs one, out of the middle of an update if need be; an answer that comes makes its room."""
    box = outbox(SlowClient.DROP_OLDEST)
    box.put_update(update("a", 1, 4))
    box.put_update(update("b", 1))
    box.put("answer")
    assert drain(box) == ["gap-a1..2", "a3 a4", "b1", "answer"]


def test_a_gap_is_announced_although_nothing_of_its_topic_follows() -> None:
    """A client must not have to wait for the next trade to learn of a hole."""
    box = outbox(SlowClient.DROP_OLDEST, limit=1)
    box.put_update(update("a", 1, 2))
    box.put("answer")
    assert drain(box) == ["answer", "gap-a1..2"]
    assert not box


@pytest.mark.parametrize("policy", [SlowClient.DROP_OLDEST, SlowClient.CONFLATE])
def test_a_gap_counts_the_items_and_not_the_notices_in_it(policy: SlowClient) -> None:
    """Places 2 to 9 were a notice of the source's own gap: they are part of the range, and no item of ours."""
    box: Outbox[str] = Outbox(
        2,
        policy,
        pack=lambda u: " ".join(str(entry) for _, entry in u.places),
        announce=lambda topic, first, last, items: f"{topic}{first}..{last}: {items}",
    )
    places = [(1, "one"), (9, Hole()), (10, "ten"), (11, "11")]
    box.put_update(Update(Stream("a", 1, Hole), 1, places))
    if policy is SlowClient.DROP_OLDEST:
        box.put_update(update("a", 12))
    assert drain(box)[0] == "a1..10: 2"
    assert box.dropped == 2


def test_conflate_keeps_the_newest_message_of_each_topic() -> None:
    """Under `conflate` a full outbox shrinks to one message a topic; the rest is announced."""
    box = outbox(SlowClient.CONFLATE)
    box.put_update(update("a", 1, 3))
    box.put_update(update("b", 7))
    box.put_update(update("a", 4))
    assert drain(box) == ["b7", "gap-a1..3", "a4"]


def test_a_topic_that_was_left_leaves_nothing_behind() -> None:
    """After `forget` neither messages nor gaps of the topic leave."""
    box = outbox(SlowClient.DROP_OLDEST, limit=2)
    box.put_update(update("a", 1, 3))
    box.put_update(update("b", 1))
    box.forget(lambda topic: topic == "a")
    assert drain(box) == ["b1"]
    assert len(box) == 0


def test_notices_alone_cannot_grow_without_bound() -> None:
    """A client that never reads while notices pile up is disconnected whatever its policy."""
    box = outbox(SlowClient.CONFLATE)
    for _ in range(8):
        box.put("notice")
    with pytest.raises(OutboxFull):
        box.put("notice")


def test_of_a_state_only_the_newest_waits() -> None:
    """Where the newest entry of each key is all that counts, older ones are replaced, and nothing is owed."""
    stream = Stream("a", 1, newest_by=lambda entry: entry[0])

    def state(*places: tuple[int, str]) -> Update:
        return Update(stream, places[0][0], places)

    box = outbox(SlowClient.DROP_OLDEST, limit=1)
    box.put_update(state((1, "x1"), (2, "y2")))
    box.put_update(update("b", 1))
    for n in range(3, 100):
        box.put_update(state((n, f"x{n}")))
    box.put_update(update("b", 2))
    assert len(box) == 3
    assert drain(box) == ["y2 x99", "gap-b1..1", "b2"]
    assert box.dropped == 1


def test_a_run_of_states_waits_as_its_newest() -> None:
    """A client is not too slow because one state changed often at once."""
    box = outbox(SlowClient.DISCONNECT, limit=2)
    stream = Stream("a", 1, newest_by=lambda entry: entry[0])
    box.put_update(Update(stream, 1, [(1, "x1"), (2, "y2"), (3, "x3"), (4, "x4")]))
    assert len(box) == 2
    assert drain(box) == ["y2 x4"]


@pytest.mark.parametrize("policy", SlowClient)
def test_states_of_thousands_of_topics_make_no_client_slow(policy: SlowClient) -> None:
    """A lost source changes all its symbols at once. Their number is bounded; so are their bytes."""
    box = outbox(policy, limit=2)
    streams = [Stream(f"s{n}", 1, newest_by=lambda entry: "key") for n in range(100)]
    for place in (1, 2):
        for stream in streams:
            box.put_update(Update(stream, place, [(place, f"{stream.topic}-{place}")]))
    box.put("notice")
    box.put_update(update("a", 1))
    assert (len(box), box.dropped) == (102, 0)
    assert drain(box) == [*[f"s{n}-2" for n in range(100)], "notice", "a1"]
    heavy = Outbox(2, SlowClient.DISCONNECT, lambda u: b"x" * 10, lambda *_gap: b"", most_bytes=40)
    for stream in streams[:4]:
        heavy.put_update(Update(stream, 1, [(1, "x")]))
    with pytest.raises(OutboxFull, match="40 bytes"):
        heavy.put_update(Update(streams[4], 1, [(1, "x")]))


def test_a_state_does_not_overtake_an_answer() -> None:
    """The answer may tell an earlier state. A client that applies both in their order ends with the newest."""
    stream = Stream("a", 1, newest_by=lambda entry: "key")

    def state(place: int) -> Update:
        return Update(stream, place, [(place, f"state{place}")])

    box = outbox(SlowClient.DROP_OLDEST)
    box.put_update(state(1))
    box.put("answer2")
    box.put_update(state(3))
    box.put_update(state(4))
    assert drain(box) == ["state1", "answer2", "state4"]


Step = tuple[str, int]


@given(
    policy=st.sampled_from([SlowClient.DROP_OLDEST, SlowClient.CONFLATE]),
    limit=st.integers(1, 8),
    most_bytes=st.integers(1, 100),
    steps=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "take"]), st.integers(1, 6)), max_size=60),
)
def test_every_place_is_delivered_once_in_order_or_announced(
    policy: SlowClient, limit: int, most_bytes: int, steps: list[Step]
) -> None:
    """However drops fall: per topic, messages and gaps together are the whole stream, in order, within the bounds."""
    box: Outbox[list[tuple[str, int, int]]] = Outbox(
        limit,
        policy,
        pack=lambda u: [(u.topic, last, last) for last, _ in u.places],
        announce=lambda topic, first, last, items: [(topic, first, last)],
        most_bytes=most_bytes,
        size=lambda payload: sum(10 + last % 7 for _, _, last in payload),
    )
    offered = dict.fromkeys("abc", 0)
    seen: dict[str, int] = dict.fromkeys("abc", 0)

    def take(count: int) -> None:
        for _ in range(count):
            for topic, first, last in box.take() or []:
                assert first == seen[topic] + 1
                seen[topic] = last

    for kind, count in steps:
        if kind == "take":
            take(count)
        else:
            box.put_update(update(kind, offered[kind] + 1, count))
            offered[kind] += count
            assert len(box) <= max(limit, 3)
            assert box.bytes <= most_bytes or len(box) <= max(3, count), "what came last may wait alone"
    take(1000)
    assert seen == offered
    assert (len(box), box.bytes) == (0, 0)


@given(
    st.sampled_from([SlowClient.DROP_OLDEST, SlowClient.CONFLATE]),
    st.lists(st.sampled_from(["answer", "a", "b", "long", "newest", "take", "forget"]), max_size=60),
)
def test_bytes_and_age_are_those_of_what_waits(policy: SlowClient, steps: list[str]) -> None:
    """Whatever was put, taken, dropped or forgotten: `bytes` is what is still to leave, `oldest` when its first came."""
    now, came = 0, dict[str, int]()
    box: Outbox[bytes] = Outbox(
        5,
        policy,
        pack=lambda u: b" ".join(str(entry).encode() for _, entry in u.places),
        announce=lambda *_gap: b"gap",
        clock=lambda: now,
    )
    latest = Stream("newest", 1, newest_by=lambda _entry: "one")
    for now, step in enumerate(steps):
        if step == "take":
            box.take()
        elif step == "forget":
            box.forget(lambda topic: topic == "a")
        elif step == "answer":
            with suppress(OutboxFull):
                box.put(f"answer-{now}".encode())
                came[f"answer-{now}"] = now
        elif step == "newest":
            waits = box._newest.get("newest")
            box.put_update(Update(latest, now, [(now, f"newest-{now}")]))
            came[f"newest-{now}"] = now if waits is None else int(waits.since)
        else:
            count = 3 if step == "long" else 1
            box.put_update(
                Update(
                    Stream(step, 1, Hole), now * 10, [(now * 10 + n, f"{step}-{now}") for n in range(count)]
                )
            )
            came[f"{step}-{now}"] = now
    bytes_, oldest, left = box.bytes, box.oldest, []
    while (payload := box.take()) is not None:
        left += [] if payload == b"gap" else [payload.decode()]
    assert bytes_ == sum(map(len, left))
    assert oldest == (came[left[0].split()[0]] if left else None)
    assert box.bytes == 0


def test_a_fill_is_not_dropped_and_comes_behind_what_is_owed_of_its_topic() -> None:
    """Its places may be among those that were left out: they must be told before it."""
    box = outbox(SlowClient.DROP_OLDEST)
    box.put_update(update("a", 1, 3))
    box.put("filled 2", ("a", 7))
    box.put_update(update("b", 1, 3))
    box.put_update(update("a", 4, 3))
    drained = drain(box)
    assert drained.index("filled 2") > drained.index(
        next(each for each in drained if each.startswith("gap-a1"))
    )


def test_under_disconnect_a_fill_too_many_ends_the_client() -> None:
    """It counts as a message, like an update."""
    box = outbox(SlowClient.DISCONNECT)
    box.put_update(update("a", 1, 4))
    with pytest.raises(OutboxFull):
        box.put("filled 2", ("a", 1))


def test_fills_alone_are_bounded_under_every_policy() -> None:
    """They are not dropped, so there is an end of them: twice the bound of messages where others would be."""
    for policy in SlowClient:
        box, room = outbox(policy), 4 if policy is SlowClient.DISCONNECT else 8
        for number in range(room):
            box.put("filled", ("a", number))
        with pytest.raises(OutboxFull):
            box.put("filled", ("a", room))


def test_whoever_leaves_a_topic_gets_no_fill_of_it() -> None:
    """Nothing of it waits any more."""
    box = outbox(SlowClient.DISCONNECT)
    box.put("filled a", ("a", 1))
    box.put("filled b", ("b", 1))
    box.forget(lambda topic: topic == "a")
    assert drain(box) == ["filled b"]
