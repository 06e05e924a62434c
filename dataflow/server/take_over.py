"""From a websocket handler to a session that outlives it: `async with take_over(websocket) as wire`.

Rules of this file: Quart has routed and authorised, and the handler calls this. The body of the block starts
a session, and that owns the wire. If possible, the socket leaves the HTTP server; the server's objects for
the connection go when the handler returns. If not possible (HTTP/2, another server, already accepted), the
block keeps the handler until the wire is over. An exception in the body closes with 1011 and is passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from quart.wrappers import Websocket

from dataflow.net.websocket.deflate import Agreement

from .asgi_wire import ASGI_WIRES, AsgiWire
from .connection import SEAT, Seat
from .deflating_wire import socket_wire
from .handshake import Handshake, Messages, Socket, agreed_with, handshake_in, peer_in
from .socket_wire import SocketWire, kept

ANY = Socket("")  # text, and no subprotocol


def handshake_of(websocket: Websocket, socket: Socket = ANY) -> Handshake:
    """The introduction of the current handler's client."""
    agreed = socket.choose(websocket.requested_subprotocols)
    return handshake_in(websocket.scope, websocket.path, agreed)


@asynccontextmanager
async def take_over(
    websocket: Websocket,
    socket: Socket = ANY,
    *,
    max_message_bytes: int = 65536,
    close_within: float = 2.0,
) -> AsyncIterator[SocketWire | AsgiWire]:
    """Accept the websocket of the current handler, and hand it out as a wire that any task may drive.

    `socket`: the subprotocols and messages allowed. `max_message_bytes` bounds a message of the client,
    `close_within` (seconds) the time of the end. If the peer has left meanwhile, the wire has ended already:
    its `receive` says so.
    """
    request: Any = websocket
    request = request._get_current_object() if hasattr(request, "_get_current_object") else request
    seat: Seat | None = request.scope.get("state", {}).get(SEAT)
    detaching = seat is not None and seat.begin_detaching()
    agreement: Agreement | None = None
    if seat is not None and detaching and seat.connection.shared.deflate:
        agreement = agreed_with(handshake_of(request, socket))
    headers = {} if agreement is None else {"Sec-WebSocket-Extensions": agreement.answer}
    await request.accept(headers, subprotocol=socket.choose(request.requested_subprotocols))
    if seat is not None and detaching and seat.connected:
        lane = _on_socket(request, seat, agreement, socket.messages, max_message_bytes, close_within)
    else:
        lane = _on_asgi(request, seat, socket.messages, max_message_bytes, close_within)
    async with lane as wire:
        yield wire


@asynccontextmanager
async def _on_socket(
    request: Websocket,
    seat: Seat,
    agreement: Agreement | None,
    messages: Messages,
    max_message_bytes: int,
    close_within: float,
) -> AsyncIterator[SocketWire | AsgiWire]:
    sock, early = seat.detach()
    wire = socket_wire(
        sock,
        messages,
        agreement,
        peer=peer_in(request.scope),
        early=early,
        max_message_bytes=max_message_bytes,
        close_within=close_within,
    )
    async with kept(wire):
        yield wire


@asynccontextmanager
async def _on_asgi(
    request: Websocket, seat: Seat | None, messages: Messages, max_message_bytes: int, close_within: float
) -> AsyncIterator[SocketWire | AsgiWire]:
    wire = ASGI_WIRES[messages](request, seat, max_message_bytes=max_message_bytes, close_within=close_within)
    if seat is not None and not seat.connected:
        wire.abort()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.stay)
        yield wire  # an exception ends the handler, and the server closes with 1011
