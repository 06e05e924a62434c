"""The actor that tells all clients what concerns all of them.

Rules of this file: a notice is put into the mailbox, and its sender goes on. To tell ten thousand clients
takes a tenth of a second, so it is cut into pieces: the event loop turns in between.
"""

from __future__ import annotations

import trio

from dataflow.domain.notice import Notice
from supervisors import Context

from .clients import Clients

CLIENTS_AT_ONCE = 300  # between two checkpoints


class Herald:
    """One message is one notice, for everybody who is connected when its turn comes."""

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
