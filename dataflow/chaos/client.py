"""Clients that check what they get, and that leave, vanish or stop reading on demand.

Rules of this file. A connected client waits for ever: the verdict must find a silent session, and a timeout
here would hide it. After every end of a connection the client returns, and asks for the missed trades where
its protocol can. `speakers` has the clients that speak JSON-RPC, `faces` those of the other protocols.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import ClassVar, Final

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from .check import Account, Admitted, Shown, State, Stream, account, shown_account

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

    @property
    def is_shut(self) -> bool:
        """For who can not wait on this loop."""
        return self._shut > 0

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
class Client(ABC):
    """Follows `symbols` at `host`:`port`. A client of one protocol derives from `Trades` or `States`."""

    host: str
    port: int
    symbols: Collection[str]
    connections: int = 0
    closed: Counter[int] = field(factory=Counter)  # connections by close code
    refused: Counter[int] = field(factory=Counter)  # subscriptions by error code
    received: int = 0
    waits_for: str = "a connection"
    present: Gate = field(factory=Gate)
    reading: Gate = field(factory=Gate)
    _socket: WebSocketConnection | None = None
    _scope: trio.CancelScope | None = None

    @property
    def connected(self) -> bool:
        """Whether it has a connection, or makes one."""
        return self._scope is not None

    @property
    @abstractmethod
    def listening(self) -> bool:
        """Whether it follows all of its symbols on the present connection."""

    @abstractmethod
    def behind(self, admitted: Mapping[str, Admitted]) -> Iterator[str]:
        """What has not reached it yet, in words."""

    @abstractmethod
    def account(self, admitted: Mapping[str, Admitted]) -> Account:
        """The verdict on all of its symbols."""

    @abstractmethod
    def lost(self) -> None:
        """The connection is lost."""

    @abstractmethod
    async def converse(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        """Subscribe and listen, as long as the connection lasts. May raise what a lost connection raises."""

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
                    await self.converse(stream, nursery)
        except* ConnectionClosed as closed:
            self._count(closed)
        except* (HandshakeError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self.closed[1006] += 1
        finally:
            self._socket = self._scope = None
            self.lost()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    def _count(self, group: BaseExceptionGroup[ConnectionClosed]) -> None:
        (first, *_rest) = group.exceptions
        if isinstance(first, BaseExceptionGroup):
            self._count(first)
        else:
            self.closed[int(first.reason.code) if first.reason else 1006] += 1


class OverWebSocket(Client):
    """A protocol over WebSocket at `path`, in text messages."""

    path: ClassVar[str]
    subprotocols: ClassVar[Collection[str]] = ()

    @abstractmethod
    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        """Say what there is to say when the connection is open. The tasks of `nursery` last as long."""

    @abstractmethod
    def hear(self, text: str) -> None:
        """A message. May raise what a lost connection raises: reconnect and start again."""

    def target(self) -> str:
        """The path, with the query."""
        return self.path

    async def converse(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        where = f"{self.host}:{self.port}"
        self.waits_for = "the end of the handshake"
        with trio.fail_after(HANDSHAKE_WITHIN):
            self._socket = socket = await wrap_client_stream(
                nursery,
                stream,
                where,
                self.target(),
                subprotocols=list(self.subprotocols),
                max_message_size=LARGEST,
            )
        self.waits_for = "an answer"
        await self.begin(socket, nursery)
        while True:
            await self.reading.passed()
            message = await socket.get_message()
            self.hear(message if isinstance(message, str) else message.decode())


@define(eq=False)
class Trades(Client):
    """A client that is owed every trade."""

    streams: dict[str, Stream] = field(init=False)
    outlives: bool = False  # the daemon may be another one after a reconnection
    answered: set[str] = field(factory=set)  # symbols that were live on a connection that is lost

    def __attrs_post_init__(self) -> None:
        self.streams = {symbol: Stream(outlives=self.outlives) for symbol in self.symbols}

    def position(self, symbol: str) -> int | None:
        """The newest place that it has; None before the first answer."""
        return self.streams[symbol].position

    @property
    def rewinds(self) -> dict[str, list[int]]:
        """The places that it was told to go back to, by symbol, in order."""
        return {symbol: stream.rewinds for symbol, stream in self.streams.items()}

    @property
    def listening(self) -> bool:
        return all(stream.live for stream in self.streams.values())

    def lost(self) -> None:
        self.answered |= {symbol for symbol, stream in self.streams.items() if stream.live}
        for stream in self.streams.values():
            stream.lost()

    def behind(self, admitted: Mapping[str, Admitted]) -> Iterator[str]:
        for symbol, stream in self.streams.items():
            if stream.position != (last := admitted[symbol].last):
                yield f"at {stream.position} of {symbol}, the daemon at {last}"

    def account(self, admitted: Mapping[str, Admitted]) -> Account:
        whole = Account()
        for symbol, stream in self.streams.items():
            whole.add(account(symbol, stream, admitted[symbol]))
        return whole


@define(eq=False)
class States(Client):
    """A client that is owed the newest state of each symbol.

    `counts_fills`: a late trade that fills a gap changes the state when it comes.
    """

    counts_fills: ClassVar = False
    shown: dict[str, Shown] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.shown = {symbol: Shown() for symbol in self.symbols}

    @staticmethod
    @abstractmethod
    def truth(admitted: Admitted) -> list[State]:
        """The states that there were."""

    @property
    def listening(self) -> bool:
        return all(shown.live for shown in self.shown.values())

    def show(self, symbol: str, state: State) -> None:
        """A state came."""
        self.received += 1
        shown = self.shown[symbol]
        if not shown.live:
            shown.begin()
        shown.show(state)

    def lost(self) -> None:
        for shown in self.shown.values():
            shown.lost()

    def behind(self, admitted: Mapping[str, Admitted]) -> Iterator[str]:
        for symbol, shown in self.shown.items():
            newest = self.truth(admitted[symbol])[-1:]
            if shown.states[-1:] != newest:
                yield f"not at the newest state of {symbol}, {newest}"

    def account(self, admitted: Mapping[str, Admitted]) -> Account:
        whole = Account()
        for symbol, shown in self.shown.items():
            unsure = self.counts_fills and admitted[symbol].fills > 0
            whole.add(shown_account(symbol, shown, self.truth(admitted[symbol]), only_last=unsure))
        return whole
