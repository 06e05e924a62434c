"""What attackers are made of: a connection from an address of its own, and how it ended.

Rules of this file: every attacker is bounded by the time that it is given, and comes from 127.0.0.2 or above.
An attacker keeps no more of what it hears than it needs to tell how it was let go.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio
from attrs import define, field

LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, ssl.SSLError)
BLOCK: Final = 1 << 16  # bytes that a flood sends at once
HOSTS: Final = 200  # attackers' addresses
KEPT: Final = 1 << 17  # bytes
AFTER_REFUSAL: Final = 0.05  # seconds
STAYED: Final = "stayed"  # how an attacker ended that was not let go
_MASK: Final = b"\x80\x80\x80\x80"
_MASKED: Final = bytes(byte ^ _MASK[0] for byte in range(256))


def _trusting(*protocols: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(list(protocols))
    return made


_PLAIN: Final = _trusting("http/1.1")
_HTTP2: Final = _trusting("h2")


@define
class Target:
    """Where the daemon is, and how long an attack may take. `ends` and `first` tell how attackers were let go."""

    port: int = 0
    tls: bool = False
    grpc_port: int = 0
    ticks_port: int = 0
    seconds: float = 10.0
    begun: float = field(factory=trio.current_time)
    ends: Counter[str] = field(factory=Counter)
    first: float | None = None  # seconds until one was let go
    done: int = 0  # pieces of work: connections, calls, handshakes
    _hosts: int = 0

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.begun + self.seconds - trio.current_time()

    def ended(self, how: str) -> None:
        self.ends[how] += 1
        if how != STAYED and self.first is None:
            self.first = trio.current_time() - self.begun

    def next_host(self) -> str:
        """A loopback address other than the bystander's."""
        self._hosts = self._hosts % HOSTS + 1
        return f"127.0.0.{self._hosts + 1}"

    async def plain(
        self, host: str = "", receive_buffer: int = 0, port: int | None = None
    ) -> trio.SocketStream:
        """A TCP connection. Raises OSError."""
        made = trio.socket.socket()
        try:
            if receive_buffer:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await made.bind((host or self.next_host(), 0))
            await made.connect(("127.0.0.1", port or self.port))
        except BaseException:
            made.close()
            raise
        return trio.SocketStream(made)

    async def open(self, host: str = "", http2: bool = False) -> trio.abc.Stream:
        """A connection, encrypted if the daemon's are. Raises one of `LOST`."""
        stream = await self.plain(host)
        if not self.tls:
            return stream
        secure = trio.SSLStream(stream, _HTTP2 if http2 else _PLAIN, https_compatible=True)
        await secure.do_handshake()
        return secure

    async def websocket(
        self, host: str = "", path: str = "/ws", protocol: str = "", extensions: str = ""
    ) -> trio.abc.Stream:
        """A WebSocket behind its handshake. Raises one of `LOST`."""
        stream = await self.open(host)
        await stream.send_all(handshake(path, protocol, extensions))
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = await stream.receive_some()
            if not chunk:
                raise trio.BrokenResourceError
            head += chunk
        return stream

    async def flood(self, stream: trio.abc.Stream, block: bytes, how: Callable[[bytes], str]) -> None:
        """Send `block` again and again. `how` tells from the last bytes heard how the daemon let go."""
        heard = bytearray()

        async def hear() -> None:
            with suppress(*LOST):
                while chunk := await stream.receive_some():
                    heard.extend(chunk)
                    del heard[:-KEPT]
            receiving.cancel_scope.cancel()

        with trio.move_on_after(max(self.left, 0)) as all_of_it:
            async with trio.open_nursery() as receiving:
                receiving.start_soon(hear)
                with suppress(*LOST):
                    while True:
                        await stream.send_all(block)
                        self.done += 1
        self.ended(STAYED if all_of_it.cancelled_caught else how(bytes(heard)))
        await trio.aclose_forcefully(stream)

    async def listen(self, stream: trio.abc.Stream, how: Callable[[bytes], str]) -> None:
        """Say nothing more, and tell how it ends."""
        heard = b""
        with trio.move_on_after(max(self.left, 0)) as all_of_it, suppress(*LOST):
            while chunk := await stream.receive_some():
                heard = (heard + chunk)[-KEPT:]
        self.ended(STAYED if all_of_it.cancelled_caught else how(heard))
        await trio.aclose_forcefully(stream)

    async def crowd(self, count: int, one: Callable[[], Awaitable[None]], again: bool = False) -> None:
        """`count` attackers at the same time; with `again` each comes back until the time is over.

        One that finds no connection ends as "refused".
        """

        async def guarded() -> None:
            while True:
                try:
                    await one()
                except LOST:
                    self.ended("refused")
                    await trio.sleep(AFTER_REFUSAL)
                if not again or self.left <= 0:
                    break

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(guarded)

    def report(self) -> str:
        """One line of JSON."""
        return json.dumps({"ends": dict(self.ends), "first": self.first, "done": self.done})


