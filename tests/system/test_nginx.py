"""The daemon behind a real nginx, configured as config/README.md says: TLS, WebSockets, a prefix, and who asks."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import tomllib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from attrs import define
from httpx_sse import EventSource, aconnect_sse
from playwright.sync_api import Page, expect
from trio_websocket import ConnectionRejected, wrap_client_stream

from dataflow.domain import Topic
from dataflow.gateway.identity import Principal
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Gateway, Operator
from simulators import Exchange, Trade, open_binance
from supervisors import leaves
from tests.support.browser import Heard, browse
from tests.support.certificates import Certificate, make_certificate
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, daemon, from_binance

STRANGER = "127.0.0.2"  # not the address of the proxy
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@define
class Stage:
    daemon: Daemon
    exchange: Exchange
    port: int
    tls: ssl.SSLContext
    http: httpx.AsyncClient
    addresses: list[str]  # of the clients that opened a session, as they are believed

    @asynccontextmanager
    async def client(self, path: str = "/feed/ws", **headers: str) -> AsyncIterator[Client]:
        """A WebSocket client of the proxy, at another address than the proxy's."""
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        raw = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=STRANGER)
        stream = trio.SSLStream(raw, self.tls, server_hostname="localhost", https_compatible=True)
        async with raw, trio.open_nursery() as nursery:
            host = f"localhost:{self.port}"
            made = Client(await wrap_client_stream(nursery, stream, host, path, extra_headers=sent))
            nursery.start_soon(made.listen)
            yield made
            nursery.cancel_scope.cancel()


def documented(checkout: Path, language: str) -> str:
    """The only block of this language in the section on nginx."""
    readme = (checkout / "config" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("### Behind nginx")[2].partition("\n## ")[0]
    [block] = re.findall(rf"```{language}\n(.*?)```", section, re.S)
    return str(block)


def configuration(server: str, folder: Path, made: Certificate, port: int, upstream: str) -> str:
    """The documented server, at home in `folder` and on free ports."""
    changes = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/fullchain.pem": str(made.certificate),
        "/etc/nginx/privkey.pem": str(made.key),
        "server_name feed.example.com": "server_name localhost",
        "http://127.0.0.1:8080/": f"{upstream}/",
    }
    for old, new in changes.items():
        assert server.count(old) == 1, old
        server = server.replace(old, new)
    folders = "".join(
        f"{each}_temp_path {folder / each};\n"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    forgetful = f"location /forgetful/ {{ proxy_pass {upstream}/; }}"
    server = server.replace("location /feed/", f"{forgetful}\n    location /feed/", 1)
    user = "user root;\n" if os.geteuid() == 0 else ""  # who else could enter a test's folder
    main = f"{user}daemon off;\npid {folder / 'pid'};\nerror_log stderr;\nevents {{}}\n"
    return f"{main}http {{\naccess_log off;\n{folders}{server}\n}}\n"


@asynccontextmanager
async def nginx(folder: Path, listener: socket.socket, text: str) -> AsyncIterator[None]:
    """nginx takes over `listener`, as after an upgrade of itself: so it has its port before it has started."""
    file = folder / "nginx.conf"
    file.write_text(text)
    command = [str(NGINX), "-p", str(folder), "-c", str(file), "-e", "stderr"]
    environ = os.environ | {"NGINX": f"{listener.fileno()};"}
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, env=environ, pass_fds=[listener.fileno()], check=False)
        await nursery.start(run)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stage(checkout: Path, folder: Path, operator: Operator | None = None) -> AsyncIterator[Stage]:
    """Everything as documented, but for the operator, and the name: localhost."""
    if NGINX is None or shutil.which("openssl") is None:
        pytest.skip("needs nginx and the openssl command")
    made = make_certificate(folder)
    tls = made.client_context()
    written = tomllib.loads(documented(checkout, "toml"))
    assert written["gateway"].pop("hosts") == ["feed.example.com"]
    gateway = Gateway(port=0, **written["gateway"])
    with trio.fail_after(120), socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with (
            open_binance() as exchange,
            daemon(
                sources=from_binance(exchange.url, "BTC-USDT", eager=True),
                gateway=gateway,
                operator=operator or Operator(**written["operator"] | {"port": 0}),
            ) as d,
            httpx.AsyncClient(
                base_url=f"https://localhost:{port}", verify=tls, http2=True, timeout=None
            ) as http,
        ):
            await d.until_carried("BTC-USDT")
            addresses: list[str] = []
            identify = d.hall.identify

            def listen(client: Handshake) -> Principal:
                addresses.append(d.hall.client_address(client))
                return identify(client)

            d.hall.identify = listen
            text = configuration(documented(checkout, "nginx"), folder, made, port, d.http)
            async with nginx(folder, listener, text):
                yield Stage(d, exchange, port, tls, http, addresses)


