"""Ports for a daemon that must come back to the one it had.

A port that was only looked at can belong to another program before the daemon takes it, or between two of
its lives. These stay bound meanwhile, without a listener. The kernel then picks such a port for nobody and
refuses connections to it. The daemon can listen there: it reuses addresses.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

HOST: Final = "127.0.0.1"


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of `HOST`, for the listeners of one rehearsal, one after another."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, 0))
        port: int = bound.getsockname()[1]
        yield port
