"""`import`: trades and gaps from files, or from another history, go behind what is stored.

Rules of this file. Nothing is guessed: what cannot be read is refused with its line, before anything is
written. A trade is known by its source and id. One that is there already, in the store or earlier in the
import, is left out; one without an id cannot be known, and is always taken. A gap is left out only if it
stands beside a trade that was left out, and beside none that was taken. What is known lies in a temporary
database, so that memory does not grow.
"""

from __future__ import annotations

import csv
import gzip
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from io import TextIOWrapper
from pathlib import Path
from time import time
from typing import IO, Annotated, Final, TypeAlias

import msgspec
from attrs import define, field, frozen
from cyclopts import Parameter

from dataflow.cache.archive import Archive, Batch, Contents, Run
from dataflow.cache.places import whole
from dataflow.cache.tiers import AT_ONCE
from dataflow.domain import Gap, Side, Trade
from dataflow.domain.symbols import WELL_FORMED, well_formed
from dataflow.domain.timestamps import from_rfc3339
from dataflow.settings.schema import History

from ..ends import Mistake
from ..progress import progress
from .places import Place, in_files, in_postgres, reading

Names: TypeAlias = Annotated[
    dict[str, str] | None,
    Parameter(name="--names", help="--names.WRITTEN SYMBOL: the symbol for a name in the files."),
]
Item: TypeAlias = tuple[str, Trade | Gap]  # of a symbol

_PROBLEMS: Final = 10  # that are told
_BATCH: Final = 5_000  # entries
_EXPORTED: Final = (
    *("seqnum", "event", "channel", "symbol", "timestamp", "side", "qty", "price", "tradeId", "source"),
    *("offset", "from", "to", "reason"),
)
_TABLE: Final = ("trade_id", "timestamp_us", "symbol", "side", "price", "qty")
_SIDES: Final[Mapping[str, Side | None]] = {"buy": "buy", "sell": "sell", "": None}
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,4})?|[+-]?\.[0-9]+")
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")


class _Wrong(Exception):
    """This row cannot be taken, and why."""


@frozen
class _Given:
    """What the user says about rows."""

    source: str | None
    symbol: str | None
    names: Mapping[str, str]

    def symbol_of(self, written: str | None) -> str:
        symbol = written or self.symbol
        if symbol is None:
            raise _Wrong("it has no symbol: give --symbol")
        symbol = self.names.get(symbol, symbol)
        if not well_formed(symbol):
            raise _Wrong(f"{symbol[:80]!r} is no symbol: it must be {WELL_FORMED}, in capitals")
        return symbol

    def source_of(self, written: str | None) -> str:
        source = written or self.source
        if source is None:
            raise _Wrong("it has no source: give --source")
        return source


@frozen
class Origin:
    """Where items come from. `read` gives them with the numbers of their lines; it may raise _Wrong as an
    item's stead. `is_text`: it must be checked before."""

    name: str
    read: Callable[[], Iterator[tuple[int, Item | _Wrong]]]
    is_text: bool


def origins(
    files: Sequence[str], source: str | None, symbol: str | None, names: Mapping[str, str], into: History
) -> list[Origin]:
    """What the user has named. Raises Mistake for what is not there."""
    given = _Given(source, symbol, names)
    found: list[Origin] = []
    for name in files:
        path = Path(name)
        if name.startswith(("postgresql://", "postgres://")):
            found.append(_another(name, in_postgres(name, name), given))
        elif path.is_dir():
            if into.store == "sqlite" and path.resolve() == Path(into.directory).resolve():
                raise Mistake(f"{name} is the history that is written to")
            found.append(_another(name, in_files(path, name), given))
        elif path.is_file():
            found.append(Origin(name, lambda path=path: _lines(path, given), True))  # type: ignore[misc]
        else:
            raise Mistake(f"{name}: no such file")
    return found


