"""What runs, and the handle it is given.

Rules of this file
- A Context is a capability: everything an actor may do to its tree goes through it, no globals, no
  contextvars.
- It belongs to one incarnation. Once that has ended, everything on it raises ActorGone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import trio

from .errors import Stopping
from .specs import Point

if TYPE_CHECKING:
    from .handle import Handle
    from .mailbox import Box
    from .record import Incarnation
    from .refs import Ref


class Actor(Protocol):
    """What a Child's `make` gives: it says `ctx.ready()` once it works, and returns to end."""

    async def run(self, ctx: Context, /) -> None: ...


class Context:
    """An actor's handle to the tree, for one incarnation."""

    __slots__ = ("_incarnation", "epoch", "path")

    def __init__(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self.path: str = incarnation.record.path
        self.epoch: int = incarnation.epoch

    @property
    def stopping(self) -> trio.Event:
        """Set when the actor should end by itself: finish what is in hand, then return."""
        return self._incarnation.stopping

    @property
    def ref(self) -> Ref:
        """The actor's own address."""
        return self._incarnation.record.ref

    def ready(self, value: Any = None) -> None:
        """The actor works from now on; `value` becomes `ref.value`. A second call only changes the value."""
        self._incarnation.check_alive()
        self._incarnation.keeper.said_ready(self._incarnation, value)

    def beat(self) -> None:
        """The actor makes progress, see `Child.beat_within`."""
        self._incarnation.check_alive()
        self._incarnation.beat_at = trio.current_time()

    def start_helper(self, help_: Callable[[], Awaitable[None]]) -> None:
        """Run `help_()` beside the actor, in a task which costs nothing before and after, as a nursery would.

        What it raises is a crash of the actor. It is cancelled when the actor has ended, and not before: who
        needs what it does waits for it.
        """
        self._incarnation.check_alive()
        self._incarnation.keeper.start_helper(self._incarnation, help_)

    async def receive(self) -> Any:
        """The next message. Raises Stopping once a stop has been asked for; what is queued stays.

        The message is in hand until the next receive, or the actor's return: should it crash before, it
        counts as lost.
        """
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
        """Up to `limit` messages that are waiting, without yielding; empty when none is. Also while stopping.

        Right after a `receive` the batch joins its message in hand; otherwise what was in hand counts as
        handled.
        """
        self._incarnation.check_alive()
        return self._incarnation.record.box.drain(limit)

    def find(self, path: str) -> Ref:
        """The address of any actor of the tree, by its path from the root. Raises UnknownChild."""
        self._incarnation.check_alive()
        return self._incarnation.keeper.tree.handle.find(path)

    def supervisor(self, path: str) -> Handle:
        """The handle of any supervisor of the tree, by its path from the root. Raises UnknownChild."""
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
