"""The pages for people: market and operations at `/`, and what is served where at `/faces`.

Rules of this file: it serves files as they are, those of the page in `files/`, those of others in `vendor/`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from typing import Any, Literal

from attrs import frozen
from quart import Response, request

from dataflow import plugs
from dataflow.faults.registry import NO_CHAOS
from dataflow.gateway import face
from dataflow.gateway.about import About, Answer, Parameter, Sample
from dataflow.gateway.application import NOTHING_LOADED, HttpProblem, asker, file_response, json_response
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import Forbidden, Unauthorised
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import FaceSettings

_KINDS = {"css": "text/css", "js": "text/javascript", "mjs": "text/javascript"}  # by the end of the name
OWN_FILES = f"script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; {NOTHING_LOADED}"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.page]`."""


@frozen
class FaceInfo:
    """A face, or a source that listens: whether it is on, the key for that, and what it serves."""

    name: str
    words: str
    enabled: bool
    key: str
    samples: list[Sample]


@frozen
class Access:
    """What the daemon would say to who asks, so that nobody has to be refused to know it.

    `admin`: whether the operator's interface is on. `inside`: whether it shows the inside to the asker, or to
    the operator's token, or at the operator's own listener. `operator`, `faults`: why what the operator alone
    may do, and faults on purpose, would be refused; null: they would not.
    """

    admin: bool
    inside: Literal["open", "token", "elsewhere"]
    operator: str | None
    faults: str | None


@frozen
class Served:
    """All faces, those that are on first, and sources to which producers connect, in alphabetical order. The
    symbols: those of the configuration in its order, then those that producers brought. The intervals: those
    of candles that are made here."""

    access: Access
    symbols: list[str]
    intervals: list[str]
    faces: list[FaceInfo]
    sources: list[FaceInfo]


class Face(face.Face):
    """Two pages, their files, and what they show."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        async def told() -> Response:
            return json_response(served(hall, access(hall, asker(), _at_port())))

        return (
            Route("/", _shown(_file("files/index.html"), "text/html", OWN_FILES), about=_INDEX),
            Route("/page/<name>", _files("files"), about=_OWN_FILE),
            Route("/page/vendor/<name>", _files("vendor"), about=_VENDOR_FILE),
            Route("/faces", _shown(_file("faces.html"), "text/html", OWN_FILES), about=_FACES),
            Route("/faces/faces.js", _shown(_file("faces.js"), "text/javascript"), about=_SCRIPT),
            Route("/faces/faces.css", _shown(_file("faces.css"), "text/css"), about=_STYLE),
            Route("/api/v1/faces", told, about=_SERVED),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        lines = {"Browser": "{http}/"}
        yield Sample("The page", "{http}/", "Prices, candles, trades, sources and actors, live.", lines=lines)
        lines = {"curl": "curl {http}/api/v1/faces"}
        yield Sample("This page", "{http}/faces", "What is served where; the same as JSON.", lines=lines)


def access(hall: Hall, client: Handshake, port: int | None) -> Access:
    """What would be refused to a client that came in at `port`."""
    admin = any(each.name == "admin" for each in hall.faces)
    faults = None if hall.core.faults is not None else NO_CHAOS
    if hall.settings.operator.port is not None and port != hall.lobby.operator_port:
        return Access(
            admin, "elsewhere", "this has a listener of the operator's own: [operator] port", faults
        )
    try:
        hall.identity.require_insight(client)
    except Unauthorised as refusal:
        return Access(admin, "token", refusal.summary, faults)
    try:
        hall.identity.require_operator(client)
    except (Forbidden, Unauthorised) as refusal:
        return Access(admin, "open", refusal.summary, faults)
    return Access(admin, "open", None, faults)


def _at_port() -> int | None:
    server = request.scope.get("server")
    return server and server[1]


def served(hall: Hall, access: Access) -> Served:
    """What is served."""
    on = [
        FaceInfo(each.name, each.words, True, _key(each.name), list(each.about(hall))) for each in hall.faces
    ]
    off = sorted({*plugs.names("faces")} - {each.name for each in on})
    words = {name: face.words(plugs.find("faces", name)) for name in off}
    return Served(
        access,
        list(hall.core.carriers),
        list(hall.core.candles.intervals),
        [*on, *(FaceInfo(name, words[name], False, _key(name), []) for name in off)],
        list(_sources(hall)),
    )


def _sources(hall: Hall) -> Iterable[FaceInfo]:
    """Those whose connector has something to say to producers."""
    for name, settings in sorted(hall.settings.sources.items()):
        connector = sys.modules[type(settings).__module__]
        if hasattr(connector, "about"):
            samples = list(connector.about(settings))
            yield FaceInfo(name, face.words(connector), True, f"[sources.{name}]", samples)


def _key(name: str) -> str:
    return f"[faces.{name}] enabled = true"


def _file(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()


def _files(folder: str) -> Callable[[str], Awaitable[Response]]:
    """The handler of the files there. It raises HttpProblem."""

    async def shown(name: str) -> Response:
        kind = _KINDS.get(name.rpartition(".")[2])
        file = files(__package__).joinpath(folder, name)
        if kind is None or not file.is_file():
            raise HttpProblem(404, "Not Found", f"the page has no file {name!r}")
        return await file_response(file.read_bytes(), kind)

    return shown


def _shown(body: bytes, kind: str, policy: str | None = None) -> Callable[[], Any]:
    async def shown() -> Response:
        headers = {"Content-Security-Policy": policy} if policy else None
        return Response(body, mimetype=kind, headers=headers)

    return shown


# -- descriptions for OpenAPI --------------------------------------------------------------------------

_INDEX = About("Market and operations, for people", {200: Answer("a page", str, "text/html")})
_OWN_FILE = About(
    "A file of the page",
    {200: Answer("JavaScript or CSS", str, "text/javascript")},
    {404: "the page has no such file"},
    parameters=(Parameter("name", str, "the name of the file", place="path", example="shell.js"),),
)
_VENDOR_FILE = About(
    "A library of others that the page uses",
    {200: Answer("JavaScript", str, "text/javascript")},
    {404: "the page has no such file"},
    parameters=(
        Parameter(
            "name",
            str,
            "the name of the file",
            place="path",
            example="lightweight-charts.standalone.production.mjs",
        ),
    ),
)
_FACES = About("What is served where, for people", {200: Answer("a page", str, "text/html")})
_SCRIPT = About("The script of `/faces`", {200: Answer("JavaScript", str, "text/javascript")})
_STYLE = About("The style of `/faces`", {200: Answer("CSS", str, "text/css")})
_SERVED = About("What is served where", {200: Answer("all faces, with lines to copy", Served)})