def run(origins: Sequence[Origin], store: Archive, contents: Contents) -> str:
    """Check all of them, then write. Returns what was done, for people. Raises Mistake and ArchiveFailed."""
    count = _check([each for each in origins if each.is_text])
    total = count if all(each.is_text for each in origins) else None
    with closing(_Import(store, contents)) as work, progress("importing", total) as tell:
        for origin in origins:
            for _line, item in origin.read():
                if not isinstance(item, _Wrong):
                    work.take(*item)
                tell(1)
            work.end_of_origin()
        work.finish()
        return work.told()


def _check(texts: Sequence[Origin]) -> int:
    """The number of items. Raises Mistake with the first lines that cannot be read."""
    problems: list[str] = []
    total = wrong = 0
    with progress("checking", None) as tell:
        for origin in texts:
            for line, item in origin.read():
                total += 1
                if isinstance(item, _Wrong):
                    wrong += 1
                    if len(problems) < _PROBLEMS:
                        problems.append(f"{origin.name}:{line}: {item}")
                tell(1)
    if wrong:
        more = [f"... and {wrong - len(problems)} more"] if wrong > len(problems) else []
        raise Mistake(
            "\n".join([*problems, *more, f"{wrong} of {total} rows are wrong: nothing was imported"])
        )
    return total


@define
class _Pending:
    """The end of what came of a symbol in one origin. `taken`: whether its last trade was; None without."""

    gaps: list[Gap] = field(factory=list)
    taken: bool | None = None


class _Import:
    """Appends to one store."""

    def __init__(self, store: Archive, contents: Contents) -> None:
        self._store = store
        self._epoch = contents.epoch
        self._lasts = {symbol: stream.last for symbol, stream in contents.streams.items()}
        self._stored = dict(contents.streams)
        self._known = _Known()
        self._pending: dict[str, _Pending] = {}
        self._batch: dict[str, list[tuple[int, Trade | Gap]]] = {}
        self._size = 0
        self._has_begun = False
        self._taken = self._gaps = self._repeated = self._nameless = 0

    def take(self, symbol: str, entry: Trade | Gap) -> None:
        """The next entry of a symbol."""
        if symbol in self._stored:
            self._learn(symbol, self._stored.pop(symbol).last)
        pending = self._pending.setdefault(symbol, _Pending())
        if isinstance(entry, Gap):
            pending.gaps.append(entry)
            return
        is_new = entry.trade_id is None or self._known.add(entry)
        self._settle(symbol, pending, is_new)
        if is_new:
            self._put(symbol, entry)
            self._taken += 1
            self._nameless += entry.trade_id is None
        else:
            self._repeated += 1

    def end_of_origin(self) -> None:
        """What follows does not go on where this ended."""
        for symbol, pending in self._pending.items():
            self._settle(symbol, pending, None)
        self._pending.clear()

    def _settle(self, symbol: str, pending: _Pending, is_new: bool | None) -> None:
        """The gaps before a trade that is taken, or is not; None: before the end."""
        beside = (pending.taken, is_new)
        if True in beside or False not in beside:
            for gap in pending.gaps:
                self._put(symbol, gap)
                self._gaps += 1
        pending.gaps, pending.taken = [], is_new

    def _put(self, symbol: str, entry: Trade | Gap) -> None:
        first = self._lasts.get(symbol, 0) + 1
        last = first
        if isinstance(entry, Gap):
            last += entry.last - entry.first
            entry = msgspec.structs.replace(entry, first=first, last=last)
        self._lasts[symbol] = last
        self._batch.setdefault(symbol, []).append((last, entry))
        self._size += 1
        if self._size >= _BATCH:
            self._write()

    def _write(self) -> None:
        if not self._has_begun:
            self._store.begin(max(self._epoch + 1, int(time() * 1000)))
            self._has_begun = True
        self._store.append(Batch([Run.of(symbol, places) for symbol, places in self._batch.items()]))
        self._batch, self._size = {}, 0

    def _learn(self, symbol: str, last: int) -> None:
        """The trades that are stored."""
        at = 0
        while at < last and (places := self._store.behind(symbol, at, AT_ONCE)):
            at = places[-1][0]
            self._known.learn([entry for _, entry in places if not isinstance(entry, Gap)])

    def finish(self) -> None:
        """Everything that was taken is written."""
        if self._batch:
            self._write()
        if self._has_begun:
            self._store.close(True)

    def close(self) -> None:
        self._known.close()

    def told(self) -> str:
        parts = [f"imported {self._taken:,} trades and {self._gaps:,} gaps"]
        if self._repeated:
            parts.append(f"{self._repeated:,} trades were there already")
        if self._nameless:
            parts.append(f"{self._nameless:,} trades have no id, so they may be there twice")
        return "; ".join(parts)


