"""The actor that listens for gRPC: our own server of HTTP/2, without TLS.

Rules of this file: it owns the listening socket. Each call is a task of its connection; a stream of
aggregates is a session besides, like that of every face.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import trio
from attrs import define
from loguru import logger

from dataflow.domain.errors import ConfigError
from dataflow.gateway.hall import Hall
from dataflow.gateway.host import reporter
from dataflow.net.listening import why_refused
from dataflow.server.http2 import Http2
from dataflow.server.serve import serve
from supervisors import Context

from .calls import Calls, Service
from .health import Health
from .marketdata import MarketData
from .reflection import Reflection

STREAMS: Final = 1000  # at once, on one connection
WINDOW_BYTES: Final = 1 << 20  # that wait for the shards, of all streams of a connection together
SHORTEST_TICK: Final = 29  # bytes: a message of data has more, so a shorter piece is no honest one
IDLE_SECONDS: Final = 300.0  # for which a connection without a call may stay


@define
class Place:
    """Where it listens. Port 0 means any port; the real one is written here, so that a restart keeps it."""

    host: str
    port: int


class Listener:
    """Its ready value is the address that it is bound to, such as "127.0.0.1:50051"."""

    def __init__(self, hall: Hall, place: Place) -> None:
        self._hall = hall
        self._place = place

    async def run(self, ctx: Context) -> None:
        hall = self._hall
        hall.attach(ctx)
        shutdown, health = trio.Event(), Health(hall)
        services: tuple[Service, ...] = (MarketData(hall), health)
        calls = Calls(hall, (*services, Reflection(services)))
        async with trio.open_nursery() as serving:
            address = await self._listen(serving, calls, shutdown)
            ctx.ready(address)
            logger.bind(path=ctx.path).info("listening on {} for gRPC", address)
            async with trio.open_nursery() as watching:
                watching.start_soon(health.watch)
                await ctx.stopping.wait()
                watching.cancel_scope.cancel()
            shutdown.set()
            await health.stop()
            calls.stop()

    async def _listen(self, serving: trio.Nursery, calls: Calls, shutdown: trio.Event) -> str:
        hall, place = self._hall, self._place
        session, room = hall.settings.session, hall.lobby.room
        serve_ = partial(
            serve,
            calls,
            host=place.host,
            port=place.port,
            graceful_seconds=hall.settings.gateway.drain_seconds,
            keep_alive_seconds=IDLE_SECONDS,
            http2=Http2(
                STREAMS,
                WINDOW_BYTES,
                SHORTEST_TICK,
                math.inf,  # a slow reader costs a bounded buffer; one that has vanished answers no ping
                (session.ping_interval, session.ping_timeout),
            ),
            shutdown=shutdown,
            most=room.connections,
            ceiling=room.ceiling,
            waiting_per_address=lambda: hall.quotas.settings.waiting,
            is_exempt=hall.quotas.is_exempt,
            has_reserve=hall.quotas.has_reserve,
            report=reporter("grpc"),
        )
        try:
            addresses: list[str] = await serving.start(serve_)
        except OSError as error:
            why = why_refused(error, "[faces.grpc] host", "[faces.grpc] port")
            raise ConfigError([f"cannot listen on {place.host}:{place.port}: {why}"]) from error
        bound = urlsplit(addresses[0])
        place.port = bound.port or place.port
        return bound.netloc
