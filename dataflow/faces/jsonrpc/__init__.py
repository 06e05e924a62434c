"""JSON-RPC 2.0 over WebSocket, at `/ws`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from dataflow.gateway import face
from dataflow.gateway.face import Entrance
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Socket
from dataflow.settings.schema import FaceSettings

from .methods import Calls

PATH: Final = "/ws"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.jsonrpc]`."""


class Face(face.Face):
    """One WebSocket."""

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        return (Entrance(Socket(PATH), lambda session, _client: Calls(session, hall)),)
