"""The short way in answers proper handshakes only, as the libraries would. All others go to the HTTP server."""

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

from dataflow.server.handshake import MAX_HEAD, Door, Handshake, Socket
from dataflow.server.socket_wire import SocketWire
from tests.dataflow.server.wires_client import (
    KEY,
    connect,
    get,
    read_head,
    serving,
    upgrade_request,
    websocket_app,
)

SOCKET = Socket("/ws", subprotocols=("v12.stomp", "a"))
DOOR = Door([SOCKET, Socket("/other")])
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
    if not isinstance(asked, Request):
        return None
    return handshake.send(AcceptConnection(subprotocol=SOCKET.choose(asked.subprotocols)))


def test_proper_handshake_is_answered_as_the_libraries_do() -> None:
    """The response equals theirs to the byte, and bytes behind the handshake are handed on."""
    head = request(HEADERS)
    opening = DOOR.answer(head + b"early")
    assert opening is not None
    assert (opening.response, opening.early) == (by_the_libraries(head), b"early")


def test_the_introduction_is_handed_on() -> None:
    """Path, query, headers, address and encryption: a handler knows its client by them."""
    head = request({**HEADERS, b"Authorization": b"Bearer x", b"Cookie": b"a=1"}, b"GET /ws?a=1&b HTTP/1.1")
    opening = DOOR.answer(head, "10.0.0.1:5", True)
    assert opening is not None
    client = opening.handshake
    assert (client.path, client.query, client.peer, client.encrypted) == ("/ws", "a=1&b", "10.0.0.1:5", True)
    assert client.header("authorization") == "Bearer x"
    assert client.header("origin") == "http://localhost"
    assert client.header("x-forwarded-for") is None


def test_several_headers_of_a_name_are_one_list() -> None:
    """As HTTP has it."""
    client = Handshake("/", "", ((b"Via", b"a"), (b"via", b"b"), (b"X", b"c")), "", False)
    assert client.header("via") == "a, b"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (b"v10.stomp, v12.stomp,a", "v12.stomp"),
        (b"a, v12.stomp", "v12.stomp"),
        (b"b, a", "a"),
        (b"b", None),
        (b"", None),
    ],
)
def test_our_best_subprotocol_that_both_know_is_agreed_on(offered: bytes, chosen: str | None) -> None:
    """It stands in the answer and in the handshake; without a common one, none does."""
    head = request({**HEADERS, b"Sec-WebSocket-Protocol": offered})
    opening = DOOR.answer(head)
    assert opening is not None
    assert opening.handshake.subprotocol == chosen
    assert (b"Sec-WebSocket-Protocol" in opening.response) is (chosen is not None)
    if offered:
        assert opening.response == by_the_libraries(head)


def test_each_path_has_subprotocols_of_its_own() -> None:
    """In the table of sockets, the subprotocols of one path do not matter for another."""
    opening = DOOR.answer(request({**HEADERS, b"Sec-WebSocket-Protocol": b"a"}, b"GET /other HTTP/1.1"))
    assert opening is not None
    assert (opening.handshake.path, opening.handshake.subprotocol) == ("/other", None)


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
def test_every_answered_handshake_is_accepted_by_the_libraries(edits: list[tuple[int, int, bytes]]) -> None:
    """However a handshake is bent: an answer means that h11 and wsproto give the same."""
    head = request(HEADERS)
    for place, length, part in edits:
        place %= len(head)
        head = head[:place] + part + head[place + length :]
    answer = DOOR.answer(head)
    if answer is not None:
        assert by_the_libraries(head[: len(head) - len(answer.early)]) == answer.response


async def test_door_and_application_serve_side_by_side() -> None:
    """Proper handshakes go to the handler of wires, improper ones are refused, and all the rest is the
    application's."""
    wires = list[SocketWire]()

    async def on_websocket(wire: SocketWire, client: Handshake) -> None:
        wires.append(wire)
        await wire.close_with(4000, "seen")

    async def by_the_application() -> None:
        await websocket.close(4001)

    with trio.fail_after(120):
        async with serving(
            websocket_app(by_the_application), sockets={Socket("/ws"): on_websocket}
        ) as running:
            client = await running.client()
            assert (await client.leave()).code == 4000
            assert running.stats.detached == len(wires) == 1
            for bad, status in (
                (upgrade_request("/nowhere"), b"404"),
                (upgrade_request().replace(b"13", b"12"), b"426"),
            ):
                async with await connect(running.port) as stream:
                    await stream.send_all(bad)
                    head, _ = await read_head(stream)
                    assert head.split()[1] == status, head
            assert await get(running.port) == b"here"
            assert running.stats.detached == 1
            assert not running.reports


async def test_handshake_in_pieces_is_served_by_the_application() -> None:
    """A client that sends its request byte by byte gets in all the same."""
    with trio.fail_after(120):

        async def never(wire: SocketWire, client: Handshake) -> None:
            raise AssertionError

        async def say() -> None:
            await websocket.send("hello")

        async with (
            serving(websocket_app(say), sockets={Socket("/ws"): never}) as running,
            await connect(running.port) as stream,
        ):
            for byte in upgrade_request():
                await stream.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            head, _ = await read_head(stream)
            assert head.startswith(b"HTTP/1.1 101")