class _Known:
    """The sources and ids of trades, in a temporary file."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;"
            "CREATE TABLE known(symbol TEXT, source TEXT, id TEXT, PRIMARY KEY(symbol, source, id))"
            "WITHOUT ROWID; BEGIN"
        )

    def add(self, trade: Trade) -> bool:
        """Whether it was not known before."""
        row = trade.symbol, trade.source, trade.trade_id
        return self._database.execute("INSERT OR IGNORE INTO known VALUES(?, ?, ?)", row).rowcount > 0

    def learn(self, trades: Iterable[Trade]) -> None:
        rows = [(each.symbol, each.source, each.trade_id) for each in trades if each.trade_id is not None]
        self._database.executemany("INSERT OR IGNORE INTO known VALUES(?, ?, ?)", rows)

    def close(self) -> None:
        self._database.close()


# -- another history -----------------------------------------------------------------------------------


def _another(name: str, place: Place, given: _Given) -> Origin:
    def read() -> Iterator[tuple[int, Item]]:
        with reading(place) as (store, contents):
            for symbol, stream in contents.streams.items():
                here = given.names.get(symbol, symbol)
                at = stream.first - 1
                while at < stream.last:
                    places = store.behind(symbol, at, AT_ONCE)
                    end = None if len(places) == AT_ONCE else stream.last
                    for last, entry in whole(places, at, end):
                        at = last
                        if isinstance(entry, Trade) and here != symbol:
                            entry = msgspec.structs.replace(entry, symbol=here)
                        yield 0, (here, entry)

    return Origin(name, read, False)


# -- text ----------------------------------------------------------------------------------------------


def _lines(path: Path, given: _Given) -> Iterator[tuple[int, Item | _Wrong]]:
    suffixes = [each for each in path.suffixes if each != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    with _opened(path) as file:
        if kind == ".csv":
            yield from _csv(path, file, given)
        elif kind in (".jsonl", ".ndjson"):
            yield from _json(file, given)
        else:
            raise Mistake(f"{path}: the name must end with .csv, .jsonl or .ndjson, also with .gz")


def _opened(path: Path) -> IO[bytes]:
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None


def _csv(path: Path, file: IO[bytes], given: _Given) -> Iterator[tuple[int, Item | _Wrong]]:
    with TextIOWrapper(file, "utf-8", newline="") as text:
        rows = csv.reader(text, strict=True)
        try:
            read = _reader(path, tuple(next(rows, ())))
            for row in rows:
                try:
                    yield rows.line_num, read(row, given)
                except _Wrong as wrong:
                    yield rows.line_num, wrong
        except (csv.Error, UnicodeDecodeError, EOFError, OSError) as error:
            yield rows.line_num + 1, _Wrong(f"it cannot be read, nor what follows: {error}")


def _reader(path: Path, head: Sequence[str]) -> Callable[[Sequence[str], _Given], Item]:
    """What reads a row below this head."""
    readers = {_TABLE: _row_of_table, _EXPORTED: _row}
    read = readers.get(tuple(head))
    if read is None:
        raise Mistake(
            f"{path}:1: the columns must be those of `dataflow history export`, or {','.join(_TABLE)}"
        )

    def checked(row: Sequence[str], given: _Given) -> Item:
        if len(row) != len(head):
            raise _Wrong(f"it has {len(row)} cells, and the head has {len(head)}")
        return read(row, given)

    return checked


def _row_of_table(row: Sequence[str], given: _Given) -> Item:
    name, time, symbol, side, price, quantity = row
    if not _WHOLE.fullmatch(time):
        raise _Wrong(f"timestamp_us is {time[:40]!r}, not a whole number of microseconds")
    return _trade(given, symbol, None, name, side, price, quantity, int(time) * 1000)


def _row(row: Sequence[str], given: _Given) -> Item:
    _, _, _, symbol, time, side, quantity, price, name, source, _, first, last, reason = row
    if not first:
        return _trade(given, symbol, source, name, side, price, quantity, _time(time))
    if any((time, side, quantity, price, name, source)):
        raise _Wrong("it is a trade and a gap at once")
    for each in filter(None, (first, last)):
        if not _WHOLE.fullmatch(each):
            raise _Wrong(f"the place {each[:40]!r} is not a whole number")
    return _gap(given, symbol, int(first), int(last) if last else None, reason)


class _Line(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A line of JSON: a trade or a gap."""

    symbol: str | None = None
    timestamp: str | None = None
    side: Side | None = None
    qty: Decimal | None = None
    price: Decimal | None = None
    trade_id: str | None = None
    source: str | None = None
    seqnum: int | None = None
    offset: int | None = None
    event: str | None = None
    channel: str | None = None
    first: int | None = msgspec.field(default=None, name="from")
    to: int | None = None
    reason: str | None = None


