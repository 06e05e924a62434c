"""The page for people, at `/`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from attrs import frozen
from quart import Response

from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings
from supervisors import Child


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.page]`."""


class Face:
    """A `gateway.face.Face`."""

    def __init__(self, settings: Settings) -> None:
        pass

    def routes(self, hall: Hall) -> Iterable[Route]:
        page = files(__package__).joinpath("page.html").read_bytes()

        async def index() -> Response:
            return Response(page, mimetype="text/html")

        return (Route("/", index),)

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        return ()

    def children(self, hall: Hall) -> Iterable[Child]:
        return ()
