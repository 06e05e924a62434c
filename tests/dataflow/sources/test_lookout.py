"""The actor that looks after the symbols of a source, on a clock of its own, with an upstream that is made up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.cache.store import Store
from dataflow.domain import Missing, Trade
from dataflow.domain.quality import Grade
from dataflow.net.budget import Priority, RestFailed
from dataflow.sources.lookout import Lookout
from dataflow.sources.port import Newest, Request, SourceSettings
from dataflow.sources.reading import Unusable
from dataflow.sources.state import Audience, SourceState
from dataflow.sources.vitals import GRACE, NEWER, NO_ANSWER, NOT_ASKED, UNHEARD
from dataflow.topics.quality import judge
from supervisors import Child, Supervisor, open_supervisor

BTC, ETH = "BTC-USD", "ETH-USD"
STALL_AFTER = 10.0
SKEW = 5_000.0  # seconds between the clock of the loop and the wall clock


@define
class Upstream:
    """Its REST tells the newest sequence of each symbol, all at once or only of the first."""

    newest_sequence: dict[str, int] = field(factory=dict)
    tells_all: bool = True
    trouble: Exception | None = None
    asked: list[list[str]] = field(factory=list)
    weights: list[tuple[int, Priority]] = field(factory=list)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        named = list(symbols) if self.tells_all else list(symbols)[:1]
        return Request(f"/newest?{','.join(named)}", weight=4)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        if isinstance(self.trouble, Unusable):
            raise self.trouble
        named = answer.decode().split(",")
        return {s: Newest(self.newest_sequence[s]) for s in named if s in self.newest_sequence}

    async def get(self, path: str, weight: int, priority: Priority) -> bytes:
        await trio.lowlevel.checkpoint()
        named = path.partition("?")[2]
        self.asked.append(named.split(","))
        self.weights.append((weight, priority))
        if isinstance(self.trouble, RestFailed):
            raise self.trouble
        return named.encode()

    def fill(self, missing: Missing) -> Request | None:
        raise AssertionError("the lookout asks for no trades itself")

    def filled(self, missing: Missing, request: Request, answer: bytes) -> object:
        raise AssertionError("the lookout asks for no trades itself")


class Diary(Audience):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def stalled(self, source: str, symbol: str, reason: str) -> None:
        self.lines.append(f"{symbol} stalled: {reason}")

    def recovered(self, source: str, symbol: str) -> None:
        self.lines.append(f"{symbol} recovered")


@define
class Stage:
    clock: MockClock
    upstream: Upstream = field(factory=Upstream)
    store: Store = field(factory=lambda: Store(1, 1000, 1e9))
    source: SourceState = field(init=False)
    diary: Diary = field(factory=Diary)
    wanted: list[Missing] = field(factory=list)
    refilling: dict[str, bool] = field(factory=dict)
    standby: set[str] = field(factory=set)
    left_out: dict[str, Trade] = field(factory=dict)
    looked: list[tuple[str, ...]] = field(factory=list)  # symbols whose state may have changed

    def __attrs_post_init__(self) -> None:
        settings = SourceSettings(
            connector="x", url="ws://x/", symbols=(BTC, ETH), stall_after=STALL_AFTER, eager=True
        )
        self.source = SourceState("x", settings, self.diary, lambda: 0.0, self._changed)
        self.source.up((BTC, ETH))
        self.source.subscribed(BTC)
        self.source.subscribed(ETH)

    def _changed(self, symbols: Collection[str]) -> None:
        self.looked.append(tuple(symbols))

    def lookout(self, can_ask: bool) -> Lookout:
        @asynccontextmanager
        async def reach() -> AsyncIterator[Upstream]:
            yield self.upstream

        return Lookout(
            self.source,
            self.store.history,
            lambda: trio.current_time() + SKEW,
            filler=self.upstream if can_ask else None,  # type: ignore[arg-type]
            reach=reach,
            wanted=lambda: self.refilling,
            want=self.wanted.append,
            is_standby=self.standby.__contains__,
            left_out=self.left_out.get,
        )

    def trade(self, number: int, symbol: str = BTC, lag: float = 0.25) -> None:
        at = int((trio.current_time() + SKEW - lag) * 1e9)
        made = Trade("x", symbol, str(number), "buy", Decimal(1), Decimal(1), at, number)
        self.store.admit([made], trio.current_time())

    def leave_out(self, number: int) -> None:
        """A trade comes while another source is preferred."""
        self.left_out[BTC] = Trade("x", BTC, str(number), "buy", Decimal(1), Decimal(1), 1, number)

    async def wait(self, seconds: float) -> None:
        """Let so much time pass, in steps that no look misses."""
        for _ in range(int(seconds * 2)):
            self.clock.jump(0.5)
            await wait_all_tasks_blocked()

    def state(self, symbol: str = BTC) -> tuple[Grade, str | None]:
        pulse = self.source.vitals.pulses[symbol]
        return pulse.grade, pulse.reason

    def renewals(self) -> list[tuple[str, str | None]]:
        return [(each.topic, each.reason) for each in self.source.interest.renewals(0)]


@asynccontextmanager
async def stage(clock: MockClock, *, can_ask: bool = True) -> AsyncIterator[Stage]:
    made = Stage(clock)
    spec = Supervisor(children=[Child("lookout", lambda: made.lookout(can_ask), stop_within=0)])
    async with open_supervisor(spec) as handle:
        await wait_all_tasks_blocked()
        await made.wait(1)
        yield made
        assert handle.tree().children[0].restarts == 0


async def test_one_question_for_all_that_are_silent(mock_clock: MockClock) -> None:
    """At the pace of proof of life, with the weight that the connector tells."""
    async with stage(mock_clock) as s:
        s.trade(1, BTC)
        s.trade(1, ETH)
        s.upstream.newest_sequence = {BTC: 1, ETH: 1}
        await s.wait(STALL_AFTER + 2)
        assert [sorted(each) for each in s.upstream.asked] == [[BTC, ETH]]
        assert s.upstream.weights == [(4, Priority.LIFE)]
        assert s.state(BTC) == s.state(ETH) == (Grade.QUIET, None)
        assert s.renewals() == []


async def test_one_question_each_where_the_exchange_has_no_other(mock_clock: MockClock) -> None:
    """The one that waits for longest first."""
    async with stage(mock_clock) as s:
        s.upstream.tells_all = False
        s.trade(1, BTC)
        s.trade(1, ETH)
        s.upstream.newest_sequence = {BTC: 1, ETH: 1}
        await s.wait(STALL_AFTER + 4)
        assert sorted(s.upstream.asked) == [[BTC], [ETH]]
        assert s.state(BTC) == s.state(ETH) == (Grade.QUIET, None)
        assert sorted(s.looked[-2:]) == [(BTC,), (ETH,)], "an answer concerns nobody else: thousands may wait"


async def test_a_stall_is_cured_step_by_step(mock_clock: MockClock) -> None:
    """The symbol is subscribed anew, and what it missed is wanted; if that does not help, a new connection."""
    async with stage(mock_clock) as s:
        s.trade(1)
        s.upstream.newest_sequence = {BTC: 4}
        await s.wait(STALL_AFTER + GRACE + 2)
        assert s.state()[0] is Grade.STALLED
        assert s.renewals() == [(BTC, None)]
        [missing] = s.wanted
        assert (missing.source, missing.symbol, missing.first, missing.last) == ("x", BTC, 2, None)
        assert missing.after is not None
        assert missing.before is None
        s.source.unsubscribed(BTC)
        s.source.subscribed(BTC)
        await s.wait(GRACE + 2)  # where it stands
        s.upstream.newest_sequence = {BTC: 5}
        await s.wait(3 * STALL_AFTER)
        [(symbol, reason)] = s.renewals()
        assert symbol == BTC
        assert reason is not None
        assert BTC in reason
        assert s.diary.lines == [f"{BTC} stalled: {NEWER}"], "told once, however long it lasts"
        s.trade(9)
        await s.wait(2)
        assert s.diary.lines[1:] == [f"{BTC} recovered"]


async def test_a_trade_ends_a_stall(mock_clock: MockClock) -> None:
    """And whoever watches the quality is told: of the stall, and of its end."""
    async with stage(mock_clock) as s:
        s.trade(1)
        s.upstream.newest_sequence = {BTC: 4}
        await s.wait(STALL_AFTER + GRACE + 2)
        s.looked.clear()
        s.trade(5)
        await s.wait(1)
        assert s.state() == (Grade.LIVE, None)
        assert (BTC,) in s.looked


async def test_what_must_be_refused_is_no_life(mock_clock: MockClock) -> None:
    """A source that sends nothing but trades that may be old is stalled, told with its reason and once; what
    comes all at once is a replay, and means nothing; an admitted trade ends it."""
    async with stage(mock_clock) as s:
        s.trade(100)
        for number in range(1, 9):
            s.trade(number, lag=100.0)
        await s.wait(STALL_AFTER / 2)
        assert s.source.vitals.pulses[BTC].stalled is None
        s.looked.clear()
        s.trade(9, lag=90.0)
        s.trade(10, lag=90.0)
        await s.wait(1)
        why = "at least 10 trades were refused since its newest one: their numbers lie behind its own"
        assert judge(s.source, BTC, 0).state is Grade.STALLED
        assert judge(s.source, BTC, 0).reason == why
        assert (BTC,) in s.looked
        s.trade(11, lag=80.0)
        await s.wait(2)
        assert s.diary.lines == [f"{BTC} stalled: {why}"]
        s.trade(101)
        await s.wait(2)
        assert judge(s.source, BTC, 0).state is Grade.LIVE
        assert s.diary.lines[1:] == [f"{BTC} recovered"]


async def test_a_source_that_stands_by_may_have_any_numbering(mock_clock: MockClock) -> None:
    """Its trades reach no history then, so what was refused before proves nothing."""
    async with stage(mock_clock) as s:
        s.trade(100)
        for number in range(1, 4):
            s.trade(number, lag=100.0)
            await s.wait(2)
        assert s.source.vitals.pulses[BTC].stalled is not None
        s.standby.add(BTC)
        await s.wait(2)
        assert s.source.vitals.pulses[BTC].stalled is None
        assert s.diary.lines[1:] == [f"{BTC} recovered"]


async def test_nothing_can_be_asked(mock_clock: MockClock) -> None:
    """A silent symbol is quiet, with that reason; nobody is disturbed."""
    async with stage(mock_clock, can_ask=False) as s:
        s.trade(1)
        await s.wait(STALL_AFTER + 2)
        assert s.state() == (Grade.QUIET, NOT_ASKED)
        assert s.renewals() == []


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(RestFailed("server_error", "HTTP status 500"), "server_error"), (Unusable("malformed"), "malformed")],
)
async def test_no_good_answer(mock_clock: MockClock, trouble: Exception, reason: str) -> None:
    """It is counted by its reason, nothing is concluded, and the next question waits."""
    async with stage(mock_clock) as s:
        s.trade(1, BTC)
        s.trade(1, ETH)
        s.upstream.trouble = trouble
        await s.wait(STALL_AFTER + 2)
        assert s.state() == (Grade.QUIET, NO_ANSWER)
        assert set(s.source.vitals.failed) == {reason}
        assert len(s.upstream.asked) == 1
        assert s.renewals() == []
        assert s.source.problems == ({f"lookout_{reason}": 1} if isinstance(trouble, Unusable) else {})


async def test_a_lost_connection_is_no_silence(mock_clock: MockClock) -> None:
    """Nobody is asked about symbols that cannot come."""
    async with stage(mock_clock) as s:
        s.trade(1)
        s.source.down("cut")
        await s.wait(10 * STALL_AFTER)
        assert s.upstream.asked == []


async def test_a_source_that_stands_by_is_judged_by_what_is_left_out(mock_clock: MockClock) -> None:
    """Nobody waits for the day on which it is needed: it is asked about, stalls, and is subscribed anew. Nothing
    is wanted of it. When it is preferred, that is no sign of life."""
    async with stage(mock_clock) as s:
        s.trade(1)
        await s.wait(1)
        s.standby |= {BTC, ETH}
        s.upstream.newest_sequence = {BTC: 1}
        await s.wait(STALL_AFTER + 2)
        assert s.upstream.asked
        assert s.state() == (Grade.QUIET, None)
        s.leave_out(2)
        await s.wait(1)
        assert s.state() == (Grade.LIVE, None)
        s.upstream.newest_sequence = {BTC: 40}
        await s.wait(STALL_AFTER + GRACE + 2)
        assert s.state() == (Grade.STALLED, NEWER)
        assert s.renewals() == [(BTC, None)]
        stalled = judge(s.source, BTC, 0, "y")
        assert (stalled.state, stalled.reason) == (Grade.STALLED, f"{NEWER}; y is preferred")
        s.standby.clear()
        await s.wait(2)
        assert s.state() == (Grade.STALLED, NEWER)


async def test_what_nobody_knows_of_a_source_that_stands_by_is_told(mock_clock: MockClock) -> None:
    """In the reason: no trade has come yet, or it cannot be asked."""
    async with stage(mock_clock, can_ask=False) as s:
        s.standby.add(BTC)
        await s.wait(1)
        assert judge(s.source, BTC, 0, "y").reason == f"y is preferred; {UNHEARD}"
        s.leave_out(1)
        await s.wait(1)
        assert judge(s.source, BTC, 0, "y").reason == "y is preferred"
        await s.wait(STALL_AFTER + 2)
        told = judge(s.source, BTC, 0, "y")
        assert (told.state, told.reason) == (Grade.STANDBY, f"y is preferred; {NOT_ASKED}")


async def test_a_symbol_that_is_mute_from_its_first_second_is_found(mock_clock: MockClock) -> None:
    """It is never said to be live: until an answer shows more, nobody knows."""
    async with stage(mock_clock) as s:
        assert judge(s.source, BTC, 0).state is Grade.QUIET
        assert judge(s.source, BTC, 0).reason == UNHEARD
        s.upstream.newest_sequence = {BTC: 40, ETH: 7}
        await s.wait(STALL_AFTER + 2)
        assert s.state(BTC) == s.state(ETH) == (Grade.QUIET, UNHEARD)
        s.upstream.newest_sequence = {BTC: 41, ETH: 7}
        await s.wait(2 * STALL_AFTER + GRACE + 2)
        assert s.state(BTC) == (Grade.STALLED, NEWER)
        assert s.state(ETH) == (Grade.QUIET, None)


async def test_a_stalled_symbol_lives_again_while_another_source_is_preferred(mock_clock: MockClock) -> None:
    """Else a source that was left because of a stall would never be taken back, nor when the other one dies.
    The first trade proves nothing: it may be one that the exchange repeats with the new subscription."""
    async with stage(mock_clock) as s:
        s.trade(1)
        await s.wait(1)
        s.upstream.newest_sequence = {BTC: 40, ETH: 40}
        await s.wait(2 * STALL_AFTER + GRACE)
        assert s.state() == (Grade.STALLED, NEWER)
        s.standby.add(BTC)
        await s.wait(60)
        assert s.state() == (Grade.STALLED, NEWER)
        for number in (2, 3):
            assert s.state() == (Grade.STALLED, NEWER)
            s.leave_out(number)
            await s.wait(2)
        assert s.state() == (Grade.LIVE, None)
        assert BTC in s.looked[-1]
        assert s.diary.lines == [f"{BTC} stalled: {NEWER}", f"{BTC} recovered"]


async def test_lag_and_missing_places_are_sampled(mock_clock: MockClock) -> None:
    """The lag from the trade to its admission; the places that are gaps, until they are filled."""
    async with stage(mock_clock) as s:
        for number in range(1, 4):
            s.trade(number, lag=0.25)
            await s.wait(1)
        pulse = s.source.vitals.pulses[BTC]
        assert pulse.lag == pytest.approx(0.25, abs=0.01)
        assert (pulse.missing, pulse.is_gapped) == (0, False)
        s.trade(7)
        await s.wait(1)
        assert (pulse.missing, pulse.is_gapped) == (3, True)
        for number in (4, 5, 6):
            at = s.store.history(BTC).newest_of("x")
            assert at is not None
            missed = Trade("x", BTC, str(number), "buy", Decimal(1), Decimal(1), at.timestamp, number)
            s.store.admit([missed], trio.current_time())
        await s.wait(1)
        assert (pulse.missing, pulse.is_gapped) == (0, False)


async def test_what_is_being_asked_for_is_told(mock_clock: MockClock) -> None:
    """As long as it lasts."""
    async with stage(mock_clock) as s:
        s.trade(1)
        await s.wait(1)
        pulse = s.source.vitals.pulses[BTC]
        s.refilling[BTC] = False
        await s.wait(1)
        assert not pulse.is_refilling, "it is only looked whether there is more"
        s.refilling[BTC] = True
        await s.wait(1)
        assert pulse.is_refilling
        s.refilling.clear()
        await s.wait(1)
        assert not pulse.is_refilling
