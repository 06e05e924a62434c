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
5. The reading task never waits for an application either. What a client sends waits in its own stream, and
   the client gets room for more when the application has taken it.
6. A stream ends with its application: what that left open is reset.
7. A client waits until its websocket is accepted, or is reset: Hypercorn would forget the application. The
   end of the client's direction is the end of its websocket, as of a TCP connection (RFC 8441, section 5).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import trio
from attrs import frozen
from h2.errors import ErrorCodes
from h2.events import RequestReceived
from h2.exceptions import ProtocolError
from hypercorn.protocol.events import Body, Data, EndBody, EndData, StreamClosed, Trailers
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hyperframe.frame import GoAwayFrame

from .metering import SMALL
from .refusals import VERSION_NEEDED, WRONG_HOST, Refusal, is_host, unknown_method

BUFFER_BYTES = 32768  # with so many bytes waiting nothing is added
WINDOW_BYTES: Final = 65535  # that a stream may send, and all streams of a connection, before they are taken
SHIELD_SECONDS: Final = 10.0
PING: Final = b"dataflow"  # eight bytes
Spawn = Callable[..., None]


@frozen
class Http2:
    """What one connection of HTTP/2 may have, and how it is looked after. Times are seconds.

    `streams` at once. `window`: bytes that wait for applications, of all streams together. Smaller pieces of
    data than `least_data` bytes need the allowance of a client (see `metering`). A response of which the peer
    takes nothing for `stall_seconds` is given up; None: after the server's `send_seconds`. With `ping` a peer
    that was silent for the first time is pinged, and let go when it is silent for the second one, too.
    """

    streams: int = 100
    window: int = WINDOW_BYTES
    least_data: int = SMALL
    stall_seconds: float | None = None
    ping: tuple[float, float] | None = None


