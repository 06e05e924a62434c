"""One conformance suite over all lanes that a session may be on.

They differ in how a client came in, and in what it is connected by:
door, door-tls: the handshake of `door`, on a plain socket and over TLS; what the daemon's clients meet;
socket, tls: an ASGI handler that detaches;
asgi, http2: a handler that stays with the HTTP server, over HTTP/1.1 and over TLS and HTTP/2;
door-deflate, tls-deflate: as door and tls, for a client that agreed on compressed messages, and compresses.
"""

from __future__ import annotations

import logging
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from attrs import define
from quart import websocket
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from actors.session import Ending, WireClosed
from dataflow.gateway.certificates import certified_context
from dataflow.server.asgi_wire import AsgiWire
from dataflow.server.handshake import Messages, Socket
from dataflow.server.socket_wire import SocketWire
from dataflow.server.take_over import take_over
from tests.dataflow.server.wires_client import (
    Client,
    Running,
    connect,
    get,
    serving,
    upgrade_request,
    websocket_app,
)
from tests.support.certificates import Certificate
from tests.support.waiting import until, until_deadline_within, until_delivered

logging.getLogger("quart").setLevel(logging.CRITICAL)

LIMIT = 1000  # bytes of a message
NOISE = b64encode(Random(1).randbytes(225_000))  # 300,000 bytes that hardly shrink
Wire = Any  # either; their payloads differ


LANES = ("door", "door-tls", "socket", "tls", "asgi", "http2", "door-deflate", "tls-deflate")


@define
class Lane:
    """Where the wire runs."""

    name: str
    certificate: Certificate | None = None

    @property
    def is_detached(self) -> bool:
        return self.name not in ("asgi", "http2")

    @property
    def deflates(self) -> bool:
        return self.name.endswith("deflate")

    def server_options(self) -> dict[str, Any]:
        if self.certificate is None:
            return {"deflate": True}
        tls = certified_context(self.certificate.certificate, self.certificate.key)
        return {"deflate": True, "tls": tls}

    def client_options(self) -> dict[str, Any]:
        protocol = "h2" if self.name == "http2" else "http/1.1"
        return {"tls": self.client_context(protocol), "deflate": self.deflates}

    def client_context(self, protocol: str) -> ssl.SSLContext | None:
        return None if self.certificate is None else self.certificate.client_context(protocol)

    @asynccontextmanager
    async def serving(
        self,
        on_wire: Callable[[Wire], Awaitable[None]],
        *,
        messages: Messages = Messages.TEXT,
        **options: Any,
    ) -> AsyncIterator[Running]:
        """A server that gives every wire to `on_wire`. Its clients speak `messages`."""
        spoken = Socket("/ws", messages=messages)

        async def handler() -> None:
            if self.name == "asgi":
                await websocket.accept()  # too late to detach
            async with take_over(websocket, spoken, max_message_bytes=LIMIT, close_within=2) as wire:
                await on_wire(wire)

        options = {"max_message_bytes": LIMIT, "graceful_seconds": 1, **self.server_options(), **options}
        if self.name.startswith("door"):
            options["sockets"] = {spoken: lambda wire, _client: on_wire(wire)}
        async with serving(websocket_app(handler), **options) as running:
            yield running


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> Lane:
    name = str(request.param)
    encrypted = name in ("door-tls", "tls", "http2", "tls-deflate")
    return Lane(name, request.getfixturevalue("certificate") if encrypted else None)


@asynccontextmanager
async def session(
    lane: Lane, *, messages: Messages = Messages.TEXT, **client_options: Any
) -> AsyncIterator[tuple[Wire, Client, Running]]:
    """A wire whose handler has handed it over to this task, and its client."""
    handed_over, taken = trio.open_memory_channel[Wire](1)
    async with lane.serving(handed_over.send, messages=messages) as running:
        client = await running.client(**lane.client_options(), **client_options)
        wire = await taken.receive()
        assert isinstance(wire, SocketWire if lane.is_detached else AsgiWire)
        try:
            yield wire, client, running
        finally:
            wire.abort()


