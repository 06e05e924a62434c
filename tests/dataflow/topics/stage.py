"""The ground that channels stand on, and the promises of their logs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from decimal import Decimal
from typing import Any

from attrs import define, field

from dataflow.cache.recording import Recording
from dataflow.cache.store import Store
from dataflow.cache.tiers import Tiers
from dataflow.domain import Missed, Topic, Trade
from dataflow.domain.candle import CandleRules
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import Audience, SourceState, carriers
from dataflow.topics.channel import Channel, Ground, TopicLog

SYMBOLS = ("BTC-USD", "ETH-USD")
EPOCH = 7
AT_ONCE = 3  # less than a long reading has, so that it comes in several runs

Places = list[tuple[int, Any]]


@define
class Stage:
    """Two sources, which carry two symbols, and their histories. `news` holds the topics that were woken."""

    now: float = 1000.0
    news: list[Topic] = field(factory=list)
    store: Store = field(factory=lambda: Store(EPOCH, 1000, 1e9))
    sources: dict[str, SourceState] = field(init=False)
    ground: Ground = field(init=False)
    watching: list[Channel] = field(factory=list)
    _trades: int = 0

    def __attrs_post_init__(self) -> None:
        self.sources = {name: self._source(name) for name in ("a", "b")}
        self.ground = Ground(
            carriers(self.sources),
            self.store.history,
            EPOCH,
            lambda: self.now,
            self.news.append,
            AT_ONCE,
            Tiers(None, self.store.history),
            Recording(self.store.history, number=EPOCH),
            CandleRules(throttle=0),
        )

    def _source(self, name: str) -> SourceState:
        settings = SourceSettings(connector=name, url="ws://x/", symbols=SYMBOLS)
        return SourceState(name, settings, Audience(), lambda: self.now, self.look)

    def look(self, symbols: Any) -> None:
        for channel in self.watching:
            channel.look(symbols)

    def make(self, make: Callable[[Ground], Channel]) -> Channel:
        """A channel on this ground. It is told of changes at the sources."""
        channel = make(self.ground)
        self.watching.append(channel)
        return channel

    def trade(self, symbol: str = SYMBOLS[0], source: str = "a") -> Trade:
        """The next trade, admitted."""
        self._trades += 1
        number = self._trades
        made = Trade(source, symbol, str(number), "buy", Decimal(number), Decimal(1), number * 1000)
        self.store.admit([made], 0.0)
        return made

    def hole(self, symbol: str = SYMBOLS[0], source: str = "a") -> None:
        """The next trade of the source has a gap before it."""
        self.store.admit([Missed(source, symbol, "source_gap")], 0.0)

    def turn(self, source: str, number: int) -> None:
        """Another state of a source."""
        self.now += 1
        state = self.sources[source]
        if number % 3 == 0:
            state.up([])
        elif number % 3 == 1:
            state.subscribed(SYMBOLS[0])
        else:
            state.down(f"reason {number}")


def read_on(log: TopicLog, after: int) -> Places:
    """All entries behind `after`, with their last places. A run begins right behind the one before it."""
    found: Places = []
    while (update := log.read(after)) is not None:
        assert update.stream is log.stream
        assert update.first == after + 1
        assert after < update.last <= log.last
        assert sorted(place for place, _ in update.places) == [place for place, _ in update.places]
        found += update.places
        after = update.last
    return found


def owed(log: TopicLog, entries: Sequence[tuple[int, Any]], after: int) -> Places:
    """The entries that a reader at `after` must get, of all that there ever were."""
    return what_counts(log, [(place, entry) for place, entry in entries if place > after])


def what_counts(log: TopicLog, entries: Places) -> Places:
    """All of them, or the newest of each key."""
    key = log.stream.newest_by
    if key is None:
        return entries
    newest: dict[Hashable, tuple[int, Any]] = {}
    for place, entry in entries:
        newest[key(entry)] = place, entry
    return sorted(newest.values(), key=lambda each: each[0])


def check_log(channel: Channel, topic: Topic, grow: Callable[[int], None], steps: int = 12) -> None:
    """The promises of a log, while `grow(n)` adds entries: places, readings, and that it is always the same."""
    log = channel.log_of(topic)
    entries = read_on(log, 0)
    for number in range(steps):
        before = log.last
        grow(number)
        new = read_on(log, before)
        assert log.last >= before
        assert [place for place, _ in new] == list(range(before + 1, log.last + 1)), "places grow by one"
        entries += new
    assert log.last > 0, "nothing has ever come"
    assert log.read(log.last) is None
    for after in range(log.last + 1):
        assert what_counts(log, read_on(log, after)) == owed(log, entries, after)
    newest = list(log.newest(len(entries)))
    for count in range(len(newest)):
        assert list(log.newest(count)) == newest[len(newest) - count :]
    assert channel.log_of(topic) is log
    assert channel.log_of(Topic(*topic)) is log
    assert log.stream.topic == topic
    assert log.stream.epoch == EPOCH
    assert log.resume(EPOCH + 1, 0, 1000)[0] is False, "an epoch that is not ours"
