"""The connector: connected, resubscribed, never fooled by silence, and alone in its trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.connector import Connector, Interest, LinkLost, Patience, Received
from supervisors import Backoff, Child, Event, Limit, Supervisor, open_supervisor
from tests.actors.fakes import Diary, FakeUpstream

BACKOFF = Backoff(first=1.0, factor=2.0, cap=30.0, jitter=0.0)


@define
class Stage:
    upstream: FakeUpstream
    interest: Interest
    diary: Diary
    delivered: list[str]
    events: list[Event]
    handle: Any

    def crashes(self) -> list[BaseException]:
        return [error for event in self.events if event.kind == "crash" for error in event.errors]


@asynccontextmanager
async def stage(
    *topics: str,
    missed: Callable[[str], str | None] = lambda _topic: None,
    upstream: FakeUpstream | None = None,
) -> AsyncIterator[Stage]:
    made = Stage(upstream or FakeUpstream(), Interest(), Diary(), [], [], None)
    for topic in topics:
        made.interest.want(topic, "test")

    def connector() -> Connector[str]:
        return Connector(
            made.upstream,
            made.interest,
            made.delivered.extend,
            missed,
            made.diary,
            Patience(stale_after=15, subscribe_within=10),
        )

    spec = Supervisor(children=[Child("it", connector, backoff=BACKOFF)], limit=Limit(restarts=None))
    async with open_supervisor(spec, on_event=made.events.append) as handle:
        made.handle = handle
        await wait_all_tasks_blocked()
        yield made


def read(*parts: str) -> Received[str]:
    """The result of one read: `+topic` and `-topic` are answers, the rest are items."""
    into: Received[str] = Received()
    for part in parts:
        if part.startswith("+"):
            into.subscribed(part[1:])
        elif part.startswith("-"):
            into.unsubscribed(part[1:])
        else:
            into.items.append(part)
    return into


async def test_wanted_topics_are_subscribed_and_delivered(mock_clock: MockClock) -> None:
    """The wanted topics are asked for at once, and items arrive in order."""
    async with stage("a", "b") as s:
        s.upstream.publish("1", "2")
        s.upstream.publish("3")
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a", "b"))]
        assert s.delivered == ["1", "2", "3"]
        assert s.diary.lines == ["connecting", "subscribed a", "subscribed b", "up a,b"]
        assert s.diary.items == 3


async def test_interest_is_followed(mock_clock: MockClock) -> None:
    """A topic wanted later is subscribed; a topic without any holder is unsubscribed."""
    async with stage() as s:
        s.interest.want("a", "first")
        s.interest.want("a", "second")
        await wait_all_tasks_blocked()
        s.interest.release("a", "first")
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",))]
        s.interest.release("a", "second")
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",)), ("unsubscribe", ("a",))]


async def test_a_topic_wanted_again_while_its_answer_is_out_is_not_asked_for_twice(
    mock_clock: MockClock,
) -> None:
    """A requested topic is unsubscribed only after its answer, and then for good."""
    upstream = FakeUpstream()
    upstream.mute = True
    async with stage("a", upstream=upstream) as s:
        s.interest.release("a", "test")
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",))]
        upstream.send.send_nowait(read("+a"))
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",)), ("unsubscribe", ("a",))]


async def test_a_lost_connection_is_made_anew_and_resubscribed(mock_clock: MockClock) -> None:
    """After a cut the connector is back after the backoff with every topic that is wanted by then."""
    async with stage("a") as s:
        s.upstream.cut("reset by peer")
        await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down reset by peer"
        s.interest.want("b", "test")
        mock_clock.jump(1.0)
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",)), ("subscribe", ("a", "b"))]
        assert s.diary.lines[-1] == "up a,b"


async def test_a_source_that_is_down_at_start_is_nothing_special(mock_clock: MockClock) -> None:
    """The tree starts, and the source is retried for as long as it takes: here, for a day."""
    upstream = FakeUpstream()
    upstream.up = False
    async with stage("a", upstream=upstream) as s:
        assert s.handle.counts()["total"] == 1
        for _ in range(24 * 60 * 2):
            mock_clock.jump(30)
            await wait_all_tasks_blocked()
        assert upstream.attempts > 2000
        upstream.up = True
        mock_clock.jump(30)
        await wait_all_tasks_blocked()
        assert upstream.subscribed == {"a"}
        assert {type(error) for error in s.crashes()} == {LinkLost}


async def test_silence_is_probed_and_then_believed(mock_clock: MockClock) -> None:
    """Half of `stale_after` brings a probe, the whole of it ends the connection."""
    async with stage("a") as s:
        mock_clock.jump(7.6)
        await wait_all_tasks_blocked()
        assert s.upstream.probes == 1
        assert s.upstream.attempts == 1
        mock_clock.jump(7.6)
        await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down stale: no message for 15 s"
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert s.upstream.attempts == 2


async def test_any_message_is_a_sign_of_life(mock_clock: MockClock) -> None:
    """As long as something comes every now and then, nothing is reconnected."""
    async with stage("a") as s:
        for _ in range(10):
            mock_clock.jump(10)
            await wait_all_tasks_blocked()
            s.upstream.send.send_nowait(Received())
            await wait_all_tasks_blocked()
        assert s.upstream.attempts == 1


async def test_a_subscription_without_an_answer_ends_the_connection(mock_clock: MockClock) -> None:
    """An upstream that sends but never confirms is as good as dead."""
    upstream = FakeUpstream()
    upstream.mute = True
    async with stage("a", upstream=upstream) as s:
        for _ in range(3):
            mock_clock.jump(4)
            upstream.send.send_nowait(Received())
            await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down no answer to the subscription of a"


async def test_a_refused_topic_is_reported_and_not_asked_for_again(mock_clock: MockClock) -> None:
    """A refusal concerns one topic: the connection stays up with the others."""
    upstream = FakeUpstream()
    upstream.refuses["b"] = "unknown symbol"
    async with stage("a", "b", upstream=upstream) as s:
        s.interest.want("c", "test")
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a", "b")), ("subscribe", ("c",))]
        assert "refused b: unknown symbol" in s.diary.lines
        assert "up a" in s.diary.lines


async def test_a_mark_precedes_what_follows_a_subscription(mock_clock: MockClock) -> None:
    """If ids prove nothing, every (re)subscription leaves a mark before the first item."""
    async with stage("a", missed=lambda topic: f"missed {topic}") as s:
        s.upstream.publish("1")
        await wait_all_tasks_blocked()
        s.upstream.cut()
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        s.upstream.publish("2")
        await wait_all_tasks_blocked()
        assert s.delivered == ["missed a", "1", "missed a", "2"]


async def test_items_before_the_end_of_a_connection_are_delivered(mock_clock: MockClock) -> None:
    """A read that ends the connection still delivers its items and reports its problems."""
    async with stage("a") as s:
        s.upstream.send.send_nowait(
            Received(items=["1"], problems=[("bad_price", "x")], lost="seqnum 5 after 3")
        )
        await wait_all_tasks_blocked()
        assert s.delivered == ["1"]
        assert s.diary.lines[-2:] == ["problem bad_price: x", "down seqnum 5 after 3"]


@pytest.mark.parametrize("where", ["deliver", "subscribe", "receive", "connect"])
async def test_a_failure_inside_restarts_the_connector(
    where: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an error anywhere: the next incarnation is connected and subscribed again."""
    failing = [True]

    def explode(*_arguments: object) -> None:
        if failing:
            failing.clear()
            raise RuntimeError(where)

    upstream = FakeUpstream()
    genuine = {name: getattr(upstream, name) for name in ("subscribe", "receive")}

    async def subscribe(topics: Any) -> None:
        explode()
        await genuine["subscribe"](topics)

    async def receive() -> Any:
        explode()
        return await genuine["receive"]()

    @asynccontextmanager
    async def connect() -> AsyncIterator[FakeUpstream]:
        explode()
        async with FakeUpstream.connect(upstream) as link:
            yield link

    if where == "deliver":
        async with stage("a", missed=lambda _topic: explode()) as s:
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
            assert s.upstream.subscribed == {"a"}
        return
    monkeypatch.setattr(
        upstream, where, {"subscribe": subscribe, "receive": receive, "connect": connect}[where]
    )
    async with stage("a", upstream=upstream) as s:
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert upstream.subscribed == {"a"}
        assert [str(error) for error in s.crashes()] == [where]
        assert "down internal error: RuntimeError" in s.diary.lines


