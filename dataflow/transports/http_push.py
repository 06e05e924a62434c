"""Producers push by HTTP requests: the actor that stands for such a source in the tree.

Rules of this file. The requests come through the gateway's own server, so nothing listens here. While this
actor runs the source is connected; the endpoint takes nothing while it is not.
"""

from __future__ import annotations

from typing import Final

import trio

from actors.connector import STOPPED
from dataflow.sources.intake import Intake
from dataflow.sources.state import SourceState
from supervisors import Context

LOOK_EVERY: Final = 10.0  # seconds between two looks at who has not pushed for long


class Door:
    """The actor of one source: open while it runs."""

    def __init__(self, source: SourceState, intake: Intake) -> None:
        self._source = source
        self._intake = intake

    async def run(self, ctx: Context) -> None:
        self._source.connecting()
        self._intake.up()
        ctx.ready()
        try:
            while not ctx.stopping.is_set():
                self._intake.forget_the_silent()
                with trio.move_on_after(LOOK_EVERY):
                    await ctx.stopping.wait()
        finally:
            self._source.down(STOPPED)
