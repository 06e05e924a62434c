"""Numbers of descriptors, for tests of limits that count them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def free_descriptors() -> Iterator[int]:
    """The lowest descriptor that is free. So are all above it, while those below it are in use.

    Tests before this one may have left some open, with free ones between them: these are filled meanwhile.
    """
    highest = max(map(int, os.listdir("/proc/self/fd")))
    with ExitStack() as filled:
        while (last := socket.socket()).fileno() <= highest:
            filled.enter_context(last)
        lowest = last.fileno()
        last.close()
        yield lowest
