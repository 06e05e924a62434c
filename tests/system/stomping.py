"""A client of STOMP that shows what really comes, plain and over SockJS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from dataflow.domain import Topic
from dataflow.domain.topic import DAYS
from dataflow.faces import stomp
from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance, how_it_ended

SYMBOL = "BTC-USDT"
DAY = Topic(DAYS, SYMBOL)
MARKET_DATA = f"/topic/market-data/{SYMBOL}"
PLAIN = "/ws/websocket"
SOCKJS = "/ws/000/abc/websocket"
BEGINNING = 1_700_006_400_000_000  # a midnight in UTC, in microseconds


@define
class Stage:
    """An exchange, the daemon that listens to it, and the trades so far."""

    exchange: Exchange
    daemon: Daemon
    published: int = 0

    async def publish(self, *trades: tuple[str, str]) -> None:
        """Trades of one symbol: price and quantity, a millisecond apart."""
        for price, quantity in trades:
            self.published += 1
            at = BEGINNING + self.published * 1000
            await self.exchange.publish(
                Trade(
                    id=self.published,
                    symbol="BTCUSDT",
                    side="sell",
                    price=price,
                    qty=quantity,
                    timestamp_us=at,
                )
            )
        await until(lambda: self.daemon.core.history(SYMBOL).last >= self.published)

    @property
    def listeners(self) -> int:
        return self.daemon.core.topics.subscribers.get(DAY, 0)

    @property
    def sessions(self) -> int:
        return len(self.daemon.lobby.clients)


@asynccontextmanager
async def stage(heartbeat: float = 10.0, signalling: bool = True, **tables: Any) -> AsyncIterator[Stage]:
    settings = stomp.Settings(enabled=True, heartbeat=heartbeat, signalling=signalling)
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, "ETH-USDT", eager=True),
            faces={"stomp": settings},
            **tables,
        ) as d,
    ):
        await d.until_carried(SYMBOL, "ETH-USDT")
        yield Stage(exchange, d)


@define
class Frame:
    command: str
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_float=Decimal)


def frame(text: str) -> Frame:
    """As a strict client reads it: LF, an empty line, the body, NUL, and nothing behind."""
    assert text.endswith("\0"), text
    head, _, body = text[:-1].partition("\n\n")
    command, *lines = head.split("\n")
    pairs = [line.split(":", 1) for line in lines]
    headers = {name: value.replace("\\c", ":") for name, value in pairs}
    assert len(headers) == len(lines), text
    if "content-length" in headers:
        assert int(headers["content-length"]) == len(body.encode())
    return Frame(command, headers, body)


@define
class Client:
    """A connection. `texts`: all that came, as it came; `frames`: all frames in it."""

    socket: WebSocketConnection
    in_sockjs: bool
    texts: list[str] = field(factory=list)
    frames: list[Frame] = field(factory=list)
    beats: int = 0
    closed: tuple[int, str] | None = None

    async def listen(self) -> None:
        try:
            while True:
                self._keep(await self.socket.get_message())
        except ConnectionClosed as error:
            self.closed = how_it_ended(error)

    def _keep(self, text: str) -> None:
        self.texts.append(text)
        if self.in_sockjs and text[0] != "a":
            return
        for each in json.loads(text[1:]) if self.in_sockjs else [text]:
            if each == "\n":
                self.beats += 1
            else:
                self.frames.append(frame(each))

    async def send(self, command: str, *headers: str, body: str = "") -> None:
        await self.say("\n".join((command, *headers)) + f"\n\n{body}\0")

    async def say(self, text: str) -> None:
        await self.socket.send_message(json.dumps([text]) if self.in_sockjs else text)

    async def connect(self, *headers: str) -> Frame:
        await self.send("CONNECT", "accept-version:1.0,1.1,1.2", *headers)
        await self.until("CONNECTED")
        return self.of("CONNECTED")[0]

    async def subscribe(self, id_: str, destination: str = MARKET_DATA) -> None:
        """Returns when the subscription is made."""
        await self.send("SUBSCRIBE", f"id:{id_}", f"destination:{destination}", f"receipt:s-{id_}")
        await until(
            lambda: any(f.headers["receipt-id"] == f"s-{id_}" for f in self.of("RECEIPT")) or self.closed
        )

    def of(self, command: str) -> list[Frame]:
        return [each for each in self.frames if each.command == command]

    def messages(self, id_: str) -> list[Frame]:
        return [each for each in self.of("MESSAGE") if each.headers["subscription"] == id_]

    async def until(self, command: str, count: int = 1) -> None:
        await until(lambda: len(self.of(command)) >= count or self.closed)


@asynccontextmanager
async def client(
    d: Daemon, path: str = PLAIN, subprotocols: Sequence[str] | None = None, buffer: int | None = None
) -> AsyncIterator[Client]:
    """`buffer`: bytes that its kernel takes before it reads."""
    host, _, port = d.http.removeprefix("http://").partition(":")
    raw = trio.socket.socket()
    if buffer is not None:
        raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, buffer)
    await raw.connect((host, int(port)))
    async with trio.SocketStream(raw) as stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, f"{host}:{port}", path, subprotocols=subprotocols)
        made = Client(socket, path != PLAIN)
        if buffer is None:
            nursery.start_soon(made.listen)
        yield made
        nursery.cancel_scope.cancel()


async def settled(s: Stage, condition: Callable[[], Any] = lambda: True) -> None:
    """Returns when no client is left, and nothing of one."""
    await until(lambda: s.sessions == 0 and s.listeners == 0 and condition())
