"""The hub over the real daemon, with trades whose number tells everything; and a client that speaks raw records."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from dataflow.domain import Topic
from dataflow.faces.signalr import Face, Settings
from dataflow.faces.signalr.hub import Hub
from dataflow.faces.signalr.seats import Seats
from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance, how_it_ended

SYMBOL = "BTC-USDT"
TOPIC = Topic("trades", SYMBOL)
HANDSHAKE = '{"protocol":"json","version":1}\x1e'
RESTORED = {"jsonrpc": "2.0", "method": "connection.restored", "params": {"action": "resubscribe"}}
PAGE = "http://localhost:4200"


def call(method: str, id: Any = None, **params: Any) -> str:
    """A call of JSON-RPC; without an id a notification."""
    written = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(written if id is None else written | {"id": id})


def invocation(text: str, id: str | None = None) -> str:
    """A record that sends it to the hub."""
    record: dict[str, Any] = {"type": 1, "target": "SendMessage", "arguments": [text]}
    return json.dumps(record if id is None else record | {"invocationId": id}) + "\x1e"


SUBSCRIBE = call("subscribe", "1", channel="trades", symbol=SYMBOL)


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    published: int = 0

    async def publish(self, count: int) -> None:
        """Trades whose id, time and price tell their number."""
        for _ in range(count):
            self.published += 1
            number = self.published
            await self.exchange.publish(
                Trade(
                    id=number,
                    symbol="BTCUSDT",
                    side="sell" if number % 2 else "buy",
                    price=f"{number}.25",
                    qty="0.5",
                    timestamp_us=1_700_000_000_000_000 + 1000 * number,
                )
            )
        await until(lambda: self.daemon.core.history(SYMBOL).last >= self.published)

    @property
    def url(self) -> str:
        return self.daemon.http + "/blockchain"

    @property
    def listeners(self) -> int:
        return self.daemon.core.topics.subscribers.get(TOPIC, 0)

    @property
    def hubs(self) -> int:
        return len(self.daemon.lobby.clients)

    @property
    def seats(self) -> Seats[Hub]:
        """The ids that are known."""
        face = next(face for face in self.daemon.hall.faces if isinstance(face, Face))
        (entrance,) = face.sockets(self.daemon.hall)
        return entrance.check.__self__.seats  # type: ignore[union-attr, no-any-return]


def expected(number: int) -> dict[str, Any]:
    """The trade of that number, as a client gets it."""
    return {
        "seqnum": number,
        "event": "updated",
        "channel": "trades",
        "symbol": SYMBOL,
        "timestamp": f"2023-11-14T22:13:20.{number:03}000Z",
        "side": "sell" if number % 2 else "buy",
        "qty": 0.5,
        "price": number + 0.25,
        "tradeId": str(number),
        "source": "binance",
        "offset": number,
    }


@asynccontextmanager
async def stage(settings: Settings | None = None, **tables: Any) -> AsyncIterator[Stage]:
    faces = {"signalr": settings or Settings(enabled=True)}
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, "ETH-USDT", eager=True), faces=faces, **tables
        ) as d,
    ):
        await d.until_carried(SYMBOL, "ETH-USDT")
        yield Stage(exchange, d)


@define
class Raw:
    """A client by WebSocket that keeps whole messages and records, in order.

    `records`: those behind the answer to the handshake and the `connection.restored` with it. `received`: the
    texts for it, read; `trades` those of them.
    """

    socket: WebSocketConnection
    messages: list[str] = field(factory=list)
    records: list[dict[str, Any]] = field(factory=list)
    received: list[Any] = field(factory=list)
    trades: list[Any] = field(factory=list)
    closed: tuple[int, str] | None = None

    async def listen(self) -> None:
        try:
            while True:
                self._keep(await self.socket.get_message())
        except ConnectionClosed as error:
            self.closed = how_it_ended(error)

    def _keep(self, message: str) -> None:
        assert message.endswith("\x1e"), "each message holds whole records"
        self.messages.append(message)
        for record in map(json.loads, message.split("\x1e")[:-1]):
            text = json.loads(record["arguments"][0]) if record.get("type") == 1 else None
            if record == {} or (text == RESTORED and not self.records):
                continue
            self.records.append(record)
            if text is not None:
                self.received.append(text)
                if text.get("method") == "trades.update":
                    self.trades.append(text["params"])

    async def say(self, *texts: str) -> None:
        for text in texts:
            await self.socket.send_message(text)

    def of(self, kind: int) -> list[dict[str, Any]]:
        return [each for each in self.records if each["type"] == kind]

    async def ask(self, text: str) -> Any:
        """The answer to a call of JSON-RPC."""
        seen = len([each for each in self.received if "id" in each])
        await self.say(invocation(text))
        await until(lambda: len([each for each in self.received if "id" in each]) > seen)
        return [each for each in self.received if "id" in each][seen]


@asynccontextmanager
async def opened(url: str, *headers: tuple[str, str]) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket whose socket is closed in the end, also when the daemon refuses it."""
    address = urlsplit(url)
    stream = await trio.open_tcp_stream(str(address.hostname), int(address.port or 80))
    path = address.path + (f"?{address.query}" if address.query else "")
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(
            nursery, stream, address.netloc, path, extra_headers=list(headers), max_message_size=1 << 26
        )
        nursery.cancel_scope.cancel()


async def rejection(s: Stage, query: str = "", *headers: tuple[str, str]) -> int:
    """The status with which a WebSocket is refused. Raises AssertionError when it opens."""
    with pytest.RaisesGroup(ConnectionRejected, allow_unwrapped=True, flatten_subgroups=True) as rejected:
        async with opened(s.url.replace("http", "ws") + query, *headers):
            pass
    error: Any = rejected.value
    while not isinstance(error, ConnectionRejected):
        error = error.exceptions[0]
    return int(error.status_code)


@asynccontextmanager
async def raw(s: Stage, query: str = "", *, handshake: str | None = HANDSHAKE) -> AsyncIterator[Raw]:
    url = s.url.replace("http", "ws") + query
    async with opened(url) as socket, trio.open_nursery() as nursery:
        made = Raw(socket)
        nursery.start_soon(made.listen)
        if handshake is not None:
            await made.say(handshake)
            await until(lambda: len(made.messages) >= 2 or made.closed)
        yield made
        nursery.cancel_scope.cancel()


async def negotiated(http: httpx.AsyncClient) -> str:
    """A fresh id."""
    answer = await http.post("/blockchain/negotiate?negotiateVersion=1")
    return str(answer.json()["connectionToken"])