_decode: Final = msgspec.json.Decoder(_Line).decode


def _json(file: IO[bytes], given: _Given) -> Iterator[tuple[int, Item | _Wrong]]:
    number = 0
    try:
        for number, text in enumerate(file, 1):
            try:
                if text.strip():
                    yield number, _object(_decode(text), given)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                yield number, _Wrong(str(error))
            except _Wrong as wrong:
                yield number, wrong
    except (EOFError, OSError) as error:
        yield number + 1, _Wrong(f"it cannot be read, nor what follows: {error}")


def _object(line: _Line, given: _Given) -> Item:
    if line.first is not None:
        if line.price is not None or line.timestamp is not None:
            raise _Wrong("it is a trade and a gap at once")
        return _gap(given, line.symbol, line.first, line.to, line.reason)
    if line.price is None or line.qty is None or line.timestamp is None:
        raise _Wrong("it is neither a trade (timestamp, price, qty) nor a gap (from, to, reason)")
    return _made(
        given, line.symbol, line.source, line.trade_id, line.side, line.price, line.qty, _time(line.timestamp)
    )


def _trade(
    given: _Given,
    symbol: str,
    source: str | None,
    name: str,
    side: str,
    price: str,
    quantity: str,
    time: int,
) -> Item:
    if side not in _SIDES:
        raise _Wrong(f"side is {side[:40]!r}, not buy, sell or nothing")
    numbers = _number("price", price), _number("qty", quantity)
    return _made(given, symbol, source, name or None, _SIDES[side], *numbers, time)


def _made(
    given: _Given,
    symbol: str | None,
    source: str | None,
    name: str | None,
    side: Side | None,
    price: Decimal,
    quantity: Decimal,
    time: int,
) -> Item:
    here = given.symbol_of(symbol)
    return here, Trade(given.source_of(source), here, name, side, price, quantity, time)


def _gap(given: _Given, symbol: str | None, first: int, last: int | None, reason: str | None) -> Item:
    if first < 0 or (last is not None and last < first):
        raise _Wrong(f"a gap cannot be from {first} to {last}")
    if not reason:
        raise _Wrong("it is a gap without a reason")
    return given.symbol_of(symbol), Gap(first, first if last is None else last, reason, last is not None)


def _number(name: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise _Wrong(f"{name} is {text[:40]!r}, not a number")
    return Decimal(text)


def _time(text: str) -> int:
    try:
        return from_rfc3339(text)
    except ValueError as error:
        raise _Wrong(str(error)) from None
