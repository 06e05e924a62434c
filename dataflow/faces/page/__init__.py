"""The page for people, at `/`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from attrs import frozen
from quart import Response

from dataflow.gateway import face
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.page]`."""


class Face(face.Face):
    """One page."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        page = files(__package__).joinpath("page.html").read_bytes()

        async def index() -> Response:
            return Response(page, mimetype="text/html")

        return (Route("/", index),)
