"""The channel `days`: of each symbol the running bar of the current UTC day, in the exchanges' time.

Rules of this file. A bar is made of every trade that was ever admitted, never of the bounded history alone: a
`Day` reads the history from a position of its own, in time, because a follower sees to it (`Days.advance`).
Readers and questions bring it up to date before they look, so what they see is never old. It stands still
after midnight until a trade of the new day comes. It never goes back: a trade of a day that is over does not
count. Nor does one that is dated more than an hour ahead of our clock, or a single wrong date would end the
day. Whatever does not count is counted.

A trade that fills a gap counts once. Either its place was read as a gap: then it counts when it comes (`Gaps`
knows these places). Or its place is not read yet: then it is a trade like any other.

Bars survive the process, where there is a history on disk: a checkpoint has the bar, the position that it
was made of and the gaps before it. What came behind it, or into these gaps, is read from disk at the start.

A topic shows each state that the bar had, one a trade, as long as its reader keeps up. A reader that is
behind gets the newest state. The topic of a symbol that does not exist (yet) is empty, and nothing is kept of
it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from attrs import define, field
from loguru import logger

from actors.update import Places, Stream, Update
from dataflow import paths
from dataflow.cache.archive import Checkpoint
from dataflow.cache.history import History, Resumed
from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.aggregate import Aggregate
from dataflow.domain.topic import DAYS

from .candles import DAY, Bar
from .channel import Ground

AHEAD: Final = 3600 * 10**9  # nanoseconds: a clock may be wrong by so much
RUN: Final = 2_000  # places that are read at once: half a millisecond of work
MUCH: Final = 1_000  # unread places of one symbol, for which the follower is woken before its time
GAPS: Final = 1_000  # that are remembered of a symbol, the newest ones
AT_ONCE: Final = 20_000  # places that the follower reads between two checkpoints: more than the shards admit

FORGOTTEN: Final = "forgotten"  # why places do not count. These, or their gap, were forgotten before
LATE: Final = "late"  # their day is over
FUTURE: Final = "future"  # they are dated more than an hour later than now
REASONS: Final = (FORGOTTEN, LATE, FUTURE)

REPLAYED: Final = 500_000  # places that a start reads for bars without a checkpoint: half a second of work
QUIET: Final = 60.0  # seconds
_ADVICE: Final = {
    FORGOTTEN: "{} places of {} were forgotten before they were read: its aggregate lacks their trades."
    " Raise [cache] trades_per_symbol or max_age_seconds",
    FUTURE: "{} trade of {} is dated more than an hour ahead of this machine's clock: it does not count in"
    " its aggregate. One of the two clocks is wrong",
}


class _Saved(msgspec.Struct, array_like=True, frozen=True):
    """A bar in a checkpoint; None before the first trade. `place`: of the newest trade that counts."""

    bar: Bar | None
    place: int
    gaps: list[tuple[int, int]] = []
    blind: int = 0


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Saved).decode


class LeftOut:
    """Counts the places that do not count in a bar, by reason. Logs the reasons that need somebody to act.

    At most one line a reason in `QUIET` seconds: one wrong clock is wrong at every trade.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._told: dict[str, float] = {}

    def add(self, reason: str, symbol: str, places: int = 1) -> None:
        self.counts[reason] += places
        now = self._clock()
        if reason in _ADVICE and now >= self._told.get(reason, now):
            self._told[reason] = now + QUIET
            logger.bind(path=paths.DAYS).warning(_ADVICE[reason], places, symbol)


