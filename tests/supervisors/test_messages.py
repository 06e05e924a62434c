"""Messages: rules 30 to 35 (31 also in test_mailbox_model and test_walk)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from supervisors import (
    ActorGone,
    Ask,
    BadSpec,
    Child,
    Context,
    Limit,
    Mailbox,
    Node,
    Overflow,
    Put,
    Ref,
    Stopping,
    Strategy,
    Supervisor,
    open_supervisor,
)
from supervisors.mailbox import make_box
from tests.supervisors.helpers import (
    NOW,
    SOON,
    TEMPORARY,
    TRANSIENT,
    Boom,
    Log,
    Scripted,
    child,
    scripted,
    settle,
)


def counters(s: Any, path: str) -> tuple[int, int, int, dict[str, int], int]:
    """The counters (accepted, handled, queued, dropped, lost) of a child. Checks rule 31."""

    def look(node: Node) -> Node | None:
        return node if node.path == path else next(filter(None, map(look, node.children)), None)

    node = look(s.tree())
    assert node is not None
    box = node.mailbox
    assert box is not None
    assert box.accepted == box.handled + box.queued + sum(box.dropped.values()) + box.lost_in_flight
    return box.accepted, box.handled, box.queued, box.dropped, box.lost_in_flight


class Collector:
    """Takes one message at a time, once `gate` is set. It crashes on "crash"."""

    def __init__(self, gate: trio.Event, got: list[Any]) -> None:
        self.gate, self.got = gate, got

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        while True:
            await self.gate.wait()
            item = await ctx.receive()
            if item == "crash":
                raise Boom
            self.got.append(item)


def collector(gate: trio.Event, got: list[Any], **settings: Any) -> Child:
    return Child("a", lambda: Collector(gate, got), **{"backoff": NOW, **settings})


async def test_a_mailbox_survives_restarts(autojump_clock: trio.testing.MockClock) -> None:
    """30: messages queued at a crash, and those of the backoff, go to the next incarnation in order."""
    got: list[Any] = []
    gate = trio.Event()
    async with open_supervisor(Supervisor([collector(gate, got, backoff=SOON)])) as s:
        a = s.find("a")
        for item in (1, "crash", 2, 3):
            a.put(item)
        gate.set()
        await settle()
        assert got == [1]
        a.put(4)
        await trio.sleep(2)
        assert got == [1, 2, 3, 4]
        assert counters(s, "a") == (5, 4, 0, {}, 1)


async def test_a_mailbox_survives_the_restart_of_its_supervisor(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """30: and an old Ref stays valid."""
    got: list[Any] = []
    gate = trio.Event()
    inner = Child("in", lambda: Supervisor([collector(gate, got)], limit=Limit(0)), backoff=SOON)
    async with open_supervisor(Supervisor([inner])) as s:
        a = s.find("in/a")
        gate.set()
        for item in ("crash", 1):
            a.put(item)
        await settle()
        assert s.find("in").state == "backoff"
        assert a.put(2) is Put.OK
        await trio.sleep(2)
        assert got == [1, 2]
        assert a is s.find("in/a")


@pytest.mark.parametrize(
    ("overflow", "results", "left", "dropped"),
    [
        (Overflow.BLOCK, [Put.OK, Put.OK, Put.DROPPED, Put.DROPPED], ["a1", "b1"], {"full": 2}),
        (Overflow.DROP_NEWEST, [Put.OK, Put.OK, Put.DROPPED, Put.DROPPED], ["a1", "b1"], {"full": 2}),
        (Overflow.DROP_OLDEST, [Put.OK] * 4, ["a2", "c1"], {"oldest": 2}),
        (Overflow.CONFLATE, [Put.OK] * 4, ["a2", "c1"], {"conflated": 1, "oldest": 1}),
    ],
)
async def test_the_fate_of_a_message_that_meets_a_full_mailbox(
    overflow: Overflow,
    results: list[Put],
    left: list[str],
    dropped: dict[str, int],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """32: it is refused, or the oldest is dropped, or the older one of its key. Each is counted by its reason."""
    got: list[Any] = []
    gate = trio.Event()
    key = (lambda item: item[0]) if overflow is Overflow.CONFLATE else None
    async with open_supervisor(Supervisor([collector(gate, got, mailbox=Mailbox(2, overflow, key))])) as s:
        a = s.find("a")
        puts = ["a1", "b1", "a2", "c1"] if overflow is not Overflow.CONFLATE else ["b1", "a1", "a2", "c1"]
        assert [a.put(item) for item in puts] == results
        assert counters(s, "a")[3] == dropped
        gate.set()
        await settle()
        assert got == left


async def test_conflation_keeps_the_place_and_the_newest(autojump_clock: trio.testing.MockClock) -> None:
    """32: of each key only the newest message remains, in the place of the first."""
    got: list[Any] = []
    gate = trio.Event()
    box = Mailbox(8, Overflow.CONFLATE, key=lambda item: item[0])
    async with open_supervisor(Supervisor([collector(gate, got, mailbox=box)])) as s:
        for item in ("a1", "b1", "a2", "a3", "b2"):
            s.find("a").put(item)
        gate.set()
        await settle()
        assert got == ["a3", "b2"]


async def test_send_waits_for_room_and_keeps_the_order(autojump_clock: trio.testing.MockClock) -> None:
    """32: under BLOCK. No sender overtakes another, and a cancelled one leaves no trace."""
    got: list[Any] = []
    gate = trio.Event()
    async with open_supervisor(Supervisor([collector(gate, got, mailbox=Mailbox(2))])) as s:
        a = s.find("a")
        async with trio.open_nursery() as nursery:
            for item in range(6):
                nursery.start_soon(a.send, item)
                await settle()
            with trio.move_on_after(1):
                await a.send("given up")
            assert counters(s, "a") == (2, 0, 2, {}, 0)
            assert a.put("no room") is Put.DROPPED
            gate.set()
        await settle()
        assert got == [0, 1, 2, 3, 4, 5]


async def test_send_leaves_the_reserved_places_to_put(autojump_clock: trio.testing.MockClock) -> None:
    """32: those who can wait never crowd out those who cannot, and none of them is forgotten."""
    got: list[Any] = []
    gate = trio.Event()
    box = Mailbox(4, reserved=2)
    async with open_supervisor(Supervisor([collector(gate, got, mailbox=box)])) as s:
        a = s.find("a")
        async with trio.open_nursery() as nursery:
            for item in ("a", "b", "c", "d"):
                nursery.start_soon(a.send, item)
                await settle()
            assert counters(s, "a") == (2, 0, 2, {}, 0), "two wait, with two places free"
            assert [a.put(item) for item in (1, 2, 3)] == [Put.OK, Put.OK, Put.DROPPED]
            gate.set()
        await settle()
        assert got == ["a", "b", 1, 2, "c", "d"]


async def test_the_reserve_stays_while_senders_get_on() -> None:
    """32: each message that is taken lets one sender in, and never two."""
    box = make_box(Mailbox(4, reserved=2))
    async with trio.open_nursery() as nursery:
        for item in ("a", "b", "c", "d"):
            nursery.start_soon(box.send, item)
            await settle()
        assert box.take() == "a"
        await settle()
        assert [box.put(item) for item in (1, 2, 3)] == [Put.OK, Put.OK, Put.DROPPED]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("keys", [{"reserved": 2}, {"reserved": -1}, {"overflow": Overflow.DROP_OLDEST}])
def test_a_reserve_that_makes_no_sense(keys: dict[str, Any]) -> None:
    """A sender must find room one day, and only one that waits can leave room."""
    with pytest.raises(BadSpec, match=r"Mailbox\.reserved"):
        Mailbox(2, **{"reserved": 1, **keys})


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
async def test_send_waits_under_block_only(
    overflow: Overflow, autojump_clock: trio.testing.MockClock
) -> None:
    """32: a consumer that is down does not block its sender."""
    async with open_supervisor(Supervisor([child("a", backoff=SOON, mailbox=Mailbox(1, overflow))])) as s:
        a = s.find("a")
        a.put("crash")
        await settle()
        for _ in range(3):
            await a.send("x")
        assert trio.current_time() == 0


async def test_a_waiting_sender_hears_of_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """32: it gets ActorGone and does not wait for ever. Until then it waits through restarts."""
    async with open_supervisor(Supervisor([child("a", backoff=SOON, mailbox=Mailbox(1))])) as s:
        a = s.find("a")
        a.put("crash")
        await settle()
        a.put("hang")
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await a.send("hang")
                with pytest.raises(ActorGone):
                    await a.send("y")

            nursery.start_soon(send)
            await trio.sleep(3)
            await s.stop("a")
        with pytest.raises(ActorGone):
            await a.send("z")
        assert a.put("z") is Put.DROPPED
        assert counters(s, "a")[3] == {"closed": 1}


async def test_a_context_of_an_ended_incarnation_is_dead(autojump_clock: trio.testing.MockClock) -> None:
    """33: the epoch grows by one, and every method of the old Context raises ActorGone."""
    contexts: list[Context] = []

    async def life(ctx: Context) -> None:
        contexts.append(ctx)
        ctx.ready()
        await ctx.receive()
        raise Boom

    async with open_supervisor(Supervisor([scripted("a", life)])) as s:
        s.find("a").put(1)
        await settle()
        old, new = contexts
        assert (old.epoch, new.epoch, s.find("a").epoch) == (1, 2, 2)
        for use in (
            old.ready,
            old.beat,
            lambda: old.receive_nowait_batch(1),
            lambda: old.find("a"),
            lambda: old.supervisor(""),
        ):
            with pytest.raises(ActorGone):
                use()
        with pytest.raises(ActorGone):
            await old.receive()
        assert s.find("a").put(2) is Put.OK


async def test_a_task_that_outlives_its_incarnation_steals_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """33: it waits in `receive` of the old Context, so it is woken with ActorGone."""
    ends: list[str] = []

    async def steal(ctx: Context) -> None:
        try:
            await ctx.receive()
        except ActorGone:
            ends.append("gone")

    async with trio.open_nursery() as outside:

        async def life(ctx: Context) -> None:
            ctx.ready()
            if ctx.epoch == 1:
                outside.start_soon(steal, ctx)
                await trio.sleep(1)
                raise Boom
            ends.append(await ctx.receive())

        async with open_supervisor(Supervisor([scripted("a", life, restart=TEMPORARY), child("b")])) as s:
            await s.start(scripted("c", life))
            await trio.sleep(2)
            s.find("c").put("for the new one")
            await settle()
    assert ends == ["gone", "gone", "for the new one"]


async def test_the_message_in_hand_at_a_crash_is_lost_and_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """34: it is never delivered again. It is counted, and shown in a dead letter."""
    log, got = Log(), []

    async def life(ctx: Context) -> None:
        ctx.ready()
        while True:
            got.append(await ctx.receive())
            if got[-1] == "bad":
                raise Boom

    async with open_supervisor(Supervisor([scripted("a", life)]), on_event=log.hook) as s:
        for item in ("good", "bad", "next"):
            s.find("a").put(item)
        await settle()
        assert got == ["good", "bad", "next"]
        assert counters(s, "a") == (3, 2, 0, {}, 1)
        (letter,) = log.seen("dead_letter")
        assert (letter.path, letter.epoch, letter.detail) == ("a", 1, ("bad",))


async def test_a_batch_in_hand_at_a_crash_is_lost_whole(autojump_clock: trio.testing.MockClock) -> None:
    """34: the received message and the batch drained after it."""
    log = Log()

    async def life(ctx: Context) -> None:
        ctx.ready()
        first = await ctx.receive()
        batch = ctx.receive_nowait_batch(3)
        if ctx.epoch == 1:
            assert (first, batch) == (0, [1, 2, 3])
            batch.clear()  # the actor's list is its own
            raise Boom
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", life)]), on_event=log.hook) as s:
        for item in range(6):
            s.find("a").put(item)
        await settle()
        assert [event.detail for event in log.seen("dead_letter")] == [(0, 1, 2, 3)]
        assert counters(s, "a") == (6, 2, 0, {}, 4)


async def test_what_is_in_hand_counts_as_queued_until_the_next_receive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """31: then it counts as handled, and also at a clean return or at the next batch."""
    steps: list[tuple[int, int]] = []

    async with open_supervisor(Supervisor()) as s:

        def note() -> None:
            _, handled, queued, _, lost = counters(s, "a")
            assert lost == 0
            steps.append((handled, queued))

        async def life(ctx: Context) -> None:
            ctx.ready()
            await ctx.receive()
            note()
            await ctx.receive()
            note()
            ctx.receive_nowait_batch(2)
            note()
            ctx.receive_nowait_batch(2)
            note()

        a = await s.start(Child("a", lambda: Scripted(life), restart=TRANSIENT))
        for item in range(6):
            a.put(item)
        await settle()
        note()
        assert steps == [(0, 6), (1, 5), (1, 5), (4, 2), (6, 0)]


async def test_a_message_whose_handling_was_cut_by_a_stop_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """34: a message in hand at a cancel does not count as handled."""
    log = Log()
    async with open_supervisor(Supervisor([child("a", log)]), on_event=log.hook) as s:
        s.find("a").put("hang")
        s.find("a").put("next")
        await settle()
        await s.stop("a")
        assert counters(s, "a") == (2, 0, 1, {}, 1)
        assert log.seen("dead_letter")[0].detail == ("hang",)


async def test_receive_raises_stopping_and_leaves_what_is_queued(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The contract: the actor can still drain a batch."""
    ends: list[Any] = []

    async def life(ctx: Context) -> None:
        ctx.ready()
        await ctx.stopping.wait()
        for _ in range(2):
            with pytest.raises(Stopping):
                await ctx.receive()
        ends.extend(ctx.receive_nowait_batch(1))

    async with open_supervisor(Supervisor([scripted("a", life)])) as s:
        for item in range(3):
            s.find("a").put(item)
        await s.stop("a")
        assert ends == [0]
        assert counters(s, "a") == (3, 1, 2, {}, 0)


