"""Copies a history, also while a daemon writes it, and puts a copy back.

Rules of this file. A copy is a directory of files like any other: a daemon can be started on it. The files
are copied the oldest first, each in one state, so what is copied is the stream up to some moment. The daemon
goes on behind that, so a copy never counts as closed in order: whoever starts on it takes a new epoch.
Nothing appears under its name before all of it is there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from dataflow.cache.archive import ArchiveFull
from dataflow.domain.errors import ConfigError

from . import day as files
from .day import UNFINISHED, Day
from .folder import Folder, code

Tell: TypeAlias = Callable[[int], None]  # so many bytes more are copied

_PAGES: Final = 1_024  # of a step
_PIECE: Final = 1 << 22  # bytes


def backup(days: Sequence[Day], target: Path, tell: Tell) -> None:
    """Copy these files into the directory `target`.

    Raises ConfigError, ArchiveFull, sqlite3.Error and OSError.
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ConfigError([f"{target} is not empty: a backup needs a new directory"])
    copied: list[Path] = []
    for day in days:
        made = target / (day.path.name + UNFINISHED)
        try:
            _copy(day, made, tell)
        except sqlite3.Error as error:
            made.unlink(missing_ok=True)
            if code(error) == sqlite3.SQLITE_FULL:  # what is copied is only read
                raise ArchiveFull(f"no room: the disk of {target} is full") from error
            if day is days[-1] or day.path.exists():
                raise
            continue  # it was removed in the meantime, because it is too old
        copied.append(made)
    if copied:
        with closing(files.writable(copied[-1], is_newest=False)) as connection:
            files.put_meta(connection, "clean", 0)
    _show(copied)


def _copy(day: Day, made: Path, tell: Tell) -> None:
    with closing(files.read_only(day.path)) as source, closing(sqlite3.connect(made)) as copy:
        source.execute("BEGIN")
        ((size,),) = source.execute("PRAGMA page_size")
        source.execute("SELECT count(*) FROM meta").fetchall()  # from here on it sees one state
        before = 0

        def progress(_status: int, left: int, pages: int) -> None:
            nonlocal before
            done = (pages - left) * size
            tell(done - before)
            before = done

        source.backup(copy, pages=_PAGES, progress=progress)
    files.finish(made)


def restore(folder: Folder, days: Sequence[Day], tell: Tell) -> None:
    """Put copies into a directory that holds no history. Raises ConfigError and OSError."""
    folder.take()
    try:
        if held := sorted(path.name for path in folder.path.iterdir() if path.name != "lock"):
            some = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
            raise ConfigError([f"{folder.path} is not empty ({some}): restore into a new directory"])
        made = []
        for day in days:
            made.append(folder.path / (day.path.name + UNFINISHED))
            with day.path.open("rb") as source, made[-1].open("xb") as copy:
                while piece := source.read(_PIECE):
                    copy.write(piece)
                    tell(len(piece))
            shutil.copymode(day.path, made[-1])
        _show(made)
    finally:
        folder.release()


def _show(made: Sequence[Path]) -> None:
    """Give them their names, now that all of them are on disk."""
    for path in made:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for path in made:
        path.rename(path.with_name(path.name.removesuffix(UNFINISHED)))
