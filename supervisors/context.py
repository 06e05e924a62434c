"""The Context that an incarnation gets: the class behind `actor.Context`, whose docstrings apply.

Rules of this file
- A Context is a capability: everything that an actor may do to its tree goes through it. There are no globals
  and no contextvars.
- It belongs to one incarnation. Once that has ended, every method raises ActorGone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from .actor import Context, Handle
from .errors import Stopping
from .mailbox import Box
from .refs import Ref
from .specs import Point

if TYPE_CHECKING:
    from .record import Incarnation


class ActorContext(Context):
    """A Context at work. Every living actor holds one: it must stay small."""

    __slots__ = ("_incarnation", "epoch", "path")

    def __init__(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self.path: str = incarnation.record.path
        self.epoch: int = incarnation.epoch

    @property
    def stopping(self) -> trio.Event:
        return self._incarnation.stopping

    @property
    def ref(self) -> Ref:
        return self._incarnation.record.ref

    def ready(self, value: Any = None) -> None:
        self._incarnation.check_alive()
        self._incarnation.keeper.said_ready(self._incarnation, value)

    def beat(self) -> None:
        self._incarnation.check_alive()
        self._incarnation.beat_at = trio.current_time()

    def start_helper(self, help_: Callable[[], Awaitable[None]]) -> None:
        self._incarnation.check_alive()
        self._incarnation.keeper.start_helper(self._incarnation, help_)

    async def receive(self) -> Any:
        incarnation = self._incarnation
        incarnation.check_alive()
        box = incarnation.record.box
        box.settle()
        if box.pending and not incarnation.polite:
            await trio.lowlevel.checkpoint()
        while not box.pending or incarnation.polite:
            self._may_go_on()
            await self._park(box)
        incarnation.check_alive()
        item = box.take()
        if incarnation.spec.beat_within is not None:
            self.beat()
        if (faults := incarnation.keeper.tree.faults) is not None:
            await faults(Point.RECEIVE, self.path, self.epoch)
        return item

    def receive_nowait_batch(self, limit: int) -> list[Any]:
        self._incarnation.check_alive()
        return self._incarnation.record.box.drain(limit)

    def find(self, path: str) -> Ref:
        self._incarnation.check_alive()
        return self._incarnation.keeper.tree.handle.find(path)

    def supervisor(self, path: str) -> Handle:
        self._incarnation.check_alive()
        return self._incarnation.keeper.tree.handle.supervisor(path)

    async def _park(self, box: Box) -> None:
        life = self._incarnation
        if life.spec.beat_within is None:
            await box.park()
            return
        life.idle = True  # until the actor itself runs again, not only until somebody wakes it
        try:
            await box.park()
        finally:
            life.idle = False
            life.beat_at = trio.current_time()

    def _may_go_on(self) -> None:
        self._incarnation.check_alive()
        if self._incarnation.polite:
            raise Stopping(f"{self.path!r} has been asked to stop")