async def test_a_stop_closes_the_connection_politely(mock_clock: MockClock) -> None:
    """A stopped connector leaves through the link's own exit and counts as stopped, not crashed."""
    async with stage("a") as s:
        await s.handle.stop("it")
        assert s.diary.lines[-1] == "down stopped"
        assert s.crashes() == []


async def test_nothing_is_lost_between_reading_and_probing(mock_clock: MockClock) -> None:
    """Items that come at the very moment of a probe are delivered once."""
    async with stage("a") as s:
        for n in range(50):
            mock_clock.jump(7.5)
            s.upstream.publish(str(n))
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert s.delivered == [str(n) for n in range(50)]


async def test_answers_and_items_of_one_read_keep_their_order(mock_clock: MockClock) -> None:
    """Items before an answer belong to the old subscription, the mark and later items to the new one."""
    async with stage("a", missed=lambda topic: f"missed {topic}") as s:
        s.upstream.mute = True
        s.interest.release("a", "test")
        await wait_all_tasks_blocked()
        s.interest.want("a", "test")
        await wait_all_tasks_blocked()
        s.upstream.send.send_nowait(read("1", "-a", "+a", "2", "-b", "3"))
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",)), ("unsubscribe", ("a",)), ("subscribe", ("a",))]
        assert s.delivered == ["missed a", "1", "missed a", "2", "3"]
        told = [line for line in s.diary.lines if line.endswith("subscribed a")]
        assert told == ["subscribed a", "unsubscribed a", "subscribed a"]


