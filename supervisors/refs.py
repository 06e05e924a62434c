"""The address of an actor. It stays the same when the actor, or a supervisor above it, restarts."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from .errors import ActorGone
from .events import Exit
from .mailbox import Box, Put
from .promise import Promise


class Addressee(Protocol):
    """The part of a record that a Ref reads. A Protocol, so that a Ref does not depend on the machine."""

    path: str
    value: Any
    epoch: int
    state: str
    box: Box

    @property
    def gone(self) -> bool: ...

    @property
    def ended(self) -> Promise[Exit]: ...


class Ref:
    """The address of one child. It survives the restarts of the child. Every property is a cheap read."""

    __slots__ = ("__weakref__", "_record")

    def __init__(self, record: Addressee) -> None:
        self._record = record

    def __repr__(self) -> str:
        return f"<Ref {self.path!r} {self.state} epoch {self.epoch}>"

    def put(self, item: Any) -> Put:
        """Leave a message without waiting. DROPPED: a full or closed mailbox refused and counted it."""
        return self._record.box.put(item)

    async def send(self, item: Any) -> Put:
        """Leave a message. Under Overflow.BLOCK wait for room, also while the actor is down but will be back.

        Raises ActorGone when the actor has ended for good.
        """
        await trio.lowlevel.checkpoint()
        return await self._record.box.send(item)

    async def ask(self, item: Any, within: float = 1.0) -> Any:
        """Leave a message as an Ask and return the reply.

        Raises ActorGone as soon as the actor ends before it replied, and trio.TooSlowError after `within`
        seconds or when the mailbox drops the question.
        """
        if self._record.gone:
            await trio.lowlevel.checkpoint()
            raise ActorGone(f"{self.path!r} has ended")
        return await self._record.box.ask(item, within)

    async def watch(self) -> Exit:
        """Wait until the child ends for good; at once when it has. A restart is no end; `stop(id)` is one."""
        return await self._record.ended.get()

    @property
    def path(self) -> str:
        """Ids from the root, joined by "/"."""
        return self._record.path

    @property
    def value(self) -> Any:
        """The value that the newest incarnation gave to `ready`."""
        return self._record.value

    @property
    def epoch(self) -> int:
        """The number of the newest incarnation, 0 before the first."""
        return self._record.epoch

    @property
    def state(self) -> str:
        """idle, starting, running, backoff, stopping or done."""
        return self._record.state

    @property
    def alive(self) -> bool:
        """True unless the child has ended for good."""
        return not self._record.gone
