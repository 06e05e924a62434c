"""Streams of one HTTP/2 connection: the fate of one does not touch the others."""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hyperframe.frame import GoAwayFrame
from quart import Response, websocket
from trio.testing import MockClock
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Ping, Pong, TextMessage

from actors.session import WireClosed
from dataflow.gateway.certificates import certified_context
from dataflow.net.allowance import AT_ONCE
from dataflow.server.connection import SEAT
from dataflow.server.http2 import BUFFER_BYTES, Http2
from dataflow.server.serve import _config
from dataflow.server.take_over import take_over
from tests.dataflow.server.wires_client import connect, serving, websocket_app
from tests.support.certificates import Certificate
from tests.support.waiting import until, until_delivered

FRAME = 16384  # bytes of data in a frame, at most
WINDOW = 65535  # bytes of a stream and of a connection that nobody has acknowledged

logging.getLogger("quart").setLevel(logging.CRITICAL)


class Browser:
    """One connection with several WebSockets, each by the number of its stream."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        self.received: dict[int, bytes] = defaultdict(bytes)
        self.opened: set[int] = set()
        self.ended: set[int] = set()
        self.statuses: dict[int, int] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.resets: dict[int, int] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.farewells: list[tuple[int, int]] = []  # the code, and the last stream that is served
        self.pings = 0
        self._transport = transport
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        # h2 would say no more behind a farewell, but the streams that are open go on.
        self._http._frame_dispatch_table[GoAwayFrame] = self._hear_farewell
        self._http.initiate_connection()

    async def open(self, stream: int) -> None:
        headers = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": "/ws"}
        headers |= {":authority": "localhost", "sec-websocket-version": "13"}
        self._http.send_headers(stream, list(headers.items()))
        await self.until(lambda: stream in self.opened)

    async def ask(self, stream: int, *, end: bool = True, **headers: str | None) -> None:
        """Send a request that need not be right: `None` leaves a header out, "_" stands for ":" and "-"."""
        asked = {":method": "GET", ":scheme": "https", ":path": "/", ":authority": "localhost"}
        for name, value in headers.items():
            name = ":" + name[1:] if name.startswith("_") else name.replace("_", "-")
            asked.pop(name, None)
            if value is not None:
                asked[name] = value
        self._http.config.validate_outbound_headers = False
        ordered = sorted(asked.items(), key=lambda header: not header[0].startswith(":"))
        self._http.send_headers(stream, ordered, end_stream=end)
        await self.until(lambda: stream in self.ended)

    async def end(self, stream: int) -> None:
        self._http.end_stream(stream)
        await self.flush()

    async def post(self, stream: int, path: str, body: bytes = b"", *, end: bool = False) -> None:
        """Begin a request, and do not wait for its answer."""
        headers = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost"}
        self._http.send_headers(stream, [*headers.items(), ("te", "trailers")])
        for start in range(0, len(body), FRAME):
            self._http.send_data(stream, body[start : start + FRAME])
        if end:
            self._http.end_stream(stream)
        await self.flush()

    async def get(self, stream: int, path: str) -> None:
        headers = {":method": "GET", ":scheme": "https", ":path": path, ":authority": "localhost"}
        self._http.send_headers(stream, list(headers.items()), end_stream=True)
        await self.until(lambda: stream in self.opened)

    async def send(self, stream: int, data: bytes) -> None:
        self._http.send_data(stream, data)
        await self._transport.send_all(self._http.data_to_send())

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await self._transport.send_all(self._http.data_to_send())
            data = await self._transport.receive_some()
            assert data, "the connection has ended"
            for event in self._http.receive_data(bytes(data)):
                self._take(event)

    async def flush(self) -> None:
        await self._transport.send_all(self._http.data_to_send())

    @property
    def socket(self) -> Any:
        transport: Any = self._transport
        return transport.transport_stream.socket

    def _hear_farewell(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        self.farewells.append((frame.error_code, frame.last_stream_id))
        return [], []

    def _take(self, event: Any) -> None:
        if isinstance(event, ResponseReceived):
            self.opened.add(event.stream_id)
            self.headers[event.stream_id] = dict(event.headers)
            self.statuses[event.stream_id] = int(self.headers[event.stream_id][":status"])
        elif isinstance(event, DataReceived):
            self.received[event.stream_id] += event.data
        elif isinstance(event, TrailersReceived):
            self.trailers[event.stream_id] = dict(event.headers)
        elif isinstance(event, PingReceived):
            self.pings += 1
        elif isinstance(event, StreamEnded | StreamReset):
            self.ended.add(event.stream_id)
            if isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code


@asynccontextmanager
async def browser(port: int, certificate: Certificate) -> AsyncIterator[Browser]:
    transport = trio.SSLStream(
        await connect(port),
        certificate.client_context("h2"),
        server_hostname="localhost",
        https_compatible=True,
    )
    yield Browser(transport)
    await trio.aclose_forcefully(transport)


def masked(text: str) -> bytes:
    return bytes(Connection(ConnectionType.CLIENT).send(TextMessage(data=text)))


def heard(data: bytes) -> list[str]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return [event.data for event in client.events() if isinstance(event, TextMessage)]


async def echo() -> None:
    async with take_over(websocket) as wire:
        with suppress(WireClosed):
            while (text := await wire.receive()) != "go":
                await wire.write([wire.pack([text.encode()])])
            wire.abort()


async def test_end_of_one_websocket_leaves_the_others_alone(certificate: Certificate) -> None:
    """One breaks the rules, one is aborted. Both streams end, and late bytes for them do no harm."""
    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with (
            serving(websocket_app(echo), tls=tls) as running,
            browser(running.port, certificate) as client,
        ):
            for stream in (1, 3, 5):
                await client.open(stream)
            await client.send(1, b"\x83\x80aaaa" + masked("late"))
            await client.send(3, masked("go") + masked("late"))
            await client.send(5, masked("hello"))
            await client.until(lambda: client.ended == {1, 3} and heard(client.received[5]) == ["hello"])
            await client.send(5, masked("again"))
            await client.until(lambda: heard(client.received[5]) == ["hello", "again"])
            assert running.stats.accepted == 1
            assert not running.reports


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        # RFC 8441, section 4, RFC 6455, section 4.4, and RFC 9113, sections 8.3.1 and 8.5
        ({"_method": "CONNECT", "_path": None, "_scheme": None}, 501, "no proxy"),
        ({"_method": "CONNECT", "_protocol": "connect-udp"}, 501, "':protocol'"),
        ({"_method": "CONNECT", "_protocol": "websocket"}, 400, "Sec-WebSocket-Version: 13"),
        (
            {"_method": "CONNECT", "_protocol": "websocket", "sec_websocket_version": "8"},
            400,
            "Sec-WebSocket-Version: 13",
        ),
        ({"_method": "get"}, 501, "capital letters"),
        ({"_method": "BREW"}, 501, "BREW"),
        ({"_path": "*"}, 400, "':path'"),
        ({"_path": "page"}, 400, "':path'"),
        ({"_path": "/\xfc"}, 400, "':path'"),
        ({"_authority": "a/b"}, 400, "Host"),
        ({"content_length": "5"}, 400, "Content-Length"),
        (
            {"_method": "CONNECT", "_protocol": "websocket", "sec_websocket_version": "13"},
            400,
            "both directions",
        ),
    ],
)
async def test_refused_request_does_not_touch_the_others(
    certificate: Certificate, headers: dict[str, str | None], status: int, words: str
) -> None:
    """It is answered in its own stream, with words; the connection goes on, and forgets it."""
    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with (
            serving(websocket_app(echo), tls=tls) as running,
            browser(running.port, certificate) as client,
        ):
            await client.open(1)
            await client.ask(3, **headers)
            assert client.statuses[3] == status
            problem = json.loads(client.received[3])
            assert problem["status"] == status
            assert words in problem["detail"]
            wants = client.headers[3].get("sec-websocket-version")
            assert wants == ("13" if "Version" in words else None)
            await client.send(1, masked("hello"))
            await client.until(lambda: heard(client.received[1]) == ["hello"])
            await client.ask(5, _method="OPTIONS", _path="*")
            assert client.statuses[5] == 204
            assert not running.reports


async def test_end_of_a_direction_is_the_end_of_a_websocket(certificate: Certificate) -> None:
    """RFC 8441, section 5: END_STREAM is what the end of a TCP connection is elsewhere."""
    put, get = trio.open_memory_channel[Any](1)

    async def listen() -> None:
        async with take_over(websocket) as wire:
            await put.send(wire)

    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with (
            serving(websocket_app(listen), tls=tls) as running,
            browser(running.port, certificate) as client,
        ):
            await client.open(1)
            wire = await get.receive()
            await client.end(1)
            with pytest.raises(WireClosed, match="1006 connection lost"):
                await wire.receive()
            await client.until(lambda: 1 in client.ended)
            assert not running.reports


async def test_who_does_not_wait_for_its_websocket_is_reset(certificate: Certificate) -> None:
    """With PROTOCOL_ERROR; its handler is told at once, and the other streams go on."""
    left = trio.Event()

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    app = websocket_app(echo)
    app.websocket("/slow")(wait)
    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with serving(app, tls=tls) as running, browser(running.port, certificate) as client:
            await client.open(1)
            headers = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": "/slow"}
            headers |= {":authority": "localhost", "sec-websocket-version": "13"}
            client._http.send_headers(3, list(headers.items()))
            client._http.send_data(3, masked("early"))
            await client.until(lambda: 3 in client.ended)
            assert client.resets == {3: ErrorCodes.PROTOCOL_ERROR}
            await left.wait()
            await client.send(1, masked("hello"))
            await client.until(lambda: heard(client.received[1]) == ["hello"])
            assert not running.reports


async def test_answers_over_http2_name_no_connection(certificate: Certificate) -> None:
    """RFC 9113, section 8.2.2: such a header makes an answer malformed; the client would wait for ever."""
    app = websocket_app(echo)

    @app.get("/old")
    async def old() -> Response:
        return Response("here", headers={"Connection": "close", "Keep-Alive": "5", "Upgrade": "h2c"})

    async def fail(scope: Any, _receive: Any, _send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        # Hypercorn answers with 500 and `connection: close`.

    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with serving(app, tls=tls) as running, browser(running.port, certificate) as client:
            await client.ask(1, _path="/old")
            assert client.received[1] == b"here"
            assert not {"connection", "keep-alive", "upgrade"} & set(client.headers[1])
        async with serving(fail, tls=tls) as running, browser(running.port, certificate) as client:
            await client.ask(1)
            assert client.statuses[1] == 500


async def test_the_bytes_that_wait_for_a_shut_window_are_bounded(certificate: Certificate) -> None:
    """A client that opens no window and asks for pongs without end costs a bounded buffer, and is still heard."""
    seats = list[Any]()
    pings = b"".join(
        bytes(Connection(ConnectionType.CLIENT).send(Ping(payload=b"%3d" % n + bytes(100))))
        for n in range(140)
    )

    async def pour() -> None:
        seats.append(websocket.scope["state"][SEAT])
        async with take_over(websocket) as wire:
            with suppress(WireClosed):
                assert await wire.receive() == "pour"
                while True:
                    await wire.write([wire.pack([b"x" * 10_000])])

    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with (
            serving(websocket_app(pour), tls=tls) as running,
            browser(running.port, certificate) as client,
        ):
            await client.open(1)
            await client.open(3)
            await client.send(1, masked("pour"))
            await client.until(lambda: len(client.received[1]) == WINDOW)  # which stays shut
            for _ in range(3):
                await client.send(1, pings)
                await trio.testing.wait_all_tasks_blocked()
                assert len(seats[0].http2._room.buffer.buffer) < BUFFER_BYTES + 20_000
            client._http.acknowledge_received_data(WINDOW, 1)
            await client.until(lambda: _pongs(client.received[1]) > 0)


async def test_an_endless_response_waits_for_its_window(certificate: Certificate) -> None:
    """It costs a bounded buffer; the other streams go on, and it does too when the window opens."""
    made = 0
    app = websocket_app(echo)

    @app.get("/flood")
    async def flood() -> Response:
        async def body() -> AsyncIterator[bytes]:
            nonlocal made
            while True:
                made += 10_000
                yield bytes(10_000)

        answer = Response(body())
        answer.timeout = None
        return answer

    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with serving(app, tls=tls) as running, browser(running.port, certificate) as client:
            await client.get(1, "/flood")
            await client.until(lambda: len(client.received[1]) == WINDOW)  # which stays shut
            await trio.testing.wait_all_tasks_blocked()
            assert made < WINDOW + BUFFER_BYTES + 40_000
            client._http.increment_flow_control_window(WINDOW)  # of the connection, for the other stream
            await client.open(3)
            await client.send(3, masked("hello"))
            await client.until(lambda: heard(client.received[3]) == ["hello"])
            client._http.increment_flow_control_window(WINDOW, 1)
            await client.until(lambda: len(client.received[1]) > WINDOW)


async def test_a_response_that_nobody_takes_is_given_back(
    certificate: Certificate, mock_clock: MockClock
) -> None:
    """A window that stays shut ends the stream in time, in the middle of the body or at its end."""
    left = list[str]()
    app = websocket_app(echo)

    @app.get("/<path>")
    async def body(path: str) -> Response:
        async def pour() -> AsyncIterator[bytes]:
            try:
                yield bytes(WINDOW + 10_000)
                while path == "endless":
                    yield bytes(10_000)
            finally:
                left.append(path)

        answer = Response(pour())
        answer.timeout = None
        return answer

    tls = certified_context(certificate.certificate, certificate.key)
    async with (
        serving(app, tls=tls, send_seconds=5) as running,
        browser(running.port, certificate) as client,
    ):
        client._http.increment_flow_control_window(10 * WINDOW)  # of the connection
        await client.get(1, "/endless")
        await client.get(3, "/short")
        await client.until(lambda: len(client.received[1]) == len(client.received[3]) == WINDOW)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not client.ended
        mock_clock.jump(4)
        client._http.increment_flow_control_window(1)  # of the connection: no stream can use it
        await client.flush()
        await until_delivered(client.socket)
        assert not client.ended
        mock_clock.jump(1.1)
        await client.until(lambda: client.ended == {1, 3})
        assert running.stats.faults == {"StalledError": 2}
        await until(lambda: sorted(left) == ["endless", "short"])
        await client.open(5)
        await client.send(5, masked("hello"))
        await client.until(lambda: heard(client.received[5]) == ["hello"])


async def test_a_response_that_is_taken_slowly_is_not_given_up(
    certificate: Certificate, mock_clock: MockClock
) -> None:
    """The time is that of a standstill, not of the response."""
    app = websocket_app(echo)

    @app.get("/long")
    async def long() -> bytes:
        return bytes(3 * WINDOW)

    tls = certified_context(certificate.certificate, certificate.key)
    async with (
        serving(app, tls=tls, send_seconds=5) as running,
        browser(running.port, certificate) as client,
    ):
        client._http.increment_flow_control_window(10 * WINDOW)
        await client.get(1, "/long")
        for size in (WINDOW, 2 * WINDOW):
            await client.until(lambda size=size: len(client.received[1]) == size)  # type: ignore[misc]
            mock_clock.jump(4)
            client._http.increment_flow_control_window(WINDOW, 1)
        await client.until(lambda: len(client.received[1]) == 3 * WINDOW)
        await client.until(lambda: 1 in client.ended)
        assert not running.stats.faults


async def test_a_flood_of_control_frames_ends_the_connection(certificate: Certificate) -> None:
    """With a GOAWAY that says why: over TLS, and over plain TCP with prior knowledge."""
    tls = certified_context(certificate.certificate, certificate.key)
    settings = b"\0\0\0\4\0\0\0\0\0"
    flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings * 7000
    with trio.fail_after(120):
        for encrypted in (True, False):
            async with serving(websocket_app(echo), tls=tls if encrypted else None) as running:
                transport: trio.abc.Stream = await connect(running.port)
                if encrypted:
                    transport = trio.SSLStream(
                        transport, certificate.client_context("h2"), server_hostname="localhost"
                    )
                await transport.send_all(flood)
                client = H2Connection(H2Configuration(client_side=True))
                client.initiate_connection()
                events = list[Any]()
                while not any(isinstance(event, ConnectionTerminated) for event in events):
                    data = await transport.receive_some()
                    assert data, "the connection has ended"
                    events += client.receive_data(bytes(data))
                assert events[-1].error_code == ErrorCodes.ENHANCE_YOUR_CALM
                assert events[-1].additional_data.startswith(b"too many control frames of HTTP/2")
                acknowledged = sum(isinstance(event, SettingsAcknowledged) for event in events)
                assert acknowledged < 2 * AT_ONCE  # each answer of ours allows a few more
                assert running.stats.faults == {"FloodError": 1}
                await trio.aclose_forcefully(transport)


def _pongs(data: bytes) -> int:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return sum(isinstance(event, Pong) for event in client.events())


class Exchanges:
    """An application for requests whose body and answer are what is tested."""

    def __init__(self) -> None:
        self.goes = trio.Event()  # until then a request to /wait is not read
        self.messages: list[dict[str, Any]] = []  # that it received

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        start = {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
        path = scope["path"]
        if path == "/fail":
            await send(start)
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("sabotage")
        if path == "/wait":
            await self.goes.wait()
        while path != "/early":
            self.messages.append(await receive())
            if not self.messages[-1].get("more_body"):
                break
        await send(start)
        await send({"type": "http.response.body", "body": path.encode(), "more_body": path == "/endless"})
        if path == "/endless":
            await self.goes.wait()
            await send({"type": "http.response.body", "body": b""})
        await send({"type": "http.response.trailers", "headers": [(b"how", b"well")]})


@asynccontextmanager
async def exchanging(
    certificate: Certificate, **options: Any
) -> AsyncIterator[tuple[Any, Browser, Exchanges]]:
    app = Exchanges()
    tls = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with serving(app, tls=tls, **options) as running, browser(running.port, certificate) as client:
            yield running, client, app


async def test_an_application_that_does_not_read_holds_only_its_own_stream(certificate: Certificate) -> None:
    """The client may send a window of the stream and no more; the other requests are answered meanwhile.

    When the application reads, it gets all in one message, and the client may send more.
    """
    async with exchanging(certificate, http2=Http2(window=4 * WINDOW)) as (_, client, app):
        await client.until(lambda: client._http.outbound_flow_control_window == 4 * WINDOW)
        await client.post(1, "/wait", bytes(WINDOW))
        await client.post(3, "/", b"hello", end=True)
        await client.until(lambda: 3 in client.ended)
        assert client.received[3] == b"/"
        assert client.trailers[3] == {"how": "well"}
        assert client._http.local_flow_control_window(1) == 0
        app.goes.set()
        await client.until(lambda: client._http.local_flow_control_window(1) > 0)
        assert app.messages[-1] == {"type": "http.request", "body": bytes(WINDOW), "more_body": True}
        client._http.send_data(1, b"end", end_stream=True)
        await client.until(lambda: 1 in client.ended)
        assert app.messages[-1] == {"type": "http.request", "body": b"end", "more_body": False}
        assert client.received[1] == b"/wait"


async def test_bytes_that_nobody_took_are_given_back_to_the_connection(certificate: Certificate) -> None:
    """An answer before the end of its request resets the stream, without an error; the room that its bytes
    took on the connection is there for others again."""
    async with exchanging(certificate) as (_, client, _app):
        await client.post(1, "/early", bytes(FRAME))
        await client.until(lambda: 1 in client.resets)
        assert client.resets == {1: ErrorCodes.NO_ERROR}
        assert client.received[1] == b"/early"
        assert client.trailers[1] == {"how": "well"}
        for stream in range(3, 41, 2):  # five times the window of the connection
            await client.post(stream, "/early", bytes(FRAME))
            await client.until(lambda: stream in client.resets)  # noqa: B023
        await client.post(41, "/", b"hello", end=True)
        await client.until(lambda: 41 in client.ended)
        assert client.received[41] == b"/"


async def test_a_stream_ends_with_an_application_that_fails(certificate: Certificate) -> None:
    """In the middle of its answer: the client learns that it will not be whole."""
    async with exchanging(certificate) as (running, client, _):
        await client.post(1, "/fail", end=True)
        await client.until(lambda: 1 in client.ended)
        assert client.resets == {1: ErrorCodes.INTERNAL_ERROR}
        assert running.stats.faults == {"RuntimeError": 1}


async def test_a_stop_is_announced_and_streams_end_in_order(certificate: Certificate) -> None:
    """GOAWAY with the last stream that is served, at once; that one goes on to its trailers."""
    async with exchanging(certificate) as (running, client, app):
        await client.post(1, "/endless", end=True)
        await client.until(lambda: client.received[1] == b"/endless")
        running.shutdown.set()
        await client.until(lambda: bool(client.farewells))
        assert client.farewells[0] == (ErrorCodes.NO_ERROR, 1)
        app.goes.set()
        await client.until(lambda: 1 in client.ended)
        assert client.trailers[1] == {"how": "well"}
        assert not client.resets
        with suppress(AssertionError):  # the connection has ended
            await client.until(lambda: False)
        await trio.aclose_forcefully(client._transport)
        await running.ended.wait()


def test_a_connection_serves_any_number_of_requests() -> None:
    """Hypercorn's bound would end all streams of a connection with its thousandth request."""
    assert _config(65536, 30.0, 100).keep_alive_max_requests == sys.maxsize


async def test_a_peer_that_answers_no_ping_is_let_go(certificate: Certificate, mock_clock: MockClock) -> None:
    """One that has vanished holds nothing for ever; one that answers stays."""
    async with exchanging(certificate, http2=Http2(ping=(20.0, 10.0))) as (running, client, _):
        await client.post(1, "/endless", end=True)
        await client.until(lambda: client.received[1] == b"/endless")
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(20.1)
        await client.until(lambda: client.pings == 1)
        await client.flush()  # the answer
        await until_delivered(client.socket)
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(20.1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not running.stats.faults
        mock_clock.jump(10.1)
        await until(lambda: running.stats.connections == 0)
        assert running.stats.faults["SilentError"] == 1
