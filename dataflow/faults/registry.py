"""Faults on purpose: what can be broken where, which faults are in force, and which one strikes.

Rules of this file. It strikes only where somebody visits a point: the supervisors visit theirs with
`Faults.__call__`, connections theirs with `Faults.visit` (see `interference`). What can be broken where is a
table; whether a visit is struck is decided without I/O or clock, by dice that a seed makes repeatable. It
breaks nothing by itself, and outlives the actors that it strikes. Times are seconds.
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
from dataflow.paths import BRANCHES, CACHE, SESSIONS, SOURCES, TOPICS
from supervisors import Point

MESSAGE: Final = "message"  # the point of a connection: a message has come (at a session: or is to go)
MOST_IN_FORCE: Final = 100
MOST_TIMES: Final = 1_000_000
LONGEST: Final = 3600.0  # seconds
USUAL_DELAY: Final = 1.0  # seconds


class Kind(StrEnum):
    """What happens to whoever is struck."""

    CRASH = "crash"  # an InjectedFault is raised in it
    HANG = "hang"  # it waits, until the fault is withdrawn or for `seconds`; somebody should notice
    DELAY = "delay"  # it waits for `seconds`
    DROP = "drop"  # one raw message of a source is thrown away before it is decoded
    DISCONNECT = "disconnect"  # its connection is lost


class InjectedFault(DataflowError):
    """Raised on purpose: nothing is wrong but that somebody asked for it."""


class FaultError(DataflowError):
    """The fault that was asked for is impossible: the text says why, `data` what would be possible."""

    def __init__(self, text: str, **data: Any) -> None:
        super().__init__(text)
        self.data = data


class TooManyFaults(FaultError):
    """As many faults are in force as there can be."""


class UnknownFault(FaultError):
    """No fault of that id is in force."""


# -- what can be broken where --------------------------------------------------------------------------

_ANYWHERE: Final = (Kind.CRASH, Kind.HANG, Kind.DELAY)
_LIFE: Final = {Point.START.value: _ANYWHERE, Point.READY.value: _ANYWHERE, Point.STOP.value: _ANYWHERE}


@frozen
class Place:
    """One sort of actor: the kinds of fault that are possible at each point, and the usual point."""

    name: str
    kinds: Mapping[str, tuple[Kind, ...]]
    usual: str
    endless: frozenset[str] = frozenset()  # points where nobody would notice a hang, so it needs an end


_ENDLESS: Final = frozenset({Point.READY.value, Point.STOP.value})  # a supervisor may take its time there
_OF_A_SESSION: Final = {MESSAGE: (Kind.CRASH, Kind.DELAY, Kind.DISCONNECT)}

BRANCH: Final = Place("a supervisor", _LIFE, Point.START.value, _ENDLESS)
POOL_OF_SESSIONS: Final = Place("the sessions", {**_LIFE, **_OF_A_SESSION}, MESSAGE, _ENDLESS)
SESSION: Final = Place("a session", _OF_A_SESSION, MESSAGE)
CONNECTOR: Final = Place("a source", {**_LIFE, MESSAGE: tuple(Kind)}, MESSAGE)
READER: Final = Place(
    "an actor with a mailbox", {**_LIFE, Point.RECEIVE.value: _ANYWHERE}, Point.RECEIVE.value
)
OTHER: Final = Place("an actor without a mailbox", _LIFE, Point.START.value)

_PLACES: Final = {
    **dict.fromkeys(BRANCHES, BRANCH),
    SESSIONS: POOL_OF_SESSIONS,  # at `message`, it stands for the session that comes there first
}
_BELOW: Final = {CACHE: READER, TOPICS: READER, SOURCES: CONNECTOR, SESSIONS: SESSION}


def place_of(path: str) -> Place:
    """What sort of actor is at `path`, by its name alone: whether there is one is not known here."""
    return _PLACES.get(path) or _BELOW.get(path.rpartition("/")[0], OTHER)


# -- one fault -----------------------------------------------------------------------------------------


@frozen
class Injected:
    """A fault as it was asked for, defaults filled in, and how often it has struck."""

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
    suffering: int = 0  # strokes that have not ended
    withdrawn: trio.Event = field(factory=trio.Event)

    def concerns(self, point: str, path: str) -> bool:
        """It strikes at this visit, unless the dice say otherwise."""
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
    """The oldest fault that strikes at this visit. `roll` gives a number from 0 to 1 for each candidate."""
    for fault in faults:
        if fault.kind in kinds and fault.concerns(point, path) and roll() < fault.probability:
            return fault
    return None


@define(eq=False)
class Strike:
    """One stroke of a fault. It counts as suffered until `end`, whatever becomes of those who wait."""

    _fault: _Fault
    _point: str
    _ended: Callable[[_Fault], None]
    _until: float  # of a wait, on Trio's clock
    _open: bool = True

    @property
    def kind(self) -> Kind:
        """What is to happen. Who was visited does it itself, where `suffer` cannot."""
        return self._fault.kind

    async def suffer(self) -> None:
        """Raise InjectedFault, or wait as long as it takes. A cancelled wait may be taken up again."""
        if self.kind is Kind.CRASH:
            raise InjectedFault(f"injected crash at {self._point} (fault {self._fault.id})")
        if self.kind in (Kind.HANG, Kind.DELAY):
            with trio.move_on_at(self._until):
                await self._fault.withdrawn.wait()

    def end(self) -> None:
        """Whoever was struck is free again, or gone. Idempotent."""
        if self._open:
            self._open = False
            self._ended(self._fault)


# -- all of them ---------------------------------------------------------------------------------------


class Faults:
    """The faults in force. As a callable it is the supervisors' fault hook.

    `seed` makes the dice of faults with a probability repeatable.
    """

    def __init__(self, seed: int | None = None) -> None:
        # How often each (path, kind) has struck; sessions count together, so that the keys are bounded.
        self.struck: Counter[tuple[str, str]] = Counter()
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
        """Have what is at `path` suffer `kind`, at its next `times` visits of `point` that the dice choose.

        `seconds` is how long a hang or delay lasts. Raises FaultError when that is impossible there.
        """
        found, at = _possible(path, kind, point)
        lasting = _duration(place_of(path), found, at, seconds)
        _in_range("probability", probability, 0.0, 1.0)
        _in_range("times", times, 1, MOST_TIMES)
        if len(self._in_force) >= MOST_IN_FORCE:
            raise TooManyFaults(f"{MOST_IN_FORCE} faults are in force already: withdraw one first")
        fault = _Fault(next(self._ids), path, found, at, lasting, probability, times)
        self._in_force[fault.id] = fault
        return fault.told()

    def active(self) -> list[Injected]:
        """The faults that may still strike, or whose last stroke is still suffered; the oldest first."""
        return [fault.told() for fault in self._in_force.values()]

    def withdraw(self, id: int) -> None:
        """End a fault, and free whoever hangs in it. Raises UnknownFault."""
        fault = self._in_force.pop(id, None)
        if fault is None:
            raise UnknownFault(f"no fault {id} is in force", in_force=list(self._in_force))
        fault.withdrawn.set()

    def clear(self) -> None:
        """Withdraw all."""
        for id in list(self._in_force):
            self.withdraw(id)

    def visit(self, point: str, path: str, kinds: Collection[Kind] = tuple(Kind)) -> Strike | None:
        """Whoever is at `path` has come to `point` and can suffer one of `kinds`: the stroke, if any.

        Whoever gets one has to call its `end`.
        """
        if not self._in_force:
            return None
        fault = striking(self._in_force.values(), point, path, kinds, self._dice.random)
        return None if fault is None else self._strike(fault, point, path)

    async def __call__(self, point: Point, path: str, _epoch: int) -> None:
        """For the supervisors: suffer what is in force for this point of the actor at `path`."""
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
        logger.bind(path=path).warning("fault {} strikes at {}: {}", fault.id, point, fault.kind)
        lasting = float("inf") if fault.seconds is None else fault.seconds
        return Strike(fault, point, self._ended, trio.current_time() + lasting)

    def _ended(self, fault: _Fault) -> None:
        fault.suffering -= 1
        if fault.over:
            self._in_force.pop(fault.id, None)


def _possible(path: str, kind: str, point: str | None) -> tuple[Kind, str]:
    """Kind and point as they are possible for `path`; raises FaultError."""
    if not path:
        raise FaultError("nothing supervises the root: name one of the actors below it")
    place = place_of(path)
    at = place.usual if point is None else point
    if kind not in {each.value for each in Kind}:
        raise _impossible(place, f"there is no fault {kind!r}")
    if at not in place.kinds:
        raise _impossible(place, f"{place.name} has no point {at!r}")
    if kind not in place.kinds[at]:
        raise _impossible(place, f"{place.name} cannot suffer a {Kind(kind)} at {at}")
    return Kind(kind), at


def _impossible(place: Place, why: str) -> FaultError:
    points: dict[tuple[Kind, ...], list[str]] = {}
    for point, kinds in place.kinds.items():
        points.setdefault(kinds, []).append(point)
    told = "; ".join(f"{', '.join(kinds)} at {', '.join(where)}" for kinds, where in points.items())
    return FaultError(f"{why}; possible there: {told}", possible=dict(place.kinds), usual=place.usual)


def _duration(place: Place, kind: Kind, point: str, seconds: float | None) -> float | None:
    if kind not in (Kind.HANG, Kind.DELAY):
        if seconds is not None:
            raise FaultError(f"a {kind} takes no seconds")
        return None
    if seconds is not None:
        _in_range("seconds", seconds, 0.0, LONGEST)
    elif kind is Kind.DELAY:
        return USUAL_DELAY
    elif point in place.endless:
        raise FaultError(f"nobody would notice that {place.name} hangs at {point}: say for how many seconds")
    return seconds


def _in_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise FaultError(f"{name} must be from {least:g} to {most:g}, not {value!r}")
