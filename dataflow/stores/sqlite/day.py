"""A file: what was admitted on one UTC day. Its tables, and its connections.

Rules of this file. A file appears whole: it is made under another name. The newest one is written to, in WAL
mode, and read beside that. An older one is a single plain file. Its table of contents (`meta`, `symbols`,
`epochs`) has checksums, and a file with a wrong one is damaged as a whole; a wrong block costs that block.
The file is not mapped into memory: who cuts a mapped file kills the process that reads it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from attrs import evolve, field, frozen

from dataflow.cache.archive import Checkpoint
from dataflow.domain.errors import ConfigError

from .parts import Damaged, Part, Press, checksum

FORMAT: Final = 1
SUFFIX: Final = ".db"
BESIDE: Final = ("", "-wal", "-shm", "-journal")  # a file, and what SQLite keeps beside it
UNFINISHED: Final = ".new"  # behind the name of a file that is being made
PATIENCE: Final = 5.0  # seconds to wait for another connection to the same file

_SCHEMA: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE symbols(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, before INTEGER NOT NULL,
    first INTEGER, last INTEGER, earliest INTEGER, latest INTEGER,
    longest INTEGER NOT NULL, entries INTEGER NOT NULL, trades INTEGER NOT NULL, bytes INTEGER NOT NULL,
    sum INTEGER NOT NULL);
CREATE TABLE epochs(
    symbol INTEGER, epoch INTEGER, first INTEGER NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY(symbol, epoch)) WITHOUT ROWID;
CREATE TABLE journal(n INTEGER PRIMARY KEY, frame BLOB NOT NULL);
CREATE TABLE blocks(
    symbol INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, earliest INTEGER, latest INTEGER,
    entries INTEGER NOT NULL, trades INTEGER NOT NULL, frame BLOB NOT NULL, PRIMARY KEY(symbol, last));
CREATE INDEX by_time ON blocks(symbol, latest, earliest, trades, first, last);
CREATE TABLE fills(
    symbol INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, earliest INTEGER, latest INTEGER,
    entries INTEGER NOT NULL, trades INTEGER NOT NULL, frame BLOB NOT NULL, PRIMARY KEY(symbol, first, last));
CREATE TABLE bars(
    symbol INTEGER, width INTEGER, start INTEGER, rev INTEGER NOT NULL, data BLOB NOT NULL,
    sum INTEGER NOT NULL, PRIMARY KEY(symbol, width, start)) WITHOUT ROWID;
CREATE TABLE checkpoints(
    name TEXT, symbol INTEGER, position INTEGER NOT NULL, data BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY(name, symbol)) WITHOUT ROWID;
"""
_PRAGMAS: Final = "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=2000; PRAGMA cache_size=-8000"
_COLUMNS: Final = "id, name, before, first, last, earliest, latest, longest, entries, trades, bytes"

Chains = Mapping[str, list[tuple[int, int]]]  # of each symbol: (epoch, its first place), the oldest first


@frozen
class Summary:
    """What a file has of a symbol in its blocks. `before`: the last place before this file.

    `first` and `last` are places; `last` is `before` without any block. `longest`: the longest time from the
    earliest to the latest trade of a block.
    """

    id: int
    name: str
    before: int
    first: int | None = None
    last: int | None = None
    earliest: int | None = None
    latest: int | None = None
    longest: int = 0
    entries: int = 0
    trades: int = 0
    bytes: int = 0

    @property
    def end(self) -> int:
        """The last place so far."""
        return self.before if self.last is None else self.last

    def starts_before(self, below: int) -> bool:
        """Whether a place below `below` is here."""
        return self.first is not None and self.first < below

    def touches(self, low: int, high: int) -> bool:
        """Whether a trade from `low` to before `high` may be here."""
        return (
            self.latest is not None
            and self.earliest is not None
            and self.latest >= low
            and self.earliest < high
        )

    def row(self) -> tuple[int | str | None, ...]:
        """The row of `symbols`, with its checksum."""
        values = (
            self.id,
            self.name,
            self.before,
            self.first,
            self.last,
            self.earliest,
            self.latest,
            self.longest,
            self.entries,
            self.trades,
            self.bytes,
        )
        return (*values, checksum(*values))

    def with_block(self, part: Part, size: int) -> Summary:
        """The same with one block more, of `size` bytes."""
        times = [self.earliest, self.latest, part.earliest, part.latest]
        known = [each for each in times if each is not None]
        longest = 0 if part.earliest is None or part.latest is None else part.latest - part.earliest
        return evolve(
            self,
            first=part.first if self.first is None else min(part.first, self.first),
            last=max(part.last, self.end),
            earliest=min(known, default=None),
            latest=max(known, default=None),
            longest=max(longest, self.longest),
            entries=self.entries + part.count,
            trades=self.trades + part.trades,
            bytes=self.bytes + size,
        )

    def without_block(self, part: Part, size: int) -> Summary:
        """The same with one block less. Its bounds stay: they may be too wide, and never too narrow."""
        return evolve(
            self,
            entries=self.entries - part.count,
            trades=self.trades - part.trades,
            bytes=self.bytes - size,
        )


