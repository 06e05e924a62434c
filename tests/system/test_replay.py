"""Real recorded trades through simulator, daemon and a WebSocket client: exactly those, exactly once.

The oracle is the exchange's trade list as a CSV made by independent code, not the recording that is replayed.
"""

from __future__ import annotations

import csv
import gzip
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dataflow.client import Connection, Following, connect
from dataflow.client import Trade as Told
from dataflow.domain.timestamps import from_rfc3339
from dataflow.settings.schema import Cache
from simulators import merge, open_binance, playing, recorded, shipped
from tests.system.daemon import Client, client, daemon, from_binance

ORACLE = Path(__file__).parent.parent / "data" / "binance_spot_20240808_oracle.csv.gz"
SYMBOLS = {"BTC-USDT": "BTCUSDT", "ETH-USDT": "ETHUSDT"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EVERYTHING = Cache(trades_per_symbol=20_000)
PART = 7_000  # trades of the recording: enough to be cut in the middle

Row = tuple[str, str, str, Decimal, Decimal, int]


@cache
def oracle(symbol: str) -> list[Row]:
    with gzip.open(ORACLE, "rt") as file:
        return [
            (symbol, r["trade_id"], r["side"], Decimal(r["price"]), Decimal(r["qty"]), int(r["timestamp_us"]))
            for r in csv.DictReader(file)
            if r["symbol"] == SYMBOLS[symbol]
        ]


def row(trade: dict[str, Any]) -> Row:
    at_us = from_rfc3339(trade["timestamp"]) // 1000
    return (trade["symbol"], trade["tradeId"], trade["side"], trade["price"], trade["qty"], at_us)


def assert_is_the_oracle(listener: Client, symbol: str, count: int | None = None) -> None:
    """`count`: how many of its trades are played. None: all."""
    trades = listener.trades(symbol)
    assert [row(trade) for trade in trades] == oracle(symbol)[:count]
    assert [trade["offset"] for trade in trades] == list(range(1, len(trades) + 1))


def recording(most: int | None = None) -> Any:
    names = ("binance_btcusdt_trades_20240808.jsonl.gz", "binance_ethusdt_trades_20240808.jsonl.gz")
    return recorded(islice(merge(*(shipped(name).ticks for name in names)), most))


def total() -> int:
    return sum(len(oracle(symbol)) for symbol in SYMBOLS)


@pytest.mark.parametrize("batch", [False, True])
async def test_a_replay_gives_the_client_exactly_the_oracle(batch: bool) -> None:
    """Every id once, in order, price and quantity equal as decimals, side right, offsets contiguous."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *SYMBOLS), cache=EVERYTHING) as d,
        client(d.url) as listener,
    ):
        for symbol in SYMBOLS:
            await listener.call("subscribe", channel="trades", symbol=symbol, batch=batch)
        async with playing(exchange, recording(), speed=math.inf, start="all_subscribed"):
            await listener.until(lambda: listener.traded.total() >= total())
        for symbol in SYMBOLS:
            assert_is_the_oracle(listener, symbol)
        assert listener.of("stream.gap") == []
        assert not exchange.failures
        assert d.crashes() == []


@pytest.mark.parametrize("mode", ["abrupt", "graceful", "drop"])
async def test_a_cut_in_the_middle_with_overlapping_replay_changes_nothing(mode: str) -> None:
    """The exchange repeats what it told before the cut: the client gets every trade once, without a gap."""
    async with (
        open_binance(absent="held", replay_last=3000) as exchange,
        daemon(sources=from_binance(exchange.url, *SYMBOLS), cache=EVERYTHING) as d,
        client(d.url) as listener,
    ):
        for symbol in SYMBOLS:
            await listener.call("subscribe", channel="trades", symbol=symbol)
        async with playing(exchange, recording(PART), speed=math.inf, start="all_subscribed"):
            await listener.until(lambda: listener.traded.total() >= PART / 2)
            await exchange.disconnect(mode, **({"seconds": 0.2} if mode == "drop" else {}))
            await listener.until(lambda: listener.traded.total() >= PART)
        for symbol in SYMBOLS:
            assert_is_the_oracle(listener, symbol, listener.traded[symbol])
        assert listener.of("stream.gap") == []
        assert len(listener.of("connection.lost")) == 1
        assert len(listener.of("connection.restored")) == 1
        assert sum(store.counts["binance", "duplicate"] for store in d.core.stores) > 0
        assert set(d.crashes()) == {"sources/binance/lines/1"}


async def take(events: Following[Any], symbol: str, count: int) -> list[Row]:
    """So many trades of `symbol`. Of none of the symbols anything is missing."""
    taken: list[Row] = []
    while len(taken) < count:
        event = await anext(events)
        assert isinstance(event, Told | Connection), event
        if isinstance(event, Told) and event.symbol == symbol:
            at_us = (event.timestamp - EPOCH) // timedelta(microseconds=1)
            taken.append((symbol, str(event.trade_id), str(event.side), event.price, event.quantity, at_us))
    return taken


async def test_a_program_that_comes_back_misses_nothing() -> None:
    """One that ends in the middle keeps its positions; the next one goes on there: both halves together are the
    oracle."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *SYMBOLS), cache=EVERYTHING) as d,
        playing(exchange, recording(), speed=math.inf, start="all_subscribed"),
    ):
        async with connect(d.url) as feed:
            before = await take(feed.trades(SYMBOLS), "BTC-USDT", 1000)
            positions = feed.positions
        async with connect(d.url) as feed:
            left = len(oracle("BTC-USDT")) - len(before)
            after = await take(feed.trades("BTC-USDT", since=positions), "BTC-USDT", left)
        assert [*before, *after] == oracle("BTC-USDT")
