"""The gateway's HTTP and WebSocket server: an ASGI application on Hypercorn's protocols, on Trio.

Rules of this file: it starts, counts and stops; what one connection may do is `server_connection`'s
matter. Hypercorn's parts are called, none is patched, so that several servers may live in one process and
the process is left as it was. Cancelled, it ends at once (`send_seconds` bound whoever is in the middle of a
send); asked by `shutdown`, it stops accepting, lets requests finish for `graceful_seconds`, and then ends.
Sessions that have detached are not its to end.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import repr_socket_addr, wrap_app
from quart import got_websocket_exception, websocket

from .server_connection import (
    SEAT,
    AsgiApp,
    Connection,
    Host,
    Report,
    ServerSeamError,
    ServerStats,
    Stream,
    check_seam,
)

__all__ = ["ServerSeamError", "ServerStats", "serve"]

Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]


def _ignore(where: str, error: BaseException) -> None:
    pass


async def serve(
    app: AsgiApp,
    *,
    host: str,
    port: int,
    max_message_bytes: int = 65536,
    graceful_seconds: float = 5.0,
    send_seconds: float = 5.0,
    keep_alive_seconds: float = 30.0,
    backlog: int = 1024,
    tls: ssl.SSLContext | None = None,
    shutdown: trio.Event | None = None,
    stats: ServerStats | None = None,
    report: Report = _ignore,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until `shutdown` is set; `task_status` gets the addresses, as "http://127.0.0.1:8080".

    A websocket message longer than `max_message_bytes` closes with 1009. A client that takes nothing for
    `send_seconds` in the middle of a send is cut off. `report(where, error)` gets every error that was
    contained; `stats` counts. Raises ServerSeamError, and OSError when the address is taken.
    """
    check_seam()
    config = _config(max_message_bytes, keep_alive_seconds)
    async with _listening(host, port, backlog, tls) as listeners, _lifespan(app, config) as state:
        shared = Host(app, config, WorkerContext(None), state, send_seconds, stats or ServerStats(), report)
        with got_websocket_exception.connected_to(_mark_failed):
            async with trio.open_nursery() as handlers:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(_accept, shared, listeners, handlers)
                    task_status.started([_address(listener) for listener in listeners])
                    await (trio.Event() if shutdown is None else shutdown).wait()
                    accepting.cancel_scope.cancel()
                await _finish(shared)
                handlers.cancel_scope.deadline = trio.current_time() + graceful_seconds


def _config(max_message_bytes: int, keep_alive_seconds: float) -> Config:
    config = Config()
    config.errorlog = None  # what goes wrong is reported, what is asked is not logged
    config.include_server_header = False
    config.websocket_max_message_size = max_message_bytes
    config.keep_alive_timeout = keep_alive_seconds
    return config


@asynccontextmanager
async def _lifespan(app: AsgiApp, config: Config) -> AsyncIterator[dict[str, Any]]:
    state: dict[str, Any] = {}
    wrapped: Any = app
    lifespan = Lifespan(wrap_app(wrapped, 0, "asgi"), config, state)
    async with trio.open_nursery() as nursery:
        await nursery.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        yield state
        await lifespan.wait_for_shutdown()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _listening(
    host: str, port: int, backlog: int, tls: ssl.SSLContext | None
) -> AsyncIterator[Sequence[Listener]]:
    plain = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    try:
        yield plain if tls is None else [trio.SSLListener(each, tls, https_compatible=True) for each in plain]
    finally:
        for each in plain:
            each.socket.close()


def _address(listener: Listener) -> str:
    if isinstance(listener, trio.SocketListener):
        return f"http://{_bound(listener)}"
    assert isinstance(listener.transport_listener, trio.SocketListener)
    return f"https://{_bound(listener.transport_listener)}"


def _bound(listener: trio.SocketListener) -> str:
    return repr_socket_addr(listener.socket.family, listener.socket.getsockname())


async def _accept(shared: Host, listeners: Any, handlers: trio.Nursery) -> None:
    async def handle(stream: Stream) -> None:
        await Connection(shared, stream).run()

    await trio.serve_listeners(handle, listeners, handler_nursery=handlers)


async def _finish(shared: Host) -> None:
    await shared.context.terminated.set()
    for connection in tuple(shared.connections):
        connection.finish_idle()


async def _mark_failed(app: object, exception: BaseException, **_: object) -> None:
    # Quart turns the failure of an accepted websocket into an orderly close, 1000: it must not look like one.
    seat = websocket.scope.get("state", {}).get(SEAT)
    if seat is not None:
        seat.failed = True
        seat.connection.host.fault("application", exception)
