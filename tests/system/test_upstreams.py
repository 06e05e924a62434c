"""The daemon beside simulated exchanges: OKX, Bybit, Bitfinex, and Binance's futures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from attrs import define, frozen

from dataflow import plugs
from simulators import Exchange, Trade, open_exchange
from simulators.dialect import Dialect
from simulators.exchanges.binance import FUTURES_PATH, binance_dialect
from simulators.exchanges.bitfinex import bitfinex_dialect
from simulators.exchanges.bybit import bybit_dialect
from simulators.exchanges.okx import okx_dialect
from tests.system.daemon import Client, Daemon, client, daemon


@frozen
class Upstream:
    """A connector and its exchange. `step`: by how much an id is higher than the one before it."""

    connector: str
    dialect: Dialect
    symbol: str
    name: str  # at the exchange
    step: int = 1


UPSTREAMS: Mapping[str, Upstream] = {
    "okx": Upstream("okx", okx_dialect(symbols=["BTC-USDT-SWAP"]), "BTC-USDT-PERP", "BTC-USDT-SWAP"),
    "bybit": Upstream("bybit", bybit_dialect(symbols=["BTCUSDT"]), "BTC-USDT", "BTCUSDT", step=7),
    "bitfinex": Upstream("bitfinex", bitfinex_dialect(symbols=["tBTCUSD"]), "BTC-USD", "tBTCUSD", step=7),
    "futures": Upstream("binance", binance_dialect(path=FUTURES_PATH), "BTC-USDT-PERP", "BTCUSDT"),
}
EACH = pytest.mark.parametrize("kind", UPSTREAMS)


@define
class World:
    """An exchange, the daemon connected to it, and a client that listens to its one symbol."""

    upstream: Upstream
    exchange: Exchange
    daemon: Daemon
    listener: Client
    published: int = 0

    async def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.published += 1
            await self.exchange.publish(self.trade(self.published))

    def trade(self, n: int) -> Trade:
        return Trade(
            self.upstream.step * n,
            self.upstream.name,
            "buy" if n % 2 else "sell",
            f"{100 + n}.5",
            f"0.0{n}1",
            1_700_000_000_000_000 + 1000 * n,
        )

    async def heard(self) -> list[tuple[Any, ...]]:
        """All that was published has come."""
        await self.listener.until(lambda: self.listener.traded.total() >= self.published)
        return [
            (each["tradeId"], each["side"], each["price"], each["qty"], each["symbol"], each["source"])
            for each in self.listener.trades()
        ]

    @property
    def expected(self) -> list[tuple[Any, ...]]:
        told = map(self.trade, range(1, self.published + 1))
        source, symbol = self.upstream.connector, self.upstream.symbol
        return [(str(t.id), t.side, Decimal(t.price), Decimal(t.qty), symbol, source) for t in told]


@asynccontextmanager
async def world(kind: str, **keys: Any) -> AsyncIterator[World]:
    upstream = UPSTREAMS[kind]
    settings = plugs.find("connectors", upstream.connector).Settings
    async with open_exchange(upstream.dialect) as exchange:
        about = {"url": exchange.url, "refill_url": exchange.rest_url, "symbols": (upstream.symbol,), **keys}
        source = settings(connector=upstream.connector, **about)
        async with daemon(sources={upstream.connector: source}) as d, client(d.url) as listener:
            await listener.call("subscribe", symbol=upstream.symbol)
            await exchange.wait_subscribed([upstream.name])
            yield World(upstream, exchange, d, listener)
        assert not exchange.failures


@EACH
async def test_trades_come_as_they_were_published(kind: str) -> None:
    """In order, with every field, and nothing that cannot be read."""
    async with world(kind) as w:
        await w.publish(20)
        assert await w.heard() == w.expected
        assert not w.listener.of("stream.gap")
        assert not w.daemon.core.sources[w.upstream.connector].problems


@EACH
async def test_trades_that_were_missed_come_in_their_places(kind: str) -> None:
    """The connection was lost, and the exchange traded on. What its REST has is asked for; there is no gap."""
    async with world(kind, hold=60.0) as w:
        await w.publish(3)
        await w.heard()
        await w.exchange.disconnect("refuse")
        await w.publish(40)  # more than any snapshot has
        await w.exchange.disconnect("accept")
        await w.exchange.wait_subscribed([w.upstream.name])
        await w.publish(3)
        assert await w.heard() == w.expected
        assert not w.listener.of("stream.gap")


@EACH
async def test_a_lying_answer_is_not_believed(kind: str) -> None:
    """Wrong prices first, then two trades for one id: the trades wait for an honest answer."""
    async with world(kind, hold=60.0) as w:
        await w.publish(3)
        await w.heard()
        w.exchange.fault("rest_lie", times=2)
        await w.exchange.disconnect("refuse")
        await w.publish(40)
        await w.exchange.disconnect("accept")
        await w.exchange.wait_subscribed([w.upstream.name])
        await w.publish(3)
        assert await w.heard() == w.expected
        assert not w.listener.of("stream.gap")
        problems = w.daemon.core.sources[w.upstream.connector].problems
        assert sum(count for reason, count in problems.items() if reason.startswith("refill_")) == 2


@EACH
async def test_a_symbol_that_the_exchange_refuses_is_told(kind: str) -> None:
    """Those who listen hear that the feed is lost; whoever subscribes later gets the words of the exchange."""
    upstream = UPSTREAMS[kind]
    settings = plugs.find("connectors", upstream.connector).Settings
    async with open_exchange(upstream.dialect) as exchange:
        exchange.fault("refuse", times=None)
        source = settings(connector=upstream.connector, url=exchange.url, symbols=(upstream.symbol,))
        async with daemon(sources={upstream.connector: source}) as d, client(d.url) as listener:
            await listener.call("subscribe", symbol=upstream.symbol)
            await listener.until(lambda: listener.of("connection.lost"))
            answer = await listener.ask("subscribe", symbol=upstream.symbol)
            assert answer["error"]["data"]["rejected"][upstream.connector]


@pytest.mark.parametrize("kind", ["okx", "bitfinex"])
async def test_an_announced_end_loses_nothing(kind: str) -> None:
    """The exchange says that it will hang up, and the daemon is back before that."""
    async with world(kind, hold=60.0) as w:
        await w.publish(3)
        await w.heard()
        await w.exchange.disconnect("announce", 0.2)
        await w.exchange.wait_subscribed([w.upstream.name])
        await w.publish(3)
        assert await w.heard() == w.expected
        assert not w.listener.of("stream.gap")
