"""The HTTP and WebSocket server: an ASGI application on Hypercorn's protocols, on Trio.

Rules of this file: it starts, accepts, counts and stops. `connection.py` decides for one connection,
`accepting.py` for those that wait for a request. Hypercorn's parts are called and never patched. So several
servers may live in one process, and they leave the process as it was. Two ways to end it: a cancellation ends
it at once (`send_seconds` bound a send that is under way); `shutdown` stops accepting, lets requests finish
for `graceful_seconds`, and then ends it. It does not end sessions that have detached.
"""

from __future__ import annotations

import errno
import math
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import repr_socket_addr, wrap_app
from quart import got_websocket_exception, websocket

from dataflow.net.tls import TlsSocket

from .accepting import Doorway, WaitingRoom
from .connection import SEAT, AsgiApp, Connection, OnWebSocket, Report, ServerStats, Shared, ShortWay
from .handshake import MAX_HEAD, Admits, Door, Socket
from .http2 import USUAL, Http2
from .hypercorn import ServerSeamError, check_seam
from .refusals import Refusal

__all__ = ["ServerSeamError", "ServerStats", "serve"]

ACCEPTS_AT_ONCE = 64  # from one listening socket, before others have their turn
LET_IN_AT_ONCE = 8  # of those whose request, or handshake of TLS, is here
NO_DESCRIPTOR_SECONDS = 0.1
LOOK_AGAIN_SECONDS = 0.02  # for room, while others still have their time
RESERVE = 8  # connections and descriptors beyond the bounds, so that the operator gets in
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


_FULL = Refusal(503, "there is no room for another connection, try again later", ((b"Retry-After", b"5"),))


class NoRoomError(Exception):
    """As many connections as there is room for have a request in hand; a further client was sent away."""


def _ignore(where: str, error: BaseException) -> None:
    pass


def _nobody(address: str) -> bool:
    return False


