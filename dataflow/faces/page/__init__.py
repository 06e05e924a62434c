"""The pages for people: the state of the daemon at `/`, and what is served where at `/faces`."""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable
from hashlib import sha256
from importlib.resources import files
from typing import Any

from attrs import frozen
from quart import Response, request

from dataflow import plugs
from dataflow.gateway import face
from dataflow.gateway.about import About, Answer, Parameter, Sample
from dataflow.gateway.application import NOTHING_LOADED, HttpProblem, json_response
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings

_TAGS = (b"script", b"style")
_KINDS = {"css": "text/css", "js": "text/javascript"}  # what the page has, by the end of the name
_BETWEEN = rb"<%b>(.*?)</%b>"
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
class Served:
    """All faces, those that are on first, and sources to which producers connect, in alphabetical order. The
    symbols: those of the configuration in its order, then those that producers brought."""

    symbols: list[str]
    faces: list[FaceInfo]
    sources: list[FaceInfo]


class Face(face.Face):
    """Two pages, the files of the second one, and what that shows."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        page = _file("page.html")

        async def told() -> Response:
            return json_response(served(hall))

        return (
            Route("/", _shown(page, "text/html", policy(page)), about=_INDEX),
            Route("/next", _shown(_file("files/index.html"), "text/html", OWN_FILES), about=_INDEX),
            Route("/page/<name>", _own_file, about=_OWN_FILE),
            Route("/faces", _shown(_file("faces.html"), "text/html", OWN_FILES), about=_FACES),
            Route("/faces/faces.js", _shown(_file("faces.js"), "text/javascript"), about=_SCRIPT),
            Route("/faces/faces.css", _shown(_file("faces.css"), "text/css"), about=_STYLE),
            Route("/api/v1/faces", told, about=_SERVED),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        lines = {"Browser": "{http}/"}
        yield Sample(
            "The state of the daemon", "{http}/", "Prices, trades, sources and actors, live.", lines=lines
        )
        lines = {"curl": "curl {http}/api/v1/faces"}
        yield Sample("This page", "{http}/faces", "What is served where; the same as JSON.", lines=lines)


def served(hall: Hall) -> Served:
    """What is served."""
    on = [
        FaceInfo(each.name, each.words, True, _key(each.name), list(each.about(hall))) for each in hall.faces
    ]
    off = sorted({*plugs.names("faces")} - {each.name for each in on})
    words = {name: face.words(plugs.find("faces", name)) for name in off}
    return Served(
        list(hall.core.carriers),
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


async def _own_file(name: str) -> Response:
    """One of the files of the page. Raises HttpProblem."""
    kind = _KINDS.get(name.rpartition(".")[2])
    file = files(__package__).joinpath("files", name)
    if kind is None or not file.is_file():
        raise HttpProblem(404, "Not Found", f"the page has no file {name!r}")
    response = Response(file.read_bytes(), mimetype=kind, headers={"Cache-Control": "no-cache"})
    await response.add_etag()
    await response.make_conditional(request)
    return response


def _shown(body: bytes, kind: str, policy: str | None = None) -> Callable[[], Any]:
    async def shown() -> Response:
        headers = {"Content-Security-Policy": policy} if policy else None
        return Response(body, mimetype=kind, headers=headers)

    return shown


def policy(page: bytes) -> str:
    """The content security policy of a page: only its own scripts and styles run, named by their hashes. It
    may speak with where it came from."""
    scripts, styles = (" ".join(map(_hash, re.findall(_BETWEEN % (tag, tag), page, re.S))) for tag in _TAGS)
    own = f"script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:"
    return f"{own}; {NOTHING_LOADED}"


def _hash(text: bytes) -> str:
    return f"'sha256-{b64encode(sha256(text).digest()).decode()}'"


# -- descriptions for OpenAPI --------------------------------------------------------------------------

_INDEX = About("The state of the daemon, for people", {200: Answer("a page", str, "text/html")})
_OWN_FILE = About(
    "A file of the page",
    {200: Answer("JavaScript or CSS", str, "text/javascript")},
    {404: "the page has no such file"},
    parameters=(Parameter("name", str, "the name of the file", place="path", example="shell.js"),),
)
_FACES = About("What is served where, for people", {200: Answer("a page", str, "text/html")})
_SCRIPT = About("The script of `/faces`", {200: Answer("JavaScript", str, "text/javascript")})
_STYLE = About("The style of `/faces`", {200: Answer("CSS", str, "text/css")})
_SERVED = About("What is served where", {200: Answer("all faces, with lines to copy", Served)})
