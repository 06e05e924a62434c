"""The pace of one symbol, learned from its silences; and what an upstream's newest trade says about ours.

Rules of this file. Pure: times are given, in seconds of a clock that never jumps. A silence that is longer
than the pace suggests proves nothing, it is a reason to ask. Nothing is concluded from an answer that is
older than what we have, or cannot be compared with it, or may come from a wrong clock.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import define

from .port import Newest

LEAST: Final = 5.0  # seconds of silence that are worth a question, whatever the pace is, or unknown
MOST: Final = 120.0  # and those that always are
_TIMES: Final = 3.0  # the longest silence of late: more is unusual
_FADES: Final = 0.95  # with each silence: of 14 it remembers half
_JUMP: Final = 10_000_000  # numbers: several days of the busiest symbols
_OFF: Final = 60.0  # seconds that clocks and ways may differ by


@define
class Cadence:
    """How long a symbol is silent between its trades, of late. `longest`: None before the first silence.

    `fixed`: seconds of silence that are usual, whatever was learned; 0: what was learned counts.
    """

    fixed: float = 0.0
    longest: float | None = None

    def heard(self, silence: float) -> None:
        """A trade has ended a silence of so many seconds."""
        before = 0.0 if self.longest is None else self.longest * _FADES
        self.longest = max(min(silence, MOST), before)

    @property
    def patience(self) -> float:
        """Seconds of silence that are usual."""
        if self.fixed:
            return self.fixed
        return LEAST if self.longest is None else min(max(self.longest * _TIMES, LEAST), MOST)


class Compared(Enum):
    """The newest trade of an upstream, beside the newest one that is known."""

    NEWER = "newer"
    SAME = "same"
    UNCLEAR = "unclear"


def compare(told: Newest, known: Newest, age: float) -> Compared:
    """What the upstream tells, beside what is known, which came `age` seconds ago."""
    if told.sequence is not None and known.sequence is not None:
        step = told.sequence - known.sequence
        if step == 0:
            return Compared.SAME
        return Compared.NEWER if 0 < step <= _JUMP else Compared.UNCLEAR
    if told.trade_id is not None and told.trade_id == known.trade_id:
        return Compared.SAME
    if told.timestamp is None or known.timestamp is None:
        return Compared.UNCLEAR
    later = (told.timestamp - known.timestamp) / 1e9
    if later == 0 and None in (told.trade_id, known.trade_id):
        return Compared.SAME
    return Compared.NEWER if 0 < later <= age + _OFF else Compared.UNCLEAR
