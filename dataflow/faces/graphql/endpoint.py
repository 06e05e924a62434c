"""The HTTP endpoint: a request in, an answer out. Which is which, `over_http` says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NotRequired, TypedDict, TypeVar

from quart import Response, g, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from dataflow.gateway.about import About, Answer, Parameter
from dataflow.gateway.application import MAX_BODY_BYTES
from dataflow.gateway.face import Route
from dataflow.gateway.spelling import encode

from . import over_http
from .execution import Result, Service
from .over_http import GRAPHQL, JSON, Refused
from .request import Request

T = TypeVar("T")


def routes(path: str, service: Service, page: str | None) -> Iterable[Route]:
    """The endpoint at `path`. `page`: where a browser finds GraphiQL, if it does."""
    view = _view(service, page)
    return (Route(path, view, about=_GET), Route(path, view, ("POST",), about=_POST))


def _view(service: Service, page: str | None) -> Callable[[], Awaitable[Response]]:

    async def view() -> Response:
        accept = request.headers.get("Accept")
        if page is not None and _is_visit(accept):
            return Response(b"", 303, headers={"Location": page, "Vary": "Accept"})
        kind = JSON
        try:
            kind = over_http.answers_with(accept)
            answer = await service.answer(await _asked(), _here, g.account)
        except Refused as refused:
            return _told(_error(str(refused)), refused.status, kind, refused.headers)
        except RequestEntityTooLarge:
            return _told(_error(f"A request has at most {MAX_BODY_BYTES} bytes."), 413, kind)
        except HTTPException as error:  # the body did not come in time, say
            return _told(_error(error.description), error.code or 400, kind)
        return _told(answer, over_http.status_of(answer, kind), kind)

    return view


async def _here(question: Awaitable[T]) -> T:
    return await question  # a request over HTTP has no turn that others would wait for


def _is_visit(accept: str | None) -> bool:
    return request.method == "GET" and not request.query_string and over_http.wants_page(accept)


async def _asked() -> Request:
    if request.method in ("GET", "HEAD"):
        return over_http.read_get(request.query_string)
    body = await request.get_data()
    assert isinstance(body, bytes)
    return over_http.read_post(request.headers.get("Content-Type"), body)


def _error(words: str | None) -> Result:
    return {"errors": [{"message": words}]}


def _told(answer: Result, status: int, kind: str, headers: Mapping[str, str] | None = None) -> Response:
    told = Response(
        encode(answer), status, content_type=f"{kind}; charset=utf-8", headers=dict(headers or {})
    )
    told.headers["Vary"] = "Accept"
    return told


# -- descriptions for OpenAPI --------------------------------------------------------------------------


class Answered(TypedDict, total=False):
    """What a request is answered with."""

    data: dict[str, Any] | None
    errors: list[dict[str, Any]]


class Body(TypedDict):
    """A request."""

    query: str
    variables: NotRequired[dict[str, Any] | None]
    operationName: NotRequired[str | None]
    extensions: NotRequired[dict[str, Any] | None]


_ANSWERS: Final = {
    200: Answer("the result; mistakes in the document are in it, too", Answered),
    400: Answer(f"no request, or, for who accepts {GRAPHQL}, a mistake in the document", Answered, GRAPHQL),
    406: Answer("the client accepts none of both media types", Answered),
}
_GET: Final = About(
    "GraphQL: a query in the address",
    {**_ANSWERS, 303: Answer("a browser without a query: GraphiQL is there", headers={"Location": "where"})},
    parameters=(
        Parameter("query", str, "the document", required=True, example="{__typename}"),
        Parameter("variables", str, "the values of its variables, a JSON object"),
        Parameter("operationName", str, "which operation of the document"),
        Parameter("extensions", str, "a JSON object; nothing is done with it"),
    ),
)
_POST: Final = About(
    "GraphQL: a query in the body",
    {
        **_ANSWERS,
        413: Answer("the body is too long", Answered),
        415: Answer("the body is no JSON in UTF-8", Answered),
    },
    body=Body,
    more="Subscriptions go over WebSocket, at the same path: graphql-transport-ws.",
)
