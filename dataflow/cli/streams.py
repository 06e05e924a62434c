"""The standard streams as every command finds them, whatever the surroundings gave.

Rules of this file: a stream that was closed is /dev/null, so that no socket or file gets its number. What an
output cannot show is shown escaped. A failed write to standard output is a `CannotWrite`; one to standard
error is nothing, for nobody is left to hear of it. No large import: every command needs this file.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class CannotWrite(OSError):
    """Standard output takes no more: a full disk, for example."""


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make the streams usable within the block."""
    for descriptor in range(3):
        _occupy(descriptor)
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    # a stream that somebody has replaced already, such as a test, is theirs
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr)
    try:
        yield
    finally:
        let_out(sys.stdout)
        sys.stdin, sys.stdout, sys.stderr = before


def discard(descriptor: int) -> None:
    """Let all that is still to be written to a descriptor go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def let_out(stream: TextIO) -> None:
    """Write what an interrupted command has left, if it finds room now."""
    if not isinstance(stream, io.TextIOWrapper):
        return  # an outlet, which waits for nobody and has an end of its own
    try:
        room = select.poll()
        room.register(stream.fileno(), select.POLLOUT)
        if room.poll(0):
            stream.flush()
        else:
            discard(stream.fileno())
    except io.UnsupportedOperation:  # of a test
        stream.flush()
    except OSError:  # told already, or of a command that has ended with another error
        discard(stream.fileno())


def _occupy(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        os.set_inheritable(opened, True)


class _Output(io.FileIO):
    waits = False  # in a write

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        _Output.waits = True
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CannotWrite(error.errno, error.strerror) from None
        finally:
            _Output.waits = False


def interrupt_write() -> None:
    """For signal handlers. Raises KeyboardInterrupt if the process waits for the reader of its output."""
    if _Output.waits:
        raise KeyboardInterrupt


class _Errors(io.FileIO):
    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _text(raw: io.FileIO, before: io.TextIOBase | Any) -> io.TextIOWrapper:
    terminal = raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=terminal or raw.fileno() == 2,
        write_through=getattr(before, "write_through", False),
    )
