"""Where one connection's messages pass: a fault that strikes there is remembered until it is over.

Rules of this file. The faulty layers around a source and around a client's wire share it: `sources.faulty`,
`gateway.faulty`. A reader may give up waiting and come again: it waits on, and loses nothing by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .registry import MESSAGE, Faults, Kind, Strike

DISCONNECT: Final = "injected disconnect"
_OF_A_READ: Final = tuple(kind for kind in Kind if kind is not Kind.DROP)


class Passage:
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
