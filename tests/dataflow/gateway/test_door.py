"""The short way in answers proper handshakes only, and as the libraries would; all else is the server's."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from quart import websocket
from wsproto import ConnectionType
from wsproto.events import AcceptConnection, Request
from wsproto.handshake import H11Handshake

from dataflow.gateway.door import MAX_HEAD, Door
from dataflow.gateway.wires import SocketWire
from tests.dataflow.gateway.wires_client import (
    KEY,
    connect,
    get,
    read_head,
    serving,
    upgrade_request,
    websocket_app,
)

DOOR = Door("/ws")
HEADERS = {
    b"Host": b"localhost:8080",
    b"Upgrade": b"websocket",
    b"Connection": b"keep-alive, Upgrade",
    b"Sec-WebSocket-Key": KEY,
    b"Sec-WebSocket-Version": b"13",
    b"Origin": b"http://localhost",
}


def request(headers: dict[bytes, bytes], line: bytes = b"GET /ws HTTP/1.1") -> bytes:
    return b"".join(part + b"\r\n" for part in (line, *(b": ".join(each) for each in headers.items()), b""))


def by_the_libraries(head: bytes) -> bytes | None:
    handshake = H11Handshake(ConnectionType.SERVER)
    handshake.receive_data(head)
    [asked] = handshake.events()
    return handshake.send(AcceptConnection()) if isinstance(asked, Request) else None


def test_proper_handshake_is_answered_as_the_libraries_do() -> None:
    """The response is theirs to the byte, and what came behind the handshake is handed on."""
    head = request(HEADERS)
    assert DOOR.answer(head + b"early") == (by_the_libraries(head), b"early")


@pytest.mark.parametrize("line", [b"GET /ws?a=1 HTTP/1.1"])
def test_query_is_not_looked_at(line: bytes) -> None:
    assert DOOR.answer(request(HEADERS, line)) is not None


@pytest.mark.parametrize(
    "line",
    [
        b"GET /wsx HTTP/1.1",
        b"GET /ws HTTP/1.0",
        b"POST /ws HTTP/1.1",
        b"GET /ws/ HTTP/1.1",
        b"GET / HTTP/1.1",
    ],
)
def test_other_requests_are_left_alone(line: bytes) -> None:
    """Another path, method or version is for the HTTP server."""
    assert DOOR.answer(request(HEADERS, line)) is None


@pytest.mark.parametrize("name", [name for name in HEADERS if name != b"Origin"])
def test_nothing_may_be_missing_or_said_twice(name: bytes) -> None:
    """Without one of the five headers, or with two of it, there is doubt."""
    assert DOOR.answer(request({key: value for key, value in HEADERS.items() if key != name})) is None
    assert DOOR.answer(request({name.lower(): HEADERS[name], **HEADERS})) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Upgrade", b"h2c"),
        (b"Connection", b"keep-alive"),
        (b"Sec-WebSocket-Version", b"12"),
        (b"Sec-WebSocket-Key", b"short"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=!"),
        (b"Host", b"a b"),
        (b"Content-Length", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Expect", b"100-continue"),
        (b"X", b"\xff"),
        (b"X", b"a\r\n folded"),
        (b"X", b"a\nY: b"),
        (b"X ", b"a"),
        (b"", b"a"),
    ],
)
def test_anything_unusual_is_a_doubt(name: bytes, value: bytes) -> None:
    assert DOOR.answer(request({**HEADERS, name: value})) is None


def test_head_must_be_whole_and_not_too_long() -> None:
    """A handshake in pieces is the server's, and so is one without end."""
    head = request(HEADERS)
    assert all(DOOR.answer(head[:end]) is None for end in range(len(head)))
    assert DOOR.answer(request({**HEADERS, b"X": b"x" * MAX_HEAD})) is None


PARTS = (b"\r\n", b"\n", b" ", b"\t", b":", b",", b"?", b"=", b"\x00", b"\x80", b"x", b"GET", b"Upgrade")
PARTS += (b"websocket", b"Content-Length: 1\r\n", b"Cookie: a=b\r\n", b"Sec-WebSocket-Protocol: a\r\n")
parts = st.sampled_from(PARTS)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 3), parts), max_size=3))
def test_what_is_answered_the_libraries_accept_too(edits: list[tuple[int, int, bytes]]) -> None:
    """However a handshake is bent: an answer means that h11 and wsproto give the same."""
    head = request(HEADERS)
    for place, length, part in edits:
        place %= len(head)
        head = head[:place] + part + head[place + length :]
    answer = DOOR.answer(head)
    if answer is not None:
        response, early = answer
        assert by_the_libraries(head[: len(head) - len(early)]) == response


async def test_door_and_application_serve_side_by_side() -> None:
    """Proper handshakes go to the handler of wires; every other request, refusals too, to the application."""
    wires = list[SocketWire]()

    async def on_websocket(wire: SocketWire) -> None:
        wires.append(wire)
        await wire.close(4000, "seen")

    async def by_the_application() -> None:
        await websocket.close(4001)

    with trio.fail_after(120):
        async with serving(websocket_app(by_the_application), on_websocket=on_websocket) as running:
            client = await running.client()
            assert (await client.leave()).code == 4000
            assert running.stats.detached == len(wires) == 1
            for bad in (upgrade_request("/nowhere"), upgrade_request().replace(b"13", b"12")):
                async with await connect(running.port) as stream:
                    await stream.send_all(bad)
                    head, _ = await read_head(stream)
                    assert head.split()[1] in (b"404", b"400"), head
            assert await get(running.port) == b"here"
            assert running.stats.detached == 1
            assert not running.reports


async def test_handshake_in_pieces_is_served_by_the_application() -> None:
    """Whoever sends its request byte by byte gets in all the same."""
    with trio.fail_after(120):

        async def never(wire: SocketWire) -> None:
            raise AssertionError

        async def say() -> None:
            await websocket.send("hello")

        async with (
            serving(websocket_app(say), on_websocket=never) as running,
            await connect(running.port) as stream,
        ):
            for byte in upgrade_request():
                await stream.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            head, _ = await read_head(stream)
            assert head.startswith(b"HTTP/1.1 101")
