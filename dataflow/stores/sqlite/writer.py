"""Writes batches into the newest file: a row of the journal at once, a block when there is enough for one.

Rules of this file. A commit is one row of the journal. What is in it waits in memory as the open end of its
symbol, and becomes a block at 1,024 entries or after a minute, in the transaction of a later commit. Memory
changes only after COMMIT has returned. A row of the journal is deleted when all of it is in blocks. The first
batch after midnight (UTC) goes into a new file; when the clock goes back, it goes into the newest one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import count
from typing import Final

from attrs import define, evolve, field, frozen

from dataflow.cache.archive import BarRow, Batch, Checkpoint, Run
from dataflow.domain import Gap, Trade

from . import day as files
from .day import Day, Held, Summary
from .folder import Folder
from .parts import FULL, Damaged, Open, Part, Press, checksum, cut, joined

SEAL_AFTER: Final = 60.0  # seconds
TIDY_EVERY: Final = 20  # commits


@frozen
class Fill:
    """A row of the table `fills` of a file: these places are gaps in the blocks."""

    day: Day
    first: int
    last: int
    earliest: int
    latest: int
    trades: int


@define
class State:
    """What readers need of the writer. Each value is replaced, never changed.

    `days`: the files, the oldest first. `open`: the end of each stream. `fills`: by symbol, in the order of
    their rows.
    """

    days: tuple[Day, ...] = ()
    open: dict[str, Open] = field(factory=dict)
    fills: dict[str, tuple[Fill, ...]] = field(factory=dict)


@define
class _Draft:
    """What becomes true with the COMMIT in hand."""

    symbols: dict[str, Summary] = field(factory=dict)
    open: dict[str, Open | None] = field(factory=dict)
    lasts: dict[str, int] = field(factory=dict)
    chains: dict[str, list[tuple[int, int]]] = field(factory=dict)
    fills: list[tuple[str, Fill]] = field(factory=list)


class Writer:
    """The connection that writes. `epoch`: the present one. By symbol: `lasts`, the last stored places;
    `chains` of epochs; `symbols`, what the newest file has."""

    def __init__(self, folder: Folder, state: State, clock: Callable[[], float]) -> None:
        self.epoch = 0
        self.epochs: set[int] = set()  # that this history had, as far as it was seen
        self.lasts: dict[str, int] = {}
        self.chains: dict[str, list[tuple[int, int]]] = {}
        self._folder = folder
        self._state = state
        self._clock = clock
        self._press = Press()
        self._connection: sqlite3.Connection | None = None
        self.symbols: dict[str, Summary] = {}
        self._rows = count(1)
        self._commits = 0

    # -- the newest file ---------------------------------------------------------------------------

    def resume(self, day: Day, held: Held) -> list[str]:
        """Go on in this file. Returns a line for each part of its journal that is damaged."""
        self.drop()
        self._connection = files.writable(day.path)
        return self._replay(self._connection, day, held)

    def look(self, day: Day, held: Held) -> list[str]:
        """Know what `resume` would know, and write nothing."""
        with closing(files.read_only(day.path)) as connection:
            return self._replay(connection, day, held)

    def _replay(self, connection: sqlite3.Connection, day: Day, held: Held) -> list[str]:
        self.epoch = max(self.epoch, held.epoch)
        self.epochs.add(held.epoch)
        self.symbols = dict(held.symbols)
        self._state.open, row, damage = replay(connection, held.symbols, self._press, self._clock())
        self._rows = count(row + 1)
        for symbol, summary in held.symbols.items():
            end = self._state.open.get(symbol)
            last = summary.end if end is None else end.last
            self.lasts[symbol] = max(self.lasts.get(symbol, 0), last)
            self.chains.setdefault(symbol, held.chains[symbol])
        return [f"{day.path.name}: {line}" for line in damage]

    def today(self) -> None:
        """Go to the file of today, if there is none yet or the newest one is older."""
        name = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")
        days = self._state.days
        if days and days[-1].name >= name:
            return
        points: list[Checkpoint] = []
        if self._connection is not None:
            points = all_checkpoints(self._connection)
            self._seal_all()
        held = Held(
            self.epoch,
            False,
            {symbol: Summary(at, symbol, self.lasts[symbol]) for at, symbol in enumerate(self.chains, 1)},
            self.chains,
        )
        day = Day(self._folder.path / (name + files.SUFFIX))
        files.create(day.path, held, points)
        self._leave()
        self._connection, self.symbols, self._rows = files.writable(day.path), dict(held.symbols), count(1)
        self._state.days = (*days, day)

    def _seal_all(self) -> None:
        assert self._connection is not None
        draft = _Draft()
        with files.transaction(self._connection):
            for symbol, end in self._state.open.items():
                self._seal(draft, symbol, end)
            self._connection.execute("DELETE FROM journal")
        self._accept(draft)

    def _leave(self) -> None:
        """The newest file so far is finished."""
        if self._connection is None:
            return
        self.drop()
        day = self._state.days[-1]
        day.rest()
        day.symbols = self.symbols
        with suppress(sqlite3.Error):  # while somebody reads it: then the next start finishes it
            files.finish(day.path)

    def drop(self) -> None:
        """Close the connection. Raises nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # what was committed is on disk
                connection.close()

    @property
    def is_ready(self) -> bool:
        return self._connection is not None

    # -- what is written ---------------------------------------------------------------------------

    def begin(self, epoch: int) -> None:
        """From now on this epoch."""
        assert self._connection is not None
        draft = _Draft()
        with files.transaction(self._connection):
            if epoch > self.epoch:
                for symbol, chain in self.chains.items():
                    first = self.lasts[symbol] + 1
                    files.put_epoch(self._connection, self.symbols[symbol], epoch, first)
                    draft.chains[symbol] = [*chain, (epoch, first)]
            files.put_meta(self._connection, "epoch", epoch)
            files.put_meta(self._connection, "clean", 0)
        self.epoch = epoch
        self.epochs.add(epoch)
        self._accept(draft)

    def restate(self) -> None:
        """Write the epochs into a file that was not the newest one until now."""
        assert self._connection is not None
        draft = _Draft()
        with files.transaction(self._connection):
            for symbol, chain in self.chains.items():
                for epoch, first in chain:
                    files.put_epoch(self._connection, self._known(draft, symbol), epoch, first)
            files.put_meta(self._connection, "epoch", self.epoch)
            files.put_meta(self._connection, "clean", 0)
        self._accept(draft)

    def end(self) -> None:
        """Everything that was admitted is written."""
        assert self._connection is not None
        with files.transaction(self._connection):
            files.put_meta(self._connection, "clean", 1)
        self._connection.executescript("PRAGMA incremental_vacuum")

    def append(self, batch: Batch) -> None:
        """One transaction."""
        connection = self._connection
        assert connection is not None
        draft = _Draft()
        with files.transaction(connection):
            row = next(self._rows)
            parts: list[Part] = []
            for run in batch.runs:
                self._known(draft, run.symbol)
                if run.is_fill:
                    parts += self._fill(draft, run)
                else:
                    parts += self._grow(draft, run, row)
            if parts:
                frame = self._press.frame(parts)
                connection.execute("INSERT INTO journal VALUES(?, ?)", (row, frame))
            for bar in batch.bars:
                self._put_bar(self._known(draft, bar.symbol), bar)
            for point in batch.checkpoints:
                summary = self._known(draft, point.symbol)
                files.put_checkpoint(connection, summary, point)
            self._commits += 1
            if self._commits % TIDY_EVERY == 0:
                self._tidy(draft, row)
        self._accept(draft)

    def _known(self, draft: _Draft, symbol: str) -> Summary:
        """The row of a symbol in the newest file."""
        found = draft.symbols.get(symbol) or self.symbols.get(symbol)
        if found is None:
            assert self._connection is not None
            number = len(self.symbols.keys() | draft.symbols.keys()) + 1
            found = draft.symbols[symbol] = Summary(number, symbol, self.lasts.get(symbol, 0))
            files.put_summary(self._connection, found)
            chain = draft.chains[symbol] = self.chains.get(symbol) or [(self.epoch, 1)]
            for epoch, first in chain:
                files.put_epoch(self._connection, found, epoch, first)
            draft.lasts[symbol] = found.before
        return found

    def _last(self, draft: _Draft, symbol: str) -> int:
        return draft.lasts[symbol] if symbol in draft.lasts else self.lasts[symbol]

    def _end(self, draft: _Draft, symbol: str) -> Open | None:
        return draft.open[symbol] if symbol in draft.open else self._state.open.get(symbol)

    def _grow(self, draft: _Draft, run: Run, row: int) -> Iterable[Part]:
        """Put the new places of a run at the end of its stream."""
        symbol = run.symbol
        last = self._last(draft, symbol)
        if run.last <= last:
            return
        for piece in cut(run, last):
            part = Part.of(piece)
            end = self._end(draft, symbol)
            end = Open((part,), row, self._clock()) if end is None else evolve(end, parts=(*end.parts, part))
            draft.open[symbol] = end
            draft.lasts[symbol] = part.last
            if end.count >= FULL:
                self._seal(draft, symbol, end)
            yield part

    def _fill(self, draft: _Draft, run: Run) -> Iterable[Part]:
        """Put trades into gaps: over the blocks, or into the open end."""
        symbol = run.symbol
        end = self._end(draft, symbol)
        border = self._last(draft, symbol) if end is None else end.first - 1
        for sealed in self._unfilled(draft, run, border):
            self._lay(draft, Part.of(Run.of(symbol, sealed, is_fill=True)))
        if end is not None and (others := [place for place in run.places if place[0] > border]):
            part = Part.of(Run.of(symbol, others, is_fill=True))
            draft.open[symbol] = end.filled(part)
            yield part

    def _unfilled(self, draft: _Draft, run: Run, border: int) -> list[list[tuple[int, Trade | Gap]]]:
        """The places of a fill up to `border` that no other fill has, in runs without a hole.

        Else readers would count a trade twice that comes again with others.
        """
        fills = [
            *self._state.fills.get(run.symbol, ()),
            *[fill for at, fill in draft.fills if at == run.symbol],
        ]
        near = [fill for fill in fills if run.first <= fill.last and fill.first <= run.last]
        runs: list[list[tuple[int, Trade | Gap]]] = []
        for place in run.places:
            if place[0] > border or any(fill.first <= place[0] <= fill.last for fill in near):
                continue
            if runs and runs[-1][-1][0] == place[0] - 1:
                runs[-1].append(place)
            else:
                runs.append([place])
        return runs

    def _lay(self, draft: _Draft, part: Part) -> None:
        assert self._connection is not None
        if part.earliest is None or part.latest is None:
            return
        row = self._row(self._known(draft, part.symbol), part)
        query = "INSERT OR IGNORE INTO fills VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
        if self._connection.execute(query, row).rowcount:
            times = part.earliest, part.latest
            fill = Fill(self._state.days[-1], part.first, part.last, *times, part.trades)
            draft.fills.append((part.symbol, fill))

    def _seal(self, draft: _Draft, symbol: str, end: Open) -> None:
        """Make a block of an open end, together with the block before it while the two are small."""
        for part in end.blocks():
            before = None if part.count >= FULL else self._before(draft, symbol, part)
            self._put_block(draft, symbol, part if before is None else joined((before, part)))
        draft.open[symbol] = None

    def _put_block(self, draft: _Draft, symbol: str, part: Part) -> None:
        assert self._connection is not None
        row = self._row(self._known(draft, symbol), part)
        self._connection.execute("INSERT INTO blocks VALUES(?, ?, ?, ?, ?, ?, ?, ?)", row)
        draft.symbols[symbol] = self._known(draft, symbol).with_block(part, len(row[-1]))
        files.put_summary(self._connection, draft.symbols[symbol])

    def _before(self, draft: _Draft, symbol: str, part: Part) -> Part | None:
        """The last block, taken out of the file to be joined with `part`; None if it stays."""
        assert self._connection is not None
        summary = self._known(draft, symbol)
        query = "SELECT entries, frame FROM blocks WHERE symbol=? AND last=? AND entries<=?"
        place = (summary.id, part.first - 1, FULL - part.count)
        for _, frame in self._connection.execute(query, place).fetchall():
            try:
                (before,) = self._press.parts(frame)
            except (Damaged, ValueError):
                return None  # it stays as it is, and is found by whoever reads it
            if (before.symbol, before.last) != (symbol, part.first - 1):
                return None
            self._connection.execute("DELETE FROM blocks WHERE symbol=? AND last=?", place[:2])
            draft.symbols[symbol] = summary.without_block(before, len(frame))
            return before
        return None

    def _tidy(self, draft: _Draft, row: int) -> None:
        """Seal what has waited long enough, and delete the rows of the journal that nobody needs."""
        assert self._connection is not None
        ends = {**self._state.open, **draft.open}
        now = self._clock()
        for symbol, end in ends.items():
            # One of the future, too: the clock was set back, and the journal must not grow till then.
            if end is not None and not now - SEAL_AFTER < end.since <= now:
                self._seal(draft, symbol, end)
        ends.update(draft.open)
        needed = min([end.row for end in ends.values() if end is not None], default=row + 1)
        self._connection.execute("DELETE FROM journal WHERE n<?", (needed,))

    def _put_bar(self, summary: Summary, bar: BarRow) -> None:
        assert self._connection is not None
        total = checksum(bar.symbol, bar.width, bar.start, bar.rev, bar.data)
        self._connection.execute(
            "INSERT INTO bars VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET rev=excluded.rev, data=excluded.data, sum=excluded.sum WHERE excluded.rev>rev",
            (summary.id, bar.width, bar.start, bar.rev, bar.data, total),
        )

    def _accept(self, draft: _Draft) -> None:
        """It is on disk."""
        self.symbols.update(draft.symbols)
        self.lasts.update(draft.lasts)
        self.chains.update(draft.chains)
        for symbol, fill in draft.fills:
            self._state.fills[symbol] = (*self._state.fills.get(symbol, ()), fill)
        for symbol, end in draft.open.items():
            if end is None:
                self._state.open.pop(symbol, None)
            else:
                self._state.open[symbol] = end

    def _row(
        self, summary: Summary, part: Part
    ) -> tuple[int, int, int, int | None, int | None, int, int, bytes]:
        return (
            summary.id,
            part.first,
            part.last,
            part.earliest,
            part.latest,
            part.count,
            part.trades,
            self._press.frame([part]),
        )


