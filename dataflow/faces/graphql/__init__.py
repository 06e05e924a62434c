"""GraphQL: queries over HTTP, queries and subscriptions over WebSocket, and GraphiQL to try both.

Only this file is imported while the face is off: graphql-core is an extra.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from attrs import field, frozen, validators

from dataflow.gateway import face
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Handshake, Socket
from dataflow.settings.schema import FaceSettings

PAGE = "/graphiql"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.graphql]`. `max_depth`: fields inside fields, of one document."""

    enabled: bool = False
    path: str = field(default="/graphql", validator=validators.matches_re(r"(/[0-9A-Za-z._~-]+)+"))
    graphiql: bool = True
    max_depth: int = field(default=15, validator=validators.ge(1))


class Face(face.Face):
    """One path for HTTP and WebSocket, and a page."""

    follows_days: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._service: Any = None  # made with the hall

    def routes(self, hall: Hall) -> Iterable[Route]:
        from .endpoint import endpoint
        from .graphiql import routes

        path = self._settings.path
        root = hall.settings.gateway.root_path
        page = root + PAGE if self._settings.graphiql else None
        yield Route(path, endpoint(self._served(hall), page), ("GET", "POST"))
        if page is not None:
            yield from routes(PAGE, root + path)

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        from .conversation import Operations
        from .transport_ws import SUBPROTOCOL

        service = self._served(hall)

        def converse(session: AnySession, client: Handshake) -> Operations:
            return Operations(session, hall, service, client.subprotocol)

        return (Entrance(Socket(self._settings.path, (SUBPROTOCOL,)), converse),)

    def _served(self, hall: Hall) -> Any:
        from .documents import Documents
        from .execution import Service

        if self._service is None:
            self._service = Service(hall.desk, Documents(self._settings.max_depth))
        return self._service
