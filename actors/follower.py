"""Keeps something that is made of logs up to date, though nobody asks for it.

Rules of this file. The work, and the position up to which it is done, are in the sink, which outlives the
actor: a new incarnation goes on where the last one was. Nothing is lost with a wake-up either, because the
actor looks at least every so many seconds. It reads in large runs, which cost least: it is woken before that
only when something is urgent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import trio

from supervisors import Context


class Sink(Protocol):
    """A product of logs: it knows them, and how far it has read each."""

    def follow(self, wake: Callable[[], object]) -> None:
        """From now on `wake()` is called when `advance` is urgent. Never waits."""

    def advance(self) -> bool:
        """Read a part of what is unread: some milliseconds of work. Returns whether there is more.

        An exception must leave the position where the work is done.
        """


class Follower:
    """The actor of one sink. Any message means that it is urgent. It looks every `interval` seconds.

    `begin()` brings the sink where it was before the process began. Each incarnation calls it before it is
    ready, so that later actors find the sink whole.
    """

    def __init__(
        self, sink: Sink, interval: float, begin: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self._sink = sink
        self._interval = interval
        self._begin = begin

    async def run(self, ctx: Context) -> None:
        if self._begin is not None:
            await self._begin()
        self._sink.follow(partial(ctx.ref.put, "urgent"))
        ctx.ready()
        while True:
            while self._sink.advance():
                ctx.beat()
                await trio.lowlevel.checkpoint()
            ctx.beat()
            with trio.move_on_after(self._interval):
                await ctx.receive()
