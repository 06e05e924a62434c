"""The actor that measures how late the event loop is."""

from __future__ import annotations

from typing import Final

import trio

from dataflow.figures import Lag
from supervisors import Context

LOOK_EVERY: Final = 0.05  # seconds: a block of this length is always seen. Costs 0.1 % of a core


class LagProbe:
    """Sleeps for a moment, again and again, and keeps how late it woke: so long had everybody to wait."""

    def __init__(self, lag: Lag) -> None:
        self._lag = lag

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        while True:
            due = trio.current_time() + LOOK_EVERY
            await trio.sleep_until(due)
            now = trio.current_time()
            self._lag.add(now - due, now)