async def send(wire: Wire, *texts: bytes) -> None:
    """Write like a session: first without waiting, then the rest."""
    rest = wire.write_nowait(wire.pack(texts))
    if rest is not None:
        await wire.write([rest])


async def end_of(wire: Wire) -> WireClosed:
    """Receive until the wire ends; returns the end."""
    try:
        while True:
            await wire.receive()
    except WireClosed as closed:
        return closed


async def fill(wire: Wire) -> WireClosed:
    """Write more than any client takes; how the wire ends."""
    try:
        while True:
            await wire.write([wire.pack([NOISE[:100_000]])] * 10)
    except WireClosed as closed:
        return closed


async def collect(ends: list[int], how: Callable[[Wire], Awaitable[WireClosed]], wire: Wire) -> None:
    ends.append((await how(wire)).code)


async def test_messages_arrive_in_order_both_ways(lane: Lane) -> None:
    """Messages are read in the order in which they were written, alone or packed, in both directions."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            for number in range(50):
                await send(wire, *(b"%d" % (3 * number + k) for k in range(3)))
            assert [await client.text() for _ in range(150)] == [str(number) for number in range(150)]
            await client.say(*map(str, range(5)))
            assert [await wire.receive() for _ in range(5)] == ["0", "1", "2", "3", "4"]


async def test_peer_is_the_clients_address(lane: Lane) -> None:
    """`peer` names host and port of the other end."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            host, port = client.raw.socket.getsockname()
            assert wire.peer == f"{host}:{port}"


async def test_payload_is_shared_by_wires_of_a_kind(lane: Lane) -> None:
    """One packed payload may be written to many wires, and again."""
    with trio.fail_after(120):
        async with session(lane) as (first, one, _), session(lane) as (second, other, _):
            payload = first.pack([b"a", b"b"])
            for wire in (first, second, first):
                await wire.write([payload])
            assert [await one.text() for _ in range(4)] == ["a", "b", "a", "b"]
            assert [await other.text() for _ in range(2)] == ["a", "b"]


async def test_fragments_are_one_message_and_pings_between_are_answered(lane: Lane) -> None:
    """A message in three frames with a ping in between is one message, and the ping gets its pong."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            await client.send(
                TextMessage(data="one ", message_finished=False),
                Ping(payload=b"now"),
                TextMessage(data="two ", message_finished=False),
                TextMessage(data="three"),
            )
            assert await wire.receive() == "one two three"
            assert await client.event() == Pong(payload=b"now")


async def test_ping_and_heard(lane: Lane, mock_clock: MockClock) -> None:
    """A ping reaches the client, and its pong counts as a sign of life."""
    async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
        nursery.start_soon(end_of, wire)
        before = wire.heard
        mock_clock.jump(10)
        await wire.ping()
        ping = await client.event()
        assert isinstance(ping, Ping)
        assert wire.heard == before
        await client.send(ping.response())
        while wire.heard == before:
            await wait_all_tasks_blocked()
        assert wire.heard == before + 10
        wire.abort()


async def test_peers_close_is_answered_and_ends_the_wire(lane: Lane) -> None:
    """A client that closes gets its close frame back and then the end of the connection."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            await client.say("last")
            assert await wire.receive() == "last"
            await client.send(CloseConnection(code=4000, reason="enough"))
            closed = await end_of(wire)
            assert (closed.code, closed.reason) == (4000, "enough")
            answer = await client.event()
            assert isinstance(answer, CloseConnection)
            assert answer.code == 4000
            assert await client.event() is None
            with pytest.raises(WireClosed):
                await wire.write([wire.pack([b"too late"])])
            payload = wire.pack([b"too late"])
            assert wire.write_nowait(payload) is payload


