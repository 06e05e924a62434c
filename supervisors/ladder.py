"""The stop ladder: a polite stop, a cancel after `stop_within`, "unstopped" after `cleanup_within` more.

Rules of this file
- One ladder may stop many incarnations in parallel, under one timer. It handles a crowd in chunks with a
  checkpoint between them, because waking or cancelling 10,000 tasks at once stalls the event loop.
- An actor that is still starting, or a child with `stop_within=0`, gets no polite stop: it is cancelled at
  once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import trio
from attrs import define, field

from .record import Incarnation

CHUNK = 256

Act = Callable[[Incarnation], None]


@define(eq=False)
class Ladder:
    """Stops incarnations. It calls `report` with "stop_cancelled" and "unstopped"."""

    report: Callable[[str, Incarnation], None]
    _left: int = 0
    _all_down: trio.Event = field(factory=trio.Event)

    async def descend(self, lives: Iterable[Incarnation]) -> None:
        """Return when every one of `lives` has ended or was reported as unstopped."""
        mine = [life for life in lives if life.ladder is None and not life.over]
        for life in mine:
            life.ladder = self
        self._left = len(mine)
        start = trio.current_time()
        await _in_chunks(mine, self._ask)
        for after, (late, hopeless) in sorted(_timetable(mine).items(), key=lambda entry: entry[0]):
            await self._wait_until(start + after)
            await _in_chunks(late, self._cancel)
            await _in_chunks(hopeless, self._leave_behind)

    def one_is_down(self) -> None:
        """Each incarnation calls this when it ends."""
        self._left -= 1
        if self._left == 0:
            self._all_down.set()

    async def _wait_until(self, deadline: float) -> None:
        if self._left > 0:
            with trio.CancelScope(deadline=deadline):
                await self._all_down.wait()

    def _ask(self, life: Incarnation) -> None:
        life.record.enter("stopping")
        if life.at_once:
            life.scope.cancel()
        else:
            life.ask_to_stop()

    def _cancel(self, life: Incarnation) -> None:
        if life.polite:
            self.report("stop_cancelled", life)
        life.scope.cancel()

    def _leave_behind(self, life: Incarnation) -> None:
        self.report("unstopped", life)
        life.down.resolve(None)


def _timetable(lives: list[Incarnation]) -> dict[float, tuple[list[Incarnation], list[Incarnation]]]:
    """Seconds after the start of the ladder -> the lives to cancel then, and those to leave behind."""
    table: dict[float, tuple[list[Incarnation], list[Incarnation]]] = defaultdict(lambda: ([], []))
    for life in lives:
        patience = 0.0 if life.at_once else life.stop_within
        table[patience][0].append(life)
        table[patience + life.spec.cleanup_within][1].append(life)
    return table


async def _in_chunks(lives: list[Incarnation], act: Act) -> None:
    for begin in range(0, len(lives), CHUNK):
        acted = False
        for life in lives[begin : begin + CHUNK]:
            if not life.over:
                act(life)
                acted = True
        if acted:
            await trio.lowlevel.checkpoint()