async def test_one_reader_at_a_time() -> None:
    """A second receive is a BusyResourceError, as everywhere in Trio."""

    async def life(ctx: Context) -> None:
        ctx.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.receive)
            await settle()
            with pytest.raises(trio.BusyResourceError):
                await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", life)])):
        await settle()


async def test_put_wakes_a_parked_reader_once() -> None:
    """Many puts cause one wake-up, and the reader finds all messages."""
    batches: list[list[Any]] = []

    async def life(ctx: Context) -> None:
        ctx.ready()
        while True:
            first = await ctx.receive()
            batches.append([first, *ctx.receive_nowait_batch(10)])

    async with open_supervisor(Supervisor([scripted("a", life)])) as s:
        await settle()
        for item in range(5):
            s.find("a").put(item)
        await settle()
        assert batches == [[0, 1, 2, 3, 4]]


def echo(**settings: Any) -> Child:
    async def life(ctx: Context) -> None:
        ctx.ready()
        while True:
            ask = await ctx.receive()
            if not isinstance(ask, Ask):
                raise Boom
            if ask.item == "crash":
                raise Boom
            if ask.item == "slow crash":
                await trio.sleep(1)
                raise Boom
            if ask.item == "hang":
                await trio.sleep_forever()
            if ask.item == "twice":
                ask.reply(1)
            ask.reply(ask.item)

    return scripted("a", life, **settings)


