"""The directory: who may write in it, which files are there, and what to say when it fails.

Rules of this file: no word of what the files hold. A file that is damaged gets another name, and is never
removed. One process at a time has the lock. It lies on the directory itself: a file could be removed, and
made anew by a second daemon.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dataflow.cache.archive import ArchiveFailed, ArchiveFull
from dataflow.domain.errors import ConfigError

from .day import BESIDE, SUFFIX, UNFINISHED, Day

_HOLDER: Final = "lock"  # the number of the process that has the lock
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d" + re.escape(SUFFIX))


class Folder:
    """The directory at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._identity: tuple[int, int] | None = None

    def take(self) -> None:
        """Make it if it is missing, and lock it. Raises ConfigError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take()
        except BlockingIOError:
            holder = self._holder()
            raise _mistake(
                f"{self.path} is in use by another daemon{holder}: stop it, or choose another"
            ) from None
        except FileExistsError:
            raise _mistake(f"{self.path} is a file, and must be a folder") from None
        except OSError as error:
            raise _mistake(f"cannot write in {self.path}: {error.strerror}{self._owner()}") from None

    def retake(self) -> None:
        """Take it again after a failure. Raises OSError while it, or its disk, is not there."""
        self.release()
        device, _ = self._seen()
        if self._identity is not None and device != self._identity[0] and not self.days():
            raise OSError(errno.ENODEV, "its disk is gone, and another one is in its place")
        self._take()

    def _take(self) -> None:
        lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self.path / _HOLDER).write_text(f"{os.getpid()}\n")
            self._identity = self._seen()
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def release(self) -> None:
        """Raises nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                os.close(lock)

    def has(self, file: Path) -> bool:
        """Whether this file and the directory are where they were. Raises OSError if nobody knows."""
        try:
            return self._seen() == self._identity and file.stat() is not None
        except FileNotFoundError:
            return False

    def is_there(self) -> bool:
        return self.path.is_dir()

    def days(self) -> list[Day]:
        """Its files, the oldest first. Raises OSError."""
        names = sorted(name for name in os.listdir(self.path) if _DAY.fullmatch(name))
        return [Day(self.path / name) for name in names]

    def size(self, name: str = "") -> int:
        """Bytes of the files of all days, or of the day `name`."""
        total = 0
        for entry in os.scandir(self.path):
            if _DAY.match(entry.name) and entry.name.startswith(name):
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def free(self) -> int:
        """Bytes that are free for this process."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def remove(self, day: Day) -> None:
        """Unlink a file. Raises OSError."""
        for beside in BESIDE:
            day.path.with_name(day.path.name + beside).unlink(missing_ok=True)
        day.close()

    def tidy(self) -> None:
        """Remove a file that was not made to its end. Raises OSError."""
        for path in self.path.glob(f"*{SUFFIX}{UNFINISHED}*"):
            path.unlink(missing_ok=True)

    def set_aside(self, day: Day) -> str:
        """Give a file another name, which is returned. Raises OSError."""
        day.close()
        name = f"{day.path.name}.damaged"
        number = 1
        while (self.path / name).exists():
            number += 1
            name = f"{day.path.name}.damaged-{number}"
        for beside in reversed(BESIDE):  # the file itself last: until then it is found, and set aside, again
            with suppress(FileNotFoundError):
                day.path.with_name(day.path.name + beside).rename(self.path / (name + beside))
        return name

    def lacks(self, day: Day) -> bool:
        """Whether the file of this day is not here, and was not set aside."""
        return not day.path.exists() and not any(self.path.glob(f"{day.path.name}.damaged*"))

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Any error of the disk or of SQLite is an ArchiveFailed."""
        try:
            yield
        except sqlite3.Error as error:
            kind = ArchiveFull if code(error) == sqlite3.SQLITE_FULL else ArchiveFailed
            raise kind(self._why(error)) from error
        except UnicodeError as error:  # SQLite met text that is none
            raise ArchiveFailed(f"the history in {self.path} is damaged: {error}") from error
        except OSError as error:
            raise ArchiveFailed(
                self._vanished() or f"the history in {self.path} fails: {error.strerror}"
            ) from error

    def _why(self, error: sqlite3.Error) -> str:
        if vanished := self._vanished():
            return vanished
        number = code(error)
        if number == sqlite3.SQLITE_FULL:
            return f"no room: the disk of {self.path} is full"
        if number in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
            return f"the history in {self.path} cannot be written: {error}"
        return f"the history in {self.path} fails: {error}"

    def _vanished(self) -> str | None:
        return None if self.is_there() else f"the directory of the history has vanished: {self.path}"

    def _seen(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def _holder(self) -> str:
        with suppress(OSError):
            pid = (self.path / _HOLDER).read_text().strip()
            return f" (process {pid})" if pid else ""
        return ""

    def _owner(self) -> str:
        with suppress(OSError):
            owner = os.stat(self.path).st_uid
            if owner != os.geteuid():
                return f" (it belongs to user {owner}, the daemon runs as user {os.geteuid()})"
        return ""


def code(error: sqlite3.Error) -> int:
    """SQLite's code of an error, without the details; 0 without one."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _mistake(text: str) -> ConfigError:
    return ConfigError([f"[history] directory: {text}"])
