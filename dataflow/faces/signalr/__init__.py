"""A SignalR hub: JSON-RPC in its records, over WebSockets, Server-Sent Events or long polling."""

from __future__ import annotations

from collections.abc import Iterable

from dataflow.gateway import face
from dataflow.gateway.about import Sample
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall

from . import about
from .endpoint import Endpoint
from .settings import Settings

__all__ = ["Face", "Settings"]


class Face(face.Face):
    """The hub at one path: negotiation, and three transports."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._endpoint: Endpoint | None = None

    def _at(self, hall: Hall) -> Endpoint:
        """One for both kinds of clients, whichever is asked for first."""
        if self._endpoint is None:
            self._endpoint = Endpoint(hall, self._settings)
        return self._endpoint

    def routes(self, hall: Hall) -> Iterable[Route]:
        path, endpoint = self._settings.path, self._at(hall)
        return (
            Route(f"{path}/negotiate", endpoint.negotiate, ("POST",), about=about.NEGOTIATE),
            Route(path, endpoint.listen, about=about.LISTEN),
            Route(path, endpoint.hear, ("POST",), about=about.HEAR),
            Route(path, endpoint.leave, ("DELETE",), about=about.LEAVE),
        )

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        return (self._at(hall).entrance,)

    def about(self, hall: Hall) -> Iterable[Sample]:
        return about.samples(self._settings.path)
