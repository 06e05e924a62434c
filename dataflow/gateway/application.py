"""The HTTP application: the routes of all faces, and the one way in which errors are answered.

Rules of this file: no endpoint of its own. Every error is `application/problem+json` (RFC 9457).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
from quart import Response, request, websocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from dataflow.server.handshake import Handshake
from supervisors import SupervisionError

from .face import Entrance, Route
from .problems import Forbidden, InvalidValue, Problem, TooManySubscriptions, Unauthorised, Unavailable

Attend = Callable[[Any, Entrance], Awaitable[None]]

_STATUS: dict[type[Problem], tuple[int, str]] = {
    InvalidValue: (400, "Bad Request"),
    Unauthorised: (401, "Unauthorized"),
    Forbidden: (403, "Forbidden"),
    TooManySubscriptions: (429, "Too Many Requests"),
    Unavailable: (503, "Service Unavailable"),
}


class HttpProblem(Exception):
    """An error answer, as RFC 9457 has it; `more` are further members, `retry_after` is in seconds."""

    def __init__(
        self, status: int, title: str, detail: str, *, retry_after: float | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
        self.body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}


def create_app(routes: Iterable[Route], entrances: Sequence[Entrance], attend: Attend) -> QuartTrio:
    """The application that `server.serve` hosts.

    `attend(websocket, entrance)` runs a WebSocket client that comes in through Quart: over HTTP/2, say.
    Raises ValueError when two endpoints have one path.
    """
    app = QuartTrio(__name__, static_folder=None)
    routes = list(routes)
    _check_paths([(method, route.path) for route in routes for method in route.methods])
    _check_paths([entrance.socket.path for entrance in entrances])
    _add_errors(app)
    for number, route in enumerate(routes):
        app.add_url_rule(route.path, f"route-{number}", route.handler, methods=list(route.methods))
    for entrance in entrances:
        _add_socket(app, entrance, attend)
    return app


def _check_paths(paths: Sequence[Any]) -> None:
    twice = {path for path in paths if paths.count(path) > 1}
    if twice:
        raise ValueError(f"two faces want the same path: {sorted(map(str, twice))}")


def json_response(body: Any, status: int = 200, mimetype: str = "application/json") -> Response:
    """`body` as JSON."""
    return Response(msgspec.json.encode(body), status, mimetype=mimetype)


def asker() -> Handshake:
    """The client of the request in hand, as it introduced itself."""
    scope: Any = request.scope
    client = scope.get("client")
    return Handshake(
        path=request.path,
        query=scope["query_string"].decode("latin-1"),
        headers=tuple(scope["headers"]),
        peer=f"{client[0]}:{client[1]}" if client else "unknown",
        encrypted=request.is_secure,
    )


def _add_socket(app: QuartTrio, entrance: Entrance, attend: Attend) -> None:
    async def come_in() -> None:
        await attend(websocket, entrance)

    path = entrance.socket.path
    app.add_websocket(path, f"socket-{path}", come_in)


def _add_errors(app: QuartTrio) -> None:
    @app.errorhandler(HttpProblem)
    async def http_problem(error: HttpProblem) -> Response:
        answer = json_response(error.body, error.status, "application/problem+json")
        answer.headers.update(error.headers)
        return answer

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        problem = HttpProblem(error.code or 500, error.name, error.description or error.name)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            problem.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return await http_problem(problem)

    @app.errorhandler(Problem)
    async def problem(error: Problem) -> Response:
        status, title = next(_STATUS[each] for each in type(error).__mro__ if each in _STATUS)
        return await http_problem(HttpProblem(status, title, error.summary, **error.data))

    @app.errorhandler(SupervisionError)
    async def supervision_error(error: SupervisionError) -> Response:
        return await http_problem(HttpProblem(409, "Conflict", str(error)))

    @app.errorhandler(500)
    async def internal_error(_error: Exception) -> Response:
        return await http_problem(
            HttpProblem(500, "Internal Server Error", "a failure inside; the log has it")
        )
