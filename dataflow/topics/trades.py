"""The channel `trades`: the trades and gaps of a symbol. Every subscriber gets every entry."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from operator import itemgetter
from weakref import WeakValueDictionary

import trio

from actors.update import Places, Stream, Update
from dataflow.cache.history import History, Resumed
from dataflow.cache.places import first_place, newest
from dataflow.cache.recording import Recording
from dataflow.cache.tiers import Tiers
from dataflow.domain import Entry, Gap, Topic
from dataflow.domain.symbols import ANY
from dataflow.domain.topic import TRADES

from .channel import Deep, Ground


class TradeLog(Deep):
    """The history of a symbol as a log for subscriptions: runs of at most `at_once` entries.

    `tiers`: memory and disk; None: there is no disk.
    """

    def __init__(self, topic: Topic, history: History, at_once: int, tiers: Tiers | None = None) -> None:
        self.stream = Stream(topic, history.epoch, hole=Gap, filling=history)
        self._history = history
        self._at_once = at_once
        self._tiers = tiers or Tiers(None, lambda _symbol: history)

    @property
    def last(self) -> int:
        return self._history.last

    def read(self, after: int) -> Update | None:
        places = self._history.places(after, self._at_once)
        if not places:
            return None
        return Update(self.stream, first_place(*places[0]), places, self._history.since_when(after))

    def newest(self, count: int) -> Places:
        self._history.expire(trio.current_time())
        return _places(self._history.newest(count))

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        self._history.expire(trio.current_time())
        return self._history.resume(epoch, offset, limit, self._oldest)

    def behind(self, offset: int, limit: int) -> Places:
        return self._history.places(offset, limit)

    @property
    def _oldest(self) -> int:
        return self._tiers.first(self.stream.topic.symbol)

    def is_forgotten(self, after: int) -> bool:
        first = self._history.first
        return after + 1 < first and self._oldest < first

    def has_older(self, count: int) -> bool:
        first = self._history.first
        if self._oldest >= first:
            return False
        return sum(not isinstance(entry, Gap) for _, entry in self._history.newest_places(count)) < count

    async def reach(self, after: int, limit: int) -> Places:
        return await self._tiers.behind(self.stream.topic.symbol, after, limit)

    async def reach_newest(self, count: int) -> Places:
        return await self._tiers.newest(self.stream.topic.symbol, count)


class PersistedLog(TradeLog):
    """The same, up to the last place that is on disk."""

    def __init__(
        self, topic: Topic, history: History, at_once: int, tiers: Tiers, recording: Recording
    ) -> None:
        super().__init__(topic, history, at_once, tiers)
        self._end = partial(recording.shown, topic.symbol)

    @property
    def last(self) -> int:
        return self._end()

    def read(self, after: int) -> Update | None:
        update = super().read(after)
        if update is None or update.last <= (end := self._end()):
            return update
        places = _up_to(update.places, end)
        return Update(self.stream, update.first, places, update.since) if places else None

    def newest(self, count: int) -> Places:
        end = self._end()
        return newest(_up_to(super().newest(count + self._history.last - end), end), count)

    def behind(self, offset: int, limit: int) -> Places:
        return _up_to(super().behind(offset, limit), self._end())

    async def reach(self, after: int, limit: int) -> Places:
        return _up_to(await super().reach(after, limit), self._end())

    async def reach_newest(self, count: int) -> Places:
        return _up_to(await super().reach_newest(count), self._end())


class ExpectedLog(Deep):
    """The log of a symbol that does not exist yet: empty until it does, and then that of its history."""

    def __init__(self, topic: Topic, ground: Ground) -> None:
        self.stream = Stream(topic, ground.recording.epoch, hole=Gap)
        self._ground = ground
        self._log: TradeLog | None = None

    def _found(self) -> TradeLog | None:
        ground, topic = self._ground, self.stream.topic
        if self._log is None and topic.symbol in ground.carriers:
            self._log = _trade_log(topic, ground)
            self.stream.filling = ground.history_of(topic.symbol)
            self._log.stream = self.stream
        return self._log

    @property
    def last(self) -> int:
        log = self._found()
        return 0 if log is None else log.last

    def read(self, after: int) -> Update | None:
        log = self._found()
        return None if log is None else log.read(after)

    def newest(self, count: int) -> Places:
        log = self._found()
        return () if log is None else log.newest(count)

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        log = self._found()
        return Resumed(False, 0) if log is None else log.resume(epoch, offset, limit)

    def behind(self, offset: int, limit: int) -> Places:
        log = self._found()
        return () if log is None else log.behind(offset, limit)

    def is_forgotten(self, after: int) -> bool:
        log = self._found()
        return log is not None and log.is_forgotten(after)

    def has_older(self, count: int) -> bool:
        log = self._found()
        return log is not None and log.has_older(count)

    async def reach(self, after: int, limit: int) -> Places:
        log = self._found()
        return () if log is None else await log.reach(after, limit)

    async def reach_newest(self, count: int) -> Places:
        log = self._found()
        return () if log is None else await log.reach_newest(count)


def _trade_log(topic: Topic, ground: Ground) -> TradeLog:
    history = ground.history_of(topic.symbol)
    if ground.recording.after_commit:
        return PersistedLog(topic, history, ground.at_once, ground.tiers, ground.recording)
    return TradeLog(topic, history, ground.at_once, ground.tiers)


def _up_to(places: Places, end: int) -> Places:
    """`end` is the last place of an entry, or lies behind all of them."""
    return places[: bisect_right(places, end, key=itemgetter(0))]


def _places(entries: Sequence[Entry]) -> Places:
    return [(each.last, each if isinstance(each, Gap) else each.trade) for each in entries]


class Readers:
    """The topics that read the trades of a symbol, whichever channel they belong to."""

    def __init__(self) -> None:
        self._wakes: dict[str, dict[Topic, Callable[[], object]]] = {}
        self._of_all: dict[object, Callable[[str], object]] = {}

    def add(self, symbol: str, topic: Topic, wake: Callable[[], object]) -> None:
        """From now on `wake()` is called for news of `symbol`. Idempotent."""
        self._wakes.setdefault(symbol, {})[topic] = wake

    def remove(self, symbol: str, topic: Topic) -> None:
        """Idempotent. `ANY`: it reads all symbols."""
        if symbol == ANY:
            self._of_all.pop(topic, None)
            return
        wakes = self._wakes.get(symbol, {})
        wakes.pop(topic, None)
        if not wakes:
            self._wakes.pop(symbol, None)

    def add_of_all(self, told: Callable[[str], object], topic: Topic | None = None) -> None:
        """From now on `told(symbol)` is called for news of any symbol. For few: each costs every batch.

        Idempotent for a `topic`.
        """
        self._of_all[topic or told] = told

    def topics(self, symbol: str) -> Collection[Topic]:
        """The topics that read the trades of `symbol`."""
        return [*self._wakes.get(symbol, ()), *(each for each in self._of_all if isinstance(each, Topic))]

    def news(self, symbol: str) -> None:
        """The history of `symbol` has grown."""
        for wake in self._wakes.get(symbol, {}).values():
            wake()
        for told in self._of_all.values():
            told(symbol)


class Trades:
    """The channel: one log per symbol. Nothing is kept of a symbol that neither exists nor has followers."""

    name = TRADES
    offered = True

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._logs: dict[Topic, TradeLog] = {}
        self._expected: WeakValueDictionary[Topic, ExpectedLog] = WeakValueDictionary()

    def topics(self, symbol: str) -> Iterable[Topic]:
        return (Topic(TRADES, symbol),)

    def log_of(self, topic: Topic) -> TradeLog | ExpectedLog:
        log: TradeLog | ExpectedLog | None = self._logs.get(topic) or self._expected.get(topic)
        if log is None and topic.symbol not in self._ground.carriers:
            log = self._expected[topic] = ExpectedLog(topic, self._ground)
        elif log is None:
            log = self._logs[topic] = _trade_log(topic, self._ground)
        return log

    def wants(self, topic: Topic) -> Collection[str]:
        return (topic.symbol,)

    def look(self, symbols: Iterable[str]) -> None:
        pass  # the state of a source changes no trade


make = Trades
