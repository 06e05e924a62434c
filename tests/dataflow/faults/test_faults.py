"""Faults: what is possible where, which one strikes, and the books that are kept of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
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
    place_of,
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


class TestWhatIsPossible:
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
    def test_each_sort_of_actor_suffers_these_and_no_others(self, path: str, point: str, kinds: str) -> None:
        """What makes no sense somewhere is refused there."""
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
        """Who names no point means the next occasion at which the actor does its work."""
        assert Faults().inject(path, "crash").point == point

    def test_a_refusal_says_what_would_be_possible(self) -> None:
        """In words, and in data for programs."""
        with pytest.raises(FaultError) as caught:
            Faults().inject(SHARD, "drop")
        assert str(caught.value) == (
            "an actor with a mailbox cannot suffer a drop at receive; "
            "possible there: crash, hang, delay at start, ready, stop, receive"
        )
        assert caught.value.data["usual"] == "receive"
        assert caught.value.data["possible"]["receive"] == ("crash", "hang", "delay")

    @pytest.mark.parametrize(
        ("order", "told"),
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
    def test_nonsense_is_refused_with_its_reason(self, order: dict[str, Any], told: str) -> None:
        """And leaves nothing behind."""
        faults = Faults()
        with pytest.raises(FaultError, match=told.replace("+", r"\+")):
            faults.inject(**order)
        assert faults.active() == []

    @pytest.mark.parametrize("point", ["ready", "stop"])
    @pytest.mark.parametrize("path", ["cache", "topics", "sources", "gateway", ANY_CLIENT])
    def test_a_hang_that_nobody_would_notice_needs_an_end(self, path: str, point: str) -> None:
        """A supervisor may take its time to start and to stop: a hang there would be for ever."""
        with pytest.raises(FaultError, match="how many seconds"):
            Faults().inject(path, "hang", point=point)
        assert Faults().inject(path, "hang", point=point, seconds=2).seconds == 2

    def test_a_delay_lasts_a_second_unless_told(self) -> None:
        """A hang has no end unless told, and nothing else lasts."""
        assert Faults().inject(SHARD, "delay").seconds == 1
        assert Faults().inject(SHARD, "hang").seconds is None
        assert Faults().inject(SHARD, "crash").seconds is None

    def test_their_number_is_bounded(self) -> None:
        """One too many is refused until another is withdrawn."""
        faults = Faults()
        for _ in range(MOST_IN_FORCE):
            faults.inject(SHARD, "crash")
        with pytest.raises(TooManyFaults, match="withdraw one first"):
            faults.inject(SHARD, "crash")
        faults.withdraw(faults.active()[0].id)
        faults.inject(SHARD, "crash")
        faults.clear()
        assert faults.active() == []


class TestWhichOneStrikes:
    def test_only_at_its_point_and_its_actor(self) -> None:
        """A fault harms nobody else, and its actor nowhere else."""
        faults = Faults()
        faults.inject(SHARD, "crash")
        assert faults.visit("receive", "cache/shard-1") is None
        assert faults.visit("receive", f"{SHARD}0") is None
        assert faults.visit("start", SHARD) is None
        assert visited(faults, "receive", SHARD) is Kind.CRASH
        assert faults.visit("receive", SHARD) is None

    def test_any_session_is_the_first_that_comes(self) -> None:
        """At `message` the pool stands for its sessions; at `start` for itself."""
        faults = Faults()
        faults.inject(ANY_CLIENT, "disconnect")
        assert visited(faults, MESSAGE, CLIENT) is Kind.DISCONNECT
        faults.inject(ANY_CLIENT, "crash", point="start")
        assert faults.visit("start", CLIENT) is None
        assert visited(faults, "start", ANY_CLIENT) is Kind.CRASH

    def test_one_session_is_only_that_one(self) -> None:
        """A number means that session and no other."""
        faults = Faults()
        faults.inject(CLIENT, "disconnect")
        assert faults.visit(MESSAGE, "gateway/sessions/33") is None
        assert visited(faults, MESSAGE, CLIENT) is Kind.DISCONNECT

    def test_only_kinds_that_the_visitor_can_suffer(self) -> None:
        """What drops messages leaves the others to whoever can perform them."""
        faults = Faults()
        faults.inject(SOURCE, "disconnect")
        assert faults.visit(MESSAGE, SOURCE, (Kind.DROP,)) is None
        assert visited(faults, MESSAGE, SOURCE) is Kind.DISCONNECT

    def test_the_oldest_strikes_first(self) -> None:
        """One visit, one stroke, in the order of injection."""
        faults = Faults()
        for kind in ("crash", "delay", "hang"):
            faults.inject(SHARD, kind)
        struck = [visited(faults, "receive", SHARD) for _ in range(4)]
        assert struck == [Kind.CRASH, Kind.DELAY, Kind.HANG, None]

    @given(
        st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=8),
        st.lists(st.floats(0, 1, exclude_max=True), min_size=8, max_size=8),
    )
    def test_the_dice_decide_for_each_candidate(
        self, made: list[tuple[float, bool]], rolls: list[float]
    ) -> None:
        """The first candidate whose roll is below its probability; whoever is no candidate is not rolled for."""
        faults = Faults()
        for probability, here in made:
            faults.inject(SHARD if here else SOURCE, "crash", probability=probability)
        candidates = [n for n, (_, here) in enumerate(made) if here]
        expected = next((n for roll, n in zip(rolls, candidates, strict=False) if roll < made[n][0]), None)
        found = striking(faults._in_force.values(), "receive", SHARD, tuple(Kind), iter(rolls).__next__)
        assert (None if found is None else found.id - 1) == expected

    def test_the_same_seed_strikes_the_same_visits(self) -> None:
        """A run can be repeated; another seed is another run."""

        def strokes(seed: int) -> list[Kind | None]:
            faults = Faults(seed)
            faults.inject(SHARD, "crash", probability=0.3, times=1000)
            return [visited(faults, "receive", SHARD) for _ in range(100)]

        assert strokes(7) == strokes(7)
        assert strokes(7) != strokes(8)
        assert 10 < strokes(7).count(Kind.CRASH) < 60


def visited(faults: Faults, point: str, path: str) -> Kind | None:
    """The kind that strikes at this visit, suffered at once."""

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
    def test_no_stroke_is_lost_or_counted_twice(self, steps: list[Any], seed: int) -> None:
        """Whatever is injected, visited, withdrawn and ended in whatever order: a fault strikes no more often
        than its times, is in force until then or while it is suffered, and the totals are the sum of all."""

        async def main() -> None:
            faults, open_, struck = Faults(seed), [], 0
            left: dict[int, int] = {}  # the model: how often each fault that is in force may still strike
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
        """Of three who suffer one fault two are free, one of them told so twice: it can still be withdrawn."""
        faults = Faults()
        made = faults.inject(SHARD, "hang", times=3)
        strikes = [strike for _ in range(3) if (strike := faults.visit("receive", SHARD)) is not None]
        for strike in (strikes[0], strikes[0], strikes[1]):
            strike.end()
            assert [fault.id for fault in faults.active()] == [made.id]
        strikes[2].end()
        assert faults.active() == []

    def test_sessions_are_counted_together(self) -> None:
        """However many sessions come and go, the counter has one line for each kind."""
        faults = Faults()
        for n in range(5):
            faults.inject(f"{ANY_CLIENT}/{n}", "crash")
            visited(faults, MESSAGE, f"{ANY_CLIENT}/{n}")
        assert faults.struck == {(ANY_CLIENT, "crash"): 5}


class TestAsTheHook:
    async def test_a_crash_is_told_apart(self) -> None:
        """InjectedFault, with the point and the fault's number."""
        faults = Faults()
        faults.inject(SHARD, "crash")
        with pytest.raises(InjectedFault, match=r"injected crash at receive \(fault 1\)"):
            await faults(Point.RECEIVE, SHARD, 1)
        assert faults.active() == []
        await faults(Point.RECEIVE, SHARD, 1)

    async def test_a_delay_lasts_its_seconds(self, autojump_clock: MockClock) -> None:
        """On Trio's clock, and it is in force meanwhile."""
        faults = Faults()
        faults.inject(SHARD, "delay", seconds=2.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(faults, Point.RECEIVE, SHARD, 1)
            await trio.sleep(2)
            assert [fault.struck for fault in faults.active()] == [1]
        assert trio.current_time() == 2.5
        assert faults.active() == []

    async def test_a_hang_ends_when_it_is_withdrawn(self, autojump_clock: MockClock) -> None:
        """Not before, and all who hang in it are free."""
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
        """An actor that was found hanging and ended leaves nothing in force."""
        faults = Faults()
        faults.inject(SHARD, "hang")
        with trio.move_on_after(5) as scope:
            await faults(Point.RECEIVE, SHARD, 1)
        assert scope.cancelled_caught
        assert faults.active() == []


class FakeLink:
    """An upstream link, or a client's wire, that gives what is sent to it."""

    peer = "fake"
    heard = 0.0

    def __init__(self) -> None:
        self.send, self._receive = trio.open_memory_channel[Any](10)
        self.written: list[Any] = []
        self.aborted = False

    async def receive(self) -> Any:
        return await self._receive.receive()

    async def subscribe(self, topics: Any) -> None: ...
    async def unsubscribe(self, topics: Any) -> None: ...
    async def probe(self) -> None: ...
    async def ping(self) -> None: ...
    async def write(self, payloads: Any) -> None: ...
    async def close(self, why: Ending, words: str) -> None: ...
    @staticmethod
    def pack(texts: Any) -> Any: ...

    def write_nowait(self, payload: Any) -> None:
        self.written.append(payload)

    def abort(self) -> None:
        self.aborted = True


def batch(*items: Any) -> Received[Item]:
    return Received(items=list(items))


class TestOfALink:
    async def test_a_hang_outlasts_the_reader_and_loses_nothing(self, autojump_clock: MockClock) -> None:
        """The connector asks twice within one silence: the second read must hang on, and once the fault is
        withdrawn everything is there, in order."""
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
        """What hung with it is no longer in force."""
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
    async def test_what_raises(self, kind: str, raised: type[Exception]) -> None:
        """A lost link is a lost link, a crash is a crash."""
        faults, fake = Faults(), FakeLink()
        faults.inject(SOURCE, kind)
        await fake.send.send(batch(1))
        with pytest.raises(raised, match="injected"):
            await FaultyLink(fake, faults, SOURCE).receive()


class TestOfAWire:
    async def test_a_listener_that_says_nothing_is_struck_by_what_it_is_sent(
        self, autojump_clock: MockClock
    ) -> None:
        """The sender notices nothing; the reader's wire is aborted, and ends as a lost connection does."""
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
        """Whoever writes to a session must not die of it."""
        faults, fake = Faults(), FakeLink()
        wire = FaultyWire(fake, faults, CLIENT)
        faults.inject(CLIENT, "crash")
        wire.write_nowait("update")
        with pytest.raises(InjectedFault):
            await wire.receive()
        assert not fake.aborted

    async def test_a_delay_loses_no_request(self, autojump_clock: MockClock) -> None:
        """Also when the reader gives up waiting meanwhile, to send a ping."""
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

    async def test_who_suffers_is_not_struck_again(self, autojump_clock: MockClock) -> None:
        """Messages that pass meanwhile leave the fault's further strokes for later."""
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
        """What delayed it is no longer in force."""
        faults, fake = Faults(), FakeLink()
        wire = FaultyWire(fake, faults, CLIENT)
        faults.inject(CLIENT, "delay", seconds=1000)
        wire.write_nowait("update")
        assert len(faults.active()) == 1
        if (closing := end(wire)) is not None:
            await closing
        assert faults.active() == []


def node(path: str, kind: str = "actor", state: str = "running", *children: Node) -> Node:
    return Node(path, kind, state, 1, 0, None, 0.0, None, tuple(children))


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


class TestTheSchedule:
    def test_only_what_comes_back_by_itself_is_chosen(self) -> None:
        """Never a supervisor, the server, the demo's exchanges, itself, or what does not run; and every plan is
        possible, and a delay is short."""
        rng = random.Random(1)
        plans = [choose(LIVING, rng) for _ in range(2000)]
        assert None not in plans
        faults = Faults()
        for plan in filter(None, plans):
            made = faults.inject(plan.path, plan.kind, seconds=plan.seconds)
            assert made.seconds is None or made.seconds <= 2
            faults.clear()
        chosen = {plan.path for plan in filter(None, plans)}
        assert chosen - {f"gateway/sessions/{n}" for n in range(50)} == {
            "cache/shard-0", "topics/BTC-USD", "sources/binance", "sources/blockchain",
        }  # fmt: skip

    def test_every_kind_comes_and_a_crowd_does_not_shield_the_few(self) -> None:
        """Fifty sessions are struck about as often as the one shard."""
        rng = random.Random(2)
        plans = [plan for _ in range(2000) if (plan := choose(LIVING, rng)) is not None]
        assert {(place_of(plan.path).name, plan.kind) for plan in plans} == {
            (place.name, kind)
            for place in map(place_of, (SHARD, SOURCE, CLIENT))
            for kind in place.kinds[place.usual]
        }
        shares = [
            sum(place_of(plan.path) is place_of(path) for plan in plans) for path in (SHARD, SOURCE, CLIENT)
        ]
        assert all(500 < share < 850 for share in shares), shares

    def test_the_same_seed_chooses_the_same(self) -> None:
        """A run can be repeated."""

        def plans(seed: int) -> list[Any]:
            rng = random.Random(seed)
            return [choose(LIVING, rng) for _ in range(50)]

        assert plans(3) == plans(3)
        assert plans(3) != plans(4)

    def test_nothing_to_break_is_no_plan(self) -> None:
        """A tree that only starts is left alone."""
        assert choose(node("", "supervisor", "starting"), random.Random(0)) is None

    async def schedule(self, seed: int, faults: Faults, seconds: float) -> list[tuple[float, str, str]]:
        """What was injected in so many seconds, and when, into a tree of two actors of which none is visited."""

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
        """About so many a minute, at the same moments for the same seed, a restart of the schedule included."""
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
        """Only then; and one that comes back goes on with the dice, not back to their seed."""
        chaos = Chaos(enabled=enabled, seed=1, faults_per_minute=rate)
        children = app.chaos(Core(Settings(chaos=chaos)))
        assert len(children) == there
        for child in children:
            assert child.make() is child.make()

    async def test_what_does_not_strike_is_withdrawn(self, autojump_clock: MockClock) -> None:
        """Quiet corners do not fill the list, so that the operator can still add to it."""
        faults = Faults()
        mine = faults.inject(SOURCE, "crash")
        await self.schedule(5, faults, 600)
        assert len(faults.active()) <= 17
        assert mine.id in [fault.id for fault in faults.active()]


def test_the_patience_with_a_connector_covers_every_wait_of_its() -> None:
    """Dial, opening, subscription, half a silence, a probe, the other half: longer than all, or it would bite a
    quiet market."""
    about = SourceSettings(
        connector="x", url="", connect_within=1000.0, subscribe_within=100.0, stale_after=20.0
    )
    assert beat_within(about) > 1000 + 100 + 100 + 10 + 100 + 10
