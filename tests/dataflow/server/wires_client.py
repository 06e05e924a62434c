"""For tests of the server: a server in a nursery, and a client that does nothing by itself."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio
from attrs import Factory, define
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.events import Event as H2Event
from h2.exceptions import H2Error
from quart_trio import QuartTrio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import RsvBits

from dataflow.server import serve as server
from dataflow.server.connection import AsgiApp
from dataflow.server.serve import ServerStats

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


@define
class Running:
    """A server that serves."""

    port: int
    address: str
    shutdown: trio.Event
    stop: Callable[[], None]  # cancels the server
    ended: trio.Event
    stats: ServerStats
    reports: list[BaseException] = Factory(list)
    _clients: list[Client] = Factory(list)

    async def client(
        self,
        path: str = "/ws",
        *headers: bytes,
        early: bytes = b"",
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        deflate: bool = False,
    ) -> Client:
        """Connect and shake hands, sending `early` in the same packet; over HTTP/2 when `tls` agrees on it.

        With `deflate` both sides must agree on permessage-deflate.
        """
        options: dict[str, Any] = {"receive_buffer": receive_buffer, "tls": tls, "deflate": deflate}
        self._clients.append(await open_client(self.port, path, *headers, early=early, **options))
        return self._clients[-1]

    def drop_clients(self) -> None:
        for client in self._clients:
            client.vanish()


async def open_client(
    port: int,
    path: str = "/ws",
    *headers: bytes,
    early: bytes = b"",
    receive_buffer: int | None = None,
    tls: ssl.SSLContext | None = None,
    deflate: bool = False,
) -> Client:
    """As `Running.client`, of any server; to be closed by the caller."""
    raw = await connect(port, receive_buffer=receive_buffer)
    stream: trio.abc.Stream = raw
    if tls is not None:
        stream = trio.SSLStream(raw, tls, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
        if stream.selected_alpn_protocol() == "h2":
            return Client(await Http2Stream.open(stream, path, early), b"", raw)
    offer = _Deflate()
    if deflate:
        headers = (*headers, b"Sec-WebSocket-Extensions: permessage-deflate; " + str(offer.offer()).encode())
    await stream.send_all(upgrade_request(path, *headers) + early)
    head, rest = await read_head(stream)
    assert head.startswith(b"HTTP/1.1 101"), head
    answer = re.search(rb"(?i)^sec-websocket-extensions: (.*)\r?$", head, re.MULTILINE)
    assert (answer is not None) is deflate, head
    if answer is not None:
        offer.finalize(answer[1].decode())
    return Client(stream, rest, raw, [offer] if deflate else [])


@asynccontextmanager
async def serving(app: QuartTrio | AsgiApp, **options: Any) -> AsyncIterator[Running]:
    """Serve `app` on a free port; leaving the block cancels the server."""
    shutdown, ended, stats = trio.Event(), trio.Event(), ServerStats()
    reports: list[BaseException] = []
    scope = trio.CancelScope()

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        defaults = {"host": "127.0.0.1", "port": 0, "shutdown": shutdown, "stats": stats}
        report = partial(_collect, reports)
        with scope:
            await server.serve(app, **{**defaults, "report": report, **options}, task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(run)
        port = int(address.rpartition(":")[2])
        running = Running(port, address, shutdown, scope.cancel, ended, stats, reports)
        try:
            yield running
        finally:
            running.drop_clients()
            scope.cancel()


def _collect(reports: list[BaseException], where: str, error: BaseException) -> None:
    reports.append(error)


async def connect(port: int, *, receive_buffer: int | None = None) -> trio.SocketStream:
    """A raw connection."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


