"""The last words of a process on standard error, said when nothing may wait any more.

Rules of this file: a piece is written only where `poll` finds room for it, and what finds none is given up.
No lock is taken and `sys.stderr` is not used: whoever blocks the process may hold either of them.
"""

from __future__ import annotations

import os
import select

STANDARD_ERROR = 2


def say_at_once(text: str, descriptor: int = STANDARD_ERROR) -> bool:
    """Write as much of `text` as finds room now. True if that was all of it. Never waits, raises nothing."""
    data = text.encode(errors="backslashreplace")
    room = select.poll()
    try:
        room.register(descriptor, select.POLLOUT)
        while data:
            if not any(event & select.POLLOUT for _, event in room.poll(0)):
                return False
            data = data[os.write(descriptor, data[: select.PIPE_BUF]) :]
    except OSError:
        return False
    return True
