"""The daemon with a history on disk, and questions and trades at the ends of what can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.settings.schema import Candles, History
from simulators import Trade, open_binance, open_blockchain
from tests.support.waiting import until
from tests.system.daemon import client, daemon, from_binance, from_blockchain, http_client

SYMBOL = "BTC-USDT"
INTERVALS = ("1s", "15s", "1m", "4h", "1d", "100t", "10v")
TIMES = (
    "0001-01-01T00:00:00Z",
    "1677-09-21T00:00:00Z",
    "1822-01-01T00:00:00Z",
    "1969-12-31T00:00:00Z",
    "2117-01-01T00:00:00Z",
    "2262-04-12T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
)
YEAR = 31_556_952 * 10**6  # microseconds


def trade(symbol: str, number: int, year: float = 54.0) -> Trade:
    """In that year after 1970."""
    at = int(year * YEAR) + number
    return Trade(id=number, symbol=symbol, side="buy", price="2.5", qty="5", timestamp_us=at)


async def test_any_time_of_four_digits_can_be_asked_for(tmp_path: Path) -> None:
    """It is before all trades, among them, or behind them: "from the year 1" means from the beginning."""
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, eager=True),
            history=History(directory=str(tmp_path), min_free_bytes=0),
            candles=Candles(intervals=INTERVALS),
        ) as d,
        client(d.url) as asking,
        http_client(d.http) as http,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        for number in range(1, 6):
            await exchange.publish(trade("BTCUSDT", number))
        await until(lambda: d.core.recording.position(SYMBOL) == 5)
        paths = [f"trades/{SYMBOL}?order=asc", f"trades/{SYMBOL}?order=desc"]
        paths += [f"candles/{SYMBOL}?interval={interval}" for interval in INTERVALS]
        for path in paths:
            for number, begin in enumerate(TIMES):
                what = path.partition("/")[0]
                for end in TIMES[number:]:
                    answer = await http.get(f"/api/v1/{path}&from={begin}&to={end}&limit=10000")
                    assert answer.status_code == 200, answer.url
                    has = begin < "2024" < end
                    assert bool(answer.json()[what]) == has, answer.url
                for bound in ("from", "to"):
                    answer = await http.get(f"/api/v1/{path}&{bound}={begin}&limit=10000")
                    assert answer.status_code == 200, answer.url
                    assert bool(answer.json()[what]) == (
                        begin < "2024" if bound == "from" else begin > "2024"
                    )
        for time in TIMES:
            after = await asking.call("getRecentTrades", symbol=SYMBOL, afterTimestamp=time)
            before = await asking.call("getRecentTrades", symbol=SYMBOL, beforeTimestamp=time)
            assert (len(after), len(before)) == ((5, 0) if time < "2024" else (0, 5))


@pytest.mark.parametrize("year", [8020.0, 330.0, 150.0])
async def test_a_trade_of_an_impossible_time_does_not_stop_the_recording(tmp_path: Path, year: float) -> None:
    """It is refused and named. Everything else is on disk."""
    async with (
        open_blockchain() as exchange,
        daemon(
            sources=from_blockchain(exchange.url, "BTC-USD", "ETH-USD", eager=True),
            history=History(directory=str(tmp_path), min_free_bytes=0),
        ) as d,
    ):
        await exchange.wait_subscribed(["BTC-USD", "ETH-USD"])
        await exchange.publish(trade("BTC-USD", 1))
        await exchange.publish(trade("ETH-USD", 1))
        await exchange.publish(trade("BTC-USD", 2, year))
        await exchange.publish(trade("BTC-USD", 3))
        await exchange.publish(trade("ETH-USD", 2))
        await until(
            lambda: [d.core.recording.position(symbol) for symbol in ("BTC-USD", "ETH-USD")] == [3, 2]
        )
        assert not d.crashes()
        assert d.core.sources["blockchain"].problems == {"bad_timestamp": 1}
        places = await d.core.tiers.behind("BTC-USD", 0, 10)
        assert [getattr(entry, "trade_id", "gap") for _, entry in places] == ["1", "gap", "3"]
