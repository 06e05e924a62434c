"""The settings of children and supervisors: plain frozen data, validated where it is written.

They say when to restart, after which wait, how often, and how many messages may queue. Child, Supervisor and
Pool carry these settings; they are in actor.py, beside the Actor that they run.

Rules of this file
- A setting that contradicts itself raises BadSpec in its constructor, hence before anything starts.
- Nothing here runs, waits or reads a clock. Random numbers come only from the generator given to
  `Backoff.delay`.
- All times are seconds; `math.inf` means "no limit" wherever a duration may be unlimited.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any

from attrs import frozen

from .errors import BadSpec


class Restart(Enum):
    """When an ended child is started again."""

    PERMANENT = "permanent"  # always
    TRANSIENT = "transient"  # only after an abnormal exit
    TEMPORARY = "temporary"  # never, not even as a bystander of a group restart


class Strategy(Enum):
    """The children that a failure concerns."""

    ONE_FOR_ONE = "one_for_one"  # the failed child alone
    ONE_FOR_ALL = "one_for_all"  # every sibling
    REST_FOR_ONE = "rest_for_one"  # the siblings that stand later in the order


class Overflow(Enum):
    """The fate of a message that meets a full mailbox."""

    BLOCK = "block"  # `put` is refused, `send` waits
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    CONFLATE = "conflate"  # the newest of each key replaces the older one in its place


class Point(Enum):
    """The places where a fault can be injected into an incarnation."""

    START = "start"  # before `make`
    READY = "ready"  # after the actor called ready, before its supervisor believes it
    RECEIVE = "receive"  # with the message in hand
    STOP = "stop"  # after a polite stop


def require(condition: bool, complaint: str) -> None:
    """Raise BadSpec with `complaint` unless `condition` holds."""
    if not condition:
        raise BadSpec(complaint)


def require_duration(name: str, value: float | None) -> None:
    """Raise BadSpec unless `value` is None or seconds >= 0."""
    require(value is None or value >= 0, f"{name} must be seconds >= 0, not {value!r}")


@frozen
class Backoff:
    """Restart number n in a row waits `min(cap, first * factor**(n-1))` seconds, and up to `jitter` more."""

    first: float = 0.1  # seconds before the first restart
    factor: float = 2.0
    cap: float = 30.0  # seconds, before jitter
    jitter: float = 0.2  # the largest share added at random, so that a crowd does not come back all at once
    reset_after: float = 60.0  # healthy seconds, counted from ready, that forgive earlier failures

    def __attrs_post_init__(self) -> None:
        for name in ("first", "cap", "jitter", "reset_after"):
            require_duration(f"Backoff.{name}", getattr(self, name))
        require(math.isfinite(self.cap), "Backoff.cap must be finite")
        require(self.factor >= 1, f"Backoff.factor must be >= 1, not {self.factor!r}")

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after the `failures`-th failure in a row, counted from 1."""
        return self._base(failures) * (1 + rng.uniform(0, self.jitter))

    def _base(self, failures: int) -> float:
        if not self.first:
            return 0.0
        try:
            return min(self.cap, self.first * float(self.factor) ** (failures - 1))
        except OverflowError:
            return self.cap


@frozen
class Limit:
    """The failures that a supervisor bears: `restarts` in `within` seconds, and those of a child in a row."""

    restarts: int | None = 3  # None: never escalate for their rate
    within: float = 5.0
    give_up_after: int | None = None  # the failure in a row that escalates; None: never

    def __attrs_post_init__(self) -> None:
        require(self.restarts is None or self.restarts >= 0, "Limit.restarts must be >= 0 or None")
        require_duration("Limit.within", self.within)
        require(
            self.give_up_after is None or self.give_up_after >= 1, "Limit.give_up_after must be >= 1 or None"
        )


@frozen
class Mailbox:
    """The bounded queue in front of an actor: it holds `size` messages, then `overflow` decides."""

    size: int = 1024
    overflow: Overflow = Overflow.BLOCK
    key: Callable[[Any], Hashable] | None = None  # for CONFLATE: messages of one key replace each other
    reserved: int = 0  # for BLOCK: of `size`, places that `send`, which can wait, leaves to `put`

    def __attrs_post_init__(self) -> None:
        require(self.size >= 1, f"Mailbox.size must be >= 1, not {self.size!r}")
        require(0 <= self.reserved < self.size, "Mailbox.reserved must be >= 0 and less than its size")
        blocks = self.overflow is Overflow.BLOCK
        require(blocks or not self.reserved, "Mailbox.reserved belongs to Overflow.BLOCK")
        require(
            isinstance(self.overflow, Overflow),
            f"Mailbox.overflow must be an Overflow, not {self.overflow!r}",
        )
        conflates = self.overflow is Overflow.CONFLATE
        require(
            conflates == (self.key is not None),
            "Mailbox.key belongs to Overflow.CONFLATE, and CONFLATE needs one",
        )
