"""The bars of one symbol that can still change, at each interval that somebody wants.

Rules of this file: pure. Trades come in the order of their places, in runs. Each run becomes bars of its own,
and these are merged into the bars of every `Level`. So each level is the sum of all trades, however late they
came, and none is made of another one.

Time is that of the trades. The watermark is their highest time less the lateness; it can also be raised from
outside (see `settle`). A bar is closed when the watermark passes the end of its window. A later trade still
counts, and the bar is told again, until the end of the window is `revise_within` behind the highest time: how
late a trade is depends on the trades before it alone, so a recording makes the same bars as the live market
did. Trades that are later still are counted in `too_late`, and are in no bar of that level. No bar is made
for a window without trades.

A `Chain` has the bars of so many trades, or of a volume. They follow the places, not time, so a bar that is
closed never changes. A bar ends with the trade that reaches the limit, or before the first trade of a new UTC
day. A gap belongs to the bar of the next trade.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from decimal import Decimal
from itertools import takewhile
from math import gcd
from typing import Final, cast

from attrs import define, field

from dataflow.cache.places import Places
from dataflow.domain import Gap, Trade
from dataflow.domain.candle import DAY, CandleRules, Interval

from .candles import Bar, bars_of
from .coverage import ALWAYS, NEVER, Coverage

MOST_GAPS: Final = 100  # told of one bar of a chain: the others become one
KEPT: Final = 1000  # closed bars of a chain


@define(eq=False)
class Level:
    """The bars of one interval of time, by the starts of their windows.

    `since`: bars that start earlier are not kept, or not whole. `keep`: ns for which a closed bar is kept
    behind its last chance to be revised. `unsaved`: starts of closed bars that have changed since they were
    recorded; None where they are not. `revision`: the least number of changes of its bars, so that one which
    is made anew has a higher `rev` than it ever had before.
    """

    interval: Interval
    since: int = ALWAYS
    keep: int = 0
    bars: dict[int, Bar] = field(factory=dict)
    changed: dict[int, None] = field(factory=dict)  # starts of bars that have changed since they were taken
    unsaved: dict[int, None] | None = None
    revision: int = 0
    _open: dict[int, None] = field(factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether a bar is not closed."""
        return bool(self._open)

    def add(self, bar: Bar, dead: int) -> bool:
        """Merge `bar` into that of its window. False: that ended before the time `dead`, and is over."""
        width = self.interval.width
        start = bar.start // width * width
        if start + width < dead or start < self.since:
            return False
        mine = self.bars.get(start)
        if mine is None:
            self.put(bar.in_window(width, self.revision))
        else:
            mine.merge(bar)
            if mine.closed and self.unsaved is not None:
                self.unsaved[start] = None
        self.changed[start] = None
        return True

    def put(self, bar: Bar) -> None:
        """A bar of this level, as it is."""
        self.bars[bar.start] = bar
        if not bar.closed:
            self._open[bar.start] = None

    def settle(self, watermark: int, coverage: Coverage) -> None:
        """Close the bars whose windows are over, and look where trades are missing now."""
        width = self.interval.width
        for start in [start for start in self._open if start + width <= watermark]:
            del self._open[start]
            self.bars[start].closed = True
            self.changed[start] = None
            if self.unsaved is not None:
                self.unsaved[start] = None
        since = coverage.changed_since
        suspects = list(self.changed)
        if since < NEVER:
            suspects += [start for start in self.bars if start + width > since and start not in self.changed]
        for start in suspects:
            bar = self.bars[start]
            gaps = coverage.touching(start, start + width)
            if gaps != bar.gaps:
                bar.gaps = gaps
                bar.changes += 1
                self.changed[start] = None
                if bar.closed and self.unsaved is not None:
                    self.unsaved[start] = None

    @property
    def open_bars(self) -> list[Bar]:
        """The bars that are not closed."""
        return [self.bars[start] for start in self._open]

    def take(self) -> list[Bar]:
        """The bars that have changed since they were taken, oldest first."""
        starts = sorted(self.changed)
        self.changed.clear()
        return [self.bars[start] for start in starts]

    def forget(self, before: int) -> None:
        """Closed bars that end before this time, and that were taken, are not needed any more."""
        before -= self.keep
        over = takewhile(lambda bar: bar.closed and bar.end < before, self.bars.values())
        wanted = self.changed.keys() | (self.unsaved or {}).keys()
        for bar in list(takewhile(lambda bar: bar.start not in wanted, over)):
            del self.bars[bar.start]
            self.since = max(self.since, bar.end)


