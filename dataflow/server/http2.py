"""Streams that share an HTTP/2 connection (RFC 9113, RFC 8441): the part that Hypercorn leaves undone.

Rules of this file.
1. The task that reads the connection never waits for room in one of its streams: its reads make that room. Of
   several answers to pings that wait for room only the last is sent, as RFC 6455 allows.
2. A stream ends with its websocket. If the peer takes the waiting bytes in time, it ends in order; otherwise
   by a reset.
3. The bytes that wait in a stream are bounded: a new message waits for room, and so does the next piece of a
   response. (Hypercorn's own bound opens with every attempt to send, even if the peer's window is shut.) A
   response of which the peer takes nothing for `seconds` is reset: its bytes and its task are given back.
4. Bytes for a stream that has ended do no harm: the other streams of the connection go on. Neither does a
   request without sense: it is refused, in its stream.
5. The end of the client's direction is the end of its websocket, as of a TCP connection (RFC 8441, section
   5).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import trio
from h2.errors import ErrorCodes
from h2.events import RequestReceived
from h2.exceptions import ProtocolError
from hypercorn.protocol.events import Body, Data, EndBody, EndData
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream

from .refusals import VERSION_NEEDED, WRONG_HOST, Refusal, is_host, unknown_method

BUFFER_BYTES = 32768  # with so many bytes waiting nothing is added
Spawn = Callable[..., None]


class _Ended:
    async def handle(self, event: object) -> None:
        pass


class _Streams(dict[int, Any]):
    """Hypercorn looks up streams that it has dropped already."""

    def __missing__(self, stream_id: int) -> _Ended:
        return _Ended()


class Requests:
    """The requests of one connection, as Hypercorn is to see them.

    `refusals`, by stream: requests that are to be answered so, instead of by the application. Hypercorn would
    fail over them, and the connection with all its streams would end.
    """

    def __init__(self, protocol: H2Protocol) -> None:
        self.refusals: dict[int, Refusal] = {}
        protocol.streams = _Streams(protocol.streams)
        self._create: Callable[[RequestReceived], Awaitable[None]] = protocol._create_stream
        vars(protocol)["_create_stream"] = self._create_stream  # of this object only

    async def _create_stream(self, request: RequestReceived) -> None:
        headers: Any = request.headers
        refusal = _refusal(headers)
        if refusal is not None:
            self.refusals[request.stream_id] = refusal
            method = b"HEAD" if (b":method", b"HEAD") in headers else b"GET"
            request.headers = [(b":method", method), (b":path", b"/"), (b":authority", b"")]
        await self._create(request)


def _refusal(headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
    """What is wrong with a request of which h2 finds the headers in order. None: nothing is."""
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for name, value in headers:
        found[bytes(name)].append(bytes(value))
    [method], path, protocol = found[b":method"], b"".join(found[b":path"]), found[b":protocol"]
    if protocol and method == b"CONNECT":
        if protocol != [b"websocket"]:
            return Refusal(501, "CONNECT opens WebSockets only here: ':protocol' must be 'websocket'")
        if found[b"sec-websocket-version"] != [b"13"]:
            return Refusal(400, VERSION_NEEDED, ((b"sec-websocket-version", b"13"),))
    elif refusal := unknown_method(method):
        return refusal
    if not (path.startswith(b"/") or (path == b"*" and method == b"OPTIONS")) or not path.isascii():
        return Refusal(400, "':path' must begin with '/', and have nothing but ASCII")
    hosts = found[b":authority"] or found[b"host"]
    if len(hosts) != 1 or not is_host(hosts[0]):
        return Refusal(400, WRONG_HOST)
    return None


class _Room:
    """The bound of the bytes that wait in one stream."""

    def __init__(self, protocol: H2Protocol, stream_id: int) -> None:
        self._less = trio.Event()  # set, and replaced, when bytes have left the buffer
        self.buffer = protocol.stream_buffers[stream_id]
        self._patience = trio.CancelScope()
        self._seconds = math.inf
        self._pop: Callable[[int], Awaitable[bytes]] = self.buffer.pop
        vars(self.buffer)["pop"] = self._pop_and_tell  # of this object only: nothing is patched for others

    async def wait(self) -> None:
        while len(self.buffer.buffer) >= BUFFER_BYTES:
            await self._less.wait()

    async def _pop_and_tell(self, limit: int) -> bytes:
        # Not Hypercorn's `drain`: it forgets a task that waits there when bytes are added meanwhile.
        data = await self._pop(limit)
        if data:
            self._patience.deadline = trio.current_time() + self._seconds
        self.tell()
        return data

    def patience(self, seconds: float) -> trio.CancelScope:
        """A scope that is cancelled when no bytes leave for so long."""
        self._seconds = seconds
        self._patience = trio.CancelScope(deadline=trio.current_time() + seconds)
        return self._patience

    def tell(self) -> None:
        """There may be room now."""
        self._less.set()
        self._less = trio.Event()


def bound_response(
    protocol: H2Protocol, stream: HTTPStream, seconds: float, stalled: Callable[[], None]
) -> None:
    """Have the body of a response wait for room: an endless one would grow behind a shut window.

    When the peer takes nothing for so many seconds, `stalled` is called, and the stream is reset.
    """
    room, send = _Room(protocol, stream.stream_id), stream.send

    async def send_event(event: Any) -> None:
        if not isinstance(event, Body | EndBody):
            await send(event)
            return
        with room.patience(seconds) as scope:  # these two only fill the buffer: a cancellation loses no frame
            await room.wait()
            await send(event)
        if scope.cancelled_caught:
            stalled()
            await _reset(protocol, stream.stream_id, room, ErrorCodes.CANCEL)

    vars(stream)["send"] = send_event


async def _reset(protocol: H2Protocol, stream_id: int, room: _Room, code: ErrorCodes) -> None:
    """End a stream at once, and drop unsent bytes. A task that waits to send goes on and finds out."""
    await room.buffer.close()
    room.tell()
    with suppress(ProtocolError):
        protocol.connection.reset_stream(stream_id, code)
    with suppress(KeyError):  # KeyError: it has ended. Unblocked, Hypercorn visits it and forgets it
        protocol.priority.unblock(stream_id)
    await protocol.has_data.set()
    await protocol._flush()
    await protocol._close_stream(stream_id)


class Http2Websocket:
    """The stream of one websocket. `is_reader()`: the current task is the one that reads the connection."""

    def __init__(
        self, protocol: H2Protocol, stream: WSStream, spawn: Spawn, is_reader: Callable[[], bool]
    ) -> None:
        self._protocol = protocol
        self._id = stream.stream_id
        self._spawn = spawn
        self._is_reader = is_reader
        self._send: Callable[[Any], Awaitable[None]] = stream.send
        self._room = _Room(protocol, stream.stream_id)
        self._answer: Data | None = None  # waits for `_send_answers`
        self._answered: trio.Event | None = None  # set when `_send_answers` has ended
        self._handle: Callable[[Any], Awaitable[None]] = stream.handle
        # Of this object only: nothing is patched for others.
        vars(stream).update(send=self._send_event, handle=self._handle_event)

    async def _handle_event(self, event: object) -> None:
        if isinstance(event, EndBody):
            await self._protocol._close_stream(self._id)
        else:
            await self._handle(event)

    async def _send_event(self, event: object) -> None:
        if isinstance(event, Data) and self._is_reader():
            self._answer = event
            if self._answered is None:
                self._answered = trio.Event()
                self._spawn(self._send_answers)
        else:
            if isinstance(event, Data):
                await self._room.wait()
            await self._send(event)

    async def _send_answers(self) -> None:
        while self._answer is not None:
            await self._room.wait()
            answer, self._answer = self._answer, None
            await self._send(answer)
        assert self._answered is not None
        self._answered.set()
        self._answered = None

    async def finish(self, seconds: float) -> None:
        """End the stream behind all bytes that wait in it. Bytes that still wait after `seconds` are lost."""
        with trio.move_on_after(0 if self._protocol.closed else seconds):
            if self._answered is not None:
                await self._answered.wait()
            await self._send(EndData(stream_id=self._id))
        # Even after a proper end: the peer's direction is still open, and its bytes would be taken in.
        await self.reset(ErrorCodes.NO_ERROR)

    async def reset(self, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End the stream at once, and drop unsent bytes. A task that waits to send goes on and finds out."""
        await _reset(self._protocol, self._id, self._room, code)
