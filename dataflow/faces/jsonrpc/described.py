"""The AsyncAPI document, at `/asyncapi.json`. Rules of this file: HTTP alone; `describing` writes it."""

from __future__ import annotations

from typing import Any, Final

from quart import Response

from dataflow.gateway.about import JSON, About, Answer
from dataflow.gateway.application import file_response
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall

from . import describing

PATH: Final = "/asyncapi.json"


def route(hall: Hall) -> Route:
    """The endpoint."""

    async def document() -> Response:
        return await file_response(describing.asyncapi(*hall.reached), JSON)

    return Route(PATH, document, about=_ABOUT)


_ABOUT: Final = About(
    "All messages of the WebSocket",
    {200: Answer("AsyncAPI 3.0", dict[str, Any]), 304: Answer("it has not changed")},
)
