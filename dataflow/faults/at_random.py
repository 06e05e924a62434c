"""Random faults at a constant rate, as `[chaos] faults_per_minute` configures.

Rules of this file. `choose` is pure: the running tree and a seeded generator decide. `Faults` injects the
fault. Supervisors, the HTTP server and actors that are not the daemon's own are never hit: only actors that
come back by themselves, sources (one of whose connections it strikes), and sessions, which take one client
with them. A fault that has not struck for long is withdrawn, so that faults at quiet actors do not fill the
list.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import trio
from attrs import frozen
from loguru import logger

from dataflow.paths import CHAOS
from supervisors import Context, Node

from .registry import CONNECTOR, READER, SESSION, Faults, Kind, TooManyFaults, actor_type

_TARGETS: Final = (READER, CONNECTOR, SESSION)
_PENDING: Final = 16  # random faults in force at once; one more withdraws the oldest
_DELAYS: Final = (0.05, 2.0)  # seconds


@frozen
class RandomFault:
    """A fault to inject, at the usual point of the actor at `path`."""

    path: str
    kind: Kind
    seconds: float | None


def choose(tree: Node, rng: random.Random) -> RandomFault | None:
    """The next fault; None when no possible target runs.

    The actor type is drawn first, then an actor of this type, then the kind of fault. Otherwise thousands of
    sessions would shield the shards.
    """
    running = list(_running(tree))
    by_type = [[path for path in running if actor_type(path) is each] for each in _TARGETS]
    possible = [paths for paths in by_type if paths]
    if not possible:
        return None
    path = rng.choice(rng.choice(possible))
    actor = actor_type(path)
    kind = rng.choice(actor.kinds[actor.usual])
    return RandomFault(path, kind, round(rng.uniform(*_DELAYS), 3) if kind is Kind.DELAY else None)


class RandomFaults:
    """The actor that injects random faults, at exponentially distributed intervals."""

    def __init__(self, faults: Faults, per_minute: float, rng: random.Random) -> None:
        self._faults = faults
        self._per_second = per_minute / 60
        self._rng = rng
        self._pending: deque[int] = deque()

    async def run(self, ctx: Context) -> None:
        look: Callable[[], Node] = ctx.supervisor("").tree
        ctx.ready()
        while not ctx.stopping.is_set():
            with trio.move_on_after(self._rng.expovariate(self._per_second)):
                await ctx.stopping.wait()
                return
            self._inject(choose(look(), self._rng))

    def _inject(self, fault: RandomFault | None) -> None:
        if fault is None:
            return
        self._make_room()
        try:
            injected = self._faults.inject(fault.path, fault.kind, seconds=fault.seconds)
        except TooManyFaults as error:
            logger.bind(path=CHAOS).info("no random fault: {}", error)
        else:
            self._pending.append(injected.id)

    def _make_room(self) -> None:
        in_force = {fault.id for fault in self._faults.active()}
        self._pending = deque(id for id in self._pending if id in in_force)
        while len(self._pending) >= _PENDING:
            self._faults.withdraw(self._pending.popleft())


def _running(node: Node) -> Iterator[str]:
    if node.state == "running" and (node.kind == "actor" or actor_type(node.path) is CONNECTOR):
        yield node.path
    for child in node.children:
        yield from _running(child)
