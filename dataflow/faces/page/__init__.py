"""The page for people, at `/`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from quart import Response

from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from supervisors import Child


class Face:
    """A `gateway.face.Face`."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        page = files(__package__).joinpath("page.html").read_bytes()

        async def index() -> Response:
            return Response(page, mimetype="text/html")

        return (Route("/", index),)

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        return ()

    def children(self, hall: Hall) -> Iterable[Child]:
        return ()
