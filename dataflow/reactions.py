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

from . import paths
from .gateway.hall import Hall
from .logs import log_event


class Reactions:
    """The `on_event` hook of the daemon's tree."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self.address_taken = False  # a server could not have its port at the start: the user's to mend

    def __call__(self, event: Event) -> None:
        if event.kind == "start_failed" and (error := _bind_error(event)) is not None:
            self.address_taken = True
            logger.bind(path=event.path).error("cannot listen: {}", error)
            return
        if event.kind == "ready" and paths.below(paths.SOURCES, event.path):
            return  # a connector is ready before it is connected; what matters is told by its state
        log_event(event)
        shard, name = paths.shard_number(event.path), paths.below(paths.TOPICS, event.path)
        if event.kind == "dead_letter" and shard is not None:
            self._hall.core.lost_in_shard(shard, event.detail)
        elif event.kind == "given_up" and name is not None:
            topic = self._hall.core.topics.named(name)
            if topic is not None:
                self._hall.abandon(topic)
        elif event.kind in ("stopped", "crash", "exit") and event.path == paths.TOPICS:
            for topic in self._hall.core.topics.open_topics:  # the pool took them with it
                self._hall.abandon(topic)


def _bind_error(event: Event) -> OSError | None:
    """The refusal of an address by the operating system, if that is what the start failed for."""
    refusals = [e for e in event.errors if isinstance(e, OSError) and e.errno in _REFUSALS]
    return refusals[0] if refusals else None


_REFUSALS = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
