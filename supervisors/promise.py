"""A result that arrives once: any number of tasks may wait for it, a cancelled waiter disturbs nobody.

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

    _event: trio.Event | None = (
        None  # made by the first waiter: most promises of a large pool are never waited for
    )
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
            self._event = None  # a third of a KiB, for as long as the promise is kept