async def test_a_run_of_items_is_delivered_as_it_is(mock_clock: MockClock) -> None:
    """A read without answers costs one delivery and no copy."""
    batches: list[Any] = []
    upstream, interest = FakeUpstream(), Interest(["a"])
    patience = Patience(stale_after=15, subscribe_within=10)
    spec = Supervisor(
        children=[
            Child(
                "it", lambda: Connector(upstream, interest, batches.append, lambda _: None, Diary(), patience)
            )
        ]
    )
    async with open_supervisor(spec):
        await wait_all_tasks_blocked()
        sent = Received(items=["1", "2"])
        upstream.send.send_nowait(sent)
        await wait_all_tasks_blocked()
        assert len(batches) == 1
        assert batches[0] is sent.items


async def test_one_refused_topic_does_not_take_those_of_its_request_with_it(mock_clock: MockClock) -> None:
    """They are asked for again in halves. Only a topic refused alone counts as refused, and `up` comes after that."""
    upstream = FakeUpstream()
    upstream.in_one = True
    upstream.refuses = {"c": "unknown symbol"}
    async with stage(*"abcde", upstream=upstream) as s:
        assert s.diary.lines == ["connecting", "subscribed a", "subscribed b"]
        for _ in range(3):
            mock_clock.jump(0.5)
            await wait_all_tasks_blocked()
        asked = ["".join(topics) for _what, topics in upstream.log]
        assert asked == ["abcde", "ab", "cde", "c", "de"]
        assert upstream.subscribed == set("abde")
        assert [line for line in s.diary.lines if "refused" in line] == ["refused c: unknown symbol"]
        assert s.diary.lines[-1] == "up a,b,d,e"
        s.interest.want("f", "test")
        await wait_all_tasks_blocked()
        assert upstream.log[-1] == ("subscribe", ("f",))


