"""Trades that an exchange did not send are asked for by HTTP, and come to their places: the whole daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.domain import Gap
from dataflow.settings.schema import History
from dataflow.sources.wanted import LIES, Refills
from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon, from_binance

SYMBOL = "BTC-USDT"


def trade(number: int) -> Trade:
    return Trade(number, "BTCUSDT", "sell", f"{100 + number}", "0.5", 1_700_000_000_000_000 + 1000 * number)


@define
class Stage:
    """An exchange, a daemon that may ask it, and a client that follows its symbol."""

    exchange: Exchange
    daemon: Daemon
    follower: Client

    @property
    def refills(self) -> Refills:
        return self.daemon.core.refills("binance")

    async def publish(self, *numbers: int) -> None:
        for number in numbers:
            await self.exchange.publish(trade(number))

    async def lose(self, *numbers: int) -> None:
        """The exchange has these trades, and does not send them."""
        self.exchange.fault("drop", times=len(numbers))
        await self.publish(*numbers)

    def places(self) -> list[int | None]:
        """Of the history: the number of each trade, None for a missing one."""
        found: list[int | None] = []
        for _, entry in self.daemon.core.history(SYMBOL).places(0, 100_000):
            is_gap = isinstance(entry, Gap)
            found += [None] * (entry.last - entry.first + 1) if is_gap else [int(entry.trade_id or 0)]  # type: ignore[union-attr]
        return found

    @property
    def is_asking(self) -> bool:
        return any(ask.is_in_hand for ask in self.refills._asks)

    def heard(self) -> list[int]:
        return [int(each["tradeId"]) for each in self.follower.trades(SYMBOL)]

    def prices_are_true(self) -> bool:
        return all(each["price"] == 100 + int(each["tradeId"]) for each in self.follower.trades(SYMBOL))


@asynccontextmanager
async def stage(
    exchange: Exchange | None = None, *, hold: float = 2.0, **tables: Any
) -> AsyncIterator[Stage]:
    if exchange is None:
        async with open_binance() as made, stage(made, hold=hold, **tables) as s:
            yield s
        return
    keys = {"eager": True, "refill_url": exchange.rest_url, "hold": hold, "stall_after": 86_400.0}
    sources = from_binance(exchange.url, SYMBOL, **keys)
    async with daemon(sources=sources, **tables) as d, client(d.url) as follower:
        await follower.call("subscribe", channel="trades", symbol=SYMBOL)
        await exchange.wait_subscribed(["BTCUSDT"])
        yield Stage(exchange, d, follower)


async def as_time_passes(s: Stage, clock: MockClock, condition: Callable[[], Any]) -> None:
    """Time goes on until `condition()` holds: slowly while a question is under way, for its bytes take real time."""
    while not condition():
        await wait_all_tasks_blocked(0.005)
        if not condition():
            clock.jump(0.1 if s.is_asking else 1.0)


async def test_what_is_lost_under_load_comes_back_and_nobody_hears_of_it() -> None:
    """Each trade once, in the order of the exchange, without a gap; many losses at many places."""
    async with stage(hold=60.0) as s:
        await s.publish(1)
        s.exchange.fault("drop", times=None, probability=0.1)
        await s.publish(*range(2, 2001))
        s.exchange.faults.withdraw()
        await s.publish(2001, 2002)
        await s.follower.until(lambda: len(s.heard()) == 2002)
        assert s.heard() == list(range(1, 2003))
        assert s.follower.of("stream.gap") == []
        assert s.prices_are_true()
        assert s.refills.filled == s.exchange.faults.struck["drop"] > 100
        assert s.refills.told == s.refills.given_up == 0


async def test_a_slow_answer_fills_the_gap_that_was_told_meanwhile(mock_clock: MockClock) -> None:
    """When the hold is over the stream goes on behind a gap; later its places hold the trades."""
    async with stage() as s:
        await s.publish(1)
        s.exchange.fault("rest_slow", seconds=9.0)
        await s.lose(2, 3)
        await s.publish(4)
        await until(lambda: s.exchange.faults.struck.get("rest_slow"))
        await as_time_passes(s, mock_clock, lambda: s.follower.of("stream.gap"))
        (gap,) = s.follower.of("stream.gap")
        await s.follower.until(lambda: len(s.heard()) == 2)
        assert (gap["from"], gap["to"]) == (2, 3)
        assert s.follower.of("stream.filled") == []
        await as_time_passes(s, mock_clock, lambda: s.follower.of("stream.filled"))
        (fill,) = s.follower.of("stream.filled")
        assert [(each["offset"], each["tradeId"]) for each in fill["trades"]] == [(2, "2"), (3, "3")]
        assert s.places() == [1, 2, 3, 4]


async def test_lies_are_refused_and_the_gap_stays_until_an_honest_answer(mock_clock: MockClock) -> None:
    """Wrong prices, two prices for an id, trades of another symbol, trades that nobody asked for."""
    async with stage(hold=0.0) as s:
        await s.publish(1, 2)
        s.exchange.fault("rest_lie", times=4)
        await s.lose(3, 4)
        await s.publish(5, 6)
        await s.follower.until(lambda: s.follower.of("stream.gap"))
        await as_time_passes(s, mock_clock, lambda: sum(s.refills.refused.values()) == LIES)
        assert s.refills.breaker.opened == 1
        assert s.exchange.faults.struck["rest_lie"] == 4, "one answer had two pages"
        assert s.places() == [1, 2, None, None, 5, 6]
        await as_time_passes(s, mock_clock, lambda: s.follower.of("stream.filled"))
        (fill,) = s.follower.of("stream.filled")
        assert [(each["tradeId"], each["price"]) for each in fill["trades"]] == [("3", 103), ("4", 104)]
        assert s.refills.refused == {"refill_known": 1, "refill_conflict": 1, "refill_outside": 1}
        told = s.daemon.core.sources["binance"].problems
        assert {reason: told[reason] for reason in s.refills.refused} == s.refills.refused
        assert s.daemon.crashes("sources") == []


async def test_everything_that_can_be_wrong_with_an_answer_ends_well(mock_clock: MockClock) -> None:
    """Errors, redirections, half and endless and huge answers: each has a name, and is asked again."""
    async with stage(hold=0.0) as s:
        await s.publish(1)
        for kind in ("rest_error", "rest_redirect", "rest_half", "rest_huge", "rest_endless"):
            s.exchange.fault(kind)  # type: ignore[arg-type]
        await s.lose(2, 3)
        await s.publish(4)
        await as_time_passes(s, mock_clock, lambda: s.follower.of("stream.filled"))
        assert s.places() == [1, 2, 3, 4]
        assert s.refills.failed == {
            "server_error": 1, "redirected": 1, "broken": 1, "too_large": 1, "no_answer": 1
        }  # fmt: skip
        assert s.daemon.crashes("sources") == []


async def test_who_is_told_to_wait_waits(mock_clock: MockClock) -> None:
    """Until the time that the exchange named nothing is asked, whatever else is missing meanwhile."""
    async with stage() as s:
        await s.publish(1)
        s.exchange.fault("rest_limit", seconds=30.0)
        await s.lose(2)
        await s.publish(3)
        await until(lambda: s.exchange.faults.struck.get("rest_limit"))
        began, asked = trio.current_time(), s.exchange.rest.asked
        await s.follower.until(lambda: s.follower.of("stream.gap"))  # at once: waiting would be in vain
        await s.lose(4)
        await s.publish(5)
        await as_time_passes(s, mock_clock, lambda: trio.current_time() - began > 29)
        assert s.exchange.rest.asked == asked
        assert s.places() == [1, None, 3, None, 5]
        await as_time_passes(s, mock_clock, lambda: s.places() == [1, 2, 3, 4, 5])


async def test_a_killed_daemon_asks_from_where_its_disk_ends(tmp_path: Path) -> None:
    """The next one: what happened in between comes before the first live trade."""
    async with open_binance() as exchange:
        async with stage(exchange, history=History(directory=str(tmp_path))) as s:
            await s.publish(1, 2, 3)
            await s.follower.until(lambda: len(s.heard()) == 3)
            await until(lambda: s.daemon.core.recording.totals.entries == 3)
            s.daemon.die()
        await exchange.wait_disconnected()
        for number in range(4, 8):
            await exchange.publish(trade(number))
        async with stage(exchange, history=History(directory=str(tmp_path))) as s:
            await s.publish(8)
            await s.follower.until(lambda: len(s.heard()) == 5)
            assert s.heard() == [4, 5, 6, 7, 8]
            assert s.places()[-8:] == [1, 2, 3, 4, 5, 6, 7, 8]
            assert s.follower.of("stream.gap") == []


async def test_a_quiet_symbol_is_complete_after_a_reconnection(mock_clock: MockClock) -> None:
    """What it missed comes although no live trade follows."""
    async with stage() as s:
        await s.publish(1, 2)
        await s.follower.until(lambda: len(s.heard()) == 2)
        await s.exchange.disconnect("abrupt")
        await s.publish(3, 4)
        await as_time_passes(s, mock_clock, lambda: len(s.heard()) == 4)
        assert s.heard() == [1, 2, 3, 4]
        assert s.follower.of("stream.gap") == []


async def test_a_crash_in_the_midst_of_a_question_costs_nothing_but_time(mock_clock: MockClock) -> None:
    """The next incarnation asks again, within the time for which trades wait."""
    async with stage(hold=30.0) as s:
        await s.publish(1)
        s.exchange.fault("rest_slow", seconds=9.0)
        await s.lose(2)
        await s.publish(3)
        await until(lambda: s.exchange.faults.struck.get("rest_slow"))
        await s.daemon.root.supervisor("sources/binance").restart("refill")
        await as_time_passes(s, mock_clock, lambda: len(s.heard()) == 3)
        assert s.heard() == [1, 2, 3]
        assert s.exchange.rest.asked == 2
        assert s.follower.of("stream.gap") == []
