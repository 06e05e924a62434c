"""The path of the hub: negotiation, the three transports, and the requests of those that are not WebSockets.

Rules of this file: HTTP and ids only; a client's records are for its `Hub`. A client that has negotiated
connects with its id, once. One that connects by a WebSocket may leave the negotiation out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs

from attrs import evolve
from quart import Response, request

from actors.session import Ending, WireClosed
from dataflow.gateway.application import HttpProblem, asker, json_response
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue
from dataflow.gateway.responses import endless, hear, no_room, open_session
from dataflow.server.handshake import Handshake, Messages, Socket
from dataflow.server.polling_wire import PollingWire
from dataflow.server.streaming_wire import StreamingWire

from .hub import TEXT, TEXT_OR_BINARY, Hub
from .seats import NoSeat, Seats
from .settings import Settings

NEGOTIATION: Final = 1  # the newest version
POLL_SECONDS: Final = 90.0  # for which a poll waits: less than the 100 s for which clients wait for it
GONE_AFTER: Final = 15.0  # seconds without a poll
EVENTS: Final = "text/event-stream"
COMMENT: Final = b":\r\n\r\n"  # the stream has begun
TRANSPORTS: Final = [
    {"transport": "WebSockets", "transferFormats": ["Text", "Binary"]},
    {"transport": "ServerSentEvents", "transferFormats": ["Text"]},
    {"transport": "LongPolling", "transferFormats": ["Text", "Binary"]},
]


class EventWire(StreamingWire):
    """Server-Sent Events: each text is an event."""

    @staticmethod
    def pack(texts: Sequence[bytes]) -> bytes:
        """k events as one payload. Pure."""
        return b"".join([b"data: %b\r\n\r\n" % text for text in texts])

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        """A piece of one event as a payload."""
        return (b"data: " if first else b"") + text + (b"\r\n\r\n" if last else b"")


class Endpoint:
    """One for all clients of the hub; it outlives the listener."""

    def __init__(self, hall: Hall, settings: Settings) -> None:
        self._hall = hall
        self._settings = settings
        self.seats: Seats[Hub] = Seats()
        # Signs of life are the protocol's own, see `Hub.alarm`: those of the wire prove nothing.
        self._manners = evolve(hall.manners, ping_interval=settings.client_timeout, ping_timeout=None)
        self.entrance = Entrance(
            Socket(settings.path, messages=Messages.EITHER), self._converse, self._check, self._manners
        )
        hall.invite_pages(settings.path, settings.origins)

    # WebSockets.

    def _check(self, client: Handshake) -> None:
        """Raises HttpProblem for an id that this client cannot have."""
        id = _id_in(client.query)
        if id is not None:
            self._check_free(id)

    def _converse(self, session: AnySession, client: Handshake) -> Hub:
        hub, id = Hub(session, self._hall, self._settings), _id_in(client.query)
        if id is not None and not self.seats.take(id, hub):
            session.end(Ending.VIOLATION, "this id is in use")  # two came with it at once
        return hub

    # HTTP.

    async def negotiate(self) -> Response:
        """Give a client an id, and say what there is."""
        version = min(_version(request.args.get("negotiateVersion") or "0"), NEGOTIATION)
        name, secret = self._reserve()
        ids = {"connectionId": name, "connectionToken": secret} if version else {"connectionId": secret}
        return json_response({"negotiateVersion": version, **ids, "availableTransports": TRANSPORTS})

    async def listen(self) -> Response:
        """The stream of a client, or one of its polls."""
        id = _id()
        streams = EVENTS in request.headers.get("Accept", "")
        hub = self.seats.client(id)
        polls = hub is not None and isinstance(hub.wire, PollingWire) and not streams
        if not polls:
            self._check_free(id)
        if request.method == "HEAD":
            return Response(b"", content_type=EVENTS if streams else "text/plain")
        if streams:
            return await self._stream(id)
        return await self._poll(hub) if hub is not None else await self._begin_polling(id)

    async def hear(self) -> Response:
        """Records of a client that listens by a stream or by polls.

        Some clients that poll say the handshake before they ask for the first time.
        """
        id = _id()
        if self.seats.is_free(id):
            await self._begin_polling(id)
        hub = self._living(id)
        data = await request.get_data(as_text=False)
        try:
            if data:
                hear(self._hall, hub.wire, data)
        except WireClosed:
            raise _unknown() from None
        return Response(b"", content_type="text/plain")

    async def leave(self) -> Response:
        """The end of a client that polls."""
        hub = self._living(_id())
        if not isinstance(hub.wire, PollingWire):
            raise HttpProblem(400, "Bad Request", "only a client that polls ends by DELETE")
        hub.wire.leave("the client has ended the connection")
        return Response(b"", 202, content_type="text/plain")

    # Inside.

    async def _stream(self, id: str) -> Response:
        wire = EventWire(peer=asker().peer)
        wire.write_nowait(COMMENT)
        await self._open(id, wire)
        return endless(wire.body(), EVENTS)

    async def _begin_polling(self, id: str) -> Response:
        await self._open(id, PollingWire(peer=asker().peer, gone_after=GONE_AFTER))
        return Response(b"", content_type="text/plain")  # at once: the connection has begun

    async def _poll(self, hub: Hub) -> Response:
        records = await hub.wire.poll(POLL_SECONDS)
        if records is None:
            return Response(b"", 204)
        return Response(records, content_type="application/octet-stream" if hub.binary else "text/plain")

    async def _open(self, id: str, wire: EventWire | PollingWire) -> None:
        """A session on `wire`. Raises HttpProblem when there is no room for it."""
        polls = isinstance(wire, PollingWire)

        def converse(session: AnySession) -> Hub:
            hub = Hub(
                session,
                self._hall,
                self._settings,
                protocols=TEXT_OR_BINARY if polls else TEXT,
                polls=polls,
                wire=wire,
            )
            if not self.seats.take(id, hub):
                raise _in_use()
            return hub

        await open_session(self._hall, wire, converse, self._manners)

    def _reserve(self) -> tuple[str, str]:
        quotas, account = self._hall.quotas, self._hall.account(asker())
        most = math.inf if account is quotas.exempt else quotas.settings.sessions
        try:
            return self.seats.reserve(account, most)
        except NoSeat as error:
            wait = self._hall.lobby.admission.turn_away(str(error))
            raise no_room(str(error), wait, error.of_one) from None

    def _check_free(self, id: str) -> None:
        """Raises HttpProblem unless a client may take this id."""
        if self.seats.client(id) is not None:
            raise _in_use()
        if not self.seats.is_free(id):
            raise _unknown()

    def _living(self, id: str) -> Hub:
        """The client with this id. Raises HttpProblem unless it may send requests."""
        hub = self.seats.client(id)
        if hub is None:
            raise _unknown()
        if hub.wire is None:
            raise HttpProblem(400, "Bad Request", "this connection is a WebSocket: it sends no requests")
        return hub


def _id() -> str:
    """Raises HttpProblem for a request without one."""
    id = request.args.get("id")
    if not id:
        raise HttpProblem(400, "Bad Request", "this needs ?id=, the id from the answer to a negotiation")
    return id


def _id_in(query: str) -> str | None:
    return parse_qs(query).get("id", [None])[0]


def _version(written: str) -> int:
    try:
        version = int(written)
    except ValueError:
        version = -1
    if version < 0:
        raise InvalidValue("negotiateVersion", written[:40], "must be a whole number")
    return version


def _unknown() -> HttpProblem:
    return HttpProblem(404, "Not Found", "no connection has this id: negotiate again")


def _in_use() -> HttpProblem:
    return HttpProblem(409, "Conflict", "this id is in use: negotiate again")
