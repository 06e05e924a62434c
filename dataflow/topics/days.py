"""The channel `days`: of each symbol the running bar of the current UTC day, in the exchanges' time.

Rules of this file. A bar is made of every trade that was ever admitted, never of the bounded history alone: a
`Day` reads the history from a position of its own, in time, because a follower sees to it (`Days.advance`).
Readers and questions bring it up to date before they look, so what they see is never old. It stands still
after midnight until a trade of the new day comes. It never goes back: a trade of a day that is over does not
count. Nor does one that is dated more than an hour ahead of our clock, or a single wrong date would end the
day. Whatever does not count is counted.

Bars survive the process, where there is a history on disk: a checkpoint has the bar and the position that it
was made of, and what came behind it is read from disk at the start.

A topic shows each state that the bar had, one a trade, as long as its reader keeps up. A reader that is
behind gets the newest state. The topic of a symbol that does not exist (yet) is empty, and nothing is kept of
it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from attrs import define
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
AT_ONCE: Final = 20_000  # places that the follower reads between two checkpoints: more than the shards admit

FORGOTTEN: Final = "forgotten"  # why places do not count. The history forgot these before they were read
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


class States:
    """The newest states of a bar, one a trade, at most `most`. All behind place `after` are here."""

    def __init__(self, most: int, after: int) -> None:
        self.most = most
        self._after = after
        self._states: deque[tuple[int, Aggregate]] = deque(maxlen=most)

    def add(self, state: Aggregate) -> None:
        """The next state."""
        if len(self._states) == self.most:
            self._after = self._states[0][0]
        self._states.append((state.offset, state))

    def skip_to(self, state: Aggregate) -> None:
        """The newest state; those before it were never made."""
        self._states.clear()
        self._states.append((state.offset, state))
        self._after = state.offset

    def behind(self, place: int) -> Places | None:
        """All states behind `place`; None when some of them are not here."""
        if place < self._after:
            return None
        found = list(takewhile(lambda state: state[0] > place, reversed(self._states)))
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
    place: int = 0  # of the newest trade that counts, and so of the present state
    saved: int = 0  # the position of the newest checkpoint

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
        return self.unread >= self.history.max_trades // 2

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
        before = self.place
        if states is None:
            self._read_all()
        elif self.unread <= states.most:
            self._read_each(states)
        else:
            self._read_all()
            if self.place > before:
                states.skip_to(self.state())

    def _read_all(self) -> None:
        while self.unread and (places := self._next(RUN)):
            self._fold(places)

    def _read_each(self, states: States) -> None:
        for each in self._next(states.most) if self.unread else ():
            before = self.place
            self._fold((each,))
            if self.place > before:
                states.add(self.state())

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
        self.saved = self.position
        return Checkpoint(DAYS, self.symbol, self.position, _encode(_Saved(self.bar, self.place)))

    def go_on_from(self, point: Checkpoint) -> None:
        """Begin where a checkpoint was made."""
        saved = _decode(point.data)
        self.bar, self.place = saved.bar, saved.place
        self.position = self.saved = point.position

    def _fold(self, places: Sequence[tuple[int, Trade | Gap]]) -> None:
        last = places[-1][0]
        trades = [entry for _, entry in places if isinstance(entry, Trade)]
        if len(trades) < len(places):
            places = [place for place in places if isinstance(place[1], Trade)]
        future = int(self._clock() * 1e9) + AHEAD
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
                self.bar, self.place = Bar.of(trade, DAY), places[at][0]
                at += 1
            else:
                at = bar.fold(trades, at, future)
                self.place = places[at - 1][0]
            self.position = places[at - 1][0]  # with each part, so that an exception repeats none
        self.position = last


class AggregateLog:
    """The states of a symbol's bar. Each has the place of the trade that made it."""

    def __init__(self, topic: Topic, days: Days, epoch: int, at_once: int) -> None:
        self.stream = Stream(topic, epoch, newest_by=_alike)
        self._find = partial(days.day, topic.symbol)  # again each time: the symbol may come into being
        day = self._find()
        if day is not None:
            day.catch_up(None)
        self.states = States(at_once, 0 if day is None else day.place)

    @property
    def last(self) -> int:
        day = self._up_to_date()
        return 0 if day is None else day.place

    def read(self, after: int) -> Update | None:
        day = self._up_to_date()
        if day is None or day.place <= after:
            return None
        places = self.states.behind(after) or [(day.place, day.state())]
        return Update(self.stream, after + 1, places, day.history.since_when(after))

    def newest(self, count: int) -> Places:
        """The present state, if there is one."""
        day = self._up_to_date()
        return [(day.place, day.state())] if count and day is not None and day.bar is not None else []

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
        return [day.checkpoint() for day in self._days.values() if day.position > day.saved]

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
                self._left_out.counts[FORGOTTEN] += day.position - before
                left -= max(0, day.history.first - 1 - day.position)
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
