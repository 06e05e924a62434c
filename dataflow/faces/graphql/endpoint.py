"""The HTTP endpoint: a request in, an answer out. Which is which, `over_http` says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from quart import Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from dataflow.gateway.application import MAX_BODY_BYTES
from dataflow.gateway.spelling import encode

from . import over_http
from .execution import Answer, Service
from .over_http import JSON, Refused
from .request import Request


def endpoint(service: Service, page: str | None) -> Callable[[], Awaitable[Response]]:
    """The view of the endpoint. `page`: where a browser finds GraphiQL, if it does."""

    async def view() -> Response:
        accept = request.headers.get("Accept")
        if page is not None and _is_visit(accept):
            return Response(b"", 303, headers={"Location": page, "Vary": "Accept"})
        kind = JSON
        try:
            kind = over_http.answers_with(accept)
            answer = service.answer(await _asked())
        except Refused as refused:
            return _told(_error(str(refused)), refused.status, kind, refused.headers)
        except RequestEntityTooLarge:
            return _told(_error(f"A request has at most {MAX_BODY_BYTES} bytes."), 413, kind)
        except HTTPException as error:  # the body did not come in time, say
            return _told(_error(error.description), error.code or 400, kind)
        return _told(answer, over_http.status_of(answer, kind), kind)

    return view


def _is_visit(accept: str | None) -> bool:
    return request.method == "GET" and not request.query_string and over_http.wants_page(accept)


async def _asked() -> Request:
    if request.method in ("GET", "HEAD"):
        return over_http.read_get(request.query_string)
    body = await request.get_data()
    assert isinstance(body, bytes)
    return over_http.read_post(request.headers.get("Content-Type"), body)


def _error(words: str | None) -> Answer:
    return {"errors": [{"message": words}]}


def _told(answer: Answer, status: int, kind: str, headers: Mapping[str, str] | None = None) -> Response:
    told = Response(
        encode(answer), status, content_type=f"{kind}; charset=utf-8", headers=dict(headers or {})
    )
    told.headers["Vary"] = "Accept"
    return told
