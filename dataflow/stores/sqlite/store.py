"""The store: who writes, who reads, what is kept, and how it comes back after a failure.

Rules of this file. One thread at a time writes, begins or removes; readers never wait for it. Any error of
the disk becomes an ArchiveFailed with a sentence for people. After one the files are opened anew, unless only
room was missing: then the transaction was rolled back, and everything is sound. A directory that vanishes
while the daemon runs is not made again: its disk may come back. The newest file is never removed: it has the
chain of epochs, and the places from which the streams go on.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from dataflow.cache.archive import (
    ArchiveFailed,
    BarRow,
    Batch,
    Checkpoint,
    Contents,
    Keep,
    Places,
    StoredDay,
    Stream,
    Usage,
)
from dataflow.domain import Gap, Recorded
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import History

from . import retention
from .backup import Tell, backup, restore
from .contents import Found, load, look
from .folder import Folder
from .listing import stored
from .reads import Reads
from .verify import verify
from .writer import State, Writer


class Store:
    """The history in the directory of `[history]`. `clock`: seconds since the epoch."""

    def __init__(self, settings: History, clock: Callable[[], float] = time.time) -> None:
        self._folder = Folder(Path(settings.directory).absolute())  # for its messages: which `data` is it?
        self._state = State()
        self._writer = Writer(self._folder, self._state, clock)
        self._reads = Reads(self._folder, self._state)
        self._lock = Lock()
        self._is_open = False
        self._is_reading = False
        self.lost: list[str] = []  # while it was open: a line for each damaged or missing file, for people

    @property
    def damaged(self) -> int:
        return len(self._reads.damaged)

    # -- open and close ----------------------------------------------------------------------------

    @classmethod
    def reading(cls, settings: History) -> Store:
        """One that only reads, also beside a daemon that writes: it takes no lock, and changes no file.

        It knows what is there when it is opened. Its `open` raises ConfigError if there is nothing.
        """
        made = cls(settings)
        made._is_reading = True
        return made

    def open(self) -> Contents:
        """As in `Archive`, like all methods here."""
        with self._lock:
            try:
                with self._folder.failing():
                    found = self._look() if self._is_reading else self._take()
            except ArchiveFailed as error:
                self._close()
                raise ConfigError([f"[history] directory: {error}"]) from error
            except BaseException:
                self._close()
                raise
            self._is_open = True
            firsts = self._forget_fills()
            lasts, chains = self._writer.lasts, self._writer.chains
            streams = {
                symbol: Stream(firsts.get(symbol, lasts[symbol] + 1), lasts[symbol], tuple(chain))
                for symbol, chain in chains.items()
            }
            return Contents(self._writer.epoch, found.is_clean, streams, found.damage)

    def _take(self) -> Found:
        self._folder.take()
        return load(self._folder, self._state, self._writer)

    def _look(self) -> Found:
        if not self._folder.is_there() or not self._folder.days():
            raise ConfigError([f"[history] directory: there is no history in {self._folder.path}"])
        return look(self._folder, self._state, self._writer)

    def close(self, clean: bool) -> None:
        with self._lock:
            if self._is_open and clean and self._writer.is_ready:
                try:
                    with self._folder.failing():
                        self._writer.end()
                except ArchiveFailed:
                    pass  # it stays unclean, which is the truth
            self._close()

    def _close(self) -> None:
        self._is_open = False
        for day in self._state.days:
            day.close()
        self._writer.drop()  # the last connection: it empties the WAL
        self._folder.release()

    # -- write -------------------------------------------------------------------------------------

    def begin(self, epoch: int) -> None:
        with self._writing() as writer:
            writer.begin(epoch)

    def append(self, batch: Batch) -> None:
        with self._writing() as writer:
            writer.append(batch)

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        """The writer, in the file of today."""
        with self._changing():
            try:
                if not (self._writer.is_ready and self._folder.has(self._state.days[-1].path)):
                    self._reopen()
                self._writer.today()
                yield self._writer
            except sqlite3.Error as error:
                self._recover(error)
                raise
            except OSError:
                self._writer.drop()
                raise

    def _reopen(self) -> None:
        """Take the files as they are now, and go on in them."""
        self._writer.drop()
        self._folder.retake()
        before = self._state.days
        for day in before:
            day.close()
        found = load(self._folder, self._state, self._writer, is_again=True)
        if self._writer.is_ready:
            self._writer.restate()
        self._forget_fills()
        removed = [day.path.name for day in before if self._folder.lacks(day)]
        self.lost += [*found.damage, *[f"{name} was removed, and what it held is lost" for name in removed]]

    def _recover(self, error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            return
        self._writer.drop()
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            day = self._state.days[-1]
            name = self._folder.set_aside(day)
            text = f"{day.path.name} is damaged ({error}). It is {name} now, and what it held is lost"
            self.lost.append(text)
            raise ArchiveFailed(text) from error

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock, self._working():
            if self._is_reading:
                raise ArchiveFailed("this history was opened only to be read")
            yield

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Raises ArchiveFailed, and nothing else that comes from the disk."""
        if not self._is_open:
            raise ArchiveFailed("the history is closed")
        with self._folder.failing():
            yield

    # -- read --------------------------------------------------------------------------------------

    def behind(self, symbol: str, after: int, limit: int) -> Places:
        with self._working():
            return self._reads.behind(symbol, after, limit)

    def newest(self, symbol: str, count: int, below: int) -> Places:
        with self._working():
            return self._reads.newest(symbol, count, below)

    def gaps(self, symbol: str, below: int, limit: int) -> list[Gap]:
        with self._working():
            return self._reads.gaps(symbol, below, limit)

    def skip(self, symbol: str, after: int, start: int, end: int) -> int:
        with self._working():
            return self._reads.skip(symbol, after, start, end)

    def ascending(self, symbol: str, after: int, count: int, below: int) -> list[Recorded]:
        with self._working():
            return self._reads.ascending(symbol, after, count, below)

    def descending(self, symbol: str, before: int | None, count: int, below: int) -> list[Recorded]:
        with self._working():
            return self._reads.descending(symbol, before, count, below)

    def latest(self, symbol: str, below: int) -> int | None:
        with self._working():
            return self._reads.latest(symbol, below)

    def bars(self, symbol: str, width: int, start: int, end: int, limit: int) -> list[BarRow]:
        with self._working():
            return self._reads.bars(symbol, width, start, end, limit)

    def checkpoints(self, name: str) -> dict[str, Checkpoint]:
        with self._working():
            return self._reads.checkpoints(name)

    # -- keep --------------------------------------------------------------------------------------

    def retain(self, keep: Keep, today: str) -> Mapping[str, int]:
        with self._changing():
            before = self._firsts()
            retention.retain(self._folder, self._state, self._writer, keep, today)
            return self._moved(before)

    def make_room(self, today: str) -> Mapping[str, int] | None:
        with self._changing():
            before = self._firsts()
            if not retention.remove_oldest(self._folder, self._state, today):
                return None
            return self._moved(before)

    def usage(self) -> Usage:
        with self._working():
            days = self._state.days
            return Usage(self._folder.size(), self._folder.free(), days[0].name if days else None)

    def days(self) -> list[StoredDay]:
        """What there is of each day, the oldest first. The open end belongs to the newest one."""
        with self._working():
            found = []
            for day in self._state.days:
                ends = {} if day.symbols is not None else {**self._state.open}
                parts = {symbol: end.parts for symbol, end in ends.items()}
                symbols = self._writer.symbols if day.symbols is None else day.symbols
                found.append(stored(day, self._folder.size(day.name), {**symbols}, parts))
            return found

    def backup(self, target: Path, tell: Tell) -> None:
        """Copy everything into the new directory `target`. Raises ConfigError if there is anything in it."""
        with self._working():
            backup(self._state.days, target, tell)

    def restore(self, directory: Path, tell: Tell) -> None:
        """Put this history, a copy that nobody writes, into `directory`, which must be new or empty.

        Raises ConfigError if it is not.
        """
        with self._working():
            restore(Folder(directory), self._state.days, tell)

    def verify(self) -> Sequence[str]:
        with self._working():
            return [line for day in self._state.days for line in verify(day)]

    def _forget_fills(self) -> dict[str, int]:
        """Forget the fills of gaps that were removed. Returns the oldest places that are left."""
        firsts = self._firsts()
        for symbol, fills in list(self._state.fills.items()):
            kept = [fill for fill in fills if symbol in firsts and fill.last >= firsts[symbol]]
            self._state.fills[symbol] = tuple(kept)
        return firsts

    def _firsts(self) -> dict[str, int]:
        """The oldest place of each symbol that has any."""
        firsts: dict[str, int] = {symbol: end.first for symbol, end in self._state.open.items()}
        for symbols in (self._writer.symbols, *[day.symbols or {} for day in self._state.days]):
            for symbol, summary in symbols.items():
                if summary.first is not None:
                    firsts[symbol] = min(summary.first, firsts.get(symbol, summary.first))
        return firsts

    def _moved(self, before: Mapping[str, int]) -> dict[str, int]:
        after = self._forget_fills()
        lasts = self._writer.lasts
        return {
            symbol: after.get(symbol, lasts[symbol] + 1)
            for symbol, first in before.items()
            if after.get(symbol) != first
        }
