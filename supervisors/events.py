"""The visible side of a tree: typed events for one hook, exits, and the tree as plain data.

Rules of this file
- There is one hook, and it is synchronous; logging is just a hook. A hook that raises harms nobody: its first
  traceback goes to standard error, `failures` counts all of them, and the next event calls it again.
- At most 100 crash reports a second reach the hook. One event "suppressed" stands for the rest of that
  second.
"""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from attrs import asdict, define, field, frozen

from .mailbox import MailboxNode
from .specs import Point

CRASH_REPORTS_PER_SECOND = 100


@frozen
class Exit:
    """How a child ended for good. kind: normal, crash, stopped, given_up (Pool: beyond its own limit)."""

    kind: str
    path: str
    epoch: int
    errors: tuple[BaseException, ...]
    at: float  # trio.current_time()


@frozen
class Event:
    """One thing that happened in the tree.

    kind           meaning, and the content of `detail`
    -------------  ------------------------------------------------------------------------------------
    ready          an incarnation is ready
    crash          an incarnation ended abnormally; `errors` are its leaf exceptions with tracebacks
    start_failed   an incarnation did not become ready
    exit           an incarnation returned by itself
    declined       `make` gave None
    stopped        an incarnation ended on request
    stop_cancelled the polite stop took longer than `stop_within`: cancelled
    unstopped      the cancel took longer than `cleanup_within`: left behind, still running
    cleanup_error  an incarnation raised while stopping
    hung           no `beat` within `beat_within`: cancelled, a crash follows
    dead_letter    the messages in hand at a crash are lost; `detail` is a tuple of them
    given_up       a child of a Pool exceeded its own limit and is dropped
    escalated      a supervisor gives up
    auto_shutdown  a supervisor ends because its significant children have
    suppressed     crash reports left out in the last second; `detail` is their number
    blocked        the event loop did not turn for `blocked_after`; `detail` is the stack. Comes from a thread
    """

    kind: str
    path: str
    epoch: int
    at: float  # trio.current_time()
    errors: tuple[BaseException, ...] = ()
    restarts: int = 0  # restarts of the child by its supervisor, the coming one included
    delay: float | None = None  # seconds until the coming restart; None: there will be none
    detail: Any = None


@frozen
class Node:
    """One child as plain data; `to_dict()` is ready for JSON."""

    path: str
    kind: str  # actor, supervisor or pool; actor until its `make` has returned something else
    state: str  # idle, starting, running, backoff, stopping, done
    epoch: int  # the number of its newest incarnation, 0 before the first
    restarts: int
    last_error: str | None  # of the newest failure; None once it has been forgiven
    last_error_at: float | None  # trio.current_time() of it
    since: float  # trio.current_time() at which it entered its state
    mailbox: MailboxNode | None  # None for a supervisor
    children: tuple[Node, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries and tuples, ready for `json.dumps`."""
        return asdict(self)


class Fault(Protocol):
    """The hook of chaos tests, called at every Point of every incarnation. It may raise, sleep or stall."""

    async def __call__(self, point: Point, path: str, epoch: int, /) -> None: ...


Hook = Callable[[Event], None]


@define(eq=False)
class Reporter:
    """Passes events to the hook, and limits crash reports, so that a crowd of crashes does not flood it."""

    hook: Hook | None
    failures: int = 0  # of the hook itself
    suppressed: int = 0
    _recent: deque[float] = field(factory=lambda: deque(maxlen=CRASH_REPORTS_PER_SECOND))

    def emit(self, event: Event) -> bool:
        """Report an event, or only count it. True when a series begins that `summarise` must end."""
        if self.hook is None:
            return False
        if event.kind in ("crash", "start_failed") and not self._admits(event.at):
            self.suppressed += 1
            return self.suppressed == 1
        self._call(event)
        return False

    def summarise(self, at: float) -> None:
        """Report how many crash reports were left out since the last summary."""
        count, self.suppressed = self.suppressed, 0
        if count:
            self._call(Event("suppressed", "", 0, at, detail=count))

    def _admits(self, now: float) -> bool:
        recent = self._recent
        if len(recent) == CRASH_REPORTS_PER_SECOND and now - recent[0] < 1.0:
            return False
        recent.append(now)
        return True

    def _call(self, event: Event) -> None:
        assert self.hook is not None
        try:
            self.hook(event)
        except Exception:
            self.failures += 1
            if self.failures == 1:
                print(f"on_event failed at {event.kind!r} of {event.path!r}:", file=sys.stderr)
                traceback.print_exc()
