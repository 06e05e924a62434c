"""The attacks: what a stranger, or an upstream, can do on the wire. One function each."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import sys
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio
from attrs import field, frozen

from . import faces
from .attacker import (
    BLOCK,
    HANDSHAKE,
    LOST,
    PREFACE,
    STAYED,
    Target,
    batch,
    by_http,
    by_http2,
    by_websocket,
    call,
    http2,
    listening,
    masked,
    repeated,
    unmasked,
)

Run = Callable[[Target], Awaitable[None]]
PATIENCE: Final = (1, 4, 16)  # times as long: on a busy machine nobody may be let go in the first seconds
SUBSCRIBE: Final = call("subscribe", '{"symbol":"BTC-USDT"}')


@frozen(kw_only=True)
class Attack:
    """`ends`: the only ways in which an attacker may be let go, and one of them must be seen; empty: any, or none.

    `aim`: milliseconds of the daemon's CPU time that a bystander may have to wait. `least`: seconds that the
    attack needs, to show how it ends.
    """

    name: str
    run: Run
    ends: tuple[str, ...] = ()
    aim: float = 200.0
    tls: bool = False
    hostile_upstreams: int = 0
    max_files: int | None = None
    reads_log: bool = True
    reads_bodies: bool = False
    all_faces: bool = False
    full_house: bool = False  # a bystander may be told to come back later: the machine has no more to give
    short: bool = False
    least: float = 0.0
    by_default: bool = True
    about: str = field(init=False)

    @about.default
    def _about(self) -> str:
        run = self.run.func if isinstance(self.run, partial) else self.run
        return (run.__doc__ or "").partition("\n")[0]


# -- Connections that hold places


async def nothing(target: Target) -> None:
    """Nobody attacks: what the bystander waits anyway."""
    await trio.sleep(target.seconds)


async def silence(target: Target) -> None:
    """Connects that say nothing, 200 a second, and stay."""

    async def one() -> None:
        await target.listen(await target.plain(), by_http)

    async with trio.open_nursery() as nursery:
        while target.left > 1:
            nursery.start_soon(target.crowd, 20, one)
            target.done += 20
            await trio.sleep(0.1)


async def half_heads(target: Target) -> None:
    """200 heads of a request, a byte every 0.05 s, without end."""

    async def one() -> None:
        stream = await target.plain()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                with suppress(*LOST):
                    await stream.send_all(b"GET / HTTP/1.1\r\nX: ")
                    while True:
                        await stream.send_all(b"a")
                        await trio.sleep(0.05)

            nursery.start_soon(drip)
            await target.listen(stream, by_http)
            nursery.cancel_scope.cancel()

    await target.crowd(200, one)


async def half_tls(target: Target) -> None:
    """200 TLS handshakes that stop in the middle of their first record."""

    async def one() -> None:
        stream = await target.plain()
        await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        await target.listen(stream, by_http)

    await target.crowd(200, one)


async def tls_handshakes(target: Target) -> None:
    """Whole TLS handshakes, eight at a time, each on a connection that is then dropped."""

    async def one() -> None:
        while target.left > 0:
            with trio.move_on_after(max(target.left, 0)):
                await trio.aclose_forcefully(await target.open())
                target.done += 1

    await target.crowd(8, one)


async def idle(target: Target) -> None:
    """300 connections that asked once and stay for another request that never comes."""

    async def one() -> None:
        stream = await target.plain()
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await target.listen(stream, by_http)

    await target.crowd(300, one)


async def slow_bodies(target: Target) -> None:
    """100 requests whose body comes a byte every 0.1 s, to a route that reads one."""

    async def one() -> None:
        stream = await target.plain()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                with suppress(*LOST):
                    await stream.send_all(
                        b"POST /faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
                    )
                    while True:
                        await stream.send_all(b" ")
                        await trio.sleep(0.1)

            nursery.start_soon(drip)
            await target.listen(stream, by_http)
            nursery.cancel_scope.cancel()

    await target.crowd(100, one)


async def strangers(target: Target) -> None:
    """200 clients of a daemon that may open 64 descriptors."""

    async def one() -> None:
        stream = await target.plain()
        await stream.send_all(HANDSHAKE + SUBSCRIBE)
        await target.listen(stream, _let_in)

    await target.crowd(200, one)


def _let_in(heard: bytes) -> str:
    """A status, or a close code behind the handshake."""
    return by_websocket(heard) if b" 101 " in heard[:20] else by_http(heard)


async def churn(target: Target, most: int = 1_000_000) -> None:
    """Connect, subscribe and reset, as fast as one process can, sixteen at a time."""
    abort = struct.pack("ii", 1, 0)

    async def one() -> None:
        while target.left > 0 and target.done < most:
            with suppress(*LOST):
                stream = await target.plain()
                async with stream:
                    await stream.send_all(HANDSHAKE + SUBSCRIBE)
                    heard = b""
                    while b'"event":"subscribed"' not in heard:
                        chunk = await stream.receive_some()
                        if not chunk:
                            target.ended(by_websocket(heard))
                            break
                        heard += chunk
                    else:
                        target.done += 1
                    stream.setsockopt(1, 13, abort)  # SOL_SOCKET, SO_LINGER: a reset

    await target.crowd(16, one)


# -- Floods


async def frames(target: Target, block: bytes, count: int, extensions: str = "") -> None:
    """Frames that cost more than their bytes."""

    async def one() -> None:
        await target.flood(await target.websocket(extensions=extensions), block, by_websocket)

    await target.crowd(count, one, again=True)


async def garbage(target: Target) -> None:
    """Random bytes as requests, and as frames behind a handshake, four of each at a time, again and again."""

    async def request() -> None:
        await target.flood(await target.open(), os.urandom(BLOCK), by_http)

    async def frame() -> None:
        await target.flood(await target.websocket(), os.urandom(BLOCK), by_websocket)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.crowd, 4, request, True)
        nursery.start_soon(target.crowd, 4, frame, True)


async def calls(target: Target, count: int) -> None:
    """The dearest call, as fast as the daemon takes it."""

    async def one() -> None:
        dear = repeated(call("getRecentTrades", '{"symbol":"BTC-USDT","count":1000}'))
        await target.flood(await target.websocket(), dear, by_websocket)

    await target.crowd(count, one, again=True)


GET: Final = b"\x82\x87\x04\x07/health\x01\x09localhost"  # literals of HPACK that need no table


async def http2_frames(target: Target, block: bytes, count: int) -> None:
    """Control frames of HTTP/2."""

    async def one() -> None:
        stream = await target.open(http2=True)
        await stream.send_all(PREFACE + http2(4))
        await target.flood(stream, block, by_http2)

    await target.crowd(count, one, again=True)


async def rapid_reset(target: Target, count: int) -> None:
    """Requests of HTTP/2 that are taken back at once."""

    async def one() -> None:
        stream = await target.open(http2=True)
        await stream.send_all(PREFACE + http2(4))
        block = b"".join(
            http2(1, 5, number, GET) + http2(3, 0, number, b"\0\0\0\x08") for number in range(1, 40_001, 2)
        )
        await target.flood(stream, block, by_http2)

    await target.crowd(count, one, again=True)


async def zero_windows(target: Target) -> None:
    """Eight connections of HTTP/2 with a hundred requests each, whose answers may never be sent."""

    async def one() -> None:
        stream = await target.open(http2=True)
        await stream.send_all(PREFACE + http2(4, payload=b"\0\x04\0\0\0\0"))
        await stream.send_all(b"".join(http2(1, 5, number, GET) for number in range(1, 201, 2)))
        await target.listen(stream, by_http2)

    await target.crowd(8, one)


# -- Readers that do not read


async def never_reading(target: Target, request: bytes, count: int) -> None:
    """Ask, and never read the answer."""

    async def one() -> None:
        stream = await target.plain(receive_buffer=2048)
        with suppress(*LOST), trio.move_on_after(max(target.left, 0)) as all_of_it:
            await stream.send_all(request)
            target.done += 1
            poll = trio.lowlevel.wait_readable
            while True:
                await poll(stream.socket)
                # What has come stays where it is. Only an end is looked for.
                if _has_ended(stream):
                    break
                await trio.sleep(0.1)
        target.ended(STAYED if all_of_it.cancelled_caught else "cut off")
        await trio.aclose_forcefully(stream)

    await target.crowd(count, one)


def _has_ended(stream: trio.SocketStream) -> bool:
    """Whether the daemon has closed, or reset, the connection: TCP's state is not ESTABLISHED any more."""
    return bool(stream.getsockopt(6, 11, 1)[0] != 1)  # IPPROTO_TCP, TCP_INFO: its first byte


async def unread_log(target: Target) -> None:
    """400 restarts of an actor, logged to a small pipe that nobody reads."""
    request = (
        b"POST /actors/gateway/herald/restart HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Connection: close\r\nContent-Length: 0\r\n\r\n"
    )
    for _ in range(400):
        if target.left <= 0:
            break
        stream = await target.plain("127.0.0.1")
        await stream.send_all(request)
        await target.listen(stream, by_http)
        target.done += 1


# -- Upstreams


async def upstream(target: Target, block: bytes) -> None:
    """A source that is flooded by its exchange, from the first connection on."""

    async def handle(stream: trio.SocketStream) -> None:
        head = b""
        with suppress(*LOST):
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            await stream.send_all(_accepted(head))
            await target.flood(stream, block, by_client)

    async with listening(handle) as port:
        print(port, flush=True)
        await trio.sleep(target.seconds)


def by_client(heard: bytes) -> str:
    """The close code of a client, whose frames are masked."""
    for at in range(len(heard) - 8, max(-1, len(heard) - 132), -1):
        if heard[at] == 0x88 and heard[at + 1] & 0x7F == len(heard) - at - 6:
            mask, code = heard[at + 2 : at + 6], heard[at + 6 : at + 8]
            return str((code[0] ^ mask[0]) << 8 | (code[1] ^ mask[1]))
    return "cut off"


def _accepted(head: bytes) -> bytes:
    key = next(
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
    )


PINGS: Final = repeated(masked(0x89))
EMPTY: Final = masked(0x01) + repeated(masked(0x00))
BYTES: Final = masked(0x01, b" ") + repeated(masked(0x00, b" "))
DEFLATE: Final = "permessage-deflate"


def _deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMBS: Final = repeated(masked(0xC1, _deflated(b" " * 65_536)))  # each as long as a message may be
BURSTING: Final = repeated(masked(0xC1, _deflated(b" " * 10_000_000)))
SETTINGS: Final = repeated(http2(4))
PINGS2: Final = repeated(http2(6, payload=bytes(8)))
SSE: Final = b"GET /api/v1/stream/BTC-USDT HTTP/1.1\r\nHost: localhost\r\n\r\n"
BIG: Final = batch("getRecentTrades", '{"symbol":"BTC-USDT","count":1000}', 100)
NONSENSE: Final = unmasked(0x81, b'{"stream":"x","data":{"e":"nonsense"}}')


def _frames(name: str, block: bytes, *, short: bool = False) -> list[Attack]:
    return [
        Attack(name=name, run=partial(frames, block=block, count=1), ends=("1008",), aim=50.0),
        Attack(name=f"{name}-x8", run=partial(frames, block=block, count=8), ends=("1008",), short=short),
    ]


def _http2(
    name: str, run: Callable[..., Awaitable[None]], *, least: float = 0.0, short: bool = False
) -> list[Attack]:
    ends = ("GOAWAY 11", "GOAWAY 0")  # 0: it had as many requests as one connection may have
    return [
        Attack(name=name, run=partial(run, count=1), ends=ends, aim=50.0, tls=True),
        Attack(name=f"{name}-x8", run=partial(run, count=8), ends=ends, tls=True, short=short, least=least),
    ]


def _upstream(name: str, block: bytes, *, short: bool = False) -> list[Attack]:
    run = partial(upstream, block=block)
    return [
        Attack(name=name, run=run, hostile_upstreams=1, aim=50.0),
        Attack(name=f"{name}-x8", run=run, hostile_upstreams=8, short=short),
    ]


def _face(
    name: str, run: Run, *, least: float = 0.0, short: bool = False, ends: tuple[str, ...] = ()
) -> Attack:
    return Attack(name=name, run=run, all_faces=True, least=least, short=short, ends=ends)


def _talk(name: str, path: str, opening: Sequence[bytes], block: bytes, **more: Any) -> Attack:
    run = partial(faces.messages, path=path, opening=opening, block=block, count=8, **more)
    return _face(name, run)


def _asks(name: str, request: str, body: str = "", *, short: bool = False) -> Attack:
    return _face(name, partial(faces.requests, request=request, count=8, body=body), short=short)


