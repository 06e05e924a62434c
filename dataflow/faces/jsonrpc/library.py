"""The client library in JavaScript, at `/client.js`, with its types beside it.

Rules of this file: it serves two files as they are: to the daemon's own pages and those of invited origins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any, Final

from quart import Response

from dataflow.gateway.about import About, Answer
from dataflow.gateway.application import file_response
from dataflow.gateway.face import Route

FOLDER: Final = "javascript"  # in the room of the clients
JAVASCRIPT: Final = "text/javascript"
TYPES: Final = "text/plain"  # TypeScript has no registered type, and `.ts` is taken for video


def routes() -> Iterable[Route]:
    """The two endpoints."""
    return (
        Route("/client.js", _file("client.js", JAVASCRIPT), about=_MODULE),
        Route("/client.d.ts", _file("client.d.ts", TYPES), about=_TYPES),
    )


def _file(name: str, kind: str) -> Callable[[], Any]:
    content = files("dataflow.client").joinpath(FOLDER, name).read_bytes()

    async def file() -> Response:
        return await file_response(content, kind)

    return file


_MODULE: Final = About(
    "The client library in JavaScript: one ES module",
    {200: Answer("the module", str, JAVASCRIPT), 304: Answer("it has not changed")},
)
_TYPES: Final = About(
    "The types of `/client.js`, for TypeScript",
    {200: Answer("declarations", str, TYPES), 304: Answer("it has not changed")},
)
