"""The child processes of the bench: started on their cores, commanded by lines, ended by their own id.

Rules of this file: no program outlives the bench. The end of its standard input and a signal tell a program to end. A
program that does not end is killed. The kernel kills it when the bench itself dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ANSWER_WITHIN = 60.0  # seconds
_PR_SET_PDEATHSIG = 1
_TICKS = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None)


class ProgramFailed(Exception):
    """A program ended or did not answer. The text has the last line of its log."""


class Program:
    """A child process. It answers each line with one line of JSON.

    `log` gets its standard error. Its cores and its limit of open files are set before it begins.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        cores: set[int],
        log: Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._log = log
        self._unread = b""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env={**os.environ, **(environ or {})},
                start_new_session=True,  # Ctrl-C reaches the bench alone, which ends its programs in order
                preexec_fn=lambda: _prepare(cores),
            )
        self.pid = self._process.pid

    def ask(self, line: str, within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """Send `line`, and wait for the answer, at most `within` seconds. Raises ProgramFailed."""
        assert self._process.stdin
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failure("ended") from None
        return self.answer(within)

    def answer(self, within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """The next line of the program. Raises ProgramFailed."""
        line = self._line(within)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failure(f"answered {line[:200]!r}") from None
        return answer

    def _line(self, within: float) -> bytes:
        assert self._process.stdout
        deadline = time.monotonic() + within
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise self._failure(f"did not answer within {within:.0f} s")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise self._failure("ended")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def alive(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Raises ProgramFailed when the program has ended."""
        if not self.alive():
            raise self._failure("ended")

    def _failure(self, what: str) -> ProgramFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = f": {lines[-1][:300]} (more in {self._log})" if lines else ""
        return ProgramFailed(f"{self.name} {what} (exit code {self._process.poll()}){last}")

    def cpu(self) -> float:
        """CPU seconds of the program since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self) -> float:
        """Resident memory, KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return float(status.partition("VmRSS:")[2].split(maxsplit=1)[0])

    def close(self, within: float = 10.0) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def _prepare(cores: set[int]) -> None:
    """In the child: set its cores and its limit of open files, and let the kernel end it with the bench."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, cores)
    raise_file_limit()


def raise_file_limit() -> int:
    """Raise the limit of open files of this process to its maximum, and return it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
