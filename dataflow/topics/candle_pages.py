"""Candles of any time: of memory and disk, of bars that are kept and of trades.

Rules of this file. A page is made of what is cheapest and known: the bars that can still change, in memory;
the recorded bars of a minute or an hour, on disk; and for the rest the trades, read in the order of their
places, with the gaps among them. All three are sums of the same trades, so a page that reaches through them
has no seam. It is read in slices, and waits for the disk between them: whoever asks must hold no turn. Few
pages are made at once.

A bar of trades or volume begins anew at each UTC day, so a page of them reads that whole day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import dropwhile
from typing import Final, Protocol

import trio
from attrs import define, frozen

from dataflow.cache.archive import ArchiveFailed
from dataflow.cache.history import History
from dataflow.cache.tiers import Tiers
from dataflow.domain import Gap, Trade
from dataflow.domain.candle import DAY, HOUR, MINUTE, Candle, CandleRules, Interval

from .candles import Bar, unpack
from .coverage import ALWAYS, NEVER
from .series import Chain, Level, Series

SLICE: Final = 1_000  # places that are folded between two checkpoints: a millisecond
BEYOND: Final = MINUTE  # before and behind a window: gaps that are so near are seen, when trades are read
PAGES_AT_ONCE: Final = 2
MANY: Final = 100  # places among which a trade is: gaps stand between trades


@frozen
class Page:
    """Candles, oldest first, and the time from which the next page begins: see `Pages.page`."""

    candles: list[Candle]
    next: int | None


class Live(Protocol):
    """What is known of a symbol in memory."""

    def series(self, symbol: str) -> Series | None:
        """The bars that can still change, up to date; None where nobody follows them."""

    def end(self, symbol: str) -> int:
        """The last place that clients may see."""

    def look_at_sources(self, symbol: str, series: Series) -> None:
        """Which of its sources are away."""

    def revision(self, symbol: str) -> int:
        """No less than the changes of any of its bars so far: see `Level.revision`."""

    def quiet(self, symbol: str) -> int:
        """The time up to which windows are over by the wall clock."""


class Pages:
    """Makes pages. `history_of(symbol)`: its newest trades. `until()`: a trade of this time or later is not
    credible, ns since the epoch."""

    def __init__(
        self,
        rules: CandleRules,
        tiers: Tiers,
        history_of: Callable[[str], History],
        until: Callable[[], int],
        live: Live,
    ) -> None:
        self.rules = rules
        self.tiers = tiers
        self.history_of = history_of
        self.until = until
        self.live = live
        self._limiter = trio.CapacityLimiter(PAGES_AT_ONCE)

    async def page(
        self, symbol: str, interval: Interval, start: int | None, end: int | None, limit: int
    ) -> Page:
        """At most `limit` candles that start at `start` or later and before `end`, ns since the epoch.

        Without `start`: the newest ones. `next` is None when all candles before `end` are closed and told;
        else it is the start of the next one that may come, or of an open one. Raises ArchiveFailed.
        """
        async with self._limiter:
            reading = _Reading(self, symbol, interval, await self._watermark(symbol))
            return await (reading.page if interval.width else reading.page_of_chain)(start, end, limit)

    async def begin(self, symbol: str, interval: Interval) -> Series | None:
        """A series of this interval alone, of all trades of the present window, or of the present UTC day.

        None where memory has them all, or nobody has more. Raises ArchiveFailed.
        """
        history = self.history_of(symbol)
        newest = await self.tiers.latest(symbol, 1)
        if not newest or self.tiers.first(symbol) >= history.first:
            return None
        width = interval.width or DAY
        since = newest[0].trade.timestamp // width * width
        if interval.width and first_whole(history, width) <= since:
            return None
        async with self._limiter:
            reading = _Reading(self, symbol, interval, ALWAYS)
            return await reading.whole(since)

    async def _watermark(self, symbol: str) -> int:
        series = self.live.series(symbol)
        if series is not None:
            return series.watermark
        return max(await self.high(symbol) - self.rules.lateness, self.live.quiet(symbol))

    async def high(self, symbol: str) -> int:
        """The highest time of a trade; a time before all others without any."""
        series = self.live.series(symbol)
        if series is not None and series.high > ALWAYS:
            return series.high
        newest = await self.tiers.latest(symbol, 1)
        return newest[0].trade.timestamp if newest else ALWAYS


@define
class _Reading:
    """One page in the making."""

    pages: Pages
    symbol: str
    interval: Interval
    watermark: int

    @property
    def _tiers(self) -> Tiers:
        return self.pages.tiers

    @property
    def _revision(self) -> int:
        return self.pages.live.revision(self.symbol)

    async def whole(self, since: int) -> Series:
        """All bars from the time `since` on."""
        rules, name = self.pages.rules, self.interval.name
        if self.interval.width:
            series = Series(rules, levels={name: Level(self.interval, since, revision=self._revision)})
            await self._read(series, since - BEYOND, NEVER)
        else:
            series = Series(rules, chains={name: Chain(self.interval)})
            await self._read(series, since, NEVER, since)
        return series

    # Bars of time.

    async def page(self, start: int | None, end: int | None, limit: int) -> Page:
        width = self.interval.width
        last = await self.pages.high(self.symbol) // width * width
        stop = last + width if end is None else min(-(-end // width) * width, last + width)
        if start is None:
            bars = await self._backward(stop, limit)
        else:
            bars = await self._forward(-(-start // width) * width, stop, limit + 1)
        more = bars[limit].start if len(bars) > limit else None
        candles = [bar.candle(self.symbol, self.interval.name) for bar in bars[:limit]]
        return Page(candles, self._next(candles, width, start, end) if more is None else more)

    def _next(self, candles: list[Candle], width: int, start: int | None, end: int | None) -> int | None:
        if end is not None and end <= self.watermark:
            return None
        if candles:
            return candles[-1].start + (width if candles[-1].closed else 0)
        return 0 if start is None else start

    async def _forward(self, at: int, stop: int, limit: int) -> list[Bar]:
        bars: list[Bar] = []
        while len(bars) < limit and (begin := await self._first(at, stop)) is not None:
            at = min(begin + limit * self.interval.width, stop)
            bars += await self._bars(begin, at)
        return bars[:limit]

    async def _backward(self, stop: int, limit: int) -> list[Bar]:
        width = self.interval.width
        bars: list[Bar] = []
        windows = limit
        while len(bars) < limit:
            begin = stop - windows * width
            found = await self._bars(begin, stop)
            bars = [*found, *bars]
            windows = limit if found else 2 * windows
            if len(bars) >= limit:
                break
            older = await self._tiers.before(self.symbol, begin, 1)
            if older:
                stop = older[-1].trade.timestamp // width * width + width
            elif await self._first(ALWAYS, begin) is not None:  # bars whose trades are not kept any more
                stop = begin
            else:
                break
        return bars[max(0, len(bars) - limit) :]

    async def _first(self, at: int, stop: int) -> int | None:
        """The start of the first window from `at` to before `stop` that may have a bar."""
        if at >= stop:
            return None
        width = self.interval.width
        base = _base(width)
        starts = [] if base is None else [bar.start for bar in await self._stored(base, at, stop, 1)]
        if starts and starts[0] < at + width:
            return at
        found = await self._tiers.after(self.symbol, at - 1000, 1, stop)
        starts += [each.trade.timestamp for each in found[:1]]
        return min(starts) // width * width if starts else None

    async def _bars(self, begin: int, stop: int) -> list[Bar]:
        """The bars of all windows from `begin` to before `stop`."""
        width = self.interval.width
        series = self.pages.live.series(self.symbol)
        mine = series.levels.get(self.interval.name) if series else None
        live_since = stop if mine is None else min(max(begin, -(-mine.since // width) * width), stop)
        live = [] if mine is None else [bar for start, bar in mine.bars.items() if live_since <= start < stop]
        older: list[Bar] = []
        if begin < live_since:
            older = await self._older(begin, live_since)
        live.sort(key=lambda bar: bar.start)
        return [*older, *live]

    async def _older(self, begin: int, stop: int) -> list[Bar]:
        """Bars that this interval has no level for in memory."""
        width = self.interval.width
        base = _base(width)
        if base is None:
            return await self._of_trades(begin, stop)
        parts: dict[int, Bar] = {}
        for bar in await self._stored(base, begin, stop, NEVER):
            parts[bar.start] = bar
        series = self.pages.live.series(self.symbol)
        levels = () if series is None else series.levels.values()
        level = next((each for each in levels if each.interval.width == base), None)
        if level is not None:
            parts |= {start: bar for start, bar in level.bars.items() if begin <= start < stop}
        first = await self._stored(base, ALWAYS, NEVER, 1)
        since = min([bar.start for bar in first] + ([] if level is None else [level.since]), default=stop)
        since = min(max(begin, -(-since // width) * width), stop)
        made: dict[int, Bar] = {}
        for bar in parts.values():
            start = bar.start // width * width
            if start < since:
                continue
            mine = made.get(start)
            if mine is None:
                made[start] = mine = bar.in_window(width, 0 if width == base else self._revision)
            else:
                mine.merge(bar)
            mine.gaps = tuple(sorted({*mine.gaps, *bar.gaps}, key=lambda gap: gap.first))
            if width == base:
                mine.changes += bar.changes
        for bar in made.values():
            bar.closed = bar.end <= self.watermark
        older = await self._of_trades(begin, since) if begin < since else []
        return [*older, *(made[start] for start in sorted(made))]

    async def _stored(self, width: int, begin: int, stop: int, limit: int) -> list[Bar]:
        """The first `limit` recorded bars of windows from `begin` to before `stop`."""
        rows = await self._tiers.ask(lambda archive: archive.bars(self.symbol, width, begin, stop, limit))
        try:
            return [unpack(row.data) for row in rows or ()]
        except ValueError as error:
            raise ArchiveFailed(f"a recorded bar is damaged: {error}") from None

    async def _of_trades(self, begin: int, stop: int) -> list[Bar]:
        level = Level(self.interval, begin, revision=self._revision)
        scratch = Series(self.pages.rules, levels={self.interval.name: level})
        await self._read(scratch, begin - BEYOND, stop + BEYOND)
        if stop > self.watermark:
            self.pages.live.look_at_sources(self.symbol, scratch)
        if self.interval.width < MINUTE:  # a bar of the minute may know of gaps that are far from here
            seen = {hole.gap.first for hole in scratch.coverage.holes}
            for minute in await self._stored(MINUTE, begin // MINUTE * MINUTE, stop, NEVER):
                for gap in minute.gaps:
                    if gap.first not in seen:
                        scratch.coverage.known(gap, minute.start, minute.end - 1)
        level.settle(self.watermark, scratch.coverage)
        return [level.bars[start] for start in sorted(level.bars) if begin <= start < stop]

    async def _read(self, scratch: Series, begin: int, stop: int, since: int = ALWAYS) -> None:
        """Read what may concern this time, but nothing before the first trade of the time `since`."""
        history = self.pages.history_of(self.symbol)
        last, until = self.pages.live.end(self.symbol), self.pages.until()
        oldest = next(history.ascending(begin - 1000), None)
        if oldest is None or oldest.trade.timestamp >= stop:  # memory has nothing of this time
            last = min(last, history.first - 1)
        scratch.position = self._tiers.first(self.symbol) - 1
        while scratch.position < last:
            scratch.position = await self._tiers.skip(self.symbol, scratch.position, begin, stop)
            places = await self._tiers.behind(self.symbol, scratch.position, SLICE)
            places = [place for place in places if place[0] <= last]
            if not places:
                break
            scratch.position = places[-1][0]
            if since > ALWAYS:
                places = list(dropwhile(partial(_is_before, since), places))
                if not places:
                    continue
                since = ALWAYS
            scratch.fold(places, until)
            await trio.lowlevel.checkpoint()

    # Bars of trades or volume.

    async def page_of_chain(self, start: int | None, end: int | None, limit: int) -> Page:
        bars: list[Bar] = []
        last = (await self.pages.high(self.symbol) // 1000 + 1) * 1000  # `after` ends at whole ones
        stop = last if end is None else min(end, last)
        if start is None:
            day = (stop - 1) // DAY * DAY
            while len(bars) < limit and (older := await self._tiers.before(self.symbol, day + DAY, 1)):
                day = older[-1].trade.timestamp // DAY * DAY
                some = await self._chain(day)
                bars = [*(bar for bar in some if bar.start < stop), *bars]
                day -= DAY
            bars = bars[max(0, len(bars) - limit) :]
        else:
            at = start
            while len(bars) <= limit and (found := await self._tiers.after(self.symbol, at - 1000, 1, stop)):
                day = found[0].trade.timestamp // DAY * DAY
                bars += [bar for bar in await self._chain(day) if start <= bar.start < stop]
                at = day + DAY
        while limit < len(bars) and bars[limit].start == bars[limit - 1].start:
            limit += 1  # a page never ends between bars of one time
        more = bars[limit].start if len(bars) > limit else None
        candles = [bar.candle(self.symbol, self.interval.name) for bar in bars[:limit]]
        return Page(candles, self._next(candles, 1000, start, end) if more is None else more)

    async def _chain(self, day: int) -> list[Bar]:
        """The bars of one UTC day, oldest first. The last one may be open."""
        chain = Chain(self.interval, closed=deque())
        scratch = Series(self.pages.rules, chains={self.interval.name: chain})
        await self._read(scratch, day, day + DAY, day)
        bars = [*chain.closed, *([] if chain.bar is None else [chain.bar])]
        return [bar for bar in bars if day <= bar.start < day + DAY]


def first_whole(history: History, width: int) -> int:
    """The start of the first window of which memory has all trades; a time before all others without any."""
    trades = (entry for _, entry in history.places(history.first - 1, MANY) if isinstance(entry, Trade))
    oldest = next(trades, None)
    return ALWAYS if oldest is None else oldest.timestamp // width * width + width


def _is_before(moment: int, place: tuple[int, Trade | Gap]) -> bool:
    entry = place[1]
    return isinstance(entry, Gap) or entry.timestamp < moment


def _base(width: int) -> int | None:
    """The width of the recorded bars that make up one of this width."""
    return next((base for base in (HOUR, MINUTE) if width % base == 0), None)
