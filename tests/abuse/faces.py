"""What a stranger can do to the faces, and with what. See `attacks`."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count as numbers
from typing import Final

import trio

from dataflow.protobuf import marketdata_pb2 as pb
from dataflow.protobuf.grpc.reflection.v1 import reflection_pb2 as reflection

from .attacker import LOST, PREFACE, STAYED, Target, by_http, by_http2, by_websocket, http2, masked, repeated

# -- WebSockets


async def messages(
    target: Target, path: str, opening: Sequence[bytes], block: bytes, count: int, protocol: str = ""
) -> None:
    """Messages of a face, as fast as it takes them."""

    async def one() -> None:
        stream = await target.websocket(path=path, protocol=protocol)
        await stream.send_all(b"".join(masked(0x81, each) for each in opening))
        await target.flood(stream, block, by_websocket)

    await target.crowd(count, one, again=True)


async def one_room(target: Target, count: int, ids: int) -> None:
    """Clients that are in one room under many ids each, one of which says long words there."""
    said = json.dumps({"type": "OFFER", "sdp": "x" * 50_000}).encode()
    signal = stomp("SEND", body=said, destination="/app/signal/r")
    entering = b"".join(
        masked(0x81, stomp("SUBSCRIBE", id=str(n), destination="/topic/signaling/r")) for n in range(ids)
    )
    ready = trio.Event()
    came = 0

    async def listener() -> None:
        nonlocal came
        stream = await target.websocket(path="/ws/websocket")
        await stream.send_all(masked(0x81, STOMP) + entering)
        await stream.send_all(masked(0x81, stomp("ACK", id="0", receipt="ready")))
        came += 1
        if came == count:
            ready.set()
        await target.listen(stream, by_websocket)

    async def speaker() -> None:
        await ready.wait()
        await trio.sleep(1)
        stream = await target.websocket(path="/ws/websocket")
        await stream.send_all(masked(0x81, STOMP))
        with suppress(*LOST), trio.move_on_after(max(target.left, 0)):
            while True:
                await stream.send_all(masked(0x81, signal))
                target.done += 1
                await trio.sleep(0.5)
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.crowd, count, listener)
        nursery.start_soon(speaker)


def stomp(command: str, body: bytes = b"", **headers: str) -> bytes:
    """A frame of STOMP."""
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    return f"{command}\n{lines}\n".encode() + body + b"\0"


# -- Requests of HTTP


async def requests(target: Target, request: str, count: int, body: str = "") -> None:
    """Requests on a connection, as many as it takes. `%d` becomes a number that is new each time."""
    serial = numbers(int(time.time()))

    def written() -> bytes:
        number = next(serial)
        text = body.replace("%d", str(number)).encode()
        head = f"{request.replace('%d', str(number))} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        return head.encode() + text

    async def one() -> None:
        stream = await target.plain()
        heard = b""
        with trio.move_on_after(max(target.left, 0)) as all_of_it, suppress(*LOST):
            while True:
                await stream.send_all(written())
                chunk = await stream.receive_some()
                if not chunk:
                    break
                heard = chunk
                target.done += 1
                if by_http(heard) not in ("200", "closed"):
                    target.ended(by_http(heard))
        target.ended(STAYED if all_of_it.cancelled_caught else by_http(heard))
        await trio.aclose_forcefully(stream)

    await target.crowd(count, one, again=True)


# -- Ticks


async def ticks(target: Target, block: bytes, count: int) -> None:
    """Ticks, faster than they are taken."""

    async def one() -> None:
        stream = await target.plain(port=target.ticks_port)
        await target.flood(stream, block, lambda heard: "closed")

    await target.crowd(count, one, again=True)


async def half_ticks(target: Target) -> None:
    """Twice as many producers as may come, each with the first byte of a frame."""

    async def one() -> None:
        stream = await target.plain(port=target.ticks_port)
        await stream.send_all(b"\0")
        await target.listen(stream, lambda heard: "closed")

    await target.crowd(200, one)


def tick(symbol: str, price: float = 1.5) -> bytes:
    """A frame."""
    written = pb.Tick(symbol=symbol, price=price, volume=1, exchange_timestamp=1_700_000_000_000_000_000)
    data = written.SerializeToString()
    return struct.pack(">I", len(data)) + data


# -- gRPC


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def grpc_head(method: str, service: str = "marketdata.MarketDataService") -> bytes:
    """The headers of a call."""
    return b"\x83\x86" + b"".join(
        _literal(name, value)
        for name, value in (
            (b":path", f"/{service}/{method}".encode()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )


def prefixed(message: bytes) -> bytes:
    """A message of gRPC."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def grpc_call(number: int, method: str, message: bytes) -> bytes:
    """A call with one message."""
    return http2(1, 4, number, grpc_head(method)) + http2(0, 1, number, prefixed(message))


