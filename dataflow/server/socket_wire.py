"""A WebSocket on a socket of its own: the fast lane of a session that has detached from the HTTP server.

Rules of this file.
1. One owner of the order: only whole frames follow each other. Control frames wait in `_control` and leave
   between two payloads, also between two pieces of a message (RFC 6455, section 5.4). A payload or control
   frame that has begun is finished before anything else.
2. Pong and close need no task of their own: the next writer sends them, or `receive` while it waits.
3. At most one task writes and one receives. `close` and `abort` may come from any task, and end both.
4. Every wait at the end is bounded by `close_within` seconds.
5. Topics send to every client by `way`, the socket's own `send`. `_settle` decides after every change whether
   that is free, and tells the watcher. `write_nowait` is the same for everybody else.
6. The class of the socket decides about TLS. The code respects the additions of `net.tls` for plain sockets
   too.
Only public names of Trio: the socket is the standard library's, non-blocking, and Trio says when it is ready.

Why the loops of `net.stream` are not used: a topic must call nothing but the socket's `send` for each
client. A stream would put a second call between, and an object into every session. And a send that is cut off
is the last one there, whereas here `close` still finishes the frame in hand and says goodbye behind it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Final

import trio

from actors.session import Ending, Watcher, WireClosed
from dataflow.net.tls import CROSSED_SECONDS, CrossedError
from dataflow.net.websocket.frames import (
    VANISHED,
    ControlQueue,
    Opcode,
    binary_frames,
    close_frame,
    control_frame,
    piece_frame,
    text_frames,
)
from dataflow.net.websocket.parser import Goodbye, Parser, Ping

from .endings import CODES, WebSocketClosed
from .handshake import Messages

RECEIVE_BYTES = 16384
DISCARD_BYTES = 1 << 20  # of a peer that broke a rule, and goes on sending while it is seen off ...
DISCARD_SECONDS = 0.02  # ... with pauses in between: it must not have a share of every turn
SLICE_BYTES = 262144  # joined payloads in one send: re-joining a backlog whole would be quadratic

_LOST = Goodbye(VANISHED, "connection lost")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@asynccontextmanager
async def kept(wire: SocketWire) -> AsyncIterator[SocketWire]:
    """The block hands `wire` over. An exception in it closes the wire with 1011, a cancellation aborts it."""
    try:
        yield wire
    except Exception:
        await wire.close(Ending.FAILED, "internal error")
        raise
    except BaseException:
        wire.abort()
        raise


async def discard(read: Callable[[], Awaitable[bool]]) -> None:
    """Read until `read` returns False: the end."""
    more = True
    while more:
        more = await read()
        await trio.sleep(DISCARD_SECONDS)


class SocketWire:
    """One client on its own socket. A payload is bytes: server frames, the same for every client."""

    __slots__ = (
        "_close_within",
        "_control",
        "_crossed",
        "_cut",
        "_end",
        "_flusher",
        "_goodbye",
        "_inbox",
        "_quiet",
        "_reader",
        "_receiving",
        "_send",
        "_sock",
        "_watcher",
        "_writing",
        "heard",
        "peer",
    )

    _HEARS: ClassVar = False  # binary messages
    stays: ClassVar = False  # in a request of the HTTP server: it has left that

    def __init__(
        self,
        sock: socket.socket,
        *,
        peer: str,
        early: bytes = b"",
        max_message_bytes: int = 65536,
        close_within: float = 2.0,
    ) -> None:
        """Owns `sock` from now on. `early`: bytes that came behind the handshake."""
        sock.setblocking(False)
        self.peer = peer
        self.heard = trio.current_time()
        self._sock = sock
        self._close_within = close_within
        self._reader = self._parser(max_message_bytes)
        self._inbox: list[Any] | None = None  # the messages of one receive at most; None instead of empty
        self._control = ControlQueue()
        self._crossed = False  # the last attempt met a CrossedError
        self._cut: bytes | None = None  # the rest of a payload that has partly gone out
        self._goodbye: Goodbye | None = None  # the peer's last word
        self._end: Goodbye | None = None  # the reason of the end, for every later call
        self._writing = False
        self._receiving = False
        self._quiet: trio.Event | None = None  # set when a writer or receiver leaves
        self._flusher: trio.CancelScope | None = None
        self._send: Callable[[bytes], int] | None = sock.send  # None: other bytes come first
        self._watcher: Watcher[bytes] | None = None
        if early:
            self._understand(early)

    def _parser(self, max_message_bytes: int) -> Parser:
        return Parser(masked=True, max_message_bytes=max_message_bytes, binary=self._HEARS)

    @staticmethod
    def pack(texts: Sequence[bytes]) -> bytes:
        """k text messages as one payload. Pure."""
        return text_frames(texts)

    @property
    def plain(self) -> Callable[[Sequence[bytes]], bytes]:
        """As `pack`, for a payload that no other client gets. Here it is the same."""
        return self.pack

    size = staticmethod(len)

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        """A piece of one message as a payload. Control frames may leave between two of them."""
        return piece_frame(Opcode.TEXT, text, first, last)

    def turn_binary(self) -> None:
        raise AssertionError("this wire sends one kind of message")

    @property
    def way(self) -> Callable[[bytes], int] | None:
        """`send` of the socket while a payload may simply be sent."""
        return self._send

    def watch(self, watcher: Watcher[bytes] | None) -> None:
        """Have `watcher.way_changed()` called when `way` comes or goes."""
        self._watcher = watcher

    def cut(self, payload: bytes, taken: int) -> bytes:
        """`way` took only so much of `payload`: returns the rest, which must be what is written next."""
        return self._cut_off(payload[taken:])

    def write_nowait(self, payload: bytes) -> bytes | None:
        """Send as much as is taken without waiting; returns the rest, None for no rest. Never raises.

        The rest of a payload that was cut must be written next: until then nothing else is taken.
        """
        send = self._send
        if send is None:
            return self._write_behind(payload)
        try:
            sent = send(payload)
        except OSError:
            return payload
        if sent == len(payload):
            return None
        return self._cut_off(payload[sent:])

    async def write(self, payloads: Sequence[bytes]) -> None:
        """Send all of it. Raises WireClosed. After a cancellation only `close` and `abort` are of use."""
        self._begin_writing(payloads)
        try:
            for piece in _slices(payloads):
                await trio.lowlevel.checkpoint()
                if self._cut is None:
                    await self._send_controls()
                self._check_open()
                await self._send_all(piece)
            await self._send_controls()
        finally:
            self._writing = False
            self._settle()
            self._tell_quiet()

    async def receive(self) -> Any:
        """The next message: str. Raises WireClosed. Cancelling it loses nothing."""
        await trio.lowlevel.checkpoint()
        self._receiving = True
        try:
            while not self._inbox and self._goodbye is None and self._end is None:
                if self._take_in() is None:
                    if self._crossed or self._control:
                        await self._until_readable()
                    else:  # right here: every idle session waits, and a further coroutine costs 0.25 KiB
                        await trio.lowlevel.wait_readable(self._sock)
                elif not self._inbox:  # a peer that only pings must not get more than its share
                    await trio.lowlevel.checkpoint()
        except trio.ClosedResourceError:
            raise self._closed() from None
        finally:
            self._receiving = False
            self._tell_quiet()
        if not self._inbox and self._goodbye is not None and self._end is None:
            await self._part(self._goodbye)
        self._check_open()
        return self._next()

    async def ping(self) -> None:
        """Ask the peer for a pong. Never waits for room: a ping without room leaves with the next send."""
        await trio.lowlevel.checkpoint()
        self._control.put(Opcode.PING, control_frame(Opcode.PING))
        self._flush_control()

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        """End the wire for this reason, within a bound. Never raises."""
        await self.close_with(CODES[why] if code is None else code, words)

    async def close_with(self, code: int, reason: str) -> None:
        """Finish the frame in hand, send a close frame, wait for the peer's, within a bound. Never raises."""
        await trio.lowlevel.checkpoint()
        if self._end is None:
            self._finish(code, reason)
            await self._wind_up(code, reason)

    def abort(self) -> None:
        """Close at once, with a reset: bytes that the peer has not taken are dropped."""
        self._finish(VANISHED, "aborted")
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._shut()

    # Sending.

    def _begin_writing(self, payloads: Sequence[bytes]) -> None:
        self._check_open()
        if self._writing:
            raise trio.BusyResourceError("another task is writing")
        if self._cut is not None and not (payloads and payloads[0] is self._cut):
            raise ValueError("what is left of the last payload must be written first")
        self._writing = True
        self._turn(None)
        if self._flusher is not None:
            self._flusher.cancel()

    def _settle(self) -> None:
        """After every change that matters: may a payload simply be sent?"""
        free = not (self._writing or self._control or self._cut is not None or self._end is not None)
        self._turn(self._sock.send if free else None)

    def _turn(self, send: Callable[[bytes], int] | None) -> None:
        changed = (send is None) is not (self._send is None)
        self._send = send
        if changed and self._watcher is not None:
            self._watcher.way_changed()

    def _write_behind(self, payload: bytes) -> bytes | None:
        """`write_nowait` if something is, or was, in the way."""
        if self._writing or self._end is not None or (self._cut is not None and self._cut is not payload):
            return payload
        if self._cut is None and not self._flush_control():
            return payload
        try:
            sent = self._sock.send(payload)
        except OSError:
            return payload
        if sent < len(payload):
            return self._cut_off(payload[sent:])
        self._cut = None
        self._flush_control()
        return None

    def _cut_off(self, rest: bytes) -> bytes:
        self._cut = rest
        self._turn(None)
        return rest

    async def _send_all(self, data: bytes) -> None:
        # However this ends, the rest of a frame that has begun is kept: `close` can still finish it.
        view, sent, begun = memoryview(data), 0, self._cut is not None
        try:
            while sent < len(data):
                taken = self._offer(view[sent:])
                begun = begun or taken is not None
                sent += taken or 0
                if not taken:
                    await self._room()
        finally:
            self._cut = data[sent:] if begun and sent < len(data) else None

    async def _send_controls(self) -> None:
        while self._control:
            taken = self._offer(self._control.waiting())
            if taken is not None:
                self._control.sent(taken)
            if not taken:
                await self._room()

    def _offer(self, data: bytes | memoryview) -> int | None:
        """The number of bytes taken. None: no room; 0: begun, these come first. Raises WireClosed."""
        try:
            return self._sock.send(data)
        except BlockingIOError as error:
            self._crossed = isinstance(error, CrossedError)
            return None
        except OSError as error:
            raise self._closed() from error

    async def _room(self) -> None:
        """Wait until more may be taken. Raises WireClosed."""
        try:
            if self._crossed:
                await trio.sleep(CROSSED_SECONDS)
                self._crossed = False
            else:
                await trio.lowlevel.wait_writable(self._sock)
        except trio.ClosedResourceError:
            raise self._closed() from None

    @property
    def _at_boundary(self) -> bool:
        """No payload is half sent: control frames may leave."""
        return not self._writing and self._cut is None and self._end is None

    def _flush_control(self) -> bool:
        """Send the control frames that may leave now; True when none waits any more."""
        if self._control and self._at_boundary:
            with suppress(WireClosed):
                taken = self._offer(self._control.waiting())
                if taken is not None:
                    self._control.sent(taken)
        self._settle()
        return not self._control

    async def _flush_when_writable(self) -> None:
        with trio.CancelScope() as self._flusher, suppress(WireClosed):
            while self._control and self._at_boundary:
                await self._room()
                self._flush_control()
        self._flusher = None

    # Receiving.

    async def _read(self) -> bool:
        """Wait for bytes and understand them; False when none will come. Raises WireClosed."""
        await trio.lowlevel.checkpoint()
        try:
            while (taken := self._take_in()) is None:
                await self._until_readable()
        except trio.ClosedResourceError:
            raise self._closed() from None
        return taken

    def _take_in(self) -> bool | None:
        """Understand all that has come, up to the goodbye.

        None: nothing has come. False: nothing will come; a lost connection is a goodbye, too.
        """
        data = self._receive_nowait()
        if data is None:
            return None
        if data and self._goodbye is None:
            self._understand(data)
        elif not data:
            self._goodbye = self._goodbye or _LOST
        return bool(data)

    async def _until_readable(self) -> None:
        """Wait until there may be more. Raises ClosedResourceError."""
        if self._crossed:
            self._crossed = False
            await trio.sleep(CROSSED_SECONDS)
        elif self._control and self._at_boundary:
            await self._until_readable_flushing()
        else:
            await trio.lowlevel.wait_readable(self._sock)

    def _receive_nowait(self) -> bytes | None:
        """The bytes that have come. None: nothing yet; b"": nothing any more."""
        try:
            data = self._sock.recv(RECEIVE_BYTES if self._goodbye is None else DISCARD_BYTES)
        except BlockingIOError as error:
            self._crossed = isinstance(error, CrossedError)
            return None
        except OSError:
            return b""
        if data:
            self.heard = trio.current_time()
        return data

    async def _until_readable_flushing(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush_when_writable)
            with suppress(trio.ClosedResourceError):  # the next look at the socket tells
                await trio.lowlevel.wait_readable(self._sock)
            nursery.cancel_scope.cancel()

    def _next(self) -> Any:
        assert self._inbox
        message = self._inbox.pop(0)
        if not self._inbox:
            self._inbox = None
        return message

    def _understand(self, data: bytes) -> None:
        ping: Ping | None = None
        for inbound in self._reader.feed(data, self.heard):
            if isinstance(inbound, str | bytes):
                if self._end is None:  # or a client could fill the inbox while its connection is closed
                    self._inbox = self._inbox or []
                    self._inbox.append(inbound)
            elif isinstance(inbound, Ping):
                ping = inbound  # the newest of them is answered, once
            else:
                self._goodbye = inbound
        if ping is not None:
            self._control.put(Opcode.PONG, control_frame(Opcode.PONG, ping.payload))
            self._flush_control()

    # Ending.

    def _finish(self, code: int, reason: str, fault: bool = False) -> None:
        self._end = self._end or Goodbye(code, reason, fault)
        self._turn(None)

    def _check_open(self) -> None:
        if self._end is not None:
            raise self._closed()

    def _closed(self) -> WebSocketClosed:
        """Always a new exception: a kept one keeps its stack frames alive, and those keep this wire alive."""
        end = self._end or _LOST
        return WebSocketClosed(end.code, end.reason, end.fault)

    async def _part(self, goodbye: Goodbye) -> None:
        self._finish(goodbye.code, goodbye.reason, goodbye.fault)
        if goodbye.code == VANISHED:
            self._shut()
        else:
            await self._wind_up(goodbye.code, goodbye.reason if goodbye.fault else "", goodbye.fault)

    async def _wind_up(self, code: int, reason: str, fault: bool = False) -> None:
        """Finish the frame in hand, say goodbye, wait for the peer, within the bound. Raises nothing."""
        trio.lowlevel.notify_closing(self._sock)  # a task that waits on the socket leaves, with `_end`
        try:
            with trio.move_on_after(self._close_within):
                await self._until_quiet()
                self._control.put(Opcode.CLOSE, close_frame(code, reason))
                if self._cut is not None:
                    await self._send_all(self._cut)
                if fault and self._watcher is not None:
                    await self._send_all(self._watcher.reproach(reason) or b"")
                await self._send_controls()
                await self._see_off()
        except WireClosed:
            pass
        finally:
            self._shut()

    async def _see_off(self) -> None:
        while self._goodbye is None:
            await self._read()
        if self._goodbye.fault:
            # Closing with bytes unread would reset the connection, and the peer might never read why.
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            await discard(self._read)

    async def _until_quiet(self) -> None:
        while self._writing or self._receiving:
            self._quiet = trio.Event()
            await self._quiet.wait()

    def _tell_quiet(self) -> None:
        if self._quiet is not None:
            self._quiet.set()

    def _shut(self) -> None:
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


