"""The errors of a supervision tree. Each says whose fault it is and what to do now.

Every public error derives from SupervisionError, so one `except` separates the failures of the tree from
those of an actor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import trio


class SupervisionError(Exception):
    """Base of everything this package raises."""


class BadSpec(SupervisionError):
    """A specification contradicts itself. Raised where it is written, before anything starts."""


class StartFailed(SupervisionError):
    """A child did not become ready; `path` names it and `__cause__` is the original error."""

    def __init__(self, path: str, cause: BaseException | None = None) -> None:
        super().__init__(f"child {path!r} did not start: {describe(cause) if cause else 'no reason known'}")
        self.path = path
        self.__cause__ = cause


class RestartLimitReached(SupervisionError):
    """Children of the supervisor at `path` failed too often; `__cause__` is the last failure."""

    def __init__(self, path: str, child: str, cause: BaseException | None = None) -> None:
        last = f": {describe(cause)}" if cause else ""
        super().__init__(f"supervisor {path!r} gives up, child {child!r} failed once too often{last}")
        self.path = path
        self.child = child
        self.__cause__ = cause


class AlreadyRunning(SupervisionError):
    """The child is alive or about to be: stop it first."""


class AlreadyPresent(SupervisionError):
    """The id is taken by a child that is not running: `restart` it, or stop and remove it first."""


class UnknownChild(SupervisionError):
    """No child lives at that path. It may have ended and, being temporary or in a Pool, left no trace."""


class ActorGone(SupervisionError):
    """The incarnation has ended, or its child has ended for good: ask the supervisor for the current one."""


class Stopping(SupervisionError):
    """A stop was requested. An actor lets this error through; a caller of `start` is too late."""


class PoolFull(SupervisionError):
    """The Pool has `max_children` children, those in backoff included: try later."""


class TryAgain(Exception):
    """An actor raises it, or a subclass, when it knows how long its restart must wait, or may wait.

    The backoff is kept between `at_least` and `at_most` seconds. Raises ValueError for a wait without an end.
    """

    def __init__(self, *words: object, at_least: float = 0.0, at_most: float = math.inf) -> None:
        if not 0 <= at_least < math.inf or not at_most >= 0:
            raise ValueError(f"at_least and at_most must be seconds >= 0, not {at_least!r} and {at_most!r}")
        super().__init__(*words)
        self.at_least = at_least
        self.at_most = at_most


def bounded(delay: float, errors: Iterable[BaseException]) -> float:
    """The delay of a restart after these errors, as those that are a TryAgain want it. The longest wins."""
    wishes = [error for error in errors if isinstance(error, TryAgain)]
    if not wishes:
        return delay
    return max(max(wish.at_least, min(delay, wish.at_most)) for wish in wishes)


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """The exceptions inside nested groups, in order; nothing for None."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    elif error is not None:
        yield error


def describe(error: BaseException) -> str:
    """One line for people and JSON: the type and the text."""
    text = str(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def is_real(error: BaseException) -> bool:
    """False for a cancellation: it is Trio's business and no failure."""
    return not isinstance(error, trio.Cancelled)
