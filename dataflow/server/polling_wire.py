"""A wire over many HTTP responses: long polling, where each response takes what waits and ends.

Rules of this file. At most one poll waits; a newer one takes its place. A client shows that it is there by
its polls: one that has none open for a while is gone. What a poll has taken counts until the next one comes,
which shows that the client has it. Buffer and inbox are those of `response_wire`.
"""

from __future__ import annotations

import math

import trio

from .response_wire import ResponseWire


class PollingWire(ResponseWire):
    """One client's polls. It is gone when none of them is open for `gone_after` seconds."""

    def __init__(self, *, peer: str, gone_after: float) -> None:
        super().__init__(peer=peer)
        self._gone_after = gone_after
        self._gone_words = f"no poll for {gone_after:g} s"
        self._gone_at = trio.current_time() + gone_after  # infinite while a poll is open
        self._polls = 0  # their numbers; the newest one counts
        self._handed = b""  # what the last poll took

    @property
    def polled(self) -> bool:
        """Whether a poll is open."""
        return self._gone_at == math.inf and not self.over

    async def poll(self, within: float) -> bytes | None:
        """What waits, or comes within so many seconds; then b"".

        None: the connection has ended (`over`), or a newer poll has taken the place of this one. A poll that
        is cancelled has taken nothing.
        """
        self._polls += 1
        mine = self._polls
        self._gone_at = math.inf
        self._taken(self._handed)
        self._handed = b""
        try:
            with trio.move_on_after(within):
                while not self._buffer and not self._ended and self._polls == mine:
                    await self._changed.wait()
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._polls != mine:
                return None
            if self._buffer:
                self._handed = self._take()
            elif self._ended:
                self.leave("the client has left")
                return None
            return self._handed
        finally:
            if self._polls == mine:
                self._gone_at = trio.current_time() + self._gone_after
                self._wake_session()
