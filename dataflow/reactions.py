"""Reactions to the events of the supervisors.

Rules of this file. Two failures would otherwise be silent for clients. A batch in the hand of a crashing
shard is lost: it becomes a gap in the stream. A subscription ends unexpectedly when it is given up for
crashing too often, or stops with its pool: the sessions that listened to it are ended. Every event is logged.
What an operator would ask about is kept as an event, too (`events`).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from loguru import logger

from supervisors import Event, StartFailed

from . import logs, paths
from .cache.archive import ArchiveFailed
from .domain import Topic
from .domain.errors import ConfigError
from .events import Kind
from .gateway.hall import Hall
from .logs import log_event
from .net.listening import why_refused


class Reactions:
    """The `on_event` hook of the daemon's tree."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._mistaken: set[str] = set()  # actors that do not start because of a mistake of the user
        self._lost = ("", 0)  # the actor whose end is told next, and the messages in its hand

    @property
    def mistake(self) -> bool:
        """Whether a mistake of the user keeps the tree from starting. It has its line in the log."""
        return bool(self._mistaken)

    def __call__(self, event: Event) -> None:
        self._react(event)  # first, whatever becomes of the words about it
        self._tell(event)

    def _react(self, event: Event) -> None:
        shard, name = paths.shard_number(event.path), paths.below(paths.TOPICS, event.path)
        if event.kind == "dead_letter" and shard is not None:
            self._hall.core.lost_in_shard(shard, event.detail)
        elif event.kind == "exit" and name is not None:
            self._hall.core.topics.over(name)
        elif event.kind == "given_up" and name is not None:
            self._abandon(self._hall.core.topics.named(name))
        elif event.kind in ("stopped", "crash", "exit") and event.path == paths.TOPICS:
            for topic in self._hall.core.topics.open_topics:  # they ended with their pool
                self._abandon(topic)

    def _tell(self, event: Event) -> None:
        if event.kind == "ready":
            self._mistaken.discard(event.path)
        elif event.kind == "start_failed" and (mistake := _mistake(event)) is not None:
            self._mistaken.add(event.path)
            logger.bind(path=event.path).error("{}", mistake)
            self._hall.core.events.tell(Kind.CRASHED, event.path, mistake)
            return
        elif event.kind == "start_failed" and self._follows(event):
            return
        if event.kind != "ready" or paths.below(paths.SOURCES, event.path) is None:
            log_event(event)  # a connector is ready before it is connected; its source logs the connection
        self._keep(event)

    def _keep(self, event: Event) -> None:
        """Keep it as an event, if it is one for people."""
        if event.kind == "dead_letter":
            self._lost = event.path, len(event.detail)
            return
        kind, crowd = _kind(event), paths.crowd(event.path)
        if kind is None or (crowd is not None and kind in _USUAL):
            return
        (actor, lost), self._lost = self._lost, ("", 0)
        told = logs.words(event).removeprefix(f"{kind}: ")
        if lost and actor == event.path:
            told += f"; {lost:,} message{'' if lost == 1 else 's'} in hand lost"
        error = None if logs.is_link_lost(event) else logs.failure(event)
        alike = crowd if crowd == paths.SESSIONS else None
        self._hall.core.events.tell(kind, event.path, told, error, alike=alike)

    def _abandon(self, topic: Topic | None) -> None:
        if topic is not None:
            self._hall.abandon(topic)
            self._hall.core.topics.over(str(topic))

    def _follows(self, event: Event) -> bool:
        """Whether a branch did not start for no other reason than such a mistake below it."""
        return any(path.startswith(f"{event.path}/") for path in self._mistaken) and all(
            isinstance(error, StartFailed) for error in event.errors
        )


_KINDS: Final[Mapping[str, Kind]] = {
    "crash": Kind.CRASHED,
    "start_failed": Kind.CRASHED,
    "cleanup_error": Kind.CRASHED,
    "suppressed": Kind.CRASHED,
    "given_up": Kind.GIVEN_UP,
    "escalated": Kind.GIVEN_UP,
    "stopped": Kind.STOPPED,
    "stop_cancelled": Kind.STOPPED,
    "unstopped": Kind.STOPPED,
    "auto_shutdown": Kind.STOPPED,
}
_USUAL: Final = (Kind.STOPPED, Kind.RESTARTED)  # of actors that come and go; a line is ready, not connected


def _kind(event: Event) -> Kind | None:
    if logs.is_link_lost(event):
        return Kind.BACKOFF
    if event.kind == "ready" and event.epoch > 1:
        return Kind.RESTARTED
    if event.kind == "stopped" and paths.below(paths.TOPICS, event.path):
        return None  # its last subscriber left, or the pool has an event
    return _KINDS.get(event.kind)


def _mistake(event: Event) -> str | None:
    """The mistake of the user that is the reason of a failed start, and its remedy, in one line."""
    for error in event.errors:
        if isinstance(error, ConfigError):
            return "; ".join(error.problems)
        if isinstance(error, ArchiveFailed):
            return f"[history]: {error}"
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return f"cannot listen: {why_refused(error)}"
    return None


_REFUSALS = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
