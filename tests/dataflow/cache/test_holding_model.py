"""Whatever is lost, late, answered, lied about or killed: each trade once, in its place, and no hole in silence."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import trio
from attrs import define, evolve, field
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dataflow.cache.history import History
from dataflow.cache.holding import Holds
from dataflow.cache.recorder import warm
from dataflow.cache.recording import Recording
from dataflow.cache.store import Store
from dataflow.domain import Gap, Item, Missed, Missing, Refilled, Trade
from tests.support.memory_archive import MemoryArchive

SYMBOL = "B-U"
HOLD = 2.0
KEPT = 80  # trades of the log: none is forgotten here
MOST = 60  # trades of the exchange


def made(number: int, *, numbered: bool) -> Trade:
    """Two of three have the time of the one before."""
    at = number // 3 * 1000
    sequence = number if numbered else None
    return Trade("s", SYMBOL, str(number), "buy", Decimal(number), Decimal(1), at, sequence)


def number_of(trade: Trade) -> int:
    return int(trade.trade_id or "")


@define
class World:
    """An exchange, connections to it, a history, who asks for what is missing, and a disk."""

    numbered: bool
    lines: int
    on_disk: bool = False
    made: int = 0
    now: float = 0.0
    ways: list[deque[Item]] = field(factory=list)  # what is on its way on each line
    told: list[Missing] = field(factory=list)
    offered: set[int] = field(factory=set)  # trades that came, and were not lost in a crash
    archive: MemoryArchive = field(factory=MemoryArchive)
    recording: Recording = field(init=False)
    store: Store = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ways = [deque() for _ in range(self.lines)]
        self.begin()

    def begin(self) -> None:
        """A life of the daemon."""
        self.told.clear()
        self.recording = Recording(
            lambda symbol: self.store.history(symbol), self.archive, self.archive.commits
        )
        self.store = Store(
            self.recording.epoch,
            KEPT,
            1e9,
            staged=self.recording.fills if self.on_disk else None,
            streams=self.recording.streams,
            holds=Holds(lambda _source: HOLD, self.told.append),
        )
        if self.archive.commits:
            trio.run(warm, self.recording, self.store.history)

    @property
    def log(self) -> History:
        return self.store.history(SYMBOL)

    def places(self) -> Sequence[tuple[int, Trade | Gap]]:
        return self.log.places(0, 1 << 40)

    # -- what happens

    def trade(self, lost: int) -> None:
        """The exchange trades. A bit of `lost` for each line that loses it."""
        if self.made < MOST:
            self.made += 1
            for line, way in enumerate(self.ways):
                if not lost >> line & 1:
                    way.append(made(self.made, numbered=self.numbered))
                elif not self.numbered:
                    way.append(Missed("s", SYMBOL, "source_gap"))

    def come(self, line: int, count: int) -> list[Item]:
        way = self.ways[line % self.lines]
        return [way.popleft() for _ in range(min(count, len(way)))]

    def line(self, line: int, count: int) -> None:
        items = self.come(line, count)
        self.store.admit(items, self.now)
        self.offered.update(number_of(item) for item in items if isinstance(item, Trade))

    def reconnect(self, line: int, again: int) -> None:
        """What was on its way is lost. The new connection repeats some trades.

        Without sequences none from before a loss: behind later ones nobody could tell where they belong.
        """
        way = self.ways[line % self.lines]
        way.clear()
        if not self.numbered:
            way.append(Missed("s", SYMBOL, "source_gap", resubscribed=True))
        first = max(1, self.made - again + 1)
        lost = set(range(1, max(self.offered, default=0))) - self.offered
        if not self.numbered:
            first = max(first, max(lost, default=0) + 1)
        way.extend(made(each, numbered=self.numbered) for each in range(first, self.made + 1))

    def crash(self, line: int, count: int) -> None:
        """The shard dies with a batch in its hand, of which it has admitted a part."""
        items = self.come(line, count)
        self.store.admit(items[: count // 2], self.now)
        self.offered.update(number_of(item) for item in items[: count // 2] if isinstance(item, Trade))
        self.store.lost(items)

    def answer(self, which: int, kind: int) -> None:
        """To one of the questions, perhaps again: all, a part, nothing, more than was asked for."""
        if not self.told:
            return
        asked = self.told[-1 - which % len(self.told)]
        low = 0 if asked.after is None else number_of(asked.after)
        high = self.made + 1 if asked.before is None else number_of(asked.before)
        numbers = list(range(low + 1, high))
        trades = [made(each, numbered=self.numbered) for each in numbers]
        is_whole, is_last = True, True
        if kind == 1:
            trades, is_whole, is_last = trades[: len(trades) // 2], False, False
        elif kind == 2:
            trades, is_whole = trades[::2] if self.numbered else trades[len(trades) // 2 :], False
        elif kind == 3:
            trades, is_whole = [], False
        elif kind == 4 and not self.numbered:
            around = [low, *numbers, high] if low else [*numbers, high]
            trades = [made(each, numbered=False) for each in around if each <= self.made]
        elif kind == 5 and asked.before is not None:  # at the end of the log it might be the truth
            false = [evolve_trade(each) for each in trades]
            trades, is_whole, is_last = [*false, made(self.made + 5, numbered=self.numbered)], False, False
        if self.numbered and kind != 5 and (asked.before is not None or kind != 2):
            self.offered.update(map(number_of, trades))
        answer = Refilled("s", SYMBOL, tuple(trades), is_whole, is_last, asked.before)
        self.store.admit([evolve(answer, before=None) if kind == 6 else answer], self.now)

    def late(self, seconds: int, _: int) -> None:
        self.now += seconds

    def write(self, _: int = 0, __: int = 0) -> None:
        self.recording.news(SYMBOL)
        while self.recording.waits:
            batch = self.recording.batch(self.recording.runs())
            self.archive.append(batch)
            self.recording.written(batch)

    def restart(self, is_clean: int, _: int) -> None:
        if is_clean:
            self.store.release()
            self.write()
        self.archive.close(bool(is_clean))
        self.begin()
        self.offered = {number_of(entry) for _, entry in self.places() if isinstance(entry, Trade)}
        for line in range(self.lines):
            self.reconnect(line, 0)

    # -- what must be

    def check(self) -> None:
        trades = [(place, number_of(entry)) for place, entry in self.places() if isinstance(entry, Trade)]
        numbers = [number for _, number in trades]
        assert numbers == sorted(set(numbers)), "each once, in the order of the exchange"
        assert self.log.waiting <= KEPT // 2
        entries = [entry for _, entry in self.places()]
        gaps = [entry for entry in entries if isinstance(entry, Gap)]
        if self.numbered:
            assert len({place - number for place, number in trades}) <= 1, "each at its place, all gaps exact"
            assert all(gap.exact for gap in gaps)
        else:
            before = None
            for entry in entries:
                if isinstance(entry, Trade) and isinstance(before, Trade):
                    assert number_of(entry) == number_of(before) + 1, "a hole without a gap"
                before = entry
        if self.store.holds.ended.keys() <= {("s", "whole")} and not self.archive.commits:
            assert not [gap for gap in gaps if gap.last > 1], (
                "nobody hears of a gap as long as the trades behind it wait"
            )

    def end(self) -> None:
        """All that came is in the log."""
        for line in range(self.lines):
            self.line(line, len(self.ways[line]))
        if self.store.release():
            event("waiting at the end")
        if self.on_disk:
            self.write()
        self.check()
        assert self.log.waiting == 0
        numbers = {number_of(entry) for _, entry in self.places() if isinstance(entry, Trade)}
        begin = min(numbers, default=0)  # what one line brings from before the other's first trade is late
        assert {each for each in self.offered if each >= begin} <= numbers
        for _, why in self.store.holds.ended:
            event(why)


def evolve_trade(trade: Trade) -> Trade:
    """The same number at another time."""
    return Trade(
        trade.source,
        trade.symbol,
        f"x{trade.trade_id}",
        trade.side,
        trade.price,
        trade.quantity,
        10**15 + trade.timestamp,
        trade.sequence,
    )


def steps(*more: str) -> Any:
    kinds = ["trade", "trade", "trade", "line", "line", "line", "answer", "answer", "late", *more]
    step = st.tuples(st.sampled_from(kinds), st.integers(0, 3), st.integers(0, 6))
    return st.lists(step, min_size=20, max_size=150)


def live(world: World, steps: list[tuple[str, int, int]]) -> None:
    for what, one, other in steps:
        if what == "trade":
            for _ in range(1 + other // 2):
                world.trade(one if other % 2 else 0)
        else:
            getattr(world, what)(one, other)
        world.check()
    world.end()


@settings(max_examples=150, deadline=None)
@given(steps("crash", "reconnect"), st.integers(1, 2))
def test_with_sequences_every_trade_is_at_its_place(steps: list[tuple[str, int, int]], lines: int) -> None:
    """Two lines with losses of their own, answers of every kind, crashes: offset and sequence never part."""
    live(World(True, lines), steps)


@settings(max_examples=150, deadline=None)
@given(steps("crash", "reconnect"))
def test_without_sequences_no_hole_is_silent(steps: list[tuple[str, int, int]]) -> None:
    """One line. Between two trades that follow each other in the log, nothing is missing."""
    live(World(False, 1), steps)


@settings(max_examples=50, deadline=None)
@given(steps("write", "write", "restart", "crash"), st.integers(1, 2), st.booleans())
def test_over_the_lives_of_a_daemon(steps: list[tuple[str, int, int]], lines: int, numbered: bool) -> None:
    """What waited in a life that was killed comes again, or is a gap; after a clean end nothing is forgotten."""
    live(World(numbered, lines if numbered else 1, on_disk=True), steps)
