"""The actor that keeps the process below `[gateway] max_memory`.

Rules of this file. Above the bound nobody new comes in, and the greediest clients are let go, told why: those
with the most bytes waiting, until what waited for them covers the excess. A client may come back with its
position and loses nothing that is still cached. What is free is given back to the system before anything is
decided. In a large process that holds everybody up, so it has a bounded share of the time.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from loguru import logger

from actors.session import Ending
from supervisors import Context

from .lobby import Lobby

LOOK_EVERY: Final = 1.0  # seconds
FINE_BELOW: Final = 0.95  # of the bound: then new clients come in again
GREEDY_BYTES: Final = 65_536  # waiting; letting go of a client with less would not help
FREEING_SHARE: Final = 0.05  # of the time, at most, for giving memory back
_STATM: Final = Path("/proc/self/statm")


def _give_back() -> None:
    """Free what can be freed, and give it back: the C library keeps what was freed."""
    gc.collect()
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class MemoryGuard:
    """`most`: bytes. `resident()`: the bytes that the process has now; None when nobody knows.
    `give_back()`: return to the system what is free. It does not wait, but may take long."""

    def __init__(
        self,
        lobby: Lobby,
        most: int,
        resident: Callable[[], int | None],
        give_back: Callable[[], None] = _give_back,
    ) -> None:
        self._lobby = lobby
        self._most = most
        self._resident = resident
        self._give_back = give_back
        self._again_at = -math.inf

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        while True:
            self._look(ctx.path)
            await trio.sleep(LOOK_EVERY)

    def _look(self, path: str) -> None:
        resident = self._resident()
        if resident is not None and resident > self._most:
            if trio.current_time() < self._again_at:
                return
            self._free()
            resident = self._resident()
        if resident is None:
            return
        log, lobby = logger.bind(path=path), self._lobby
        if resident > self._most:
            let_go = self._let_go(resident - self._most)
            if let_go or not lobby.short_of_memory:
                log.warning(
                    "{:,} MiB of memory, more than max_memory: {:,} clients let go, no new ones come in",
                    resident >> 20,
                    let_go,
                )
            lobby.short_of_memory = True
        elif lobby.short_of_memory and resident <= FINE_BELOW * self._most:
            lobby.short_of_memory = False
            log.info("{:,} MiB of memory: new clients come in again", resident >> 20)

    def _free(self) -> None:
        began = trio.current_time()
        self._give_back()
        ended = trio.current_time()
        self._again_at = ended + (ended - began) / FREEING_SHARE

    def _let_go(self, excess: int) -> int:
        """Returns how many."""
        greedy = [session for session in self._lobby.clients if session.waiting_bytes >= GREEDY_BYTES]
        greedy.sort(key=lambda session: session.waiting_bytes, reverse=True)
        let_go = 0
        for session in greedy:
            if excess <= 0:
                break
            excess -= session.waiting_bytes
            let_go += 1
            session.end(Ending.SLOW, f"too little memory: {session.waiting_bytes} bytes were waiting")
        return let_go


def resident_bytes() -> int | None:
    """What the process has in memory now, on Linux; elsewhere None."""
    with suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
