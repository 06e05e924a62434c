"""A circuit breaker: what has failed several times in a row is left alone for a while.

Rules of this file. Pure: no clock, `now` is given, seconds of a monotonic clock. Three states. Closed: every
attempt is allowed. After `after` failures in a row it is open: for `seconds` none is allowed. Then it is half
open: one attempt is allowed, and its result closes or opens it. A trial without a result, because whoever
made it is gone, is forgotten after `seconds`, so that nothing stays locked.

An attempt that began before the breaker opened tells nothing about the time after it: its failure counts, but
does not make an open breaker stay open for longer.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import define, field, validators


class Circuit(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@define
class Breaker:
    """Opens after `after` failures in a row, for `seconds`. `opened`: how often it did so."""

    after: int = field(validator=validators.ge(1))
    seconds: float = field(validator=validators.gt(0))
    failures: int = field(default=0, init=False)  # in a row
    opened: int = field(default=0, init=False)
    _open_until: float | None = field(default=None, init=False)  # None: closed
    _trial_until: float = field(default=float("-inf"), init=False)

    def state(self, now: float) -> Circuit:
        """The state at the time `now`."""
        if self._open_until is None:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self._open_until else Circuit.HALF_OPEN

    def wait(self, now: float) -> float:
        """Seconds until an attempt may be allowed; 0.0: one is allowed now."""
        if self._open_until is None:
            return 0.0
        return max(0.0, self._open_until - now, self._trial_until - now)

    def attempt(self, now: float) -> bool:
        """Ask for an attempt. True: it is allowed, and its result must be told."""
        if self.wait(now) > 0:
            return False
        if self._open_until is not None:
            self._trial_until = now + self.seconds
        return True

    def succeeded(self) -> None:
        """An attempt has succeeded: closed."""
        self.failures = 0
        self._open_until, self._trial_until = None, float("-inf")

    def failed(self, now: float) -> None:
        """An attempt has failed. Opens when it was the last of `after` in a row, or the trial."""
        self.failures += 1
        if self.failures >= self.after and self.state(now) is not Circuit.OPEN:
            self.opened += 1
            self._open_until, self._trial_until = now + self.seconds, float("-inf")

    def given_up(self) -> None:
        """An attempt has ended without a result: it was cut off from our side."""
        self._trial_until = float("-inf")
