"""Reads everything in a file, and says what is damaged: a line each, for people.

Rules of this file. It only reads. A part that cannot be reached ends the check of its table, never that of
the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from . import day as files
from .day import Day, Gone, Held, Reader
from .parts import Damaged, checksum

Check: TypeAlias = Callable[[Reader, Held], Iterator[str]]


def verify(day: Day) -> Iterator[str]:
    """A line for each damaged part of the file."""
    try:
        with day.reading() as reader:
            held = files.held(reader.connection, day.path.name)
            for check in (_blocks, _fills, _journal, _bars, _checkpoints, _structure):
                try:
                    yield from [f"{day.path.name}: {line}" for line in check(reader, held)]
                except sqlite3.Error as error:
                    if not files.is_damage(error):
                        raise
                    yield f"{day.path.name}: {error}"
    except Gone:
        return  # removed in the meantime
    except (Damaged, UnicodeError) as error:
        yield f"{day.path.name}: {error}"


def _blocks(reader: Reader, held: Held) -> Iterator[str]:
    for symbol, summary in held.symbols.items():
        at, entries, trades = -1, 0, 0
        query = "SELECT first, last, entries, trades FROM blocks WHERE symbol=? ORDER BY last"
        for first, last, *counts in _rows(reader, query, summary.id):
            if first <= at:
                yield f"{symbol}: two blocks hold place {first}"
            at, entries, trades = last, entries + counts[0], trades + counts[1]
            yield from _frame(reader, "blocks", symbol, (summary.id, first, last))
        if (entries, trades, max(at, summary.before)) != (summary.entries, summary.trades, summary.end):
            yield f"{symbol}: its blocks are not those of the table of contents"


def _fills(reader: Reader, held: Held) -> Iterator[str]:
    for symbol, summary in held.symbols.items():
        for place in _rows(reader, "SELECT first, last FROM fills WHERE symbol=?", summary.id):
            yield from _frame(reader, "fills", symbol, (summary.id, *place))


def _frame(reader: Reader, table: str, symbol: str, place: tuple[int, int, int]) -> Iterator[str]:
    _, first, last = place
    try:
        query = f"SELECT CAST(frame AS BLOB) FROM {table} WHERE symbol=? AND first=? AND last=?"
        ((frame,),) = _rows(reader, query, *place)
        (part,) = reader.press.parts(frame)
        part.places()
        if (part.symbol, part.first, part.last) != (symbol, first, last):
            raise Damaged("it is another one")
    except (Damaged, ValueError) as error:
        yield f"{symbol}: {table[:-1]} of the places {first} to {last}: {error}"
    except sqlite3.Error as error:
        if not files.is_damage(error):
            raise
        yield f"{symbol}: {table[:-1]} of the places {first} to {last}: {error}"


def _journal(reader: Reader, _held: Held) -> Iterator[str]:
    for row, frame in _rows(reader, "SELECT n, CAST(frame AS BLOB) FROM journal"):
        try:
            for part in reader.press.parts(frame):
                part.places()
        except Damaged as error:
            yield f"row {row} of the journal: {error}"


def _bars(reader: Reader, held: Held) -> Iterator[str]:
    query = "SELECT width, start, rev, data, sum FROM bars WHERE symbol=?"
    for symbol, summary in held.symbols.items():
        for *values, total in _rows(reader, query, summary.id):
            if total != checksum(symbol, *values):
                yield f"{symbol}: the bar of {values[0]} ns from {values[1]} on"


def _checkpoints(reader: Reader, held: Held) -> Iterator[str]:
    query = "SELECT name, position, data, sum FROM checkpoints WHERE symbol=?"
    for symbol, summary in held.symbols.items():
        for name, position, data, total in _rows(reader, query, summary.id):
            if total != checksum(name, symbol, position, data):
                yield f"{symbol}: the checkpoint of {name}"


def _structure(reader: Reader, _held: Held) -> Iterator[str]:
    for (line,) in _rows(reader, "PRAGMA quick_check"):
        if line != "ok":
            yield line


def _rows(reader: Reader, query: str, *values: int) -> Iterator[tuple[Any, ...]]:
    return reader.connection.execute(query, values)
