"""A client that can misbehave in every way a client can, and keeps account of what it is given.

Rules of this file. Once connected it waits for ever: a session that falls silent is found out by the verdict,
and not hidden by a timeout here. Whatever ends a connection, it comes back and asks for what it missed.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from .check import Stream

AGAIN_AFTER: Final = 0.1  # seconds
HANDSHAKE_WITHIN: Final = 4.0  # seconds: trio-websocket does not notice a reset during the handshake
GOODBYE_WITHIN: Final = 1.0  # seconds for a closing handshake
WINDOW: Final = (
    16_384  # bytes the system may hold for a client, so that one who does not read is soon noticed
)
SEGMENT: Final = (
    1_400  # bytes; the loopback's own, 64 KiB, make the other side's buffers as large as megabytes
)
LARGEST: Final = 1 << 28  # bytes in one message: an answer to `since` may hold many trades


@define
class Gate:
    """Open unless somebody holds it shut; several may."""

    _shut: int = 0
    _opened: trio.Event = field(factory=trio.Event)

    async def passed(self) -> None:
        """Wait until nobody holds it shut."""
        while self._shut:
            await self._opened.wait()

    async def shut_for(self, seconds: float) -> None:
        """Hold it shut for so long."""
        self._shut += 1
        try:
            await trio.sleep(seconds)
        finally:
            self._shut -= 1
            self._opened.set()
            self._opened = trio.Event()


async def dial(host: str, port: int) -> trio.SocketStream:
    """A connection as from another machine: with small buffers. Raises OSError."""
    made = trio.socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    with suppress(AttributeError, OSError):  # not every system lets one choose
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    try:
        await made.connect((host, port))
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


@define(eq=False)
class CheckingClient:
    """Follows `symbols` at `host`:`port`. `batch`: several updates may come in one message."""

    host: str
    port: int
    symbols: Collection[str]
    batch: bool = False
    streams: dict[str, Stream] = field(init=False)
    connections: int = 0
    closed: Counter[int] = field(factory=Counter)  # connections by the code with which they ended
    refused: Counter[int] = field(factory=Counter)  # subscriptions by the code of the error
    received: int = 0
    waits_for: str = "a connection"
    present: Gate = field(factory=Gate)
    reading: Gate = field(factory=Gate)
    _socket: WebSocketConnection | None = None
    _scope: trio.CancelScope | None = None

    def __attrs_post_init__(self) -> None:
        self.streams = {symbol: Stream() for symbol in self.symbols}

    @property
    def listening(self) -> bool:
        """Whether every subscription has been answered on a living connection."""
        return all(stream.live for stream in self.streams.values())

    async def run(self) -> None:
        """Connect, listen, come back; until cancelled."""
        while True:
            self.waits_for = "permission to come back"
            await self.present.passed()
            self.waits_for = "a connection"
            with suppress(OSError):
                await self._visit()
            await trio.sleep(AGAIN_AFTER)

    async def leave(self, seconds: float, *, politely: bool) -> None:
        """Go, and come back after `seconds`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.present.shut_for, seconds)
            if politely and self._socket is not None:
                with trio.move_on_after(GOODBYE_WITHIN), suppress(ConnectionClosed):
                    await self._socket.aclose()
            if self._scope is not None:
                self._scope.cancel()

    async def _visit(self) -> None:
        stream = await dial(self.host, self.port)
        self.connections += 1
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    await self._converse(stream, nursery)
        except* ConnectionClosed as closed:
            self._count(closed)
        except* (HandshakeError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self.closed[1006] += 1
        finally:
            self._socket = self._scope = None
            for each in self.streams.values():
                each.lost()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    def _count(self, group: BaseExceptionGroup[ConnectionClosed]) -> None:
        (first, *_rest) = group.exceptions
        if isinstance(first, BaseExceptionGroup):
            self._count(first)
        else:
            self.closed[int(first.reason.code) if first.reason else 1006] += 1

    async def _converse(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        where = f"{self.host}:{self.port}"
        self.waits_for = "the end of the handshake"
        with trio.fail_after(HANDSHAKE_WITHIN):
            self._socket = await wrap_client_stream(nursery, stream, where, "/ws", max_message_size=LARGEST)
        asked = dict(enumerate(self.symbols))
        self.waits_for = "an answer"
        for number, symbol in asked.items():
            await self._socket.send_message(self._subscription(number, symbol))
        while True:
            await self.reading.passed()
            message = json.loads(await self._socket.get_message(), parse_float=Decimal)
            for each in message if isinstance(message, list) else [message]:
                self._hear(each, asked)

    def _subscription(self, number: int, symbol: str) -> str:
        since = self.streams[symbol].since
        params = {"symbol": symbol, "batch": self.batch, **({} if since is None else {"since": since})}
        return json.dumps({"jsonrpc": "2.0", "id": number, "method": "subscribe", "params": params})

    def _hear(self, message: dict[str, Any], asked: dict[int, str]) -> None:
        match message:
            case {"method": "trades.update", "params": params}:
                self.received += 1
                self.streams[params["symbol"]].trade(params)
            case {"method": "stream.gap", "params": params}:
                self.streams[params["symbol"]].gap(params)
            case {"result": answer, "id": number}:
                self.received += len(answer.get("trades", ()))
                self.streams[asked[number]].subscribed(answer)
            case {"error": error}:
                self.refused[error["code"]] += 1
                raise trio.BrokenResourceError  # to try again from the beginning