async def test_asking_again_is_no_storm(mock_clock: MockClock) -> None:
    """For any number of refused topics there are no more than two requests a second."""
    upstream = FakeUpstream()
    upstream.in_one = True
    topics = [f"t{n:02}" for n in range(20)]
    upstream.refuses = dict.fromkeys(topics, "no")
    async with stage(*topics, upstream=upstream) as s:
        for n in range(1, 60):
            mock_clock.jump(0.5)
            await wait_all_tasks_blocked()
            assert len(upstream.log) <= n + 2
        assert sorted(line for line in s.diary.lines if "refused" in line) == [
            f"refused {t}: no" for t in topics
        ]
        assert len(upstream.log) == 2 * len(topics) - 1
        assert upstream.attempts == 1


async def test_a_topic_that_is_let_go_of_is_not_asked_for_again(mock_clock: MockClock) -> None:
    """Not after the refusal of its request; nor does it keep the others from being up."""
    upstream = FakeUpstream()
    upstream.in_one = True
    upstream.refuses = {"a": "no", "b": "no"}
    async with stage("a", "b", upstream=upstream) as s:
        assert upstream.log == [("subscribe", ("a", "b")), ("subscribe", ("a",))]
        s.interest.release("b", "test")
        mock_clock.jump(0.5)
        await wait_all_tasks_blocked()
        assert len(upstream.log) == 2
        assert s.diary.lines == ["connecting", "refused a: no", "up"]


async def test_a_topic_that_is_accepted_after_all_is_not_asked_for_again(mock_clock: MockClock) -> None:
    """A late answer makes the repeated request unnecessary."""
    upstream = FakeUpstream()
    upstream.in_one = True
    upstream.refuses = {"a": "no"}
    async with stage("a", "b", upstream=upstream) as s:
        upstream.send.send_nowait(read("+b"))
        await wait_all_tasks_blocked()
        mock_clock.jump(0.5)
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a", "b")), ("subscribe", ("a",))]
        assert s.diary.lines[-1] == "up b"


async def test_a_refused_topic_is_asked_for_again_by_those_who_want_it_next(mock_clock: MockClock) -> None:
    """A refusal holds while the topic is wanted without a break; a short break is a break too."""
    upstream = FakeUpstream()
    upstream.refuses["a"] = "busy"
    async with stage("a", upstream=upstream) as s:
        s.interest.want("a", "other")
        s.interest.release("a", "test")
        await wait_all_tasks_blocked()
        assert len(upstream.log) == 1
        s.interest.release("a", "other")
        s.interest.want("a", "next")
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",))] * 2
        assert s.diary.lines.count("refused a: busy") == 2


async def test_a_refusal_that_nobody_waits_for_is_forgotten(mock_clock: MockClock) -> None:
    """Its topic was released before the answer: the next holder is a reason to ask."""
    upstream = FakeUpstream()
    upstream.mute = True
    async with stage("a", upstream=upstream) as s:
        s.interest.release("a", "test")
        answer: Received[str] = Received()
        answer.refused("busy", "a")
        upstream.send.send_nowait(answer)
        await wait_all_tasks_blocked()
        s.interest.want("a", "next")
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",))] * 2


async def test_a_late_acceptance_outweighs_a_refusal(mock_clock: MockClock) -> None:
    """A topic that was refused and is accepted after all is held, and unsubscribed in the end."""
    upstream = FakeUpstream()
    upstream.refuses["a"] = "busy"
    async with stage("a", upstream=upstream) as s:
        upstream.send.send_nowait(read("+a"))
        await wait_all_tasks_blocked()
        s.interest.release("a", "test")
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",)), ("unsubscribe", ("a",))]


async def test_a_topic_that_the_upstream_ends_unasked_is_asked_for_again(mock_clock: MockClock) -> None:
    """A topic that is wanted does not stay away in silence; and an upstream that insists causes no storm."""
    async with stage("a", missed=lambda topic: f"missed {topic}") as s:
        for n in range(3):
            s.upstream.send.send_nowait(read(str(n), "-a"))
            await wait_all_tasks_blocked()
        assert s.delivered == ["missed a", "0", "missed a", "1", "2"]
        assert s.diary.lines[-1] == "unsubscribed a"
        assert s.upstream.log == [("subscribe", ("a",))] * 2
        mock_clock.jump(0.5)
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",))] * 3
        assert s.diary.lines[-1] == "subscribed a"


