"""Injected faults: the possible faults of each actor type, the faults in force, and the choice of the fault
that strikes.

Rules of this file. A fault strikes only when code visits a point: supervisors visit theirs with
`Faults.__call__`, connections theirs with `Faults.visit` (see `passage`). A table holds the possible faults.
The decision whether a visit is struck needs no I/O and no clock, only a random generator, which a seed makes
repeatable. The registry breaks nothing by itself and outlives the actors that it strikes. Times are seconds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from itertools import count
from typing import Any, Final

import trio
from attrs import define, field, frozen
from loguru import logger

from dataflow.domain.errors import DataflowError
from dataflow.events import Events
from dataflow.events import Kind as Happened
from dataflow.paths import BRANCHES, CACHE, FOLLOWERS, OPS, SESSIONS, SOURCES, TOPICS
from supervisors import Point

MESSAGE: Final = "message"  # the point of a connection: a message arrived or, at a session, is about to leave
MOST_IN_FORCE: Final = 100
MOST_TIMES: Final = 1_000_000
LONGEST: Final = 3600.0  # seconds
USUAL_DELAY: Final = 1.0  # seconds
NO_CHAOS: Final = "faults need [chaos] enabled = true in the configuration"


class Kind(StrEnum):
    """The effect on the actor."""

    CRASH = "crash"  # an InjectedFault is raised in it
    HANG = "hang"  # it waits for `seconds`, or until the fault is withdrawn; a watchdog should notice
    DELAY = "delay"  # it waits for `seconds`
    DROP = "drop"  # one raw message of a source is thrown away before it is decoded
    DISCONNECT = "disconnect"  # its connection is lost


class InjectedFault(DataflowError):
    """Raised on purpose, because a fault was injected. Nothing else is wrong."""


class FaultError(DataflowError):
    """The requested fault is impossible. The text says why, `data` holds the possible values."""

    def __init__(self, text: str, **data: Any) -> None:
        super().__init__(text)
        self.data = data


class TooManyFaults(FaultError):
    """MOST_IN_FORCE faults are in force already."""


class UnknownFault(FaultError):
    """No fault with this id is in force."""


# -- possible faults -----------------------------------------------------------------------------------

_ANYWHERE: Final = (Kind.CRASH, Kind.HANG, Kind.DELAY)
_LIFE: Final = {Point.START.value: _ANYWHERE, Point.READY.value: _ANYWHERE, Point.STOP.value: _ANYWHERE}


@frozen
class ActorType:
    """A group of actors with the same possible faults: the kinds at each point, and the usual point."""

    name: str
    kinds: Mapping[str, tuple[Kind, ...]]
    usual: str
    endless: frozenset[str] = frozenset()  # points without a watchdog: a hang there needs `seconds`


_ENDLESS: Final = frozenset({Point.READY.value, Point.STOP.value})  # a supervisor has no time limit there
_OF_A_SESSION: Final = {MESSAGE: (Kind.CRASH, Kind.DELAY, Kind.DISCONNECT)}

BRANCH: Final = ActorType("a supervisor", _LIFE, Point.START.value, _ENDLESS)
POOL_OF_SESSIONS: Final = ActorType("the sessions", {**_LIFE, **_OF_A_SESSION}, MESSAGE, _ENDLESS)
SESSION: Final = ActorType("a session", _OF_A_SESSION, MESSAGE)
CONNECTOR: Final = ActorType("a source", {**_LIFE, MESSAGE: tuple(Kind)}, MESSAGE, _ENDLESS)
READER: Final = ActorType(
    "an actor with a mailbox", {**_LIFE, Point.RECEIVE.value: _ANYWHERE}, Point.RECEIVE.value
)
OTHER: Final = ActorType("an actor without a mailbox", _LIFE, Point.START.value)

_BY_PATH: Final = {
    **dict.fromkeys((*BRANCHES, FOLLOWERS, OPS), BRANCH),
    SESSIONS: POOL_OF_SESSIONS,  # at `message` it means the first session that reaches this point
}
_BY_BRANCH: Final = {CACHE: READER, TOPICS: READER, FOLLOWERS: READER, SOURCES: CONNECTOR, SESSIONS: SESSION}


def actor_type(path: str) -> ActorType:
    """The type of the actor at `path`, by the path alone. Whether such an actor runs is not known here."""
    return _BY_PATH.get(path) or _BY_BRANCH.get(path.rpartition("/")[0], OTHER)


# -- one fault -----------------------------------------------------------------------------------------


@frozen
class Injected:
    """A requested fault with its defaults filled in, and the number of its strikes."""

    id: int
    path: str
    kind: Kind
    point: str
    seconds: float | None  # None: no duration, or a hang that lasts until it is withdrawn
    probability: float
    times: int
    struck: int = 0


@define(eq=False)
class _Fault:
    id: int
    path: str
    kind: Kind
    point: str
    seconds: float | None
    probability: float
    times: int
    struck: int = 0
    suffering: int = 0  # strikes that have not ended
    withdrawn: trio.Event = field(factory=trio.Event)

    def concerns(self, point: str, path: str) -> bool:
        """Whether it may strike at this visit. Its probability is not considered."""
        if self.struck >= self.times or point != self.point:
            return False
        return path == self.path or (
            self.path == SESSIONS and point == MESSAGE and path.startswith(f"{SESSIONS}/")
        )

    @property
    def over(self) -> bool:
        return self.struck >= self.times and not self.suffering

    def told(self) -> Injected:
        return Injected(
            self.id, self.path, self.kind, self.point, self.seconds, self.probability, self.times, self.struck
        )


def striking(
    faults: Iterable[_Fault], point: str, path: str, kinds: Collection[Kind], roll: Callable[[], float]
) -> _Fault | None:
    """The oldest fault that strikes at this visit. `roll` returns a number from 0 to 1 for each candidate."""
    for fault in faults:
        if fault.kind in kinds and fault.concerns(point, path) and roll() < fault.probability:
            return fault
    return None


@define(eq=False)
class Strike:
    """One strike of a fault. It counts as unfinished until `end`, also when the struck task is cancelled."""

    _fault: _Fault
    _point: str
    _ended: Callable[[_Fault], None]
    _until: float  # of a wait, on Trio's clock
    _open: bool = True

    @property
    def kind(self) -> Kind:
        """The effect. DROP and DISCONNECT are up to the visitor, because `suffer` cannot do them."""
        return self._fault.kind

    async def suffer(self) -> None:
        """Raise InjectedFault (crash) or wait (hang, delay). A new call continues a cancelled wait."""
        if self.kind is Kind.CRASH:
            raise InjectedFault(f"injected crash at {self._point} (fault {self._fault.id})")
        if self.kind in (Kind.HANG, Kind.DELAY):
            with trio.move_on_at(self._until):
                await self._fault.withdrawn.wait()

    def end(self) -> None:
        """The struck actor is free again, or gone. Idempotent."""
        if self._open:
            self._open = False
            self._ended(self._fault)


# -- all of them ---------------------------------------------------------------------------------------


class Faults:
    """The faults in force. As a callable it is the fault hook of the supervisors.

    `seed` makes faults with a probability repeatable. `events`: where each of them is told.
    """

    def __init__(self, seed: int | None = None, events: Events | None = None) -> None:
        # Strikes by (path, kind). All sessions count together, so that the number of keys is bounded.
        self.struck: Counter[tuple[str, str]] = Counter()
        self._events = events
        self._dice = random.Random(seed)
        self._ids = count(1)
        self._in_force: dict[int, _Fault] = {}

    def inject(
        self,
        path: str,
        kind: str,
        *,
        point: str | None = None,
        seconds: float | None = None,
        probability: float = 1.0,
        times: int = 1,
    ) -> Injected:
        """Break the actor at `path` at its next `times` visits of `point`, each with `probability`.

        `seconds` is the duration of a hang or delay. Raises FaultError when the fault is impossible.
        """
        found, at = _possible(path, kind, point)
        lasting = _duration(actor_type(path), found, at, seconds)
        _in_range("probability", probability, 0.0, 1.0)
        _in_range("times", times, 1, MOST_TIMES)
        if len(self._in_force) >= MOST_IN_FORCE:
            raise TooManyFaults(f"{MOST_IN_FORCE} faults are in force already: withdraw one first")
        fault = _Fault(next(self._ids), path, found, at, lasting, probability, times)
        self._in_force[fault.id] = fault
        often = "once" if times == 1 else f"{times:,} times at most"
        self._tell(path, f"fault {fault.id} is in force", f": {found} at {at}, {often}")
        return fault.told()

    def active(self) -> list[Injected]:
        """The faults that may still strike, or whose last strike has not ended; the oldest first."""
        return [fault.told() for fault in self._in_force.values()]

    def withdraw(self, id: int) -> None:
        """End a fault and free the actors that hang in it. Raises UnknownFault."""
        fault = self._in_force.pop(id, None)
        if fault is None:
            raise UnknownFault(f"no fault {id} is in force", in_force=list(self._in_force))
        fault.withdrawn.set()
        self._tell(fault.path, f"fault {id} was withdrawn", f": {fault.kind} at {fault.point}")

    def clear(self) -> None:
        """Withdraw all faults."""
        for id in list(self._in_force):
            self.withdraw(id)

    def visit(self, point: str, path: str, kinds: Collection[Kind] = tuple(Kind)) -> Strike | None:
        """The actor at `path` has reached `point`. Returns the strike, if one of `kinds` hits it.

        The caller must call `Strike.end`.
        """
        if not self._in_force:
            return None
        fault = striking(self._in_force.values(), point, path, kinds, self._dice.random)
        return None if fault is None else self._strike(fault, point, path)

    async def __call__(self, point: Point, path: str, _epoch: int) -> None:
        """For the supervisors: apply the faults in force for this point of the actor at `path`."""
        strike = self.visit(point.value, path)
        if strike is not None:
            try:
                await strike.suffer()
            finally:
                strike.end()

    def _strike(self, fault: _Fault, point: str, path: str) -> Strike:
        fault.struck += 1
        fault.suffering += 1
        self.struck[SESSIONS if path.startswith(f"{SESSIONS}/") else path, fault.kind.value] += 1
        # a fault may strike a million times: the rest is counted, and in the log for those who ask for it
        level = "WARNING" if fault.struck == 1 else "DEBUG"
        logger.bind(path=path).log(level, "fault {} strikes at {}: {}", fault.id, point, fault.kind)
        self._tell(path, f"fault {fault.id} strikes", f" at {point}: {fault.kind}")
        lasting = float("inf") if fault.seconds is None else fault.seconds
        return Strike(fault, point, self._ended, trio.current_time() + lasting)

    def _tell(self, path: str, what: str, more: str) -> None:
        if self._events is not None:
            self._events.tell(Happened.FAULT, path, what + more, alike=what)

    def _ended(self, fault: _Fault) -> None:
        fault.suffering -= 1
        if fault.over:
            self._in_force.pop(fault.id, None)


def _possible(path: str, kind: str, point: str | None) -> tuple[Kind, str]:
    """The checked kind and point for `path`. Raises FaultError."""
    if not path:
        raise FaultError("nothing supervises the root: name one of the actors below it")
    actor = actor_type(path)
    at = actor.usual if point is None else point
    if kind not in {each.value for each in Kind}:
        raise _impossible(actor, f"there is no fault {kind!r}")
    if at not in actor.kinds:
        raise _impossible(actor, f"{actor.name} has no point {at!r}")
    if kind not in actor.kinds[at]:
        raise _impossible(actor, f"{actor.name} cannot suffer a {Kind(kind)} at {at}")
    return Kind(kind), at


def _impossible(actor: ActorType, why: str) -> FaultError:
    points: dict[tuple[Kind, ...], list[str]] = {}
    for point, kinds in actor.kinds.items():
        points.setdefault(kinds, []).append(point)
    told = "; ".join(f"{', '.join(kinds)} at {', '.join(where)}" for kinds, where in points.items())
    return FaultError(f"{why}; possible there: {told}", possible=dict(actor.kinds), usual=actor.usual)


def _duration(actor: ActorType, kind: Kind, point: str, seconds: float | None) -> float | None:
    if kind not in (Kind.HANG, Kind.DELAY):
        if seconds is not None:
            raise FaultError(f"a {kind} takes no seconds")
        return None
    if seconds is not None:
        _in_range("seconds", seconds, 0.0, LONGEST)
    elif kind is Kind.DELAY:
        return USUAL_DELAY
    elif point in actor.endless:
        raise FaultError(f"no watchdog ends a hang of {actor.name} at {point}: say for how many seconds")
    return seconds


def _in_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise FaultError(f"{name} must be from {least:g} to {most:g}, not {value!r}")
