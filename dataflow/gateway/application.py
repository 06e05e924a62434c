"""The HTTP application: the routes of all faces, who may ask them, and the one way of answering errors.

Rules of this file: no endpoint of its own. Every error is `application/problem+json` (RFC 9457). Every
request is checked here, before its handler is called: name and page by `Pages`, the operator by `Identity`.
Every answer gets its headers here; a handler that sets one of them itself keeps it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec
import trio
from attrs import evolve
from quart import Response, current_app, g, has_websocket_context, request, websocket
from quart.routing import QuartRule
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter, Map, WebsocketMismatch

from dataflow.server.handshake import Handshake, handshake_in
from dataflow.server.take_over import handshake_of
from supervisors import SupervisionError

from .face import Entrance, Route
from .identity import Identity
from .limits import Account
from .pages import Pages
from .problems import (
    Forbidden,
    InvalidValue,
    Problem,
    TooManyRequests,
    TooManySubscriptions,
    Unauthorised,
    Unavailable,
)

Attend = Callable[[Any, Entrance], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

NOTHING_LOADED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",  # every answer is about this moment
    "Content-Security-Policy": NOTHING_LOADED,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
MAX_BODY_BYTES = 65536  # of a request; 413 for more
BODY_SECONDS = 10  # in which it must have come, or 408
_WORD = "word_"  # begins the names of variables without a meaning
_CORS_REQUEST_HEADERS = "Authorization, Content-Type, Last-Event-ID, X-Requested-With, X-SignalR-User-Agent"
_CORS_ANSWER_HEADERS = "Link, Retry-After, ETag, Dataflow-Epoch, Dataflow-Rewound"
_SERVED = "dataflow.routes"
_STREAMED = "dataflow.streamed"
_CORS_SECONDS = "600"  # for which a browser may remember what is allowed

_STATUS: dict[type[Problem], tuple[int, str]] = {
    InvalidValue: (400, "Bad Request"),
    Unauthorised: (401, "Unauthorized"),
    Forbidden: (403, "Forbidden"),
    TooManySubscriptions: (429, "Too Many Requests"),
    TooManyRequests: (429, "Too Many Requests"),
    Unavailable: (503, "Service Unavailable"),
}


class HttpProblem(Exception):
    """An error answer, as RFC 9457 has it; `more` are further members, `retry_after` is in seconds."""

    def __init__(
        self, status: int, title: str, detail: str, *, retry_after: float | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(math.ceil(retry_after))
        self.body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}


def create_app(
    routes: Iterable[Route],
    entrances: Sequence[Entrance],
    attend: Attend,
    pages: Pages | None = None,
    identity: Identity | None = None,
    account: Callable[[Handshake], Account] | None = None,
) -> QuartTrio:
    """The application that `server.serve` hosts.

    `attend(websocket, entrance)` runs a WebSocket client that comes in through Quart: over HTTP/2, say.
    `account`: whose quotas hold for a client. Default: `pages` and `identity` as without a configuration, and
    no quotas. No two endpoints have one path: see `Hall.check_paths`.
    """
    pages, identity = pages or Pages(), identity or Identity(None)
    app = QuartTrio(__name__, static_folder=None)
    app.asgi_http_class = _Connection
    app.url_rule_class = _Rule
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, BODY_TIMEOUT=BODY_SECONDS)
    app.extensions[_SERVED] = routes = list(routes)
    app.extensions[_STREAMED] = tuple(each.path.partition("<")[0] for each in routes if each.streams)
    app.url_map.converters.update(word=_Word, undotted=_Undotted)
    _add_errors(app)
    _add_checks(app, pages)
    _add_headers(app, pages)
    _add_last_lines(app)
    if account is not None:
        _add_quotas(app, account)
    for number, route in enumerate(routes):
        handler = _guarded(route, identity)
        path = _in_any_case(route.path) if route.any_case else route.path
        app.add_url_rule(path, f"route-{number}", handler, methods=list(route.methods))
    for entrance in entrances:
        _add_socket(app, entrance, attend)
    return app


def mounted(app: AsgiApp, root_path: str) -> AsgiApp:
    """`app` below `root_path`, for a proxy that does not strip it; and without, for probes past the proxy."""
    if not root_path:
        return app
    location = f"{root_path}/".encode()

    async def below(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path == root_path and scope["type"] == "http":
            await send({"type": "http.response.start", "status": 308, "headers": [(b"location", location)]})
            await send({"type": "http.response.body"})
            return
        if path.startswith(f"{root_path}/"):
            scope = scope | {"path": path.removeprefix(root_path)}
        await app(scope, receive, send)

    return below


class _Connection(TrioASGIHTTPConnection):
    """A request whose handler may read the body piece by piece: the client waits until each is taken.

    Quart takes all that comes at once, whether it is read or not.
    """

    _pieces: trio.MemorySendChannel[bytes] | None = None

    def _create_request_from_scope(self, send: Any) -> Any:
        request = super()._create_request_from_scope(send)
        if request.path.startswith(self.app.extensions[_STREAMED]):
            self._pieces, request.body = trio.open_memory_channel[bytes](0)  # type: ignore[assignment]
        return request

    async def handle_messages(self, nursery: trio.Nursery, request: Any, receive: Any) -> None:  # type: ignore[override]
        if self._pieces is not None:
            async with self._pieces:
                more = True
                while more:
                    message = await receive()
                    more = message.get("more_body", False)
                    if message["type"] == "http.request" and message.get("body"):
                        await self._pieces.send(message["body"])
            if message["type"] == "http.disconnect":
                nursery.cancel_scope.cancel()
                return
        await super().handle_messages(nursery, request, receive)


class _Rule(QuartRule):
    """A path that is only matched: nobody asks for the address of an endpoint.

    Werkzeug compiles two functions for that, which is most of the time of a new application, and nobody is
    served meanwhile. Where Werkzeug has no method of this name, it takes that time, and nothing else changes.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        return _no_address


