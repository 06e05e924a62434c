"""The daemon and sources that misbehave in ways that once were silent: lost trades, and symbols gone dark."""

from __future__ import annotations

from dataflow.cache.feed import ANEW
from simulators import Trade, open_binance, open_blockchain
from tests.system.daemon import client, daemon, from_binance, from_blockchain


def trade(symbol: str, number: int, *, moment: int | None = None) -> Trade:
    at = 1_700_000_000_000_000 + 1000 * (number if moment is None else moment)
    return Trade(id=number, symbol=symbol, side="buy", price="1.5", qty="1", timestamp_us=at)


async def test_an_old_trade_told_again_does_not_hide_a_lost_one() -> None:
    """An unreadable trade leaves a gap, also when the source repeats earlier ones before it goes on."""
    async with (
        open_blockchain() as exchange,
        daemon(sources=from_blockchain(exchange.url, "BTC-USD")) as d,
        client(d.url) as listener,
    ):
        await listener.call("subscribe", symbol="BTC-USD")
        await exchange.wait_subscribed(["BTC-USD"])
        for number in (1, 2):
            await exchange.publish(trade("BTC-USD", number))
        await listener.until(lambda: len(listener.trades()) == 2)
        exchange.fault("truncate")
        for number in (3, 1, 2, 4):
            await exchange.publish(trade("BTC-USD", number))
        await listener.until(lambda: len(listener.trades()) == 3)
        stream = [entry.get("tradeId", "gap") for entry in listener.stream("BTC-USD")]
        assert stream == ["1", "2", "gap", "4"]


async def test_an_exchange_that_numbers_anew_is_heard_again() -> None:
    """The clients get a gap and then the trades; the operator sees in the status what was refused before."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        client(d.url) as listener,
    ):
        await listener.call("subscribe", symbol="BTC-USDT")
        await exchange.wait_subscribed(["BTCUSDT"])
        for number in range(100, 200):
            await exchange.publish(trade("BTCUSDT", number))
        await listener.until(lambda: len(listener.trades()) == 100)
        await exchange.disconnect("abrupt")
        await listener.until(lambda: listener.of("connection.restored"))
        await exchange.wait_subscribed(["BTCUSDT"])
        first = 101 - ANEW  # the known ids come again too, for trades of another moment
        for number in range(first, 300):
            await exchange.publish(trade("BTCUSDT", number, moment=1000 + number))
        due = 200
        await listener.until(lambda: len(listener.trades()) == 100 + due)
        gap = listener.of("stream.gap")[0]
        assert (gap["from"], gap["to"], gap["reason"]) == (101, None, "source_gap")
        assert len(listener.of("stream.gap")) == 1
        assert [int(t["tradeId"]) for t in listener.trades()[100:]] == list(range(first + ANEW - 1, 300))
        problems = (await listener.call("getStatus"))["sources"]["binance"]["problems"]
        assert problems == {"late": ANEW - 1}


async def test_a_snapshot_counts_trades_however_many_places_are_missing() -> None:
    """After a large gap as many trades are given as were asked for, and the gap between them."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        client(d.url) as listener,
    ):
        await listener.call("subscribe", symbol="BTC-USDT")
        await exchange.wait_subscribed(["BTCUSDT"])
        for number in (*range(1, 61), 5000):
            await exchange.publish(trade("BTCUSDT", number))
        await listener.until(lambda: len(listener.trades()) == 61)
        answer = await listener.call("subscribe", symbol="BTC-USDT", snapshot=50)
        assert [t["tradeId"] for t in answer["trades"]] == [*map(str, range(12, 61)), "5000"]
        assert answer["gaps"] == [{"from": 61, "to": 4999, "reason": "source_gap"}]
