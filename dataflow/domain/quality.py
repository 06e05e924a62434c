"""The quality of the data of a symbol at one source, and the best of several."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from attrs import frozen


class Grade(StrEnum):
    """The state of a symbol at a source, best first: by what a client can expect of it.

    A source that stands by, and is well, counts last. So in a failover the state of a symbol is that of its
    active source, as long as that one delivers.
    """

    LIVE = "live"
    QUIET = "quiet"  # connected, and nothing comes; with a reason: nobody knows whether anything trades
    REFILLING = "refilling"  # live; trades that were missed are being asked for
    GAPPED = "gapped"  # live; trades were missed lately, and could not be had
    STALLED = "stalled"  # the source has newer trades than it sends us, or what it sends must be refused
    IDLE = "idle"  # nobody wants the symbol
    LOST = "lost"  # not connected, or not subscribed yet
    REJECTED = "rejected"  # the source refuses the symbol
    STANDBY = "standby"  # another source is preferred


@frozen
class Quality:
    """The state of one symbol at one source.

    `since`: begin of this state, ns since epoch. `reason`: why the state is not better. `missing`: number of
    places that are gaps now. `lag`: seconds from a trade to its arrival here. None: not measured.
    """

    symbol: str
    source: str
    state: Grade
    since: int
    reason: str | None = None
    missing: int | None = None
    lag: float | None = None


def best(qualities: Iterable[Quality]) -> Quality | None:
    """The best of a symbol's qualities; of equal ones the oldest. None when there is no source."""
    order = list(Grade)
    return min(qualities, key=lambda quality: (order.index(quality.state), quality.since), default=None)