FACES: Final = (
    _talk("hub-pings-x8", "/blockchain", [faces.HUB], faces.HUB_PINGS),
    _talk("hub-mistakes-x8", "/blockchain", [faces.HUB], faces.HUB_MISTAKES),
    _talk("graphql-pings-x8", "/graphql", [faces.INIT], faces.GRAPHQL_PINGS, protocol="graphql-transport-ws"),
    _talk("graphql-queries-x8", "/graphql", [faces.INIT], faces.QUERIES, protocol="graphql-transport-ws"),
    _talk("stomp-frames-x8", "/ws/websocket", [faces.STOMP], faces.STOMP_FRAMES),
    _talk("stomp-signals-x8", "/ws/websocket", [faces.STOMP], faces.STOMP_SIGNALS),
    _face("one-room", partial(faces.one_room, count=10, ids=99), least=4.0, short=True),
    _asks("negotiations-x8", "POST /blockchain/negotiate?negotiateVersion=1"),
    _asks("sockjs-clients-x8", "POST /ws/0/%d/xhr"),
    _asks("documents-x8", "POST /graphql", faces.DOCUMENT, short=True),
    _face("ticks-x95", partial(faces.ticks, block=faces.TICKS, count=95)),
    _face("refused-ticks-x95", partial(faces.ticks, block=faces.REFUSED_TICKS, count=95), short=True),
    _face("many-symbols-x8", partial(faces.ticks, block=faces.MANY_SYMBOLS, count=8)),
    _face("half-ticks", faces.half_ticks, ends=("closed",), least=12.0),
    _face("grpc-pings-x8", partial(faces.grpc, block=PINGS2, count=8), ends=("GOAWAY 11",)),
    _face("grpc-continued-x8", partial(faces.grpc, block=faces.CONTINUED, count=8), ends=("GOAWAY 1",)),
    _face("grpc-unread", partial(faces.grpc_unread, count=2), least=14.0),
    _face("grpc-reflection-x4", partial(faces.grpc_reflection, count=4)),
)

ALL: Final = (
    Attack(name="nothing", run=nothing, aim=50.0, short=True),
    Attack(name="silence", run=silence, short=True),
    Attack(name="half-heads", run=half_heads, ends=("408", "closed"), least=12.0),
    Attack(name="half-tls", run=half_tls, ends=("closed",), tls=True, least=10.0),
    Attack(name="tls-handshakes", run=tls_handshakes, tls=True, short=True),
    Attack(name="idle", run=idle, ends=("200",), least=36.0),
    *_frames("pings", PINGS, short=True),
    *_frames("empty-fragments", EMPTY, short=True),
    *_frames("byte-fragments", BYTES),
    Attack(name="bombs", run=partial(frames, block=BOMBS, count=1, extensions=DEFLATE), aim=50.0),
    Attack(name="bombs-x8", run=partial(frames, block=BOMBS, count=8, extensions=DEFLATE), short=True),
    Attack(
        name="bursting-bombs-x8",
        run=partial(frames, block=BURSTING, count=8, extensions=DEFLATE),
        ends=("1009",),
    ),
    *_http2("h2-settings", partial(http2_frames, block=SETTINGS), short=True),
    *_http2("h2-pings", partial(http2_frames, block=PINGS2)),
    *_http2("h2-rapid-reset", rapid_reset, least=15.0),
    Attack(name="h2-zero-windows", run=zero_windows, tls=True),
    Attack(name="garbage", run=garbage, short=True),
    Attack(name="slow-bodies", run=slow_bodies, ends=("408",), reads_bodies=True, least=65.0),
    Attack(
        name="unread-subscription",
        run=partial(never_reading, request=HANDSHAKE + SUBSCRIBE, count=100),
    ),
    Attack(name="unread-batch", run=partial(never_reading, request=HANDSHAKE + BIG, count=50), short=True),
    Attack(name="unread-events", run=partial(never_reading, request=SSE, count=100)),
    Attack(name="calls", run=partial(calls, count=1), aim=50.0),
    Attack(name="calls-x8", run=partial(calls, count=8), short=True),
    Attack(name="churn", run=churn, short=True),
    Attack(
        name="strangers",
        run=strangers,
        ends=("1013", "503", "closed"),
        max_files=64,
        full_house=True,
        short=True,
    ),
    Attack(name="unread-log", run=unread_log, ends=("202",), reads_log=False, short=True),
    *_upstream("upstream-pings", repeated(unmasked(0x89)), short=True),
    *_upstream("upstream-fragments", unmasked(0x01) + repeated(unmasked(0x00))),
    *_upstream("upstream-nonsense", repeated(NONSENSE)),
    *FACES,
    Attack(name="hour", run=partial(churn, most=200_000), least=1800.0, by_default=False),
)


def main() -> None:
    """`python -m tests.abuse.attacks NAME SECONDS PORT...`: attack, and print the report.

    The ports are those of the gateway, of gRPC and of ticks.
    """
    name, seconds, *ports = sys.argv[1:]
    port, grpc_port, ticks_port = map(int, ports)
    [chosen] = [attack for attack in ALL if attack.name == name]
    os.nice(10)

    async def attack() -> None:
        target = Target(port, chosen.tls, grpc_port, ticks_port)
        for patience in PATIENCE:
            target.begun, target.seconds = trio.current_time(), float(seconds) * patience
            await chosen.run(target)
            if target.first is not None or not chosen.ends:
                break
        print(target.report(), flush=True)

    trio.run(attack)


if __name__ == "__main__":
    main()
