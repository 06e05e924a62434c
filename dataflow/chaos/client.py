"""Clients that check what they get, and that leave, vanish or stop reading on demand.

Rules of this file. Most clients use the core of a client (`Resuming`), as users do; `JsonRpc` does not.
A connected client waits for ever: the verdict must find a silent session, and a timeout
here would hide it. After every end of a connection the client returns, and asks for the missed trades where
its protocol can. `faces` has the clients of the other protocols.
"""

from __future__ import annotations

import json
import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, ClassVar, Final

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from dataflow.client import (
    CallError,
    Connection,
    Feed,
    Filled,
    Gap,
    Refused,
    Rewound,
    ServerFault,
    Topic,
    Trade,
    connect,
)
from dataflow.client import Client as Core
from dataflow.client.client import TRADES, Format
from dataflow.client.feed import TradeEvent

from .check import Account, Admitted, Seen, Shown, State, Stream, account, shown_account

AGAIN_AFTER: Final = 0.1  # seconds
HANDSHAKE_WITHIN: Final = 4.0  # seconds: trio-websocket does not notice a reset during the handshake
GOODBYE_WITHIN: Final = 1.0  # seconds for a closing handshake
# Bytes that the system buffers for a client. Few, so that the daemon soon notices a client that never reads.
WINDOW: Final = 16_384
# Bytes. The loopback's own segments, 64 KiB, would let the buffers of the other side grow to megabytes.
SEGMENT: Final = 1_400
LIBRARY: Final = 2  # the number of the speaker that is made of the whole library
_FORMATS: Final[tuple[Format, ...]] = ("json", "compact", "strings")
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


@define(eq=False)
class JsonRpc(Trades, OverWebSocket):
    """Speaks JSON-RPC in words of its own, so that the core of a client cannot hide its own faults.

    With `batch`, one message may hold several updates.
    """

    path = "/ws"
    batch: bool = False
    _asked: dict[int, str] = field(init=False)

    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        self._asked = dict(enumerate(self.symbols))
        for number, symbol in self._asked.items():
            await self.say(socket, self._subscription(number, symbol))

    async def say(self, socket: WebSocketConnection, text: str) -> None:
        """Send one call."""
        await socket.send_message(text)

    def hear(self, text: str) -> None:
        message = json.loads(text, parse_float=Decimal)
        for each in message if isinstance(message, list) else [message]:
            self._hear(each)

    def _subscription(self, number: int, symbol: str) -> str:
        since = self.streams[symbol].since
        params = {"symbol": symbol, "batch": self.batch, **({} if since is None else {"since": since})}
        return json.dumps({"jsonrpc": "2.0", "id": number, "method": "subscribe", "params": params})

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "trades.update", "params": params}:
                self.received += 1
                self.streams[params["symbol"]].trade(params)
            case {"method": "stream.gap", "params": params}:
                self.streams[params["symbol"]].gap(params)
            case {"method": "stream.filled", "params": params}:
                self.streams[params["symbol"]].filled(params)
            case {"result": answer, "id": number}:
                self.received += len(answer.get("trades", ()))
                self.streams[self._asked[number]].subscribed(answer)
            case {"error": error}:
                self.refused[error["code"]] += 1
                raise trio.BrokenResourceError  # reconnect and start again


@define(eq=False)
class Resuming(OverWebSocket):
    """Speaks JSON-RPC through the core of a client: what it holds in the end is judged.

    `findings` counts what its core was told and should not have been: unrecovered (the count began anew) and
    faulty (the server broke the contract).
    """

    path = "/ws"
    batch: bool = True
    format: Format = "json"
    findings: Counter[str] = field(factory=Counter)
    faults: list[str] = field(factory=list)
    rewinds: dict[str, list[int]] = field(factory=dict)  # places to go back to, by symbol, in order
    answered: set[str] = field(factory=set)  # symbols that were live on a connection that is lost
    filled: int = 0
    recovered: int = 0
    _core: Core = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._core = Core(format=self.format, batch=self.batch, keep=None)
        for symbol in self.symbols:
            self._core.follow(symbol)

    @property
    def listening(self) -> bool:
        streams = self._core.streams
        return all((held := streams.get(Topic(TRADES, each))) and held.live for each in self.symbols)

    def position(self, symbol: str) -> int | None:
        """The newest place that it holds; None before the first answer."""
        stream = self._core.streams.get(Topic(TRADES, symbol))
        return None if stream is None else stream.offset

    def lost(self) -> None:
        self.answered |= {topic.symbol for topic, stream in self._core.streams.items() if stream.live}
        self._core.lost()

    def behind(self, admitted: Mapping[str, Admitted]) -> Iterator[str]:
        for symbol in self.symbols:
            if self.position(symbol) != (last := admitted[symbol].last):
                yield f"at {self.position(symbol)} of {symbol}, the daemon at {last}"

    def account(self, admitted: Mapping[str, Admitted]) -> Account:
        whole = Account(recovered=self.recovered, wrong=+self.findings, examples=list(self.faults))
        for symbol in self.symbols:
            whole.add(account(symbol, self._held(symbol), admitted[symbol]))
        return whole

    def _held(self, symbol: str) -> Stream:
        """What it holds of `symbol`, in the form that the verdict compares."""
        core, made = self._core.streams.get(Topic(TRADES, symbol)), Stream()
        if core is None:
            return made  # it was never served
        made.subscribed({"epoch": core.epoch, "offset": core.begin})
        for entry in core.log:
            if isinstance(entry, Gap):
                made.gap({"from": entry.first, "to": entry.to, "reason": entry.reason})
            else:
                made.seen(entry.offset, as_seen(entry))
        return made

    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        for call in self._core.connect():
            await socket.send_message(call)

    def hear(self, text: str) -> None:
        was_live = self.listening
        try:
            for event in self._core.hear(text):
                match event:
                    case Trade():
                        self.received += 1
                        self.recovered += not was_live
                    case Gap(first=0):
                        self.findings["unrecovered"] += 1
                    case Filled():
                        self.filled += len(event.trades)
                    case Rewound():
                        self.rewinds.setdefault(event.symbol, []).append(event.offset)
                    case Refused():
                        self.refused[event.code] += 1
                        raise trio.BrokenResourceError  # reconnect and start again
        except ServerFault as fault:
            self.findings["faulty"] += 1
            self.faults.append(str(fault))
            raise trio.BrokenResourceError from fault