async def grpc(target: Target, block: bytes, count: int) -> None:
    """Frames of HTTP/2 for the port of gRPC."""

    async def one() -> None:
        stream = await target.plain(port=target.grpc_port)
        await stream.send_all(PREFACE + http2(4))
        await target.flood(stream, block, by_http2)

    await target.crowd(count, one, again=True)


async def grpc_unread(target: Target, count: int) -> None:
    """Connections with 200 calls each, whose answers may never be sent; pings are answered."""
    message = pb.AggregateRequest(symbol="BTC-USDT").SerializeToString()

    async def one() -> None:
        stream = await target.plain(port=target.grpc_port)
        await stream.send_all(PREFACE + http2(4, payload=b"\0\x04\0\0\0\0"))
        for number in range(1, 401, 2):
            await stream.send_all(grpc_call(number, "GetAggregate", message))
            target.done += 1
        heard = b""
        with trio.move_on_after(max(target.left, 0)) as all_of_it, suppress(*LOST):
            while chunk := await stream.receive_some():
                heard = (heard + chunk)[-100_000:]
                if b"dataflow" in chunk:
                    await stream.send_all(http2(6, 1, 0, b"dataflow"))
        target.ended(STAYED if all_of_it.cancelled_caught else by_http2(heard))
        await trio.aclose_forcefully(stream)

    await target.crowd(count, one)


async def grpc_reflection(target: Target, count: int) -> None:
    """One stream that asks for the same file, again and again."""
    asked = reflection.ServerReflectionRequest(
        file_containing_symbol="grpc.reflection.v1.ServerReflection"
    ).SerializeToString()
    opening = http2(1, 4, 1, grpc_head("ServerReflectionInfo", service="grpc.reflection.v1.ServerReflection"))
    data = http2(0, 0, 1, prefixed(asked) * 200)

    async def one() -> None:
        stream = await target.plain(port=target.grpc_port)
        await stream.send_all(
            PREFACE + http2(4, payload=b"\0\x04\x7f\xff\xff\xff") + http2(8, 0, 0, b"\x7f\xff\0\0") + opening
        )
        await target.flood(stream, data, by_http2)

    await target.crowd(count, one, again=True)


HUB: Final = b'{"protocol":"json","version":1}\x1e'
HUB_PINGS: Final = masked(0x81, b'{"type":6}\x1e' * 5000)
HUB_MISTAKES: Final = masked(0x81, b'{"type":1,"invocationId":"0","target":"X","arguments":[]}\x1e' * 1000)
INIT: Final = b'{"type":"connection_init"}'
GRAPHQL_PINGS: Final = repeated(masked(0x81, b'{"type":"ping","payload":{"a":1}}'))
QUERIES: Final = repeated(
    masked(0x81, b'{"type":"subscribe","id":"1","payload":{"query":"{marketData(symbol:\\"X\\"){open}}"}}')
)
DOCUMENT: Final = '{"query":"{marketData(symbol:\\"x%d\\"){' + "a%d:open b:close " * 10 + '}}"}'
STOMP: Final = b"CONNECT\naccept-version:1.2\n\n\0"
STOMP_FRAMES: Final = masked(0x81, stomp("ACK", id="1") * 5000)
STOMP_SIGNALS: Final = repeated(masked(0x81, stomp("SEND", b'{"type":"X"}', destination="/app/signal")))
TICKS: Final = repeated(tick("AAPL"))
REFUSED_TICKS: Final = repeated(tick("AAPL", -1))
MANY_SYMBOLS: Final = b"".join(tick(f"S{number}") for number in range(5000))
CONTINUED: Final = http2(1, 0, 1, b"\x82") + repeated(http2(9, 0, 1))