async def test_own_close_waits_for_the_clients(lane: Lane) -> None:
    """`close` sends code and reason, and returns once the client has answered."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await send(wire, b"goodbye")
            nursery.start_soon(wire.close_with, 1001, "server going away")
            assert await client.text() == "goodbye"
            close = await client.closed()
            assert (close.code, close.reason) == (1001, "server going away")
            assert await client.event() is None
        assert (await end_of(wire)).code == 1001


async def test_close_ends_a_task_that_receives(lane: Lane) -> None:
    """A task that waits for the next message learns of a close by another task."""
    ends = list[int]()
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            nursery.start_soon(collect, ends, end_of, wire)
            await wait_all_tasks_blocked()
            nursery.start_soon(wire.close_with, 1008, "slow client")
            assert (await client.closed()).code == 1008
    assert ends == [1008]


async def test_close_does_not_wait_for_ever(lane: Lane, mock_clock: MockClock) -> None:
    """A client that never answers a close frame holds it for `close_within`, and not longer."""
    ends = list[int]()
    async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
        nursery.start_soon(collect, ends, end_of, wire)
        await wait_all_tasks_blocked()
        nursery.start_soon(wire.close_with, 1001, "server going away")
        assert isinstance(await client.event(), CloseConnection)
        await until(lambda: ends)
        await until_deadline_within(2)
        assert ends == [1001]  # the receiver is told at once
        assert nursery.child_tasks
        mock_clock.jump(2.1)
        assert await client.event() is None


async def test_close_of_what_has_ended_does_nothing(lane: Lane) -> None:
    """After a close, an abort or a vanished client, `close` and `abort` are quiet."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            client.vanish()
            assert (await end_of(wire)).code == 1006
            await wire.close_with(1000, "")
            wire.abort()
            await wire.close_with(1000, "")
            await wire.ping()
            assert (await end_of(wire)).code == 1006


@pytest.mark.parametrize("fragments", [1, 3])
async def test_message_too_long_closes_with_1009(lane: Lane, fragments: int) -> None:
    """A message of more than the limit ends the wire, and the client is told why."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await client.say("é" * (LIMIT // 2))
            assert len(await wire.receive()) == LIMIT // 2
            for number in range(1, fragments + 1):
                await client.send(TextMessage(data="é" * LIMIT, message_finished=number == fragments))
            nursery.start_soon(client.leave)
            await _assert_fault(wire, 1009)


async def test_tail_of_a_message_too_long_is_no_message(lane: Lane) -> None:
    """Of a message that was refused nothing is delivered, though its end would pass for a short one."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await client.send(TextMessage(data="x" * 2 * LIMIT, message_finished=False))
            await wait_all_tasks_blocked()
            await client.send(TextMessage(data="tail"))
            await wait_all_tasks_blocked()
            nursery.start_soon(client.leave)
            with pytest.raises(WireClosed, match="1009"):
                await wire.receive()


async def test_long_message_in_few_characters_closes_with_1009(lane: Lane) -> None:
    """The limit is in bytes, also where a server counts characters."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await client.say("é" * (LIMIT - 1))
            nursery.start_soon(end_of, wire)
            assert (await client.leave()).code == 1009


@pytest.mark.parametrize("data", [b"x", b""])
async def test_binary_message_closes_with_1003(lane: Lane, data: bytes) -> None:
    """The service speaks text; an empty binary message is one, too."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await client.send(BytesMessage(data=data))
            nursery.start_soon(end_of, wire)
            close = await client.leave()
            assert (close.code, close.reason) == (1003, "text messages only")
        await _assert_fault(wire, 1003)


@pytest.mark.parametrize("data", [b"\xff\0", b""])
async def test_binary_message_is_heard_where_it_is_spoken(lane: Lane, data: bytes) -> None:
    """As bytes, beside text; an answer of the same kind comes back."""
    with trio.fail_after(120):
        async with session(lane, messages=Messages.BINARY) as (wire, client, _):
            await client.send(BytesMessage(data=data))
            await client.say("text")
            assert [await wire.receive(), await wire.receive()] == [data, "text"]
            await send(wire, b"\xfe")
            assert await client.event() == BytesMessage(data=b"\xfe")


