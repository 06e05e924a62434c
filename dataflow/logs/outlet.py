"""Lines for somebody who may stop reading: a pipe, a terminal, a journal, a disk.

Rules of this file. Who says a line never waits. A thread per outlet waits instead, and at most `ROOM` bytes
wait with it. Lines that find no room are dropped and counted. Once one is dropped, so are the next, until
half of the room is free: what is missing is one hole, and a line in its place tells its size.

Rejected: a look at `poll` before each write, without a thread. A pipe with room takes 4 KiB at once only if
no other program writes to it, a disk always claims to have room, and O_NONBLOCK would also be set for every
other program at the same terminal.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO, TypeAlias

from dataflow.domain.secrets import concealed
from supervisors import say_at_once

ROOM: Final = 1 << 20  # bytes: some ten thousand lines, or the tracebacks of a bad minute
PATIENCE: Final = 0.1  # seconds at the end without progress: then the reader counts as stuck
LONGEST_END: Final = 2.0  # seconds: the end of a process waits no longer for a slow disk

# What waits: a line, a number of dropped lines in its place, or another descriptor for the lines after it.
_Entry: TypeAlias = bytes | int | Callable[[], None]


class Outlet(io.TextIOBase):
    """A text stream without waits, over a descriptor. It may stand in for `sys.stderr`.

    `dropped`: lines that found no room, or that the system refused. `hole(count)` is the line that tells of
    them. `trouble(why)` is called in the thread of the outlet with the first refusal of a burst.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        self.dropped = 0
        self.hole: Callable[[int], str] = "-- {} lines are missing here: there was no room for them".format
        self.trouble: Callable[[str], object] = lambda _why: None
        self._descriptor = descriptor
        self._encoding = encoding
        self._begun = ""  # a line without its end
        self._entries: deque[_Entry] = deque()
        self._waiting = 0  # bytes, with the line in hand
        self._untold = 0  # lines dropped since the last one that found room
        # Reentrant: a destructor may complain on this stream while this thread holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._over = False  # the thread may end
        # of the thread
        self._idle = True
        self._owed = 0  # lines whose hole is not told yet
        self._torn = False  # the last line was cut off by a refusal
        self._refused = False

    # -- for everybody, without waits --

    def say(self, line: str) -> None:
        """Write `line` and a line feed, or drop it."""
        self._admit(f"{line}\n".encode(self._encoding, "backslashreplace"), 1 + line.count("\n"))

    def say_at_once(self, line: str) -> None:
        """Write `line` past all that waits, or give it up. Takes no lock."""
        say_at_once(f"{line}\n", self._descriptor)

    def write(self, text: str) -> int:
        with self._changed:
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                self.say(concealed(line))
            if len(self._begun) > ROOM:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Hand on a line without its end, such as a bar of progress. Everything else is on its way."""
        with self._changed:
            begun, self._begun = self._begun, ""
        if begun:
            self._admit(begun.encode(self._encoding, "backslashreplace"), 1)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def _admit(self, data: bytes, lines: int) -> None:
        with self._changed:
            if self._waiting + len(data) > (ROOM // 2 if self._untold else ROOM):
                self._untold += lines
                self.dropped += lines
                return
            if self._untold:
                self._entries.append(self._untold)
                self._untold = 0
            self._waiting += len(data)
            self._put(data)

    def _put(self, entry: _Entry) -> None:
        with self._changed:
            self._entries.append(entry)
            self._over = False
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()

    # -- the end --

    def finish(self) -> None:
        """Wait until all that finds room is out, and end the thread. A stuck reader costs `PATIENCE` seconds.

        A line said later starts it anew.
        """
        self.flush()
        with self._changed:
            end = time.monotonic() + LONGEST_END
            while self._entries or self._untold or not self._idle:
                moved = self._changed.wait(PATIENCE)
                if time.monotonic() > end or not (moved or _has_room(self._descriptor)):
                    break
            self._over = True
            self._changed.notify_all()

    # -- the thread --

    def _work(self) -> None:
        try:
            while (entry := self._next()) is not None:
                try:
                    self._treat(entry)
                finally:
                    with self._changed:
                        self._waiting -= len(entry) if isinstance(entry, bytes) else 0
                        self._changed.notify_all()  # progress, for `finish`
        finally:  # after a defect as well: the next line starts another thread
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread, self._idle = None, True

    def _treat(self, entry: _Entry) -> None:
        if isinstance(entry, bytes):
            self._write_line(entry)
        elif isinstance(entry, int):
            self._owed += entry
            self._tell()
        else:
            entry()

    def _next(self) -> _Entry | None:
        with self._changed:
            while not self._over and not self._entries and not self._untold:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait()
            if self._over:
                self._thread, self._idle = None, True  # here, so that a line said now starts another
                return None
            self._idle = False
            if self._entries:
                return self._entries.popleft()
            told, self._untold = self._untold, 0
            return told

    def _write_line(self, line: bytes) -> None:
        if self._tell() and self._write(line):
            return
        with self._changed:
            self.dropped += line.count(b"\n")
        self._owed += line.count(b"\n")

    def _tell(self) -> bool:
        """Tell of the hole before the next line. False if the system refuses even that."""
        told = self.hole(self._owed) + "\n" if self._owed else ""
        if not self._write(told.encode(self._encoding, "backslashreplace")):
            return False
        self._owed = 0
        return True

    def _write(self, data: bytes) -> bool:
        if not data:
            return True
        rest = b"\n" + data if self._torn else data
        try:
            while rest:
                try:
                    written = os.write(self._descriptor, rest)
                except BlockingIOError:  # another program set O_NONBLOCK on the file that we share
                    _has_room(self._descriptor, None)
                    continue
                self._torn, rest = True, rest[written:]
        except OSError as error:
            first, self._refused = not self._refused, True
            if first:
                self.trouble(error.strerror or str(error))
            return False
        self._torn = self._refused = False
        return True


class LogFile(Outlet):
    """An outlet to a file, at its end. Raises OSError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(_opened(path))
        self._path = path

    def reopen(self) -> None:
        """Open the path anew for all lines after this call, as after a rotation. Never waits.

        If it cannot be opened, the old file goes on, and `trouble` is called.
        """
        with self._changed:
            # one is enough where no line stands between: signals must not fill the memory of a stuck disk
            if not self._entries or self._entries[-1] != self._move:
                self._put(self._move)

    def _move(self) -> None:
        try:
            new = _opened(self._path)
        except OSError as error:
            self.trouble(f"cannot be opened anew, the old one goes on: {error.strerror}")
            return
        # The number stays: whoever writes at once must never meet a closed or a foreign descriptor.
        os.dup2(new, self._descriptor, inheritable=False)
        os.close(new)
        self._torn = self._refused = False

    def close(self) -> None:
        """Give the descriptor back. For tests: a process takes its file along."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)


def _opened(path: Path) -> int:
    # O_NONBLOCK: the opening of a pipe without a reader must fail, not wait
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return os.open(path, flags, 0o640)


def _has_room(descriptor: int, milliseconds: int | None = 0) -> bool:
    """Whether a write would find room within that time; None: wait for it. A disk always claims so."""
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in room.poll(milliseconds))


# -- the standard streams -----------------------------------------------------------------------------

_replaced: dict[str, tuple[TextIO, Outlet]] = {}


def unhinder(*names: str) -> None:
    """Put outlets in the place of `sys.stderr` or `sys.stdout`, by name, until `give_back`.

    Then nothing in the process waits for their readers: no print, no warning, no traceback. A stream without
    a descriptor stays as it is.
    """
    for name in names:
        stream: TextIO | None = getattr(sys, name)
        if stream is None or name in _replaced:
            continue
        try:
            outlet = Outlet(stream.fileno(), stream.encoding or "utf-8")
        except (OSError, ValueError):
            continue
        _replaced[name] = stream, outlet
        setattr(sys, name, outlet)


def replaced() -> list[Outlet]:
    """The outlets in the place of standard streams."""
    return [outlet for _stream, outlet in _replaced.values()]


def give_back() -> None:
    """Put the standard streams back."""
    for name, (stream, outlet) in _replaced.items():
        if getattr(sys, name) is outlet:
            setattr(sys, name, stream)
    _replaced.clear()
