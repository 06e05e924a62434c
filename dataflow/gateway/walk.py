"""Walking through a part of a symbol's stream, however long it is, in constant memory.

Rules of this file. The order is that of the places, up or down, and every place within the bounds is told
once: in parts, so that nobody waits for more than some milliseconds, and nothing is held in between. No lock,
no turn, no file: who stops half-way has nothing to give back. Bounds of time count whole microseconds, as
clients see them.

A gap has no time. It may hold trades of a time unless the trades on both sides of it are earlier, or both are
later. So a range of time has the gaps that its missing trades may be in, and no others. A trade that came
late is told at its place, not at its time.
"""

from __future__ import annotations

import math
from typing import Final

import trio
from attrs import define, field, frozen

from dataflow.cache.places import Places, above, below, first_place
from dataflow.cache.tiers import AT_ONCE, Tiers
from dataflow.domain import Gap, Trade
from dataflow.domain.timestamps import EARLIEST, LATEST

BESIDE: Final = 4  # entries in which a trade is looked for: few gaps stand side by side


@frozen
class Bounds:
    """A part of a stream: places above `after` and below `before`, at most the last one and 1.

    `start` and `end` (exclusive): of the trades' times, ns since the epoch; None: no bound. `descending`:
    from the last place to the first.
    """

    after: int
    before: int
    start: int | None = None
    end: int | None = None
    descending: bool = False


class Walk:
    """Goes through the entries within `bounds`, each with its last place.

    `at`: all up to this place is told; walking down, all from this place on. `over`: there is nothing more.
    """

    def __init__(self, tiers: Tiers, symbol: str, bounds: Bounds) -> None:
        self.at = bounds.before if bounds.descending else bounds.after
        self.over = False
        self._tiers = tiers
        self._symbol = symbol
        self._bounds = bounds
        self._stop = bounds.after if bounds.descending else bounds.before  # the first place that is not told
        timed = bounds.start is not None or bounds.end is not None
        self._sieve = _Sieve.of(bounds) if timed else None
        self._inside = not timed  # whether it has gone to where the range of time begins

    @property
    def told(self) -> int:
        """The place to go on from: `at`, but for gaps that wait for the next trade."""
        waiting = [] if self._sieve is None else self._sieve.gaps
        if not waiting:
            return self.at
        last, gap = waiting[0]
        return last + 1 if self._bounds.descending else gap.first - 1

    async def part(self) -> Places:
        """The next entries, some 2,000 at most: none at the end, and also where many others lie before the
        next one. Raises ArchiveFailed; then it can be asked again."""
        await trio.lowlevel.checkpoint()
        if not self._inside:
            await self._go_inside()
            self._inside = True
        places = await (self._down() if self._bounds.descending else self._up())
        if self._sieve is None:
            return places
        told = self._sieve.sift(places)
        if self.over:
            return [*told, *self._sieve.rest()]
        if not told and not self._sieve.gaps and not self._bounds.descending:
            await self._skip()
        return told

    async def _up(self) -> Places:
        places = below(await self._tiers.behind(self._symbol, self.at, AT_ONCE), self._stop)
        self.at = places[-1][0] if places else self._stop - 1
        self.over = self.at >= self._stop - 1
        return places

    async def _down(self) -> Places:
        found = await self._tiers.preceding(self._symbol, self.at, AT_ONCE) if self.at > 1 else ()
        places = above(found, self._stop)
        self.at = first_place(*places[0]) if places else self._stop + 1
        self.over = self.at <= self._stop + 1
        return places[::-1]

    # A range of time: where it lies among the places.

    async def _go_inside(self) -> None:
        assert self._sieve is not None
        bottom, earlier = await self._bottom()
        if not self._bounds.descending:
            self.at, self._sieve.time = bottom, earlier
            return
        self._stop = bottom
        self.at, self._sieve.time = await self._top(bottom)

    async def _bottom(self) -> tuple[int, float]:
        """A place below all trades of the range and the gaps before them, and the time at it."""
        at = self._bounds.after
        if self._bounds.start is not None and not await self._is_gap_behind(at):
            before = await self._tiers.before(self._symbol, self._bounds.start, 1)
            if before and before[0].offset > at:
                at = min(before[0].offset, await self._skipped(at))
        return await self._beside(at)

    async def _is_gap_behind(self, at: int) -> bool:
        """Whether the next entry is a gap. The trade before it may be of the range, on an earlier page."""
        behind = await self._tiers.behind(self._symbol, at, 1)
        return bool(behind) and isinstance(behind[0][1], Gap)

    async def _top(self, bottom: int) -> tuple[int, float]:
        """A place above all trades of the range and the gaps behind them, and the time at it."""
        end, top = self._bounds.end, self._bounds.before - 1
        if end is not None:
            later = await self._tiers.after(self._symbol, end - 1000, 1)
            if later and later[0].offset < top:
                top = await self._last_inside(max(bottom, later[0].offset))
        for last, entry in await self._tiers.behind(self._symbol, top, BESIDE):
            if isinstance(entry, Trade):
                return top + 1, _microsecond(entry)
            top = min(last, self._bounds.before - 1)
        return top + 1, math.inf

    async def _last_inside(self, at: int) -> int:
        """The place of the last trade of the range, if it is higher than `at`: such ones came late."""
        assert self._sieve is not None
        found, end = at, self._bounds.before - 1
        while (at := await self._skipped(at)) < end:
            places = await self._tiers.behind(self._symbol, at, AT_ONCE)
            if not places:
                break
            inside = [last for last, entry in places if last <= end and self._sieve.has(entry)]
            found, at = (inside or [found])[-1], places[-1][0]
            await trio.lowlevel.checkpoint()
        return found

    async def _skip(self) -> None:
        """Go on where the next trade of the range may be."""
        assert self._sieve is not None
        to = await self._skipped(self.at)
        if to > self.at:
            at, time = await self._beside(min(to, self._stop - 1))
            if at > self.at:
                self.at = at
                self._sieve.time = time
        self.over = self.at >= self._stop - 1

    async def _skipped(self, at: int) -> int:
        start, end = self._bounds.start, self._bounds.end
        return await self._tiers.skip(
            self._symbol,
            at,
            EARLIEST if start is None else start // 1000 * 1000,
            LATEST if end is None else end // 1000 * 1000,
        )

    async def _beside(self, at: int) -> tuple[int, float]:
        """The place before the gaps that end at `at`, and the time of the trade there."""
        after = self._bounds.after
        for last, entry in reversed(await self._tiers.preceding(self._symbol, at + 1, BESIDE)):
            if isinstance(entry, Trade):
                return max(after, last), _microsecond(entry)
            at = entry.first - 1
        return max(after, at), -math.inf