async def test_a_wire_for_either_kind_turns_binary(lane: Lane) -> None:
    """It hears both kinds all the time. It sends text at first, and binary messages from the turn on."""
    with trio.fail_after(120):
        async with session(lane, messages=Messages.EITHER) as (wire, client, _):
            await client.send(BytesMessage(data=b"\xff"))
            assert await wire.receive() == b"\xff"
            await send(wire, b"words")
            assert await client.event() == TextMessage(data="words")
            wire.turn_binary()
            await client.say("text")
            assert await wire.receive() == "text"
            await send(wire, b"\xfe")
            assert await client.event() == BytesMessage(data=b"\xfe")


async def _assert_fault(wire: Wire, code: int) -> None:
    """The wire has ended so, and knows that the peer broke a rule."""
    closed = await end_of(wire)
    assert (closed.code, closed.why) == (code, Ending.VIOLATION)


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1008, 1009, 4000])
async def test_peer_that_closes_has_broken_no_rule(lane: Lane, code: int) -> None:
    """Whatever its code says: we judge what it did."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            await client.send(CloseConnection(code=code))
            closed = await end_of(wire)
            assert (closed.code, closed.why) == (code, Ending.GONE)


BROKEN_FRAMES = {
    "reserved bit": (b"\xa1\x80aaaa", 1002),
    "reserved opcode": (b"\x83\x80aaaa", 1002),
    "reserved control opcode": (b"\x8b\x80aaaa", 1002),
    "no mask": (b"\x81\x01a", 1002),
    "long control frame": (b"\x89\xfe\x00\x7eaaaa" + bytes(126), 1002),
    "fragmented control frame": (b"\x09\x80aaaa", 1002),
    "continuation of nothing": (b"\x80\x80aaaa", 1002),
    "message in a message": (b"\x01\x80aaaa\x81\x80aaaa", 1002),
    "length in too many bytes": (b"\x81\xfe\x00\x01aaaaa", 1002),
    "length of 64 bits": (b"\x81\xff" + b"\xff" * 8 + b"aaaa", 1002),
    "no UTF-8": (b"\x81\x81\0\0\0\0\xff", 1007),
    "UTF-8 cut off": (b"\x81\x81\0\0\0\0\xc3", 1007),
    "surrogate": (b"\x81\x83\0\0\0\0\xed\xa0\x80", 1007),
    "close with one byte": (b"\x88\x81\0\0\0\0\x03", 1002),
    "close without UTF-8": (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
} | {
    f"close with {code}": (b"\x88\x82\0\0\0\0" + code.to_bytes(2, "big"), 1002)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535)
}


@pytest.mark.parametrize("broken", BROKEN_FRAMES)
async def test_every_broken_rule_is_told_and_ends_the_wire(lane: Lane, broken: str) -> None:
    """RFC 6455, sections 5 to 8: with its code and words; what comes behind it is no message."""
    data, code = BROKEN_FRAMES[broken]
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await client.send_raw(data + b"\x81\x84\0\0\0\0late")
            nursery.start_soon(end_of, wire)
            close = await client.leave()
            assert close.code == code
            assert close.reason
        with pytest.raises(WireClosed) as closed:
            await wire.receive()
        assert closed.value.why is Ending.VIOLATION


async def test_garbage_ends_the_wire(lane: Lane) -> None:
    """A client that breaks the protocol is told 1002 and what was wrong, and is disconnected."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, running):
            await client.send_raw(b"\x83\x80aaaa")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_of, wire)
                close = await client.leave()
            assert (close.code, close.reason) == (1002, "unknown opcode 0x3")
            await _assert_fault(wire, 1002)
            assert await get(running.port, tls=lane.client_context("http/1.1")) == b"here"