async def failed(ref: Ref, item: Any, within: float = 1.0) -> tuple[str, float]:
    begin = trio.current_time()
    try:
        await ref.ask(item, within)
    except Exception as error:
        return type(error).__name__, trio.current_time() - begin
    return "", 0.0


async def test_ask_gets_one_reply(autojump_clock: trio.testing.MockClock) -> None:
    """The contract: a second reply is an error of the actor; an unanswered question takes `within`."""
    async with open_supervisor(Supervisor([echo()])) as s:
        a = s.find("a")
        assert await a.ask("x") == "x"
        assert await a.ask("twice") == 1
        await settle()
        assert a.epoch == 2
        assert await failed(a, "hang", within=2) == ("TooSlowError", 2)


@pytest.mark.parametrize("restart", ["permanent", "temporary"])
async def test_ask_to_a_crashing_actor_fails_promptly(
    restart: str, autojump_clock: trio.testing.MockClock
) -> None:
    """35: the question in hand and the queued ones. None of them is delivered again."""
    results: list[Any] = []
    settings = {"restart": TEMPORARY} if restart == "temporary" else {"backoff": SOON}
    async with open_supervisor(Supervisor([echo(**settings)])) as s, trio.open_nursery() as nursery:
        a = s.find("a")

        async def ask(item: str) -> None:
            results.append(await failed(a, item, within=60))

        nursery.start_soon(ask, "slow crash")
        await settle()
        for item in ("x", "y"):
            nursery.start_soon(ask, item)
        await trio.sleep(1.5)
        assert results == [("ActorGone", 1)] * 3
        if restart == "permanent":
            assert counters(s, "a") == (3, 0, 0, {"asker_gone": 2}, 1)
            await trio.sleep(2)
            assert await a.ask("x") == "x"


