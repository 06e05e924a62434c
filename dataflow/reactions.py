"""Reactions to the events of the supervisors.

Rules of this file. Two failures would otherwise be silent for clients. A batch in the hand of a crashing
shard is lost: it becomes a gap in the stream. A subscription ends unexpectedly when it is given up for
crashing too often, or stops with its pool: the sessions that listened to it are ended. Every event is logged.
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
        self.address_taken = False  # a listener did not get its address at the start: a mistake of the user

    def __call__(self, event: Event) -> None:
        if event.kind == "start_failed" and (error := _bind_error(event)) is not None:
            self.address_taken = True
            logger.bind(path=event.path).error("cannot listen: {}", error)
            return
        if event.kind == "ready" and paths.below(paths.SOURCES, event.path):
            return  # a connector is ready before it is connected; its source logs the connection
        log_event(event)
        shard, name = paths.shard_number(event.path), paths.below(paths.TOPICS, event.path)
        if event.kind == "dead_letter" and shard is not None:
            self._hall.core.lost_in_shard(shard, event.detail)
        elif event.kind == "given_up" and name is not None:
            topic = self._hall.core.topics.named(name)
            if topic is not None:
                self._hall.abandon(topic)
        elif event.kind in ("stopped", "crash", "exit") and event.path == paths.TOPICS:
            for topic in self._hall.core.topics.open_topics:  # they ended with their pool
                self._hall.abandon(topic)


def _bind_error(event: Event) -> OSError | None:
    """The operating system's refusal of an address, if this is why the start failed."""
    refusals = [e for e in event.errors if isinstance(e, OSError) and e.errno in _REFUSALS]
    return refusals[0] if refusals else None


_REFUSALS = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
