"""The channel `quality`: the state of a symbol at each of its sources. It has entries only for changes.

Rules of this file. A subscriber gets the newest state of each source and no history; a slow subscriber gets
only the last of several changes. Nothing is polled: `look` is called after each event that may change a
state, or the sources of a symbol. It compares, and wakes the topic if a state has changed. A subscription to
quality does not make the sources deliver the symbol. What is missing and the lag change all the time: an
entry has them as they were when it was made, and who asks gets them as they are (`Qualities.now`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Final

from attrs import evolve

from actors.update import Places, Stream, Update
from dataflow.cache.history import Resumed
from dataflow.domain import Topic
from dataflow.domain.quality import Grade, Quality
from dataflow.domain.topic import QUALITY
from dataflow.sources.state import REMOVED, SourceState
from dataflow.sources.vitals import UNHEARD, Pulse

from .channel import Ground

_GRADES: Final = {
    "live": Grade.LIVE,
    "subscribing": Grade.LOST,
    "connecting": Grade.LOST,
    "lost": Grade.LOST,
    "idle": Grade.IDLE,
    "rejected": Grade.REJECTED,
}
REFILLING: Final = "missed trades are being asked for"
GAPPED: Final = "trades were missed lately, and could not be had"

DESERTED: Final = "no producer is there"


def judge(source: SourceState, symbol: str, since: int, active: str | None = None) -> Quality:
    """The quality of `symbol` at `source` now. `since`: begin of this state, ns since epoch.

    `active`: the source that is preferred at present; None: every one counts.
    """
    status = source.status(symbol)
    grade, pulse = _GRADES[status], source.vitals.pulses.get(symbol)
    reason, preferred = None, None if active in (None, source.name) else f"{active} is preferred"
    if pulse is not None and status in ("live", "subscribing") and pulse.stalled is not None:
        grade, reason = Grade.STALLED, _joined(pulse.stalled, preferred)  # also while it is subscribed anew
    elif grade is Grade.REJECTED:
        reason = source.refusal(symbol)
    elif grade is Grade.LOST:
        reason = source.reason if status == "lost" else status
    elif grade is Grade.LIVE:
        grade, reason = _living(source, pulse)
        if preferred is not None:
            doubt = reason if grade is Grade.QUIET else None
            grade, reason = Grade.STANDBY, _joined(preferred, doubt)
    missing, lag = figures(source, symbol)
    return Quality(symbol, source.name, grade, since, reason, missing, lag)


def _living(source: SourceState, pulse: Pulse | None) -> tuple[Grade, str | None]:
    if source.listens:  # nobody judges the silence of those who push to us
        return (Grade.QUIET, DESERTED) if source.is_deserted else (Grade.LIVE, None)
    if pulse is None:
        return Grade.QUIET, UNHEARD
    if pulse.is_refilling:
        return Grade.REFILLING, REFILLING
    return (Grade.GAPPED, GAPPED) if pulse.is_gapped else (pulse.grade, pulse.reason)


def _joined(*words: str | None) -> str:
    return "; ".join(filter(None, words))


def figures(source: SourceState, symbol: str) -> tuple[int | None, float | None]:
    """What is missing of `symbol` at `source`, and its lag: see `Quality`."""
    pulse = source.vitals.pulses.get(symbol)
    return (None, None) if pulse is None else (pulse.missing, pulse.lag)


def _with_figures(state: Quality, source: SourceState) -> Quality:
    missing, lag = figures(source, state.symbol)
    return evolve(state, missing=missing, lag=lag)


class QualityLog:
    """The states of one symbol. Each change takes a place; only the newest of each source is kept."""

    def __init__(self, topic: Topic, epoch: int, states: Sequence[Quality]) -> None:
        self.stream = Stream(topic, epoch, newest_by=lambda quality: quality.source)
        self.last = len(states)
        self._newest = {state.source: (place, state) for place, state in enumerate(states, start=1)}
        self._gone: set[str] = set()  # sources that do not carry the symbol any more

    @property
    def states(self) -> Sequence[Quality]:
        """The present state at each source, in the order of the sources."""
        return [state for _, state in self._newest.values() if state.source not in self._gone]

    @property
    def sources(self) -> Set[str]:
        """The names of these sources."""
        return self._newest.keys() - self._gone

    def leave(self, source: str, now: int) -> bool:
        """`source` does not carry the symbol any more: its last state says so. Returns whether it changed."""
        symbol = self.stream.topic.symbol
        changed = self.put(Quality(symbol, source, Grade.LOST, now, REMOVED))
        self._gone.add(source)
        return changed

    def put(self, state: Quality) -> bool:
        """Store the state of its source. Returns whether state or reason has changed."""
        self._gone.discard(state.source)
        _, before = self._newest.get(state.source, (0, None))
        if before is not None and (before.state, before.reason) == (state.state, state.reason):
            return False
        if before is not None and before.state is state.state:
            state = evolve(state, since=before.since)  # another reason is no new beginning
        self.last += 1
        self._newest[state.source] = self.last, state
        return True

    def read(self, after: int) -> Update | None:
        places = self._behind(after)
        return Update(self.stream, after + 1, places) if places else None

    def newest(self, count: int) -> Places:
        """The states that changed last, of as many sources."""
        places = [place for place in self._behind(0) if place[1].source not in self._gone]
        return places[max(0, len(places) - count) :]

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        return Resumed(False, self.last)  # there is no past

    def behind(self, offset: int, limit: int) -> Places:
        return ()

    def _behind(self, after: int) -> Places:
        return sorted((each for each in self._newest.values() if each[0] > after), key=lambda each: each[0])


class Qualities:
    """The channel: one log per symbol."""

    name = QUALITY
    offered = True

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._logs = {symbol: self._new_log(symbol) for symbol in ground.carriers}

    def topics(self, symbol: str) -> Iterable[Topic]:
        return (Topic(QUALITY, symbol),)

    def log_of(self, topic: Topic) -> QualityLog:
        return self._logs[topic.symbol]

    def now(self, symbol: str) -> Sequence[Quality]:
        """The state at each source, in their order, with what is missing and the lag as they are now."""
        carriers = {source.name: source for source in self._ground.carriers.get(symbol, ())}
        return [
            _with_figures(state, carriers[state.source]) if state.source in carriers else state
            for state in self._logs[symbol].states
        ]

    def by_source(self) -> Mapping[str, Mapping[Grade, Sequence[str]]]:
        """The symbols of each source that are in each state."""
        found: dict[str, dict[Grade, list[str]]] = {}
        for symbol, log in self._logs.items():
            for state in log.states:
                found.setdefault(state.source, {}).setdefault(state.state, []).append(symbol)
        return found

    def wants(self, topic: Topic) -> Collection[str]:
        return ()

    def look(self, symbols: Iterable[str]) -> None:
        now = int(self._ground.clock() * 1e9)
        for symbol in symbols:
            carriers, log = self._ground.carriers.get(symbol, ()), self._logs.get(symbol)
            if log is None and not carriers:  # an upstream may send a symbol that is not configured
                continue
            if log is None:
                log = self._logs[symbol] = self._new_log(symbol)
            gone = log.sources - {source.name for source in carriers}
            changes = [log.leave(name, now) for name in sorted(gone)]
            active = self._ground.active(symbol)
            changes += [log.put(judge(source, symbol, now, active)) for source in carriers]
            if any(changes):
                self._ground.news(Topic(QUALITY, symbol))

    def _new_log(self, symbol: str) -> QualityLog:
        active, carriers = self._ground.active(symbol), self._ground.carriers[symbol]
        states = [judge(source, symbol, int(source.since * 1e9), active) for source in carriers]
        return QualityLog(Topic(QUALITY, symbol), self._ground.epoch, states)


make = Qualities
