"""One client of a simulated exchange: its session, its outbox, and the ways in which the connection can end.

Rule 1: a sender waits for `room` before it puts a message, with no checkpoint between the two.
Rule 2: one task writes the outbox, so messages leave in the order in which they were put.
Rule 3: the outbox holds `OUTBOX` messages, beside those of one write. When it is full the publisher waits,
and after the exchange's `patience` the client is cut. Replayed trades may exceed the limit; the exchange's
`history` bounds them.
Rule 4: answers and heartbeats have as much room again. A publisher that is behind fills every place at once,
and the requests of the client would never be heard.
Rule 5: messages that wait are written together, about `AT_ONCE` bytes in one write. Each alone would need a
turn of the event loop, and on a busy machine a long replay would take as long as all of those turns.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias

import trio
from attrs import define, field, frozen
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.frame_protocol import FrameProtocol
from wsproto.utilities import LocalProtocolError

from .dialect import Session
from .faults import SILENCE, Fault, Faults, Piece, Wait, mangle
from .trade import Item, Trade

OUTBOX = 1024
AT_ONCE = 65_536  # bytes
_RESET = struct.pack("ii", 1, 0)


async def reset(stream: trio.abc.Stream) -> None:
    """Close a stream at once. A TCP connection is reset, because a FIN would look like a normal end."""
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    await trio.aclose_forcefully(stream)


class InTurn(trio.abc.Stream):
    """A stream on which several tasks write. Each holds `turn` while it does."""

    def __init__(self, stream: trio.abc.Stream, turn: trio.StrictFIFOLock) -> None:
        self._stream = stream
        self._turn = turn

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._turn:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@frozen
class _Goodbye:
    code: int
    reason: str


@frozen
class _Ready:
    """Its event is set when everything before it in the outbox is written."""

    event: trio.Event


_Outgoing: TypeAlias = Piece | _Goodbye | _Ready


@define(eq=False)
class Connection:
    """The exchange's view of one client. `turn`: its holder may write on `stream`.

    `sent` counts messages that were written to the socket, `swallowed` those that were lost in a stall or to
    a `mute`. `allowed`: frames of the client within one second.
    """

    number: int
    session: Session
    faults: Faults
    stream: trio.abc.Stream
    turn: trio.StrictFIFOLock
    websocket: WebSocketConnection
    gone: trio.Event = field(factory=trio.Event)
    sent: int = 0
    swallowed: int = 0
    leaving: bool = False
    allowed: int | None = None
    _heard: deque[float] = field(factory=deque)
    _muted: set[str] = field(factory=set)
    _outbox: deque[_Outgoing] = field(factory=deque)
    _in_hand: int = 0  # messages of the write that goes on
    _framed: FrameProtocol = field(factory=lambda: FrameProtocol(client=False, extensions=[]))
    _held: list[Piece] = field(factory=list)
    _silent_until: float = -1.0
    _filled: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    _emptied: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    @property
    def queued(self) -> int:
        """How many messages are not written yet."""
        return len(self._outbox) + self._in_hand

    @property
    def full(self) -> bool:
        """Whether a sender has to wait for room."""
        return len(self._outbox) >= OUTBOX and not self.gone.is_set()

    @property
    def silent(self) -> bool:
        """Whether it is stalled: the connection is open, and nothing is sent."""
        return trio.current_time() < self._silent_until

    def hears(self) -> None:
        """A frame of the client has come. One too many within a second ends the connection."""
        if self.allowed is None or self.leaving:
            return
        now = trio.current_time()
        self._heard.append(now)
        while self._heard[0] <= now - 1:
            self._heard.popleft()
        if len(self._heard) > self.allowed:
            self.bid_goodbye(1008, "Too many requests")

    def stall(self, seconds: float | None = None) -> None:
        """Send nothing for so many seconds (None: until the connection ends)."""
        self._silent_until = SILENCE if seconds is None else trio.current_time() + seconds

    async def room(self) -> None:
        """Wait until there is room for an item in the outbox, or the connection has ended."""
        while self.full:
            await self._emptied.park()

    async def room_to_answer(self) -> None:
        """Wait until there is room for an answer in the outbox, or the connection has ended."""
        while len(self._outbox) >= 2 * OUTBOX and not self.gone.is_set():
            await self._emptied.park()

    def say(self, texts: list[str]) -> None:
        """Put answers or heartbeats in the outbox."""
        for text in texts:
            self._put([text], [])

    def tell(self, item: Item) -> None:
        """Put market data in the outbox, if the client is subscribed. Faults strike here."""
        if not self.session.wants(item):
            return
        if item.symbol in self._muted:
            self.swallowed += 1
            return
        fault = self.faults.strike(item.symbol)
        self._begin(fault, item.symbol)
        for text in self.session.encode(item):
            self._put(*mangle(fault, text, self.faults))

    def unmute(self, symbols: Iterable[str]) -> None:
        """The client has subscribed to these symbols anew: their `mute` is over."""
        self._muted.difference_update(symbols)

    def tell_all(self, trades: list[Trade]) -> None:
        """Put replayed trades in the outbox. Faults do not strike them."""
        for trade in trades:
            for text in self.session.encode(trade):
                self._put([text], [])

    def _begin(self, fault: Fault | None, symbol: str) -> None:
        if fault and fault.kind == "skip":
            self.session.skip()
        if fault and fault.kind == "stall":
            self.stall(fault.seconds)
        if fault and fault.kind == "mute":
            self._muted.add(symbol)
            self.swallowed += 1

    def _put(self, now: list[Piece], later: list[Piece]) -> None:
        if self.silent:
            self.swallowed += 1
            return
        self._outbox.extend(now)
        if now:
            self._outbox.extend(self._held)
            self._held.clear()
        self._held.extend(later)
        self._filled.unpark_all()

    def bid_goodbye(self, code: int, reason: str) -> None:
        """Send a close frame after everything that is in the outbox."""
        self.leaving = True
        self._outbox.append(_Goodbye(code, reason))
        self._filled.unpark_all()

    async def drained(self) -> None:
        """Wait until everything in the outbox is written to the socket, or the connection has ended."""
        ready = _Ready(trio.Event())
        self._outbox.append(ready)
        self._filled.unpark_all()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_then_cancel, ready.event, nursery.cancel_scope)
            nursery.start_soon(self._wait_then_cancel, self.gone, nursery.cancel_scope)

    @staticmethod
    async def _wait_then_cancel(event: trio.Event, scope: trio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async def cut(self) -> None:
        """Reset the TCP connection, without a close frame. The outbox is lost."""
        await reset(self.stream)

    def end(self) -> None:
        """Mark the connection as ended, and wake the tasks that wait for it."""
        self.gone.set()
        self._emptied.unpark_all()

    async def write(self) -> None:
        """Write the outbox to the socket, up to a close frame. ConnectionClosed when the client left."""
        leaving = False
        with suppress(LocalProtocolError):  # the client's close frame has arrived, but is not handled yet
            while not leaving:
                while not self._outbox:
                    await self._filled.park()
                if isinstance(out := self._outbox[0], str):
                    await self._write()
                else:
                    self._outbox.popleft()
                    leaving = await self._act(out)

    async def _write(self) -> None:
        """Write the texts in front, in one piece."""
        async with self.turn:
            if self.websocket.closed is not None:
                raise ConnectionClosed(self.websocket.closed)
            piece = self._taken()
            try:
                await self.stream.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise ConnectionClosed(None) from None
        self.sent += self._in_hand
        self._in_hand = 0

    def _taken(self) -> bytearray:
        """The texts in front as frames, about `AT_ONCE` bytes. They leave the outbox."""
        piece = bytearray()
        while self._outbox and isinstance(text := self._outbox[0], str) and len(piece) < AT_ONCE:
            piece += self._framed.send_data(text)
            self._outbox.popleft()
            self._in_hand += 1
        self._emptied.unpark_all()
        return piece

    async def _act(self, out: Wait | _Ready | _Goodbye) -> bool:
        """Act on all but texts. Returns whether it is the end."""
        self._emptied.unpark_all()
        match out:
            case Wait():
                await trio.sleep(out.seconds)
            case _Ready():
                out.event.set()
            case _Goodbye():
                await self.websocket.aclose(out.code, out.reason)
                return True
        return False

    async def ping(self, every: float, patience: float) -> None:
        """Ping every so many seconds; return when a ping gets no answer within `patience` seconds."""
        while True:
            await trio.sleep(every)
            with trio.move_on_after(patience) as waiting:
                await self.websocket.ping()
            if waiting.cancelled_caught:
                return
            self.hears()