USUAL: Final = Http2()


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
    fail over them, and the connection with all its streams would end. `exchanges`, by stream: those that give
    room for more themselves.
    """

    def __init__(self, protocol: H2Protocol) -> None:
        self.refusals: dict[int, Refusal] = {}
        self.exchanges: dict[int, Http2Exchange] = {}
        self.acknowledge: Callable[[int, int], None] = protocol.connection.acknowledge_received_data
        vars(protocol.connection)["acknowledge_received_data"] = self._received  # of this object only
        protocol.streams = _Streams(protocol.streams)
        self._create: Callable[[RequestReceived], Awaitable[None]] = protocol._create_stream
        vars(protocol)["_create_stream"] = self._create_stream  # of this object only

    async def _create_stream(self, request: RequestReceived) -> None:
        headers: Any = request.headers
        refusal = _refusal(headers, request.stream_ended is not None)
        if refusal is not None:
            self.refusals[request.stream_id] = refusal
            method = b"HEAD" if (b":method", b"HEAD") in headers else b"GET"
            request.headers = [(b":method", method), (b":path", b"/"), (b":authority", b"")]
        await self._create(request)

    def _received(self, size: int, stream_id: int) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            self.acknowledge(size, stream_id)
        else:
            exchange.owed += size


def say_farewell(protocol: H2Protocol) -> None:
    """Tell the peer with the next bytes that no further streams are served. Those that it has go on.

    Not `close_connection` of h2: that ends them.
    """
    last = protocol.connection.highest_inbound_stream_id
    protocol.connection._prepare_for_sending([GoAwayFrame(0, last_stream_id=last)])


def _refusal(headers: Iterable[tuple[bytes, bytes]], has_ended: bool) -> Refusal | None:
    """What is wrong with a request of which h2 finds the headers in order. None: nothing is.

    `has_ended`: nothing will come behind the headers.
    """
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for name, value in headers:
        found[bytes(name)].append(bytes(value))
    [method], path, protocol = found[b":method"], b"".join(found[b":path"]), found[b":protocol"]
    if protocol and method == b"CONNECT":
        if protocol != [b"websocket"]:
            return Refusal(501, "CONNECT opens WebSockets only here: ':protocol' must be 'websocket'")
        if found[b"sec-websocket-version"] != [b"13"]:
            return Refusal(400, VERSION_NEEDED, ((b"sec-websocket-version", b"13"),))
        if has_ended:
            return Refusal(400, "a WebSocket needs both directions, and the client has ended one of them")
    elif refusal := unknown_method(method):
        return refusal
    if not (path.startswith(b"/") or (path == b"*" and method == b"OPTIONS")) or not path.isascii():
        return Refusal(400, "':path' must begin with '/', and have nothing but ASCII")
    if has_ended and any(map(int, found[b"content-length"])):
        return Refusal(400, "the body is shorter than Content-Length says")
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

    async def until_empty(self) -> None:
        while self.buffer.buffer:
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


class Http2Exchange:
    """One request and its response. `stalled` is called when the peer takes nothing of that for `seconds`.

    The application's `receive` gives all that has come since the last time, in one message. An endless
    response would grow behind a shut window, so each piece of it waits for room.
    """

    def __init__(
        self,
        protocol: H2Protocol,
        stream: HTTPStream,
        requests: Requests,
        seconds: float,
        stalled: Callable[[], None],
    ) -> None:
        self.owed = 0  # bytes of the peer's that it has no room for again yet
        self._protocol = protocol
        self._stream = stream
        self._id = stream.stream_id
        self._requests = requests
        self._seconds = seconds
        self._stalled = stalled
        self._room = _Room(protocol, self._id)
        self._send: Callable[[Any], Awaitable[None]] = stream.send
        self._pieces: list[bytes] = []  # of the request, for the application: a window of them at most
        self._whole = False  # nothing more will come
        self._told_whole = False
        self._gone = False
        self._news = trio.Event()
        requests.exchanges[self._id] = self
        vars(stream)["send"] = self._send_event  # of this object only: nothing is patched for others

    async def put(self, message: Any) -> None:
        """A message for the application. Never waits."""
        if message["type"] == "http.request":
            if message["body"]:
                self._pieces.append(message["body"])
            self._whole = not message["more_body"]
        else:
            self._gone = True
            await self._room.buffer.close()  # nobody waits for a peer that has left
            self._room.tell()
        self._news.set()

    async def receive(self) -> Any:
        """The application's next message."""
        await trio.lowlevel.checkpoint()
        while not (self._pieces or self._gone or (self._whole and not self._told_whole)):
            self._news = trio.Event()
            await self._news.wait()
        if not self._pieces and (self._gone or self._told_whole):
            return {"type": "http.disconnect"}
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._told_whole = self._whole
        if self._give_room():
            with self._unhurt():
                await self._protocol._flush()
        return {"type": "http.request", "body": body, "more_body": not self._whole}

    def _give_room(self) -> bool:
        """Let the peer send as much as was taken. Whether there is something to tell it."""
        owed, self.owed = self.owed, 0
        if owed:
            with suppress(ProtocolError):  # the connection is over
                self._requests.acknowledge(owed, self._id)
        return owed > 0

    async def _send_event(self, event: Any) -> None:
        if self._gone and not isinstance(event, StreamClosed):
            await trio.lowlevel.checkpoint()
            return
        if not isinstance(event, Body | EndBody | Trailers):
            with self._unhurt():
                await self._send(event)
            return
        with self._room.patience(self._seconds) as scope:
            if isinstance(event, Trailers):
                await self._room.until_empty()
            else:
                await self._room.wait()
                await self._send(event)  # which only fills the buffer: a cancellation loses no frame
        if scope.cancelled_caught:
            self._stalled()
            await _reset(self._protocol, self._id, self._room, ErrorCodes.CANCEL)
        elif isinstance(event, Trailers) and not self._gone:
            with self._unhurt():
                await self._send(event)
                await self._close(ErrorCodes.NO_ERROR)  # now: Hypercorn ends it once more, and h2 resents it

    def _unhurt(self) -> trio.CancelScope:
        """For frames that h2 has made: if one were lost, nothing after it on the connection would be
        understood. Each send of the connection has its bound; this one is for those that come before."""
        return trio.move_on_after(SHIELD_SECONDS, shield=True)

    async def finish(self) -> None:
        """The application has ended: so does the stream, if that has not."""
        del self._requests.exchanges[self._id]
        if self._give_room():
            await self._protocol._flush()
        complete = self._stream.state is ASGIHTTPState.CLOSED
        await self._close(ErrorCodes.NO_ERROR if complete else ErrorCodes.INTERNAL_ERROR)

    async def _close(self, code: ErrorCodes) -> None:
        """Reset the stream, unless both of its directions have ended."""
        stream = self._protocol.connection.streams.get(self._id)
        if stream is not None and not stream.closed:
            await _reset(self._protocol, self._id, self._room, code)


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
        self._handshake = stream.handshake
        self._handle: Callable[[Any], Awaitable[None]] = stream.handle
        # Of this object only: nothing is patched for others.
        vars(stream).update(send=self._send_event, handle=self._handle_event)

    async def _handle_event(self, event: object) -> None:
        if isinstance(event, EndBody):
            await self._protocol._close_stream(self._id)
        elif isinstance(event, Body) and not self._handshake.accepted:
            await self.reset(ErrorCodes.PROTOCOL_ERROR)
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
