"""Supervision for Trio: actors that are kept alive, stopped in order, and seen.

    class Greeter:
        async def run(self, ctx):
            ctx.ready()
            while True:
                ask = await ctx.receive()
                ask.reply(f"hello {ask.item}")

    async with open_supervisor(Supervisor([Child("greeter", Greeter)])) as tree:
        print(await tree.find("greeter").ask("world"))

A supervisor starts its children in order, restarts those that crash after a backoff, escalates when that
happens too often, and stops them in reverse. Everything public is what this module exports; the type of the
handle that `open_supervisor` yields is `supervisors.handle.Handle`.
"""

from __future__ import annotations

from .context import Actor, Context
from .errors import (
    ActorGone,
    AlreadyPresent,
    AlreadyRunning,
    BadSpec,
    PoolFull,
    RestartLimitReached,
    StartFailed,
    Stopping,
    SupervisionError,
    UnknownChild,
)
from .events import Event, Exit, Fault, Node
from .mailbox import Ask, Put
from .refs import Ref
from .runner import run
from .specs import Backoff, Child, Limit, Mailbox, Overflow, Point, Pool, Restart, Strategy, Supervisor
from .tree import open_supervisor

__all__ = [
    "Actor",
    "ActorGone",
    "AlreadyPresent",
    "AlreadyRunning",
    "Ask",
    "Backoff",
    "BadSpec",
    "Child",
    "Context",
    "Event",
    "Exit",
    "Fault",
    "Limit",
    "Mailbox",
    "Node",
    "Overflow",
    "Point",
    "Pool",
    "PoolFull",
    "Put",
    "Ref",
    "Restart",
    "RestartLimitReached",
    "StartFailed",
    "Stopping",
    "Strategy",
    "SupervisionError",
    "Supervisor",
    "UnknownChild",
    "open_supervisor",
    "run",
]