async def refused(client: AbstractAsyncContextManager[Client]) -> int:
    """The status with which a WebSocket client is refused."""
    status = 0
    try:
        async with client:
            pass
    except* ConnectionRejected as errors:
        [rejected] = leaves(errors)
        assert isinstance(rejected, ConnectionRejected)
        status = rejected.status_code
    return status


async def test_trades_travel_through_the_proxy(tmp_path: Path, checkout: Path) -> None:
    """Over TLS and below the prefix, at the documented address; each trade when it comes, on either protocol."""
    heard: list[str] = []

    async def hear(stream: EventSource) -> None:
        async for event in stream.aiter_sse():
            heard.append(event.event)

    async with stage(checkout, tmp_path) as s, s.client() as listener, trio.open_nursery() as nursery:
        await listener.call("subscribe", symbol="BTC-USDT")
        async with aconnect_sse(s.http, "GET", "/feed/api/v1/stream/BTC-USDT") as stream:
            nursery.start_soon(hear, stream)
            await until(lambda: s.daemon.core.topics.subscribers.get(Topic("trades", "BTC-USDT")) == 2)
            for n in (1, 2):
                at = 1_700_000_000_000_000 + n
                sold = Trade(id=n, symbol="BTCUSDT", side="sell", price="2.5", qty="1", timestamp_us=at)
                await s.exchange.publish(sold)
                await until(lambda n=n: heard == ["trade"] * n)
                await listener.until(lambda n=n: len(listener.trades()) == n)
            nursery.cancel_scope.cancel()


async def test_the_page_and_its_addresses_are_below_the_prefix(tmp_path: Path, checkout: Path) -> None:
    """nginx completes the address without its last slash; what the page asks for is there."""
    async with stage(checkout, tmp_path) as s:
        assert (await s.http.get("/feed")).headers["location"].endswith("/feed/")
        page = await s.http.get("/feed/")
        assert page.http_version == "HTTP/2"
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert (await s.http.get("/feed/ready")).status_code == 200
        assert (await s.http.get("/ready")).status_code == 404


async def test_a_browser_shows_the_page_below_the_prefix(tmp_path: Path, checkout: Path) -> None:
    """All symbols, and one with its chart: all files and the socket are found; nothing is asked for elsewhere."""
    async with stage(checkout, tmp_path) as s:
        home = f"https://localhost:{s.port}/feed/"

        def visit(page: Page, heard: Heard) -> Heard:
            page.goto(home)
            page.get_by_role("link", name="BTC-USDT").click()
            expect(page.locator(".legend")).to_have_text("No candle yet.")
            expect(page.locator("#link")).to_have_text("connected")
            return heard

        heard = await browse(visit, ignore_https_errors=True)
        assert heard.complaints == []
        assert [url for url in heard.urls if not url.startswith((home, "data:"))] == []


async def test_the_page_itself_comes_in_and_a_foreign_one_does_not(tmp_path: Path, checkout: Path) -> None:
    """The browser's Host reaches the daemon, so that it knows its own page."""
    async with stage(checkout, tmp_path) as s:
        async with s.client(origin=f"https://localhost:{s.port}") as page:
            assert await page.call("ping") == "pong"
        assert await refused(s.client(origin="https://evil.example")) == 403


async def test_the_operators_routes_do_not_leave_the_machine(tmp_path: Path, checkout: Path) -> None:
    """With a listener of its own there is nothing of it behind the proxy."""
    async with stage(checkout, tmp_path) as s:
        for path in ("actors", "metrics", "faults"):
            assert (await s.http.get(f"/feed/{path}")).status_code == 404
        assert (await s.http.post("/feed/actors/gateway/herald/restart")).status_code == 404


async def test_a_stranger_behind_the_proxy_is_not_the_operator(tmp_path: Path, checkout: Path) -> None:
    """Also without a listener and without a token: nginx says that it passed the request on."""
    async with stage(checkout, tmp_path, Operator()) as s:
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}):
            answer = await s.http.post("/feed/actors/gateway/herald/restart", headers=headers)
            assert answer.status_code == 403
        assert not [e for e in s.daemon.events if e.epoch > 1]


async def test_the_address_of_a_client_is_its_own(tmp_path: Path, checkout: Path) -> None:
    """Not the proxy's, and not what the client invents."""
    async with stage(checkout, tmp_path) as s:
        for headers in ({}, {"X-Forwarded-For": "203.0.113.5"}, {"Forwarded": "for=203.0.113.5"}):
            async with s.client(**headers) as client:
                assert await client.call("ping") == "pong"
        assert s.addresses == [STRANGER] * 3


async def test_a_proxy_that_forgets_the_upgrade_is_told(tmp_path: Path, checkout: Path) -> None:
    """The most frequent mistake: the answer names it, and reaches the client through the proxy."""
    async with stage(checkout, tmp_path) as s:
        assert await refused(s.client("/forgetful/ws")) == 426