FLOODS = {
    "pings": b"\x89\x80aaaa",
    "empty fragments": b"\x00\x80aaaa",
    "fragments of a byte": b"\x00\x81aaaab",
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_flood_of_costly_frames_closes_with_1008(lane: Lane, flood: str) -> None:
    """On every way in: the client is told why, and what it sends in one piece is never all parsed."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, running), trio.open_nursery() as nursery:
            await client.send_raw(b"\x01\x80aaaa" + FLOODS[flood] * 2000)
            nursery.start_soon(end_of, wire)
            close = await client.leave()
            assert close.code == 1008
            assert (close.reason or "").startswith("too many control frames and small fragments")
            await _assert_fault(wire, 1008)
            assert await get(running.port, tls=lane.client_context("http/1.1")) == b"here"


async def test_only_the_newest_of_many_pings_is_answered(lane: Lane) -> None:
    """Pings that come together cost one pong, with the payload of the last."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await client.send(*(Ping(payload=b"%d" % number) for number in range(100)))
            await client.say("last")
            assert await wire.receive() == "last"
            nursery.start_soon(end_of, wire)
            pongs = [await client.event()]
            await client.send(Ping(payload=b"alone"))
            while pongs[-1] != Pong(payload=b"alone"):
                pongs.append(await client.event())
            assert Pong(payload=b"99") in pongs
            assert len(pongs) < 10  # one for each read of ours
            wire.abort()


async def test_vanished_client_ends_receive_and_write(lane: Lane) -> None:
    """A reset connection is 1006 for a task that reads, and for one that waits for room."""
    ends = list[int]()
    with trio.fail_after(120):
        async with session(lane, receive_buffer=4096) as (wire, client, _), trio.open_nursery() as nursery:
            nursery.start_soon(collect, ends, fill, wire)
            nursery.start_soon(collect, ends, end_of, wire)
            await wait_all_tasks_blocked()
            client.vanish()
    assert ends == [1006, 1006]


async def test_abort_ends_everyone_at_once(lane: Lane) -> None:
    """After `abort` the reader, the writer and the client all find the connection gone."""
    ends = list[int]()
    with trio.fail_after(120):
        async with session(lane, receive_buffer=4096) as (wire, client, _):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect, ends, fill, wire)
                nursery.start_soon(collect, ends, end_of, wire)
                await wait_all_tasks_blocked()
                wire.abort()
            while (event := await client.event()) is not None:
                assert not isinstance(event, CloseConnection)
    assert ends == [1006, 1006]


async def test_ping_during_a_blocked_write_is_answered_between_messages(lane: Lane) -> None:
    """A pong never lands inside a message that is waiting for room, and does not wait for the last of them."""
    long = NOISE

    with trio.fail_after(120):
        async with session(lane, receive_buffer=4096) as (wire, client, _), trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, [wire.pack([long])] * 40)
            nursery.start_soon(end_of, wire)
            await wait_all_tasks_blocked()
            await client.send(Ping(payload=b"still there?"))
            await until_delivered(client.raw.socket)
            got, pongs = await read_whole_messages(client, 40)
            assert got == [long.decode()] * 40
            assert [payload for payload, _ in pongs] == [b"still there?"]
            assert pongs[0][1] < 40
            wire.abort()


def pieces(wire: Wire, *texts: bytes) -> list[Any]:
    """One message in pieces."""
    last = len(texts) - 1
    return [wire.piece(text, at == 0, at == last) for at, text in enumerate(texts)]


async def test_a_message_in_pieces_is_one_message(lane: Lane) -> None:
    """However it is cut: the client reads it whole, and what follows it as a message of its own."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            for payload in pieces(wire, b"[", "1, é".encode(), b"", b"x" * 70_000, b"]"):
                rest = wire.write_nowait(payload)
                if rest is not None:
                    await wire.write([rest])
            await send(wire, b"next")
            assert await client.text() == f"[1, é{'x' * 70_000}]"
            assert await client.text() == "next"
            assert wire.size(wire.pack([b"x" * 100])) >= 100


async def test_a_ping_in_the_midst_of_a_message_is_answered_there(lane: Lane) -> None:
    """The pong comes between two pieces, so that a client that reads slowly is not taken for dead."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            first, second = pieces(wire, b"begun ", b"ended")
            await wire.write([first])
            nursery.start_soon(end_of, wire)
            begun = await client.event()
            assert isinstance(begun, TextMessage)
            assert not begun.message_finished
            await client.send(Ping(payload=b"there?"))
            assert await client.event() == Pong(payload=b"there?")
            await wire.write([second])
            assert await client.text() == "ended"
            wire.abort()


