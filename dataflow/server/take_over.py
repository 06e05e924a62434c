"""From a websocket handler to a session that outlives it: `async with take_over(websocket) as wire`.

Rules of this file: Quart has routed and authorised, the handler asks, and what the body of the block
starts owns the wire. Where it can be the socket leaves the HTTP server, whose objects for the connection
go when the handler returns; where it cannot (HTTP/2, another server, already accepted) the block
keeps the handler until the wire is over. An exception in the body closes with 1011 and is passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from quart.wrappers import Websocket

from .asgi_wire import AsgiWire, peer_of
from .connection import SEAT, Seat
from .socket_wire import SocketWire, kept


@asynccontextmanager
async def take_over(
    websocket: Websocket, *, max_message_bytes: int = 65536, close_within: float = 2.0
) -> AsyncIterator[SocketWire | AsgiWire]:
    """Accept the websocket of the current handler and hand it out as a wire that any task may drive.

    `max_message_bytes` bounds what a client may send, `close_within` (seconds) how long the end may take.
    When the peer has left meanwhile, the wire has ended already: its `receive` says so.
    """
    request: Any = websocket
    request = request._get_current_object() if hasattr(request, "_get_current_object") else request
    seat: Seat | None = request.scope.get("state", {}).get(SEAT)
    detaching = seat is not None and seat.begin_detaching()
    await request.accept()
    if seat is not None and detaching and seat.connected:
        lane = _on_socket(request, seat, max_message_bytes, close_within)
    else:
        lane = _on_asgi(request, seat, max_message_bytes, close_within)
    async with lane as wire:
        yield wire


@asynccontextmanager
async def _on_socket(
    request: Websocket, seat: Seat, max_message_bytes: int, close_within: float
) -> AsyncIterator[SocketWire | AsgiWire]:
    sock, early = seat.detach()
    wire = SocketWire(
        sock,
        peer=peer_of(request),
        early=early,
        max_message_bytes=max_message_bytes,
        close_within=close_within,
    )
    async with kept(wire):
        yield wire


@asynccontextmanager
async def _on_asgi(
    request: Websocket, seat: Seat | None, max_message_bytes: int, close_within: float
) -> AsyncIterator[SocketWire | AsgiWire]:
    wire = AsgiWire(request, seat, max_message_bytes=max_message_bytes, close_within=close_within)
    if seat is not None and not seat.connected:
        wire.abort()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.stay)
        yield wire  # an exception ends the handler, and the server closes with 1011
