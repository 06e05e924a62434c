"""Promises of dataflow.sources.backfill: with the real history, and Binance's REST without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trio
from attrs import define, field
from msgspec.structs import replace
from trio.testing import MockClock

from actors.connector import Received
from dataflow.cache.store import Store
from dataflow.connectors.binance import Codec, Filler, Settings
from dataflow.domain import Gap, Item, Missed, Missing, Refilled, Trade
from dataflow.net.budget import LIMITED_FOR, Budget, Priority, RestFailed
from dataflow.sources.backfill import PIECE, QUIET_FOR, Refiller
from dataflow.sources.port import Filler as Port
from dataflow.sources.port import Newest, Page, Request
from dataflow.sources.reading import Unusable
from dataflow.sources.state import Audience, SourceState
from dataflow.sources.wanted import LIES, OPEN_FOR, Refills
from simulators import Trade as Published
from simulators.exchanges.binance import binance_rest, trade_payload
from supervisors import Child, Supervisor, open_supervisor

BTC, ETH = "BTC-USDT", "ETH-USDT"
Answer = Callable[[str, dict[str, str]], bytes]


def published(number: int, symbol: str = BTC, price: str | None = None) -> Published:
    name = symbol.replace("-", "")
    return Published(
        number, name, "buy", price or f"{100 + number}", "1", 1_700_000_000_000_000 + number * 1000
    )


@define(eq=False, slots=False)
class Stage:
    """One source, a store that waits for what is missing, and an exchange that knows all trades.

    `answers` replaces the next answers: a failure, or a function of path and query.
    """

    hold: float = 2.0
    settings: dict[str, Any] = field(factory=dict)
    filler: Port | None = None
    answers: list[Exception | Answer] = field(factory=list)
    tape: list[Published] = field(factory=list)
    asked: list[tuple[str, Priority]] = field(factory=list)
    delivered: list[Refilled] = field(factory=list)
    refills: Refills = field(factory=Refills)
    budget: Budget = field(factory=lambda: Budget(100_000))
    crash_at: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        more = {
            "connector": "binance",
            "url": "ws://x",
            "symbols": (BTC, ETH),
            "hold": self.hold,
            **self.settings,
        }
        make: Any = Settings
        self.keys = make(**more)
        self.source = SourceState("bn", self.keys, Audience(), lambda: 0.0, steady=trio.current_time)
        self.codec = Codec("bn", self.keys)
        self.store = Store(1, 100_000, 1e6, holds=lambda _: self.hold, missing=partial(self._want))

    def _want(self, missing: Missing) -> None:
        self.refills.add(missing, self.hold)

    def live(self, *numbers: int, symbol: str = BTC) -> None:
        """These trades come by the stream, and those before them are on the tape."""
        into = Received[Item]()
        for number in numbers:
            self.codec.decode(trade_payload(published(number, symbol)), into)
        self.store.admit(into.items, trio.current_time())

    def trade(self, number: int, symbol: str = BTC) -> Trade:
        into = Received[Item]()
        self.codec.decode(trade_payload(published(number, symbol)), into)
        (item,) = into.items
        assert isinstance(item, Trade)
        return item

    async def get(self, path: str, weight: int, priority: Priority) -> bytes:
        self.asked.append((path, priority))
        await trio.lowlevel.checkpoint()
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        answer = self.answers.pop(0) if self.answers else self.honest
        if isinstance(answer, Exception):
            raise answer
        return answer(parts.path, query)

    def honest(self, path: str, query: dict[str, str]) -> bytes:
        return binance_rest(path, query, lambda symbol: [t for t in self.tape if t.symbol == symbol]).body

    async def put(self, items: Sequence[Item]) -> None:
        await trio.lowlevel.checkpoint()
        if self.crash_at:
            raise RuntimeError(self.crash_at.pop())
        self.delivered += [item for item in items if isinstance(item, Refilled)]
        self.store.admit(items, trio.current_time())

    @asynccontextmanager
    async def reach(self) -> AsyncIterator[Stage]:
        yield self

    def stream(self, symbol: str = BTC) -> list[int | tuple[int, ...]]:
        """What a reader sees: ids, and gaps as (places,); (places, 0) of an inexact one."""
        told: list[int | tuple[int, ...]] = []
        log = self.store.history(symbol)
        for entry in log.read(0, 10**6):
            if isinstance(entry, Gap):
                size = entry.last - entry.first + 1
                told.append((size,) if entry.exact else (size, 0))
            else:
                told.append(int(entry.trade.trade_id or 0))
        return told

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        def make() -> Refiller:
            return Refiller(
                self.source,
                self.keys,
                self.filler or Filler("bn", self.keys),
                self.reach,
                self.budget,
                self.refills,
                self.put,
                lambda symbol: self.store.history(symbol).newest_of("bn"),
                lambda missing: self.store.history(missing.symbol).lacks(missing),
            )

        spec = Supervisor(children=(Child("refill", make, stop_within=0),))
        async with open_supervisor(spec, on_event=lambda _event: None, blocked_after=None):
            await trio.testing.wait_all_tasks_blocked()
            yield


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_missing_trades_come_in_time_and_nobody_hears_of_a_gap(autojump_clock: MockClock) -> None:
    """They stand in their places before those that waited."""
    stage = Stage()
    stage.tape = [published(number) for number in range(20)]
    async with stage.running():
        stage.live(1, 2, 3, 7, 8)
        assert stage.stream() == [1, 2, 3]
        await settled()
        assert stage.stream() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert stage.asked == [("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=3&limit=5", Priority.HOLD)]
    assert (stage.refills.filled, stage.refills.open, stage.refills.told) == (3, 0, 0)


async def test_what_comes_too_late_fills_the_gap_that_was_told(autojump_clock: MockClock) -> None:
    """The hold is over: the trades behind go on. The gap is filled in place when the upstream answers."""
    stage = Stage(answers=[RestFailed("server_error", "no", wait=5.0)])
    stage.tape = [published(number) for number in range(20)]
    async with stage.running():
        stage.live(1, 4)
        await settled()
        assert stage.stream() == [1, (2,), 4]  # at once: nothing could be asked in the time of the hold
        await trio.sleep(5)
        await settled()
        assert stage.stream() == [1, 2, 3, 4]
    assert stage.asked[-1][1] is Priority.FILL
    assert stage.source.problems == {"refill_server_error": 1}
    assert (stage.refills.told, stage.refills.open) == (1, 0)


async def test_a_hold_has_its_end_while_a_question_is_under_way(autojump_clock: MockClock) -> None:
    """At the deadline, not before; the answer still fills."""
    answered = trio.Event()
    stage = Stage()
    stage.tape = [published(number) for number in range(20)]
    get = stage.get

    async def slow(path: str, weight: int, priority: Priority) -> bytes:
        await answered.wait()
        return await get(path, weight, priority)

    stage.get = slow  # type: ignore[method-assign]
    async with stage.running():
        stage.live(1, 4)
        await trio.sleep(1.99)
        assert stage.stream() == [1]
        await trio.sleep(0.02)
        assert stage.stream() == [1, (2,), 4]
        answered.set()
        await settled()
        assert stage.stream() == [1, 2, 3, 4]


def changed(*numbers: int) -> Answer:
    """Wrong prices for some trades."""

    def answer(path: str, query: dict[str, str]) -> bytes:
        tape = [published(number, price="7" if number in numbers else None) for number in range(20)]
        return binance_rest(path, query, lambda _symbol: tape).body

    return answer


def more(path: str, query: dict[str, str]) -> bytes:
    """Trades that nobody asked for."""
    return binance_rest(
        path, {"symbol": query["symbol"]}, lambda _symbol: [published(n) for n in range(20)]
    ).body


@pytest.mark.parametrize(
    "lie", [changed(3), changed(7), more, lambda *_: b"<html>", lambda *_: b'[{"id":4}]']
)
async def test_an_answer_that_cannot_be_true_is_refused(autojump_clock: MockClock, lie: Answer) -> None:
    """As a whole, and counted as a problem of the source; the next one is asked for after a moment."""
    stage = Stage(answers=[lie])
    stage.tape = [published(number) for number in range(20)]
    async with stage.running():
        stage.live(1, 2, 3, 7)
        await settled()
        assert stage.stream() == [1, 2, 3]
        assert not stage.delivered
        assert sum(stage.refills.refused.values()) == 1
        ((reason, times),) = stage.source.problems.items()
        assert (reason.startswith("refill_"), times) == (True, 1)
        await trio.sleep(0.5)
        assert stage.stream() == [1, 2, 3, 4, 5, 6, 7]


async def test_three_lies_open_the_circuit_for_a_minute(autojump_clock: MockClock) -> None:
    """What waits goes on at once, because nothing can be asked in time. Then an honest answer fills the gap."""
    stage = Stage(hold=10.0, answers=[changed(3)] * LIES)
    stage.tape = [published(number) for number in range(20)]
    async with stage.running():
        stage.live(1, 2, 3, 7)
        await trio.sleep(1)
        assert len(stage.asked) == LIES
        assert stage.stream() == [1, 2, 3, (3,), 7]
        await trio.sleep(OPEN_FOR - 2)
        assert len(stage.asked) == LIES
        await trio.sleep(2)
        assert stage.stream() == [1, 2, 3, 4, 5, 6, 7]


async def test_one_question_without_a_true_answer_is_not_in_the_way_of_all_others(
    autojump_clock: MockClock,
) -> None:
    """What the upstream says of BTC never agrees with the stream. When the circuit lets one question through, it
    is another one."""
    stage = Stage(hold=0.0)
    stage.tape = [published(number, symbol) for number in range(20) for symbol in (BTC, ETH)]
    stage.tape[6] = published(3, price="7")
    async with stage.running():
        stage.live(1, 2, 3, 7)
        await trio.sleep(5)
        assert stage.refills.breaker.opened == 1
        stage.live(1, 2, 3, 7, symbol=ETH)
        await trio.sleep(2 * OPEN_FOR)
        assert stage.stream(ETH) == [1, 2, 3, 4, 5, 6, 7]
        assert stage.stream() == [1, 2, 3, (3,), 7]


async def test_a_gap_stays_when_nobody_answers_in_all_the_time(autojump_clock: MockClock) -> None:
    """Asked less and less often, then given up: counted, told, and known by its symbol."""
    stage = Stage(settings={"refill_within": 100.0}, answers=[RestFailed("unreachable", "no")] * 1000)
    async with stage.running():
        stage.live(1, 4)
        await trio.sleep(99)
        assert stage.refills.missing(BTC) == 2
        assert 5 < len(stage.asked) < 20
        await trio.sleep(40)
        asked = len(stage.asked)
        assert (stage.refills.given_up, stage.refills.open, list(stage.refills.gapped)) == (1, 0, [BTC])
        await trio.sleep(100)
        assert len(stage.asked) == asked
    assert stage.stream() == [1, (2,), 4]
    assert stage.source.problems["refill_given_up"] == 1


async def test_a_rest_that_is_late_is_asked_again(autojump_clock: MockClock) -> None:
    """What it has is delivered; the rest within the time of the hold, if it comes."""
    stage = Stage()
    stage.tape = [published(number) for number in range(4)]
    async with stage.running():
        stage.live(1, 2, 6)
        await settled()
        assert stage.stream() == [1, 2, 3]
        stage.tape = [published(number) for number in range(20)]
        await trio.sleep(1)
        assert stage.stream() == [1, 2, 3, 4, 5, 6]
    assert stage.asked[-1][0].endswith("fromId=3&limit=4")


async def test_a_large_loss_is_asked_for_in_parts(autojump_clock: MockClock) -> None:
    """And delivered in pieces, in order."""
    stage = Stage(hold=60.0)
    stage.tape = [published(number) for number in range(13_001)]
    async with stage.running():
        stage.live(1, 13_000)
        await trio.sleep(10)
    assert stage.stream() == list(range(1, 13_001))
    assert max(len(each.trades) for each in stage.delivered) == PIECE
    assert not stage.source.problems


async def test_many_symbols_are_asked_for_at_once_and_the_urgent_first(autojump_clock: MockClock) -> None:
    """Those for which trades wait come before those whose gap was told."""
    stage = Stage(answers=[RestFailed("broken", "no", wait=3.0)])
    stage.tape = [published(number, symbol) for number in range(20) for symbol in (BTC, ETH)]
    async with stage.running():
        stage.live(1, 4)
        await settled()
        assert stage.stream() == [1, (2,), 4]
        await trio.sleep(2)
        stage.live(1, 4, symbol=ETH)
        await trio.sleep(2)
        assert stage.stream(ETH) == [1, 2, 3, 4]
        assert stage.stream() == [1, 2, 3, 4]
    assert [("ETH" in path, priority) for path, priority in stage.asked[1:]] == [
        (True, Priority.HOLD),
        (False, Priority.FILL),
    ]


async def test_a_crash_loses_nothing(autojump_clock: MockClock) -> None:
    """The question is open still, and the next incarnation asks again."""
    stage = Stage(crash_at=["defect"])
    stage.tape = [published(number) for number in range(20)]
    async with stage.running():
        stage.live(1, 4)
        await trio.sleep(3)
        assert stage.stream() == [1, 2, 3, 4]
    assert len(stage.asked) == 2
    assert stage.refills.open == 0


async def test_an_upstream_that_says_slow_down_in_its_answer_is_left_alone(autojump_clock: MockClock) -> None:
    """Some do so with status 200. Others of its source ask nothing either."""

    class Limited:
        def fill(self, missing: Missing) -> Request | None:
            return Request("/x")

        def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
            raise Unusable("rate_limited")

        def latest(self, symbols: Sequence[str]) -> Request | None:
            return None

        def newest(self, symbols: Sequence[str], answer: bytes) -> dict[str, Newest]:
            return {}

    stage = Stage(filler=Limited(), answers=[lambda *_: b""] * 100)
    async with stage.running():
        stage.live(1, 4)
        await settled()
        assert 0 < stage.budget.closed_for(trio.current_time()) <= LIMITED_FOR
        assert stage.stream() == [1, (2,), 4]
    assert stage.refills.failed == {"rate_limited": 1}


async def test_the_pieces_of_one_answer_are_one_whole(autojump_clock: MockClock) -> None:
    """Without sequences nothing else shows it. The upstream is late, so its answer is not all; but what it has stands
    without a gap in between."""
    stage, number = Stage(), 2 * PIECE + 100
    nameless = [replace(stage.trade(each), sequence=None) for each in range(1, number + 10)]

    class Nameless:
        def fill(self, missing: Missing) -> Request | None:
            return Request("/x")

        def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
            return Page(nameless[:number])

        def latest(self, symbols: Sequence[str]) -> Request | None:
            return None

        def newest(self, symbols: Sequence[str], answer: bytes) -> dict[str, Newest]:
            return {}

    stage.filler, stage.answers = Nameless(), [lambda *_: b""] * 100
    async with stage.running():
        stage.store.admit([nameless[0], Missed("bn", BTC, "source_gap"), nameless[-1]], trio.current_time())
        await trio.sleep(3)
    gap = (1, 0)
    assert stage.stream() == [1, gap, *range(2, number + 1), gap, number + 9]
    assert not stage.source.problems


async def test_what_cannot_be_asked_for_is_not_waited_for(autojump_clock: MockClock) -> None:
    """A connector may know that there is no such question."""

    class Mute(Filler):
        def fill(self, missing: Missing) -> Request | None:
            return None

    stage = Stage()
    stage.filler = Mute("bn", stage.keys)
    async with stage.running():
        stage.live(1, 4)
        await settled()
        assert stage.stream() == [1, (2,), 4]
    assert stage.refills.given_up == 1


async def test_a_symbol_that_stays_quiet_after_a_reconnection_is_complete(autojump_clock: MockClock) -> None:
    """Its first trade would show what was missed, but none comes. So its newest id is asked for."""
    stage = Stage()
    stage.tape = [published(number, symbol) for number in range(9) for symbol in (BTC, ETH)]
    async with stage.running():
        stage.live(1, 2)
        stage.live(*range(1, 9), symbol=ETH)
        for symbol in (BTC, ETH):
            stage.source.subscribed(symbol)
        stage.source.up((BTC, ETH))
        await trio.sleep(QUIET_FOR + 2)
        assert stage.stream() == list(range(1, 9))
        ticker, trades = stage.asked
        assert ticker[0].startswith("/api/v3/ticker")
        assert "BTCUSDT" in trades[0]
        await trio.sleep(100)
        assert len(stage.asked) == 2


async def test_a_quiet_symbol_is_asked_for_what_came_a_moment_after_its_newest_trade(
    autojump_clock: MockClock,
) -> None:
    """An upstream without sequences tells the id and the time; another id with a later time is newer."""

    class Nameless(Filler):
        def newest(self, symbols: Sequence[str], answer: bytes) -> dict[str, Newest]:
            return {BTC: Newest(None, "3", published(2).timestamp_us * 1000 + 1_000_000)}

    stage = Stage()
    stage.filler = Nameless("bn", stage.keys)
    stage.tape = [published(number) for number in range(1, 4)]
    async with stage.running():
        stage.live(1, 2)
        stage.source.subscribed(BTC)
        stage.source.up((BTC,))
        await trio.sleep(QUIET_FOR + 2)
    assert stage.stream() == [1, 2, 3]


async def test_an_upstream_that_knows_no_trade_of_a_quiet_symbol_is_believed(
    autojump_clock: MockClock,
) -> None:
    """Some tell only those of the last hour. Each symbol is asked about once, and nobody crashes."""
    stage = Stage(answers=[lambda *_: b"[]"] * 10)
    async with stage.running():
        for symbol in (BTC, ETH):
            stage.live(1, 2, symbol=symbol)
            stage.source.subscribed(symbol)
        stage.source.up((BTC, ETH))
        await trio.sleep(100)
        assert len(stage.asked) == 2
        assert stage.refills.open == 0
        assert stage.stream() == [1, 2]


async def test_nobody_is_asked_about_quiet_symbols_in_vain(autojump_clock: MockClock) -> None:
    """While the upstream does not answer it is tried now and then, not once for each symbol. Then all is as ever."""
    stage = Stage(answers=[RestFailed("unreachable", "no")] * 5)
    stage.tape = [published(number, symbol) for number in range(9) for symbol in (BTC, ETH)]
    async with stage.running():
        for symbol in (BTC, ETH):
            stage.live(1, 2, symbol=symbol)
            stage.source.subscribed(symbol)
        stage.source.up((BTC, ETH))
        await trio.sleep(QUIET_FOR + 1.5)
        assert len(stage.asked) <= 2
        await trio.sleep(60)
        assert stage.refills.failed == {"unreachable": 5}
        for symbol in (BTC, ETH):
            assert stage.stream(symbol) == list(range(1, 9))


async def test_a_symbol_that_trades_again_needs_no_such_question(autojump_clock: MockClock) -> None:
    """The first trade shows all."""
    stage = Stage()
    async with stage.running():
        stage.live(1, 2)
        stage.source.subscribed(BTC)
        stage.source.up((BTC,))
        await trio.sleep(2)
        stage.live(3)
        await trio.sleep(QUIET_FOR + 2)
    assert not stage.asked


async def test_what_another_connection_brings_is_not_asked_for(autojump_clock: MockClock) -> None:
    """With two lines a question waits a moment. Then it is only asked if something is missing still."""
    stage = Stage(settings={"lines": 2})
    async with stage.running():
        stage.live(1, 4)
        await trio.sleep(0.05)
        assert stage.stream() == [1]
        stage.live(2, 3)
        assert stage.stream() == [1, 2, 3, 4]
        await trio.sleep(10)
    assert not stage.asked
    assert (stage.refills.open, stage.refills.told, stage.refills.given_up) == (0, 0, 0)


async def test_a_question_that_finds_no_turn_is_not_given_up(autojump_clock: MockClock) -> None:
    """The bound of the weight is ours: the upstream has not failed."""
    stage = Stage(settings={"refill_within": 10.0}, answers=[RestFailed("no_turn", "busy")] * 30)
    stage.tape = [published(number) for number in range(20)]
    async with stage.running():
        stage.live(1, 4)
        await trio.sleep(60)
    assert stage.stream() == [1, 2, 3, 4]
    assert stage.refills.given_up == 0


async def test_when_the_weight_is_used_up_losses_gather_into_one_question(autojump_clock: MockClock) -> None:
    """Nothing waits for an answer that cannot be asked for in time. All is asked for together, when it can be."""
    stage = Stage()
    stage.tape = [published(number) for number in range(60)]
    async with stage.running():
        stage.live(1, 3)
        await settled()
        stage.budget.told(stage.budget.most, trio.current_time())
        for number in range(5, 51, 2):
            stage.live(number)
            await trio.sleep(0.1)
        assert stage.stream()[:5] == [1, 2, 3, (1,), 5]
        assert len(stage.asked) == 1
        await trio.sleep(70)
    assert stage.stream() == [*range(1, 50)]
    assert len(stage.asked) == 2
