"""The outlet: whoever stops reading stops nobody, and what is missing is counted and told at its place."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import pty
import re
import select
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from dataflow import logs
from dataflow.logs import logs as module
from dataflow.logs import outlet as outlets
from dataflow.logs.outlet import LogFile, Outlet

SMALL = 2000  # bytes of room, in place of a mebibyte


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(outlets, "ROOM", SMALL)
    monkeypatch.setattr(module, "_log", None)
    yield
    logger.remove()
    logs.finish()


class Pipe:
    """A pipe of one page whose reader reads when it is told to."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self) -> int:
        """Leave no room at all. Returns the number of bytes."""
        os.set_blocking(self.write_end, False)
        filled = 0
        try:
            while True:
                filled += os.write(self.write_end, b".")
        except BlockingIOError:
            os.set_blocking(self.write_end, True)
            return filled

    def until(self, end: str) -> str:
        """Everything up to a text that ends what has come."""
        got = b""
        while not got.endswith(end.encode()):
            got += os.read(self.read_end, 65536)
        return got.decode()

    def rest(self) -> str:
        """Everything up to the end of the writer."""
        os.close(self.write_end)
        with os.fdopen(os.dup(self.read_end), "rb") as reader:
            return reader.read().decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.read_end, made.write_end):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == made.write_end  # closed by `rest`


def test_lines_come_in_order(pipe: Pipe) -> None:
    """With a reader every line comes, once and in order, also those written as a stream."""
    out = Outlet(pipe.write_end)
    out.say("one")
    print("two", "and three\nfour", file=out)  # type: ignore[call-overload]
    out.say("fünf")
    out.finish()
    assert pipe.until("nf\n") == "one\ntwo and three\nfour\nfünf\n"
    assert out.dropped == 0


def test_a_stuck_reader_stops_nobody(pipe: Pipe) -> None:
    """Lines that find no room are dropped and counted. With room again, one line in their place says how many."""
    filled = pipe.fill()
    out = Outlet(pipe.write_end)
    for n in range(1000):
        out.say(f"line {n}")
    assert 0 < out.dropped < 1000
    out.hole = lambda count: f"{count} are missing"
    told = pipe.until("are missing\n")[filled:].splitlines()
    kept = 1000 - out.dropped
    assert told == [*(f"line {n}" for n in range(kept)), f"{out.dropped} are missing"]
    out.say("after")
    assert pipe.until("after\n") == "after\n"


