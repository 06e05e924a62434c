"""What there is of each day and symbol: as a table for people, and as JSON for programs.

Rules of this file: pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dataflow.cache.archive import Contents, StoredDay, StoredStream
from dataflow.domain.timestamps import to_rfc3339

_HEAD = ("day", "symbol", "first", "last", "trades", "gaps", "bytes", "earliest", "latest")
_LEFT = (0, 1, 7, 8)  # columns of text


def as_json(days: Sequence[StoredDay], contents: Contents, size: int) -> dict[str, Any]:
    """`gaps` counts entries; `size` is in bytes."""
    return {
        "epoch": contents.epoch,
        "clean": contents.is_clean,
        "size": size,
        "damage": list(contents.damage),
        "symbols": {
            symbol: {
                "first": stream.first,
                "last": stream.last,
                "epochs": [list(each) for each in stream.epochs],
            }
            for symbol, stream in sorted(contents.streams.items())
        },
        "days": [
            {
                "day": day.name,
                "size": day.size,
                "symbols": {
                    symbol: {
                        "first": stream.first,
                        "last": stream.last,
                        "trades": stream.trades,
                        "gaps": stream.entries - stream.trades,
                        "size": stream.size,
                        "earliest": _time(stream.earliest),
                        "latest": _time(stream.latest),
                    }
                    for symbol, stream in sorted(day.streams.items())
                },
            }
            for day in days
        ],
    }


def told(days: Sequence[StoredDay], contents: Contents, size: int) -> str:
    """A table, a line for each symbol of each day, and the sum."""
    rows = [_HEAD, *[row for day in days for row in _rows(day)]]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = [
        "  ".join(
            cell.ljust(width) if at in _LEFT else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    trades = sum(stream.trades for day in days for stream in day.streams.values())
    end = "closed in order" if contents.is_clean else "in use, or not closed in order"
    lines.append(
        f"{len(days)} days, {len(contents.streams)} symbols, {trades:,} trades, {size:,} bytes; "
        f"epoch {contents.epoch}, {end}"
    )
    return "\n".join([*lines, *contents.damage])


def _rows(day: StoredDay) -> Iterator[tuple[str, ...]]:
    for symbol, stream in sorted(day.streams.items()):
        yield day.name, symbol, *_numbers(stream), _time(stream.earliest) or "", _time(stream.latest) or ""


def _numbers(stream: StoredStream) -> tuple[str, ...]:
    gaps = stream.entries - stream.trades
    return tuple(map(str, (stream.first, stream.last, stream.trades, gaps, stream.size)))


def _time(ns: int | None) -> str | None:
    return None if ns is None else to_rfc3339(ns)
