"""The handle of a supervisor: what an operator, or an actor, does to its children.

Rules of this file
- A handle stays valid over the restarts of its supervisor. While that is down, calls raise ActorGone, and
  Stopping when it ends.
- What a call has accepted is carried out by the supervisor's own tasks, even when the caller is cancelled
  meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import trio

from .engine import Engine
from .errors import ActorGone, Stopping, UnknownChild
from .events import Node
from .record import Record
from .refs import Ref
from .specs import Child

if TYPE_CHECKING:
    from .tree import Tree


class Handle:
    """A supervisor from outside. Paths are relative to it: ids joined by "/"; the empty path is itself."""

    __slots__ = ("_record", "_tree")

    def __init__(self, tree: Tree, record: Record) -> None:
        self._tree = tree
        self._record = record

    async def start(self, child: Child) -> Ref:
        """Add a child and return its address once it is ready, or has declined.

        Raises StartFailed (nothing is kept then), AlreadyRunning, AlreadyPresent, PoolFull, BadSpec,
        Stopping.
        """
        engine = self._engine
        promise = engine.start_child(child)
        record = engine.get(str(child.id))
        await engine.started(record, promise)
        await promise.get()
        return record.ref

    async def stop(self, id: Hashable) -> None:
        """Stop a child and keep its spec as done; a temporary or a Pool's child leaves none. Idempotent.

        Returns when it has ended or was reported as unstopped; never raises its errors. Raises UnknownChild.
        """
        life = self._engine.stop_child(str(id))
        if life is None:
            await trio.lowlevel.checkpoint()
        else:
            await life.down.wait()

    async def restart(self, id: Hashable) -> Ref:
        """Stop a child if it runs, start it without delay or charge, return its address once it is ready.

        A child that is just starting is not started twice. Raises StartFailed (a child that was up is retried
        then), UnknownChild, Stopping, and ActorGone when a later `stop` overtakes.
        """
        engine = self._engine
        promise = engine.restart_child(str(id))
        record = engine.get(str(id))
        await engine.started(record, promise)
        await promise.get()
        return record.ref

    def remove(self, id: Hashable) -> None:
        """Forget a child that is done or idle. Raises AlreadyRunning in any other state, UnknownChild."""
        self._engine.remove_child(str(id))

    def replace(self, child: Child) -> None:
        """Use this spec for the child of its id from its next incarnation on; UnknownChild, BadSpec."""
        self._engine.replace_child(child)

    def tree(self, *, dynamic: bool = True) -> Node:
        """This supervisor and everything below it, as plain data.

        Without `dynamic` the children of pools are left out: as quick with 10,000 of them as with none.
        """
        return self._record.node(dynamic)

    def counts(self) -> dict[str, int]:
        """How many direct children are in each of the six states, and the `total`. O(1)."""
        return {**(self._record.tally or {}), "total": len(self._record.children)}

    def find(self, path: str) -> Ref:
        """The address of the child at `path`. Raises UnknownChild."""
        return self._walk(path).ref

    def supervisor(self, path: str) -> Handle:
        """The handle of the supervisor at `path`. Raises UnknownChild."""
        record = self._walk(path)
        if record.kind == "actor" and record.epoch:
            raise UnknownChild(f"{record.path!r} is no supervisor")
        return Handle(self._tree, record)

    def _walk(self, path: str) -> Record:
        record = self._record
        for name in path.split("/") if path else ():
            if name not in record.children:
                raise UnknownChild(f"{record.path!r} has no child {name!r}, looking for {path!r}")
            record = record.children[name]
        return record

    @property
    def _engine(self) -> Engine:
        if self._record.engine is not None:
            return self._record.engine
        if self._tree.closing:
            raise Stopping("the supervision tree ends")
        raise ActorGone(f"supervisor {self._record.path!r} is {self._record.state}")
