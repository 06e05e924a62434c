"""Producers of ticks that keep account of what they have sent, by TCP and by gRPC.

Rules of this file. No two ticks of a producer are equal: the volume is their number. None is sent again. A
producer comes again after every end, and ends a connection of its own accord after `AT_ONCE` ticks.
"""

from __future__ import annotations

import re
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Final

import trio
from attrs import define, field

from dataflow.protobuf import marketdata_pb2 as pb

from .check import Push, Seen
from .client import AGAIN_AFTER, dial
from .grpc import Calls

SOURCE: Final = "ticks"
EVERY: Final = 0.02  # seconds
AT_ONCE: Final = 200  # ticks over one connection
_TAKEN: Final = re.compile(r"Received (\d+) ticks")


@define(eq=False)
class Producer(ABC):
    """Pushes ticks of `symbol` to `host`:`port`. `pushes`: what it has sent, by connection."""

    host: str
    port: int
    symbol: str
    pushes: list[Push] = field(factory=list)
    paused: bool = False
    _count: int = 0

    @property
    def pushing(self) -> bool:
        """Whether it has a connection."""
        return bool(self.pushes) and not self.pushes[-1].over

    async def run(self) -> None:
        """Connect, push and come again until cancelled."""
        while True:
            with suppress(OSError):
                await self._visit()
            await trio.sleep(AGAIN_AFTER)

    @abstractmethod
    async def converse(self, stream: trio.SocketStream, push: Push) -> None:
        """Push, as long as the connection lasts. May raise what a lost connection raises."""

    async def next(self, push: Push) -> bytes | None:
        """The next tick of `push`, when it is due; None at its end."""
        await trio.sleep(EVERY)
        while self.paused:  # noqa: ASYNC110 - until the end of the rehearsal
            await trio.sleep(EVERY)
        if len(push.sent) == AT_ONCE:
            return None
        self._count += 1
        price = 100 + self._count % 50 / 4
        push.sent.append(Seen(SOURCE, None, None, Decimal(repr(price)), Decimal(self._count)))
        tick = pb.Tick(symbol=self.symbol, price=price, volume=self._count, exchange_timestamp=time.time_ns())
        return tick.SerializeToString()

    async def _visit(self) -> None:
        stream, push = await dial(self.host, self.port), Push()
        self.pushes.append(push)
        try:
            await self.converse(stream, push)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            push.over = True
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)


class ByTcp(Producer):
    """Frames: the length in four bytes, and the tick. What became of a tick nobody says."""

    async def converse(self, stream: trio.SocketStream, push: Push) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stream)
            while (tick := await self.next(push)) is not None:
                await stream.send_all(struct.pack(">I", len(tick)) + tick)
            await stream.send_eof()

    async def _watch(self, stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            raise AssertionError("the server never writes")
        raise trio.BrokenResourceError  # it has closed


class ByGrpc(Producer):
    """StreamTicks. The end of a call says how many ticks were taken."""

    async def converse(self, stream: trio.SocketStream, push: Push) -> None:
        calls = Calls(stream)
        number = await calls.call("StreamTicks")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say, calls, number, push)
            told = ""
            while number not in calls.ended:
                told += "".join(pb.Ack.FromString(message).message for _, message in await calls.hear())
            _status, words = calls.ended[number]
            push.taken = _taken(told or words)
            nursery.cancel_scope.cancel()

    async def _say(self, calls: Calls, number: int, push: Push) -> None:
        while (tick := await self.next(push)) is not None:
            await calls.say(number, tick)
        await calls.finish(number)


def _taken(words: str) -> int | None:
    found = _TAKEN.search(words)
    return None if found is None else int(found[1])


PRODUCERS: Final[Mapping[str, type[Producer]]] = {"ticks-tcp": ByTcp, "ticks-grpc": ByGrpc}  # by their names