@frozen
class Held:
    """The table of contents of a file."""

    epoch: int
    is_clean: bool
    symbols: dict[str, Summary]
    chains: Chains


class Gone(Exception):
    """The file is not there any more."""


_NO_DAMAGE: Final = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
}


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is to blame, and not the disk or the moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NO_DAMAGE


@frozen
class Reader:
    """A connection that only reads, and what a thread needs beside it."""

    connection: sqlite3.Connection
    press: Press = field(factory=Press)


class Day:
    """The file at `path`. Any number of threads read it at once, each with a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name.removesuffix(SUFFIX)
        self.symbols: Mapping[str, Summary] | None = None  # of a file that is finished
        self._lock = Lock()
        self._idle: list[Reader] = []
        self._is_closed = False

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """A reader for one question: it sees one state of the file. Raises Gone."""
        with self._lock:
            if self._is_closed:
                raise Gone(self.name)
            reader = self._idle.pop() if self._idle else None
        reader = reader or Reader(read_only(self.path))
        is_sound = False
        try:
            reader.connection.execute("BEGIN")
            try:
                yield reader
            except (Damaged, GeneratorExit):
                is_sound = True  # the connection is not to blame
                raise
            is_sound = True
        finally:
            self._give_back(reader, is_sound)

    def _give_back(self, reader: Reader, is_sound: bool) -> None:
        if is_sound:
            reader.connection.execute("ROLLBACK")
            with self._lock:
                if not self._is_closed:
                    self._idle.append(reader)
                    return
        reader.connection.close()

    def close(self) -> None:
        """No new questions; those in hand end by themselves."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.connection.close()

    def rest(self) -> None:
        """Close the readers that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.connection.close()


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    is_plain = not path.with_name(path.name + "-wal").exists()
    if is_plain and not os.access(path.parent, os.W_OK):
        return _connect(path, "mode=ro&immutable=1")  # SQLite could not put its locks beside it
    return _connect(path, "mode=ro")


def writable(path: Path, *, is_newest: bool = True) -> sqlite3.Connection:
    """A connection that writes. A file that is not the newest one stays a single plain file."""
    connection = _connect(path, "mode=rw")
    try:
        if is_newest:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_PRAGMAS)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,  # transactions are ours
        check_same_thread=False,  # used by one thread at a time
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def create(path: Path, held: Held, checkpoints: Sequence[Checkpoint]) -> None:
    """Make the file, with everything that goes on in it."""
    made = path.with_name(path.name + UNFINISHED)
    made.unlink(missing_ok=True)
    with closing(_connect(made, "mode=rwc")) as connection:
        connection.executescript(
            "PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA synchronous=FULL"
        )
        connection.execute("BEGIN")
        for statement in _SCHEMA.split(";")[:-1]:
            connection.execute(statement)
        put_meta(connection, "format", FORMAT)
        put_meta(connection, "epoch", held.epoch)
        put_meta(connection, "clean", int(held.is_clean))
        for summary in held.symbols.values():
            put_summary(connection, summary)
            for epoch, first in held.chains.get(summary.name, ()):
                put_epoch(connection, summary, epoch, first)
        for point in checkpoints:
            put_checkpoint(connection, held.symbols[point.symbol], point)
        connection.execute("COMMIT")
    _sync(made)
    for beside in BESIDE[1:]:  # of a file of this name that was removed: SQLite would mix it into the new one
        path.with_name(path.name + beside).unlink(missing_ok=True)
    made.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Returns when the power may fail."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def finish(path: Path) -> None:
    """Make one plain file of it, without the room that it does not need, if nobody reads it just now."""
    with closing(_connect(path, "mode=rw")) as connection:
        connection.execute("PRAGMA busy_timeout=0")
        connection.executescript("PRAGMA incremental_vacuum")
        connection.execute("PRAGMA journal_mode=DELETE")


def put_meta(connection: sqlite3.Connection, key: str, value: int) -> None:
    connection.execute("REPLACE INTO meta VALUES(?, ?, ?)", (key, value, checksum(key, value)))


def put_summary(connection: sqlite3.Connection, summary: Summary) -> None:
    connection.execute("REPLACE INTO symbols VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", summary.row())


def put_epoch(connection: sqlite3.Connection, summary: Summary, epoch: int, first: int) -> None:
    total = checksum(summary.name, epoch, first)
    connection.execute("REPLACE INTO epochs VALUES(?, ?, ?, ?)", (summary.id, epoch, first, total))


def put_checkpoint(connection: sqlite3.Connection, summary: Summary, point: Checkpoint) -> None:
    total = checksum(point.name, summary.name, point.position, point.data)
    row = (point.name, summary.id, point.position, point.data, total)
    connection.execute("REPLACE INTO checkpoints VALUES(?, ?, ?, ?, ?)", row)


def held(connection: sqlite3.Connection, where: str) -> Held:
    """The table of contents. Raises Damaged, ConfigError for another format, and sqlite3.DatabaseError."""
    meta: dict[str, int] = {}
    for key, value, total in connection.execute("SELECT key, value, sum FROM meta"):
        if total != checksum(key, value):
            raise Damaged(f"the checksum of {key} is wrong")
        meta[key] = value
    if not {"format", "epoch", "clean"} <= meta.keys():
        raise Damaged("its table meta is incomplete")
    if meta["format"] != FORMAT:
        found = f"{where} has format {meta['format']}, and this version reads {FORMAT}"
        raise ConfigError([f"[history] directory: {found}: use the version that wrote it"])
    symbols = summaries(connection)
    names = {summary.id: summary.name for summary in symbols.values()}
    chains: dict[str, list[tuple[int, int]]] = {name: [] for name in symbols}
    query = "SELECT symbol, epoch, first, sum FROM epochs ORDER BY symbol, epoch"
    for symbol, epoch, first, total in connection.execute(query):
        if symbol not in names or total != checksum(names[symbol], epoch, first):
            raise Damaged("the checksum of an epoch is wrong")
        chains[names[symbol]].append((epoch, first))
    if not all(chains.values()):
        raise Damaged("its table epochs is incomplete")
    return Held(meta["epoch"], bool(meta["clean"]), symbols, chains)


def summaries(connection: sqlite3.Connection) -> dict[str, Summary]:
    """By symbol. Raises Damaged."""
    found = [_summary(row) for row in connection.execute(f"SELECT {_COLUMNS}, sum FROM symbols")]
    return {summary.name: summary for summary in found}


def summary(connection: sqlite3.Connection, symbol: str) -> Summary | None:
    """Of one symbol; None if the file does not know it. Raises Damaged."""
    row = connection.execute(f"SELECT {_COLUMNS}, sum FROM symbols WHERE name=?", (symbol,)).fetchone()
    return None if row is None else _summary(row)


def _summary(row: tuple[object, ...]) -> Summary:
    found = Summary(*row[:-1])  # type: ignore[arg-type]
    if row != found.row():
        raise Damaged("the checksum of a symbol is wrong")
    return found
