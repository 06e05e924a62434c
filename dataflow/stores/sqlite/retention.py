"""What is removed: whole days by unlinking their files, and single blocks where a number of trades is kept.

Rules of this file. The newest file stays, and so does today's. At most 500 blocks go in one transaction, so
that the writer is not held up for long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import date, timedelta
from typing import Final

from attrs import evolve

from dataflow.cache.archive import Keep

from . import day as files
from .day import Day, Summary
from .folder import Folder
from .writer import State, Writer

AT_ONCE: Final = 500  # blocks of a transaction


def retain(folder: Folder, state: State, writer: Writer, keep: Keep, today: str) -> None:
    """Remove what need not be kept. Raises sqlite3.Error and OSError."""
    oldest = (date.fromisoformat(today) - timedelta(days=keep.days - 1)).isoformat()
    while len(state.days) > 1 and state.days[0].name < oldest:
        remove_oldest(folder, state, today)
    while keep.min_free and folder.free() < keep.min_free:
        if not remove_oldest(folder, state, today):
            break
    if keep.trades:
        _keep_trades(state, writer, keep.trades)


def remove_oldest(folder: Folder, state: State, today: str) -> bool:
    """Unlink the oldest file. False: there is only that of today."""
    if len(state.days) < 2 or state.days[0].name >= today:
        return False
    oldest, *rest = state.days
    folder.remove(oldest)
    state.days = tuple(rest)
    for symbol, fills in list(state.fills.items()):  # they lie in this file, and their gaps too
        state.fills[symbol] = tuple([fill for fill in fills if fill.day is not oldest])
    return True


def _keep_trades(state: State, writer: Writer, count: int) -> None:
    """Remove the oldest blocks of each symbol that has `count` trades without them."""
    have: dict[str, int] = {
        symbol: sum([part.trades for part in end.parts]) for symbol, end in state.open.items()
    }
    for day in state.days:
        for symbol, summary in _symbols(day, writer).items():
            have[symbol] = have.get(symbol, 0) + summary.trades
    for day in state.days:
        known = _symbols(day, writer)
        excess = {symbol: have[symbol] - count for symbol in known if known[symbol].first is not None}
        excess = {symbol: trades for symbol, trades in excess.items() if trades > 0}
        if not excess:
            continue
        for symbol, removed in _remove_blocks(day, writer, excess).items():
            have[symbol] -= removed


def _symbols(day: Day, writer: Writer) -> Mapping[str, Summary]:
    return writer.symbols if day.symbols is None else day.symbols


def _remove_blocks(day: Day, writer: Writer, excess: Mapping[str, int]) -> dict[str, int]:
    """Remove at most so many trades of each symbol. Returns how many were removed."""
    removed = dict.fromkeys(excess, 0)
    with closing(files.writable(day.path, is_newest=day.symbols is None)) as connection:
        for symbol, trades in excess.items():
            while True:
                summary = _symbols(day, writer)[symbol]
                less = _without(connection, summary, trades - removed[symbol])
                if less is None:
                    break
                removed[symbol] += summary.trades - less.trades
                if day.symbols is None:
                    writer.symbols[symbol] = less
                else:
                    day.symbols = {**day.symbols, symbol: less}
        connection.executescript("PRAGMA incremental_vacuum")
    return removed


def _without(connection: sqlite3.Connection, summary: Summary, trades: int) -> Summary | None:
    """Delete blocks with at most so many trades, at most `AT_ONCE`. None: no block is so small."""
    query = "SELECT last, entries, trades, length(frame) FROM blocks WHERE symbol=? ORDER BY last LIMIT ?"
    last, entries, gone, size = None, 0, 0, 0
    for end, *counts in connection.execute(query, (summary.id, AT_ONCE)):
        if gone + counts[1] > trades:
            break
        last, entries, gone, size = end, entries + counts[0], gone + counts[1], size + counts[2]
    if last is None:
        return None
    query = "SELECT min(first) FROM blocks WHERE symbol=? AND last>?"
    ((first,),) = connection.execute(query, (summary.id, last)).fetchall()
    less = evolve(
        summary,
        before=summary.end if first is None else summary.before,
        first=first,
        last=summary.last if first is not None else None,
        entries=summary.entries - entries,
        trades=summary.trades - gone,
        bytes=summary.bytes - size,
    )
    with files.transaction(connection):
        connection.execute("DELETE FROM blocks WHERE symbol=? AND last<=?", (summary.id, last))
        files.put_summary(connection, less)
    return less
