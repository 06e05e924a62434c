"""The channel `candles`: of each symbol the bars of several intervals, as they are now and as they close.

Rules of this file. A bar is computed only for symbols that somebody follows, or whose bars are recorded (see
`series`). One follower for all symbols reads the histories from positions of its own: trades cost nothing
where nobody wants their bars, and the same for one client as for many. It tells news once in a `throttle`: a
bar that is still open, the same bar closed, and a closed bar that has changed. A reader that is behind gets
of each bar the newest state.

A quiet market closes its bars by the wall clock, but only while all sources of the symbol are live, and if
its newest trade was young when it came: else nobody knows whether a trade of the window is on its way. A
trade that is dated more than an hour ahead of our clock is in no bar and moves no watermark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Final
from weakref import WeakValueDictionary

import msgspec
import trio
from loguru import logger

from actors.update import Places, Stream, Update
from dataflow import paths
from dataflow.cache.archive import Archive, ArchiveFailed, BarRow, Checkpoint
from dataflow.cache.history import History, Resumed
from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.candle import DAY, HOUR, SECOND, Candle, Interval, interval
from dataflow.domain.symbols import ANY
from dataflow.domain.topic import CANDLES
from dataflow.logs import Burst, often

from .candle_pages import Page, Pages, first_whole
from .candles import Bar, pack, unpack
from .channel import Ground
from .coverage import ALWAYS, NEVER, Coverage
from .series import Chain, Level, Series

AHEAD: Final = HOUR  # a clock may be wrong by so much
YOUNG: Final = 5 * SECOND  # beyond the lateness: a trade that came later than this is no proof of live data
RUN: Final = 2_000  # places that are read at once: a millisecond of work
MUCH: Final = 1_000  # unread places of one symbol, for which the follower is woken before its time
AT_ONCE: Final = 10_000  # places that the follower reads between two checkpoints
LOOKED_AT: Final = 100  # symbols whose bars it looks at between two checkpoints
KEPT: Final = 1_000  # candles of a topic, for answers to new subscribers
SHOWN: Final = 4  # a gap, a fill, or a source that goes or comes, changes a bar less often
RECORDED: Final = (interval("1m"), interval("1h"))

_log = logger.bind(path=paths.CANDLES)


class CandleLog:
    """The states of the candles of a topic. Each takes a place; only the newest of each candle is kept."""

    def __init__(self, topic: Topic, epoch: int, at_once: int, *, by_place: bool) -> None:
        self._key: Callable[[Candle], int] = _by_place if by_place else _by_start
        self.stream = Stream(topic, epoch, newest_by=self._key)
        self.last = 0
        self._at_once = at_once
        self._newest: dict[int, tuple[int, Candle]] = {}  # in the order of their places

    def put(self, candle: Candle) -> None:
        """A new state of a candle, if it is new."""
        key = self._key(candle)
        known = self._newest.get(key)
        if known is not None and known[1].rev == candle.rev:
            return
        self._newest.pop(key, None)
        self.last += 1
        self._newest[key] = self.last, candle
        if len(self._newest) > 2 * KEPT:
            del self._newest[next(iter(self._newest))]  # what was told first, not what is old: that is news

    def read(self, after: int) -> Update | None:
        if after >= self.last:
            return None
        behind = list(takewhile(lambda state: state[0] > after, reversed(self._newest.values())))
        places = behind[::-1][: self._at_once]
        return Update(self.stream, after + 1, places)

    def newest(self, count: int) -> Places:
        """The last states of the newest candles, the oldest candle first."""
        keys = sorted(self._newest)
        return [self._newest[key] for key in keys[max(0, len(keys) - count) :]]

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        return Resumed(False, self.last)  # states have no past

    def behind(self, offset: int, limit: int) -> Places:
        return ()


def _by_start(candle: Candle) -> int:
    return candle.start


def _by_place(candle: Candle) -> int:
    return candle.first_offset


class _State(msgspec.Struct, array_like=True):
    """What is made of the trades of a recorded symbol and not in the recorded bars. `bars`: the open ones."""

    high: int
    watermark: int
    coverage: Coverage
    bars: list[Bar]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_State).decode


class Candles:
    """The channel, and what an `actors.follower.Follower` keeps up to date."""

    name = CANDLES
    offered = True

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.rules = ground.candles
        self.intervals = {name: interval(name) for name in self.rules.intervals}
        self._series: dict[str, Series] = {}
        self._logs: WeakValueDictionary[Topic, CandleLog] = WeakValueDictionary()  # of the open topics
        self._news: dict[str, None] = {}  # symbols of which something may be unread
        self._round: list[str] = []  # symbols whose bars are still to be looked at in this round
        self._round_at = ALWAYS
        self._wake: Callable[[], object] = lambda: None
        self._pages = Pages(self.rules, ground.tiers, ground.history_of, self._until, self)
        self._too_late: Counter[str] = Counter()  # of series that are not kept any more
        self._in_future = 0
        self._away: dict[str, set[str]] = {}  # sources that were away when somebody looked, by symbol
        self._turns: Counter[str] = Counter()  # how often these were others
        self._prepared: dict[Topic, Series] = {}  # of topics that are just being opened
        self._burst = Burst()
        self._is_restored = False
        self._points: dict[str, Checkpoint] = {}  # of symbols that nobody carries yet
        ground.recording.collect_from(self._checkpoints)

    def topics(self, symbol: str) -> Iterable[Topic]:
        return [Topic(CANDLES, symbol, name) for name in self.intervals]

    def log_of(self, topic: Topic) -> CandleLog:
        """The log of `topic`: the same object as long as somebody has it."""
        log = self._logs.get(topic)
        if log is None:
            wanted = interval(topic.variant)
            log = CandleLog(topic, self._ground.epoch, self._ground.at_once, by_place=not wanted.width)
            self._logs[topic] = log
            for candle in self._begin(topic.symbol, wanted):
                log.put(candle)
        return log

    def wants(self, topic: Topic) -> Collection[str]:
        return (topic.symbol,)

    def look(self, symbols: Iterable[str]) -> None:
        pass  # the follower looks at the sources, in each round

    @property
    def too_late(self) -> Mapping[str, int]:
        """How many trades came too late for a bar, by its interval."""
        counted = sum((series.too_late for series in self._series.values()), self._too_late)
        return {**dict.fromkeys(self.intervals, 0), **counted}

    @property
    def in_future(self) -> int:
        """How many trades are in no bar because they are dated more than an hour ahead of our clock."""
        return self._in_future + sum(series.in_future for series in self._series.values())

    async def page(
        self, symbol: str, interval: Interval, start: int | None, end: int | None, limit: int
    ) -> Page:
        """A page of candles: see `Pages.page`."""
        return await self._pages.page(symbol, interval, start, end, limit)

    async def prepare(self, topic: Topic) -> None:
        """Read what the first candles of a topic need of the disk: the window or the day that is not over."""
        if topic.channel != CANDLES or topic in self._logs:
            return
        wanted, symbol = interval(topic.variant), topic.symbol
        if wanted.width and wanted.width % RECORDED[0].width == 0 and self._is_recorded(symbol):
            return  # it is made of recorded bars
        try:
            whole = await self._pages.begin(symbol, wanted)
        except ArchiveFailed as error:
            self._tell_of_disk(str(topic), error)
            return
        if whole is not None and topic not in self._logs:
            self._prepared[topic] = whole

    def _tell_of_disk(self, what: str, error: Exception) -> None:
        """Log it once per burst: a disk that fails one topic fails all that are opened."""
        if count := self._burst.occurred("disk", trio.current_time()):
            _log.warning("{} begin with what memory has{}: {}", what, often(count), error)

    # For pages.

    def end(self, symbol: str) -> int:
        """The last place that clients may see."""
        recording = self._ground.recording
        return recording.shown(symbol) if recording.after_commit else self._ground.history_of(symbol).last

    def series(self, symbol: str) -> Series | None:
        """The bars that can still change, up to date; None where nobody follows them."""
        series = self._series.get(symbol)
        if series is not None:
            self._catch_up(symbol, series)
            series.settle()
        return series

    def revision(self, symbol: str) -> int:
        """No less than the changes of its bars so far; more than before, if one may have changed since."""
        self._note_who_is_away(symbol)
        return SHOWN * (self._ground.history_of(symbol).holes + self._turns[symbol])

    def _note_who_is_away(self, symbol: str) -> None:
        """Whenever somebody looks: who goes and comes changes bars, also when nobody asks how often."""
        gave = {trade.source for trade in self._ground.history_of(symbol).newest_by_source()}
        live = {s.name for s in self._ground.streaming(symbol) if s.status(symbol) == "live"}
        away = gave - live
        if away != self._away.get(symbol, set()):
            self._away[symbol] = away
            self._turns[symbol] += 1

    def look_at_sources(self, symbol: str, series: Series) -> None:
        """Which of its sources are away."""
        self._note_who_is_away(symbol)
        carriers = self._ground.streaming(symbol)
        for source in carriers:
            if source.status(symbol) != "live":
                series.coverage.away(source.name, series.position + 1)
        for name in series.coverage.latest.keys() - {source.name for source in carriers}:
            series.coverage.gone(name, series.high)

    def quiet(self, symbol: str) -> int:
        """The watermark by the wall clock, if it may be trusted; else a time before all others."""
        carriers = self._ground.streaming(symbol)
        if not carriers or any(source.status(symbol) != "live" for source in carriers):
            return ALWAYS
        history = self._ground.history_of(symbol)
        newest, since = history.newest_trade, history.since_when(history.last - 1)
        if newest is None or since is None:
            return ALWAYS
        now = self._ground.clock()
        came = int((now - (trio.current_time() - since)) * 1e9)
        if came - newest.timestamp >= self.rules.lateness + YOUNG:
            return ALWAYS
        return int(now * 1e9) - self.rules.lateness - 1

    # For the follower.

    def news(self, symbol: str) -> None:
        """The history of `symbol` has grown."""
        series = self._series.get(symbol)
        if series is None:
            if not self._is_recorded(symbol):
                return
            series = self._record(symbol)
        self._news[symbol] = None
        history = self._ground.history_of(symbol)
        unread = self.end(symbol) - series.position
        if unread >= history.max_trades // 2:  # it may forget some before the follower has its turn
            with suppress(Exception):  # the follower meets it as well: it is not the caller's error
                self._catch_up(symbol, series)
        elif unread >= min(MUCH, history.max_trades // 4):
            self._wake()

    def follow(self, wake: Callable[[], object]) -> None:
        """From now on `wake()` is called when `advance` is urgent."""
        self._wake = wake

    def advance(self) -> bool:
        """Read a part of what is unread; once in a `throttle` also tell what is new. Returns whether there is
        more."""
        work = 0
        while self._news and work < AT_ONCE:
            symbol = next(iter(self._news))
            del self._news[symbol]
            series = self._series.get(symbol)
            if series is None:
                continue
            work += self.end(symbol) - series.position
            try:
                self._catch_up(symbol, series)
            except BaseException:
                self._news[symbol] = None  # behind the others: it must not keep them from being read
                raise
        return bool(self._news) or self._look_round()

    # Reading.

    def _begin(self, symbol: str, wanted: Interval) -> list[Candle]:
        """Make bars of this interval from now on. Returns those that there are."""
        series = self._series.get(symbol)
        if series is None and self._is_recorded(symbol):
            series = self._record(symbol)
        elif series is None:
            series = self._series[symbol] = Series(self.rules)
            history = self._ground.history_of(symbol)
            if self._ground.tiers.first(symbol) < history.first:  # nothing is missing: others read the disk
                series.position = history.first - 1
        if wanted.width:
            if wanted.name not in series.levels:
                self._catch_up(symbol, series)
                series.settle()
                series.levels[wanted.name] = self._new_level(symbol, series, wanted)
            self._catch_up(symbol, series)
            series.settle()
            bars = sorted(series.levels[wanted.name].bars.values(), key=lambda bar: bar.start)[-KEPT:]
        else:
            if wanted.name not in series.chains:
                self._catch_up(symbol, series)
                series.chains[wanted.name] = self._new_chain(symbol, series, wanted)
            chain = series.chains[wanted.name]
            bars = [*chain.closed, *([chain.bar] if chain.bar else [])]
        return [bar.candle(symbol, wanted.name) for bar in bars]

    def _new_level(self, symbol: str, series: Series, wanted: Interval) -> Level:
        """The bars of another interval, of all trades that the series has read and that are still known."""
        width = wanted.width
        prepared = self._prepared.pop(Topic(CANDLES, symbol, wanted.name), None)
        for level in sorted(series.levels.values(), key=lambda level: -level.interval.width):
            since = -(-level.since // width) * width  # the first window that is whole
            if width % level.interval.width == 0 and since <= series.watermark // width * width:
                made = Level(wanted, since, revision=self.revision(symbol))
                for bar in level.bars.values():
                    made.add(bar, ALWAYS)
                return made
        scratch = prepared or self._whole_in_memory(symbol, wanted)
        self._read(symbol, scratch, series.position)
        for hole in scratch.coverage.holes:
            if hole.end < NEVER:
                series.coverage.known(hole.gap, hole.begin, hole.end)
        return scratch.levels[wanted.name]

    def _whole_in_memory(self, symbol: str, wanted: Interval) -> Series:
        """A series that begins with the first window of which memory has all trades.

        What the disk has before it is no gap. If that window is still to come, it begins where memory does.
        """
        history = self._ground.history_of(symbol)
        made = Series(self.rules, levels={wanted.name: Level(wanted, revision=self.revision(symbol))})
        if self._ground.tiers.first(symbol) < history.first:
            since, newest = first_whole(history, wanted.width), history.newest_trade
            if newest is not None and since <= newest.timestamp:
                made.position, made.levels[wanted.name].since = history.first - 1, since
        return made

    def _new_chain(self, symbol: str, series: Series, wanted: Interval) -> Chain:
        prepared = self._prepared.pop(Topic(CANDLES, symbol, wanted.name), None)
        scratch = prepared or Series(self.rules, chains={wanted.name: Chain(wanted)})
        self._read(symbol, scratch, series.position)
        return scratch.chains[wanted.name]

    def _catch_up(self, symbol: str, series: Series) -> None:
        self._read(symbol, series, self.end(symbol))

    def _take_fills(self, history: History, series: Series) -> None:
        """Gaps that were read may hold trades now. Fills that memory has forgotten leave them as they are."""
        for number, places in history.fills_behind(series.fills):
            if places[-1][0] <= series.position:
                series.fill(places[0][0], [trade for _, trade in places], self._until())
            series.fills = number

    def _read(self, symbol: str, series: Series, end: int) -> None:
        """Read the history up to the place `end`."""
        history = self._ground.history_of(symbol)
        if history.filled > series.fills:
            self._take_fills(history, series)
        until = self._until()
        while series.position < end:
            places = history.places(series.position, RUN)
            if places[-1][0] > end:
                places = [place for place in places if place[0] <= end]
            series.fold(places, until)

    def _until(self) -> int:
        """A trade of this time or later is not credible."""
        return int(self._ground.clock() * 1e9) + AHEAD

    # Recording.

    async def restore(self) -> None:
        """Go on where the last daemon stopped, as far as that is recorded. Once, before anything is told.

        Raises nothing for a disk that does not answer: then the bars begin with what memory has.
        """
        if self._is_restored:
            return
        try:
            self._points = await self._ground.tiers.ask(lambda archive: archive.checkpoints(CANDLES)) or {}
        except ArchiveFailed as error:
            _log.warning("the recorded bars cannot be read: {}; new ones begin with what memory has", error)
        for symbol in [symbol for symbol in self._points if self._is_recorded(symbol)]:
            try:
                await self._restore(symbol)
            except (ArchiveFailed, ValueError) as error:
                self._tell_of_disk(f"the bars of {symbol}", error)
            await trio.lowlevel.checkpoint()
        self._is_restored = True

    async def _restore(self, symbol: str) -> None:
        tiers = self._ground.tiers
        series = self._thawed(symbol)
        if series is None:
            return
        since = {level.interval.width: series.dead - level.keep for level in series.levels.values()}
        rows = await tiers.ask(partial(_rows, symbol, since)) or ()
        for level in series.levels.values():
            level.since = since[level.interval.width]
        by_width = {level.interval.width: level for level in series.levels.values()}
        for row in rows:
            if row.start not in by_width[row.width].bars:
                by_width[row.width].put(unpack(row.data))
        first = self._ground.history_of(symbol).first
        while series.position < first - 1 and (places := await tiers.behind(symbol, series.position, RUN)):
            series.fold(places, self._until())
        for gap in [hole.gap for hole in series.coverage.holes if hole.gap.exact]:
            await self._fill(symbol, series, gap)
        self._series[symbol] = series
        self._news[symbol] = None

    async def _fill(self, symbol: str, series: Series, gap: Gap) -> None:
        """The gap may have been filled on disk behind the newest checkpoint."""
        places = await self._ground.tiers.behind(symbol, gap.first - 1, gap.last - gap.first + 1)
        for place, entry in places:
            if isinstance(entry, Trade) and place <= gap.last:
                series.fill(place, (entry,), self._until())

    def _thawed(self, symbol: str) -> Series | None:
        """The series as its checkpoint has it, without closed bars; None without one that can be used."""
        point = self._points.pop(symbol, None)
        if point is None or point.position > self._ground.history_of(symbol).last:
            return None
        try:
            state = _decode(point.data)
        except msgspec.MsgspecError as error:
            _log.warning("the bars of {} begin anew: their checkpoint cannot be read: {}", symbol, error)
            return None
        series = Series(self.rules, point.position, state.high, state.watermark, state.coverage)
        for each in RECORDED:
            level = series.levels[each.name] = _recorded_level(each)
            for bar in state.bars:
                if bar.end - bar.start == each.width:
                    level.put(bar)
            level.since = min([*level.bars, series.watermark // each.width * each.width])
        return series

    def _is_recorded(self, symbol: str) -> bool:
        named = ANY in self.rules.record or symbol in self.rules.record
        return named and self._ground.recording.archive is not None and symbol in self._ground.carriers

    def _record(self, symbol: str) -> Series:
        """Follow a recorded symbol from now on: from its checkpoint, else from what memory has."""
        series = self._thawed(symbol)
        if series is None:
            series = Series(self.rules, levels={each.name: _recorded_level(each) for each in RECORDED})
            for level in series.levels.values():
                level.revision = self.revision(symbol)
            self._skip_what_is_on_disk(symbol, series)
        self._series[symbol] = series
        return series

    def _skip_what_is_on_disk(self, symbol: str, series: Series) -> None:
        """Begin with the first window of which memory has all trades: those before are made of the disk's."""
        history = self._ground.history_of(symbol)
        if self._ground.tiers.first(symbol) >= history.first:
            return
        series.position = history.first - 1
        oldest = next(
            (e.timestamp for _, e in history.places(series.position, RUN) if isinstance(e, Trade)), None
        )
        for level in series.levels.values():
            width = level.interval.width
            level.since = ALWAYS if oldest is None else oldest // width * width + width

    def _save(self, symbol: str, series: Series) -> bool:
        """Record the closed bars that have changed. Returns whether there are any."""
        rows = []
        for level in series.levels.values():
            for start in level.unsaved or ():
                bar = level.bars[start]
                rows.append(BarRow(symbol, level.interval.width, start, bar.rev, pack(bar)))
        if not rows or not self._ground.recording.bars(rows, series.position):
            return False
        for level in series.levels.values():
            if level.unsaved:
                level.unsaved.clear()
        return True

    def _checkpoints(self) -> Iterator[Checkpoint]:
        """The state of all recorded symbols, up to their positions."""
        for symbol, series in self._series.items():
            if any(level.unsaved is not None for level in series.levels.values()):
                self._catch_up(symbol, series)
                series.settle()
                self._save(symbol, series)
                if not any(level.unsaved for level in series.levels.values()):
                    yield _checkpoint(symbol, series)

    # Telling.

    def _look_round(self) -> bool:
        """Look at the bars of some symbols, if it is time for it. Returns whether there are more."""
        if not self._round:
            now = int(trio.current_time() * 1e9)
            if now - self._round_at < self.rules.throttle:
                return False
            self._round, self._round_at = list(self._series), now
        for _ in range(min(LOOKED_AT, len(self._round))):
            self._tell(self._round.pop())
        return bool(self._round)

    def _tell(self, symbol: str) -> None:
        series = self._series[symbol]
        self._catch_up(symbol, series)
        self.look_at_sources(symbol, series)
        series.settle(self.quiet(symbol))
        for name, level in list(series.levels.items()):
            log = self._logs.get(Topic(CANDLES, symbol, name))
            if log is not None:
                self._put(log, [bar.candle(symbol, name) for bar in level.take()])
            elif level.unsaved is not None:
                level.changed.clear()
            else:
                del series.levels[name]
        for name, chain in list(series.chains.items()):
            log = self._logs.get(Topic(CANDLES, symbol, name))
            if log is None:
                del series.chains[name]
                continue
            self._put(log, [bar.candle(symbol, name) for bar in chain.take()])
        if self._save(symbol, series):
            self._ground.recording.checkpoint(_checkpoint(symbol, series))
        series.forget()
        if not series.levels and not series.chains:
            self._too_late += series.too_late
            self._in_future += series.in_future
            del self._series[symbol]

    def _put(self, log: CandleLog, candles: Iterable[Candle]) -> None:
        before = log.last
        for candle in candles:
            log.put(candle)
        if log.last > before:
            self._ground.news(log.stream.topic)


def _recorded_level(wanted: Interval) -> Level:
    # Bars of hours and days are made of these, too: so they are kept for longer than they can change.
    return Level(wanted, keep=DAY if wanted.width == HOUR else HOUR, unsaved={})


def _rows(symbol: str, since: Mapping[int, int], archive: Archive) -> Sequence[BarRow]:
    """The recorded bars of a symbol: of each width those that start at a time or later."""
    return [row for width, start in since.items() for row in archive.bars(symbol, width, start, NEVER, NEVER)]


def _checkpoint(symbol: str, series: Series) -> Checkpoint:
    bars = [bar for each in RECORDED for bar in series.levels[each.name].open_bars]
    state = _State(series.high, series.watermark, series.coverage, bars)
    return Checkpoint(CANDLES, symbol, series.position, _encode(state))


make = Candles
