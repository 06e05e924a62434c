"""A clean start for tests that look for garbage."""

from __future__ import annotations

import gc
import threading


def collect_all() -> None:
    """Free everything that earlier tests have left. No tree of this test may have a loop watch yet.

    The loop watch of a tree that has ended ends a moment later, in its own thread, and holds the whole tree until
    then: that would be garbage of this test.
    """
    for thread in threading.enumerate():
        if "loop watch" in thread.name:
            thread.join()
    while gc.collect():
        pass
