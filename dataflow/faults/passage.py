"""The point `message` of one connection. A fault that strikes there is remembered until it is over.

Rules of this file. The faulty layers around a source (`sources.faulty`) and around a client's wire
(`gateway.faulty`) share it. A reader may be cancelled while it waits and read again: the wait goes on and no
message is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .registry import MESSAGE, Faults, Kind, Strike

DISCONNECT: Final = "injected disconnect"
_OF_A_READ: Final = tuple(kind for kind in Kind if kind is not Kind.DROP)


class Passage:
    """Strikes one connection. A strike is kept until its wait or its exception is over.

    `disconnect` makes the exception for a lost connection.
    """

    def __init__(self, faults: Faults, path: str, disconnect: Callable[[], Exception]) -> None:
        self._faults = faults
        self._path = path
        self._disconnect = disconnect
        self._strike: Strike | None = None

    def visit(self) -> bool:
        """A message passes. Returns True when a strike waits for `suffer`."""
        if self._strike is None:
            self._strike = self._faults.visit(MESSAGE, self._path, _OF_A_READ)
        return self._strike is not None

    async def suffer(self) -> None:
        """Apply the strike, if there is one: wait, or raise InjectedFault or the error of `disconnect`."""
        if self._strike is not None:
            if self._strike.kind is Kind.DISCONNECT:
                raise self._disconnect()
            await self._strike.suffer()
            self.free()

    def free(self) -> None:
        """End the strike, if there is one. Idempotent."""
        if self._strike is not None:
            self._strike.end()
            self._strike = None