async def test_a_stop_cuts_a_slow_connection_short(mock_clock: MockClock) -> None:
    """A connector that is still connecting sees the stop at once, and counts as stopped."""
    upstream = FakeUpstream()

    @asynccontextmanager
    async def connect() -> AsyncIterator[FakeUpstream]:
        upstream.attempts += 1
        await trio.sleep_forever()
        yield upstream

    upstream.connect = connect  # type: ignore[method-assign]
    async with stage("a", upstream=upstream) as s:
        assert upstream.attempts == 1
        before = trio.current_time()
        await s.handle.stop("it")
        assert trio.current_time() == before
        assert s.diary.lines == ["connecting", "down stopped"]
        assert [event.kind for event in s.events if event.kind in {"crash", "unstopped", "cancelled"}] == []


async def test_a_stop_leaves_time_to_part_from_the_upstream(mock_clock: MockClock) -> None:
    """A polite stop does not cancel the last work of a link, such as a closing handshake."""
    upstream = FakeUpstream()
    parted = []

    @asynccontextmanager
    async def connect() -> AsyncIterator[FakeUpstream]:
        async with FakeUpstream.connect(upstream) as link:
            try:
                yield link
            finally:
                await trio.lowlevel.checkpoint()
                parted.append(True)

    upstream.connect = connect  # type: ignore[method-assign]
    async with stage("a", upstream=upstream) as s:
        await s.handle.stop("it")
        assert parted == [True]
        assert s.crashes() == []


async def test_a_topic_wanted_without_a_break_has_one_term() -> None:
    """A second holder changes nothing; the next time a topic is wanted is another term."""
    interest = Interest(["always"])
    always = interest.term("always")
    assert always is not None
    assert interest.term("a") is None
    interest.want("a", "first")
    first = interest.term("a")
    interest.want("a", "second")
    interest.release("a", "first")
    assert interest.term("a") == first
    interest.release("a", "second")
    assert interest.term("a") is None
    interest.want("a", "first")
    assert interest.term("a") not in {first, always, None}
    interest.want("always", "first")
    interest.release("always", "first")
    assert interest.term("always") == always


async def test_wishes_that_wait_for_a_turn_share_one_request(mock_clock: MockClock) -> None:
    """While a request waits for its turn, new wishes join it, and what is taken back is never sent."""
    upstream = FakeUpstream()
    upstream.turns = trio.Semaphore(0)
    async with stage(upstream=upstream) as s:
        for topic in "abcdefgh":
            s.interest.want(topic, "client")
            await wait_all_tasks_blocked()
        for topic in "aceg":
            s.interest.release(topic, "client")
        upstream.turns.release()
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("b", "d", "f", "h"))]
        s.interest.release("b", "client")
        s.interest.want("b", "client")
        upstream.turns.release()
        await wait_all_tasks_blocked()
        assert len(upstream.log) == 1, "back and forth while waiting is nothing to say"


async def test_a_request_names_no_more_than_the_upstream_takes(mock_clock: MockClock) -> None:
    """The others wait for the next turn; the source is up when all have their answers."""
    upstream = FakeUpstream()
    upstream.room = 2
    upstream.turns = trio.Semaphore(2)
    async with stage(*"abcde", upstream=upstream) as s:
        assert upstream.log == [("subscribe", ("a", "b")), ("subscribe", ("c", "d"))]
        assert not any(line.startswith("up") for line in s.diary.lines)
        s.interest.release("e", "test")
        s.interest.want("f", "test")
        upstream.turns.release()
        await wait_all_tasks_blocked()
        assert upstream.log[2:] == [("subscribe", ("f",))]
        assert s.diary.lines[-1] == "up a,b,c,d,f"


async def test_a_request_that_waits_for_its_turn_is_not_overdue(mock_clock: MockClock) -> None:
    """The time for an answer begins when the request has left."""
    upstream = FakeUpstream()
    upstream.turns = trio.Semaphore(0)
    upstream.mute = True
    async with stage("a", upstream=upstream) as s:
        for _ in range(10):
            mock_clock.jump(5)
            upstream.publish("still here")
            await wait_all_tasks_blocked()
        assert s.crashes() == []
        upstream.turns.release()
        await wait_all_tasks_blocked()
        mock_clock.jump(10)
        await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down no answer to the subscription of a"


