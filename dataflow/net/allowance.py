"""How often a peer may do what costs us more than the bytes it sends: pings, small fragments, settings.

Rules of this file: pure, the caller tells the time. A peer that behaves never comes near the bounds; one that
goes beyond them has used a few milliseconds of ours, and is let go.
"""

from __future__ import annotations

AT_ONCE = 1000
A_SECOND = 100


class Allowance:
    """`AT_ONCE` things at once, and `A_SECOND` a second for as long as one likes."""

    __slots__ = ("_at", "_taken")

    def __init__(self) -> None:
        self._taken = 0.0  # as a bucket that leaks
        self._at = 0.0  # seconds

    def take(self, now: float) -> bool:
        """One more thing, at `now` seconds. False: it is beyond the bounds."""
        if now > self._at:
            self._taken = max(0.0, self._taken - (now - self._at) * A_SECOND)
            self._at = now
        self._taken += 1
        return self._taken <= AT_ONCE

    def give(self, count: int) -> None:
        """We caused so many of the things that the peer does: they do not count."""
        self._taken = max(0.0, self._taken - count)
