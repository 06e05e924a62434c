"""HTTP/1.1 as its standards have it: raw bytes in, raw bytes out."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from quart import Response, request, websocket
from quart_trio import QuartTrio

from dataflow.gateway.certificates import certified_context
from dataflow.server.handshake import Handshake, Socket
from dataflow.server.socket_wire import SocketWire
from dataflow.server.take_over import take_over
from tests.dataflow.server.wires_client import (
    KEY,
    connect,
    read_head,
    read_to_end,
    serving,
    upgrade_request,
    websocket_app,
)
from tests.support.certificates import Certificate
from tests.support.waiting import until_delivered

SECOND = b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"
HANDSHAKE = upgrade_request()
KEY_LINE = b"Sec-WebSocket-Key: " + KEY + b"\r\n"


def head(first: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((first, *lines)) + b"\r\n\r\n"


def shown(value: Any) -> str:
    """A name for a case: not every one of its bytes."""
    return (value if isinstance(value, bytes) else str(value).encode()).decode("latin-1")[:40]


def plain(*lines: bytes) -> bytes:
    return head(b"GET / HTTP/1.1", b"Host: x", *lines)


def changed(old: bytes, new: bytes) -> bytes:
    """A handshake that is proper but for one thing."""
    assert old in HANDSHAKE
    return HANDSHAKE.replace(old, new)


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_ambiguous_length_is_refused_and_ends_the_connection(before: bytes, head: bytes) -> None:
    """A second request cannot be smuggled: no byte behind an ambiguous head is understood."""
    with trio.fail_after(120):
        async with serving(websocket_app(_never)) as running, await connect(running.port) as stream:
            await stream.send_all(before + head + b"0\r\n\r\n" + SECOND)
            answers = await read_to_end(stream)
            assert answers.count(b"HTTP/1.1 200") == (1 if before else 0)
            assert answers.count(b"HTTP/1.1 400") == 1
            assert answers.count(b"HTTP/1.1 ") == (2 if before else 1)


async def test_upgrade_to_http2_in_the_clear_is_not_taken() -> None:
    """The request is answered over HTTP/1.1, as if nothing had been offered."""
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
    )
    with trio.fail_after(120):
        async with serving(websocket_app(_never)) as running, await connect(running.port) as stream:
            await stream.send_all(request)
            answer = await read_to_end(stream)
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"here")


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        # The first line: RFC 9112, section 3, and RFC 9110, sections 9.1 and 15.6.6.
        (b"GET /\r\n\r\n", 400, "GET / HTTP/1.1"),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "one space"),
        (head(b"GET / HTTP/2.0", b"Host: x"), 505, "HTTP/1.1"),
        (head(b"PRI * HTTP/2.0", b"Host: x"), 505, "HTTP/1.1"),
        (head(b"get / HTTP/1.1", b"Host: x"), 501, "capital letters"),
        (head(b"BREW / HTTP/1.1", b"Host: x"), 501, "BREW"),
        (head(b"CONNECT x:443 HTTP/1.1", b"Host: x"), 501, "no proxy"),
        (head(b"GET page HTTP/1.1", b"Host: x"), 400, "begins with '/'"),
        (head(b"GET * HTTP/1.1", b"Host: x"), 400, "begins with '/'"),
        (head(b"GET ftp://x/ HTTP/1.1", b"Host: x"), 400, "http address"),
        (head(b"GET http:///page HTTP/1.1", b"Host: x"), 400, "http address"),
        (head(b"GET http://me@x/ HTTP/1.1", b"Host: x"), 400, "http address"),
        (head(b"GET /" + b"x" * 20_000 + b" HTTP/1.1", b"Host: x"), 414, "16384 bytes"),
        (b"GET /" + b"x" * 20_000, 414, "16384 bytes"),
        (plain(b"X: " + b"x" * 20_000), 431, "16384 bytes"),
        (plain(*[b"X: x"] * 4000), 431, "16384 bytes"),
        # Host: RFC 9112, section 3.2.
        (head(b"GET / HTTP/1.1"), 400, "Host"),
        (plain(b"Host: x"), 400, "Host"),
        (head(b"GET / HTTP/1.1", b"Host: a b"), 400, "Host"),
        (head(b"GET / HTTP/1.1", b"Host: a/b"), 400, "Host"),
        (head(b"GET / HTTP/1.1", b"Host: a:b"), 400, "Host"),
        (head(b"GET / HTTP/1.1", b"Host: ["), 400, "Host"),
        (head(b"GET / HTTP/1.1", b"Host: \xfc"), 400, "Host"),
        (head(b"GET http://x/ HTTP/1.1", b"Host: a b"), 400, "Host"),
        # Headers: RFC 9112, sections 2.2, 5.1 and 5.2, and RFC 9110, section 5.5.
        (head(b"GET / HTTP/1.1", b"Host : x"), 400, "before the colon"),
        (plain(b"X: a\rb"), 400, "control characters"),
        (plain(b"X: a\0b"), 400, "control characters"),
        (plain(b"no colon"), 400, "name: value"),
        (head(b"GET / HTTP/1.1", b" folded: x", b"Host: x"), 400, "start of headers"),
        # The length of a body: RFC 9112, section 6.
        (plain(b"Content-Length: +5"), 400, "one number"),
        (plain(b"Content-Length: 5, 6"), 400, "one number"),
        (plain(b"Content-Length: 5", b"Content-Length: 6"), 400, "one number"),
        (plain(b"Content-Length: " + b"9" * 5000), 400, "one number"),
        (plain(b"Transfer-Encoding: gzip, chunked"), 501, "chunked"),
        (plain(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400, "ambiguous"),
        # A handshake: RFC 6455, sections 4.2.1 and 4.2.2.
        (changed(b"Host: localhost\r\n", b""), 400, "Host"),
        (changed(KEY_LINE, b""), 400, "Sec-WebSocket-Key"),
        (changed(KEY_LINE, KEY_LINE * 2), 400, "Sec-WebSocket-Key"),
        (changed(KEY, b"dGhl"), 400, "16 bytes"),
        (changed(KEY, b"?" * 24), 400, "16 bytes"),
        (upgrade_request("/ws", b"Content-Length: 5") + b"hello", 400, "no body"),
        (upgrade_request("/ws", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "no body"),
        (upgrade_request("/ws", b"Expect: 100-continue"), 400, "no body"),
        (changed(b"HTTP/1.1", b"HTTP/2.0"), 505, "HTTP/1.1"),
    ],
    ids=shown,
)
async def test_what_is_refused_is_told_and_ends_the_connection(sent: bytes, status: int, words: str) -> None:
    """The status and the words say what is wrong; nothing behind it is understood, and the client is waited for."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(sent)
        answer = await _answer(stream)
        assert answer.status == status
        assert words in answer.problem["detail"]
        assert answer.problem["status"] == status
        assert answer.headers["content-type"] == ["application/problem+json"]
        assert answer.headers["connection"] == ["close"]
        assert len(answer.headers["date"]) == 1  # RFC 9110, section 6.6.1
        await stream.send_all(SECOND)
        assert await stream.receive_some() == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (changed(b"Version: 13", b"Version: 8"), 426),
        (changed(b"Version: 13", b"Version: 0013"), 426),
        (changed(b"Version: 13", b"Version:"), 426),
        (changed(b"Sec-WebSocket-Version: 13\r\n", b""), 400),
        (upgrade_request("/ws", b"Sec-WebSocket-Version: 13"), 400),
        (upgrade_request("/ws", b"Sec-WebSocket-Version: 8"), 400),
    ],
)
async def test_another_version_of_websocket_is_told_ours(sent: bytes, status: int) -> None:
    """RFC 6455, section 4.4: the answer names the versions that are understood."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(sent)
        answer = await _answer(stream)
        assert answer.status == status
        assert answer.headers["sec-websocket-version"] == ["13"]
        assert answer.headers["upgrade"] == ["websocket"]
        assert sorted(answer.headers["connection"]) == ["Upgrade", "close"]
        assert await stream.receive_some() == b""


@pytest.mark.parametrize(
    "sent",
    [
        changed(b"Upgrade: websocket", b"UPGRADE: WebSocket"),
        changed(b"Upgrade: websocket", b"Upgrade: h2c, websocket"),
        changed(b"Upgrade: websocket", b"Upgrade: h2c\r\nUpgrade: websocket"),
        changed(b"Connection: Upgrade", b"connection: keep-alive , UPGRADE"),
        changed(b"Connection: Upgrade", b"Connection: Upgrade\r\nConnection: keep-alive"),
        changed(b"HTTP/1.1", b"HTTP/1.7"),
        changed(b"GET /ws", b"GET http://localhost/ws"),
    ],
)
async def test_every_spelling_of_a_proper_handshake_comes_in(sent: bytes) -> None:
    """Names and tokens have no case, lists may have more members and several lines (RFC 9110, section 5)."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(sent)
        answer, _ = await read_head(stream)
        assert answer.startswith(b"HTTP/1.1 101")
        assert b"\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in answer.lower()


