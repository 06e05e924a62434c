"""The channel `trades`: the trades and gaps of a symbol. Every subscriber gets every entry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from weakref import WeakValueDictionary

import trio

from actors.update import Places, Stream, Update
from dataflow.cache.history import History, Resumed
from dataflow.domain import Entry, Gap, Topic
from dataflow.domain.symbols import ANY
from dataflow.domain.topic import TRADES

from .channel import Ground


class TradeLog:
    """The history of a symbol as a log for subscriptions: runs of at most `at_once` entries."""

    def __init__(self, topic: Topic, history: History, at_once: int) -> None:
        self.stream = Stream(topic, history.epoch, hole=Gap)
        self._history = history
        self._at_once = at_once

    @property
    def last(self) -> int:
        return self._history.last

    def read(self, after: int) -> Update | None:
        places = self._history.places(after, self._at_once)
        if not places:
            return None
        last, entry = places[0]
        first = entry.first if isinstance(entry, Gap) else last
        return Update(self.stream, first, places, self._history.since_when(after))

    def newest(self, count: int) -> Places:
        self._history.expire(trio.current_time())
        return _places(self._history.newest(count))

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        self._history.expire(trio.current_time())
        return self._history.resume(epoch, offset, limit)

    def behind(self, offset: int, limit: int) -> Places:
        return self._history.places(offset, limit)


class ExpectedLog:
    """The log of a symbol that does not exist yet: empty until it does, and then that of its history."""

    def __init__(self, topic: Topic, ground: Ground) -> None:
        self.stream = Stream(topic, ground.epoch, hole=Gap)
        self._ground = ground
        self._log: TradeLog | None = None

    def _found(self) -> TradeLog | None:
        ground, topic = self._ground, self.stream.topic
        if self._log is None and topic.symbol in ground.carriers:
            self._log = TradeLog(topic, ground.history_of(topic.symbol), ground.at_once)
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
            log = self._logs[topic] = TradeLog(
                topic, self._ground.history_of(topic.symbol), self._ground.at_once
            )
        return log

    def wants(self, topic: Topic) -> Collection[str]:
        return (topic.symbol,)

    def look(self, symbols: Iterable[str]) -> None:
        pass  # the state of a source changes no trade


make = Trades
