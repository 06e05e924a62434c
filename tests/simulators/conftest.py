"""Raw clients: over the loopback, and in memory for tests that control the clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from attrs import define
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from simulators import Exchange, Trade

ORIGIN = [("Origin", "https://exchange.blockchain.com")]


@define
class Raw:
    """A WebSocket client that knows no protocol."""

    websocket: WebSocketConnection

    async def get(self) -> Any:
        return json.loads(await self.websocket.get_message())

    async def text(self) -> str:
        message = await self.websocket.get_message()
        assert isinstance(message, str)
        return message

    async def texts(self, count: int) -> list[str]:
        return [await self.text() for _ in range(count)]

    async def send(self, **request: Any) -> None:
        await self.websocket.send_message(json.dumps(request))

    async def ask(self, **request: Any) -> Any:
        await self.send(**request)
        return await self.get()

    async def until_closed(self) -> tuple[list[str], int]:
        """The remaining messages, and the close code (1006: no close frame came)."""
        texts: list[str] = []
        with suppress(ConnectionClosed):
            while True:
                texts.append(await self.text())
        reason = self.websocket.closed
        assert reason is not None
        return texts, reason.code

    async def subscribe(self, exchange: Exchange, symbol: str) -> None:
        """Subscribe to a symbol's trades in the exchange's own way, and wait for the answer."""
        if exchange.dialect.name == "blockchain":
            answer = await self.ask(action="subscribe", channel="trades", symbol=symbol)
            assert answer["event"] == "subscribed"
        else:
            answer = await self.ask(method="SUBSCRIBE", params=[f"{symbol.lower()}@trade"], id=1)
            assert answer == {"result": None, "id": 1}


def encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


Connect = Callable[..., AbstractAsyncContextManager[Raw]]


@pytest.fixture
def connect() -> Connect:
    """``async with connect(url) as raw``: a client on the loopback."""

    @asynccontextmanager
    async def open_client(url: str, headers: list[tuple[str, str]] = ORIGIN) -> AsyncIterator[Raw]:
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        stream = await trio.open_tcp_stream(str(parts.hostname), parts.port or 0)
        # trio-websocket leaves the socket open when the server closes first
        async with stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, parts.netloc, path, extra_headers=encoded(headers)
            )
            yield Raw(websocket)
            await websocket.aclose()
            nursery.cancel_scope.cancel()

    return open_client


@pytest.fixture
def attach() -> Connect:
    """``async with attach(exchange) as raw``: a client in memory, so that a MockClock can jump."""

    @asynccontextmanager
    async def open_client(exchange: Exchange, path: str | None = None) -> AsyncIterator[Raw]:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.handle, theirs)
            stream: Any = ours
            where = path or exchange.dialect.path
            yield Raw(
                await wrap_client_stream(nursery, stream, "memory", where, extra_headers=encoded(ORIGIN))
            )
            nursery.cancel_scope.cancel()

    return open_client


@pytest.fixture
def make() -> Callable[..., Trade]:
    """``make(7)``: trade 7 of BTC-USD; other fields by keyword."""

    def trade(number: int, symbol: str = "BTC-USD", **fields: Any) -> Trade:
        plain: dict[str, Any] = {
            "side": "buy",
            "price": "8501.1",
            "qty": "0.0005892",
            "timestamp_us": 1589135616696315,
        }
        return Trade(id=number, symbol=symbol, **{**plain, **fields})

    return trade


def ids(texts: list[str]) -> list[int]:
    """The trade ids in messages of either exchange."""
    found = []
    for text in texts:
        message = json.loads(text)
        payload = message.get("data", message)
        if "t" in payload or "trade_id" in payload:
            found.append(int(payload["t"] if "t" in payload else payload["trade_id"]))
    return found


@pytest.fixture(name="ids")
def ids_fixture() -> Callable[[list[str]], list[int]]:
    """The trade ids in messages of either exchange."""
    return ids
