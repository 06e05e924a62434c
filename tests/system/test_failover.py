"""One symbol, two sources, one stream: who takes over, when, and what clients are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import define

from dataflow.settings.schema import BackoffSettings, Mode, Symbol
from dataflow.sources.port import SourceSettings
from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon, from_binance

BTC = "BTC-USDT"


def trade(id: int) -> Trade:
    return Trade(id=id, symbol="BTCUSDT", side="buy", price="1.0", qty="1", timestamp_us=id * 1000)


def binance(exchange: Exchange, *symbols: str, **more: Any) -> SourceSettings:
    return from_binance(exchange.url, *(symbols or (BTC,)), **more)["binance"]


def failing_over(return_after: float = 0.0, *sources: str) -> dict[str, Symbol]:
    keys = Symbol(sources=sources or ("one", "two"), mode=Mode.FAILOVER, return_after=return_after)
    return {BTC: keys}


@define
class Stage:
    """Two exchanges that trade the same; `one` is preferred."""

    daemon: Daemon
    one: Exchange
    two: Exchange
    client: Client
    told: int = 0

    @property
    def active(self) -> str | None:
        return self.daemon.core.active(BTC)

    async def trades(self, exchange: Exchange, *ids: int) -> None:
        """Returns when the client has them."""
        for id in ids:
            await exchange.publish(trade(id))
        self.told += len(ids)
        await self.client.until(lambda: self.client.traded[BTC] == self.told)

    async def left_out(self, exchange: Exchange, name: str, *ids: int) -> None:
        """Returns when they have come, and were left out."""
        counts = self.daemon.core.delivery.left_out
        before = counts[name]
        for id in ids:
            await exchange.publish(trade(id))
        await until(lambda: counts[name] == before + len(ids))

    async def switched(self, count: int) -> dict[str, Any]:
        """What was told of the switch with that number."""
        await self.client.until(lambda: len(self.client.of("stream.switched")) >= count)
        return self.client.of("stream.switched")[count - 1]

    def stream(self) -> list[str]:
        """The ids of all trades with their sources, and the gaps, in order. Each place follows the one before."""
        last, found = 0, []
        for entry in self.client.stream(BTC):
            first = entry.get("from", entry.get("offset"))
            assert first == last + 1
            last = entry.get("to") or first
            found.append(f"{entry['source']} {entry['tradeId']}" if "tradeId" in entry else "gap")
        return found


@asynccontextmanager
async def stage(return_after: float = 0.0, **tables: Any) -> AsyncIterator[Stage]:
    tables.setdefault("symbols", failing_over(return_after))
    tables.setdefault("backoff", BackoffSettings(initial_delay=0.01, jitter=0.0))
    async with (
        open_binance() as one,
        open_binance() as two,
        daemon(sources={"one": binance(one), "two": binance(two)}, **tables) as d,
        client(d.url) as listener,
    ):
        await listener.call("subscribe", symbol=BTC)
        for name in ("one", "two"):
            await until(lambda name=name: d.core.sources[name].status(BTC) == "live")  # type: ignore[misc]
        yield Stage(d, one, two, listener)


async def test_the_stream_is_that_of_the_preferred_source() -> None:
    """The other one is connected and subscribed, and its trades are counted, but no part of the stream."""
    async with stage() as s:
        assert s.active == "one"
        await s.left_out(s.two, "two", 500, 501)
        await s.trades(s.one, 1, 2)
        await s.left_out(s.two, "two", 502)
        await s.trades(s.one, 3)
        assert s.stream() == ["one 1", "one 2", "one 3"]
        assert not s.client.of("stream.switched")


async def test_when_the_active_source_dies_the_other_one_takes_over() -> None:
    """At once, and told. What may be missing of the dead one is a gap; nothing is missing of the one that stood by,
    though trades of it were left out. When the preferred one is back and well, it is taken back without a gap."""
    async with stage(return_after=0.05) as s:
        await s.trades(s.one, 1, 2)
        await s.left_out(s.two, "two", 500, 501)
        await s.one.disconnect("refuse")
        told = await s.switched(1)
        assert (told["symbol"], told["channel"], told["from"], told["to"]) == (BTC, "trades", "one", "two")
        assert told["offset"] == 3
        assert told["epoch"] == s.daemon.core.epoch
        await s.trades(s.two, 502, 503)
        await s.one.disconnect("accept")
        back = await s.switched(2)
        assert (back["from"], back["to"], back["offset"]) == ("two", "one", 5)
        await s.left_out(s.two, "two", 504)
        await s.trades(s.one, 7)
        assert s.stream() == ["one 1", "one 2", "gap", "two 502", "two 503", "one 7"]
