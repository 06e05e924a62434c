"""JSON-RPC 2.0 over WebSocket, at `/ws`."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Handshake, Socket
from dataflow.settings.schema import FaceSettings
from supervisors import Child

from .methods import Calls

PATH = "/ws"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.jsonrpc]`."""


class Face:
    """A `gateway.face.Face`."""

    def __init__(self, settings: Settings) -> None:
        pass

    def routes(self, hall: Hall) -> Iterable[Route]:
        return ()

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        def converse(session: AnySession, client: Handshake) -> Calls:
            return Calls(session, hall)

        return (Entrance(Socket(PATH), converse),)

    def children(self, hall: Hall) -> Iterable[Child]:
        return ()
