"""Pages in browsers: which may come in on which way, what they may read, and how they are protected."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from dataflow.server.handshake import Door, Socket
from dataflow.server.socket_wire import SocketWire
from dataflow.settings.schema import Gateway, Operator
from tests.dataflow.server.wires_client import connect, read_head, upgrade_request
from tests.support.certificates import make_certificate
from tests.system.daemon import Daemon, client, daemon, http_client

APP = "https://app.example"
ALLOWED = Gateway(port=0, origins=(APP,))
FOREIGN = [b"Origin: http://evil.example", b"Origin: null", b"Origin: http://localhost:1"]
UNUSUAL = b"X: \xff"  # the short way has a doubt, and leaves the client to the HTTP server


@asynccontextmanager
async def running(**tables: Any) -> AsyncIterator[tuple[Daemon, httpx.AsyncClient]]:
    with trio.fail_after(120):
        async with daemon(sources={}, **tables) as d, http_client(d.http) as http:
            yield d, http


async def shake_hands(d: Daemon, *headers: bytes, path: str = "/ws") -> tuple[int, Any]:
    """Status and problem of a handshake over HTTP/1.1."""
    async with await connect(d.lobby.port) as stream:
        await stream.send_all(upgrade_request(path, *headers))
        head, body = await read_head(stream)
        if (status := int(head.split()[1])) == 101:
            return status, None
        return status, json.loads(body or await stream.receive_some())


WAYS = [(), (UNUSUAL,)]


@pytest.mark.parametrize("way", WAYS, ids=["short way", "through Quart"])
async def test_a_foreign_page_cannot_open_a_socket(way: tuple[bytes, ...]) -> None:
    """403 before any 101, as a problem that names the key; no session is made."""
    async with running() as (d, _):
        for origin in FOREIGN:
            status, problem = await shake_hands(d, origin, *way)
            assert (status, problem["key"]) == (403, "[gateway] origins")
        assert d.lobby.clients.totals().opened == 0
        assert (await shake_hands(d, b"Origin: http://localhost", *way))[0] == 101
        assert (await shake_hands(d, *way))[0] == 101


@pytest.mark.parametrize("way", WAYS, ids=["short way", "through Quart"])
async def test_a_rebound_name_cannot_open_a_socket(way: tuple[bytes, ...]) -> None:
    """A name that was pointed at this machine is refused, although page and name agree."""
    rebound = upgrade_request("/ws", b"Origin: http://evil.example", *way)
    async with running() as (d, _), await connect(d.lobby.port) as stream:
        await stream.send_all(rebound.replace(b"Host: localhost", b"Host: evil.example"))
        head, _body = await read_head(stream)
        assert head.startswith(b"HTTP/1.1 403")
        assert d.lobby.clients.totals().opened == 0


@pytest.mark.parametrize("way", WAYS, ids=["short way", "through Quart"])
async def test_an_invited_page_opens_a_socket(way: tuple[bytes, ...]) -> None:
    """By its whole origin."""
    async with running(gateway=ALLOWED) as (d, _):
        assert (await shake_hands(d, b"Origin: " + APP.encode(), *way))[0] == 101
        assert (await shake_hands(d, b"Origin: http://app.example", *way))[0] == 403


async def over_http2(port: int, tls: Any, **headers: str | None) -> tuple[str, bytes]:
    """Status and body of a handshake over HTTP/2; the body only if it is refused. None leaves a header out."""
    raw = await connect(port)
    stream = trio.SSLStream(raw, tls, server_hostname="localhost", https_compatible=True)
    http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    http.initiate_connection()
    sent: dict[str, str | None] = {
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":scheme": "https",
        ":path": "/ws",
    }
    sent |= {":authority": "localhost", "sec-websocket-version": "13", **headers}
    pairs = [(name, value) for name, value in sent.items() if value is not None]
    http.send_headers(1, pairs, end_stream=headers.get(":method") == "GET")
    status, body = "", b""
    while True:
        await stream.send_all(http.data_to_send())
        for event in http.receive_data(bytes(await stream.receive_some())):
            if isinstance(event, ResponseReceived):
                status = dict(event.headers)[":status"]
            elif isinstance(event, DataReceived):
                body += event.data
            if status == "200" or isinstance(event, StreamEnded | StreamReset):
                await trio.aclose_forcefully(raw)
                return status, body


async def test_the_same_over_http2(tmp_path: Path) -> None:
    """A foreign page and a foreign name get 403, the own page and a program come in."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    made = make_certificate(tmp_path)
    gateway = Gateway(port=0, tls_certificate=str(made.certificate), tls_key=str(made.key))
    foreign = [{"origin": "https://evil.example"}, {"origin": "http://localhost"}, {":authority": "evil"}]
    own: list[dict[str, str]] = [{}, {"origin": "https://localhost"}]
    async with running(gateway=gateway) as (d, _):
        tls = made.client_context("h2")
        for headers in foreign:
            status, body = await over_http2(d.lobby.port, tls, **headers)
            assert status == "403"
            assert json.loads(body)["key"].startswith("[gateway] ")
        for headers in own:
            assert (await over_http2(d.lobby.port, tls, **headers))[0] == "200"
        plain = {":method": "GET", ":protocol": None}
        status, body = await over_http2(d.lobby.port, tls, **plain)
        assert status == "400"  # HTTP/2 has no Upgrade, and so no 426
        assert "RFC 8441" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/health", "/actors", "/metrics", "/api/v1/stream/X-Y", "/nowhere", "/ws"]
)
async def test_every_path_asks_for_name_and_page(path: str) -> None:
    """403 for a foreign Host and for a foreign Origin, whether the path exists or not."""
    async with running() as (_, http):
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            for method in ("GET", "OPTIONS"):
                answer = await http.request(method, path, headers=headers)
                assert answer.status_code == 403
                assert answer.json()["key"].startswith("[gateway] ")
                assert "access-control-allow-origin" not in answer.headers
        assert (await http.get(path)).status_code != 403


