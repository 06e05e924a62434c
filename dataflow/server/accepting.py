"""Slots: the bound of connections between the accept and their first answer.

Rules of this file: a connection without a slot is not accepted. So a storm waits in the kernel, which is made
for that, and not as tasks and buffers. No connection keeps its slot for longer than `seconds`: a client that
says nothing loses the slot, not the connection.
"""

from __future__ import annotations

import trio


class Slots:
    """`count` slots, each for at most `seconds`; the task `run` takes them back after that time."""

    def __init__(self, count: int, seconds: float) -> None:
        self._semaphore = trio.Semaphore(count)
        self._seconds = seconds
        self._held: dict[object, float] = {}  # holder -> end of its time, in the order of that end
        self._taken = trio.Event()

    async def reserve(self) -> None:
        """Wait for a slot. The caller must `give` it to a holder, or `give_back`."""
        await self._semaphore.acquire()

    def give_back(self) -> None:
        """A reserved slot is not needed."""
        self._semaphore.release()

    def give(self, holder: object) -> None:
        """`holder` has the reserved slot until `leave`, or until its time is over."""
        self._held[holder] = trio.current_time() + self._seconds
        self._taken.set()

    def leave(self, holder: object) -> None:
        """`holder` does not need its slot any more. Not an error when it has none."""
        if self._held.pop(holder, None) is not None:
            self._semaphore.release()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._taken.wait()
            while self._held:
                holder, until = next(iter(self._held.items()))
                await trio.sleep_until(until)
                if self._held.get(holder, until + 1) <= until:
                    self.leave(holder)
            self._taken = trio.Event()