@define(eq=False)
class Fed(Trades):
    """A program made of the library for Python. It sees events alone, and keeps its positions."""

    _positions: dict[str, Any] = field(factory=dict)
    _feed: Feed | None = None

    @property
    def connected(self) -> bool:
        return self._feed is not None and self._feed.connection.state == "connected"

    @property
    def listening(self) -> bool:
        return super().listening and all(each in self._places for each in self.symbols)

    @property
    def _places(self) -> dict[str, Any]:
        return self._positions if self._feed is None else self._feed.positions

    def position(self, symbol: str) -> int | None:
        told = self._places.get(symbol)
        return None if told is None else told["offset"]

    def behind(self, admitted: Mapping[str, Admitted]) -> Iterator[str]:
        for symbol in self.symbols:
            if self.position(symbol) != (last := admitted[symbol].last):
                yield f"at {self.position(symbol)} of {symbol}, the daemon at {last}"

    def account(self, admitted: Mapping[str, Admitted]) -> Account:
        for symbol, stream in self.streams.items():
            if stream.position is None and (at := self.position(symbol)) is not None:
                stream.begin = stream.position = at  # nothing came since then
        return super().account(admitted)

    async def converse(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        """The library has connections of its own."""

    async def _visit(self) -> None:
        try:
            with trio.CancelScope() as self._scope:
                async with connect(f"http://{self.host}:{self.port}", wait=True) as self._feed:
                    try:
                        await self._follow(self._feed)
                    finally:
                        self._positions = self._feed.positions
        finally:
            self._scope = self._feed = None
            self.lost()

    async def _follow(self, feed: Feed) -> None:
        try:
            async for event in feed.trades(self.symbols, since=self._positions or None):
                self._take(event)
                await self.reading.passed()
        except CallError as refused:
            self.refused[refused.code] += 1

    def _take(self, event: TradeEvent) -> None:
        match event:
            case Connection(state="connected"):
                self.connections += 1
                for stream in self.streams.values():
                    stream.live = True
            case Connection(state="lost"):
                self.closed[event.code or 1006] += 1
                self.lost()
            case Trade():
                self.received += 1
                self._begun(event).seen(event.offset, as_seen(event))
            case Gap(first=0):
                self.streams[event.symbol].findings["unrecovered"] += 1
            case Gap():
                self._begun(event).gap({"from": event.first, "to": event.to, "reason": event.reason})
            case Filled():
                for trade in event.trades:
                    self.streams[event.symbol].fill(trade.offset, as_seen(trade))
            case Rewound():
                self.streams[event.symbol].rewind(event.offset)

    def _begun(self, event: Trade | Gap) -> Stream:
        """Its stream, which begins with the first event."""
        stream = self.streams[event.symbol]
        if stream.position is None:
            stream.begin = stream.position = event.first - 1
        return stream


def speaker(
    number: int, host: str, port: int, symbols: Collection[str], *, outlives: bool = False
) -> JsonRpc | Resuming | Fed:
    """The client of this number that speaks JSON-RPC: one checks by itself, one is made of the library, others
    of its core, in each format. `outlives`: the daemon may be another one after a reconnection."""
    if number == 0:
        return JsonRpc(host, port, symbols, outlives=outlives)
    if number == LIBRARY:
        return Fed(host, port, symbols, outlives=outlives)
    batch, format = bool(number % 2), _FORMATS[number % len(_FORMATS)]
    return Resuming(host, port, symbols, batch=batch, format=format)


def as_seen(trade: Trade) -> Seen:
    """A trade of the core in the form that the verdict compares."""
    return Seen(trade.source, trade.trade_id, trade.side, trade.price, trade.quantity)
