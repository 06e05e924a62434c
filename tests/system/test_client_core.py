"""The core of a client at the real daemon: in each format it has every trade, to the digit, across lost connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio_websocket import WebSocketConnection

from dataflow import domain
from dataflow.client import Client, Event, Gap, Notice, Quality, Topic, Trade
from simulators import Exchange, open_binance
from simulators import Trade as Sent
from tests.system.daemon import connection, daemon, from_binance

SYMBOLS = ("BTC-USDT", "ETH-USDT")
FORMATS = ("json", "strings", "compact")
PRICES = ("61837.630000001234", "0.00000001", "0.0005892000", "8501", "12345678901234567890.5")


@define
class Listener:
    """A core, and a connection that can be cut."""

    url: str
    core: Client
    events: list[Event] = field(factory=list)
    news: trio.Event = field(factory=trio.Event)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        async with connection(self.url) as socket, trio.open_nursery() as nursery:
            for call in self.core.connect():
                await socket.send_message(call)
            nursery.start_soon(self._listen, socket)
            yield
            nursery.cancel_scope.cancel()

    async def _listen(self, socket: WebSocketConnection) -> None:
        while True:
            self.events += self.core.hear(await socket.get_message())
            self.news.set()
            self.news = trio.Event()

    async def at(self, offset: int) -> None:
        """Wait until it has this place of every symbol."""
        while any(self.place(symbol) != offset for symbol in SYMBOLS):
            await self.news.wait()

    def place(self, symbol: str) -> int | None:
        stream = self.core.streams.get(Topic("trades", symbol))
        return stream.offset if stream is not None and stream.live else None

    def trades(self, symbol: str) -> list[Trade]:
        return [event for event in self.events if isinstance(event, Trade) and event.symbol == symbol]


def trade(number: int, symbol: str) -> Sent:
    return Sent(
        id=number,
        symbol=symbol.replace("-", ""),
        side="buy" if number % 2 else "sell",
        price=PRICES[number % len(PRICES)],
        qty=f"{number}.50",
        timestamp_us=1_700_000_000_000_000 + number,
    )


def digits(trade: Trade | domain.Trade) -> tuple[str, str]:
    return str(trade.price), str(trade.quantity)


async def publish(exchange: Exchange, first: int, last: int) -> None:
    for number in range(first, last + 1):
        for symbol in SYMBOLS:
            await exchange.publish(trade(number, symbol))


async def test_three_formats_are_one_stream() -> None:
    """Live, in an answer and after a lost connection: the events of all formats are the same, with every digit."""
    async with open_binance() as exchange, daemon(sources=from_binance(exchange.url, *SYMBOLS)) as d:
        listeners = [Listener(d.url, Client(format=format, keep=None)) for format in FORMATS]
        for listener in listeners:
            for symbol in SYMBOLS:
                listener.core.follow(symbol, snapshot=100)
        async with listeners[0].connected():
            await exchange.wait_subscribed(symbol.replace("-", "") for symbol in SYMBOLS)
            await publish(exchange, 1, 7)
            await listeners[0].at(7)
            async with listeners[1].connected():
                await publish(exchange, 9, 12)  # 8 is missing: a gap
                await listeners[0].at(12)
                await listeners[1].at(12)
        async with listeners[2].connected():
            await listeners[2].at(12)
            await publish(exchange, 13, 20)
            await listeners[2].at(20)
        for listener in listeners:
            async with listener.connected():
                await listener.at(20)
                assert not any(isinstance(event, Notice) for event in listener.events)
                for symbol in SYMBOLS:
                    told = listener.trades(symbol)
                    assert told == listeners[0].trades(symbol)
                    assert [each.trade_id for each in told] == [str(n) for n in range(1, 21) if n != 8]
                    inside = [
                        value
                        for _, value in d.core.history(symbol).places(0, 100)
                        if not isinstance(value, domain.Gap)
                    ]
                    assert [digits(each) for each in told] == [digits(each) for each in inside]
                    log = listener.core.streams[Topic("trades", symbol)].log
                    assert [each for each in log if isinstance(each, Gap)] == [
                        Gap(symbol=symbol, first=8, to=8, reason="source_gap")
                    ]
                assert any(
                    isinstance(event, Quality) and event.source == "binance" for event in listener.events
                )


async def test_quality_is_followed() -> None:
    """Each change of a source is an event, and the newest state is held."""
    async with open_binance() as exchange, daemon(sources=from_binance(exchange.url, *SYMBOLS)) as d:
        listener = Listener(d.url, Client())
        listener.core.follow(SYMBOLS[0], "quality")
        async with listener.connected():
            await exchange.wait_connected()
            topic = Topic("quality", SYMBOLS[0])

            def state() -> str | None:
                held = listener.core.qualities.get(topic)
                return held.states["binance"].state if held else None

            while state() != "idle":
                await listener.news.wait()
            await exchange.disconnect("refuse")
            while state() != "lost":
                await listener.news.wait()


@pytest.mark.parametrize("format", FORMATS)
async def test_all_symbols_are_one_subscription(format: Any) -> None:
    """`*` brings every symbol's stream, across a lost connection too, and names a symbol that comes later."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, SYMBOLS[0], eager=True)) as d,
    ):
        listener = Listener(d.url, Client(format=format, keep=None))
        listener.core.follow("*", snapshot=10)
        async with listener.connected():
            await exchange.wait_subscribed([SYMBOLS[0].replace("-", "")])
            await exchange.publish(trade(1, SYMBOLS[0]))
            while listener.place(SYMBOLS[0]) != 1:
                await listener.news.wait()
            both = from_binance(exchange.url, *SYMBOLS, eager=True)
            await d.reload(evolve(d.hall.settings, sources=both))
            await exchange.wait_subscribed(symbol.replace("-", "") for symbol in SYMBOLS)
            await exchange.publish(trade(1, SYMBOLS[1]))
            await listener.at(1)
        await publish(exchange, 2, 5)
        async with listener.connected():
            await listener.at(5)
        assert [event for event in listener.events if isinstance(event, Gap)] == []
        for symbol in SYMBOLS:
            assert [each.trade_id for each in listener.trades(symbol)] == ["1", "2", "3", "4", "5"]
