"""Single keys from a terminal, for a command that waits in between.

Rules of this file: a pipe has no keys. At the end the terminal has its old settings, also after an error.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

try:
    import termios
    import tty
except ImportError:  # pragma: no cover - Windows has no such terminals
    termios = tty = None  # type: ignore[assignment]


Wait: TypeAlias = Callable[[float], str]


@contextmanager
def single_keys() -> Iterator[tuple[Wait, bool]]:
    """Keys come without the return key within the block.

    Gives a function that waits so many seconds for a key and returns it, "" if none came; and whether there
    are keys at all.
    """
    if termios is None or not sys.stdin.isatty():
        yield without_keys, False
        return
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield _pressed, True
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def without_keys(seconds: float) -> str:
    """Wait so long."""
    time.sleep(seconds)
    return ""


def _pressed(seconds: float) -> str:
    readable, _, _ = select.select([0], [], [], seconds)
    key = os.read(0, 1) if readable else b""
    if readable and not key:  # nobody is at the other end any more
        return without_keys(seconds)
    return key.decode(errors="ignore")