class Reader:
    """A reader in the place of `os.write` that takes as many lines as it is told to."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.places = threading.Semaphore(0)
        self.took = threading.Semaphore(0)

    def write(self, _descriptor: int, data: bytes) -> int:
        self.places.acquire()
        self.lines.append(data)
        self.took.release()
        return len(data)

    def take(self, count: int) -> None:
        self.places.release(count)
        for _ in range(count):
            self.took.acquire()


def test_what_is_missing_is_one_hole(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    """While a slow reader makes room for a few lines at a time, there is one hole, and not one for every line."""
    reader = Reader()
    monkeypatch.setattr(outlets.os, "write", reader.write)
    out = Outlet(pipe.write_end)
    out.hole = lambda count: f"HOLE {count}"
    while not out.dropped:
        out.say("x" * 50)
    reader.take(2)
    for dropped in range(2, 12):
        out.say("lost as well")
        assert out.dropped == dropped
    reader.places.release(1000)
    out.finish()
    assert reader.lines[-1] == b"HOLE 11\n"
    assert len([line for line in reader.lines if line.startswith(b"HOLE")]) == 1


def test_the_end_waits_for_no_stuck_reader(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """`finish` returns although lines wait, and the process may end."""
    monkeypatch.setattr(outlets, "LONGEST_END", float("inf"))
    pipe.fill()
    out = Outlet(pipe.write_end)
    out.say("never read")
    out.finish()


def test_a_stopped_terminal_stops_nobody() -> None:
    """Ctrl-S is a stuck reader; Ctrl-Q brings what waited."""
    reader, writer = pty.openpty()
    try:
        termios.tcflow(writer, termios.TCOOFF)
        out = Outlet(writer)
        assert out.isatty()
        out.say("after the pause")
        out.say_at_once("not now")
        out.finish()
        assert not select.select([reader], [], [], 0)[0]
        termios.tcflow(writer, termios.TCOON)
        assert os.read(reader, 100) == b"after the pause\r\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_the_rescue_goes_past_all_that_waits(pipe: Pipe) -> None:
    """`say_at_once` needs neither the queue nor its lock, and gives up where there is no room."""
    out = Outlet(pipe.write_end)
    with out._changed:
        done = threading.Thread(target=out.say_at_once, args=("blocked",))
        done.start()
        done.join()
    assert pipe.until("\n") == "blocked\n"
    filled = pipe.fill()
    out.say_at_once("no room")
    assert pipe.rest() == "." * filled


def test_the_report_of_a_blocked_loop_needs_no_lock_of_the_logger(pipe: Pipe) -> None:
    """Whatever blocks the loop may hold it: the report comes nevertheless, as a line of the log."""
    logs.configure("json", stream=Outlet(pipe.write_end))  # type: ignore[arg-type]
    holds, may_go = threading.Event(), threading.Event()

    def hold(_message: object) -> None:
        holds.set()
        may_go.wait()

    logger.remove()
    logger.add(hold)
    holder = threading.Thread(target=logger.info, args=("held",))
    holder.start()
    holds.wait()
    try:
        event: Any = SimpleNamespace(kind="blocked", path="", detail="the stack")
        logs.log_event(event)
        told = json.loads(pipe.until("\n"))
    finally:
        may_go.set()
        holder.join()
    assert (told["level"], told["message"]) == ("error", "the event loop is blocked:\nthe stack")


class Disk:
    """`os.write` that is refused as long as the disk is full."""

    def __init__(self) -> None:
        self.full = False
        self.refused = threading.Event()

    def write(self, descriptor: int, data: bytes, write: Callable[[int, bytes], int] = os.write) -> int:
        if self.full and len(data) > 3:
            return write(descriptor, data[:3])  # a full disk takes what still fits
        if self.full:
            self.refused.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(outlets.os, "write", made.write)
    return made


def test_a_full_disk_is_told_once_and_goes_on(tmp_path: Path, disk: Disk) -> None:
    """Lines are dropped and counted. Standard error has one line. With room again, the file says what it lacks."""
    out = LogFile(tmp_path / "log")
    troubles: list[str] = []
    out.trouble = troubles.append
    out.hole = lambda count: f"{count} are missing"
    out.say("before")
    out.finish()
    disk.full = True
    for n in range(3):
        out.say(f"lost {n}")
    out.finish()
    disk.full = False
    out.say("after")
    out.finish()
    out.close()
    assert troubles == ["No space left on device"]
    assert out.dropped == 3
    *whole, missing, after = (tmp_path / "log").read_text().splitlines()
    assert whole[0] == "before"
    assert (missing, after) == (
        "3 are missing",
        "after",
    )  # on lines of their own, whatever was cut off before


def test_a_log_file_is_appended_and_reopened(tmp_path: Path) -> None:
    """A rotation renames the file and calls `reopen`: lines after that go to a new file, none is lost."""
    file = tmp_path / "log"
    file.write_text("old\n")
    logs.configure("human", file=file)
    logger.info("one")
    file.rename(tmp_path / "log.1")
    logger.info("two")
    logs.reopen()
    logger.info("three")
    logs.finish()
    assert [line[24:] for line in (tmp_path / "log.1").read_text().splitlines()[1:]] == [
        "INFO    one",
        "INFO    two",
    ]
    assert [line[24:] for line in file.read_text().splitlines()] == ["INFO    three"]
    assert module._log is not None
    module._log.out.close()


def test_many_signals_cost_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is stuck may be told to rotate again and again."""
    reader = Reader()
    monkeypatch.setattr(outlets.os, "write", reader.write)
    out = LogFile(tmp_path / "log")
    out.say("stuck")
    for _ in range(1000):
        out.reopen()
    assert len(out._entries) <= 2
    reader.places.release(1)
    out.finish()
    out.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_costs_one_line(pipe: Pipe) -> None:
    """An error in the thread of the outlet ends neither the log nor the end of the process."""
    out = Outlet(pipe.write_end)

    def broken() -> None:
        raise ZeroDivisionError

    out._put(broken)
    thread = out._thread
    out.finish()
    if thread is not None:
        thread.join()  # or it would still complain during the next test
    out.say("goes on")
    out.finish()
    assert pipe.until("on\n") == "goes on\n"


def test_a_file_that_cannot_be_reopened_keeps_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard error says so, the log goes on in the old file, and `reopen` raises nothing."""
    folder = tmp_path / "logs"
    folder.mkdir()
    logs.configure("human", file=folder / "log")
    folder.rename(tmp_path / "moved")
    logs.reopen()
    logger.info("still here")
    logs.finish()
    assert "still here" in (tmp_path / "moved" / "log").read_text()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"ERROR   the log lacks lines: .*/log: cannot be opened anew, the old one goes on: No such", line
    )
    assert module._log is not None
    module._log.out.close()


def test_standard_streams_stop_nobody(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A print of a library, a warning or a traceback is as little a wait as a line of the log."""
    filled = pipe.fill()
    stream = os.fdopen(os.dup(pipe.write_end), "w")
    monkeypatch.setattr(sys, "stderr", stream)
    logs.unhinder("stderr")
    logs.configure("human")
    print("x" * 9000, file=sys.stderr)
    logger.info("also")
    assert logs.dropped() == 1
    logs.finish()
    assert sys.stderr is stream
    stream.close()
    assert pipe.rest()[:filled] == "." * filled


def test_a_stream_without_descriptor_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever catches the output, such as a test, goes on getting it."""
    caught = io.StringIO()
    monkeypatch.setattr(sys, "stderr", caught)
    logs.unhinder("stderr")
    assert sys.stderr is caught
