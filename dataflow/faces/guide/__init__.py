"""The guide at `/docs/guide/`: the READMEs, the tutorial and the reference, as `make docs` builds them.

Rules of this file: it serves the files of one folder and decides nothing. A name is looked up in the list of
these files, so no name leads out of the folder. Without a built guide there is one page, and it says what to
do.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final

import trio
from attrs import frozen
from quart import Response

from dataflow.gateway import face
from dataflow.gateway.about import About, Answer, Parameter, Sample
from dataflow.gateway.application import NOTHING_LOADED, HttpProblem, file_response, moved_to
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings

SITE: Final = Path(str(files(__package__))) / "site"  # what `make docs` writes
# Icons are data: addresses. The search runs in a worker, a script of ours.
POLICY: Final = (
    f"script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; {NOTHING_LOADED}"
)
NOT_BUILT: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>dataflow: the guide</title>
<h1>The guide is not built here</h1>
<p>Build it in the folder of the project, and load this page again:</p>
<pre>make docs</pre>
<p>Its texts are the READMEs of the project.</p>
"""


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.guide]`."""


class Face(face.Face):
    """The files of the guide."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        return (
            Route("/docs/guide/", _file, about=_INDEX),
            Route("/docs/guide/<path:name>", _file, about=_FILE),
            Route("/docs/guide", moved_to("guide/"), about=_MOVED),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        lines = {"Browser": "{http}/docs/guide/"}
        yield Sample("The guide", "{http}/docs/guide/", "Tutorial and reference.", lines=lines)


async def _file(name: str = "index.html") -> Response:
    """One file of the guide. Raises HttpProblem."""
    content = await trio.to_thread.run_sync(_read, name)
    if content is None:
        if name != "index.html":
            raise HttpProblem(404, "Not Found", f"the guide has no file {name[:80]!r}")
        content = NOT_BUILT
    answer = await file_response(content, mimetypes.guess_type(name)[0])
    answer.headers["Content-Security-Policy"] = POLICY
    return answer


def _read(name: str) -> bytes | None:
    there = {file.relative_to(SITE).as_posix(): file for file in SITE.rglob("*") if file.is_file()}
    try:
        return there[name].read_bytes()
    except (KeyError, FileNotFoundError):  # the second one: it is being built anew
        return None


# -- descriptions for OpenAPI --------------------------------------------------------------------------

_INDEX: Final = About("The guide", {200: Answer("a page", str, "text/html")})
_MOVED: Final = About("The way to the guide", {302: Answer("it is there", headers={"Location": "where"})})
_FILE: Final = About(
    "A file of the guide",
    {200: Answer("the file", str, "*/*"), 304: Answer("it has not changed")},
    {404: "the guide has no such file"},
    parameters=(Parameter("name", str, "the name of the file", place="path", example="index.html"),),
)