class BinarySocketWire(SocketWire):
    """Sends binary messages and receives either kind: `receive` gives str or bytes."""

    __slots__ = ()

    _HEARS = True

    @staticmethod
    def pack(texts: Sequence[bytes]) -> bytes:
        """k binary messages as one payload. Pure."""
        return binary_frames(texts)

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        """A piece of one message as a payload."""
        return piece_frame(Opcode.BINARY, text, first, last)


class EitherSocketWire(SocketWire):
    """Receives either kind of message, and sends text until `turn_binary`."""

    __slots__ = ("_binary",)

    _HEARS = True

    def __init__(self, sock: socket.socket, **more: Any) -> None:
        super().__init__(sock, **more)
        self._binary = False

    @property
    def pack(self) -> Callable[[Sequence[bytes]], bytes]:  # type: ignore[override]
        """Makes one payload of k messages. Pure."""
        return binary_frames if self._binary else text_frames

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        """A piece of one message as a payload."""
        return piece_frame(Opcode.BINARY if self._binary else Opcode.TEXT, text, first, last)

    def turn_binary(self) -> None:
        """From now on send binary messages."""
        self._binary = True


SOCKET_WIRES: Final[Mapping[Messages, type[SocketWire]]] = {
    Messages.TEXT: SocketWire,
    Messages.BINARY: BinarySocketWire,
    Messages.EITHER: EitherSocketWire,
}


def _slices(payloads: Sequence[bytes]) -> Iterator[bytes]:
    piece: list[bytes] = []
    size = 0
    for payload in payloads:
        if piece and size + len(payload) > SLICE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(payload)
        size += len(payload)
    if piece:
        yield b"".join(piece)