def _no_address(rule: _Rule, **values: Any) -> tuple[str, str]:
    raise LookupError("addresses are written by hand")


class _Word(BaseConverter):
    """In a path: this word in capital or small letters, without a value."""

    def __init__(self, map: Map, word: str) -> None:
        super().__init__(map)
        self.regex = f"(?i:{re.escape(word)})"


class _Undotted(BaseConverter):
    """In a path: a part without a dot."""

    regex = "[^./]+"


def _in_any_case(path: str) -> str:
    parts = path.removeprefix("/").split("/")
    words = (part if "<" in part else f'<word("{part}"):{_WORD}{at}>' for at, part in enumerate(parts))
    return "".join(f"/{word}" for word in words)


def _guarded(route: Route, identity: Identity) -> Callable[..., Awaitable[Response]]:
    """The handler of `route`, behind the check of who asks."""
    if route.any_case:
        route = evolve(route, handler=_without_words(route.handler), any_case=False)
    if not (route.operator or route.inside):
        return route.handler
    require = identity.require_operator if route.operator else identity.require_insight

    async def guarded(**variables: Any) -> Response:
        require(asker())
        return await route.handler(**variables)

    return guarded


def _without_words(handler: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    async def handle(**variables: Any) -> Response:
        return await handler(**{name: v for name, v in variables.items() if not name.startswith(_WORD)})

    return handle


def _add_checks(app: QuartTrio, pages: Pages) -> None:
    @app.before_request
    async def check_request() -> None:
        pages.check(asker())

    @app.before_websocket
    async def check_websocket() -> None:
        pages.check(handshake_of(websocket))


def _add_quotas(app: QuartTrio, account: Callable[[Handshake], Account]) -> None:
    @app.before_request
    async def pay_for_call() -> None:
        g.account = account(asker())
        g.account.call()

    @app.after_request
    async def pay_for_answer(answer: Any) -> Any:
        if "account" in g:
            g.account.pay((request.content_length or 0) + (answer.content_length or 0))
        return answer


def _add_headers(app: QuartTrio, pages: Pages) -> None:
    @app.after_request
    async def complete(answer: Any) -> Any:
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        if answer.status_code == 204:  # has no body: RFC 9110, section 8.6
            answer.headers.pop("Content-Length", None)
            answer.headers.pop("Content-Type", None)
        origin = request.headers.get("Origin")
        if origin is not None and pages.invites(origin, request.path):
            _share(answer, origin, pages.takes_credentials(request.path))
        return answer

    @app.after_websocket
    async def complete_refusal(answer: Any) -> Any:
        if answer is not None:  # None: it came in
            for name, value in _HEADERS.items():
                answer.headers.setdefault(name, value)
        return answer


def _add_last_lines(app: QuartTrio) -> None:
    @app.after_request
    async def end_last_line(answer: Any) -> Any:
        """JSON ends with a newline, so that a terminal shows it on lines of its own."""
        if answer.mimetype.endswith("json") and isinstance(answer.response, DataBody):
            body = await answer.get_data(as_text=False)
            if body and not body.endswith(b"\n"):
                answer.set_data(body + b"\n")
        return answer


def _share(answer: Any, origin: str, credentials: bool) -> None:
    """Let a page of `origin` read the answer (the Fetch standard's CORS protocol)."""
    if credentials:
        answer.headers["Access-Control-Allow-Credentials"] = "true"
    answer.headers["Access-Control-Allow-Origin"] = origin
    answer.headers["Access-Control-Expose-Headers"] = _CORS_ANSWER_HEADERS
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    answer.headers.add("Vary", "Origin")
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        answer.headers["Access-Control-Allow-Methods"] = answer.headers.get("Allow", "")
        answer.headers["Access-Control-Allow-Headers"] = _CORS_REQUEST_HEADERS
        answer.headers["Access-Control-Max-Age"] = _CORS_SECONDS


def json_response(body: Any, status: int = 200, mimetype: str = "application/json") -> Response:
    """`body` as JSON."""
    return Response(msgspec.json.encode(body), status, mimetype=mimetype)


def moved_to(address: str) -> Callable[[], Awaitable[Response]]:
    """The handler of a page that has moved. The address is relative: nobody knows where the daemon is."""

    async def moved() -> Response:
        return Response(b"", status=302, headers={"Location": address})

    return moved


async def file_response(content: bytes, mimetype: str | None) -> Response:
    """A file: a browser asks again each time, and is answered 304 as long as it is the same."""
    answer = Response(content, mimetype=mimetype, headers={"Cache-Control": "no-cache"})
    await answer.add_etag()
    await answer.make_conditional(request)
    return answer


def served() -> Sequence[Route]:
    """All endpoints of the listener that the request in hand came to."""
    routes: Sequence[Route] = current_app.extensions[_SERVED]
    return routes


async def not_an_upgrade() -> Response:
    """The handler of a WebSocket's path whose clients of old get a 400, not a 426, without an upgrade."""
    raise HttpProblem(400, "Bad Request", "this is a WebSocket endpoint: ask for it with an upgrade")


def chosen(offered: Sequence[str], *, strict: bool = True) -> str:
    """The one of these media that the client likes best; of equals the first.

    If it likes none: HttpProblem, 406; without `strict` the first.
    """
    accepted = [(each.partition(";")[0].strip().lower(), weight) for each, weight in request.accept_mimetypes]
    if not request.headers.get("Accept", "").strip():
        return offered[0]
    weights = {media: _weight(media, accepted) for media in offered}
    best = max(offered, key=lambda media: weights[media])
    if weights[best] <= 0 and strict:
        detail = f"there is no answer in {request.headers['Accept'][:80]!r}"
        raise HttpProblem(406, "Not Acceptable", detail, valid=list(offered))
    return best


def _weight(media: str, accepted: Collection[tuple[str, float]]) -> float:
    """How much a client likes it: what it says of exactly this one counts more than of all of a kind."""
    for pattern in (media, media.partition("/")[0] + "/*", "*/*"):
        said = [weight for name, weight in accepted if name == pattern]
        if said:
            return max(said)
    return 0.0


def asker() -> Handshake:
    """The client of the request in hand, as it introduced itself."""
    return handshake_in(request.scope, request.path)


def _add_socket(app: QuartTrio, entrance: Entrance, attend: Attend) -> None:
    async def come_in(**_variables: object) -> None:
        if entrance.check is not None:
            entrance.check(handshake_of(websocket, entrance.socket))
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
        words = error.description or error.name
        if isinstance(error, NotFound):
            path = (websocket if has_websocket_context() else request).path
            words = f"nothing is served at {path}: a wrong path, or one of a face that is off"
        problem = HttpProblem(error.code or 500, error.name, words)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            problem.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return await http_problem(problem)

    @app.errorhandler(WebsocketMismatch)
    async def mismatch(_error: WebsocketMismatch) -> Response:
        return await http_problem(_no_websocket_here() if has_websocket_context() else websocket_only())

    @app.errorhandler(Problem)
    async def problem(error: Problem) -> Response:
        status, title = next(_STATUS[each] for each in type(error).__mro__ if each in _STATUS)
        wait = error.retry_after if isinstance(error, TooManyRequests) else None
        told = HttpProblem(status, title, error.summary, retry_after=wait, **error.data)
        if status == 401:
            told.headers["WWW-Authenticate"] = 'Bearer realm="dataflow"'
        return await http_problem(told)

    @app.errorhandler(SupervisionError)
    async def supervision_error(error: SupervisionError) -> Response:
        return await http_problem(HttpProblem(409, "Conflict", str(error)))

    @app.errorhandler(500)
    async def internal_error(_error: Exception) -> Response:
        return await http_problem(
            HttpProblem(500, "Internal Server Error", "a failure inside; the log has it")
        )


def websocket_only() -> HttpProblem:
    """The answer to a handshake that lacks what it needs; a proxy may have taken it away."""
    if request.http_version not in ("1.0", "1.1"):  # there it has no Upgrade: RFC 9113, section 8.6
        return HttpProblem(
            400,
            "Bad Request",
            "this is a WebSocket endpoint: over HTTP/2 it needs an extended CONNECT (RFC 8441)",
        )
    problem = HttpProblem(
        426,
        "Upgrade Required",
        "this is a WebSocket endpoint: the request must have 'Upgrade: websocket' and 'Connection: Upgrade'."
        " A proxy on the way must pass both headers on, over HTTP/1.1",
    )
    problem.headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    return problem


def _no_websocket_here() -> HttpProblem:
    return HttpProblem(400, "Bad Request", "this is no WebSocket endpoint: ask for it without an upgrade")
