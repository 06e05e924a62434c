"""One accepted connection: Hypercorn's protocol machines; our reading, sending, failing and ending.

Rules of this file.
1. No exception that a client causes leaves `Connection.run`: it is counted, reported, contained.
2. Waits have bounds. Without a request in hand, a connection has a clock and is in the `WaitingRoom`. A send
   is shielded for `send_seconds`, then the connection is aborted. Tasks that still run for a closed
   connection have as long, then they are cancelled.
3. Every `send` of an application is a checkpoint, also when the peer has left.
4. Behind a websocket request nothing is read until it is accepted or refused. So bytes that came with it are
   neither an error nor lost. An application that fails after it accepted closes with 1011.
5. Hypercorn never negotiates permessage-deflate, and our parser reads the frames (`asgi_frames.py`).
6. A proper WebSocket handshake for the `ShortWay` never reaches Hypercorn: its handler gets the socket. All
   other requests, and every doubt, are Hypercorn's, with the bytes that were read.

Hypercorn's own `TCPServer` breaks the first five. Subclassing it was rejected. Of its methods only the timer
of idle connections would be left. Rules 3 to 5 belong into its task group, which cannot be replaced without
patching a module for the whole process. Instead this file drives `ProtocolWrapper` and some attributes that
are not public; `hypercorn.check_seam` looks at them once, at start-up.
"""

from __future__ import annotations

import math
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from attrs import Factory, define
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from wsproto.events import BytesMessage, Ping, TextMessage

from actors.session import WireClosed
from dataflow.net.stream import SocketStream
from supervisors import leaves

from .accepting import NO_ROOM, SAME_ADDRESS, Doorway, WaitingRoom
from .asgi_frames import FrameConnection, read_frames
from .deflating_wire import socket_wire
from .handshake import MAX_HEAD, Door, Handshake, Opening, peer_at
from .http1 import StrictConnection, be_strict, let_go
from .http2 import PING, WINDOW_BYTES, Http2, Http2Exchange, Http2Websocket, Requests, say_farewell
from .joining import Joiner
from .metering import TOO_MANY_WORDS, Meter
from .refusals import Refusal, tell_server
from .socket_wire import DISCARD_BYTES, DISCARD_SECONDS, SocketWire, discard, kept

SEAT = "dataflow.seat"  # key of the `Seat` in a websocket's `scope["state"]`

RECEIVE_BYTES = 65536
SLICE_BYTES = 16384  # `send_seconds` for each, so that a slow client with a long answer is not cut off
HEAD_SECONDS = 5.0  # for the handshake of TLS, and again for the first head or, over HTTP/2, request
FAREWELL_SECONDS = 1.0  # for a client that is let go to read why

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
OnWebSocket = Callable[[SocketWire, Handshake], Awaitable[None]]
AsgiSend = Callable[[Any], Awaitable[None]]
Report = Callable[[str, BaseException], None]

_TOO_SLOW = Refusal(408, "the head of the request did not come in time")
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\n"  # the first line of a client that knows that we speak it, without TLS
_HEAD_ENDS = re.compile(rb"\n\r?\n")
_PEER_LEFT = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)


class StalledError(Exception):
    """A client took nothing for `send_seconds`, and its connection was aborted."""


class SilentError(Exception):
    """A peer over HTTP/2 did not answer a ping, and its connection was aborted."""


class FloodError(Exception):
    """A client sent more control frames of HTTP/2 than is welcome, and was let go."""


@define
class ServerStats:
    """Counts of a server. `faults`: by the name of the exception; a peer that leaves is not reported."""

    accepted: int = 0
    detached: int = 0
    connections: int = 0  # now; those that have detached do not count
    sent_away: int = 0  # because every other connection had a request in hand
    dismissed: Counter[str] = Factory(lambda: Counter({NO_ROOM: 0, SAME_ADDRESS: 0}))
    faults: Counter[str] = Factory(Counter)


@define(eq=False)
class ShortWay:
    """The way in for WebSocket clients that avoids Hypercorn, with their handlers by path."""

    door: Door
    handlers: Mapping[str, OnWebSocket]


