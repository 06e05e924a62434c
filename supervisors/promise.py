"""A result that arrives once. Any number of tasks may wait for it; a cancelled waiter disturbs nobody.

Only for use inside one Trio run. The first outcome stays; later ones are ignored.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio
from attrs import define

T = TypeVar("T")


@define(eq=False)
class Promise(Generic[T]):
    """One value or one error, later."""

    # Made by the first waiter: nobody ever waits for most promises of a large pool.
    _event: trio.Event | None = None
    _value: T | None = None
    _error: BaseException | None = None
    done: bool = False

    def resolve(self, value: T) -> None:
        """Deliver the value."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Deliver an error."""
        self._settle(None, error)

    @property
    def failed(self) -> bool:
        """True once an error has been delivered."""
        return self._error is not None

    async def wait(self) -> None:
        """Wait for the outcome without raising it."""
        if self.done:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()

    async def get(self) -> T:
        """Wait for the outcome: the value, or raise the error."""
        await self.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # done without an error: the value is there

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        if self._event is not None:
            self._event.set()
            self._event = None  # it takes a third of a KiB, and a promise may be kept for long
