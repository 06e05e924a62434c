"""OpenAPI of every HTTP endpoint at `/openapi.json`, and Swagger UI at `/swagger/index.html`.

Rules of this file: it serves files and a document, and decides nothing. The document is that of the listener
that is asked: with one of the operator's own, the clients' does not name what is served there alone. Swagger
UI comes from a library that only this face needs.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import frozen
from quart import Response

from dataflow import plugs
from dataflow.gateway import face
from dataflow.gateway.about import About, Answer, Parameter, Sample, simple
from dataflow.gateway.application import NOTHING_LOADED, HttpProblem, file_response, moved_to, served
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings

from .openapi import Endpoint, document

OWN: Final = ("start.js", "look.css")
LIBRARY: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
# Swagger UI draws its arrows from data: addresses, and styles its parts by attributes.
POLICY: Final = (
    "script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " + NOTHING_LOADED
)


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.docs]`. Off unless it is switched on, because it needs a library."""

    enabled: bool = False


class Face(face.Face):
    """A document under two names, and the page that shows it. Raises ConfigError without its library."""

    def __init__(self, settings: Settings) -> None:
        bundle: Any = plugs.library("swagger_ui_bundle", "docs", "[faces.docs]")
        own = Path(str(files(__package__)))
        self._page = own.joinpath("swagger.html").read_bytes()
        folders = {**dict.fromkeys(OWN, own), **dict.fromkeys(LIBRARY, Path(bundle.swagger_ui_path))}
        self._files = {name: folder.joinpath(name).read_bytes() for name, folder in folders.items()}

    def routes(self, hall: Hall) -> Iterable[Route]:
        made: dict[int, bytes] = {}  # a document for each listener, whose routes live as long as these

        async def openapi() -> Response:
            routes = served()
            if id(routes) not in made:  # some 10 ms of work
                made[id(routes)] = msgspec.json.encode(_document(hall, routes))
            return Response(made[id(routes)], mimetype="application/json")

        async def page() -> Response:
            return Response(self._page, mimetype="text/html", headers={"Content-Security-Policy": POLICY})

        async def file(name: str) -> Response:
            if name not in self._files:
                raise HttpProblem(404, "Not Found", f"there is no file {name!r}", valid=list(self._files))
            return await file_response(self._files[name], mimetypes.guess_type(name)[0])

        return (
            Route("/openapi.json", openapi, about=_DOCUMENT),
            Route("/swagger/v1/swagger.json", openapi, about=_DOCUMENT),
            Route("/swagger/index.html", page, about=_PAGE),
            Route("/swagger/<name>", file, about=_FILE),
            Route("/swagger/", moved_to("index.html"), about=_MOVED),
            Route("/swagger", moved_to("swagger/index.html"), about=_MOVED),
            Route("/docs", moved_to("swagger/index.html"), about=_MOVED),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        yield simple("OpenAPI", "/openapi.json", "All HTTP endpoints of this daemon, for tools.")
        lines = {"Browser": "{http}/docs"}
        yield Sample(
            "Swagger UI", "{http}/docs", "The same for people, who can try each endpoint.", lines=lines
        )


def _document(hall: Hall, routes: Iterable[Route]) -> dict[str, Any]:
    endpoints = [
        Endpoint(method, each.path, each.about, each.face, each.inside, each.operator)
        for each in routes
        if each.about is not None  # it has moved to the operator's own listener
        for method in each.methods
    ]
    return document(
        endpoints,
        version=version("dataflow"),
        server=hall.settings.gateway.root_path or "/",
        faces={each.name: each.words for each in hall.faces},
        token=hall.settings.operator_token is not None,
    )


# -- descriptions for OpenAPI --------------------------------------------------------------------------

_DOCUMENT: Final = About("This document", {200: Answer("OpenAPI 3.1", dict[str, Any])})
_PAGE: Final = About("Swagger UI", {200: Answer("a page", str, "text/html")})
_MOVED: Final = About("The way to Swagger UI", {302: Answer("it is there", headers={"Location": "where"})})
_FILE: Final = About(
    "A file of Swagger UI",
    {200: Answer("the file", str, "*/*"), 304: Answer("it has not changed")},
    {404: "it needs no such file"},
    parameters=(Parameter("name", str, "the name of the file", place="path", example="start.js"),),
)