async def test_subprotocols_in_several_lines_are_one_list() -> None:
    """RFC 6455, section 4.2.1, item 8."""
    async with _server() as port, await connect(port) as stream:
        first, second = b"Sec-WebSocket-Protocol: ours", b"Sec-WebSocket-Protocol: theirs"
        await stream.send_all(upgrade_request("/ws", first, second))
        answer, _ = await read_head(stream)
        assert answer.startswith(b"HTTP/1.1 101")
        assert b"sec-websocket-protocol: ours" in answer.lower()


@pytest.mark.parametrize(
    "sent",
    [
        changed(b"HTTP/1.1", b"HTTP/1.0"),  # RFC 9110, section 7.8
        changed(b"Connection: Upgrade\r\n", b""),
        changed(b"Upgrade: websocket\r\n", b""),
        changed(b"Upgrade: websocket", b"Upgrade: websocket2"),
    ],
)
async def test_what_is_no_offer_of_a_websocket_is_an_ordinary_request(sent: bytes) -> None:
    """It is answered over HTTP, by the application."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(sent.replace(b"GET /ws", b"GET /host"))
        answer, _ = await read_head(stream)
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (head(b"GET /host HTTP/1.1", b"Host: x:80"), b"x:80 /host"),
        (head(b"GET http://y:81/host?q HTTP/1.1", b"Host: x"), b"y:81 /host?q"),
        (head(b"GET HTTPS://[::1]/host HTTP/1.1", b"Host: x"), b"[::1] /host?"),
        (head(b"GET /host HTTP/1.9", b"Host: x"), b"x /host"),
        (head(b"GET /host HTTP/1.1", b"Host:"), b" /host"),
        (head(b"GET /host HTTP/1.0"), b" /host"),
        (head(b"GET /host HTTP/1.1", b"Host: x", b"X: folded", b"  twice"), b"x /host"),
    ],
)
async def test_the_address_of_a_request_wins_over_its_host(sent: bytes, body: bytes) -> None:
    """RFC 9112, section 3.2.2: every form of address is understood, and whoever checks Host checks it."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(sent)
        answer = await _answer(stream)
        assert answer.status == 200
        assert answer.body.startswith(body)


