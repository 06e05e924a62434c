"""What to run and how to keep it alive: plain frozen data, validated where it is written.

Rules of this file
- A specification that contradicts itself raises BadSpec in its constructor, hence before anything starts.
- Nothing here runs, waits or reads a clock. The only dice are the ones handed to `Backoff.delay`.
- All times are seconds; `math.inf` is "no limit" wherever a duration may be unlimited.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import field, frozen

from .errors import BadSpec

if TYPE_CHECKING:
    from .context import Actor

AutoShutdown: TypeAlias = Literal["any_significant", "all_significant"]


class Restart(Enum):
    """When an ended child is started again."""

    PERMANENT = "permanent"  # always
    TRANSIENT = "transient"  # only after an abnormal exit
    TEMPORARY = "temporary"  # never, not even as a bystander of a group restart


class Strategy(Enum):
    """Whom a failure concerns."""

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
    """Where a fault can be injected into an incarnation."""

    START = "start"  # before `make`
    READY = "ready"  # after the actor said ready, before its supervisor believes it
    RECEIVE = "receive"  # with the message in hand
    STOP = "stop"  # after a polite stop


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise BadSpec(complaint)


def _duration(name: str, value: float | None) -> None:
    _require(value is None or value >= 0, f"{name} must be seconds >= 0, not {value!r}")


@frozen
class Backoff:
    """Restart number n in a row waits `min(cap, first * factor**(n-1))` seconds, and up to `jitter` more."""

    first: float = 0.1  # seconds before the first restart
    factor: float = 2.0
    cap: float = 30.0  # seconds, before jitter
    jitter: float = 0.2  # the largest share added at random, so that a crowd does not come back as one
    reset_after: float = 60.0  # healthy seconds, counted from ready, that forgive earlier failures

    def __attrs_post_init__(self) -> None:
        for name in ("first", "cap", "jitter", "reset_after"):
            _duration(f"Backoff.{name}", getattr(self, name))
        _require(math.isfinite(self.cap), "Backoff.cap must be finite")
        _require(self.factor >= 1, f"Backoff.factor must be >= 1, not {self.factor!r}")

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
    """What a supervisor bears: `restarts` in `within` seconds, failures of one child in a row."""

    restarts: int | None = 3  # None: never escalate for their rate
    within: float = 5.0
    give_up_after: int | None = None  # this failure in a row escalates; None: never

    def __attrs_post_init__(self) -> None:
        _require(self.restarts is None or self.restarts >= 0, "Limit.restarts must be >= 0 or None")
        _duration("Limit.within", self.within)
        _require(
            self.give_up_after is None or self.give_up_after >= 1, "Limit.give_up_after must be >= 1 or None"
        )


@frozen
class Mailbox:
    """The bounded queue in front of an actor: `size` messages, then `overflow` decides."""

    size: int = 1024
    overflow: Overflow = Overflow.BLOCK
    key: Callable[[Any], Hashable] | None = None  # for CONFLATE: messages of one key replace each other

    def __attrs_post_init__(self) -> None:
        _require(self.size >= 1, f"Mailbox.size must be >= 1, not {self.size!r}")
        _require(
            isinstance(self.overflow, Overflow),
            f"Mailbox.overflow must be an Overflow, not {self.overflow!r}",
        )
        conflates = self.overflow is Overflow.CONFLATE
        _require(
            conflates == (self.key is not None),
            "Mailbox.key belongs to Overflow.CONFLATE, and CONFLATE needs one",
        )


@frozen
class Child:
    """One child: an id, a factory that makes a fresh actor for every incarnation, and how to keep it alive.

    `make` may also give a Supervisor (the tree nests) or None (it declines to start: no error, no charge).
    """

    id: Hashable  # its text is the name in paths, hence not empty and without "/"
    make: Callable[[], Actor | Supervisor | None]
    restart: Restart = Restart.PERMANENT
    backoff: Backoff = Backoff()
    mailbox: Mailbox = Mailbox()
    ready_within: float | None = None  # None: 10 s for an actor, unlimited for a supervisor
    stop_within: float | None = (
        None  # None: 5 s for an actor, unlimited for a supervisor; 0: cancel without asking
    )
    cleanup_within: float = 1.0  # after the cancel; then it is reported as unstopped
    beat_within: float | None = None  # progress watchdog, counted from ready; None: off
    significant: bool = False  # its own end may end its supervisor, see `auto_shutdown`

    def __attrs_post_init__(self) -> None:
        text = str(self.id)
        _require(bool(text) and "/" not in text, f"Child.id {self.id!r} must have a text without '/'")
        _require(callable(self.make), f"Child {text!r}: make must be callable, not {self.make!r}")
        _require(isinstance(self.restart, Restart), f"Child {text!r}: restart must be a Restart")
        for name in ("ready_within", "stop_within", "cleanup_within"):
            _duration(f"Child {text!r}: {name}", getattr(self, name))
        _require(self.beat_within is None or self.beat_within > 0, f"Child {text!r}: beat_within must be > 0")
        permanent = self.restart is Restart.PERMANENT
        _require(
            not (self.significant and permanent), f"Child {text!r}: a permanent child never ends by itself"
        )


def _as_tuple(children: Iterable[Child]) -> tuple[Child, ...]:
    return tuple(children)


@frozen
class Supervisor:
    """Keeps its children alive. `children` start in this order and stop in reverse."""

    children: tuple[Child, ...] = field(default=(), converter=_as_tuple)
    strategy: Strategy = Strategy.ONE_FOR_ONE
    limit: Limit = Limit()
    auto_shutdown: AutoShutdown | None = None

    def __attrs_post_init__(self) -> None:
        _require(isinstance(self.strategy, Strategy), f"strategy must be a Strategy, not {self.strategy!r}")
        known = (None, "any_significant", "all_significant")
        _require(
            self.auto_shutdown in known, f"auto_shutdown must be one of {known}, not {self.auto_shutdown!r}"
        )
        _require(all(isinstance(c, Child) for c in self.children), "children must be Child specifications")
        repeated = _first_repeated(str(child.id) for child in self.children)
        _require(repeated is None, f"two children are called {repeated!r}")
        for child in self.children:
            self.check(child)

    def check(self, child: Child) -> None:
        """Raise BadSpec when `child` cannot live under this supervisor."""
        lost = child.significant and self.auto_shutdown is None
        _require(not lost, f"Child {str(child.id)!r} is significant, but its supervisor has no auto_shutdown")


@frozen
class Pool(Supervisor):
    """Children that come and go: stopped in parallel, each with a restart budget of its own."""

    max_children: int | None = None  # those in backoff count; None: no bound

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _require(self.strategy is Strategy.ONE_FOR_ONE, "a Pool is always ONE_FOR_ONE")
        _require(
            self.max_children is None or self.max_children >= 0, "Pool.max_children must be >= 0 or None"
        )
        room = self.max_children is None or len(self.children) <= self.max_children
        _require(room, "a Pool starts with more children than max_children")


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
