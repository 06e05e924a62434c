"""The topic of all symbols: what it brings, and what it does not look at."""

from __future__ import annotations

from decimal import Decimal

from attrs import evolve

from actors.update import Bundle, Fill, Update
from dataflow.domain import Topic, Trade
from dataflow.domain.notice import Started
from dataflow.topics import trades
from dataflow.topics.channel import TopicLog
from dataflow.topics.every import EveryLog

from .stage import AT_ONCE, EPOCH, SYMBOLS, Stage

EVERY = Topic("trades", "*")
BTC, ETH = (Topic("trades", symbol) for symbol in SYMBOLS)


class World:
    """Two symbols, the log of all, and the reads of each symbol's log."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.looked: list[Topic] = []
        self.symbols = dict(self.stage.ground.carriers)
        self.stage.ground = evolve(self.stage.ground, carriers=self.symbols)
        self.channel = self.stage.make(trades.make)
        self.log = EveryLog(EVERY, self.symbols, self.log_of, EPOCH, AT_ONCE)

    def log_of(self, topic: Topic) -> TopicLog:
        return self.channel.log_of(topic)

    def trade(self, topic: Topic, *ids: int) -> None:
        self.stage.store.admit(
            [Trade("a", topic.symbol, str(n), "buy", Decimal(1), Decimal(1), n, n) for n in ids], 0.0
        )
        self.log.touch(topic.symbol)


def shown(bundle: Bundle | None) -> list[tuple[str, list[int]]]:
    assert bundle is not None
    return [(part.topic.symbol, [place for place, _ in part.places]) for part in bundle.parts]


def test_a_bundle_has_what_is_new_of_the_symbols_with_news_and_of_no_other() -> None:
    """Each in its own places; nothing is read of a symbol that nobody touched."""
    w = World()
    w.trade(BTC, 1, 2)
    assert shown(w.log.read(0)) == [("BTC-USD", [1, 2])]
    w.trade(ETH, 5)
    read = w.log_of(BTC).read
    w.log_of(BTC).read = lambda after: 1 / 0  # type: ignore[assignment, misc, return-value]
    assert shown(w.log.read(1)) == [("ETH-USD", [1])]
    assert w.log.read(2) is None
    w.log_of(BTC).read = read  # type: ignore[method-assign]
    assert w.log.places == {BTC: 2, ETH: 1}


def test_a_bundle_is_the_same_until_it_was_brought_to_all() -> None:
    """A crash in the midst of a pass repeats it, also when there is news meanwhile."""
    w = World()
    w.trade(BTC, 1)
    first = w.log.read(0)
    w.trade(BTC, 2)
    w.log.touch_all()
    assert w.log.read(0) is first
    assert shown(w.log.read(1)) == [("BTC-USD", [2])]


def test_a_bundle_is_bounded_and_a_busy_symbol_keeps_no_other_waiting() -> None:
    """Symbols take turns; what finds no room comes in the next one."""
    w = World()
    w.trade(BTC, *range(1, 10))
    w.trade(ETH, 1)
    seen: list[tuple[str, list[int]]] = []
    while (bundle := w.log.read(w.log.last)) is not None:
        assert len(bundle.places) < 2 * AT_ONCE
        seen += shown(bundle)
    assert [places for symbol, places in seen if symbol == "BTC-USD"] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert seen.index(("ETH-USD", [1])) < 3


def test_a_new_symbol_is_announced_before_its_first_entry() -> None:
    """With its epoch and the place before; a symbol that is known is not."""
    w = World()
    w.symbols["SOL-USD"] = ()
    assert w.log.appear(w.symbols)
    assert not w.log.appear(w.symbols)
    sol = Topic("trades", "SOL-USD")
    assert sol not in w.log.topics
    w.trade(BTC, 1)
    bundle = w.log.read(0)
    assert bundle is not None
    assert bundle.parts[0].places == [(0, Started("SOL-USD", "trades", EPOCH, 0))]
    assert sol in w.log.topics
    w.trade(sol, 1)
    assert shown(w.log.read(1)) == [("SOL-USD", [1])]


def test_a_fill_comes_before_what_is_read_behind_it() -> None:
    """For those who were told of the gap: up to the place that the bundles had reached."""
    w = World()
    w.trade(BTC, 1, 4)
    assert shown(w.log.read(0)) == [("BTC-USD", [1, 3, 4])]
    w.trade(BTC, 2, 5)
    bundle = w.log.read(1)
    assert bundle is not None
    fill, update = bundle.parts
    assert isinstance(fill, Fill)
    assert isinstance(update, Update)
    assert (fill.places[0][0], [place for place, _ in update.places], bundle.told[BTC]) == (2, [5], 4)
    assert w.log.fills[BTC] == fill.number
