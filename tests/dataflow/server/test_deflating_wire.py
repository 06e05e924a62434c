"""Compressed messages on a client's own socket: who gets them, and what they may cost."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from wsproto.events import TextMessage

from actors.session import WireClosed
from dataflow.net.websocket.frames import text_frames
from dataflow.server.deflating_wire import DeflatingWire
from dataflow.server.handshake import Handshake, Messages, Socket
from dataflow.server.socket_wire import SocketWire
from tests.dataflow.server.wires_client import Running, read_head, serving, upgrade_request, websocket_app
from tests.dataflow.server.wires_client import connect as connect_raw

EXTENSIONS = b"Sec-WebSocket-Extensions: "
LIMIT = 65_536
UPDATES = [b'{"price":61837.63,"qty":0.0%d,"offset":%d}' % (number % 7, number) for number in range(64)]


@asynccontextmanager
async def server(**options: Any) -> AsyncIterator[tuple[Running, trio.MemoryReceiveChannel[SocketWire]]]:
    """A server, and the wires of its clients."""
    give, take = trio.open_memory_channel[SocketWire](8)

    async def on_wire(wire: SocketWire, _client: Handshake) -> None:
        await give.send(wire)

    sockets = {Socket("/ws"): on_wire, Socket("/binary", messages=Messages.BINARY): on_wire}
    app = websocket_app(lambda: None)
    async with serving(app, **{"sockets": sockets, "deflate": True, **options}) as running:
        yield running, take


async def shake_hands(running: Running, offer: bytes = b"", path: str = "/ws") -> bytes:
    """The head of the answer to this offer."""
    stream = await connect_raw(running.port)
    async with stream:
        await stream.send_all(upgrade_request(path, *([EXTENSIONS + offer] if offer else [])))
        head, _ = await read_head(stream)
    return head


async def test_without_an_agreement_nothing_changes() -> None:
    """A client that does not offer it, or only what we cannot keep, gets the same wire and bytes as ever; so
    do all clients of a server without the setting."""
    with trio.fail_after(60):
        async with server() as (running, wires):
            for offer in (b"", b"permessage-deflate; server_max_window_bits=9", b"x-webkit-deflate-frame"):
                head = await shake_hands(running, offer)
                wire = await wires.receive()
                assert b"101 Switching" in head
                assert b"Extensions" not in head
                assert type(wire) is SocketWire
                assert wire.pack(UPDATES) == text_frames(UPDATES)
                wire.abort()
        async with server(deflate=False) as (running, wires):
            assert b"Extensions" not in await shake_hands(running, b"permessage-deflate")
            wire = await wires.receive()
            assert type(wire) is SocketWire
            wire.abort()


async def test_clients_of_a_kind_share_their_payloads() -> None:
    """One packer for each of four kinds: so an update is compressed once a kind, not once a client."""
    with trio.fail_after(60):
        async with server() as (running, wires):
            packers = []
            for path in ("/ws", "/binary"):
                for offer in (b"permessage-deflate", b"permessage-deflate; server_no_context_takeover"):
                    for _ in range(2):
                        assert b"permessage-deflate; server_max_window" in await shake_hands(
                            running, offer, path
                        )
                        wire = await wires.receive()
                        packers.append(wire.pack)
                        wire.abort()
            assert [a is b for a, b in zip(packers[::2], packers[1::2], strict=True)] == [True] * 4
            assert len(set(map(id, packers))) == 4


async def test_a_run_of_updates_arrives_as_they_were_with_an_eighth_of_the_bytes() -> None:
    """Each is still a message of its own, in order."""
    with trio.fail_after(60):
        async with server() as (running, wires):
            client = await running.client(deflate=True)
            wire = await wires.receive()
            payload = wire.pack(UPDATES)
            assert len(payload) * 3 < len(text_frames(UPDATES))
            assert wire.write_nowait(payload) is None
            assert wire.write_nowait(wire.plain(UPDATES)) is None
            for text in UPDATES * 2:
                assert await client.text() == text.decode()
            wire.abort()


async def test_what_came_with_the_handshake_is_understood() -> None:
    """A client may speak before the answer, uncompressed; whatever comes later may be compressed."""
    with trio.fail_after(60):
        async with server() as (running, wires):
            client = await running.client(deflate=True, early=b"\x81\x85\0\0\0\0early" * 500)
            wire = await wires.receive()
            await client.say("x" * 2000, "last")
            assert [await wire.receive() for _ in range(502)] == ["early"] * 500 + ["x" * 2000, "last"]
            wire.abort()


async def test_many_small_bombs_are_understood_one_after_the_other() -> None:
    """Messages of 64 KiB in 100 bytes each: at most 1 MiB of them stands in memory, and none is lost."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (deflater.compress(b"x" * LIMIT) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    bomb = bytes((0xC1, 0x80 | len(packed))) + b"\0\0\0\0" + packed
    count = 300
    with trio.fail_after(60):
        async with server() as (running, wires):
            client = await running.client(deflate=True)
            wire = await wires.receive()
            assert isinstance(wire, DeflatingWire)
            await client.send_raw(bomb * count)
            for _ in range(count):
                assert await wire.receive() == "x" * LIMIT
                assert sum(map(len, wire._inbox or ())) <= 1 << 20
            wire.abort()


async def test_a_bomb_ends_with_1009() -> None:
    """More comes out of a message than it may have: the client is told so, and is let go."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (deflater.compress(b"x" * (1 << 24)) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    with trio.fail_after(60):
        async with server() as (running, wires):
            client = await running.client(deflate=True)
            wire = await wires.receive()
            await client.send_raw(bytes((0xC1, 0xFE)) + len(packed).to_bytes(2, "big") + b"\0\0\0\0" + packed)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_closed, wire)
                close = await client.leave()
            assert (close.code, close.reason) == (1009, f"a message may have {LIMIT} bytes")


async def _until_closed(wire: SocketWire) -> None:
    try:
        while True:
            await wire.receive()
    except WireClosed:
        pass


async def test_a_client_may_compress_every_message() -> None:
    """As browsers do: short ones, empty ones, ones in fragments."""
    with trio.fail_after(60):
        async with server() as (running, wires):
            client = await running.client(deflate=True)
            wire = await wires.receive()
            await client.send(
                TextMessage(data=""),
                TextMessage(data="a"),
                TextMessage(data="b" * 500, message_finished=False),
                TextMessage(data="c" * 500),
            )
            assert [await wire.receive() for _ in range(3)] == ["", "a", "b" * 500 + "c" * 500]
            wire.abort()
