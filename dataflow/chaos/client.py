"""A client that checks its stream, and that leaves, vanishes or stops reading on demand.

Rules of this file. A connected client waits for ever: the verdict must find a silent session, and a timeout
here would hide it. After every end of a connection the client returns and asks for the missed trades.
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
# Bytes that the system buffers for a client. Few, so that the daemon soon notices a client that never reads.
WINDOW: Final = 16_384
# Bytes. The loopback's own segments, 64 KiB, would let the buffers of the other side grow to megabytes.
SEGMENT: Final = 1_400
LARGEST: Final = 1 << 28  # bytes in one message: an answer to `since` may hold many trades


@define
class Gate:
    """Open unless at least one task holds it shut."""

    _shut: int = 0
    _opened: trio.Event = field(factory=trio.Event)

    async def passed(self) -> None:
        """Wait until the gate is open."""
        while self._shut:
            await self._opened.wait()

    async def shut_for(self, seconds: float) -> None:
        """Hold the gate shut for `seconds`."""
        self._shut += 1
        try:
            await trio.sleep(seconds)
        finally:
            self._shut -= 1
            self._opened.set()
            self._opened = trio.Event()


async def dial(host: str, port: int) -> trio.SocketStream:
    """A TCP connection with small buffers, as between two machines. Raises OSError."""
    made = trio.socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    with suppress(AttributeError, OSError):  # not every system has this option
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    try:
        await made.connect((host, port))
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


@define(eq=False)
class CheckingClient:
    """Follows `symbols` at `host`:`port`. With `batch`, one message may hold several updates."""

    host: str
    port: int
    symbols: Collection[str]
    batch: bool = False
    streams: dict[str, Stream] = field(init=False)
    connections: int = 0
    closed: Counter[int] = field(factory=Counter)  # connections by close code
    refused: Counter[int] = field(factory=Counter)  # subscriptions by error code
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
        """Whether every subscription has been answered on the present connection."""
        return all(stream.live for stream in self.streams.values())

    async def run(self) -> None:
        """Connect, listen and reconnect until cancelled."""
        while True:
            self.waits_for = "permission to come back"
            await self.present.passed()
            self.waits_for = "a connection"
            with suppress(OSError):
                await self._visit()
            await trio.sleep(AGAIN_AFTER)

    async def leave(self, seconds: float, *, politely: bool) -> None:
        """Disconnect, and reconnect after `seconds`. With `politely`, by a closing handshake."""
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
                raise trio.BrokenResourceError  # reconnect and start again
