"""The actor that tells a notice to all clients.

Rules of this file: a sender puts a notice into the mailbox and goes on. Telling ten thousand clients takes a
tenth of a second. So the work is cut into pieces, and the event loop turns between them. What concerns one
stream is told to those who follow it.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from dataflow.domain import Topic
from dataflow.domain.notice import Notice, StreamSwitched
from dataflow.domain.symbols import ANY
from supervisors import Context

from .clients import NEWS, AnySession, Clients

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
        news: Sequence[Notice] = self._clients.take_news() if notice is NEWS else (notice,)
        for told, session in enumerate(self._clients if news else (), start=1):
            session.tell(*[each for each in news if _concerns(session, each)])
            if told % max(1, CLIENTS_AT_ONCE // len(news)) == 0:
                await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()


def _concerns(session: AnySession, notice: Notice) -> bool:
    if not isinstance(notice, StreamSwitched):
        return True
    topic = Topic(notice.channel, notice.symbol)
    return topic in session.lanes or topic.of(ANY) in session.lanes