def upgrade_request(path: str = "/ws", *headers: bytes) -> bytes:
    """A WebSocket handshake."""
    lines = [
        b"GET %s HTTP/1.1" % path.encode(),
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Version: 13",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def read_head(stream: trio.abc.ReceiveStream) -> tuple[bytes, bytes]:
    """The head of an HTTP response, and the bytes that came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(65536)
        assert more, f"the connection ended after {data!r}"
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """The bytes up to the end of the connection, by a reset or otherwise."""
    data = b""
    with suppress(trio.BrokenResourceError):
        while more := await stream.receive_some(65536):
            data += more
    return data


async def get(port: int, path: str = "/", tls: ssl.SSLContext | None = None) -> bytes:
    """The body of one GET over HTTP/1.1 on a connection of its own."""
    stream: trio.abc.Stream = await connect(port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname="localhost", https_compatible=True)
    async with stream:
        await stream.send_all(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode())
        head, body = await read_head(stream)
        assert head.startswith(b"HTTP/1.1 200"), head
        return body + await read_to_end(stream)


class Client:
    """A WebSocket client: nothing happens, not even a pong, unless it is told."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        received: bytes = b"",
        raw: trio.SocketStream | None = None,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self.stream = stream
        self.raw: Any = raw or stream  # carries the bytes of `stream`
        self.received = len(received)  # bytes behind the handshake
        self.websocket = Connection(ConnectionType.CLIENT, list(extensions), trailing_data=received)
        self._events: list[Event] = list(self.websocket.events())

    async def send(self, *events: Event) -> None:
        """Send events, in one piece."""
        await self.send_raw(b"".join(self.websocket.send(event) for event in events))

    async def send_raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def say(self, *texts: str) -> None:
        await self.send(*(TextMessage(data=text) for text in texts))

    async def event(self) -> Event | None:
        """The next event; None at the end of the connection."""
        while not self._events:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.received += len(data)
            self.websocket.receive_data(bytes(data))
            self._events = list(self.websocket.events())
        return self._events.pop(0)

    async def text(self) -> str:
        """The next whole text message; anything else is a failure."""
        parts = []
        while True:
            event = await self.event()
            assert isinstance(event, TextMessage), event
            parts.append(event.data)
            if event.message_finished:
                return "".join(parts)

    async def closed(self) -> CloseConnection:
        """The server's close frame, answered; messages before it are passed over."""
        while not isinstance(event := await self.event(), CloseConnection):
            assert event is not None, "the connection ended without a close frame"
        await self.answer(event)
        return event

    async def leave(self) -> CloseConnection:
        """The server's close frame, answered, and then this end of the connection closed."""
        close = await self.closed()
        await self.stream.aclose()
        return close

    async def answer(self, close: CloseConnection) -> None:
        with suppress(trio.BrokenResourceError):  # the server need not wait for it
            await self.send(close.response())

    def vanish(self) -> None:
        """Reset the connection, as a dying client does."""
        sock = self.raw.socket
        if sock.fileno() != -1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()


class _Deflate(PerMessageDeflate):
    """wsproto's, which forgets at a control frame that the message around it is compressed."""

    def frame_inbound_header(self, proto: Any, opcode: Any, rsv: RsvBits, payload_length: int) -> Any:
        compressed = self._inbound_compressed
        result = super().frame_inbound_header(proto, opcode, rsv, payload_length)
        if opcode.iscontrol():
            self._inbound_compressed = compressed
        return result

    def frame_inbound_complete(self, proto: Any, fin: bool) -> Any:
        return super().frame_inbound_complete(proto, fin) if self._inbound_is_compressible else None


class Http2Stream(trio.abc.Stream):
    """The bytes of one WebSocket in a stream of HTTP/2 (RFC 8441). Bytes are acknowledged when they are read."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._received = b""
        self._status: str | None = None
        self._ended = False

    @classmethod
    async def open(cls, transport: trio.abc.Stream, path: str, early: bytes) -> Http2Stream:
        stream = cls(transport)
        stream._http.initiate_connection()
        headers = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": path}
        headers |= {":authority": "localhost", "sec-websocket-version": "13"}
        stream._http.send_headers(1, list(headers.items()))
        if early:
            stream._http.send_data(1, early)
        await stream._flush()
        while stream._status is None:
            await stream._read()
        assert stream._status == "200"
        return stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = bytes(data)
        while rest:
            room = min(self._http.local_flow_control_window(1), self._http.max_outbound_frame_size)
            if room == 0:
                await self._read()
                continue
            try:
                self._http.send_data(1, rest[:room])
            except H2Error as error:
                raise trio.BrokenResourceError from error
            rest = rest[room:]
            await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._received and not self._ended:
            await self._read()
        data, self._received = self._received[:max_bytes], self._received[max_bytes or len(self._received) :]
        if data and not self._ended:
            self._http.acknowledge_received_data(len(data), 1)
            await self._flush()
        return data

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._transport)

    async def _read(self) -> None:
        data = await self._transport.receive_some(65536)
        self._ended = self._ended or not data
        for event in self._http.receive_data(bytes(data)) if data else ():
            self._take(event)
        await self._flush()

    def _take(self, event: H2Event) -> None:
        if isinstance(event, ResponseReceived):
            self._status = dict(event.headers)[":status"]
        elif isinstance(event, DataReceived):
            self._received += event.data
        elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
            self._ended = True

    async def _flush(self) -> None:
        with suppress(trio.BrokenResourceError):  # the next read finds out
            await self._transport.send_all(self._http.data_to_send())


def websocket_app(handler: Callable[[], Any]) -> QuartTrio:
    """An application with one page and `handler` at /ws."""
    app = QuartTrio(__name__)
    app.websocket("/ws")(handler)

    @app.route("/", methods=["GET", "POST"])
    async def page() -> str:
        return "here"

    return app
