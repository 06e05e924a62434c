"""An upstream behind an HTTP proxy, on real sockets of this machine."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field

from actors.connector import LinkLost
from dataflow.connectors import binance
from dataflow.net.address import parse_proxy
from dataflow.sources.state import LinkState
from dataflow.transports.websocket import WebSocketSource
from simulators import open_binance
from tests.support.waiting import until
from tests.system.daemon import daemon, from_binance


@define(eq=False)
class Proxy:
    """It asks for `secret` if there is one, and gives `answer` to everybody if there is one."""

    secret: str = ""
    answer: bytes = b""
    asked: list[str] = field(factory=list)
    port: int = 0

    async def handle(self, client: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await client.receive_some()
            if not data:
                return
            head += data
        lines = head.decode().split("\r\n")
        self.asked.append(lines[0])
        basic = f"Basic {b64encode(self.secret.encode()).decode()}"
        if self.answer:
            await client.send_all(self.answer)
        elif self.secret and f"Proxy-Authorization: {basic}" not in lines:
            await client.send_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        else:
            await self._connect(client, lines[0].split()[1])

    async def _connect(self, client: trio.SocketStream, target: str) -> None:
        host, _, port = target.rpartition(":")
        upstream = await trio.open_tcp_stream(host, int(port))
        await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with upstream, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass, client, upstream, nursery.cancel_scope)
            nursery.start_soon(self._pass, upstream, client, nursery.cancel_scope)

    async def _pass(self, one: trio.SocketStream, other: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            while data := await one.receive_some():
                await other.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()


@asynccontextmanager
async def proxying(**how: Any) -> AsyncIterator[Proxy]:
    made = Proxy(**how)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, made.handle, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        made.port = listener.socket.getsockname()[1]
        yield made
        nursery.cancel_scope.cancel()


async def test_trades_come_through_a_proxy_with_credentials() -> None:
    """It is asked for host and port of the upstream, and gets its credentials, which are percent-decoded."""
    async with proxying(secret="me:hu@sh") as proxy, open_binance() as exchange:
        sources = from_binance(
            exchange.url, "BTC-USDT", eager=True, proxy=f"http://me:hu%40sh@127.0.0.1:{proxy.port}"
        )
        async with daemon(sources=sources) as d:
            await exchange.wait_subscribed(["BTCUSDT"])
            await until(lambda: d.core.sources["binance"].link is LinkState.CONNECTED)
        assert f"CONNECT 127.0.0.1:{exchange.port} HTTP/1.1" in proxy.asked


async def failure(proxy: str) -> LinkLost:
    """What a source behind this proxy tells when it cannot be connected."""
    settings = binance.Settings(connector="binance", url="ws://127.0.0.1:1/", proxy=proxy)
    source = WebSocketSource("x", settings, partial(binance.Codec, "x", settings))
    with pytest.raises(LinkLost) as caught:
        async with source.connect():
            pass
    return caught.value


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"secret": "me:you"}, "refused with HTTP status 407: Proxy Authentication Required"),
        ({"answer": b"HTTP/1.1 502 Bad Gateway\r\n\r\n"}, "refused with HTTP status 502: Bad Gateway"),
        ({"answer": b"SSH-2.0-nothing\r\n\r\n"}, "does not speak HTTP"),
        ({"answer": b"HTTP/1.1 200 OK\r\n\r\nmore"}, "sent more than its answer"),
        ({"answer": b"HTTP/1.1 403 \x1b[2J\r\n\r\n"}, None),
        ({"answer": b"HTTP/1.1 200 " + b"x" * 20_000}, "does not speak HTTP"),
    ],
)
async def test_a_proxy_that_refuses_is_told_by_name(how: dict[str, Any], told: str | None) -> None:
    """And never its password."""
    async with proxying(**how) as proxy:
        lost = await failure(f"http://me:hush@127.0.0.1:{proxy.port}")
        assert f"the proxy 127.0.0.1:{proxy.port}" in str(lost)
        assert (told or "") in str(lost)
        assert "hush" not in str(lost)
        assert str(lost).isprintable()


async def test_a_proxy_that_asks_to_wait() -> None:
    """As an upstream does."""
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n"
    async with proxying(answer=answer) as proxy:
        lost = await failure(f"http://127.0.0.1:{proxy.port}")
        assert lost.at_least == 7


async def test_a_proxy_that_is_not_there_is_told_by_name() -> None:
    """Not as if the upstream were away."""
    lost = await failure("http://127.0.0.1:1")
    assert str(lost) == "cannot connect to the proxy 127.0.0.1:1: Connection refused"


@pytest.mark.parametrize(
    "text",
    [
        "proxy:3128",
        "https://host:1",
        "http://",
        "http://h:99999",
        "http://h/path",
        "http://h h",
        "socks5://h",
    ],
)
def test_an_address_that_is_none_of_a_proxy(text: str) -> None:
    """The check of a configuration finds it."""
    with pytest.raises(ValueError, match="must"):
        parse_proxy(text)


def test_the_address_of_a_proxy() -> None:
    """The usual port of HTTP, an IPv6 address, credentials that are not shown."""
    assert str(parse_proxy("http://proxy.example.com")) == "proxy.example.com"
    found = parse_proxy("http://me:hush@[::1]:3128/")
    assert (str(found), found.authorization) == ("[::1]:3128", "Basic bWU6aHVzaA==")
    assert "hush" not in repr(found)
