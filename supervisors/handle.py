"""The handle of a supervisor: the class behind `actor.Handle`, whose docstrings apply.

Rules of this file
- A handle stays valid over the restarts of its supervisor. While the supervisor is down, calls raise
  ActorGone, or Stopping when the tree ends.
- The supervisor's own tasks carry out an accepted call, so it is done even if the caller is cancelled
  meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import trio

from .actor import Child, Handle
from .engine import Engine
from .errors import ActorGone, Stopping, UnknownChild
from .events import Node
from .record import Record
from .refs import Ref

if TYPE_CHECKING:
    from .tree import Tree

__all__ = ["Handle", "TreeHandle"]


class TreeHandle(Handle):
    """A Handle at work: a record of a tree."""

    __slots__ = ("_record", "_tree")

    def __init__(self, tree: Tree, record: Record) -> None:
        self._tree = tree
        self._record = record

    async def start(self, child: Child) -> Ref:
        engine = self._engine
        promise = engine.start_child(child)
        record = engine.get(str(child.id))
        await engine.started(record, promise)
        await promise.get()
        return record.ref

    async def stop(self, id: Hashable) -> None:
        life = self._engine.stop_child(str(id))
        if life is None:
            await trio.lowlevel.checkpoint()
        else:
            await life.down.wait()

    async def restart(self, id: Hashable) -> Ref:
        engine = self._engine
        promise = engine.restart_child(str(id))
        record = engine.get(str(id))
        await engine.started(record, promise)
        await promise.get()
        return record.ref

    def remove(self, id: Hashable) -> None:
        self._engine.remove_child(str(id))

    def replace(self, child: Child) -> None:
        self._engine.replace_child(child)

    def tree(self, *, dynamic: bool = True) -> Node:
        return self._record.node(dynamic)

    def counts(self) -> dict[str, int]:
        return {**(self._record.tally or {}), "total": len(self._record.children)}

    def find(self, path: str) -> Ref:
        return self._walk(path).ref

    def supervisor(self, path: str) -> Handle:
        record = self._walk(path)
        if record.kind == "actor" and record.epoch:
            raise UnknownChild(f"{record.path!r} is no supervisor")
        return TreeHandle(self._tree, record)

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