@define(eq=False)
class Shared:
    """Shared by the connections of one server."""

    app: AsgiApp
    config: Config
    context: WorkerContext
    lifespan_state: dict[str, Any]
    send_seconds: float
    stats: ServerStats
    report: Report
    waiting: WaitingRoom
    doorway: Doorway
    has_reserve: Callable[[str], bool]  # by address: places beyond the next two bounds
    most: int  # connections
    ceiling: float  # of descriptors
    http2: Http2
    deflate: bool = False
    tls: ssl.SSLContext | None = None
    short_way: ShortWay | None = None
    connections: set[Connection] = Factory(set)

    def fault(self, where: str, error: BaseException) -> None:
        """Count every error in `error`, and report those that are not just a peer that leaves."""
        for leaf in leaves(error):
            self.stats.faults[type(leaf).__name__] += 1
            if not isinstance(leaf, _PEER_LEFT):
                self.report(where, leaf)


@define(eq=False)
class Seat:
    """A websocket's side door to its connection, for requests that ASGI has no words for."""

    connection: Connection
    stream: WSStream
    frames: FrameConnection
    http2: Http2Websocket | None = None
    failed: bool = False
    detaching: bool = False  # the bytes behind the handshake are left unread, for `detach`

    @property
    def heard(self) -> float:
        """`trio.current_time()` of the last byte that came in on the connection."""
        return self.connection.heard

    def begin_detaching(self) -> bool:
        """Before accept: prepare for `detach`. False: not possible."""
        upgrade = self.connection.upgrade
        self.detaching = upgrade is not None and not upgrade.is_set()
        return self.detaching

    @property
    def connected(self) -> bool:
        """Accepted, and not closed since."""
        return self.stream.state is ASGIWebsocketState.CONNECTED and not self.stream.closed

    def detach(self) -> tuple[socket.socket, bytes]:
        """The socket, which only the caller uses from now on, and the bytes that came with the handshake."""
        return self.connection.detach()

    async def ping(self) -> None:
        """Ask the peer for a pong."""
        if self.connected:
            await self.stream._send_wsproto_event(Ping())

    async def send_piece(self, data: str | bytes, last: bool) -> None:
        """Send a piece of one message; only its further pieces may follow it."""
        await trio.lowlevel.checkpoint()
        if self.connected:
            kind: Any = TextMessage if isinstance(data, str) else BytesMessage
            await self.stream._send_wsproto_event(kind(data=data, message_finished=last))

    def abort(self) -> None:
        """End the websocket at once. The connection ends too, unless other websockets share it."""
        if self.http2 is None:
            self.connection.abort()
        else:
            self.connection.spawn(self.http2.reset)


