"""What follows from what the supervisors report.

Rules of this file. Two failures would otherwise be silent for a client: a batch that was in a
shard's hand when it crashed, and a subscription that ends without having decided to: given up for
crashing too often, or gone with its pool. The first becomes a gap in the stream, the second the end of
the sessions that listened. Everything is logged.
"""

from __future__ import annotations

import errno

from loguru import logger

from supervisors import Event

from .core import State
from .logs import log_event

SHARD = "cache/shard-"
POOL = "topics"
TOPIC = "topics/"
SOURCE = "sources/"


class Reactions:
    """The `on_event` hook of the daemon's tree."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.address_taken = False  # a server could not have its port at the start: the user's to mend

    def __call__(self, event: Event) -> None:
        if event.kind == "start_failed" and (error := _bind_error(event)) is not None:
            self.address_taken = True
            logger.bind(path=event.path).error("cannot listen: {}", error)
            return
        if event.kind == "ready" and event.path.startswith(SOURCE):
            return  # a connector is ready before it is connected; what matters is told by its state
        log_event(event)
        if event.kind == "dead_letter" and event.path.startswith(SHARD):
            self._state.lost_in_shard(int(event.path.removeprefix(SHARD)), event.detail)
        elif event.kind == "given_up" and event.path.startswith(TOPIC):
            self._state.abandon(event.path.removeprefix(TOPIC))
        elif event.kind in ("stopped", "crash", "exit") and event.path == POOL:
            for symbol in self._state.topics.open_symbols:  # the pool took them with it
                self._state.abandon(symbol)


def _bind_error(event: Event) -> OSError | None:
    """The refusal of an address by the operating system, if that is what the start failed for."""
    refusals = [e for e in event.errors if isinstance(e, OSError) and e.errno in _REFUSALS]
    return refusals[0] if refusals else None


_REFUSALS = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
