"""A way through an HTTP proxy: CONNECT, and from then on the bytes of the upstream (RFC 9110, section 9.3.6).

Rules of this file. The proxy sees the host and the port of the upstream and its own credentials, and nothing
else. Whatever goes wrong before the tunnel stands is told as the proxy's, by its address. It must send
nothing of its own behind its answer: an upstream does not speak first.
"""

from __future__ import annotations

import re
import time
from typing import Final

import h11
import trio

from .address import Address, with_port
from .refusal import retry_after
from .stream import SocketStream, connect

_HEAD_BYTES: Final = 1 << 14  # of the proxy's answer
_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_UNFIT: Final = re.compile(r"[^\x20-\x7e]")


class ProxyFailed(Exception):
    """There is no tunnel. The text tells why, and names the proxy. `at_least`: seconds that it asks for."""

    def __init__(self, words: str, at_least: float = 0.0) -> None:
        super().__init__(words)
        self.at_least = at_least


async def tunnel(proxy: Address, host: str, port: int) -> SocketStream:
    """A stream to `host` and `port` through `proxy`. Raises ProxyFailed, and OSError without the proxy."""
    stream = await connect(proxy.host, proxy.port)
    try:
        await _ask(proxy, stream, with_port(host, port))
    except BaseException as error:
        stream.close()
        if isinstance(error, _BROKEN):
            raise ProxyFailed(f"the proxy {proxy} hung up") from error
        raise
    return stream


async def _ask(proxy: Address, stream: SocketStream, target: str) -> None:
    headers = [("Host", target)]
    if proxy.authorization is not None:
        headers.append(("Proxy-Authorization", proxy.authorization))
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
    request = connection.send(h11.Request(method="CONNECT", target=target, headers=headers))
    assert request is not None
    await stream.send_all(request)
    answer = await _answer(proxy, connection, stream)
    if not 200 <= answer.status_code < 300:
        words = _UNFIT.sub("?", answer.reason.decode("latin-1"))[:80]
        wait = retry_after(answer.status_code, answer.headers, time.time())
        told = f"the proxy {proxy} refused with HTTP status {answer.status_code}"
        raise ProxyFailed(f"{told}: {words}" if words else told, wait)
    if connection.trailing_data[0]:
        raise ProxyFailed(f"the proxy {proxy} sent more than its answer")


async def _answer(proxy: Address, connection: h11.Connection, stream: SocketStream) -> h11.Response:
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                data = await stream.receive_some()
                if not data:
                    raise ProxyFailed(f"the proxy {proxy} hung up")
                connection.receive_data(data)
    except h11.RemoteProtocolError:
        raise ProxyFailed(f"the proxy {proxy} does not speak HTTP") from None
