"""The actor that serves HTTP and lets WebSocket clients in, for all faces.

Rules of this file: it owns the listening socket and nothing else. A client's session is a child of the pool
beside it, so that a session that fails takes only its client with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio
from loguru import logger

from actors.session import Wire, WireClosed
from dataflow.server.handshake import Handshake
from dataflow.server.serve import serve
from dataflow.server.take_over import handshake_of, take_over
from supervisors import Context, Handle, SupervisionError

from .application import create_app
from .certificates import configured_context
from .face import Entrance, Face
from .hall import Hall


class HttpServer:
    """The gateway's server. Its ready value is the list of addresses it is bound to."""

    def __init__(self, hall: Hall, faces: Sequence[Face]) -> None:
        self._hall = hall
        self._faces = faces

    async def run(self, ctx: Context) -> None:
        hall, settings = self._hall, self._hall.settings.gateway
        hall.attach(ctx)
        self._root = ctx.supervisor("")
        entrances = [entrance for face in self._faces for entrance in face.sockets(hall)]
        routes = [route for face in self._faces for route in face.routes(hall)]
        shutdown = trio.Event()
        async with trio.open_nursery() as serving:
            addresses = await serving.start(
                partial(
                    serve,
                    create_app(routes, entrances, self._attend),
                    host=settings.host,
                    port=hall.lobby.port,
                    max_message_bytes=settings.max_message_bytes,
                    graceful_seconds=settings.drain_seconds,
                    tls=configured_context(settings),  # read anew with every start: certificates are renewed
                    sockets={each.socket: partial(self._admit, each) for each in entrances},
                    shutdown=shutdown,
                    report=_report,
                )
            )
            hall.lobby.port = urlsplit(addresses[0]).port or hall.lobby.port
            async with trio.open_nursery() as self._nursery:
                hall.restart = self._restart
                self._nursery.start_soon(hall.lobby.admission.give_signs)
                ctx.ready(addresses)
                logger.bind(path=ctx.path).info("listening on {}/ (page, HTTP, WebSockets)", addresses[0])
                await ctx.stopping.wait()
                # A restart of this very server must not wait for itself: its supervisor goes on with it.
                self._nursery.cancel_scope.cancel()
            # A response without end would hold the server, and be cut off instead of ended.
            await hall.part_with_guests(settings.drain_seconds)
            shutdown.set()

    def _restart(self, path: str) -> None:
        """Have the actor at `path` restarted by its supervisor; nobody waits for it here."""
        parent, _, name = path.rpartition("/")
        self._nursery.start_soon(_restarted, self._root.supervisor(parent), name)

    async def _attend(self, connection: Any, entrance: Entrance) -> None:
        """A client that comes in through Quart."""
        with suppress(WireClosed):
            limit = self._hall.settings.gateway.max_message_bytes
            async with take_over(connection, entrance.socket, max_message_bytes=limit) as wire:
                await self._admit(entrance, wire, handshake_of(connection, entrance.socket))

    async def _admit(self, entrance: Entrance, wire: Wire[Any, Any], client: Handshake) -> None:
        hall = self._hall
        await hall.open_session(
            wire,
            lambda session: entrance.converse(session, client),
            hall.identify(client),
            agent=client.header("user-agent"),
        )


async def _restarted(handle: Handle, name: str) -> None:
    with suppress(SupervisionError):  # the outcome is reported and retried there: no reason to die here
        await handle.restart(name)


def _report(where: str, error: BaseException) -> None:
    logger.debug("gateway: contained in {}: {!r}", where, error)