async def test_ask_of_one_that_is_down(autojump_clock: trio.testing.MockClock) -> None:
    """35: in backoff the question waits for the next incarnation; after the end for good it fails at once."""
    async with open_supervisor(Supervisor([echo(backoff=SOON)])) as s:
        a = s.find("a")
        a.put("not an Ask")
        await settle()
        assert await failed(a, "x", within=0.5) == ("TooSlowError", 0.5)
        assert counters(s, "a")[2] == 0  # a question without an asker is dropped
        assert await a.ask("x", within=1) == "x"
        await s.stop("a")
        assert await failed(a, "x") == ("ActorGone", 0)


async def test_a_question_that_is_dropped_fails_promptly(autojump_clock: trio.testing.MockClock) -> None:
    """32: the asker of a dropped question is told at once and does not wait."""
    for overflow in (Overflow.DROP_NEWEST, Overflow.DROP_OLDEST):
        async with (
            open_supervisor(Supervisor([echo(mailbox=Mailbox(1, overflow))])) as s,
            trio.open_nursery() as nursery,
        ):
            a = s.find("a")
            results: list[Any] = []

            async def ask(item: str, a: Ref = a, results: list[Any] = results) -> None:
                results.append((item, *await failed(a, item, within=5)))

            nursery.start_soon(ask, "hang")
            await settle()
            for item in ("1", "2"):
                nursery.start_soon(ask, item)
                await settle()
            dropped = "2" if overflow is Overflow.DROP_NEWEST else "1"
            assert results == [(dropped, "TooSlowError", 0)]


