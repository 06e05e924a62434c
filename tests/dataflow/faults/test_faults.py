"""Faults: the possible ones of each actor type, the choice of the one that strikes, and the counters."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.connector import LinkLost, Received
from actors.session import Ending, WireClosed
from dataflow import app
from dataflow.app import beat_within
from dataflow.core import Core
from dataflow.domain import Item
from dataflow.faults.at_random import RandomFaults, choose
from dataflow.faults.registry import (
    LONGEST,
    MESSAGE,
    MOST_IN_FORCE,
    FaultError,
    Faults,
    InjectedFault,
    Kind,
    TooManyFaults,
    UnknownFault,
    actor_type,
    striking,
)
from dataflow.gateway.faulty import FaultyWire
from dataflow.settings.schema import Chaos, Settings
from dataflow.sources.faulty import FaultyLink
from dataflow.sources.port import SourceSettings
from supervisors import Child, Node, Point, Supervisor, open_supervisor

SHARD = "cache/shard-0"
SOURCE = "sources/binance"
CLIENT = "gateway/sessions/3"
ANY_CLIENT = "gateway/sessions"


class TestPossibleFaults:
    @pytest.mark.parametrize(
        ("path", "point", "kinds"),
        [
            (SHARD, "receive", "crash hang delay"),
            ("topics/BTC-USD", "receive", "crash hang delay"),
            (SOURCE, "message", "crash hang delay drop disconnect"),
            (SOURCE, "start", "crash hang delay"),
            (CLIENT, "message", "crash delay disconnect"),
            (ANY_CLIENT, "message", "crash delay disconnect"),
            ("gateway/http", "start", "crash hang delay"),
            ("cache", "start", "crash hang delay"),
            ("exchanges", "stop", "crash hang delay"),
        ],
    )
    def test_each_actor_type_suffers_these_and_no_others(self, path: str, point: str, kinds: str) -> None:
        """Every other kind is refused at this point."""
        for kind in Kind:
            if kind in kinds.split():
                assert Faults().inject(path, kind, point=point).kind is kind
            else:
                with pytest.raises(FaultError):
                    Faults().inject(path, kind, point=point)

    @pytest.mark.parametrize(
        ("path", "point"),
        [
            (SHARD, "receive"),
            ("topics/X-Y", "receive"),
            (SOURCE, "message"),
            (CLIENT, "message"),
            (ANY_CLIENT, "message"),
            ("gateway/http", "start"),
            ("sources", "start"),
            ("gateway", "start"),
        ],
    )
    def test_the_usual_point_is_the_next_message_where_there_are_messages(
        self, path: str, point: str
    ) -> None:
        """Without a point, a fault strikes at the next occasion at which the actor works."""
        assert Faults().inject(path, "crash").point == point

    def test_a_refusal_says_what_would_be_possible(self) -> None:
        """The refusal lists the possible faults in words, and in data for programs."""
        with pytest.raises(FaultError) as caught:
            Faults().inject(SHARD, "drop")
        assert str(caught.value) == (
            "an actor with a mailbox cannot suffer a drop at receive; "
            "possible there: crash, hang, delay at start, ready, stop, receive"
        )
        assert caught.value.data["usual"] == "receive"
        assert caught.value.data["possible"]["receive"] == ("crash", "hang", "delay")

    @pytest.mark.parametrize(
        ("wanted", "told"),
        [
            ({"path": "", "kind": "crash"}, "nothing supervises the root"),
            ({"path": SHARD, "kind": "explode"}, "there is no fault 'explode'"),
            ({"path": SHARD, "kind": "crash", "point": "message"}, "has no point 'message'"),
            ({"path": "cache", "kind": "crash", "point": "receive"}, "a supervisor has no point 'receive'"),
            ({"path": SHARD, "kind": "crash", "seconds": 1}, "a crash takes no seconds"),
            ({"path": SHARD, "kind": "delay", "seconds": -1}, "seconds must be from 0 to 3600, not -1"),
            ({"path": SHARD, "kind": "hang", "seconds": LONGEST + 1}, "seconds must be"),
            ({"path": SHARD, "kind": "hang", "seconds": float("nan")}, "seconds must be"),
            (
                {"path": SHARD, "kind": "crash", "probability": 1.5},
                "probability must be from 0 to 1, not 1.5",
            ),
            ({"path": SHARD, "kind": "crash", "times": 0}, "times must be from 1 to 1e+06, not 0"),
        ],
    )
    def test_nonsense_is_refused_with_its_reason(self, wanted: dict[str, Any], told: str) -> None:
        """After a refusal no fault is in force."""
        faults = Faults()
        with pytest.raises(FaultError, match=told.replace("+", r"\+")):
            faults.inject(**wanted)
        assert faults.active() == []

    @pytest.mark.parametrize("point", ["ready", "stop"])
    @pytest.mark.parametrize("path", ["cache", "topics", "sources", "gateway", ANY_CLIENT])
    def test_a_hang_without_a_watchdog_needs_an_end(self, path: str, point: str) -> None:
        """The start and the stop of a supervisor have no time limit: a hang there would last for ever."""
        with pytest.raises(FaultError, match="how many seconds"):
            Faults().inject(path, "hang", point=point)
        assert Faults().inject(path, "hang", point=point, seconds=2).seconds == 2

    def test_a_delay_lasts_a_second_unless_told(self) -> None:
        """Without `seconds` a hang has no end. The other kinds have no duration."""
        assert Faults().inject(SHARD, "delay").seconds == 1
        assert Faults().inject(SHARD, "hang").seconds is None
        assert Faults().inject(SHARD, "crash").seconds is None

    def test_their_number_is_bounded(self) -> None:
        """One fault too many is refused until another one is withdrawn."""
        faults = Faults()
        for _ in range(MOST_IN_FORCE):
            faults.inject(SHARD, "crash")
        with pytest.raises(TooManyFaults, match="withdraw one first"):
            faults.inject(SHARD, "crash")
        faults.withdraw(faults.active()[0].id)
        faults.inject(SHARD, "crash")
        faults.clear()
        assert faults.active() == []


class TestStriking:
    def test_only_at_its_point_and_its_actor(self) -> None:
        """A fault hits no other actor, and no other point of its actor."""
        faults = Faults()
        faults.inject(SHARD, "crash")
        assert faults.visit("receive", "cache/shard-1") is None
        assert faults.visit("receive", f"{SHARD}0") is None
        assert faults.visit("start", SHARD) is None
        assert visited(faults, "receive", SHARD) is Kind.CRASH
        assert faults.visit("receive", SHARD) is None

    def test_any_session_is_the_first_that_comes(self) -> None:
        """At `message` the pool means any session; at `start` it means the pool itself."""
        faults = Faults()
        faults.inject(ANY_CLIENT, "disconnect")
        assert visited(faults, MESSAGE, CLIENT) is Kind.DISCONNECT
        faults.inject(ANY_CLIENT, "crash", point="start")
        assert faults.visit("start", CLIENT) is None
        assert visited(faults, "start", ANY_CLIENT) is Kind.CRASH

    def test_one_session_is_only_that_one(self) -> None:
        """A path with a number means this session and no other."""
        faults = Faults()
        faults.inject(CLIENT, "disconnect")
        assert faults.visit(MESSAGE, "gateway/sessions/33") is None
        assert visited(faults, MESSAGE, CLIENT) is Kind.DISCONNECT

    def test_only_kinds_that_the_visitor_can_suffer(self) -> None:
        """A visitor that can only drop messages leaves the other kinds to other visitors."""
        faults = Faults()
        faults.inject(SOURCE, "disconnect")
        assert faults.visit(MESSAGE, SOURCE, (Kind.DROP,)) is None
        assert visited(faults, MESSAGE, SOURCE) is Kind.DISCONNECT

    def test_the_oldest_strikes_first(self) -> None:
        """Each visit gets one strike, in the order of injection."""
        faults = Faults()
        for kind in ("crash", "delay", "hang"):
            faults.inject(SHARD, kind)
        struck = [visited(faults, "receive", SHARD) for _ in range(4)]
        assert struck == [Kind.CRASH, Kind.DELAY, Kind.HANG, None]

    @given(
        st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=8),
        st.lists(st.floats(0, 1, exclude_max=True), min_size=8, max_size=8),
    )
    def test_the_probability_decides_for_each_candidate(
        self, made: list[tuple[float, bool]], rolls: list[float]
    ) -> None:
        """The first candidate with a roll below its probability strikes. Other faults use up no roll."""
        faults = Faults()
        for probability, here in made:
            faults.inject(SHARD if here else SOURCE, "crash", probability=probability)
        candidates = [n for n, (_, here) in enumerate(made) if here]
        expected = next((n for roll, n in zip(rolls, candidates, strict=False) if roll < made[n][0]), None)
        found = striking(faults._in_force.values(), "receive", SHARD, tuple(Kind), iter(rolls).__next__)
        assert (None if found is None else found.id - 1) == expected

    def test_the_same_seed_strikes_the_same_visits(self) -> None:
        """The same seed repeats a run; another seed gives another run."""

        def strikes(seed: int) -> list[Kind | None]:
            faults = Faults(seed)
            faults.inject(SHARD, "crash", probability=0.3, times=1000)
            return [visited(faults, "receive", SHARD) for _ in range(100)]

        assert strikes(7) == strikes(7)
        assert strikes(7) != strikes(8)
        assert 10 < strikes(7).count(Kind.CRASH) < 60


def visited(faults: Faults, point: str, path: str) -> Kind | None:
    """The kind that strikes at this visit. The strike ends at once."""

    async def visit() -> Kind | None:
        strike = faults.visit(point, path)
        if strike is not None:
            strike.end()
        return None if strike is None else strike.kind

    return trio.run(visit)


class TestBookkeeping:
    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("inject"), st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0])),
                st.tuples(st.just("visit"), st.booleans(), st.none()),
                st.tuples(st.just("withdraw"), st.integers(1, 12), st.none()),
                st.tuples(st.just("end"), st.integers(0, 5), st.none()),
            ),
            max_size=40,
        ),
        st.integers(0, 2**16),
    )
    def test_no_strike_is_lost_or_counted_twice(self, steps: list[Any], seed: int) -> None:
        """For any order of injections, visits, withdrawals and ends: a fault strikes at most `times` times, is in
        force until its last strike has ended, and the totals are the sum of all strikes."""

        async def main() -> None:
            faults, open_, struck = Faults(seed), [], 0
            left: dict[int, int] = {}  # the model: remaining strikes of each fault in force
            suffered: dict[int, int] = {}
            for step, argument, more in steps:
                if step == "inject":
                    injected = faults.inject(SHARD, "crash", times=argument, probability=more)
                    left[injected.id], suffered[injected.id] = argument, 0
                elif step == "visit":
                    path = SHARD if argument else "cache/shard-1"
                    strike = faults.visit("receive", path)
                    if strike is not None:
                        assert argument
                        id = strike._fault.id
                        left[id] -= 1
                        suffered[id] += 1
                        struck += 1
                        open_.append((id, strike))
                elif step == "withdraw":
                    if argument in left:
                        faults.withdraw(argument)
                        left.pop(argument)
                    else:
                        with pytest.raises(UnknownFault):
                            faults.withdraw(argument)
                elif open_:
                    id, strike = open_.pop(argument % len(open_))
                    strike.end()
                    strike.end()
                    suffered[id] -= 1
                for id in [id for id, times in left.items() if not times and not suffered[id]]:
                    del left[id]
                assert min(left.values(), default=0) >= 0
                assert [fault.id for fault in faults.active()] == list(left)
                assert {f.id: f.times - f.struck for f in faults.active()} == left
                assert faults.struck == ({(SHARD, "crash"): struck} if struck else {})

        trio.run(main)

    async def test_a_fault_is_in_force_until_the_last_one_is_free(self) -> None:
        """Two of three strikes have ended, one of them twice: the fault can still be withdrawn."""
        faults = Faults()
        made = faults.inject(SHARD, "hang", times=3)
        strikes = [strike for _ in range(3) if (strike := faults.visit("receive", SHARD)) is not None]
        for strike in (strikes[0], strikes[0], strikes[1]):
            strike.end()
            assert [fault.id for fault in faults.active()] == [made.id]
        strikes[2].end()
        assert faults.active() == []

    def test_a_fault_of_many_strikes_does_not_fill_the_log(self) -> None:
        """The first strike is a warning. The others are counted, and lines for those who debug."""
        lines: list[str] = []
        sink = logger.add(lambda message: lines.append(message), format="{level} {message}", level="DEBUG")
        try:
            faults = Faults(1)
            faults.inject("cache/shard-0", "crash", times=100)
            for _ in range(100):
                assert visited(faults, "receive", "cache/shard-0") is Kind.CRASH
        finally:
            logger.remove(sink)
        assert [line for line in lines if "DEBUG" not in line] == [
            "WARNING fault 1 strikes at receive: crash\n"
        ]
        assert faults.struck == {("cache/shard-0", "crash"): 100}

    def test_sessions_are_counted_together(self) -> None:
        """The counter has one entry for each kind, however many sessions there were."""
        faults = Faults()
        for n in range(5):
            faults.inject(f"{ANY_CLIENT}/{n}", "crash")
            visited(faults, MESSAGE, f"{ANY_CLIENT}/{n}")
        assert faults.struck == {(ANY_CLIENT, "crash"): 5}


class TestAsTheHook:
    async def test_a_crash_is_marked_as_injected(self) -> None:
        """The error is an InjectedFault with the point and the id of the fault."""
        faults = Faults()
        faults.inject(SHARD, "crash")
        with pytest.raises(InjectedFault, match=r"injected crash at receive \(fault 1\)"):
            await faults(Point.RECEIVE, SHARD, 1)
        assert faults.active() == []
        await faults(Point.RECEIVE, SHARD, 1)

    async def test_a_delay_lasts_its_seconds(self, autojump_clock: MockClock) -> None:
        """It lasts `seconds` on Trio's clock, and the fault stays in force meanwhile."""
        faults = Faults()
        faults.inject(SHARD, "delay", seconds=2.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(faults, Point.RECEIVE, SHARD, 1)
            await trio.sleep(2)
            assert [fault.struck for fault in faults.active()] == [1]
        assert trio.current_time() == 2.5
        assert faults.active() == []

    async def test_a_hang_ends_when_it_is_withdrawn(self, autojump_clock: MockClock) -> None:
        """A hang lasts until its withdrawal, which frees every task in it."""
        faults = Faults()
        hang = faults.inject(SHARD, "hang", times=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(faults, Point.RECEIVE, SHARD, 1)
            nursery.start_soon(faults, Point.RECEIVE, SHARD, 2)
            await trio.sleep(10_000)
            faults.withdraw(hang.id)
        assert trio.current_time() == 10_000
        assert faults.active() == []

    async def test_a_hang_that_is_cancelled_is_over(self, autojump_clock: MockClock) -> None:
        """A watchdog cancels the hanging actor: afterwards no fault is in force."""
        faults = Faults()
        faults.inject(SHARD, "hang")
        with trio.move_on_after(5) as scope:
            await faults(Point.RECEIVE, SHARD, 1)
        assert scope.cancelled_caught
        assert faults.active() == []


class FakeLink:
    """An upstream link or a client's wire. It receives the messages that the test sends to it."""

    peer = "fake"
    heard = 0.0
    stays = False

    def __init__(self) -> None:
        self.send, self._receive = trio.open_memory_channel[Any](10)
        self.written: list[Any] = []
        self.aborted = False

    async def receive(self) -> Any:
        return await self._receive.receive()

    async def turn(self) -> int: ...  # type: ignore[empty-body]
    async def subscribe(self, topics: Any) -> None: ...
    async def unsubscribe(self, topics: Any) -> None: ...
    async def probe(self) -> None: ...
    async def part(self) -> None: ...
    async def ping(self) -> None: ...
    async def write(self, payloads: Any) -> None: ...
    async def close(self, why: Ending, words: str, code: int | None = None) -> None: ...
    def turn_binary(self) -> None: ...
    @staticmethod
    def pack(texts: Any) -> Any: ...
    @staticmethod
    def size(payload: Any) -> int: ...  # type: ignore[empty-body]
    def piece(self, text: bytes, first: bool, last: bool) -> Any: ...

    def write_nowait(self, payload: Any) -> None:
        self.written.append(payload)

    def abort(self) -> None:
        self.aborted = True


def batch(*items: Any) -> Received[Item]:
    return Received(items=list(items))


class TestFaultyLink:
    async def test_a_hang_outlasts_the_reader_and_loses_nothing(self, autojump_clock: MockClock) -> None:
        """The connector reads twice within one silence. The second read must hang too, and after the withdrawal
        of the fault every message arrives, in order."""
        faults, fake = Faults(), FakeLink()
        link = FaultyLink(fake, faults, SOURCE)
        hang = faults.inject(SOURCE, "hang")
        first, second = batch(1), batch(2)
        await fake.send.send(first)
        await fake.send.send(second)
        for _ in range(3):
            with trio.move_on_after(5) as scope:
                await link.receive()
            assert scope.cancelled_caught
        assert [fault.id for fault in faults.active()] == [hang.id]
        faults.withdraw(hang.id)
        assert await link.receive() is first
        assert await link.receive() is second

    async def test_a_link_that_is_let_go_suffers_no_more(self, autojump_clock: MockClock) -> None:
        """The hang ends with its link and is no longer in force."""
        faults, fake = Faults(), FakeLink()
        link = FaultyLink(fake, faults, SOURCE)
        faults.inject(SOURCE, "hang")
        await fake.send.send(batch(1))
        with trio.move_on_after(5):
            await link.receive()
        assert len(faults.active()) == 1
        link.let_go()
        assert faults.active() == []

    @pytest.mark.parametrize(("kind", "raised"), [("disconnect", LinkLost), ("crash", InjectedFault)])
    async def test_kinds_that_raise(self, kind: str, raised: type[Exception]) -> None:
        """A disconnect raises LinkLost, a crash raises InjectedFault."""
        faults, fake = Faults(), FakeLink()
        faults.inject(SOURCE, kind)
        await fake.send.send(batch(1))
        with pytest.raises(raised, match="injected"):
            await FaultyLink(fake, faults, SOURCE).receive()


class TestFaultyWire:
    async def test_a_silent_client_is_struck_by_an_update_to_it(self, autojump_clock: MockClock) -> None:
        """The writer notices nothing. The wire is aborted, and the reader sees a lost connection."""
        faults, fake = Faults(), FakeLink()
        wire = FaultyWire(fake, faults, CLIENT)
        faults.inject(CLIENT, "disconnect")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(WireClosed) as caught:
                    await wire.receive()
                assert (caught.value.why, caught.value.words) == (Ending.GONE, "injected disconnect")

            await wait_all_tasks_blocked()
            assert not fake.aborted
            assert wire.write_nowait("update") is None
        assert fake.written == ["update"]
        assert fake.aborted

    async def test_a_crash_strikes_the_reader_only(self) -> None:
        """The topic that writes to a session must not die of its fault."""
        faults, fake = Faults(), FakeLink()
        wire = FaultyWire(fake, faults, CLIENT)
        faults.inject(CLIENT, "crash")
        wire.write_nowait("update")
        with pytest.raises(InjectedFault):
            await wire.receive()
        assert not fake.aborted

    async def test_a_delay_loses_no_request(self, autojump_clock: MockClock) -> None:
        """Requests survive also when the reader interrupts its wait to send a ping."""
        faults, fake = Faults(), FakeLink()
        wire = FaultyWire(fake, faults, CLIENT)
        faults.inject(CLIENT, "delay", seconds=3)
        await fake.send.send("one")
        await fake.send.send("two")
        with trio.move_on_after(2) as scope:
            await wire.receive()
        assert scope.cancelled_caught
        assert await wire.receive() == "one"
        assert trio.current_time() == 3
        assert await wire.receive() == "two"

    async def test_no_second_strike_during_a_strike(self, autojump_clock: MockClock) -> None:
        """Messages that pass during a delay do not use up the further strikes of the fault."""
        faults, fake = Faults(), FakeLink()
        wire = FaultyWire(fake, faults, CLIENT)
        faults.inject(CLIENT, "delay", seconds=3, times=2)
        wire.write_nowait("one")
        wire.write_nowait("two")
        assert [fault.struck for fault in faults.active()] == [1]
        await fake.send.send("request")
        assert await wire.receive() == "request"
        assert trio.current_time() == 6
        assert faults.active() == []

    @pytest.mark.parametrize("end", [lambda wire: wire.close(Ending.GONE, ""), lambda wire: wire.abort()])
    async def test_a_wire_that_ends_suffers_no_more(self, end: Callable[[Any], Any]) -> None:
        """The delay ends with its wire and is no longer in force."""
        faults, fake = Faults(), FakeLink()
        wire = FaultyWire(fake, faults, CLIENT)
        faults.inject(CLIENT, "delay", seconds=1000)
        wire.write_nowait("update")
        assert len(faults.active()) == 1
        if (closing := end(wire)) is not None:
            await closing
        assert faults.active() == []


def node(path: str, kind: str = "actor", state: str = "running", *children: Node) -> Node:
    return Node(path, kind, state, 1, 0, None, None, 0.0, None, tuple(children))


LIVING = node(
    "", "supervisor", "running",
    node("exchanges"),
    node("cache", "supervisor", "running", node("cache/shard-0"), node("cache/shard-1", state="backoff")),
    node("topics", "pool", "running", node("topics/BTC-USD")),
    node("sources", "supervisor", "running", node("sources/binance"), node("sources/blockchain")),
    node("gateway", "supervisor", "running",
         node("gateway/sessions", "pool", "running", *(node(f"gateway/sessions/{n}") for n in range(50))),
         node("gateway/http")),
    node("chaos"),
)  # fmt: skip


class TestRandomFaults:
    def test_only_actors_that_come_back_by_themselves_are_chosen(self) -> None:
        """Supervisors, the HTTP server, the demo's exchanges, the actor itself and actors that do not run are
        never chosen. Every choice is a possible fault, and delays are short."""
        rng = random.Random(1)
        chosen = [choose(LIVING, rng) for _ in range(2000)]
        assert None not in chosen
        faults = Faults()
        for fault in filter(None, chosen):
            made = faults.inject(fault.path, fault.kind, seconds=fault.seconds)
            assert made.seconds is None or made.seconds <= 2
            faults.clear()
        paths = {fault.path for fault in filter(None, chosen)}
        assert paths - {f"gateway/sessions/{n}" for n in range(50)} == {
            "cache/shard-0", "topics/BTC-USD", "sources/binance", "sources/blockchain",
        }  # fmt: skip

    def test_every_kind_comes_and_a_crowd_does_not_shield_the_few(self) -> None:
        """Fifty sessions together are struck about as often as the single shard."""
        rng = random.Random(2)
        chosen = [fault for _ in range(2000) if (fault := choose(LIVING, rng)) is not None]
        assert {(actor_type(fault.path).name, fault.kind) for fault in chosen} == {
            (actor.name, kind)
            for actor in map(actor_type, (SHARD, SOURCE, CLIENT))
            for kind in actor.kinds[actor.usual]
        }
        shares = [
            sum(actor_type(fault.path) is actor_type(path) for fault in chosen)
            for path in (SHARD, SOURCE, CLIENT)
        ]
        assert all(500 < share < 850 for share in shares), shares

    def test_the_same_seed_chooses_the_same(self) -> None:
        """A seed makes a run repeatable."""

        def chosen(seed: int) -> list[Any]:
            rng = random.Random(seed)
            return [choose(LIVING, rng) for _ in range(50)]

        assert chosen(3) == chosen(3)
        assert chosen(3) != chosen(4)

    def test_without_a_target_there_is_no_fault(self) -> None:
        """No actor of a tree that is still starting is chosen."""
        assert choose(node("", "supervisor", "starting"), random.Random(0)) is None

    async def schedule(self, seed: int, faults: Faults, seconds: float) -> list[tuple[float, str, str]]:
        """Run the schedule for `seconds` on two actors that visit no point. Returns (time, path, kind) of each
        injection."""

        class Idle:
            async def run(self, ctx: Any) -> None:
                ctx.ready()
                await ctx.stopping.wait()

        seen: list[tuple[float, str, str]] = []
        began, inject = trio.current_time(), faults.inject

        def note(path: str, kind: str, **more: Any) -> Any:
            seen.append((trio.current_time() - began, path, kind))
            return inject(path, kind, **more)

        faults.inject = note  # type: ignore[method-assign]
        actor = RandomFaults(faults, 60.0, random.Random(seed))
        cache = Child("cache", lambda: Supervisor([Child("shard-0", Idle), Child("shard-1", Idle)]))
        tree = Supervisor([cache, Child("chaos", lambda: actor)])
        async with open_supervisor(tree, blocked_after=None) as root:
            await trio.sleep(seconds / 2)
            await root.restart("chaos")
            await trio.sleep(seconds / 2)
        return seen

    async def test_the_rate_and_the_seed(self, autojump_clock: MockClock) -> None:
        """The rate is about as configured. The same seed gives the same moments, also across a restart of the
        actor."""
        first = await self.schedule(5, Faults(), 600)
        again = await self.schedule(5, Faults(), 600)
        assert [(path, kind) for _, path, kind in first] == [(path, kind) for _, path, kind in again]
        assert [at for at, *_ in first] == pytest.approx([at for at, *_ in again])
        assert await self.schedule(6, Faults(), 600) != first
        assert 480 < len(first) < 720
        moments = [at for at, *_ in first]
        assert len({round(b - a, 3) for a, b in pairwise(moments)}) > 400

    @pytest.mark.parametrize(("enabled", "rate", "there"), [(True, 1.0, 1), (True, 0.0, 0), (False, 1.0, 0)])
    def test_it_is_in_the_tree_when_it_is_asked_for(self, enabled: bool, rate: float, there: int) -> None:
        """The actor is in the tree only when it is configured. A new incarnation continues with the same random
        generator instead of starting again from the seed."""
        chaos = Chaos(enabled=enabled, seed=1, faults_per_minute=rate)
        children = app.chaos(Core(Settings(chaos=chaos)))
        assert len(children) == there
        for child in children:
            assert child.make() is child.make()

    async def test_faults_that_do_not_strike_are_withdrawn(self, autojump_clock: MockClock) -> None:
        """Faults at quiet actors do not fill the list, so the operator can still add faults."""
        faults = Faults()
        mine = faults.inject(SOURCE, "crash")
        await self.schedule(5, faults, 600)
        assert len(faults.active()) <= 17
        assert mine.id in [fault.id for fault in faults.active()]


def test_the_watchdog_of_a_connector_covers_all_its_waits() -> None:
    """Dial, opening, subscription, half a silence, a probe and the other half: the watchdog waits longer than all
    of them together. Otherwise it would restart the connector of a quiet market."""
    about = SourceSettings(
        connector="x", url="", connect_within=1000.0, subscribe_within=100.0, stale_after=20.0
    )
    assert beat_within(about) > 1000 + 100 + 100 + 10 + 100 + 10