async def test_an_answer_behind_a_backlog_is_not_overdue(mock_clock: MockClock) -> None:
    """As long as the connection is busy, its answers may still be on the way; but not for ever."""
    upstream = FakeUpstream()
    upstream.mute = True
    async with stage("a", "b", upstream=upstream) as s:
        for _ in range(50):
            mock_clock.jump(1)
            upstream.publish("replayed")
            await wait_all_tasks_blocked()
        assert s.crashes() == []
        upstream.send.send_nowait(read("+a"))
        for _ in range(10):
            mock_clock.jump(1)
            upstream.publish("replayed")
            await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down no answer to the subscription of b"


async def test_a_probe_waits_for_its_turn(mock_clock: MockClock) -> None:
    """A probe is a request like any other, and comes first."""
    upstream = FakeUpstream()
    upstream.turns = trio.Semaphore(1)
    async with stage("a", upstream=upstream) as s:
        mock_clock.jump(7.6)
        await wait_all_tasks_blocked()
        s.interest.want("b", "test")
        await wait_all_tasks_blocked()
        assert upstream.probes == 0
        upstream.turns.release()
        await wait_all_tasks_blocked()
        assert upstream.probes == 1
        assert len(upstream.log) == 1


async def test_an_announced_end_is_listened_to_and_followed_at_once(mock_clock: MockClock) -> None:
    """What comes before the end is still taken. Then the next connection is made without the backoff, but for
    one that was announced an end as soon as it was made."""
    async with stage("a") as s:
        for _ in range(3):
            mock_clock.jump(2)
            await wait_all_tasks_blocked()
            attempts = s.upstream.attempts
            for _again in range(2):
                s.upstream.send.send_nowait(Received(items=["last"], leaving="it says goodbye"))
            s.upstream.publish("very last")
            await wait_all_tasks_blocked()
            assert s.upstream.attempts == attempts
            s.upstream.cut()
            await wait_all_tasks_blocked()
            assert s.upstream.attempts == attempts + 1
        assert s.delivered == ["last", "last", "very last"] * 3
        assert s.diary.lines.count("leaving it says goodbye") == 3
        assert s.diary.lines.count("down it says goodbye") == 3
        s.upstream.send.send_nowait(Received(leaving="it says goodbye"))
        s.upstream.cut()
        await wait_all_tasks_blocked()
        assert s.upstream.attempts == 4


async def test_a_stop_takes_what_was_sent_before_the_goodbye(mock_clock: MockClock) -> None:
    """And counts as a sign of life that the connection was whole to its end."""
    upstream = FakeUpstream()

    async def part() -> None:
        upstream.publish("in flight")
        upstream.cut("closed")

    upstream.part = part  # type: ignore[method-assign]
    async with stage("a", upstream=upstream) as s:
        upstream.publish("read")
        await wait_all_tasks_blocked()
        await s.handle.stop("it")
        assert s.delivered == ["read", "in flight"]
        assert s.diary.lines[-2:] == ["parted", "down stopped"]


@pytest.mark.parametrize("is_flood", [False, True])
async def test_a_peer_that_does_not_answer_the_goodbye_is_left(
    autojump_clock: MockClock, is_flood: bool
) -> None:
    """After half a second of silence, and after two seconds of a flood."""
    upstream = FakeUpstream()

    async def part() -> None:
        while is_flood:
            upstream.publish("more")
            await trio.sleep(0.1)

    upstream.part = part  # type: ignore[method-assign]
    async with stage("a", upstream=upstream) as s:
        begun = trio.current_time()
        await s.handle.stop("it")
        assert trio.current_time() - begun == pytest.approx(2.0 if is_flood else 0.5)
        assert s.diary.lines[-1] == "down stopped"
        assert "parted" not in s.diary.lines


