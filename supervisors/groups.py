"""Group restarts: one_for_all and rest_for_one.

Rules of this file
- The members stop in reverse, one at a time. Then there is one wait, the backoff of the failed child. Then
  the members start in order.
- One group at a time. A newer failure, or a failed start of a member, takes over the members that still have
  to come back. So one_for_all retries the whole group, and rest_for_one retries from the failed child on.
- A group acts only on members that still belong to it when their turn comes: a stop by hand takes a member
  out, a restart by hand ends the wait. A child that had ended before, or is being stopped by hand, is no
  member. A temporary member does not come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from .errors import SupervisionError
from .record import Incarnation, Intent, Origin, Outcome, Record
from .specs import Restart, Strategy

if TYPE_CHECKING:
    from .engine import Engine


@define(eq=False)
class Group:
    """A group restart under way: the members that still have to come back, and the wait before that."""

    delay: float
    pending: set[Record]
    pause: trio.CancelScope = field(factory=trio.CancelScope)


@define(eq=False)
class Groups:
    """The group restarts of one supervisor."""

    engine: Engine
    strategy: Strategy
    _current: Group | None = None

    def begin(self, failed: Record, delay: float) -> None:
        """Restart all that the failure of `failed` concerns, `delay` seconds after they have stopped."""
        earlier = self.drop()
        concerned = self._concerned(failed) | earlier
        members = [r for r in self._everybody() if r in concerned and self._join(r)]
        pending = {r for r in members if not _goes_for_good(r)}
        for record in pending - earlier - {failed}:
            record.restarts += 1
        self._current = Group(delay, pending)
        self.engine.spawn(self._run, self._current, members)

    def holds(self, record: Record) -> bool:
        """True when a group restart will start this child."""
        return self._current is not None and record in self._current.pending

    def leave(self, record: Record) -> None:
        """Take this child out of the group restart."""
        if self._current is not None:
            self._current.pending.discard(record)

    def hurry(self) -> None:
        """End the wait before the restart."""
        if self._current is not None:
            self._current.pause.cancel()

    def drop(self) -> set[Record]:
        """Give up the group restart under way; return the members that still had to come back."""
        group, self._current = self._current, None
        if group is None:
            return set()
        group.pause.cancel()
        return group.pending

    def _everybody(self) -> list[Record]:
        return list(self.engine.record.children.values())

    def _concerned(self, failed: Record) -> set[Record]:
        everybody = self._everybody()
        if self.strategy is Strategy.REST_FOR_ONE:
            return set(everybody[everybody.index(failed) :])
        return set(everybody)

    def _join(self, record: Record) -> bool:
        life = record.incarnation
        if life is None:
            return not record.resting
        if life.intent is Intent.STOP:
            return False
        life.intent = Intent.GROUP
        return True

    async def _run(self, group: Group, members: list[Record]) -> None:
        for record in reversed(members):
            if self._current is group and record.incarnation is not None:
                await self.engine.take_down([record.incarnation])
        with group.pause:
            await trio.sleep(group.delay)
        for record in members:
            if self._current is group and record in group.pending:
                await self._start(group, record)
        if self._current is group:
            self._current = None

    async def _start(self, group: Group, record: Record) -> None:
        if record.incarnation is not None:
            self._still_running(record)
            return
        promise = record.expect()
        self.engine.launch(record, Origin.AUTO)
        await self.engine.started(record, promise)
        if self._current is group:
            group.pending.discard(record)

    def _still_running(self, record: Record) -> None:
        """Its old incarnation cannot be stopped. Two must not overlap, so this restart has failed."""
        error = SupervisionError(f"incarnation {record.epoch} of {record.path!r} has not stopped")
        attempt = Incarnation(record, record.spec, record.epoch, Origin.AUTO, self.engine)
        self.engine.decide(attempt, Outcome("start_failed", (error,), error))


def _goes_for_good(record: Record) -> bool:
    return record.incarnation is not None and record.incarnation.spec.restart is Restart.TEMPORARY