class Connection:
    """One connection, from the accept to its end, or until a websocket detaches from it."""

    def __init__(self, shared: Shared, sock: socket.socket, client: Any) -> None:
        """Owns `sock`, which must not block. `client`: its address, as `accept` tells it."""
        self.shared = shared
        self.heard = trio.current_time()
        self.upgrade: trio.Event | None = None  # of an HTTP/1.1 websocket; set once accepted or over
        self._client = parse_socket_addr(sock.family, client)
        self.address: str = client[0]
        self._stream = SocketStream(sock)
        self._send_lock = trio.Lock()
        self._idle = trio.CancelScope()
        self._pinging = trio.CancelScope()
        self._early = b""
        self._meter = Meter(shared.http2.least_data)
        self._frames: FrameConnection | None = None  # of an HTTP/1.1 websocket
        self._strict: StrictConnection | None = None  # of HTTP/1.1
        self._requests: Requests | None = None  # of HTTP/2
        self._joiner: Joiner | None = None  # likewise
        self._parting = False  # what comes is not understood any more
        self._reader: trio.lowlevel.Task | None = None
        self._detached = False
        self._nursery: trio.Nursery
        self._protocol: ProtocolWrapper
        shared.connections.add(self)
        shared.stats.connections += 1
        self._set_idle(True, HEAD_SECONDS)

    async def run(self) -> None:
        """Serve the connection to its end. Raises nothing but a cancellation."""
        self.shared.stats.accepted += 1
        try:
            await self._run()
        except* Exception as errors:
            self.shared.fault("connection", errors)
        finally:
            self._leave()
            self._let_go()

    def finish_idle(self) -> None:
        """Shutting down: between two requests the connection ends now, within a request after it."""
        if self in self.shared.waiting:
            self._idle.cancel()
        elif self._requests is not None and isinstance(self._protocol.protocol, H2Protocol):
            say_farewell(self._protocol.protocol)
            self.spawn(self._protocol.protocol._flush)

    def dismiss(self) -> None:
        """For the waiting room: others need the place, at once."""
        self._idle.cancel()
        self._close_stream()

    def detach(self) -> tuple[socket.socket, bytes]:
        self.shared.stats.detached += 1
        self._detached = True
        self._leave()
        self._release()
        early, self._early = self._early, b""
        return self._stream.socket, early

    def abort(self) -> None:
        """Close at once, and drop unsent bytes. A task that waits on the connection sees it closed."""
        self._close_stream()
        self._limit_remains()
        self._release()

    def _close_stream(self) -> None:
        if not self._detached:
            self._stream.close()
            self._leave()

    def _let_go(self) -> None:
        """Break the cycle of references, so that the connection is freed at once."""
        if hasattr(self, "_protocol"):
            if isinstance(self._protocol.protocol, H11Protocol):
                let_go(self._protocol.protocol)
            del self._protocol

    async def _tell_closed(self) -> None:
        if hasattr(self, "_protocol"):
            await self._protocol.handle(Closed())

    def _leave(self) -> None:
        if self in self.shared.connections:
            self.shared.connections.remove(self)
            self.shared.stats.connections -= 1
        self.shared.waiting.leave(self)

    # Reading.

    async def _run(self) -> None:
        try:
            head = b""
            with self._idle:
                alpn = await self._handshake()
                head = await self._receive_head() if alpn == "http/1.1" else b""
            if head:
                self._set_idle(False)  # from here on it waits for us
                await self.shared.doorway.pass_through()
            if self._idle.cancelled_caught:
                await self._give_up_on_head()
            elif alpn != "http/1.1" or (head and not await self._is_let_in(head)):
                await self._serve("h2" if head.startswith(_HTTP2) else alpn, head)
        finally:
            await self._close()

    async def _handshake(self) -> str:
        if self.shared.tls is None:
            return "http/1.1"
        await trio.lowlevel.wait_readable(self._stream.socket)
        self._set_idle(False)  # meanwhile it waits for us
        await self.shared.doorway.pass_through()
        self._set_idle(True, HEAD_SECONDS)
        alpn = await self._stream.encrypt(self.shared.tls)
        self._set_idle(True, HEAD_SECONDS)
        return alpn or "http/1.1"

    async def _receive_head(self) -> bytes:
        """The first bytes: a whole head, or what HTTP will refuse. b"" when the client leaves before."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            searched = 0
            while not _is_decided(self._early, searched):
                searched = len(self._early)
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    return b""
                self._early += data
        head, self._early = self._early, b""
        return head

    async def _give_up_on_head(self) -> None:
        """The client was too slow, or others needed the place."""
        if self._early and self._stream.socket.fileno() != -1:
            await self._send_at_once(_TOO_SLOW.http1(time.time()))

    async def _is_let_in(self, first: bytes) -> bool:
        short_way = self.shared.short_way
        if short_way is None:
            return False
        opening = short_way.door.answer(first, self._peer, self._stream.is_encrypted)
        if opening is None:
            return False
        client = opening.handshake
        await self._send_at_once(opening.response)
        with suppress(WireClosed):
            async with kept(self._wire(opening, short_way.door)) as wire:
                await short_way.handlers[client.path](wire, client)
        return True

    @property
    def _peer(self) -> str:
        return peer_at(self._client)

    def _wire(self, opening: Opening, door: Door) -> SocketWire:
        sock, _ = self.detach()
        return socket_wire(
            sock,
            door.messages(opening.handshake.path),
            opening.agreement,
            peer=self._peer,
            early=opening.early,
            max_message_bytes=self.shared.config.websocket_max_message_size,
        )

    async def _serve(self, alpn: str, first: bytes) -> None:
        async with trio.open_nursery() as self._nursery:
            self._reader = trio.lowlevel.current_task()
            self._protocol = self._make_protocol(alpn)
            await self._protocol.initiate()
            self._idle = trio.CancelScope()
            self._set_idle(True, HEAD_SECONDS)
            if isinstance(self._protocol.protocol, H2Protocol):
                await self._look_after(self._protocol.protocol)
            if first:
                await self._hear(first)
            await self._read()
            if not self._detached:  # a handler that has taken its socket over may run for as long as it likes
                await self._tell_closed()
                self._limit_remains()

    def _make_protocol(self, alpn: str) -> ProtocolWrapper:
        unused: Any = None  # in the place of the application, which `spawn_app` starts
        task_group: Any = self
        sock = self._stream.socket
        made = ProtocolWrapper(
            unused,
            self.shared.config,
            self.shared.context,
            task_group,
            ConnectionState(self.shared.lifespan_state),
            self._stream.is_encrypted,
            self._client,
            parse_socket_addr(sock.family, sock.getsockname()),
            self._send,
            alpn,
        )
        if isinstance(made.protocol, H11Protocol):
            self._strict = be_strict(made.protocol, MAX_HEAD)
        else:
            self._requests = Requests(made.protocol)
            self._joiner = Joiner(self.shared.http2.least_data)
        return made

    async def _look_after(self, protocol: H2Protocol) -> None:
        rules = self.shared.http2
        if rules.window > WINDOW_BYTES:
            protocol.connection.increment_flow_control_window(rules.window - WINDOW_BYTES)
            await protocol._flush()
        if rules.ping is not None:
            self.spawn(self._ping, protocol, *rules.ping)

    async def _ping(self, protocol: H2Protocol, interval: float, timeout: float) -> None:
        """Let a peer go that is silent, and that a ping cannot make speak: it has vanished."""
        with self._pinging:
            while True:
                asked = trio.current_time()
                if self.heard + interval > asked:
                    await trio.sleep_until(self.heard + interval)
                    continue
                with suppress(ProtocolError):
                    protocol.connection.ping(PING)
                await protocol._flush()
                await trio.sleep_until(asked + timeout)
                if self.heard < asked:
                    self.shared.fault("connection", SilentError(f"no answer to a ping for {timeout:g} s"))
                    self.abort()

    async def _read(self) -> None:
        with self._idle:
            if self.upgrade is not None:
                await self._pass_upgrade(self.upgrade)
            while await self._read_some():
                if self.upgrade is not None:
                    await self._pass_upgrade(self.upgrade)
        if self._idle.cancelled_caught and isinstance(self._protocol.protocol, H2Protocol):
            say_farewell(self._protocol.protocol)
            await self._protocol.protocol._flush()
            await self._see_off()

    async def _read_some(self) -> bool:
        if self._detached:
            return False
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self.heard = trio.current_time()
        if self._parting:
            await trio.sleep(DISCARD_SECONDS)
            return data != b""
        await self._hear(data)
        return data != b"" and not self._meter.exceeded

    async def _hear(self, data: bytes) -> None:
        """What has come, to Hypercorn, in pieces: others have their turn in between."""
        if self._joiner is not None:
            data = self._joiner.join(data)
        for number, piece in enumerate(self._meter.pieces(data, self.heard)):
            if number:
                await trio.lowlevel.checkpoint()
            await self._protocol.handle(RawData(piece))
        if self._meter.exceeded and isinstance(self._protocol.protocol, H2Protocol):
            await self._calm(self._protocol.protocol)

    async def _calm(self, protocol: H2Protocol) -> None:
        """Let a client go that has gone beyond its allowance."""
        self.shared.fault("connection", FloodError(f"a client sent {TOO_MANY_WORDS}"))
        with suppress(ProtocolError):
            protocol.connection.close_connection(
                ErrorCodes.ENHANCE_YOUR_CALM, additional_data=TOO_MANY_WORDS.encode()
            )
        await protocol._flush()
        await self._see_off()

    async def _see_off(self) -> None:
        # Closing with bytes unread would reset the connection, and the client might never read why.
        with trio.move_on_after(FAREWELL_SECONDS), suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_WR)
            await discard(self._discard)

    async def _discard(self) -> bool:
        try:
            return bool(await self._stream.receive_some(DISCARD_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False

    async def _pass_upgrade(self, upgrade: trio.Event) -> None:
        await upgrade.wait()
        early, self._early = self._early, b""
        if early and not self._detached:
            await self._protocol.handle(RawData(early))

    def _set_idle(self, idle: bool, within: float | None = None) -> None:
        """Whether there is no request in hand; then the next one must come `within` seconds."""
        if idle:
            seconds = self.shared.config.keep_alive_timeout if within is None else within
            self._idle.deadline = trio.current_time() + seconds
            self.shared.waiting.enter(self)
        else:
            self._idle.deadline = math.inf
            self.shared.waiting.leave(self)

    # Sending and ending.

    async def _send(self, event: Event) -> None:
        if self._detached:
            return
        if isinstance(event, RawData):
            await self._send_data(event.data)
        elif isinstance(event, Closed):
            if not self._leaves_unread:
                await self._end()
            elif self._is_reader():
                await self._see_off()
                await self._end()
            else:
                self._part()
        elif isinstance(event, Updated):
            self._set_idle(event.idle)
            if event.idle and self._requests is not None and self.shared.context.terminated.is_set():
                self._idle.cancel()  # it was the last stream

    @property
    def _leaves_unread(self) -> bool:
        """The client has been told why this is the end, and may still be sending."""
        has_fault = self._frames is not None and self._frames.has_fault
        return has_fault or (self._strict is not None and self._strict.leaves_unread)

    def _part(self) -> None:
        """As `_see_off`, while another task reads: that goes on for a moment, and ends the connection."""
        self._parting = True
        self._set_idle(True, FAREWELL_SECONDS)
        with suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_WR)

    async def _end(self) -> None:
        await self._close()
        await self._tell_closed()

    async def _send_data(self, data: bytes) -> None:
        async with self._send_lock:
            try:
                for start in range(0, len(data), SLICE_BYTES):
                    if start:  # others have their turn; the lock was a checkpoint
                        await trio.lowlevel.checkpoint()
                    await self._send_at_once(data[start : start + SLICE_BYTES])
                self._meter.sent()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._limit_remains()  # the next line may wait: for an application that reads nothing
                await self._tell_closed()

    async def _send_at_once(self, data: bytes) -> None:
        """`_send_slice`, without a scope as long as there is room: a scope costs as much as the send."""
        try:
            sent = self._stream.socket.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            await self._send_slice(data[sent:])

    async def _send_slice(self, data: bytes) -> None:
        # Shielded, because half a frame or half a response is worse than none; but not for ever.
        with trio.move_on_after(self.shared.send_seconds, shield=True) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            self._stalled()
            self.abort()
            raise trio.ClosedResourceError

    def _stalled(self) -> None:
        self.shared.fault("connection", StalledError(f"took nothing for {self.shared.send_seconds:g} s"))

    async def _close(self) -> None:
        self._limit_remains()
        self._release()
        self._close_stream()
        await trio.lowlevel.checkpoint()

    def _limit_remains(self) -> None:
        self._pinging.cancel()
        if hasattr(self, "_nursery"):
            scope = self._nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + self.shared.send_seconds)

    def _release(self) -> None:
        if self.upgrade is not None:
            self.upgrade.set()

    # The application. Hypercorn's protocols need the next two methods of a task group.

    def spawn(self, func: Callable[..., Awaitable[None]], *args: Any) -> None:
        with suppress(RuntimeError):  # raised when the connection is over
            self._nursery.start_soon(func, *args)

    async def spawn_app(
        self, app: object, config: Config, scope: Any, send: Any
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application for one request; returns the function that sends it messages."""
        stream = send.__self__
        protocol = self._protocol.protocol
        ours = None if self._requests is None else self._requests.refusals.pop(stream.stream_id, None)
        answers = ours or (tell_server if scope["path"] == "*" else self.shared.app)
        if isinstance(stream, HTTPStream) and self._requests is not None and isinstance(protocol, H2Protocol):
            exchange = self._exchange(protocol, stream, self._requests)
            self._nursery.start_soon(self._run_exchange, answers, exchange, scope, send)
            return exchange.put
        if isinstance(stream, HTTPStream):
            stream.__class__ = _TakesTurns  # a function in its place would keep it from being freed
        put, get = trio.open_memory_channel[Any](config.max_app_queue_size)
        seat = self._seat(stream, scope) if isinstance(stream, WSStream) else None
        relay = partial(_relay, send) if seat is None else partial(self._relay_websocket, seat, send)
        self._nursery.start_soon(self._run_app, answers, seat, scope, get, relay, send)
        return partial(_put, put)

    def _exchange(self, protocol: H2Protocol, stream: HTTPStream, requests: Requests) -> Http2Exchange:
        patience = self.shared.http2.stall_seconds
        seconds = self.shared.send_seconds if patience is None else patience
        return Http2Exchange(protocol, stream, requests, seconds, self._stalled)

    async def _run_exchange(self, app: AsgiApp, exchange: Http2Exchange, scope: Any, send: Any) -> None:
        try:
            await app(scope, exchange.receive, partial(_relay, send))
        except* Exception as errors:
            self.shared.fault("application", errors)
        finally:
            await send(None)
            await exchange.finish()

    def _seat(self, stream: WSStream, scope: Any) -> Seat:
        frames = read_frames(stream, self.shared.config.websocket_max_message_size)
        scope["state"][SEAT] = seat = Seat(self, stream, frames)
        protocol = self._protocol.protocol
        if isinstance(protocol, H2Protocol):
            seat.http2 = Http2Websocket(protocol, stream, self.spawn, self._is_reader)
        else:
            self._frames = frames
            self._hold_early_bytes(protocol.connection)
        return seat

    def _is_reader(self) -> bool:
        return trio.lowlevel.current_task() is self._reader

    def _hold_early_bytes(self, connection: Any) -> None:
        if isinstance(connection, H11WSConnection):
            self.upgrade = trio.Event()
            self._early = bytes(connection.buffer)
            connection.buffer.clear()

    async def _run_app(
        self,
        app: AsgiApp,
        seat: Seat | None,
        scope: Any,
        get: trio.MemoryReceiveChannel[Any],
        relay: AsgiSend,
        send: AsgiSend,
    ) -> None:
        try:
            await app(scope, get.receive, relay)
        except* Exception as errors:
            self.shared.fault("application", errors)
        finally:
            get.close()
            await send(None)
        if seat is not None and seat.http2 is not None:
            await seat.http2.finish(self.shared.send_seconds)

    async def _relay_websocket(self, seat: Seat, send: AsgiSend, message: Any) -> None:
        if message["type"] == "websocket.close" and seat.failed:
            message = {**message, "code": 1011, "reason": "internal error"}
        await _relay(send, message)
        if message["type"] == "websocket.accept" and not seat.detaching:
            self._release()


def _is_decided(received: bytes, searched: int) -> bool:
    """Whether a head is whole, or will never be a proper one. `searched` bytes have been looked at before."""
    if not received:
        return False
    hopeless = received[0] < 0x21 or len(received) >= MAX_HEAD  # no request begins with a control character
    return hopeless or _HEAD_ENDS.search(received, max(0, searched - 2)) is not None


class _TakesTurns(HTTPStream):
    """Gives others their turn at each piece of a body, which may be a chunk of one byte.

    Hypercorn drops the pieces for a stream that has ended in one go.
    """

    async def handle(self, event: Any) -> None:
        if isinstance(event, Body):
            await trio.lowlevel.checkpoint()
        await super().handle(event)


async def _put(put: trio.MemorySendChannel[Any], message: Any) -> None:
    """A message for the application. Dropped when that has ended: nobody would ever make room for it."""
    try:
        await put.send(message)
    except trio.BrokenResourceError:
        await trio.lowlevel.checkpoint()


async def _relay(send: AsgiSend, message: Any) -> None:
    # Hypercorn drops messages to a peer that has left, without a checkpoint: a loop of sends would freeze us.
    await trio.lowlevel.checkpoint()
    await send(message)
