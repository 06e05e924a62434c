"""What there is of each day: for a table, and for whoever copies a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dataflow.cache.archive import StoredDay, StoredStream

from .day import Day, Summary
from .parts import Part


def stored(
    day: Day, size: int, symbols: Mapping[str, Summary], ends: Mapping[str, Sequence[Part]]
) -> StoredDay:
    """`symbols`: the blocks of this day; `ends`: what is no block yet."""
    found = {symbol: _stream(summary, ends.get(symbol, ())) for symbol, summary in symbols.items()}
    streams = {symbol: stream for symbol, stream in found.items() if stream is not None}
    return StoredDay(day.name, size, streams)


def _stream(blocks: Summary, parts: Sequence[Part]) -> StoredStream | None:
    """None: nothing of this symbol is here."""
    parts = [part for part in parts if part.first > blocks.end]
    firsts = [part.first for part in parts] if blocks.first is None else [blocks.first]
    if not firsts:
        return None
    every: list[Summary | Part] = [blocks, *parts]
    return StoredStream(
        firsts[0],
        parts[-1].last if parts else blocks.end,
        blocks.entries + sum([part.count for part in parts]),
        sum([each.trades for each in every]),
        min([each.earliest for each in every if each.earliest is not None], default=None),
        max([each.latest for each in every if each.latest is not None], default=None),
        blocks.bytes,
    )