def handshake(path: str = "/ws", protocol: str = "", extensions: str = "") -> bytes:
    """The request of a WebSocket, which may want a subprotocol and extensions."""
    wanted = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    wanted += f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{wanted}\r\n"
    ).encode()


HANDSHAKE: Final = handshake()


def masked(first_byte: int, payload: bytes = b"") -> bytes:
    """A frame of a client. `first_byte`: opcode and FIN."""
    length = len(payload)
    if length < 126:
        head = bytes((first_byte, 0x80 | length))
    else:
        head = bytes((first_byte, 0x80 | 126)) + length.to_bytes(2, "big")
    return head + _MASK + payload.translate(_MASKED)


def unmasked(first_byte: int, payload: bytes = b"") -> bytes:
    """A short frame of a server."""
    assert len(payload) < 126
    return bytes((first_byte, len(payload))) + payload


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def http2(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def repeated(unit: bytes) -> bytes:
    """About `BLOCK` bytes of `unit`."""
    return unit * max(1, BLOCK // len(unit))


def call(method: str, params: str, serial: int = 1) -> bytes:
    """A call in a frame."""
    return masked(0x81, _request(method, params, serial))


def batch(method: str, params: str, count: int) -> bytes:
    """A batch of calls in a frame."""
    return masked(0x81, b"[" + b",".join(_request(method, params, n) for n in range(count)) + b"]")


def _request(method: str, params: str, serial: int) -> bytes:
    return f'{{"jsonrpc":"2.0","id":{serial},"method":"{method}","params":{params}}}'.encode()


def by_websocket(heard: bytes) -> str:
    """The close code, when the last frame is one."""
    for at in range(len(heard) - 4, max(-1, len(heard) - 128), -1):
        if heard[at] == 0x88 and heard[at + 1] == len(heard) - at - 2:
            return str(int.from_bytes(heard[at + 2 : at + 4], "big"))
    return "cut off"


def by_http(heard: bytes) -> str:
    """The status of the last answer, or that there was none."""
    status = heard.rpartition(b"HTTP/1.1 ")[2][:3]
    return status.decode() if heard and status.isdigit() else "closed"


def by_http2(heard: bytes) -> str:
    """The error of a GOAWAY; else the number of streams that were reset."""
    at, resets = 0, 0
    while at + 9 <= len(heard):
        length, kind = int.from_bytes(heard[at : at + 3], "big"), heard[at + 3]
        if kind == 7:
            return f"GOAWAY {int.from_bytes(heard[at + 13 : at + 17], 'big')}"
        resets += kind == 3
        at += 9 + length
    return f"{resets} resets" if resets else "cut off"


@asynccontextmanager
async def listening(handle: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve `handle` on a free port of the loopback, for as long as the block lasts. Gives the port."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
