"""The actor that serves HTTP and lets WebSocket clients in, for all faces.

Rules of this file: it owns the listening socket and nothing else. A client's session is a child of the pool
beside it, so that a session that fails takes only its client with it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio
from attrs import evolve
from loguru import logger
from quart import Response

from actors.session import Wire, WireClosed
from dataflow.logs import Burst, often
from dataflow.server.connection import Report
from dataflow.server.handshake import Handshake
from dataflow.server.serve import serve
from dataflow.server.take_over import handshake_of, take_over
from supervisors import Context, Handle, SupervisionError

from .application import HttpProblem, create_app, mounted
from .face import Entrance, Route
from .hall import Hall
from .problems import Unavailable


class HttpServer:
    """The gateway's server. Its ready value is the list of addresses it is bound to."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def run(self, ctx: Context) -> None:
        hall, settings = self._hall, self._hall.settings.gateway
        hall.attach(ctx)
        self._root = ctx.supervisor("")
        shutdown = trio.Event()
        async with trio.open_nursery() as serving:
            addresses = await self._listen(serving, shutdown)
            async with trio.open_nursery() as self._nursery:
                hall.restart = self._restart
                self._nursery.start_soon(hall.lobby.admission.give_signs)
                ctx.ready(addresses)
                logger.bind(path=ctx.path).info("listening on {}/ (page, HTTP, WebSockets)", addresses[0])
                if hall.settings.operator.port is not None:
                    logger.bind(path=ctx.path).info("listening on {}/ for the operator", addresses[-1])
                await ctx.stopping.wait()
                # A restart of this very server must not wait for itself: its supervisor goes on with it.
                self._nursery.cancel_scope.cancel()
            hall.close()
            # A response without end would hold the server, and be cut off instead of ended.
            await hall.part_with_guests(settings.drain_seconds)
            shutdown.set()

    async def _listen(self, serving: trio.Nursery, shutdown: trio.Event) -> list[str]:
        """Serve in `serving`. The addresses: the clients' first, then the operator's own, if there is one."""
        hall, gateway, operator = self._hall, self._hall.settings.gateway, self._hall.settings.operator
        # Read anew with every start, so that a restart renews it too.
        serve_ = partial(self._serve, serving, shutdown, hall.lobby.certificate.start(gateway))
        routes = hall.routes()
        apart = operator.port is not None
        public = [_elsewhere(each) if apart and (each.operator or each.inside) else each for each in routes]
        addresses = await serve_(hall.quotas.has_reserve, gateway.host, hall.lobby.port, public)
        hall.lobby.port = urlsplit(addresses[0]).port or hall.lobby.port
        if apart:
            own = await serve_(_everybody, operator.host, hall.lobby.operator_port, routes)
            hall.lobby.operator_port = urlsplit(own[0]).port or hall.lobby.operator_port
            addresses += own
        return addresses

    async def _serve(
        self,
        serving: trio.Nursery,
        shutdown: trio.Event,
        tls: ssl.SSLContext | None,
        has_reserve: Callable[[str], bool],
        host: str,
        port: int,
        routes: Sequence[Route],
    ) -> list[str]:
        hall, settings = self._hall, self._hall.settings.gateway
        entrances = hall.entrances()
        root = settings.root_path
        app = create_app(routes, entrances, self._attend, hall.pages, hall.identity, hall.account)
        sockets = {
            evolve(each.socket, path=prefix + each.socket.path): partial(self._admit, each)
            for each in entrances
            if "<" not in each.socket.path  # Quart knows what to do with variables
            for prefix in {"", root}
        }
        checked = {
            prefix + each.socket.path: each
            for each in entrances
            if each.check is not None
            for prefix in {"", root}
        }

        def admits(client: Handshake) -> bool:
            entrance = checked.get(client.path)
            return hall.pages.admits(client) and (entrance is None or entrance.admits(client))

        addresses: list[str] = await serving.start(
            partial(
                serve,
                mounted(app, root),
                host=host,
                port=port,
                max_message_bytes=settings.max_message_bytes,
                graceful_seconds=settings.drain_seconds,
                deflate=settings.deflate,
                tls=tls,
                sockets=sockets,
                admits=admits,
                shutdown=shutdown,
                stats=hall.lobby.stats,
                most=hall.lobby.room.sessions + hall.lobby.room.connections,
                ceiling=hall.lobby.room.ceiling,
                waiting_per_address=lambda: hall.quotas.settings.waiting,
                is_exempt=hall.quotas.is_exempt,
                has_reserve=has_reserve,
                report=reporter("gateway"),
            )
        )
        return addresses

    def _restart(self, path: str) -> None:
        """Have the actor at `path` restarted by its supervisor; nobody waits for it here.

        Raises Unavailable while this server stops: then it could not see to it.
        """
        if self._nursery.cancel_scope.cancel_called:
            raise Unavailable("temporarily unavailable", problem="this server is just being restarted")
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
        if client.path == hall.settings.gateway.root_path + entrance.socket.path:
            client = evolve(client, path=entrance.socket.path)
        await hall.open_session(
            wire, lambda session: entrance.converse(session, client), client, entrance.manners
        )


def _everybody(_address: str) -> bool:
    """Who has a reserve at the operator's own listener: clients must not be able to keep the operator out."""
    return True


def _elsewhere(route: Route) -> Route:
    async def answer(**_variables: object) -> Response:
        raise HttpProblem(404, "Not Found", "this has a listener of the operator's own: [operator] port")

    return Route(route.path, answer, route.methods)


async def _restarted(handle: Handle, name: str) -> None:
    with suppress(SupervisionError):  # the outcome is reported and retried there: no reason to die here
        await handle.restart(name)


def reporter(listener: str) -> Report:
    """What a listener of this name does with the errors that its server has contained."""
    burst = Burst()

    def report(where: str, error: BaseException) -> None:
        if where != "accept":
            logger.debug("{}: contained in {}: {!r}", listener, where, error)
        elif times := burst.occurred(type(error).__name__, trio.current_time()):
            logger.warning("{}: no room for a new connection: {}{}", listener, error, often(times))

    return report
