"""Supervision for Trio: it keeps actors alive, stops them in order, and shows their state.

    class Greeter:
        async def run(self, ctx):
            ctx.ready()
            while True:
                ask = await ctx.receive()
                ask.reply(f"hello {ask.item}")

    async with open_supervisor(Supervisor([Child("greeter", Greeter)])) as tree:
        print(await tree.find("greeter").ask("world"))

A supervisor starts its children in order and restarts a crashed child after a backoff. Too many crashes
escalate to its own supervisor. It stops the children in reverse. This module exports everything public;
README.md explains it.
"""

from __future__ import annotations

from .actor import Actor, Child, Context, Handle, Pool, Supervisor
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
    TryAgain,
    UnknownChild,
    leaves,
)
from .events import Event, Exit, Fault, Node
from .last_words import say_at_once
from .mailbox import Ask, MailboxNode, Put
from .refs import Ref
from .runner import run
from .specs import Backoff, Limit, Mailbox, Overflow, Point, Restart, Strategy
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
    "Handle",
    "Limit",
    "Mailbox",
    "MailboxNode",
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
    "TryAgain",
    "UnknownChild",
    "leaves",
    "open_supervisor",
    "run",
    "say_at_once",
]