@define
class _Sieve:
    """Lets through what belongs to a range of time, in microseconds. `time`: of the last trade that came."""

    start: float
    end: float
    time: float
    _end_of_stream: float  # the time of a trade that will never come
    gaps: list[tuple[int, Gap]] = field(factory=list)  # since then: the next trade decides about them

    @classmethod
    def of(cls, bounds: Bounds) -> _Sieve:
        start = -math.inf if bounds.start is None else bounds.start // 1000
        end = math.inf if bounds.end is None else bounds.end // 1000
        first, last = (math.inf, -math.inf) if bounds.descending else (-math.inf, math.inf)
        return cls(start, end, first, last)

    def has(self, entry: Trade | Gap) -> bool:
        """Whether it is a trade of the range."""
        return isinstance(entry, Trade) and self.start <= _microsecond(entry) < self.end

    def sift(self, places: Places) -> list[tuple[int, Trade | Gap]]:
        """Those of `places` that belong to the range. The last gaps wait for the next trade."""
        told: list[tuple[int, Trade | Gap]] = []
        for last, entry in places:
            if isinstance(entry, Gap):
                self.gaps.append((last, entry))
                continue
            time = _microsecond(entry)
            if self.gaps:
                told += self._decided(time)
            self.time = time
            if self.start <= time < self.end:
                told.append((last, entry))
        return told

    def rest(self) -> list[tuple[int, Gap]]:
        """What waits, when no more trade comes."""
        return self._decided(self._end_of_stream)

    def _decided(self, time: float) -> list[tuple[int, Gap]]:
        gaps, self.gaps = self.gaps, []
        return gaps if min(self.time, time) < self.end and max(self.time, time) >= self.start else []


def _microsecond(trade: Trade) -> int:
    return trade.timestamp // 1000
