"""How good the data of a symbol is, by source: a value, and the best of several."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from attrs import frozen


class Grade(StrEnum):
    """The state of a symbol at a source, best first."""

    LIVE = "live"
    IDLE = "idle"  # nobody wants it
    LOST = "lost"  # not connected, or not subscribed yet
    REJECTED = "rejected"  # the source refuses the symbol


@frozen
class Quality:
    """The state of one symbol at one source since a moment, in ns since epoch, and why it is no better.

    `missing`: places that are gaps now. `lag`: seconds from a trade to us. None: not measured.
    """

    symbol: str
    source: str
    state: Grade
    since: int
    reason: str | None = None
    missing: int | None = None
    lag: float | None = None


def best(qualities: Iterable[Quality]) -> Quality | None:
    """Of a symbol's qualities at its sources the best; the oldest of equal ones. None when there is no
    source."""
    order = list(Grade)
    return min(qualities, key=lambda quality: (order.index(quality.state), quality.since), default=None)
