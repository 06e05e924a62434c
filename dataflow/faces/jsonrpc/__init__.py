"""JSON-RPC 2.0 over WebSocket, at `/ws`."""

from __future__ import annotations

from collections.abc import Iterable

from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Handshake, Socket
from supervisors import Child

from .methods import Calls

PATH = "/ws"


class Face:
    """A `gateway.face.Face`."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        return ()

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        def converse(session: AnySession, client: Handshake) -> Calls:
            return Calls(session, hall)

        return (Entrance(Socket(PATH), converse),)

    def children(self, hall: Hall) -> Iterable[Child]:
        return ()
