"""SQLite beside the simplest store: whatever is written in whatever order, both answer the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dataflow.cache.archive import BarRow, Batch, Checkpoint, Run
from dataflow.domain import Gap, Trade
from dataflow.settings.schema import History
from dataflow.stores import sqlite
from dataflow.stores.sqlite import parts, writer
from tests.support.memory_archive import MemoryArchive

from .shelf import DAY, US, Shelf, entries, trade

SYMBOLS = st.sampled_from(["BTC-USD", "ETH-USD"])
EVER = 1 << 60


class Beside(RuleBasedStateMachine):
    """One writer, and all questions after each step. Blocks are small, so that there are many."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model = MemoryArchive()
        self.epoch = 7
        self.lasts: dict[str, int] = {}
        self.unreadable = (parts.FULL, writer.FULL, writer.TIDY_EVERY)
        parts.FULL = writer.FULL = 8  # type: ignore[misc]
        writer.TIDY_EVERY = 3  # type: ignore[misc]

    @initialize()
    def begin(self) -> None:
        directory = str(Path(self.folder.name) / "data")
        self.shelf = Shelf(lambda shelf: sqlite.Store(History(directory=directory), lambda: shelf.now))
        for store in (self.model, self.shelf.archive):
            store.begin(self.epoch)

    def teardown(self) -> None:
        self.shelf.archive.close(False)
        self.folder.cleanup()
        parts.FULL, writer.FULL, writer.TIDY_EVERY = self.unreadable  # type: ignore[misc]

    # -- what happens ------------------------------------------------------------------------------

    @rule(data=st.data(), symbols=st.lists(SYMBOLS, min_size=1, max_size=3))
    def append(self, data: st.DataObject, symbols: list[str]) -> None:
        runs = []
        for symbol in symbols:
            places = data.draw(entries(self.lasts.get(symbol, 0) + 1, symbol))
            self.lasts[symbol] = places[-1][0]
            runs.append(Run.of(symbol, places))
        points = [Checkpoint("days", symbol, self.lasts[symbol], b"x") for symbol in symbols]
        self.write(Batch(runs, (), points))

    @rule(symbol=SYMBOLS, start=st.integers(0, 5), rev=st.integers(1, 3))
    def bar(self, symbol: str, start: int, rev: int) -> None:
        if symbol in self.lasts:
            self.write(Batch(bars=[BarRow(symbol, 60, start, rev, b"%d" % rev)]))

    @rule(symbol=SYMBOLS, data=st.data())
    def fill(self, symbol: str, data: st.DataObject) -> None:
        """A part of any gap, or the whole of it."""
        gaps = [entry for _, entry in self.model.behind(symbol, 0, EVER) if isinstance(entry, Gap)]
        if gaps:
            gap = data.draw(st.sampled_from(gaps))
            first = data.draw(st.integers(gap.first, gap.last))
            last = data.draw(st.integers(first, gap.last))
            late = data.draw(st.integers(0, 20))
            places = [(place, trade(place, 1_000 + place - late, symbol)) for place in range(first, last + 1)]
            self.write(Batch([Run.of(symbol, places, is_fill=True)]))

    @rule()
    def minute(self) -> None:
        self.shelf.now += writer.SEAL_AFTER + 1

    @rule()
    def midnight(self) -> None:
        self.shelf.now += DAY

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        self.model.close(clean)
        found, known = self.shelf.reopen(clean=clean), self.model.open()
        assert (found.epoch, found.is_clean) == (known.epoch, known.is_clean)
        assert {
            symbol: (each.first, each.last, list(each.epochs)) for symbol, each in found.streams.items()
        } == {symbol: (each.first, each.last, list(each.epochs)) for symbol, each in known.streams.items()}
        assert not found.damage
        self.epoch += not clean
        for store in (self.model, self.shelf.archive):
            store.begin(self.epoch)

    def write(self, batch: Batch) -> None:
        for store in (self.model, self.shelf.archive):
            store.append(batch)

    # -- what is asked -----------------------------------------------------------------------------

    @invariant()
    def everything_is_there(self) -> None:
        for symbol in self.lasts:
            assert list(self.shelf.archive.behind(symbol, 0, EVER)) == list(
                self.model.behind(symbol, 0, EVER)
            )
            assert self.shelf.archive.bars(symbol, 60, 0, 9, 9) == self.model.bars(symbol, 60, 0, 9, 9)
        assert self.shelf.archive.checkpoints("days") == self.model.checkpoints("days")

    @precondition(lambda self: self.lasts)
    @rule(
        data=st.data(),
        count=st.integers(1, 12),
        time=st.integers(980, 1_100),
        width=st.integers(1, 30),
    )
    def ask(self, data: st.DataObject, count: int, time: int, width: int) -> None:
        symbol = data.draw(st.sampled_from(sorted(self.lasts)))
        after = data.draw(st.integers(0, self.lasts[symbol]))
        below = data.draw(st.integers(1, self.lasts[symbol] + 1))
        real, model = self.shelf.archive, self.model
        assert list(real.behind(symbol, after, count)) == list(model.behind(symbol, after, count))
        assert list(real.newest(symbol, count, below)) == list(model.newest(symbol, count, below))
        assert real.ascending(symbol, time * US, count, below) == model.ascending(
            symbol, time * US, count, below
        )
        for before in (None, time * US):
            found = real.descending(symbol, before, count, below)
            assert found == model.descending(symbol, before, count, below)
        assert real.latest(symbol, below) == model.latest(symbol, below)
        to = real.skip(symbol, after, time * US, (time + width) * US)
        assert after <= to <= max(after, self.lasts[symbol])
        for last, entry in model.behind(symbol, after, EVER):
            if isinstance(entry, Trade) and last <= to:
                assert not time * US <= entry.timestamp < (time + width) * US


TestBeside = Beside.TestCase
TestBeside.settings = settings(max_examples=25, stateful_step_count=30)
