"""Where the faults of a connection strike: thin layers around a source and around a client's wire.

Rules of this file. Nothing is wrapped unless faults may be injected, so that it costs nothing otherwise.
What has come stays in hand while a stroke lasts: a reader that gives up waiting and comes again waits on, and
loses nothing by it. Whatever a stroke does to a connection, no frame is torn: a client's is aborted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import trio

from actors.connector import Link, LinkLost, Received, Source
from actors.session import Wire, WireClosed

from .domain import Item
from .faults import MESSAGE, Faults, Kind, Strike
from .net.websocket.frames import VANISHED
from .sources.port import Codec

P = TypeVar("P")

DISCONNECT: Final = "injected disconnect"
_OF_A_READ: Final = tuple(kind for kind in Kind if kind is not Kind.DROP)


class FaultySource:
    """The source that `reach` makes of a codec's factory, as it fares with the faults of `path`."""

    def __init__(
        self,
        faults: Faults,
        path: str,
        reach: Callable[[Callable[[], Codec]], Source[Item]],
        make_codec: Callable[[], Codec],
    ) -> None:
        self._faults = faults
        self._path = path
        self._source = reach(lambda: FaultyCodec(make_codec(), faults, path))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[FaultyLink]:
        async with self._source.connect() as link:
            faulty = FaultyLink(link, self._faults, self._path)
            try:
                yield faulty
            finally:
                faulty.let_go()


class FaultyCodec:
    """A codec that does not get to see the raw messages which a fault drops."""

    def __init__(self, codec: Codec, faults: Faults, path: str) -> None:
        self.headers, self.opening, self.probe = codec.headers, codec.opening, codec.probe
        self.subscribe, self.unsubscribe, self.missed = codec.subscribe, codec.unsubscribe, codec.missed
        self._decode = codec.decode
        self._faults = faults
        self._path = path

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        strike = self._faults.visit(MESSAGE, self._path, (Kind.DROP,))
        if strike is None:
            self._decode(message, into)
        else:
            strike.end()


class FaultyLink:
    """A connection to an upstream. A read that has brought something visits `message` with it in hand."""

    def __init__(self, link: Link[Item], faults: Faults, path: str) -> None:
        self.subscribe, self.unsubscribe, self.probe = link.subscribe, link.unsubscribe, link.probe
        self._receive = link.receive
        self._passage = _Passage(faults, path, lambda: LinkLost(DISCONNECT))
        self._in_hand: list[Received[Item]] = []

    async def receive(self) -> Received[Item]:
        if not self._in_hand:
            self._in_hand.append(await self._receive())
            self._passage.visit()
        await self._passage.suffer()
        return self._in_hand.pop()

    def let_go(self) -> None:
        """The connection is over, and with it what it suffers."""
        self._passage.free()


class FaultyWire(Generic[P]):
    """A client's connection. Messages visit `message` in both directions, but it is the reader that suffers:
    a listener that says nothing can be struck, and the one who sends to it cannot."""

    def __init__(self, wire: Wire[P], faults: Faults, path: str) -> None:
        self.peer, self.pack, self.write, self.ping = wire.peer, wire.pack, wire.write, wire.ping
        self._wire = wire
        self._passage = _Passage(faults, path, self._cut)
        self._receiving = trio.CancelScope()
        self._in_hand: list[str] = []

    @property
    def heard(self) -> float:
        return self._wire.heard

    def write_nowait(self, payload: P) -> P | None:
        if self._passage.visit():
            self._receiving.cancel()
        return self._wire.write_nowait(payload)

    async def receive(self) -> str:
        while True:
            await self._passage.suffer()
            if self._in_hand:
                return self._in_hand.pop()
            with trio.CancelScope() as self._receiving:
                self._in_hand.append(await self._wire.receive())
                self._passage.visit()

    async def close(self, code: int, reason: str) -> None:
        self._passage.free()
        await self._wire.close(code, reason)

    def abort(self) -> None:
        self._passage.free()
        self._wire.abort()

    def _cut(self) -> WireClosed:
        self._wire.abort()
        return WireClosed(VANISHED, DISCONNECT)


class _Passage:
    """Where one connection's messages pass: a stroke is remembered until it has been suffered to its end."""

    def __init__(self, faults: Faults, path: str, disconnect: Callable[[], Exception]) -> None:
        self._faults = faults
        self._path = path
        self._disconnect = disconnect
        self._strike: Strike | None = None

    def visit(self) -> bool:
        """A message passes; True when a stroke waits to be suffered."""
        if self._strike is None:
            self._strike = self._faults.visit(MESSAGE, self._path, _OF_A_READ)
        return self._strike is not None

    async def suffer(self) -> None:
        """What there is to suffer: nothing, a wait, or an exception."""
        if self._strike is not None:
            if self._strike.kind is Kind.DISCONNECT:
                raise self._disconnect()
            await self._strike.suffer()
            self.free()

    def free(self) -> None:
        """Nothing is left to suffer. Idempotent."""
        if self._strike is not None:
            self._strike.end()
            self._strike = None