async def test_a_configured_name_is_the_daemons() -> None:
    """With any port; and its page is the daemon's own page."""
    async with running(gateway=Gateway(port=0, hosts=("feed.example",))) as (_, http):
        headers = {"Host": "feed.example:8443", "Origin": "https://feed.example:8443"}
        assert (await http.get("/ready", headers=headers)).status_code == 200


async def test_an_invited_page_may_read_and_ask_before() -> None:
    """CORS: the answer names the page, also an error; a preflight tells methods and headers."""
    async with running(gateway=ALLOWED) as (_, http):
        for path in ("/ready", "/nowhere"):
            answer = await http.get(path, headers={"Origin": APP})
            assert answer.headers["access-control-allow-origin"] == APP
            assert answer.headers["vary"] == "Origin"
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        before = await http.options("/faults", headers=asked)
        assert before.status_code == 200
        assert "POST" in before.headers["access-control-allow-methods"]
        assert "Authorization" in before.headers["access-control-allow-headers"]
        assert "access-control-allow-origin" not in (await http.get("/ready")).headers


async def test_an_invited_page_is_not_the_operator_of_this_machine() -> None:
    """It may be open in the operator's browser: without a token it changes nothing."""
    async with running(gateway=ALLOWED) as (d, http):
        path = "/actors/gateway/herald/restart"
        assert (await http.post(path, headers={"Origin": APP})).status_code == 403
        assert not [e for e in d.events if e.epoch > 1]
    async with running(gateway=ALLOWED, operator=Operator(token="x")) as (_, http):
        headers = {"Origin": APP, "Authorization": "Bearer x"}
        assert (await http.post(path, headers=headers)).status_code == 202


@pytest.mark.parametrize("path", ["/", "/health", "/actors", "/metrics", "/nowhere", "/faults", "/ws"])
async def test_every_answer_protects_its_reader(path: str) -> None:
    """No guessing of types, no frame around it, nothing loaded from elsewhere, nothing kept, no address told."""
    async with running() as (_, http):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


async def test_only_the_pages_own_scripts_and_styles_run() -> None:
    """The policy admits the daemon's own files and nothing inside the page; and the page names only such files."""
    async with running() as (_, http):
        answer = await http.get("/")
        policy = answer.headers["content-security-policy"]
        assert {"script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(policy.split("; "))
        assert "<style" not in answer.text
        assert re.findall(r"<script(?! type=\"module\" src=\"page/)", answer.text) == []
        for path in re.findall(r"(?:src|href)=\"(page/[^\"]+)\"", answer.text):
            assert (await http.get(f"/{path}")).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Connection": "Upgrade"}, {"Upgrade": "websocket"}])
async def test_a_socket_without_an_upgrade_says_what_is_missing(headers: dict[str, str]) -> None:
    """426 with the headers that it wants, and a problem that names the mistake and the usual cause."""
    async with running() as (_, http):
        answer = await http.get("/ws", headers=headers)
        assert answer.status_code == 426
        assert answer.headers["upgrade"].lower() == "websocket"
        assert "upgrade" in answer.headers["connection"].lower()
        assert answer.headers["content-type"] == "application/problem+json"
        detail = answer.json()["detail"]
        assert all(word in detail for word in ("WebSocket endpoint", "Upgrade", "Connection", "proxy"))


async def test_an_upgrade_elsewhere_is_refused_as_such() -> None:
    """A WebSocket to a path that is none: the answer says so."""
    async with running() as (d, _):
        status, problem = await shake_hands(d, path="/health")
        assert status == 400
        assert "no WebSocket endpoint" in problem["detail"]


async def test_below_a_prefix_everything_is_there() -> None:
    """`root_path`: page, API and sockets, on both ways in, and without the prefix for probes."""
    async with running(gateway=Gateway(port=0, root_path="/feed")) as (d, http):
        for path in ("/feed/", "/feed/health", "/feed/actors/cache", "/health", "/"):
            assert (await http.get(path)).status_code == 200
        whole = await http.get("/feed")
        assert (whole.status_code, whole.headers["location"]) == (308, "/feed/")
        assert (await http.get("/feedback")).status_code == 404
        assert (await http.get("/feed/ws")).status_code == 426
        url = d.http.replace("http", "ws")
        async with client(f"{url}/feed/ws") as below, client(f"{url}/ws") as directly:
            assert await below.call("ping") == await directly.call("ping") == "pong"
            assert [type(session._wire) for session in d.lobby.clients] == [SocketWire, SocketWire]
        assert (await shake_hands(d, UNUSUAL, path="/feed/ws"))[0] == 101
        assert (await shake_hands(d, b"Origin: http://evil.example", path="/feed/ws"))[0] == 403


def test_the_ways_are_what_they_are_called() -> None:
    """The unusual header is a doubt of the short way; else two ways of these tests would be one."""
    door = Door([Socket("/ws")])
    assert door.answer(upgrade_request("/ws")) is not None
    assert door.answer(upgrade_request("/ws", UNUSUAL)) is None
