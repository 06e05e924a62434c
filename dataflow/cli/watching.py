"""A question to the daemon that is asked again and again while somebody watches.

Rules of this file. It is asked in a thread, one at a time, so that a daemon that hangs is told within
`PATIENCE` and keeps nobody from the keys. Its last answer is kept, with its time, until there is a newer one:
an answer that is late still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from threading import Thread
from typing import Final, Generic, TypeVar

from attrs import define, evolve, field, frozen

from dataflow.domain.secrets import concealed
from dataflow.logs.terminal import disarmed

from .ends import Failure, Mistake

PATIENCE: Final = 1.0  # seconds without an answer, after which that is said

T = TypeVar("T")


def _now() -> datetime:
    return datetime.now(UTC)


@frozen
class Said(Generic[T]):
    """The newest answer, and when it came. `trouble`: since when there is no newer one, and why."""

    answer: T
    at: datetime = field(factory=_now)
    trouble: str | None = None

    @property
    def old(self) -> str:
        """The words above an answer that is not of now; else nothing."""
        return f"{self.trouble}; below is what it said at {moment(self.at)}" if self.trouble else ""


@define
class Watched(Generic[T]):
    """The answers to `ask`, which raises Mistake or Failure where there is none. `said`: the newest one."""

    _ask: Callable[[], T]
    said: Said[T]
    _pending: Future[T] | None = None
    _asked_at: datetime = field(factory=_now)
    _since: datetime | None = None  # the oldest question without an answer
    _why: str = ""

    def looks(self, pause: Callable[[], object]) -> Iterator[Said[T]]:
        """The newest answer, and one more look after each pause."""
        yield self.said
        while True:
            pause()
            yield self.look()

    def look(self) -> Said[T]:
        """Ask, unless a question is under way; what is known then. A late answer is waited for only once."""
        patience = 0.0
        if self._pending is None:
            patience, self._asked_at = PATIENCE, _now()
            self._pending = _asked(self._ask)
        if not wait([self._pending], patience).done:
            self._lacks(self._why or "no answer")
            return self.said
        try:
            answer = self._pending.result()
        except (Failure, Mistake) as error:  # perhaps it restarts: keep watching
            self._pending = None
            self._lacks(disarmed(concealed(str(error))))
        else:
            self.said = Said(answer)
            self._pending, self._since, self._why = None, None, ""
        return self.said

    def _lacks(self, why: str) -> None:
        self._since, self._why = self._since or self._asked_at, why
        self.said = evolve(self.said, trouble=f"since {moment(self._since)}: {why}")


def moment(at: datetime) -> str:
    """A time as the daemon writes it, without the parts of its second."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _asked(ask: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()  # the end of the command does not wait for it
    return future