@define(eq=False)
class Chain:
    """The bars of one interval of trades or volume.

    `bar` is the open one. `closed` are those before it, the oldest first.
    """

    interval: Interval
    bar: Bar | None = None
    closed: deque[Bar] = field(factory=lambda: deque(maxlen=KEPT))
    _untaken: int = 0  # of the closed ones
    _changed: bool = False  # the open one
    _day_end: int = ALWAYS
    _gaps: tuple[Gap, ...] = ()

    def miss(self, gap: Gap) -> None:
        """The next places are a gap."""
        if self.bar is None:
            self._gaps = _few(self._gaps, gap)
        else:
            self.bar.gaps = _few(self.bar.gaps, gap)
            self.bar.changes += 1
            self._changed = True

    def take(self) -> list[Bar]:
        """The bars that have changed since they were taken, oldest first."""
        taken = list(self.closed)[max(0, len(self.closed) - self._untaken) :]
        if self.bar is not None and self._changed:
            taken.append(self.bar)
        self._untaken, self._changed = 0, False
        return taken

    def add(self, trades: Sequence[Trade], places: Sequence[int]) -> None:
        """The next trades, at least one, at these places."""
        self._changed = True
        at, count = 0, len(trades)
        while at < count:
            if trades[at].timestamp >= self._day_end:
                self._close()
                self._day_end = (trades[at].timestamp // DAY + 1) * DAY
            end = next((n for n in range(at, count) if trades[n].timestamp >= self._day_end), count)
            at = self._add(trades, places, at, end)

    def _add(self, trades: Sequence[Trade], places: Sequence[int], at: int, end: int) -> int:
        """Add trades until the bar is full; returns the index of the next one."""
        before = self.bar
        end, is_full = self._limit(trades, at, end)
        some = trades[at:end]
        part = _run_of(some, places[at], places[end - 1])
        if before is None:
            self.bar = part
            part.gaps, part.changes, self._gaps = self._gaps, len(self._gaps), ()
        else:
            opening, opened = before.first, before.first_place
            before.merge(part)
            before.first, before.first_place = opening, opened
            before.last, before.last_place = part.last, part.last_place
        if is_full:
            self._close()
        return end

    def _limit(self, trades: Sequence[Trade], at: int, end: int) -> tuple[int, bool]:
        """The index behind the last trade that belongs to the open bar, and whether that makes it full."""
        if self.interval.trades:
            room = self.interval.trades - (self.bar.count if self.bar else 0)
            return min(end, at + room), end - at >= room
        volume = self.bar.volume if self.bar else Decimal(0)
        for n in range(at, end):
            volume += trades[n].quantity
            if volume >= self.interval.volume:
                return n + 1, True
        return end, False

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.closed = True
            self.closed.append(self.bar)
            self._untaken += 1
            self.bar = None


def _run_of(trades: Sequence[Trade], first: int, last: int) -> Bar:
    """The bar of some trades in the order of their places, whatever their times are."""
    prices = [trade.price for trade in trades]
    quantities = [trade.quantity for trade in trades]
    start = trades[0].timestamp
    return Bar(
        start,
        start,
        trades[0],
        trades[-1],
        max(prices),
        min(prices),
        sum(quantities, Decimal(0)),
        len(trades),
        sum([trade.price * trade.quantity for trade in trades], Decimal(0)),
        sum([trade.quantity for trade in trades if trade.side == "buy"], Decimal(0)),
        first,
        last,
        first,
        last,
    )


def _few(gaps: tuple[Gap, ...], gap: Gap) -> tuple[Gap, ...]:
    if len(gaps) < MOST_GAPS:
        return (*gaps, gap)
    return (*gaps[:-1], Gap(gaps[-1].first, gap.last, gaps[-1].reason, exact=False))


@define(eq=False)
class Series:
    """All levels and chains of a symbol, by the names of their intervals.

    `position`: the place up to which trades were read; `fills`: the number of the last fill that was looked
    at. `high`: the highest time of a trade. `watermark`: windows that end up to it are over. `too_late`
    counts trades by interval, `in_future` those that are in no bar because their times are not credible.
    """

    rules: CandleRules
    position: int = 0
    high: int = ALWAYS
    watermark: int = ALWAYS
    coverage: Coverage = field(factory=Coverage)
    levels: dict[str, Level] = field(factory=dict)
    chains: dict[str, Chain] = field(factory=dict)
    fills: int = 0
    too_late: Counter[str] = field(factory=Counter)
    in_future: int = 0

    @property
    def dead(self) -> int:
        """Windows that end before this time are not revised any more."""
        return self._dead(self.high)

    def fold(self, places: Places, until: int) -> None:
        """Read the next places. Trades of the time `until` or later are not credible."""
        begin, gaps = 0, []
        if Gap in {type(entry) for _, entry in places}:  # a run without one is the rule, and costs no more
            gaps = [at for at, (_, entry) in enumerate(places) if isinstance(entry, Gap)]
        for at in (*gaps, len(places)):
            if begin < at:
                self._read(places[begin:at], until)
            if at < len(places):
                last, gap = places[at]
                assert isinstance(gap, Gap)
                self.coverage.miss(gap)
                for chain in self.chains.values():
                    chain.miss(gap)
                self.position = last
            begin = at + 1

    def fill(self, first: int, trades: Sequence[Trade], until: int) -> None:
        """Places of a gap hold these trades now. If they were not read as a gap, nothing changes."""
        if not self.coverage.has(first, first + len(trades) - 1):
            return
        numbers = range(first, first + len(trades))
        parts, high = bars_of(trades, numbers, self._base(), self.high, self.rules.lateness, until)
        for bar, high_before in parts:
            self._merge(bar, self._dead(high_before))
        self.high = max(self.high, high)
        self.coverage.fill(first, numbers[-1])

    def settle(self, watermark: int = ALWAYS) -> None:
        """Close what is over, by the trades or by the time `watermark`, and forget what is long over."""
        self.watermark = max(self.watermark, watermark, self.high - self.rules.lateness)
        for level in self.levels.values():
            level.settle(self.watermark, self.coverage)
        self.coverage.changed_since = NEVER

    def forget(self) -> None:
        """Give up what can neither change nor is kept. What changed must have been taken."""
        dead = self.dead
        for level in self.levels.values():
            level.forget(dead)
        if self.coverage.holes:
            starts = [min(level.bars, default=dead) for level in self.levels.values()]
            self.coverage.forget(min([dead, *starts]))

    @property
    def is_open(self) -> bool:
        """Whether a window of time is not over."""
        return any(level.is_open for level in self.levels.values())

    def _read(self, places: Places, until: int) -> None:
        numbers: Sequence[int] = range(places[0][0], places[-1][0] + 1)  # a trade takes one place
        trades = cast(list[Trade], [entry for _, entry in places])
        parts, high = bars_of(trades, numbers, self._base(), self.high, self.rules.lateness, until)
        counted = sum([part.bar.count for part in parts])
        if counted < len(trades):
            self.in_future += len(trades) - counted
            numbers = [place for place, trade in zip(numbers, trades, strict=True) if trade.timestamp < until]
            trades = [trade for trade in trades if trade.timestamp < until]
        if trades:
            self.coverage.follow(trades)
            for chain in self.chains.values():
                chain.add(trades, numbers)
        for bar, high_before in parts:
            self._merge(bar, self._dead(high_before))
        self.high = high
        self.position = places[-1][0]

    def _merge(self, bar: Bar, dead: int) -> None:
        for name, level in self.levels.items():
            if not level.add(bar, dead):
                self.too_late[name] += bar.count

    def _dead(self, high: int) -> int:
        return high - max(self.rules.lateness, self.rules.revise_within)

    def _base(self) -> int:
        """The greatest width of which the widths of all levels are multiples."""
        return gcd(*[level.interval.width for level in self.levels.values()]) or DAY
