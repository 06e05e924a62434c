"""Actors that obey a test and log their lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
import trio.testing
from attrs import define, field

from supervisors import Backoff, Child, Context, Event, Restart

NOW = Backoff(first=0.0)  # restart at once
SOON = Backoff(first=1.0, factor=2.0, cap=8.0, jitter=0.0)

Life = Callable[[Context], Any]


class Boom(Exception):
    """The crash of a test."""


@define
class Log:
    """A log in order: lines of (what, path), and events."""

    lines: list[tuple[str, str]] = field(factory=list)
    events: list[Event] = field(factory=list)

    def __call__(self, what: str, path: str) -> None:
        self.lines.append((what, path))

    def hook(self, event: Event) -> None:
        """A hook for `on_event`."""
        self.events.append(event)

    def of(self, what: str) -> list[str]:
        """The paths of all lines with this `what`, in order."""
        return [path for said, path in self.lines if said == what]

    def kinds(self, path: str | None = None) -> list[str]:
        """The kinds of events, of one path or of all."""
        return [event.kind for event in self.events if path in (None, event.path)]

    def seen(self, kind: str) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if event.kind == kind]

    def clear(self) -> None:
        """Forget all lines and events so far."""
        self.lines.clear()
        self.events.clear()


@define
class Worker:
    """Obeys its messages: "crash", "return", "hang", an exception to raise, or a function of its Context to await."""

    log: Log = field(factory=Log)

    async def run(self, ctx: Context) -> None:
        self.log("start", ctx.path)
        try:
            ctx.ready()
            while True:
                message = await ctx.receive()
                if message == "return":
                    return
                await self.obey(ctx, message)
        finally:
            self.log("end", ctx.path)

    async def obey(self, ctx: Context, message: Any) -> None:
        if message == "crash":
            raise Boom(ctx.path)
        if message == "hang":
            await trio.sleep_forever()
        if isinstance(message, BaseException):
            raise message
        if callable(message):
            await message(ctx)


@define
class Scripted:
    """An actor whose life is one function."""

    life: Life

    async def run(self, ctx: Context) -> None:
        await self.life(ctx)


def child(id: str, log: Log | None = None, **settings: Any) -> Child:
    """A Worker that restarts at once."""
    log = log or Log()
    return Child(id, lambda: Worker(log), **{"backoff": NOW, **settings})


def scripted(id: str, life: Life, **settings: Any) -> Child:
    """A child that runs `life` in every incarnation."""
    return Child(id, lambda: Scripted(life), **{"backoff": NOW, **settings})


def flaky(id: str, fails: list[bool], log: Log | None = None, **settings: Any) -> Child:
    """A Worker. Its n-th incarnation fails to start if `fails[n]` is true; all later ones start."""

    def make() -> Worker:
        if fails and fails.pop(0):
            raise Boom("make")
        return Worker(log or Log())

    return Child(id, make, **{"backoff": NOW, **settings})


async def settle() -> None:
    """Wait until every task is blocked."""
    await trio.testing.wait_all_tasks_blocked()


TEMPORARY, TRANSIENT, PERMANENT = Restart.TEMPORARY, Restart.TRANSIENT, Restart.PERMANENT