async def serve(
    app: AsgiApp,
    *,
    host: str,
    port: int,
    max_message_bytes: int = 65536,
    graceful_seconds: float = 5.0,
    send_seconds: float = 5.0,
    keep_alive_seconds: float = 30.0,
    backlog: int = 4096,
    most: int = 4096,
    ceiling: float = math.inf,
    waiting_per_address: Callable[[], int] = lambda: 256,
    is_exempt: Callable[[str], bool] = _nobody,
    has_reserve: Callable[[str], bool] = _nobody,
    http2: Http2 = USUAL,
    deflate: bool = False,
    tls: ssl.SSLContext | None = None,
    sockets: Mapping[Socket, OnWebSocket] | None = None,
    admits: Admits | None = None,
    shutdown: trio.Event | None = None,
    stats: ServerStats | None = None,
    report: Report = _ignore,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until `shutdown` is set. `task_status` gets the addresses, such as "http://127.0.0.1:8080".

    A websocket message longer than `max_message_bytes` closes with 1009. A client that takes nothing for
    `send_seconds` in the middle of a send is cut off. `report(where, error)` gets every contained error, and
    `stats` counts. Raises ServerSeamError; OSError when the address is taken; ValueError for a wrong `tls`.

    The server holds at most `most` connections (those that have detached do not count), and none with a
    descriptor of `ceiling` or above: the lowest free descriptor is always taken, so the number says how many
    are left. A client beyond either bound takes the place of the connection that waits longest without a
    request. If all have a request, it is sent away with 503. Of one address at most `waiting_per_address()`
    wait without a request, unless `is_exempt(address)`. With `has_reserve(address)` it has a few places more.

    `http2`: what one connection of HTTP/2 may have. `deflate`: compress messages for clients that offer it
    and get a socket of their own.

    With `tls`, a context of `net.tls`, everything is encrypted.

    `sockets`: a proper WebSocket handshake over HTTP/1.1 for one of these paths does not reach `app`. Its
    handler gets the open wire and the handshake, and owns the wire. If it raises, the client is told 1011.
    Improper handshakes and HTTP/2 stay with `app`, and so does a client that `admits` has a doubt about.
    """
    check_seam()
    if tls is not None and tls.sslsocket_class is not TlsSocket:
        raise ValueError("a context of `net.tls` is needed")
    config = _config(max_message_bytes, keep_alive_seconds, http2.streams)
    stats = stats or ServerStats()
    async with _listening(host, port, backlog) as listeners, _lifespan(app, config) as state:
        shared = Shared(
            app,
            config,
            WorkerContext(None),
            state,
            send_seconds,
            stats,
            report,
            WaitingRoom(waiting_per_address, is_exempt, stats.dismissed),
            Doorway(LET_IN_AT_ONCE),
            has_reserve,
            most,
            ceiling,
            http2,
            deflate,
            tls,
            _short_way(sockets, admits, deflate) if sockets else None,
        )
        with got_websocket_exception.connected_to(_mark_failed):
            async with trio.open_nursery() as handlers:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(_accept, shared, listener, handlers)
                    task_status.started([_address(listener, tls) for listener in listeners])
                    await (trio.Event() if shutdown is None else shutdown).wait()
                    accepting.cancel_scope.cancel()
                await _finish(shared)
                handlers.cancel_scope.deadline = trio.current_time() + graceful_seconds


def _short_way(sockets: Mapping[Socket, OnWebSocket], admits: Admits | None, deflate: bool) -> ShortWay:
    door = Door(sockets, admits, deflate=deflate)
    return ShortWay(door, {socket.path: handler for socket, handler in sockets.items()})


def _config(max_message_bytes: int, keep_alive_seconds: float, streams: int) -> Config:
    config = Config()
    config.errorlog = None  # errors are reported, requests are not logged
    config.include_server_header = False
    config.websocket_max_message_size = max_message_bytes
    config.keep_alive_timeout = keep_alive_seconds
    config.h2_max_concurrent_streams = streams
    # Over HTTP/2 the request behind the last one would end all streams that are open.
    config.keep_alive_max_requests = sys.maxsize
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
async def _listening(host: str, port: int, backlog: int) -> AsyncIterator[list[socket.socket]]:
    bound = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    listeners = [socket.socket(fileno=each.socket.detach()) for each in bound]
    try:
        yield listeners
    finally:
        for each in listeners:
            trio.lowlevel.notify_closing(each)
            each.close()


def _address(listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    bound = repr_socket_addr(listener.family, listener.getsockname())
    return f"{'http' if tls is None else 'https'}://{bound}"


async def _accept(shared: Shared, listener: socket.socket, handlers: trio.Nursery) -> None:
    while True:
        await trio.lowlevel.wait_readable(listener)
        for _ in range(ACCEPTS_AT_ONCE):
            while shared.doorway.is_crowded:
                await trio.lowlevel.checkpoint()
            try:
                sock, client = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                await _after_failed_accept(shared, error)
                break
            sock.setblocking(False)
            if not await _take(shared, sock, client, handlers):
                break


async def _take(shared: Shared, sock: socket.socket, client: Any, handlers: trio.Nursery) -> bool:
    """Welcome a client once there is room for it. False: there will be none, and it was sent away."""
    more = RESERVE if shared.has_reserve(client[0]) else 0
    try:
        while len(shared.connections) >= shared.most + more or sock.fileno() >= shared.ceiling + more:
            if not shared.waiting:
                _send_away(shared, sock)
                return False
            if shared.waiting.make_room():
                sock = _lowered(sock)
            else:
                await trio.sleep(LOOK_AGAIN_SECONDS)
    except BaseException:
        sock.close()
        raise
    _welcome(shared, sock, client, handlers)
    return True


def _lowered(sock: socket.socket) -> socket.socket:
    """`sock` with the lowest free descriptor, one that was just given back; itself if that is taken again."""
    try:
        lower = sock.dup()
    except OSError:
        return sock
    sock.close()
    return lower


def _welcome(shared: Shared, sock: socket.socket, client: Any, handlers: trio.Nursery) -> None:
    with suppress(OSError):  # the client may be gone already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handlers.start_soon(Connection(shared, sock, client).run)


def _send_away(shared: Shared, sock: socket.socket) -> None:
    if shared.tls is None:
        with suppress(OSError):
            sock.recv(MAX_HEAD)  # what is left unread would take the answer back
        with suppress(OSError):
            sock.send(_FULL.http1(time.time()))
    sock.close()
    shared.stats.sent_away += 1
    shared.report("accept", NoRoomError("all that it could replace are in use"))


async def _after_failed_accept(shared: Shared, error: OSError) -> None:
    if error.errno in _NO_DESCRIPTOR:
        shared.stats.faults[type(error).__name__] += 1
        shared.report("accept", error)
        if not shared.waiting.make_room():
            await trio.sleep(NO_DESCRIPTOR_SECONDS)


async def _finish(shared: Shared) -> None:
    await shared.context.terminated.set()
    for connection in tuple(shared.connections):
        connection.finish_idle()


async def _mark_failed(app: object, exception: BaseException, **_: object) -> None:
    # Quart turns the failure of an accepted websocket into an orderly close, 1000. The client must see 1011.
    seat = websocket.scope.get("state", {}).get(SEAT)
    if seat is not None:
        seat.failed = True
        seat.connection.shared.fault("application", exception)
