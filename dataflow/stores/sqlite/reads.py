"""What is stored, by place and by time.

Rules of this file. A question takes the open end of its symbol first, then reads the files. What became a
block in between is met in both, and counts once; nothing falls between them. An index finds the blocks, and
each block is read by itself, so a damaged one costs its own places. It is counted once, and left out from
then on. Fills are laid over what is read.

By time. Blocks that lie in the asked range as a whole, and have enough trades, give a bound. Then every block
that touches the range up to that bound is read, and its trades are sorted. So a page is exact also where late
trades sit in later blocks. The longest time from the earliest to the latest trade of a block says how far the
index must be read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeGuard

from attrs import frozen

from dataflow.cache.archive import BarRow, Checkpoint
from dataflow.cache.places import Places, first_place
from dataflow.domain import Gap, Recorded, Trade

from . import day as files
from .day import Day, Gone, Reader, Summary
from .folder import Folder
from .parts import Damaged, Open, Part, checksum, laid
from .writer import Fill, State, all_checkpoints

Table: TypeAlias = Literal["blocks", "fills", "bars", "symbols"]
Key: TypeAlias = tuple[str, Table, str, int]  # day, table, symbol, last place

_US: Final = 1000  # ns
_NEVER: Final = -(1 << 63)
_EVER: Final = (1 << 63) - 1
_SOME: Final = 8  # blocks that are looked up at once
_BACK: Final = 1_000  # blocks of a file that are looked at for gaps: some million trades


class _Again(Exception):
    """A block that the question counted upon is damaged: it must be asked again."""


class _Chunk(NamedTuple):
    """Some places with trades: a block, a part of the open end, or a fill."""

    latest: int
    earliest: int
    trades: int
    first: int
    last: int


@frozen
class _View:
    """One symbol in one state of one file. `parts`: the open end of the symbol, in the newest file."""

    day: Day
    reader: Reader
    summary: Summary
    parts: Sequence[Part]
    damaged: set[Key]

    @property
    def end(self) -> int:
        """The last place here or before."""
        return self.parts[-1].last if self.parts else self.summary.end

    def rows(self, query: str, *values: int) -> list[Any]:
        """Of an index, for the symbol. A damaged index ends the file for this question: raises Damaged."""
        try:
            return self.reader.connection.execute(query, (self.summary.id, *values)).fetchall()
        except sqlite3.Error as error:
            if not files.is_damage(error):
                raise
            self.damaged.add((self.day.name, "blocks", "", 0))
            raise Damaged(str(error)) from None

    def places(self, last: int) -> Places:
        """The block that ends with this place. Empty if it is damaged."""
        return self._read("blocks", "WHERE symbol=? AND last=?", last)

    def fill(self, first: int, last: int) -> Places:
        """A fill, likewise."""
        return self._read("fills", "WHERE symbol=? AND last=? AND first=?", last, first)

    def _read(self, table: Table, where: str, last: int, *more: int) -> Places:
        if (self.day.name, table, self.summary.name, last) in self.damaged:
            return ()
        try:
            query = f"SELECT CAST(frame AS BLOB) FROM {table} {where}"
            row = self.reader.connection.execute(query, (self.summary.id, last, *more)).fetchone()
            if row is None:
                raise Damaged("the index names a block that is not there")
            (part,) = self.reader.press.parts(row[0])
            if (part.symbol, part.last) != (self.summary.name, last):
                raise Damaged("it is another block")
            return part.places()
        except sqlite3.Error as error:
            if not files.is_damage(error):
                raise
        except (Damaged, ValueError):
            pass
        self.damaged.add((self.day.name, table, self.summary.name, last))
        return ()

    # By place: whole blocks.

    def upwards(self, after: int) -> Iterator[Places]:
        """The blocks that end behind `after`, in order."""
        with suppress(Damaged):
            for last in self._lasts_behind(after):
                yield self.places(last)
        for part in self.parts:
            if part.last > after:
                yield part.places()

    def _lasts_behind(self, at: int) -> Iterator[int]:
        query = f"SELECT last FROM blocks WHERE symbol=? AND last>? ORDER BY last LIMIT {_SOME}"
        while rows := self.rows(query, at):
            for (at,) in rows:
                yield at

    def downwards(self, below: int) -> Iterator[Places]:
        """The blocks that begin before `below`, the newest first; perhaps one more."""
        for part in reversed(self.parts):
            if part.first < below:
                yield part.places()
        with suppress(Damaged):
            for last in self._lasts_from(below):
                yield self.places(last)

    def _lasts_from(self, below: int) -> Iterator[int]:
        """Of the block that may reach over `below`, and of those before it."""
        query = "SELECT last FROM blocks WHERE symbol=? AND last>=? ORDER BY last LIMIT 1"
        for (last,) in self.rows(query, below):
            yield last
        query = f"SELECT last FROM blocks WHERE symbol=? AND last<? ORDER BY last DESC LIMIT {_SOME}"
        while rows := self.rows(query, below):
            for (below,) in rows:
                yield below

    def with_gaps(self, below: int) -> Iterator[Places]:
        """The blocks that begin before `below` and hold a gap, or held one, newest first. Raises Damaged."""
        for part in reversed(self.parts):
            if part.first < below and part.trades < part.count:
                yield part.places()
        if self.summary.trades < self.summary.entries:
            columns, where = "last, trades, entries", "symbol=? AND first<? ORDER BY last DESC LIMIT ?"
            query = f"SELECT last FROM (SELECT {columns} FROM blocks WHERE {where}) WHERE trades<entries"
            for (last,) in self.rows(query, below, _BACK):
                yield self.places(last)

    # By time: `low` to before `high`.

    def inside(self, low: int, high: int, below: int, count: int, is_upwards: bool) -> list[_Chunk]:
        """Blocks that lie in this time as a whole: those at one end of it, until they have `count` trades."""
        where = "earliest>=? AND last<? ORDER BY latest " + ("ASC LIMIT ?" if is_upwards else "DESC LIMIT ?")
        for limit in (_SOME, count):  # nearly always a few are enough
            blocks = self._chunks(where, low, high, low, below, limit)
            if len(blocks) < limit or sum([each.trades for each in blocks]) >= count:
                break
        parts = [each for each in self._open() if low <= each.earliest and each.latest < high]
        return [*blocks, *[each for each in parts if each.last < below]]

    def touching(self, low: int, high: int, below: int) -> Iterator[Places]:
        """The blocks that may have trades of this time. Raises _Again."""
        for chunk in self._chunks("earliest<? AND first<?", low, self._reach(high), high, below):
            places = self.places(chunk.last)
            if not places:
                raise _Again
            yield places
        for part in self.parts:
            if part.latest is not None and part.latest >= low and part.first < below:
                yield part.places()

    def first_within(self, after: int, low: int, high: int) -> int | None:
        """Where the first block behind `after` begins that may have a trade of this time."""
        where = "latest>=? AND latest<? AND earliest<? AND last>?"
        query = f"SELECT min(first) FROM blocks WHERE symbol=? AND {where}"
        ((block,),) = self.rows(query, low, self._reach(high), high, after)
        parts = [each for each in self._open() if each.latest >= low and each.earliest < high]
        firsts = [each.first for each in parts if each.last > after]
        return min(firsts if block is None else [*firsts, block], default=None)

    def latest(self, below: int) -> int | None:
        """The highest time at places below `below`."""
        times: list[int] = []
        for part in self.parts:
            if part.latest is not None and part.first < below:
                times += [part.latest] if part.last < below else _times(part.places(), below)
        query = (
            "SELECT latest FROM blocks WHERE symbol=? AND latest>=? AND last<? ORDER BY latest DESC LIMIT 1"
        )
        times += [latest for (latest,) in self.rows(query, _NEVER, below)]
        query = "SELECT last, latest FROM blocks WHERE symbol=? AND last>=? ORDER BY last LIMIT 1"
        for last, latest in self.rows(query, below):
            if latest is not None and latest > max(times, default=_NEVER):
                times += _times(self.places(last), below)
        return max(times, default=None)

    def _reach(self, high: int) -> int:
        """The latest trade of a block that has a trade before `high` is before this time."""
        return min(high + self.summary.longest, _EVER)

    def _chunks(self, where: str, *values: int) -> list[_Chunk]:
        query = (
            "SELECT latest, earliest, trades, first, last FROM blocks "
            f"WHERE symbol=? AND latest>=? AND latest<? AND {where}"
        )
        damaged, day, symbol = self.damaged, self.day.name, self.summary.name
        found = [_Chunk(*row) for row in self.rows(query, *values)]
        return [each for each in found if (day, "blocks", symbol, each.last) not in damaged]

    def _open(self) -> list[_Chunk]:
        return [
            _Chunk(part.latest, part.earliest, part.trades, part.first, part.last)
            for part in self.parts
            if part.latest is not None and part.earliest is not None
        ]


class Reads:
    """Answers from `state`. `damaged`: the blocks that were found damaged."""

    def __init__(self, folder: Folder, state: State) -> None:
        self.damaged: set[Key] = set()
        self._folder = folder
        self._state = state

    # -- by place ----------------------------------------------------------------------------------

    def behind(self, symbol: str, after: int, limit: int) -> Places:
        """As in `Archive`, like all of these."""
        found: list[tuple[int, Trade | Gap]] = []
        for view in self._views(symbol, lambda held: held.end > after):
            for places in view.upwards(found[-1][0] if found else after):
                reached = found[-1][0] if found else after
                found += [place for place in self._laid(symbol, places) if place[0] > reached]
                if len(found) >= limit:
                    return found[:limit]
        return found

    def newest(self, symbol: str, count: int, below: int) -> Places:
        found: list[tuple[int, Trade | Gap]] = []
        for place in self._downwards(symbol, below):
            if not count:
                break
            found.append(place)
            count -= isinstance(place[1], Trade)
        while found and isinstance(found[-1][1], Gap):
            found.pop()
        return found[::-1]

    def gaps(self, symbol: str, below: int, limit: int) -> list[Gap]:
        found: list[Gap] = []
        for view in self._views(symbol, lambda held: held.starts_before(below), backwards=True):
            with suppress(Damaged):
                for places in view.with_gaps(below):
                    entries = [entry for _, entry in reversed(self._laid(symbol, places))]
                    found += [entry for entry in entries if _can_be_filled(entry, below)]
                    if len(found) >= limit:
                        return found[:limit]
        return found

    def _downwards(self, symbol: str, below: int) -> Iterator[tuple[int, Trade | Gap]]:
        for view in self._views(symbol, lambda held: held.starts_before(below), backwards=True):
            for places in view.downwards(below):
                yield from reversed([place for place in self._laid(symbol, places) if place[0] < below])

    def _laid(self, symbol: str, places: Places) -> Places:
        """`places` with the fills of their gaps."""
        fills = self._state.fills.get(symbol)
        if not fills or not places or not any(isinstance(entry, Gap) for _, entry in places):
            return places
        first = first_place(*places[0])
        for fill in fills:
            if fill.last >= first and fill.first <= places[-1][0]:
                places = list(laid(places, self._filled(symbol, fill)))
        return places

    def _filled(self, symbol: str, fill: Fill) -> Places:
        with self._view(fill.day, symbol, None) as view:
            return () if view is None else view.fill(fill.first, fill.last)

    # -- by time -----------------------------------------------------------------------------------

    def skip(self, symbol: str, after: int, low: int, high: int) -> int:
        firsts = [
            each.first
            for each in self._state.fills.get(symbol, ())
            if each.last > after and each.latest >= low and each.earliest < high
        ]
        end = after
        try:
            for view in self._views(symbol, lambda held: held.end > after):
                end = max(end, view.end)
                first = view.first_within(after, low, high)
                if first is not None:
                    firsts.append(first)
                    break
        except Damaged:
            return after
        return max(after, min(firsts) - 1) if firsts else end

    def ascending(self, symbol: str, after: int, count: int, below: int) -> list[Recorded]:
        return self._in_time(symbol, (after // _US + 1) * _US, _EVER, count, below, is_upwards=True)

    def descending(self, symbol: str, before: int | None, count: int, below: int) -> list[Recorded]:
        high = _EVER if before is None else before // _US * _US
        return self._in_time(symbol, _NEVER, high, count, below, is_upwards=False)

    def _in_time(
        self, symbol: str, low: int, high: int, count: int, below: int, *, is_upwards: bool
    ) -> list[Recorded]:
        while True:  # each time without a damaged block more
            with suppress(_Again):
                trades = self._between(symbol, low, high, count, below, is_upwards)
                break
        found = [Recorded(place, trade) for place, trade in trades.items()]
        found.sort(key=_moment, reverse=not is_upwards)
        size = count
        while 0 < size < len(found) and _moment(found[size])[0] == _moment(found[count - 1])[0]:
            size += 1
        return found[:size]

    def _between(
        self, symbol: str, low: int, high: int, count: int, below: int, is_upwards: bool
    ) -> dict[int, Trade]:
        """By place: the trades that are asked for, and others near them."""
        fills = [each for each in self._state.fills.get(symbol, ()) if each.first < below]
        chunks = [_Chunk(each.latest, each.earliest, each.trades, each.first, each.last) for each in fills]
        inside = [
            each for each in chunks if low <= each.earliest and each.latest < high and each.last < below
        ]
        for view in self._views(symbol, lambda held: held.touches(low, high)):
            with suppress(Damaged):
                inside += view.inside(low, high, below, count, is_upwards)
        low, high = _bounded(inside, low, high, count, is_upwards)
        trades: dict[int, Trade] = {}
        for view in self._views(symbol, lambda held: held.touches(low, high)):
            with suppress(Damaged):
                for places in view.touching(low, high, below):
                    _collect(trades, places, low, high, below)
        for fill in fills:
            if fill.latest >= low and fill.earliest < high:
                _collect(trades, self._filled(symbol, fill), low, high, below)
        return trades

    def latest(self, symbol: str, below: int) -> int | None:
        fills = [each for each in self._state.fills.get(symbol, ()) if each.first < below]
        times = [time for each in fills for time in _times(self._filled(symbol, each), below)]
        for view in self._views(symbol, lambda held: held.starts_before(below)):
            with suppress(Damaged):
                latest = view.latest(below)
                times += [] if latest is None else [latest]
        return max(times, default=None)

    # -- what is made of trades --------------------------------------------------------------------

    def bars(self, symbol: str, width: int, start: int, end: int, limit: int) -> list[BarRow]:
        query = (
            "SELECT start, rev, data, sum FROM bars WHERE symbol=? AND width=? AND start>=? AND start<? "
            "ORDER BY start LIMIT ?"
        )
        found: dict[int, BarRow] = {}
        for view in self._views(symbol, lambda _: True):
            with suppress(Damaged):
                for at, rev, data, total in view.rows(query, width, start, end, limit):
                    if total != checksum(symbol, width, at, rev, data):
                        self.damaged.add((view.day.name, "bars", symbol, at))
                    elif at not in found or found[at].rev < rev:
                        found[at] = BarRow(symbol, width, at, rev, data)
        return [found[at] for at in sorted(found)[:limit]]

    def checkpoints(self, name: str) -> dict[str, Checkpoint]:
        days = self._state.days
        if not days:
            return {}
        with days[-1].reading() as reader:
            points = list(all_checkpoints(reader.connection))
        return {point.symbol: point for point in points if point.name == name}

    # -- the files ---------------------------------------------------------------------------------

    def _views(
        self, symbol: str, is_wanted: Callable[[Summary], bool], *, backwards: bool = False
    ) -> Iterator[_View]:
        """The files that may have something of it, one after another. The newest one always."""
        end = self._state.open.get(symbol)  # before any file: what is sealed in between is in a file then
        days = self._state.days
        for day in reversed(days) if backwards else days:
            known = day.symbols  # of a finished file
            if known is not None and (symbol not in known or not is_wanted(known[symbol])):
                continue
            with self._view(day, symbol, end if day is days[-1] else None) as view:
                if view is not None:
                    yield view

    @contextmanager
    def _view(self, day: Day, symbol: str, end: Open | None) -> Iterator[_View | None]:
        """None: the file is damaged or gone, or does not know the symbol."""
        with ExitStack() as stack:
            yield self._opened(stack, day, symbol, end)

    def _opened(self, stack: ExitStack, day: Day, symbol: str, end: Open | None) -> _View | None:
        try:
            reader = stack.enter_context(day.reading())
            summary = files.summary(reader.connection, symbol)
        except Gone:
            return None
        except (Damaged, UnicodeError):
            summary = None
            self.damaged.add((day.name, "symbols", symbol, 0))
        except sqlite3.Error as error:
            if not files.is_damage(error) and (day.path.exists() or not self._folder.is_there()):
                raise
            self.damaged.add((day.name, "symbols", symbol, 0))
            return None
        if summary is None:
            return None
        parts = [] if end is None else [part for part in end.parts if part.first > summary.end]
        return _View(day, reader, summary, parts, self.damaged)


def _can_be_filled(entry: Trade | Gap, below: int) -> TypeGuard[Gap]:
    return isinstance(entry, Gap) and entry.exact and entry.sequence is not None and entry.last < below


def _bounded(inside: list[_Chunk], low: int, high: int, count: int, is_upwards: bool) -> tuple[int, int]:
    """The part of this time that has `count` trades of these blocks, in whole microseconds."""
    if is_upwards:
        inside.sort(key=lambda each: each.latest)
    else:
        inside.sort(key=lambda each: each.earliest, reverse=True)
    for each in inside:
        count -= each.trades
        if count <= 0:
            return (low, each.latest // _US * _US + _US) if is_upwards else (each.earliest // _US * _US, high)
    return low, high


def _collect(trades: dict[int, Trade], places: Places, low: int, high: int, below: int) -> None:
    for place, entry in places:
        if isinstance(entry, Trade) and low <= entry.timestamp < high and place < below:
            trades.setdefault(place, entry)


def _times(places: Places, below: int) -> list[int]:
    return [entry.timestamp for place, entry in places if isinstance(entry, Trade) and place < below]


def _moment(recorded: Recorded) -> tuple[int, int]:
    return recorded.trade.timestamp // _US, recorded.offset
