"""How many clients this process has room for: the descriptors it may open, shared out before anything runs.

Rules of this file. What must go on comes first: the sources, our own files, the operator. Clients get what is
left. `shared_out` is pure; `make_room` looks at the process and raises its limit.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress

from attrs import frozen
from loguru import logger

from dataflow.settings.schema import Settings
from dataflow.sources.port import ListenerSettings

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

A_SOURCE = 4  # descriptors: a connection, the next one while the first is closing, two for looking up names
OURS = 16  # the event loop, the log, listeners, a certificate that is read anew, the operator's connections
EARLY = 8  # of ours: open before the first client, so below the ceiling
CONNECTIONS = 4096  # that are no sessions
LEAST_CONNECTIONS = 8
UNKNOWN_USED = 32


@frozen
class Room:
    """Room for so many `sessions`, and for so many HTTP `connections` beside them.

    No client may have a descriptor of `ceiling` or above.
    """

    sessions: int
    connections: int = CONNECTIONS
    ceiling: float = math.inf


def wanted(sessions: int, sources: int, used: int) -> int:
    """The descriptors that a process needs which has `used` so many already."""
    return used + sessions + CONNECTIONS + _kept(sources)


def shared_out(limit: int, sessions: int, sources: int, used: int) -> Room:
    """The room in a process that may open `limit` descriptors: at most `sessions`, and one at least.

    What was opened early stands below the ceiling: some of our own, and the connection of each source.
    A source that is not connected needs one less of those above.
    """
    early = EARLY + sources
    left = limit - _kept(sources) - used
    connections = min(CONNECTIONS, max(LEAST_CONNECTIONS, left // 4, left - sessions))
    ceiling = used + early + max(left, 1)
    return Room(max(1, min(sessions, left - connections)), connections, ceiling)


def _kept(sources: int) -> int:
    return OURS + A_SOURCE * sources


def make_room(settings: Settings) -> Room:
    """Raise the limit of this process as far as needed and allowed. Warns when there is too little room."""
    sessions, sources = settings.gateway.max_sessions, len(settings.sources)
    used = _used() + sum(
        each.max_connections for each in settings.sources.values() if isinstance(each, ListenerSettings)
    )
    limit = _raised(wanted(sessions, sources, used))
    if limit is None:
        return Room(sessions)
    room = shared_out(limit, sessions, sources, used)
    if room.sessions < sessions:
        logger.warning(
            "room for {:,} sessions instead of {:,}: this process may open {:,} files (raise `ulimit -Hn`)",
            room.sessions,
            sessions,
            limit,
        )
    return room


def _used() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))
    return UNKNOWN_USED


def _raised(wanted: int) -> int | None:
    """The limit of open descriptors, raised to `wanted` where that is allowed. None: there is no limit."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < wanted:
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # a system may have a further limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, target), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft
