"""Doubtful heads of HTTP/1.1 are refused, and nothing is upgraded but WebSockets."""

from __future__ import annotations

import pytest
import trio

from tests.dataflow.server.wires_client import connect, read_to_end, serving, websocket_app

SECOND = b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"


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


async def _never() -> None:
    raise AssertionError
