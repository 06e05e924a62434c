"""`export`: the streams of some symbols as a table, in constant memory.

Rules of this file. A range of time is walked exactly as REST walks it, so both have the same rows. What is
missing on disk is a gap `overrun`. A file appears under its name when it is complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, TypeAlias

import trio

from dataflow import plugs
from dataflow.cache.archive import Archive, ArchiveFailed, Contents, Places, Stream
from dataflow.cache.history import History
from dataflow.cache.tiers import Tiers
from dataflow.domain import Gap
from dataflow.domain.symbols import Names
from dataflow.domain.timestamps import from_rfc3339
from dataflow.faces.rest import lines
from dataflow.gateway import spelling
from dataflow.gateway.walk import Bounds, Walk

from ..ends import Mistake, wrong
from ..progress import progress

Format: TypeAlias = Literal["csv", "jsonl", "parquet"]

_SUFFIXES: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_ROWS: Final = 64 * 1024  # of a row group of Parquet: some 10 MB
_ATTEMPTS: Final = 10  # of a read that the disk does not answer


def moment(option: str, text: str | None) -> int | None:
    """A time in ns since the epoch. A day is its first moment. Raises Mistake."""
    if text is None:
        return None
    try:
        return from_rfc3339(f"{text}T00:00:00Z" if len(text) == len("2026-11-27") else text)
    except ValueError:
        raise wrong(option, text, "a day or a time, such as 2026-11-27 or 2026-11-27T12:00:00Z") from None


def format_of(output: Path | None) -> Format:
    """The format that the name of a file tells."""
    return "csv" if output is None else _SUFFIXES.get(output.suffix, "csv")


def find(written: Sequence[str], contents: Contents) -> list[str]:
    """The stored symbols that a user means; all of them for none. Raises Mistake."""
    names = Names(contents.streams)
    found: list[str] = []
    for each in written:
        symbol = names.find(each)
        if symbol is None:
            near = get_close_matches(each.upper(), contents.streams, 3) or sorted(contents.streams)[:3]
            raise Mistake(f"the history has no {each}; the nearest are {', '.join(near) or 'none'}")
        if symbol not in found:
            found.append(symbol)
    return found or sorted(contents.streams)


class Writer(Protocol):
    """Writes a table in some format."""

    def write(self, symbol: str, places: Places) -> None:
        """Further rows."""

    def finish(self) -> None:
        """There are no more."""


def export(
    store: Archive,
    contents: Contents,
    symbols: Sequence[str],
    times: tuple[int | None, int | None],
    format: Format,
    output: Path | None,
) -> None:
    """Write the table. `times`: from the first to before the second, ns; None: no bound. Raises Mistake."""
    if format == "parquet" and output is None and sys.stdout.isatty():
        raise Mistake("Parquet is not for a terminal: give --output FILE")
    streams = {symbol: contents.streams[symbol] for symbol in symbols}
    total = sum(stream.last - stream.first + 1 for stream in streams.values())
    with _open(output) as file, progress("exporting", total) as tell:
        writer = _WRITERS[format](file)
        trio.run(_export, store, streams, times, writer, tell)
        writer.finish()


async def _export(
    store: Archive,
    streams: dict[str, Stream],
    times: tuple[int | None, int | None],
    writer: Writer,
    tell: Callable[[int], None],
) -> None:
    tiers = Tiers(store, lambda symbol: _nothing(streams[symbol]))
    tiers.stored_from({symbol: stream.first for symbol, stream in streams.items()})
    for symbol, stream in streams.items():
        walk = Walk(tiers, symbol, Bounds(stream.first - 1, stream.last + 1, *times))
        while not walk.over:
            at = walk.at
            if places := await _part(walk):
                writer.write(symbol, places)
            tell(walk.at - at)


async def _part(walk: Walk) -> Places:
    for _ in range(_ATTEMPTS):
        try:
            return await walk.part()
        except ArchiveFailed:  # perhaps a busy disk: nothing was told of this part
            pass
    return await walk.part()


def _nothing(stream: Stream) -> History:
    """The memory of a daemon that has nothing in memory."""
    return History.going_on(1, 1, 1.0, stream.last, ())


@contextmanager
def _open(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    made = output.with_name(output.name + ".new")
    try:
        try:
            file = made.open("wb")
        except OSError as error:
            raise Mistake(f"cannot write {output}: {error.strerror}") from None
        try:
            with file:
                yield file
            os.replace(made, output)
        except OSError as error:
            raise Mistake(f"cannot write {output}: {error.strerror}") from None
    except BaseException:
        made.unlink(missing_ok=True)
        raise


class _Text:
    """Lines of text."""

    def __init__(self, file: IO[bytes], head: bytes, rows: Callable[[Places, str], bytes]) -> None:
        self._file = file
        self._rows = rows
        file.write(head)

    def write(self, symbol: str, places: Places) -> None:
        self._file.write(self._rows(places, symbol))

    def finish(self) -> None: ...


class _Parquet:
    """Row groups. Prices and quantities are texts: so all digits survive, zeros at the end too."""

    def __init__(self, file: IO[bytes]) -> None:
        self._arrow = plugs.library("pyarrow", "parquet", "--format parquet")
        parquet = plugs.library("pyarrow.parquet", "parquet", "--format parquet")
        text, time, whole = self._arrow.string(), self._arrow.timestamp("us", "UTC"), self._arrow.int64()
        columns = {
            "symbol": text,
            "timestamp": time,
            "side": text,
            "qty": text,
            "price": text,
            "tradeId": text,
            "source": text,
            "offset": whole,
            "from": whole,
            "to": whole,
            "reason": text,
        }
        self._schema = self._arrow.schema(list(columns.items()))
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []

    def write(self, symbol: str, places: Places) -> None:
        for place, entry in places:
            if isinstance(entry, Gap):
                gap = spelling.gap(entry)
                row: tuple[Any, ...] = (symbol, *[None] * 7, gap["from"], gap["to"], gap["reason"])
            else:
                values = entry.side, str(entry.quantity), str(entry.price), entry.trade_id, entry.source
                row = (symbol, entry.timestamp // 1000, *values, place, None, None, None)
            self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        arrays = [
            self._arrow.array(values, each.type) for values, each in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema), _ROWS * 2)
        self._rows.clear()


_WRITERS: Final[dict[Format, Callable[[IO[bytes]], Writer]]] = {
    "csv": lambda file: _Text(file, lines.TRADES_HEAD, lines.trades_csv),
    "jsonl": lambda file: _Text(file, b"", lines.trades_ndjson),
    "parquet": _Parquet,
}
