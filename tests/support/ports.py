"""Ports for a daemon that is told its port before it starts, or that must come back to the one it had.

They are kept until this process ends: see `dataflow.chaos.ports`.
"""

from __future__ import annotations

import atexit
from contextlib import ExitStack

from dataflow.chaos.ports import kept_port

_KEPT = ExitStack()
atexit.register(_KEPT.close)


def own_port() -> int:
    """A port on 127.0.0.1 for the listeners of this test, one after another."""
    return _KEPT.enter_context(kept_port())
