"""Ports for a daemon that is told its port before it starts, or that must come back to the one it had.

A port that was only looked at can belong to another test before the daemon takes it. These stay bound until this
process ends, without a listener. The kernel gives such a port to nobody who does not name it, refuses connections to
it, and lets listen there whoever reuses addresses, as the daemon does.
"""

from __future__ import annotations

import socket


def own_port() -> int:
    """A port on 127.0.0.1 for the listeners of this test, one after another."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    port: int = bound.getsockname()[1]
    bound.detach()  # it is kept
    return port