async def test_options_of_the_whole_server() -> None:
    """RFC 9110, section 9.3.7: a target for nothing but a word with the server. 204 has no body."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(head(b"OPTIONS * HTTP/1.1", b"Host: x") + plain(b"Connection: close"))
        answers = await read_to_end(stream)
        first, _, rest = answers.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 204")
        assert b"allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT" in first
        assert rest.startswith(b"HTTP/1.1 200")


async def test_refusal_of_head_has_no_body() -> None:
    """RFC 9110, section 9.3.2: a body would be taken for the next answer."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(head(b"HEAD page HTTP/1.1", b"Host: x"))
        answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("length", [b"Content-Length: 4000000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_answer_before_the_end_of_a_body_reaches_the_client(
    length: bytes, encrypted: bool, certificate: Certificate
) -> None:
    """RFC 9112, sections 9.6 and 9.8: it says that it is the last one, and a client that goes on sending can
    read it to its proper end."""
    more = b"3e8\r\n" + bytes(1000) + b"\r\n"
    tls = certified_context(certificate.certificate, certificate.key) if encrypted else None
    async with _server(tls) as port, await connect(port) as raw:
        stream: trio.abc.Stream = raw
        if encrypted:  # not `https_compatible`: an end without a closure alert is an error
            stream = trio.SSLStream(raw, certificate.client_context(), server_hostname="localhost")
        await stream.send_all(head(b"POST / HTTP/1.1", b"Host: x", length))
        answer = await _answer(stream)
        assert answer.headers["connection"] == ["close"]
        assert answer.body == b"here"
        for _ in range(100):
            await stream.send_all(more)
        assert await stream.receive_some() == b""  # and not a reset


async def test_empty_line_before_a_request_is_ignored() -> None:
    """RFC 9112, section 2.2: some clients send one behind a body."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(b"\r\n" + plain())
        assert (await _answer(stream)).status == 200
        for piece in (b"\r\n", plain(b"Connection: close")):
            await stream.send_all(piece)
            await until_delivered(stream.socket)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 200")


async def test_refused_handshake_ends_the_connection_in_order() -> None:
    """No matter what comes behind it."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(upgrade_request("/nowhere") + bytes(1000))
        answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 404")
        assert b"\r\nconnection: close" in answer.lower()


async def test_http2_begins_a_connection_or_is_refused() -> None:
    """Its frames are counted from the first byte on: nobody gets past the bound by a request before them."""
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(plain() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        answers = await read_to_end(stream)
        assert answers.count(b"HTTP/1.1 200") == 1
        assert answers.count(b"HTTP/1.1 505") == 1
    async with _server() as port, await connect(port) as stream:
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        assert (await stream.receive_some())[3] == 4  # SETTINGS


class _Answer:
    def __init__(self, received: bytes) -> None:
        lines, _, self.body = received.partition(b"\r\n\r\n")
        first, *rest = lines.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers: dict[str, list[str]] = {}
        for line in rest:
            name, _, value = line.partition(":")
            self.headers.setdefault(name.lower(), []).append(value.strip())

    @property
    def problem(self) -> Any:
        return json.loads(self.body)


async def _answer(stream: trio.abc.ReceiveStream) -> _Answer:
    """The answer, by its length."""
    received, rest = await read_head(stream)
    answer = _Answer(received + b"\r\n\r\n" + rest)
    while len(answer.body) < int(answer.headers["content-length"][0]):
        answer.body += await stream.receive_some()
    return answer


@asynccontextmanager
async def _server(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Its port. It has a page that tells what it was asked for. Nothing may fail inside."""
    socket = Socket("/ws", ("ours",))
    with trio.fail_after(120):
        async with serving(_application(socket), sockets={socket: _welcome}, tls=tls) as running:
            yield running.port
            assert not running.reports


def _application(socket: Socket) -> QuartTrio:
    async def attend() -> None:
        async with take_over(websocket, socket) as wire:
            wire.abort()

    app = websocket_app(attend)

    @app.route("/host")
    async def host() -> Response:
        return Response(f"{request.headers.get('Host', '')} {request.full_path}")

    return app


async def _welcome(wire: SocketWire, client: Handshake) -> None:
    wire.abort()


async def _never() -> None:
    raise AssertionError
