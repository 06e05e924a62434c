"""A source with injected faults: a thin layer around the real one.

Rules of this file. Nothing is wrapped unless faults may be injected, so that it costs nothing otherwise.
Received items are kept while a fault lasts, so that a cancelled read loses nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.connector import Link, LinkLost, Received, Source
from dataflow.domain import Item
from dataflow.faults.passage import DISCONNECT, Passage
from dataflow.faults.registry import MESSAGE, Faults, Kind

from .port import Codec, Intaker


class FaultySource:
    """The source that `reach` makes from a factory of codecs, with the faults of the actor at `path`."""

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
    """A codec that never sees the raw messages that a fault drops."""

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


class FaultyIntaker:
    """The codec of a producer's connection. A fault drops the first item of what came at once."""

    def __init__(self, codec: Intaker, faults: Faults, path: str) -> None:
        self._codec = codec
        self._faults = faults
        self._path = path

    @property
    def whole(self) -> int:
        return self._codec.whole

    @property
    def begun(self) -> bool:
        return self._codec.begun

    def decode(self, data: bytes, into: Received[Item]) -> None:
        before = len(into.items)
        self._codec.decode(data, into)
        if len(into.items) == before:
            return
        strike = self._faults.visit(MESSAGE, self._path, (Kind.DROP,))
        if strike is not None:
            del into.items[before]
            strike.end()


class FaultyLink:
    """A connection to an upstream. A read keeps its items and then visits the point `message`."""

    def __init__(self, link: Link[Item], faults: Faults, path: str) -> None:
        self.turn, self.probe, self.part = link.turn, link.probe, link.part
        self.subscribe, self.unsubscribe = link.subscribe, link.unsubscribe
        self._receive = link.receive
        self._passage = Passage(faults, path, lambda: LinkLost(DISCONNECT))
        self._in_hand: list[Received[Item]] = []

    async def receive(self) -> Received[Item]:
        if not self._in_hand:
            self._in_hand.append(await self._receive())
            self._passage.visit()
        await self._passage.suffer()
        return self._in_hand.pop()

    def let_go(self) -> None:
        """The connection has ended, so its faults end too."""
        self._passage.free()
