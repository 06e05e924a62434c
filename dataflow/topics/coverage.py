"""Where in time trades are missing.

Rules of this file: pure. A gap has places and no time. What is missing lies between the last trade before it
and the first one behind it: of the gap's source, where it is known, else of any. Until that trade comes, the
hole has no end. A hole has no end either while a source is away that has given trades before: nobody knows
what it will have missed. It ends with the next trade of the source, and with a gap before that trade it
becomes that gap's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from dataflow.domain import Gap, Trade

MOST: Final = 200  # holes: beyond it the two oldest become one
ALWAYS: Final = -(1 << 62)  # before every time
NEVER: Final = 1 << 62


class Hole(msgspec.Struct, array_like=True):
    """Trades are missing from `begin` to `end`, ns since the epoch, both included.

    `source`: whose trade ends it, as long as `end` is NEVER; None: any. `is_away`: no gap is put yet.
    """

    gap: Gap
    begin: int
    end: int
    source: str | None
    is_away: bool = False


class Coverage(msgspec.Struct, array_like=True):
    """The holes in the stream of one symbol.

    `latest`: the time of the last trade of each source. `changed_since`: the earliest time of a change that
    nobody has looked at.
    """

    holes: list[Hole] = []
    latest: dict[str, int] = {}
    newest: int | None = None  # the time of the last trade
    changed_since: int = NEVER

    def follow(self, trades: Sequence[Trade]) -> None:
        """The next trades, at least one, in the order of their places."""
        if any(hole.end == NEVER for hole in self.holes):
            self._end(trades)
        for trade in {trade.source: trade for trade in trades}.values():
            self.latest[trade.source] = trade.timestamp
        self.newest = trades[-1].timestamp

    def miss(self, gap: Gap) -> None:
        """The next places are a gap."""
        before = self.newest if gap.source is None else self.latest.get(gap.source, self.newest)
        ends_it = gap.source if gap.exact else None  # an inexact one may be the end of its source
        self._add(Hole(gap, ALWAYS if before is None else before, NEVER, ends_it))

    def known(self, gap: Gap, begin: int, end: int) -> None:
        """A gap somewhere in the past, between these times."""
        for hole in self.holes:
            if hole.gap == gap:
                hole.begin, hole.end = min(hole.begin, begin), max(hole.end, end)
                return
        self._add(Hole(gap, begin, end, None))

    def away(self, source: str, place: int) -> None:
        """`source` is not connected; its next trade has `place` or a higher one. Idempotent."""
        before = self.latest.get(source)
        if before is not None and not any(hole.is_away and hole.source == source for hole in self.holes):
            gap = Gap(place, place, "source_gap", exact=False)
            self._add(Hole(gap, before, NEVER, source, is_away=True))

    def fill(self, first: int, last: int) -> None:
        """These places hold trades now."""
        holes: list[Hole] = []
        for hole in self.holes:
            gap = hole.gap
            if hole.is_away or gap.last < first or last < gap.first:
                holes.append(hole)
                continue
            self._changed(hole.begin)
            parts = ((gap.first, first - 1), (last + 1, gap.last))
            holes += [
                msgspec.structs.replace(hole, gap=gap.part(*part)) for part in parts if part[0] <= part[1]
            ]
        self.holes = holes

    def has(self, first: int, last: int) -> bool:
        """Whether these places were read as a gap that is not forgotten."""
        return any(
            not hole.is_away and hole.gap.first <= first and last <= hole.gap.last for hole in self.holes
        )

    def touching(self, start: int, end: int) -> tuple[Gap, ...]:
        """The gaps because of which trades of the window [start, end) may be missing."""
        found = [hole.gap for hole in self.holes if hole.begin < end and start <= hole.end]
        return tuple(sorted(found, key=lambda gap: gap.first)) if found else ()

    def forget(self, before: int) -> None:
        """Nobody asks for windows that end before this time any more."""
        self.holes = [hole for hole in self.holes if hole.end >= before]

    def gone(self, source: str, now: int) -> None:
        """`source` gives no trades of the symbol any more, and none is missing from the time `now` on."""
        for hole in self.holes:
            if hole.is_away and hole.source == source:
                hole.is_away, hole.end = False, max(hole.begin, now)
                self._changed(hole.begin)
        self.latest.pop(source, None)

    def _end(self, trades: Sequence[Trade]) -> None:
        """End the holes that one of `trades` ends."""
        firsts: dict[str | None, Trade] = {None: trades[0]}
        for trade in trades:
            firsts.setdefault(trade.source, trade)
        kept = []
        for hole in self.holes:
            first = firsts.get(hole.source) if hole.end == NEVER else None
            if first is not None:
                # A gap that names no source stands before a trade of its source, if it is of one at all.
                times = (hole.begin, first.timestamp, self.latest.get(first.source, hole.begin))
                hole.begin, hole.end = min(times), max(hole.begin, first.timestamp)
                self._changed(hole.begin)
            if first is None or not hole.is_away:
                kept.append(hole)
        self.holes = kept

    def _add(self, hole: Hole) -> None:
        self.holes.append(hole)
        self._changed(hole.begin)
        if len(self.holes) > MOST:
            one, other = self.holes[:2]
            first, last = min(one.gap.first, other.gap.first), max(one.gap.last, other.gap.last)
            both = Gap(first, last, one.gap.reason, exact=False)
            begin, end = min(one.begin, other.begin), max(one.end, other.end)
            self.holes[:2] = [Hole(both, begin, end, other.source if end == NEVER else None)]
            self._changed(begin)

    def _changed(self, since: int) -> None:
        self.changed_since = min(self.changed_since, since)
