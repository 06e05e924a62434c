"""GraphiQL, the editor for people, from our own files: it loads nothing from elsewhere.

`vendor/` has the files of others as they were published: see the README of the face.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from quart import Response

from dataflow.gateway.about import About, Answer, Parameter
from dataflow.gateway.application import NOTHING_LOADED, HttpProblem, file_response
from dataflow.gateway.face import Route

# GraphiQL writes one style by itself: that of a page with an open menu, which must not scroll.
_MENU: Final = "'sha256-Y/huXlwoYkVyQlxwSVcCi1RCDGDCSVBzDt0hYP9qlTc='"
_POLICY: Final = (
    f"script-src 'self'; style-src 'self' {_MENU}; connect-src 'self'; font-src data:; img-src data:;"
    f" {NOTHING_LOADED}"
)
_TYPES: Final = {".css": "text/css", ".js": "text/javascript"}


def routes(path: str, endpoint: str) -> Iterable[Route]:
    """The page at `path`, and its files below. `endpoint`: the path of the face, as browsers see it."""
    folder = Path(str(files(__package__)))
    page = folder.joinpath("page.html").read_text().replace("ENDPOINT", escape(endpoint))
    assets = {each.name: each for each in folder.glob("**/*") if each.suffix in _TYPES}

    async def index() -> Response:
        return Response(page, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})

    async def file(name: str) -> Response:
        if name not in assets:
            raise HttpProblem(404, "Not Found", f"there is no file {name!r}", valid=list(assets))
        # Read anew: a megabyte for the few who come is not kept for all who do not.
        return await file_response(assets[name].read_bytes(), _TYPES[assets[name].suffix])

    return (Route(path, index, about=_PAGE), Route(f"{path}/<name>", file, about=_FILE))


_PAGE: Final = About("GraphiQL", {200: Answer("a page", str, "text/html")})
_FILE: Final = About(
    "A file of GraphiQL",
    {200: Answer("the file", str, "*/*"), 304: Answer("it has not changed")},
    {404: "it needs no such file"},
    parameters=(Parameter("name", str, "the name of the file", place="path", example="page.js"),),
)
