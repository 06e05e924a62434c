"""All topics of a channel as one: those of the symbols that there are, and of those that come later.

Rules of this file. Every symbol's stream keeps its own places; this log only brings them together. It is told
which logs have news, so a pass looks at those alone, however many there are. Its places are bundles: one for
each pass, of at most so many entries. A bundle is kept until it was brought to all, so that a crash in the
midst repeats it and skips nothing. A new symbol is announced before its first entry, where the channel owes
every entry; else its present entries come as news.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set

from actors.update import Bundle, Fill, Stream, Update
from dataflow.domain import Topic
from dataflow.domain.notice import Started
from dataflow.domain.symbols import ANY

from .channel import TopicLog


class EveryLog:
    """The log of `topic`, whose symbol is `ANY`. `symbols`: those that there are at any time. `log_of`:
    the logs of their topics. `at_once`: the entries of a bundle; it may have almost twice as many."""

    def __init__(
        self,
        topic: Topic,
        symbols: Collection[str],
        log_of: Callable[[Topic], TopicLog],
        epoch: int,
        at_once: int,
    ) -> None:
        self.stream = Stream(topic, epoch)
        self.last = 0
        self.bundle: Bundle | None = None  # the newest one, which may be on its way still
        self._log_of = log_of
        self._symbols = symbols
        self._at_once = at_once
        self._logs: dict[Topic, TopicLog] = {}  # some channels keep them only as long as somebody does
        self.places: dict[Topic, int] = {}
        self.fills: dict[Topic, int] = {}
        for symbol in symbols:
            each = topic.of(symbol)
            log = self._logs[each] = log_of(each)
            self.places[each], self.fills[each] = log.last, log.stream.filled
        self._coming: dict[Topic, int] = {}  # not announced yet, with the places at which they begin
        self._news: dict[Topic, None] = {}  # perhaps; the longest waiting first

    def covers(self, topic: Topic) -> bool:
        """Whether it is one of the topics that this log has."""
        every = self.stream.topic
        return topic.channel == every.channel and topic.variant == every.variant and topic.symbol != ANY

    def touch(self, symbol: str) -> None:
        """There may be news of `symbol`."""
        self._news[self.stream.topic.of(symbol)] = None

    def touch_all(self) -> None:
        """There may be news of any symbol: nobody listened for a while."""
        for topic, place in self.places.items():
            log = self.log_of(topic)
            if log.last > place or log.stream.filled > self.fills[topic]:
                self._news[topic] = None

    def log_of(self, topic: Topic) -> TopicLog:
        """The log of one of its topics."""
        log = self._logs.get(topic)
        if log is None:
            log = self._logs[topic] = self._log_of(topic)
        return log

    @property
    def topics(self) -> Set[Topic]:
        """Those of the symbols that there are. A new one counts when it is announced."""
        return {topic for topic in self.places if topic.symbol in self._symbols}

    def appear(self, symbols: Iterable[str]) -> bool:
        """These symbols exist. Returns whether one of them is new."""
        topics = [self.stream.topic.of(symbol) for symbol in symbols]
        new = [each for each in topics if each not in self.places and each not in self._coming]
        for topic in new:
            log = self.log_of(topic)
            if log.stream.newest_by is None:
                self._coming[topic] = log.last
            else:
                self.places[topic] = self.fills[topic] = 0
                self._news[topic] = None
        return bool(new)

    def read(self, after: int) -> Bundle | None:
        """The bundle behind place `after`: the newest one again, or one of all that is new since it."""
        if self.bundle is None or self.bundle.last <= after:
            self.bundle = self._next()
        return self.bundle

    def _next(self) -> Bundle | None:
        parts: list[Update | Fill] = [*self._announcements()]
        places, fills, told = {**self._coming}, dict.fromkeys(self._coming, 0), dict[Topic, int]()
        room = self._at_once
        self._news.update(dict.fromkeys(self._coming))
        while self._news and room > 0:
            topic = next(iter(self._news))
            del self._news[topic]
            place = places.get(topic, self.places.get(topic))
            if place is None:
                continue
            log = self.log_of(topic)
            for fill in log.stream.fills(fills.get(topic, self.fills.get(topic, 0))):
                parts.append(fill)  # before what is read next, which has it already
                fills[topic] = fill.number
            told.setdefault(topic, place)
            update = log.read(place)
            if update is not None:
                self._news[topic] = None  # perhaps there is more; others come first
                places[topic] = update.last
                parts.append(update)
                room -= len(update.places)
        if not parts:
            return None
        updates = [part for part in parts if isinstance(part, Update)]
        since = min([part.since for part in updates if part.since is not None], default=None)
        entries = [place for part in updates for place in part.places]
        bundle = Bundle(self.stream, self.last + 1, entries, since, parts=parts, told=told)
        self.last += 1
        self.places.update(places)
        self.fills.update(fills)
        self._coming = {}
        return bundle

    def _announcements(self) -> list[Update]:
        parts = []
        for topic, place in self._coming.items():
            started = Started(topic.symbol, topic.channel, self.log_of(topic).stream.epoch, place)
            parts.append(Update(self.stream, place, [(place, started)]))
        return parts
