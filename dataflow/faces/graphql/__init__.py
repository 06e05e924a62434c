"""GraphQL: queries over HTTP, queries and subscriptions over WebSocket, and GraphiQL to try both.

Only this file is imported while the face is off: graphql-core is an extra.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

from dataflow import plugs
from dataflow.gateway import face
from dataflow.gateway.about import Sample
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Handshake, Socket
from dataflow.settings.schema import FaceSettings, check_path

if TYPE_CHECKING:
    from .execution import Service

PAGE = "/graphiql"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.graphql]`. `max_depth`: fields inside fields, of one document."""

    enabled: bool = False
    path: str = field(default="/graphql", validator=check_path)
    graphiql: bool = True
    max_depth: int = field(default=15, validator=validators.ge(1))


class Face(face.Face):
    """One path for HTTP and WebSocket, and a page. Raises ConfigError without its library."""

    follows_days: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        plugs.library("graphql", "graphql", "[faces.graphql]")
        from .documents import Documents

        self._settings = settings
        self._documents = Documents(settings.max_depth)

    def routes(self, hall: Hall) -> Iterable[Route]:
        from .endpoint import routes
        from .graphiql import routes as pages

        path, root = self._settings.path, hall.settings.gateway.root_path
        page = root + PAGE if self._settings.graphiql else None
        yield from routes(path, self._service(hall), page)
        if page is not None:
            yield from pages(PAGE, root + path)

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        from .conversation import Operations
        from .transport_ws import SUBPROTOCOL

        service = self._service(hall)

        def converse(session: AnySession, client: Handshake) -> Operations:
            return Operations(session, hall, service, client.subprotocol)

        return (Entrance(Socket(self._settings.path, (SUBPROTOCOL,)), converse),)

    def about(self, hall: Hall) -> Iterable[Sample]:
        from .samples import samples

        return samples(self._settings.path, PAGE if self._settings.graphiql else None)

    def _service(self, hall: Hall) -> Service:
        from .execution import Service

        return Service(hall.desk, self._documents)
