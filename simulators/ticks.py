"""A producer: it connects to a source that listens, and pushes ticks by TCP.

A tick is a protobuf message behind its length in 4 bytes, big-endian. The server never writes; the end of its
side means that the producer should go, too.

Rule 1: when the connection ends, or there is none, it connects again `RETRY_AFTER` seconds later.
Rule 2: nothing is printed; `say` gets the lines.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import suppress

import trio
from attrs import frozen

from .client import why_unreachable

HOST, PORT = "127.0.0.1", 9000
RETRY_AFTER = 1.0
TOLD_EVERY = 10.0  # seconds


@frozen
class Report:
    """What a tick says. `timestamp`: ns since the epoch."""

    symbol: str
    price: float
    volume: int
    timestamp: int

    def frame(self) -> bytes:
        """The tick as it is sent."""
        symbol = self.symbol.encode()
        message = (
            b"\x0a" + _varint(len(symbol)) + symbol  # field 1, text
            + b"\x11" + struct.pack("<d", self.price)  # field 2, a double
            + b"\x18" + _varint(self.volume)  # fields 3 to 5, whole numbers
            + b"\x20" + _varint(self.timestamp)
            + b"\x28" + _varint(self.timestamp)
        )  # fmt: skip
        return struct.pack(">I", len(message)) + message


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # a negative one, as protobuf writes it
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


async def push_ticks(
    *,
    host: str = HOST,
    port: int = PORT,
    symbol: str = " aApL ",
    price: float = 100.25,
    volume: int = 10,
    every: float = 0.01,
    count: int | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Push a tick every `every` seconds, `count` of them (None: for ever). 0: as many as the server takes."""
    pusher = _Pusher(symbol, price, volume, every, count, say)
    while pusher.left is None or pusher.left > 0:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            say(f"cannot connect to {host}:{port}: {why_unreachable(error)}; trying again")
        else:
            say(f"connected to {host}:{port}")
            async with stream:
                await pusher.push(stream)
        if pusher.left is None or pusher.left > 0:
            await trio.sleep(RETRY_AFTER)
    say(f"{pusher.sent:,} ticks sent")


class _Pusher:
    def __init__(
        self,
        symbol: str,
        price: float,
        volume: int,
        every: float,
        count: int | None,
        say: Callable[[str], None],
    ) -> None:
        self.left = count
        self.sent = 0
        self._what = symbol, price, volume
        self._every = every
        self._say = say

    async def push(self, stream: trio.SocketStream) -> None:
        """Returns when all are sent or the connection has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stream, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError):
                await self._send(stream)
            nursery.cancel_scope.cancel()

    async def _send(self, stream: trio.SocketStream) -> None:
        due = told = trio.current_time()
        while self.left is None or self.left > 0:
            await stream.send_all(Report(*self._what, time.time_ns()).frame())
            self.sent += 1
            self.left = None if self.left is None else self.left - 1
            if trio.current_time() >= told + TOLD_EVERY:
                told = trio.current_time()
                self._say(f"{self.sent:,} ticks sent")
            due += self._every
            await trio.sleep_until(due)

    async def _watch(self, stream: trio.SocketStream, sending: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        self._say("the server has closed the connection")
        sending.cancel()
