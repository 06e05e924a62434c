"""An exchange comes back with its clock set back, and numbers its trades anew: the whole daemon, on a clock of the test."""

from __future__ import annotations

from attrs import frozen
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.cache.feed import LASTING, LONG, OFF
from dataflow.cache.verdict import Verdict
from dataflow.settings.schema import Cache
from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance

SYMBOL = "BTC-USDT"
BEGAN = 1_700_000_000.0  # seconds: the wall clock when the test begins
HOURS = 7200.0  # seconds: so far ahead is the clock of the exchange before it is set right
KEPT = 5  # trades in memory, and twice as many ids: what is forgotten is known by its time alone
BEFORE = range(1_000_001, 1_000_001 + 4 * KEPT)
AFTER = range(1, 2 * LONG)


@frozen
class Stage:
    """The exchange, the daemon, and the clock of both. One second passes from trade to trade."""

    exchange: Exchange
    daemon: Daemon
    clock: MockClock

    async def publish(self, numbers: range, ahead: float = 0.0) -> None:
        """Each is judged before the next one comes."""
        for number in numbers:
            at = self.exchange.now_us() + round(ahead * 1e6)
            judged = self.judged()
            await self.exchange.publish(Trade(number, "BTCUSDT", "buy", f"{number}", "1", at))
            await until(lambda judged=judged: self.judged() > judged)
            self.clock.jump(1.0)

    def judged(self) -> int:
        return sum(self.count(verdict) for verdict in Verdict if verdict is not Verdict.NOTED)

    def count(self, verdict: Verdict) -> int:
        (store,) = self.daemon.core.stores
        return store.counts["binance", verdict.value]

    async def until_subscribed(self) -> None:
        """The next attempt to connect waits for the clock."""
        while not self.exchange.subscribed:
            await wait_all_tasks_blocked(0.005)
            if not self.exchange.connections:
                self.clock.jump(0.1)


async def test_a_clock_that_is_set_back_silences_no_source(mock_clock: MockClock) -> None:
    """All that comes seems older than what was forgotten. A row that lasts proves a new numbering: then the stream goes
    on behind one gap, which is told, and so is the new numbering. Nothing of the old one comes again."""

    def wall() -> float:
        return BEGAN + mock_clock.current_time()

    async with open_binance(now_us=lambda: round(wall() * 1e6)) as exchange:
        sources = from_binance(exchange.url, SYMBOL, eager=True, stall_after=86_400.0)
        async with (
            daemon(sources=sources, clock=wall, cache=Cache(shards=1, trades_per_symbol=KEPT)) as d,
            client(d.url) as follower,
        ):
            s = Stage(exchange, d, mock_clock)
            await follower.call("subscribe", channel="trades", symbol=SYMBOL)
            await exchange.wait_subscribed(["BTCUSDT"])
            await s.publish(BEFORE, ahead=HOURS)
            await exchange.disconnect("graceful")
            await s.until_subscribed()
            mock_clock.jump(OFF + 1)
            assert LONG - 1 > LASTING  # seconds from the first to the last trade of the row
            await s.publish(AFTER)
            assert s.count(Verdict.TOO_OLD) == LONG - 1
            assert d.core.sources["binance"].renumbered == 1
            admitted = [*BEFORE, *AFTER[LONG - 1 :]]
            await follower.until(lambda: len(follower.trades(SYMBOL)) == len(admitted))
            stream = follower.stream(SYMBOL)
            assert [each.get("tradeId", each.get("reason")) for each in stream] == [
                *map(str, BEFORE),
                "source_gap",
                *map(str, AFTER[LONG - 1 :]),
            ]
            assert stream[len(BEFORE)]["to"] is None