async def test_an_upstream_that_talks_nonsense_is_given_up(mock_clock: MockClock) -> None:
    """A message that cannot be used is no sign of life: it is probed, then given up with the reason."""
    async with stage("a") as s:
        for _ in range(15):
            s.upstream.send.send_nowait(Received(problems=[("malformed_json", "?")], messages=1))
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert s.upstream.probes == 1
        assert s.diary.lines[-1] == "down stale: nothing but messages that cannot be used for 15 s"


async def test_one_message_that_makes_sense_is_a_sign_of_life(mock_clock: MockClock) -> None:
    """Between others that cannot be used."""
    async with stage("a") as s:
        for second in range(40):
            nonsense = Received[str](problems=[("unknown_event", "?")], messages=2 if second % 10 == 9 else 1)
            s.upstream.send.send_nowait(nonsense)
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert s.crashes() == []


async def test_an_attempt_waits_for_its_turn(mock_clock: MockClock) -> None:
    """It is told that it waits, and is no failure; a wait that is longer than the watchdog's patience is fine,
    and a stop ends it."""
    upstream, diary, waits = FakeUpstream(), Diary(), [30.0]

    def connector() -> Connector[str]:
        return Connector(
            *(upstream, Interest(["a"]), lambda _: None, lambda _: None, diary, Patience(15, 10)),
            turn=lambda: waits[0],
        )

    spec = Supervisor(children=[Child("it", connector, beat_within=12.0)])
    async with open_supervisor(spec) as handle:
        for _ in range(6):
            await wait_all_tasks_blocked()
            assert upstream.attempts == 0
            waits[0] -= 5
            mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert diary.lines == ["connecting", "waiting 30", "subscribed a", "up a"]
        waits[0] = 100.0
        await handle.restart("it")
        await wait_all_tasks_blocked()
        await handle.stop("it")
        assert diary.lines[-3:] == ["connecting", "waiting 100", "down stopped"]


async def test_an_answer_that_waits_to_be_read_is_not_overdue(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others starve the loop, and each read takes seconds. What has arrived is read before anybody is judged."""
    upstream = FakeUpstream()
    upstream.mute = True
    genuine = upstream.receive

    async def receive() -> Received[str]:
        got = await genuine()
        mock_clock.jump(3)
        return got

    monkeypatch.setattr(upstream, "receive", receive)
    async with stage("a", upstream=upstream) as s:
        for n in range(9):
            s.upstream.publish(str(n))
        s.upstream.send.send_nowait(read("+a"))
        await wait_all_tasks_blocked()
        assert s.crashes() == []
        assert s.diary.lines[-1] == "up a"


async def test_a_topic_is_subscribed_anew_on_demand(mock_clock: MockClock) -> None:
    """Though it is subscribed. The others stay as they are, and so does the connection."""
    async with stage("a", "b") as s:
        s.interest.renew("a")
        await wait_all_tasks_blocked()
        assert s.upstream.log[1:] == [("unsubscribe", ("a",)), ("subscribe", ("a",))]
        assert s.upstream.attempts == 1
        assert s.diary.lines[-2:] == ["unsubscribed a", "subscribed a"]


async def test_a_connection_is_made_anew_on_demand(mock_clock: MockClock) -> None:
    """With the reason, and once: the new connection fulfils every wish that is older than itself."""
    async with stage("a", "b") as s:
        s.interest.renew("a", "a is stalled")
        await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down a is stalled"
        mock_clock.jump(1.0)
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a", "b")), ("subscribe", ("a", "b"))]
        assert s.diary.lines[-1] == "up a,b"


async def test_who_does_not_carry_a_topic_has_nothing_to_renew(mock_clock: MockClock) -> None:
    """Neither a topic that nobody wants, nor one whose subscription is under way."""
    upstream = FakeUpstream()
    upstream.mute = True
    async with stage("a", upstream=upstream) as s:
        s.interest.renew("b", "not wanted")
        s.interest.renew("a")
        await wait_all_tasks_blocked()
        upstream.send.send_nowait(read("+a"))
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",))]
        assert upstream.attempts == 1
