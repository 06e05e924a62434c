"""Faults at random, as `[chaos] faults_per_minute` asks for: a daemon that is never left in peace.

Rules of this file. What to break is chosen purely, from the living tree and seeded dice; `Faults` breaks it.
Spared are the supervisors, the server and whatever is not the daemon's own: only what comes back by itself,
or takes one client with it, is struck. What has not struck for long is withdrawn, so that quiet corners do
not fill the list.
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

from .registry import CONNECTOR, READER, SESSION, Faults, Kind, TooManyFaults, place_of

_TARGETS: Final = (READER, CONNECTOR, SESSION)
_PENDING: Final = 16  # faults of the schedule in force at once; one more withdraws the oldest
_DELAYS: Final = (0.05, 2.0)  # seconds


@frozen
class Plan:
    """A fault to inject, at the usual point of what is at `path`."""

    path: str
    kind: Kind
    seconds: float | None


def choose(tree: Node, rng: random.Random) -> Plan | None:
    """What to break next, None when nothing runs that may be broken.

    First the sort of actor, then one of it, then how: a crowd of sessions does not shield the shards.
    """
    sorts = [paths for place in _TARGETS if (paths := [p for p in _running(tree) if place_of(p) is place])]
    if not sorts:
        return None
    path = rng.choice(rng.choice(sorts))
    place = place_of(path)
    kind = rng.choice(place.kinds[place.usual])
    return Plan(path, kind, round(rng.uniform(*_DELAYS), 3) if kind is Kind.DELAY else None)


class RandomFaults:
    """The actor that injects them, at intervals that are exponentially distributed."""

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

    def _inject(self, plan: Plan | None) -> None:
        if plan is None:
            return
        self._make_room()
        try:
            fault = self._faults.inject(plan.path, plan.kind, seconds=plan.seconds)
        except TooManyFaults as error:
            logger.bind(path=CHAOS).info("no random fault: {}", error)
        else:
            self._pending.append(fault.id)

    def _make_room(self) -> None:
        in_force = {fault.id for fault in self._faults.active()}
        self._pending = deque(id for id in self._pending if id in in_force)
        while len(self._pending) >= _PENDING:
            self._faults.withdraw(self._pending.popleft())


def _running(node: Node) -> Iterator[str]:
    if node.kind == "actor" and node.state == "running":
        yield node.path
    for child in node.children:
        yield from _running(child)
