"""The channel `quality`: how good the data of a symbol is at each of its sources, told on change only.

Rules of this file. A subscriber is owed the newest state of each source and no history: of several changes a
slow one gets the last. Nothing is polled: `look` is called after everything that may change a state,
compares, and wakes the topic when something did. To listen to quality is no interest in the symbol.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from actors.update import Stream, Update
from dataflow.domain import Topic
from dataflow.domain.quality import Grade, Quality
from dataflow.domain.topic import QUALITY
from dataflow.sources.state import SourceState

from .channel import Ground

_GRADES: Final = {
    "live": Grade.LIVE,
    "subscribing": Grade.LOST,
    "connecting": Grade.LOST,
    "lost": Grade.LOST,
    "idle": Grade.IDLE,
    "rejected": Grade.REJECTED,
}


def judge(source: SourceState, symbol: str, since: int) -> Quality:
    """How `symbol` fares at `source` now; `since` (ns since epoch) is when that began."""
    status = source.status(symbol)
    grade = _GRADES[status]
    if grade is Grade.REJECTED:
        reason = source.refusal(symbol)
    elif grade is Grade.LOST:
        reason = source.reason if status == "lost" else status
    else:
        reason = None
    return Quality(symbol, source.name, grade, since, reason)


class QualityLog:
    """One symbol's states, one a source. Each change has a place; of each source only the newest is kept."""

    def __init__(self, topic: Topic, epoch: int, states: Sequence[Quality]) -> None:
        self.stream = Stream(topic, epoch, newest_by=lambda quality: quality.source)
        self.last = len(states)
        self._newest = {state.source: (place, state) for place, state in enumerate(states, start=1)}

    @property
    def states(self) -> Sequence[Quality]:
        """The state at each source now, in the order of the sources."""
        return [state for _, state in self._newest.values()]

    def put(self, state: Quality) -> bool:
        """Take in the state of its source; returns whether that is a change."""
        _, before = self._newest[state.source]
        if (before.state, before.reason) == (state.state, state.reason):
            return False
        self.last += 1
        self._newest[state.source] = self.last, state
        return True

    def read(self, after: int) -> Update | None:
        places = sorted(
            (place for place in self._newest.values() if place[0] > after), key=lambda place: place[0]
        )
        return Update(self.stream, after + 1, places) if places else None

    def newest(self, count: int) -> Sequence[Quality]:
        return ()  # a subscriber's answer holds the states themselves

    def since(self, epoch: int, offset: int, limit: int) -> tuple[bool, Sequence[Quality]]:
        return False, ()

    def behind(self, offset: int) -> Sequence[Quality]:
        return ()


class Qualities:
    """All of it."""

    name = QUALITY

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._logs = {symbol: self._new_log(symbol) for symbol in ground.carriers}

    def topics(self, symbol: str) -> Iterable[Topic]:
        return (Topic(QUALITY, symbol),)

    def log_of(self, topic: Topic) -> QualityLog:
        return self._logs[topic.symbol]

    def wants(self, topic: Topic) -> Collection[str]:
        return ()

    def look(self, symbols: Iterable[str]) -> None:
        now = int(self._ground.clock() * 1e9)
        for symbol in symbols:
            log = self._logs.get(symbol)
            if log is None:  # an upstream speaks of a symbol that nobody configured
                continue
            changes = [log.put(judge(source, symbol, now)) for source in self._ground.carriers[symbol]]
            if any(changes):
                self._ground.news(Topic(QUALITY, symbol))

    def _new_log(self, symbol: str) -> QualityLog:
        states = [judge(source, symbol, int(source.since * 1e9)) for source in self._ground.carriers[symbol]]
        return QualityLog(Topic(QUALITY, symbol), self._ground.epoch, states)


make = Qualities
