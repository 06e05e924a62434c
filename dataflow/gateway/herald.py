"""The actor that tells a notice to all clients.

Rules of this file: a sender puts a notice into the mailbox and goes on. Telling ten thousand clients takes a
tenth of a second. So the work is cut into pieces, and the event loop turns between them.
"""

from __future__ import annotations

import trio

from dataflow.domain.notice import Notice
from supervisors import Context

from .clients import Clients

CLIENTS_AT_ONCE = 300  # between two checkpoints


class Herald:
    """A message is a notice, for all clients that are connected when its turn comes."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def run(self, ctx: Context) -> None:
        self._clients.attach(ctx.ref)
        ctx.ready()
        while True:
            await self._tell(await ctx.receive())
            ctx.beat()

    async def _tell(self, notice: Notice) -> None:
        for told, session in enumerate(self._clients, start=1):
            session.tell(notice)
            if told % CLIENTS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
