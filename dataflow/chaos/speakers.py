"""Clients that speak JSON-RPC: in words of their own, by the core of the library, or by the whole library.

Rules of this file. The first shares nothing with the library, so that this cannot hide its own faults. The
others use it as users do. `check` judges all that each of them held or was told, and forgives nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeAlias

import anyio
import trio
from attrs import define, field
from trio_websocket import WebSocketConnection

from dataflow.client import (
    EVERY,
    CallError,
    Candle,
    Connection,
    Feed,
    Filled,
    Following,
    Gap,
    Quality,
    Refused,
    Rewound,
    ServerFault,
    Topic,
    Trade,
)
from dataflow.client import Client as Core
from dataflow.client.client import TRADES, Format
from dataflow.client.feed import TradeEvent
from dataflow.client.link import FAULT

from .check import EXAMPLES, Account, Admitted, Seen, Stream, account
from .client import AGAIN_AFTER, OverWebSocket, Trades
from .plan import Make

AGAIN_AT_MOST: Final = 1.0  # seconds between two attempts of the library
SAVED_EVERY: Final = 100  # events
KEPT: Final = 100  # entries of a stream in the core, as in a feed of `connect`
ROOM: Final = 200  # events that may wait: few, so that a program that stops to read stops the socket soon
GLANCE: Final = 0.02  # seconds between two looks whether it may read on
INTERVAL: Final = "1s"
WINDOW_OF_CANDLES: Final = timedelta(seconds=1)


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
        core, made = self._core.streams.get(Topic(TRADES, symbol)), Stream(asks=True)
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
    """A program made of the library for Python. It sees events alone.

    From time to time it saves where it stands, and when it leaves. One that vanishes has died: the next one
    knows what it had saved, and no more. `findings`: faulty, as of `Resuming`, and misplaced: the positions
    of the feed are not those of the program.
    """

    make: Make = field(kw_only=True)
    findings: Counter[str] = field(factory=Counter)
    faults: list[str] = field(factory=list)
    filled: int = 0
    _saved: str = "{}"  # the positions, as JSON
    _unsaved: int = 0  # events since then
    _places: dict[str, Any] = field(factory=dict)  # the positions when it looked last
    _epochs: dict[str, int] = field(factory=dict)  # of the streams, when their last connections were lost
    _linked: bool = False  # it has a connection, or makes one
    _dies: bool = False
    _feed: Feed | None = None
    _candles: dict[tuple[str, datetime], Candle] = field(factory=dict)
    _times: dict[str, dict[int, datetime]] = field(factory=dict)  # of the trades, by place
    _leaves: bool = False
    _stop: Callable[[], object] | None = None  # ends the program on asyncio

    def __attrs_post_init__(self) -> None:
        self.streams = {symbol: self._new() for symbol in self.symbols}

    def _new(self) -> Stream:
        return Stream(outlives=self.outlives, asks=True)

    @property
    def connected(self) -> bool:
        return self._scope is not None and self._linked

    @property
    def listening(self) -> bool:
        if self._feed is None or not self._linked:
            return False
        held = self._feed._core.streams  # no program need know it
        return all((stream := held.get(Topic(TRADES, each))) and stream.live for each in self.symbols)

    def position(self, symbol: str) -> int | None:
        at = self.streams[symbol].position
        told = self._places.get(symbol) if at is None else None
        return at if told is None else int(told["offset"])

    def lost(self) -> None:
        """The daemon has answered where the epoch is another one: where it is not, nothing is to be told."""
        if self._feed is not None:
            self._places = self._feed.positions
        epochs = {symbol: place["epoch"] for symbol, place in self._places.items()}
        self.answered |= {symbol for symbol, epoch in epochs.items() if epoch != self._epochs.get(symbol)}
        self._epochs = epochs
        for stream in self.streams.values():
            stream.lost()

    def behind(self, admitted: Mapping[str, Admitted]) -> Iterator[str]:
        for symbol in self.symbols:
            if self.position(symbol) != (last := admitted[symbol].last):
                yield f"at {self.position(symbol)} of {symbol}, the daemon at {last}"

    def account(self, admitted: Mapping[str, Admitted]) -> Account:
        for symbol, stream in self.streams.items():
            if stream.position is None and (at := self.position(symbol)) is not None:
                stream.begin = stream.position = at  # nothing came since then
        whole = Account(wrong=+self.findings, examples=list(self.faults))
        whole.add(super().account(admitted))
        untrue = [each for each in self._candles.values() if each.complete and not self._is_true(each)]
        whole.wrong["untrue"] += len(untrue)
        whole.examples += (f"not what its trades make: {each}" for each in untrue[:EXAMPLES])
        return whole

    async def leave(self, seconds: float, *, politely: bool) -> None:
        self._dies = not politely
        await super().leave(seconds, politely=politely)

    async def converse(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        """The library has connections of its own."""

    async def _visit(self) -> None:
        self._linked, self._dies = True, False
        try:
            with trio.CancelScope() as self._scope:
                await (self._apart() if self.make.apart else self._program())
        finally:
            self._scope = self._feed = None
            if self._dies:
                self._forget()
            self.lost()

    # The program, on Trio or on asyncio.

    async def _program(self) -> None:
        core = Core(format=self.make.format, batch=self.make.batch, keep=KEPT)
        url, retry = f"http://{self.host}:{self.port}", (AGAIN_AFTER, AGAIN_AT_MOST)
        async with Feed(url, core, wait=True, room=ROOM, retry=retry) as feed:
            self._feed = feed
            try:
                async with anyio.create_task_group() as tasks:
                    if self.make.also:
                        tasks.start_soon(self._follow, feed.candles(self._wanted, INTERVAL))
                        tasks.start_soon(self._follow, feed.quality(self._wanted))
                    await self._follow(feed.trades(self._wanted, since=json.loads(self._saved)))
                    tasks.cancel_scope.cancel()
            finally:
                if not self._dies:
                    self._save(feed)

    @property
    def _wanted(self) -> str | Collection[str]:
        return EVERY if self.make.every else self.symbols

    async def _follow(self, events: Following[Any]) -> None:
        try:
            async for event in events:
                if isinstance(event, Candle):
                    self._candle(event)
                elif not isinstance(event, Quality):
                    self._take(event)
                while self.reading.is_shut:  # noqa: ASYNC110 - its event is of the other loop
                    await anyio.sleep(GLANCE)
        except CallError as refused:
            self.refused[refused.code] += 1
        except ServerFault as fault:
            self._fault("faulty", str(fault))

    async def _apart(self) -> None:
        """The program in a thread, until it ends or is to leave."""
        self._leaves, self._stop = False, None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_left)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(anyio.run, self._on_asyncio, backend="asyncio"))
            nursery.cancel_scope.cancel()

    async def _until_left(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._leaves = True
            if self._stop is not None:
                with suppress(RuntimeError):  # its loop has ended already
                    self._stop()

    async def _on_asyncio(self) -> None:
        with anyio.CancelScope() as scope:
            self._stop = partial(asyncio.get_running_loop().call_soon_threadsafe, scope.cancel)
            if not self._leaves:
                await self._program()

    # What it is told.

    def _take(self, event: TradeEvent) -> None:
        match event:
            case Connection():
                self._connection(event)
            case Trade():
                self.received += 1
                self._begun(event).seen(event.offset, as_seen(event))
                self._note(event)
            case Gap(first=0):
                self._stream(event.symbol).findings["unrecovered"] += 1
            case Gap():
                self._begun(event).gap({"from": event.first, "to": event.to, "reason": event.reason})
            case Filled():
                self.filled += len(event.trades)
                for trade in event.trades:
                    self._stream(event.symbol).fill(trade.offset, as_seen(trade))
                    self._note(trade)
            case Rewound():
                self._begun(event).rewind(event.offset)
        self._unsaved += 1
        if self._unsaved >= SAVED_EVERY and self._feed is not None:
            self._save(self._feed)

    def _connection(self, event: Connection) -> None:
        self.waits_for = f"more than {event.state}"
        self._linked = event.state not in ("lost", "closed")
        if event.state == "connected":
            self.connections += 1
            for stream in self.streams.values():
                stream.live = True
        elif event.state == "lost":
            self.closed[event.code or 1006] += 1
            if event.reason is not None and event.reason.startswith(FAULT):
                self._fault("faulty", event.reason)
            self.lost()

    def _candle(self, candle: Candle) -> None:
        held = self._candles.get((candle.symbol, candle.start))
        if held is not None and candle.rev <= held.rev and not self.outlives:
            self._fault("reordered", f"revision {candle.rev} behind {held.rev}: {candle}")
        self._candles[candle.symbol, candle.start] = candle

    def _is_true(self, candle: Candle) -> bool:
        """Whether it is what the trades at its places make of it, as far as it has them."""
        stream, times = self.streams[candle.symbol], self._times.get(candle.symbol, {})
        if candle.first_offset is None or candle.last_offset is None:
            return False
        places = range(candle.first_offset, candle.last_offset + 1)
        if not all(at in stream.delivered for at in places):
            return True
        end = candle.start + WINDOW_OF_CANDLES
        volume = [stream.delivered[at].quantity for at in places if candle.start <= times[at] < end]
        return (len(volume), sum(volume)) == (candle.count, candle.volume)

    def _note(self, trade: Trade) -> None:
        if self.make.also:
            self._times.setdefault(trade.symbol, {})[trade.offset] = trade.timestamp

    def _stream(self, symbol: str) -> Stream:
        """Its stream; of `*` it may be one that nobody knew before."""
        if symbol not in self.streams:
            self.streams[symbol] = self._new()
            self.streams[symbol].live = True
        return self.streams[symbol]

    def _begun(self, event: Trade | Gap | Rewound) -> Stream:
        """Its stream, which begins with the first event."""
        stream = self._stream(event.symbol)
        if stream.position is None:
            stream.begin = stream.position = event.offset if isinstance(event, Rewound) else event.first - 1
        return stream

    # Where it stands.

    def _save(self, feed: Feed) -> None:
        self._unsaved = 0
        self._places = feed.positions
        self._saved = json.dumps(self._places)
        for symbol, place in self._places.items():
            stream = self.streams.get(symbol)
            if stream is None or stream.position is None:
                continue
            gaps = {at for first, last in place.get("gaps", ()) for at in range(first, last + 1)}
            if place["offset"] != stream.position or gaps != stream.exact:
                where = f"{place['offset']}, not at {stream.position}, with gaps at {len(gaps)} places"
                self._fault("misplaced", f"{symbol}: positions has it at {where} of {len(stream.exact)}")

    def _forget(self) -> None:
        """It has died: back to what it had saved."""
        self._places = json.loads(self._saved)
        for symbol, stream in self.streams.items():
            if symbol not in self._places:
                stream.cut(0)
                stream.position, stream.begin = None, 0
            elif stream.position is not None:
                stream.cut(self._places[symbol]["offset"])
                for first, last in self._places[symbol].get("gaps", ()):
                    stream.reopen(first, last)

    def _fault(self, kind: str, told: str) -> None:
        self.findings[kind] += 1
        self.faults.append(told)


Speaker: TypeAlias = JsonRpc | Resuming | Fed


def speaker(make: Make, host: str, port: int, symbols: Collection[str], *, outlives: bool = False) -> Speaker:
    """A client that speaks JSON-RPC. `outlives`: the daemon may be another one after a reconnection."""
    if make.sort == "own":
        return JsonRpc(host, port, symbols, outlives=outlives)
    if make.sort == "library":
        return Fed(host, port, symbols, outlives=outlives, make=make)
    return Resuming(host, port, symbols, batch=make.batch, format=make.format)


def as_seen(trade: Trade) -> Seen:
    """A trade of the core in the form that the verdict compares."""
    return Seen(trade.source, trade.trade_id, trade.side, trade.price, trade.quantity)