def replay(
    connection: sqlite3.Connection, symbols: Mapping[str, Summary], press: Press, now: float
) -> tuple[dict[str, Open], int, list[str]]:
    """The open ends as the journal tells them, its last row, and a line for each damaged row."""
    ends: dict[str, Open] = {}
    row, damage = 0, list[str]()
    try:
        for row, frame in connection.execute("SELECT n, frame FROM journal ORDER BY n"):
            try:
                parts = press.parts(frame)
                if any(part.symbol not in symbols for part in parts):
                    raise Damaged("it names an unknown symbol")
                for part in parts:
                    _replay(ends, symbols[part.symbol], part, row, now)
            except Damaged as error:
                damage.append(f"row {row} of its journal is damaged ({error}): it is left out")
    except sqlite3.DatabaseError as error:
        damage.append(f"its journal is damaged behind row {row} ({error}): the rest is left out")
    return ends, row, damage


def _replay(ends: dict[str, Open], summary: Summary, part: Part, row: int, now: float) -> None:
    end = ends.get(part.symbol)
    if part.is_fill:
        if end is not None and part.last >= end.first:
            ends[part.symbol] = end.filled(part)
    elif part.first > max(summary.end, 0 if end is None else end.last):
        parts = (part,) if end is None else (*end.parts, part)
        ends[part.symbol] = Open(parts, row if end is None else end.row, now)


def all_checkpoints(connection: sqlite3.Connection) -> list[Checkpoint]:
    """Those of a file; damaged ones are left out."""
    query = (
        "SELECT checkpoints.name, symbols.name, position, data, checkpoints.sum "
        "FROM checkpoints JOIN symbols ON symbols.id=symbol"
    )
    rows = connection.execute(query)
    return [Checkpoint(*values) for *values, total in rows if total == checksum(*values)]
