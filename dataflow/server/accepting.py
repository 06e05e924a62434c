"""How many connections may be between the accept and their first answer.

Rules of this file: who has no place is not accepted, so that a storm waits in the kernel, which is made for
that, and not as tasks and buffers. Nobody keeps a place for longer than `seconds`: a client that says nothing
loses it, not its connection.
"""

from __future__ import annotations

import trio


class Places:
    """`count` places, each for at most `seconds`; `run` is the task that sees to the latter."""

    def __init__(self, count: int, seconds: float) -> None:
        self._semaphore = trio.Semaphore(count)
        self._seconds = seconds
        self._held: dict[object, float] = {}  # who, and until when: in that order
        self._taken = trio.Event()

    async def reserve(self) -> None:
        """Wait for a place. It must be given to somebody, or back."""
        await self._semaphore.acquire()

    def give_back(self) -> None:
        """A reserved place is not needed."""
        self._semaphore.release()

    def give(self, who: object) -> None:
        """The reserved place is `who`'s until `leave`, or until its time is over."""
        self._held[who] = trio.current_time() + self._seconds
        self._taken.set()

    def leave(self, who: object) -> None:
        """`who` needs its place no more. Not an error when it has none."""
        if self._held.pop(who, None) is not None:
            self._semaphore.release()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._taken.wait()
            while self._held:
                who, until = next(iter(self._held.items()))
                await trio.sleep_until(until)
                if self._held.get(who, until + 1) <= until:
                    self.leave(who)
            self._taken = trio.Event()