class Gaps:
    """The places that were read as gaps and may be filled, as far as they are remembered.

    `ranges`: (first, last), in order. `blind`: up to this place there may be others.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = (), blind: int = 0) -> None:
        self.ranges = list(ranges)
        self.blind = blind

    def add(self, gap: Gap) -> None:
        """The next places are a gap."""
        if gap.sequence is not None:  # any other can never be filled
            self.ranges.append((gap.first, gap.last))
            self._forget()

    def take(self, place: int) -> bool:
        """This place holds a trade now. Returns whether it was read as a gap."""
        at = bisect_right(self.ranges, place, key=lambda each: each[0]) - 1
        if at < 0 or self.ranges[at][1] < place:
            return False
        first, last = self.ranges[at]
        self.ranges[at : at + 1] = [
            part for part in ((first, place - 1), (place + 1, last)) if part[0] <= part[1]
        ]
        self._forget()
        return True

    def _forget(self) -> None:
        if len(self.ranges) > GAPS:
            self.blind = self.ranges.pop(0)[1]


class States:
    """The newest states of a bar, one a trade, at most `most`. All behind number `after` are here."""

    def __init__(self, most: int, after: int) -> None:
        self.most = most
        self._after = after
        self._states: deque[tuple[int, Aggregate]] = deque(maxlen=most)

    def add(self, number: int, state: Aggregate) -> None:
        """The next state."""
        if len(self._states) == self.most:
            self._after = self._states[0][0]
        self._states.append((number, state))

    def skip_to(self, number: int, state: Aggregate) -> None:
        """The newest state; those before it were never made."""
        self._states.clear()
        self._states.append((number, state))
        self._after = number

    def behind(self, number: int) -> Places | None:
        """All states behind `number`; None when some of them are not here."""
        if number < self._after:
            return None
        found = list(takewhile(lambda state: state[0] > number, reversed(self._states)))
        return found[::-1]


@define(eq=False)
class Day:
    """The bar of one symbol, and the position up to which it has read the history."""

    symbol: str
    history: History
    _clock: Callable[[], float]
    _left_out: LeftOut
    position: int = 0
    bar: Bar | None = None
    place: int = 0  # the highest of a trade that counts
    gaps: Gaps = field(factory=Gaps)
    fills: int = 0  # the number of the last fill that was looked at
    late: int = 0  # the trades of fills that count
    is_saved: bool = False  # the newest checkpoint has all of it

    @property
    def number(self) -> int:
        """That of the present state. It grows by at least one with each trade that counts."""
        return self.place + self.late

    @property
    def unread(self) -> int:
        """The number of places behind its position."""
        return self.history.last - self.position

    @property
    def is_pressing(self) -> bool:
        """Whether so much is unread that the follower should read it soon."""
        return self.unread >= min(MUCH, self.history.max_trades // 4)

    @property
    def is_urgent(self) -> bool:
        """Whether the history may forget some of it before the follower has its turn."""
        return self.unread >= self.history.max_trades // 2 or self.history.filled > self.fills

    def state(self) -> Aggregate:
        """The bar as a value. There must be one."""
        bar = self.bar
        assert bar is not None
        return Aggregate(
            self.symbol,
            bar.start,
            bar.first.price,
            bar.high,
            bar.low,
            bar.last.price,
            bar.volume,
            bar.count,
            bar.last.timestamp,
            self.place,
        )

    def catch_up(self, states: States | None) -> None:
        """Read all that the history has. Every state goes into `states`, unless they are too many."""
        before = self.number
        if self.history.filled > self.fills:
            self._take_fills(states)
        if states is None:
            self._read_all()
        elif self.unread <= states.most:
            self._read_each(states)
        else:
            self._read_all()
            if self.number > before:
                states.skip_to(self.number, self.state())

    def _take_fills(self, states: States | None) -> None:
        """Before what is behind the position is read: that has these trades already."""
        for number, places in self.history.fills_behind(self.fills):
            if number > self.fills + 1:
                self._left_out.add(FORGOTTEN, self.symbol, number - self.fills - 1)  # or a few more
            self.fills = number
            for place, trade in places:
                before = self.number
                self.fill(place, trade)
                if states is not None and self.number > before:
                    states.add(self.number, self.state())

    def fill(self, place: int, trade: Trade) -> None:
        """A place holds this trade now. It may be told again."""
        was_gap = self.gaps.take(place)
        if not was_gap and place > self.gaps.blind:
            return  # it counts already, or it is read as a trade
        self.is_saved = False
        bar = self.bar
        if trade.timestamp >= self._future():
            self._left_out.add(FUTURE, self.symbol)
        elif bar is not None and trade.timestamp < bar.start:
            self._left_out.add(LATE, self.symbol)
        elif not was_gap:
            self._left_out.add(FORGOTTEN, self.symbol)
        else:
            new = Bar.at(trade, place, DAY)
            if bar is None or new.start > bar.start:
                self.bar = new
            else:
                bar.merge(new)
            self.place = max(self.place, place)
            self.late += 1

    def _read_all(self) -> None:
        while self.unread and (places := self._next(RUN)):
            self._fold(places)

    def _read_each(self, states: States) -> None:
        for each in self._next(states.most) if self.unread else ():
            before = self.place
            self._fold((each,))
            if self.place > before:
                states.add(self.number, self.state())

    def _next(self, limit: int) -> Sequence[tuple[int, Trade | Gap]]:
        forgotten = self.history.first - 1 - self.position
        if forgotten > 0:
            self._left_out.add(FORGOTTEN, self.symbol, forgotten)
            self.position += forgotten
        return self.history.places(self.position, limit)

    def catch_up_with(self, places: Sequence[tuple[int, Trade | Gap]]) -> None:
        """Read places from elsewhere: those behind its position, at least one. What is forgotten there, too,
        is a gap "overrun"."""
        for last, entry in places:
            if isinstance(entry, Gap) and entry.reason == "overrun":
                self._left_out.add(FORGOTTEN, self.symbol, last - entry.first + 1)
        self._fold(places)

    def checkpoint(self) -> Checkpoint:
        """Its bar and position, to be written."""
        self.is_saved = True
        saved = _Saved(self.bar, self.place, self.gaps.ranges, self.gaps.blind)
        return Checkpoint(DAYS, self.symbol, self.position, _encode(saved))

    def go_on_from(self, point: Checkpoint) -> None:
        """Begin where a checkpoint was made."""
        saved = _decode(point.data)
        self.bar, self.place = saved.bar, saved.place
        self.gaps = Gaps(saved.gaps, saved.blind)
        self.position, self.is_saved = point.position, True

    def _fold(self, places: Sequence[tuple[int, Trade | Gap]]) -> None:
        last = places[-1][0]
        trades = [entry for _, entry in places if isinstance(entry, Trade)]
        gaps: list[Gap] = []
        if len(trades) < len(places):
            gaps = [entry for _, entry in places if isinstance(entry, Gap)]
            places = [place for place in places if isinstance(place[1], Trade)]
        offsets = [place for place, _ in places]
        future = self._future()
        self.is_saved = False
        at = 0
        while at < len(trades):
            trade, bar = trades[at], self.bar
            if trade.timestamp >= future:
                self._left_out.add(FUTURE, self.symbol)
                at += 1
            elif bar is not None and trade.timestamp < bar.start:
                self._left_out.add(LATE, self.symbol)
                at += 1
            elif bar is None or trade.timestamp >= bar.end:
                self.bar, self.place = Bar.at(trade, offsets[at], DAY), offsets[at]
                at += 1
            else:
                at = bar.fold_at(trades, offsets, at, future)
                self.place = offsets[at - 1]
            self.position = offsets[at - 1]  # with each part, so that an exception repeats none
        for gap in gaps:
            self.gaps.add(gap)
        self.position = last

    def _future(self) -> int:
        """A trade of this time or later is not credible."""
        return int(self._clock() * 1e9) + AHEAD


class AggregateLog:
    """The states of a symbol's bar, in the places of their numbers."""

    def __init__(self, topic: Topic, days: Days, epoch: int, at_once: int) -> None:
        self.stream = Stream(topic, epoch, newest_by=_alike)
        self._find = partial(days.day, topic.symbol)  # again each time: the symbol may come into being
        day = self._find()
        if day is not None:
            day.catch_up(None)
        self.states = States(at_once, 0 if day is None else day.number)
        self._late = 0 if day is None else day.late  # at the last reading

    @property
    def last(self) -> int:
        day = self._up_to_date()
        return 0 if day is None else day.number

    def read(self, after: int) -> Update | None:
        day = self._up_to_date()
        if day is None or day.number <= after:
            return None
        places = self.states.behind(after) or [(day.number, day.state())]
        since = day.history.since_when(after - self._late)
        self._late = day.late
        return Update(self.stream, after + 1, places, since)

    def newest(self, count: int) -> Places:
        """The present state, if there is one."""
        day = self._up_to_date()
        return [(day.number, day.state())] if count and day is not None and day.bar is not None else []

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        return Resumed(False, self.last)  # there is no past

    def behind(self, offset: int, limit: int) -> Places:
        return ()

    def _up_to_date(self) -> Day | None:
        day = self._find()
        if day is not None:
            day.catch_up(self.states)
        return day


