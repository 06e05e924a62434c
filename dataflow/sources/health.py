"""How a source fares with one symbol: a score, and what follows from it.

Rules of this file: pure. The score is the sum of what the connection, the quality, the lag and the errors
earn; the parts are shown. It decides about one of five ranks. A source that has only begun (it connects for
the first time, or waits for the answer to its subscription) has a rank of its own. So has one that stands by
and is silent, and nobody knows why. The active one is not left for that: most such silences are those of a
market where nothing trades.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from attrs import frozen

CONNECTION: Final = 30  # points: what each part of a score can earn
QUALITY: Final = 30
LAG: Final = 20
ERRORS: Final = 20
GOOD: Final = 85  # points; below it a source is poor
LAG_FREE: Final = 1.0  # seconds of lag that cost nothing ...
LAG_WORST: Final = 10.0  # ... and that cost all
ERRORS_WORST: Final = 20  # unusable messages in a minute that cost all

# What a state of the quality earns. Any other one is not up.
_EARNED: Final[Mapping[str, int]] = {
    "live": QUALITY,
    "quiet": QUALITY,
    "idle": QUALITY,
    "standby": QUALITY,
    "refilling": QUALITY - 5,
    "gapped": QUALITY - 10,
    "subscribing": QUALITY - 20,
    "connecting": QUALITY - 20,
}
_BEGINNING: Final = ("subscribing", "connecting")


class Rank(IntEnum):
    """How a source is to be preferred, best first."""

    GOOD = 0
    POOR = 1  # it delivers
    UNSURE = 2  # it stands by, and nobody knows whether it would deliver
    BEGINNING = 3
    OUT = 4


@frozen
class Health:
    """How a source fares with one symbol. `state`: of its quality. The four parts are points of the score.

    `is_known`: its trades come, or nothing trades, and that was confirmed. The score has no part of it.
    """

    state: str
    connection: int
    quality: int
    lag: int
    errors: int
    is_known: bool = True

    @property
    def score(self) -> int:
        """0 to 100; 0 for one that is out."""
        return self.connection + self.quality + self.lag + self.errors if self.quality else 0

    @property
    def rank(self) -> Rank:
        if not self.quality or not self.connection:
            return Rank.OUT
        if self.state in _BEGINNING:
            return Rank.BEGINNING
        return Rank.GOOD if self.score >= GOOD else Rank.POOR

    @property
    def rank_in_standby(self) -> Rank:
        """Its rank while another source is preferred."""
        return self.rank if self.is_known else max(self.rank, Rank.UNSURE)

    @property
    def parts(self) -> Mapping[str, int]:
        """The parts of the score by their names."""
        return {
            "connection": self.connection,
            "quality": self.quality,
            "lag": self.lag,
            "errors": self.errors,
        }


def health(
    state: str, is_connected: bool, lag: float | None, errors: int, *, is_known: bool = True
) -> Health:
    """`state`: of the quality. `lag`: seconds from a trade to us; None: not measured. `errors`: unusable
    messages of the last minute. `is_known`: see `Health`."""
    earned = _EARNED.get(state, 0)
    connection = CONNECTION if is_connected else CONNECTION // 2 if state in _BEGINNING else 0
    behind = 0.0 if lag is None else (lag - LAG_FREE) / (LAG_WORST - LAG_FREE)
    bad = errors / ERRORS_WORST
    return Health(state, connection, earned, _left(LAG, behind), _left(ERRORS, bad), is_known)


def _left(points: int, share: float) -> int:
    return round(points * (1 - min(1.0, max(0.0, share))))
