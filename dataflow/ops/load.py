"""The actor that looks once a second how much there is to do."""

from __future__ import annotations

import trio

from dataflow.gateway.load import Load
from supervisors import Context


class LoadProbe:
    """Has `load` look again and again. What it has seen is kept there, so a new incarnation goes on."""

    def __init__(self, load: Load) -> None:
        self._load = load

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        while True:
            await trio.sleep_until(self._load.due)
            await self._load.look()