def _alike(_state: Aggregate) -> None:
    """Only the newest state counts."""


class Days:
    """The channel, and what an `actors.follower.Follower` keeps up to date.

    Only with a follower it counts every trade.
    """

    name = DAYS
    offered = False  # faces ask for it in ways of their own

    def __init__(self, ground: Ground) -> None:
        self._left_out = LeftOut(ground.clock)
        self._ground = ground
        self._days: dict[str, Day] = {}
        self._restored: dict[str, Day] | None = None  # from disk, of symbols that may not exist now
        self._logs: WeakValueDictionary[str, AggregateLog] = WeakValueDictionary()  # of the open topics
        self._news: dict[str, None] = {}  # symbols of which something may be unread
        self._wake: Callable[[], object] = lambda: None

    def topics(self, symbol: str) -> Iterable[Topic]:
        return (Topic(DAYS, symbol),)

    def log_of(self, topic: Topic) -> AggregateLog:
        """The log of `topic`: the same object as long as somebody has it."""
        log = self._logs.get(topic.symbol)
        if log is None:
            log = AggregateLog(topic, self, self._ground.epoch, self._ground.at_once)
            self._logs[topic.symbol] = log
        return log

    def wants(self, topic: Topic) -> Collection[str]:
        return (topic.symbol,)

    def look(self, symbols: Iterable[str]) -> None:
        pass  # the state of a source changes no bar

    def day(self, symbol: str) -> Day | None:
        """The bar of `symbol`; None for a symbol that does not exist. Not up to date by itself."""
        day = self._days.get(symbol)
        if day is None and symbol in self._ground.carriers:
            day = (self._restored or {}).get(symbol) or self._new(symbol)
            self._days[symbol] = day
        return day

    def _new(self, symbol: str) -> Day:
        return Day(symbol, self._ground.history_of(symbol), self._ground.clock, self._left_out)

    def aggregate(self, symbol: str) -> Aggregate | None:
        """The present state of a symbol's bar; None when there is no such symbol, or no trade yet."""
        day = self.day(symbol)
        if day is None:
            return None
        self._catch_up(day)
        return None if day.bar is None else day.state()

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many places do not count, by reason."""
        return self._left_out.counts

    # For the history on disk.

    def checkpoints(self) -> list[Checkpoint]:
        """Those of the bars that have changed since the last time."""
        return [day.checkpoint() for day in self._days.values() if not day.is_saved]

    async def restore(self) -> None:
        """Bring the bars where they were when the last daemon ended. Idempotent. Raises ArchiveFailed."""
        if self._restored is not None:
            return
        ground, restored, left = self._ground, dict[str, Day](), REPLAYED
        points = await ground.tiers.ask(lambda archive: archive.checkpoints(DAYS)) or {}
        for symbol, stream in ground.recording.streams.items():
            day, point = self._new(symbol), points.get(symbol)
            if point is not None and point.position <= stream.last:  # else of places that were lost
                day.go_on_from(point)
            else:
                before = await self._before_its_day(symbol, stream.first - 1)
                day.position = max(before, day.history.first - 1 - left)
                day.gaps.blind = day.position
                self._left_out.counts[FORGOTTEN] += day.position - before
                left -= max(0, day.history.first - 1 - day.position)
            for first, last in list(day.gaps.ranges):  # these may be filled behind the checkpoint
                for place, entry in await ground.tiers.behind(symbol, first - 1, last - first + 1):
                    if isinstance(entry, Trade) and place <= last:
                        day.fill(place, entry)
            while day.position + 1 < day.history.first:
                day.catch_up_with(await ground.tiers.behind(symbol, day.position, RUN))
            restored[symbol] = day
            self._news[symbol] = None
        self._restored = restored

    async def _before_its_day(self, symbol: str, after: int) -> int:
        """The place behind which the trades of its newest day are, by their own time: it may be long over."""
        tiers, future = self._ground.tiers, int(self._ground.clock() * 1e9) + AHEAD
        newest = await tiers.before(symbol, future, 1)
        if not newest:
            return after
        today = newest[0].trade.timestamp // DAY * DAY
        return await tiers.skip(symbol, after, today, today + DAY)

    # For the follower.

    def news(self, symbol: str) -> None:
        """The history of `symbol` has grown."""
        day = self.day(symbol)
        if day is not None:  # an upstream may send a symbol that is not configured
            self._news[symbol] = None
            if day.is_urgent:
                with suppress(Exception):  # the follower meets it as well: it is not the caller's error
                    self._catch_up(day)
            elif day.is_pressing:
                self._wake()

    def follow(self, wake: Callable[[], object]) -> None:
        """From now on `wake()` is called when `advance` is urgent."""
        self._wake = wake

    def advance(self) -> bool:
        """Read a part of what is unread. Returns whether there is more."""
        work = 0
        while self._news and work < AT_ONCE:
            symbol = next(iter(self._news))
            del self._news[symbol]
            day = self.day(symbol)
            if day is None:
                continue  # on disk only
            work += day.unread
            try:
                self._catch_up(day)
            except BaseException:
                self._news[symbol] = None  # behind the others: it must not keep them from being read
                raise
        return bool(self._news)

    def _catch_up(self, day: Day) -> None:
        log = self._logs.get(day.symbol)
        day.catch_up(None if log is None else log.states)


make = Days
