"""Figures that are kept while things happen, for metrics to read.

Rules of this file: pure, without a clock. To keep a figure costs less than a microsecond, so it may be done
once a batch or a pass, but never once a trade or a delivery.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from attrs import define, field

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@define
class Histogram:
    """How many durations were at most so long. `total`: their sum, in seconds. `bounds`: seconds, growing."""

    total: float = 0.0
    bounds: Sequence[float] = SECONDS
    _counts: list[int] = field(init=False)

    @_counts.default
    def _none(self) -> list[int]:
        return [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound in seconds, with the number of durations up to it; the last bound is infinite."""
        return zip((*self.bounds, float("inf")), accumulate(self._counts), strict=True)


@define
class RecentMaximum:
    """The largest value of the last `window` seconds, and perhaps of some more: less than twice as many."""

    window: float = 30.0
    _number: float = 0.0  # of the present window: they lie side by side
    _highest: float = 0.0  # in it
    _before: float = 0.0  # in the window before it

    def add(self, value: float, now: float) -> None:
        """Take a value. `now`: seconds of a monotonic clock."""
        self._turn(now)
        self._highest = max(self._highest, value)

    def value(self, now: float) -> float:
        """The maximum; 0 without values."""
        self._turn(now)
        return max(self._highest, self._before)

    def _turn(self, now: float) -> None:
        number = now // self.window
        if number != self._number:
            self._before = self._highest if number == self._number + 1 else 0.0
            self._number, self._highest = number, 0.0


@define
class Lag:
    """How late the event loop wakes those whose time has come."""

    histogram: Histogram = field(factory=Histogram)
    recent: RecentMaximum = field(factory=RecentMaximum)
    _peak: float = 0.0  # since `take_peak`

    def add(self, seconds: float, now: float) -> None:
        """Count one delay that ended at `now`."""
        self.histogram.add(seconds)
        self.recent.add(seconds, now)
        self._peak = max(self._peak, seconds)

    def take_peak(self) -> float:
        """The longest delay since the last call, in seconds. For one caller alone."""
        peak, self._peak = self._peak, 0.0
        return peak