async def test_a_close_in_the_midst_of_a_message_is_understood(lane: Lane) -> None:
    """Who will not get the rest is told why."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _), trio.open_nursery() as nursery:
            await wire.write([pieces(wire, b"begun", b"ended")[0]])
            nursery.start_soon(wire.close_with, 1008, "slow client")
            close = await client.closed()
            assert (close.code, close.reason) == (1008, "slow client")


async def test_close_under_load_comes_behind_a_whole_message(lane: Lane, mock_clock: MockClock) -> None:
    """`close` while messages wait for room: the client reads some of them whole, in order, and then why it ended.

    The clock stands still: `close_within` seconds may be too few for a busy machine.
    """
    sent = [f"{number} {NOISE[:100_000].decode()}" for number in range(60)]

    async def write(wire: Wire) -> None:
        with pytest.raises(WireClosed):
            await wire.write([wire.pack([text.encode()]) for text in sent])

    with trio.fail_after(120):
        async with session(lane, receive_buffer=4096) as (wire, client, _), trio.open_nursery() as nursery:
            nursery.start_soon(write, wire)
            nursery.start_soon(end_of, wire)
            await wait_all_tasks_blocked()
            nursery.start_soon(wire.close_with, 1008, "slow client")
            got, parts = list[str](), list[str]()
            while isinstance(event := await client.event(), TextMessage):
                parts.append(event.data)
                if event.message_finished:
                    got.append("".join(parts))
                    parts.clear()
            assert isinstance(event, CloseConnection)
            assert (event.code, event.reason) == (1008, "slow client")
            assert not parts
            assert got == sent[: len(got)]
            await client.answer(event)
            client.vanish()


async def test_slow_client_gets_everything_in_order(lane: Lane) -> None:
    """A client that reads now and then gets each message once, whole, in order; the others are not kept waiting."""
    with trio.fail_after(120):
        async with (
            session(lane, receive_buffer=4096) as (wire, slow, _),
            session(lane) as (other, quick, _),
            trio.open_nursery() as nursery,
        ):
            sent = [f"{number} {NOISE[:20_000].decode()}" for number in range(60)]
            nursery.start_soon(wire.write, [wire.pack([text.encode()]) for text in sent])
            for text in sent:
                await send(other, text.encode())
                assert await quick.text() == text
            for text in sent:
                assert await slow.text() == text
                await wait_all_tasks_blocked()


async def test_client_may_ask_while_it_is_sent_to(lane: Lane) -> None:
    """Requests in pieces arrive while a long answer is under way."""
    with trio.fail_after(120):
        async with session(lane, receive_buffer=4096) as (wire, client, _), trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, [wire.pack([NOISE])] * 5)
            await wait_all_tasks_blocked()
            for byte in client.websocket.send(TextMessage(data="hello")):
                await client.send_raw(bytes([byte]))
            assert await wire.receive() == "hello"
            for _ in range(5):
                assert await client.text() == NOISE.decode()


async def read_whole_messages(client: Client, count: int) -> tuple[list[str], list[tuple[bytes, int]]]:
    """`count` messages, and the pongs among them with the number of messages that came before."""
    got, pongs, parts = list[str](), list[tuple[bytes, int]](), list[str]()
    while len(got) < count:
        event = await client.event()
        if isinstance(event, Pong):
            pongs.append((bytes(event.payload), len(got)))
            continue
        assert isinstance(event, TextMessage), event
        parts.append(event.data)
        if event.message_finished:
            got.append("".join(parts))
            parts.clear()
    return got, pongs


async def test_cancelled_receive_loses_nothing(lane: Lane) -> None:
    """However often a wait is cancelled, even in the middle of a message: every message arrives, once."""
    with trio.fail_after(120):
        async with session(lane) as (wire, client, _):
            data = b"".join(client.websocket.send(TextMessage(data=f"{n}" * 20)) for n in range(10))
            got = []
            for start in range(0, len(data), 7):
                await client.send_raw(data[start : start + 7])
                while True:
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(_cancel_when_idle, scope)
                            got.append(await wire.receive())
                            nursery.cancel_scope.cancel()
                    if scope.cancelled_caught:
                        break
            while len(got) < 10:
                got.append(await wire.receive())
            assert got == [f"{n}" * 20 for n in range(10)]


async def _cancel_when_idle(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_failure_in_the_handler_closes_with_1011(lane: Lane) -> None:
    """The client is told that the fault is ours, and the error is reported."""

    async def fail(wire: Wire) -> None:
        raise ZeroDivisionError

    with trio.fail_after(120):
        async with lane.serving(fail) as running:
            close = await (await running.client(**lane.client_options())).closed()
            assert (close.code, close.reason) == (1011, "internal error")
            while not running.reports:
                await trio.lowlevel.checkpoint()
            assert running.stats.faults == {"ZeroDivisionError": 1}


async def test_bytes_behind_the_handshake_are_not_lost(lane: Lane) -> None:
    """A client that speaks before it has read the 101 is heard, on every lane."""
    if lane.name == "http2":
        return  # there a client has to wait, and is reset if it does not
    early = b"\x81\x85\0\0\0\0early\x81\x81\0\0\0\0"
    with trio.fail_after(120):
        async with session(lane, early=early) as (wire, client, _):
            assert await wire.receive() == "early"
            await client.send_raw(b"!")
            assert await wire.receive() == "!"


async def test_handler_may_take_its_time_after_the_take_over(lane: Lane) -> None:
    """The take-over does not cancel the body of the block, such as the start of a session."""
    go, went_on = trio.Event(), trio.Event()

    async def dawdle(wire: Wire) -> None:
        await go.wait()
        went_on.set()
        wire.abort()

    with trio.fail_after(120):
        async with lane.serving(dawdle) as running:
            await running.client(**lane.client_options())
            await wait_all_tasks_blocked()
            go.set()
            await went_on.wait()


async def test_detached_session_outlives_handler_and_server(lane: Lane) -> None:
    """Nothing of the HTTP server is left behind a detached wire: not its task, and not its end."""
    if not lane.is_detached:
        return  # the next test's
    with trio.fail_after(120):
        async with session(lane) as (wire, client, running):
            running.stop()
            await running.ended.wait()
            assert running.stats.detached == 1
            await send(wire, b"still here")
            assert await client.text() == "still here"
            await client.say("so am I")
            assert await wire.receive() == "so am I"


async def test_asgi_session_ends_with_its_server(lane: Lane) -> None:
    """A wire that stayed with the server is told when that goes."""
    if lane.is_detached:
        return
    with trio.fail_after(120):
        async with session(lane) as (wire, _, running):
            running.stop()
            assert (await end_of(wire)).code == 1006


async def test_client_that_leaves_before_the_take_over_is_no_session() -> None:
    """A connection that is lost during the handshake gives a wire that has ended, and no error of ours."""
    entered, go, outcome = trio.Event(), trio.Event(), list[int]()

    async def handler() -> None:
        entered.set()
        await go.wait()
        async with take_over(websocket) as wire:
            outcome.append((await end_of(wire)).code)

    with trio.fail_after(120):
        async with serving(websocket_app(handler)) as running:
            stream = await connect(running.port)
            await stream.send_all(upgrade_request())
            await entered.wait()
            Client(stream).vanish()
            go.set()
            while not outcome:
                await trio.lowlevel.checkpoint()
            assert not running.reports
    assert outcome == [1006]
