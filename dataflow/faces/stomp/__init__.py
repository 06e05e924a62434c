"""STOMP over WebSocket and over SockJS, at `/ws` and below.

JSON-RPC keeps the WebSocket at `/ws` itself: SockJS only greets there.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen, validators
from quart import Response, request

from dataflow.gateway import face
from dataflow.gateway.about import Sample
from dataflow.gateway.application import websocket_only
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Handshake, Messages, Socket
from dataflow.settings.schema import FaceSettings, check_path

from . import descriptions, sockjs
from .conversation import Service, SockJs, Stomp
from .protocol import SUBPROTOCOLS
from .requests import Requests
from .signalling import Rooms


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.stomp]`. `heartbeat` is in seconds."""

    enabled: bool = False
    path: str = field(default="/ws", validator=check_path)
    heartbeat: float = field(default=10.0, validator=validators.gt(0))
    signalling: bool = True


class Face(face.Face):
    """A plain WebSocket, and the transports of SockJS."""

    follows_days = True

    def __init__(self, settings: Settings) -> None:
        self._path = settings.path
        self.service = Service(settings.heartbeat, Rooms() if settings.signalling else None)

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        def plain(session: AnySession, _client: Handshake) -> Stomp:
            return Stomp(session, hall, self.service)

        def in_sockjs(session: AnySession, _client: Handshake) -> SockJs:
            return SockJs(session, hall, self.service)

        yield Entrance(Socket(f"{self._path}/websocket", SUBPROTOCOLS, Messages.EITHER), plain)
        yield Entrance(Socket(f"{self._path}/<undotted:server>/<undotted:client>/websocket"), in_sockjs)

    def routes(self, hall: Hall) -> Iterable[Route]:
        hall.invite_pages(self._path, ())  # nobody else; but SockJS always sends credentials
        requests = Requests(hall, self.service)
        yield Route(self._path, _greet, about=descriptions.GREETING)
        yield Route(f"{self._path}/", _greet, about=descriptions.GREETING)
        yield Route(f"{self._path}/info", requests.info, about=descriptions.INFO)
        for transport, about in descriptions.TRANSPORTS.items():
            path = f"{self._path}/<undotted:server>/<undotted:client>/{transport}"
            yield Route(path, getattr(requests, transport), ("POST",), about=about)

    def about(self, hall: Hall) -> Iterable[Sample]:
        return descriptions.samples(self._path, self.service.rooms is not None)


async def _greet() -> Response:
    """What SockJS says where it never upgrades. A handshake that a proxy broke is told so."""
    if "Sec-WebSocket-Key" in request.headers:
        raise websocket_only()
    return Response(sockjs.GREETING, content_type="text/plain; charset=UTF-8")