async def test_conflation_never_replaces_a_question(autojump_clock: trio.testing.MockClock) -> None:
    """32: two questions about one key are two questions."""
    answers: list[Any] = []
    box = Mailbox(8, Overflow.CONFLATE, key=lambda item: "same")
    async with open_supervisor(Supervisor([echo(mailbox=box)])) as s, trio.open_nursery() as nursery:

        async def ask(item: int) -> None:
            answers.append(await s.find("a").ask(item))

        for item in range(3):
            nursery.start_soon(ask, item)
        await settle()
        assert sorted(answers) == [0, 1, 2]


async def test_downstream_sees_a_contiguous_continuation(autojump_clock: trio.testing.MockClock) -> None:
    """33: across crashes of the consumer every message arrives once or is a dead letter."""
    log = Log()
    got: list[int] = []

    async def consume(ctx: Context) -> None:
        ctx.ready()
        while True:
            item = await ctx.receive()
            if item % 7 == 3:
                raise Boom
            got.append(item)

    spec = Supervisor([scripted("c", consume)], strategy=Strategy.ONE_FOR_ALL, limit=Limit(None))
    async with open_supervisor(spec, on_event=log.hook) as s:
        for item in range(100):
            s.find("c").put(item)
            if item % 5 == 0:
                await settle()
        await settle()
        lost = [item for event in log.seen("dead_letter") for item in event.detail]
        assert got == sorted(got)
        assert sorted(got + lost) == list(range(100))


async def test_a_supervisor_has_no_mailbox(autojump_clock: trio.testing.MockClock) -> None:
    """A Ref to a supervisor can be watched, but takes no messages."""
    async with open_supervisor(Supervisor([Child("in", lambda: Supervisor([child("a")]))])) as s:
        assert s.find("in").put(1) is Put.DROPPED
        with pytest.raises(ActorGone):
            await s.find("in").send(1)
        assert s.tree().children[0].mailbox is None
