"""The channel `prices`: the price of each trade. Of one symbol, or of all that there are and will be.

Rules of this file. A subscriber that keeps up gets an entry for each admitted trade, in the order of its
symbol. One that is behind gets of each symbol the newest, and of gaps nobody is told: a price has no past.
A log lives as long as its topic is open, and begins with the trades that come then: a price has no time, so
an old one would pass for one of now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final
from weakref import WeakValueDictionary

from attrs import define

from actors.update import Places, Stream, Update
from dataflow.cache.history import History, Resumed
from dataflow.domain import Gap, Recorded, Topic, Trade
from dataflow.domain.symbols import ANY
from dataflow.domain.topic import PRICES

from .channel import Ground

KEPT: Final = 20_000  # entries at least: above twice as many the older ones are forgotten


@define(eq=False)
class _Followed:
    """A history, and the place up to which it was looked at."""

    history: History
    seen: int


class PriceLog:
    """The trades of some symbols, in the order in which they were found: of each symbol in their own."""

    def __init__(self, topic: Topic, ground: Ground, symbols: Iterable[str]) -> None:
        self.stream = Stream(topic, ground.epoch, newest_by=lambda trade: trade.symbol)
        self._ground = ground
        self._followed: dict[str, _Followed] = {}
        self._kept: list[Trade] = []  # in the newest places
        self._last = 0
        for symbol in symbols:
            self.follow(symbol)

    def follow(self, symbol: str) -> None:
        """The trades of `symbol` belong to this log from now on. Idempotent."""
        if symbol not in self._followed:
            history = self._ground.history_of(symbol)
            self._followed[symbol] = _Followed(history, history.last)

    @property
    def last(self) -> int:
        self._look()
        return self._last

    def read(self, after: int) -> Update | None:
        if after >= self._last:
            self._look()
        before = self._last - len(self._kept)
        begin = max(0, after - before)
        trades = self._kept[begin : begin + self._ground.at_once]
        if not trades:
            return None
        return Update(self.stream, after + 1, list(enumerate(trades, before + begin + 1)))

    def newest(self, count: int) -> Places:
        self._look()
        trades = self._kept[max(0, len(self._kept) - count) :]
        return list(enumerate(trades, self._last - len(trades) + 1))

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        return Resumed(False, self.last)  # there is no past

    def behind(self, offset: int, limit: int) -> Places:
        return ()

    def _look(self) -> None:
        """Take in what was admitted since the last look: all of it, or where that is too much the newest."""
        room = KEPT
        for each in self._followed.values():
            if each.history.last > each.seen:
                trades = _behind(each, room)
                room -= len(trades)
                each.seen = each.history.last
                self._kept += trades
                self._last += len(trades)
        if len(self._kept) > 2 * KEPT:
            del self._kept[:-KEPT]


def _behind(followed: _Followed, room: int) -> list[Trade]:
    """The trades behind the place that was seen: all, or the newest alone where they find no room."""
    places = followed.history.places(followed.seen, room + 1) if room > 0 else ()
    if 0 < len(places) <= room:
        return [entry for _, entry in places if not isinstance(entry, Gap)]
    newest = followed.history.newest(1)
    return [e.trade for e in newest if isinstance(e, Recorded) and e.offset > followed.seen]


class Prices:
    """The channel: a log of each symbol, and one of all symbols together (`EVERY`)."""

    name = PRICES
    offered = False  # a face has it under a name of its own

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._logs: WeakValueDictionary[Topic, PriceLog] = WeakValueDictionary()  # of the open topics

    def topics(self, symbol: str) -> Iterable[Topic]:
        return (Topic(PRICES, symbol),)

    def log_of(self, topic: Topic) -> PriceLog:
        """The log of `topic`: the same object as long as somebody has it."""
        log = self._logs.get(topic)
        if log is None:
            symbols = self._ground.carriers if topic == EVERY else (topic.symbol,)
            log = self._logs[topic] = PriceLog(topic, self._ground, symbols)
        return log

    def wants(self, topic: Topic) -> Collection[str]:
        return (topic.symbol,)

    def look(self, symbols: Iterable[str]) -> None:
        """Some of them may have come into being just now: before their first trade."""
        log = self._logs.get(EVERY)
        if log is not None:
            for symbol in self._ground.carriers.keys() & set(symbols):
                log.follow(symbol)


EVERY: Final = Topic(PRICES, ANY)  # of all symbols, those of the future included
make = Prices
