"""A client's wire with injected faults: a thin layer around the real wire.

Rules of this file. A wire is wrapped only when faults may be injected, so it costs nothing otherwise. A fault
never tears a frame: it aborts the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from actors.session import Ending, Watcher, Wire, WireClosed
from dataflow.faults.passage import DISCONNECT, Passage
from dataflow.faults.registry import Faults

P = TypeVar("P")


class FaultyWire(Generic[P]):
    """A client's connection.

    Messages in both directions visit the fault point `message`, but only the reader suffers. So a fault can
    hit a silent client, and never the topic that sends to it.
    """

    def __init__(self, wire: Wire[P, Any], faults: Faults, path: str) -> None:
        self.peer, self.write, self.ping = wire.peer, wire.write, wire.ping
        self.stays, self.turn_binary = wire.stays, wire.turn_binary
        self._wire = wire
        self._passage = Passage(faults, path, partial(_cut, wire))
        self._receiving = trio.CancelScope()
        self._in_hand: list[Any] = []

    @property
    def heard(self) -> float:
        return self._wire.heard

    @property
    def pack(self) -> Callable[[Sequence[bytes]], P]:
        return self._wire.pack

    @property
    def plain(self) -> Callable[[Sequence[bytes]], P]:
        return self._wire.plain

    @property
    def size(self) -> Callable[[P], int]:
        return self._wire.size

    def piece(self, text: bytes, first: bool, last: bool) -> P:
        return self._wire.piece(text, first, last)

    way = None  # every message visits the fault point

    def watch(self, watcher: Watcher[P] | None) -> None:
        """The wire may ask its watcher for a last word."""
        self._wire.watch(watcher)

    def cut(self, payload: Any, taken: int) -> Any:
        raise AssertionError("there is no short way")

    def write_nowait(self, payload: P) -> P | None:
        if self._passage.visit():
            self._receiving.cancel()
        return self._wire.write_nowait(payload)

    async def receive(self) -> Any:
        while True:
            await self._passage.suffer()
            if self._in_hand:
                return self._in_hand.pop()
            with trio.CancelScope() as self._receiving:
                self._in_hand.append(await self._wire.receive())
                self._passage.visit()

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        self._passage.free()
        await self._wire.close(why, words, code)

    def abort(self) -> None:
        self._passage.free()
        self._wire.abort()


def _cut(wire: Wire[Any, Any]) -> WireClosed:
    wire.abort()
    return WireClosed(DISCONNECT)
