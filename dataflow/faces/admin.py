"""The HTTP side of the gateway, and the door of the WebSocket side.

Rules of this file: requests are turned into calls and answers into JSON; what they mean is decided
elsewhere. Every error is `application/problem+json`. Whatever changes something is for the operator
alone: who has the admin token, or, when none is configured, who sits on this machine.
"""

from __future__ import annotations

import difflib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
import trio
from quart import Response, request, websocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from dataflow.core import State
from dataflow.domain.timestamps import to_rfc3339
from dataflow.faults.registry import SESSIONS, FaultError, Faults, TooManyFaults, UnknownFault
from dataflow.ops.metrics import exposition
from dataflow.ops.readiness import readiness
from dataflow.sources.state import Link
from supervisors import Node, SupervisionError

Handler = Callable[..., Awaitable[Response]]


class Tree(Protocol):
    """What the gateway may see and do of the supervision tree."""

    def tree(self, *, dynamic: bool = True) -> Node: ...


class Host(Protocol):
    """What the routes need of the actor that serves them."""

    @property
    def state(self) -> State: ...
    @property
    def root(self) -> Tree: ...
    def restart(self, path: str) -> None:
        """Have the actor at `path` restarted, soon. Raises UnknownChild."""

    async def attend(self, connection: Any) -> None:
        """Run the session of a WebSocket client until it ends or lives on by itself."""


class Order(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A fault as it is asked for; what is not said is decided by `Faults`."""

    path: str
    kind: str
    point: str | None = None
    seconds: float | None = None
    probability: float = 1.0
    times: int = 1


class Problem(Exception):
    """An error answer, as RFC 9457 has it; `more` are further members."""

    def __init__(self, status: int, title: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}


def create_app(host: Host) -> QuartTrio:
    """The application that `server.serve` hosts."""
    app = QuartTrio(__name__, static_folder=None)
    _add_errors(app)
    _add_pages(app, host)
    _add_actors(app, host)
    _add_faults(app, host)

    @app.websocket("/ws")
    async def ws() -> None:
        await host.attend(websocket)

    return app


def _json(body: Any, status: int = 200, mimetype: str = "application/json") -> Response:
    return Response(msgspec.json.encode(body), status, mimetype=mimetype)


def _add_errors(app: QuartTrio) -> None:
    @app.errorhandler(Problem)
    async def problem(error: Problem) -> Response:
        return _json(error.body, error.status, "application/problem+json")

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        return await problem(Problem(error.code or 500, error.name, error.description or error.name))

    @app.errorhandler(SupervisionError)
    async def supervision_error(error: SupervisionError) -> Response:
        return await problem(Problem(409, "Conflict", str(error)))

    @app.errorhandler(FaultError)
    async def fault_error(error: FaultError) -> Response:
        status, title = _FAULT_ERRORS.get(type(error), (400, "Bad Request"))
        return await problem(Problem(status, title, str(error), **error.data))

    @app.errorhandler(500)
    async def internal_error(_error: Exception) -> Response:
        return await problem(Problem(500, "Internal Server Error", "a failure inside; the log has it"))


def _add_pages(app: QuartTrio, host: Host) -> None:
    page = files(__package__).joinpath("page", "page.html").read_bytes()

    @app.get("/")
    async def index() -> Response:
        return Response(page, mimetype="text/html")

    @app.get("/health")
    async def health() -> Response:
        return _json({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        sources = host.state.sources.items()
        down = tuple(name for name, source in sources if source.link is not Link.CONNECTED)
        verdict = readiness(host.root.tree(dynamic=False), down)
        body = {"status": verdict.status, "not_ready": verdict.not_ready, "degraded": verdict.degraded}
        return _json(body, 503 if verdict.not_ready else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = exposition(host.state, host.root.tree(dynamic=False))
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")


def _add_actors(app: QuartTrio, host: Host) -> None:
    @app.get("/actors")
    async def actors() -> Response:
        return _json(_told(host.root.tree(), host.state))

    @app.get("/actors/<path:path>")
    async def actor(path: str) -> Response:
        return _json(_told(_find(host.root.tree(), path), host.state))

    @app.post("/actors/<path:path>/restart")
    async def restart(path: str) -> Response:
        _operator_only(host.state)
        _find(host.root.tree(), path)
        if path.startswith(f"{SESSIONS}/"):
            raise Problem(
                409, "Conflict", "a session is its client's: when it ends, the client comes back or not"
            )
        host.restart(path)
        return _json({"path": path, "status": "restarting"}, 202)


_FAULT_ERRORS = {TooManyFaults: (409, "Conflict"), UnknownFault: (404, "Not Found")}


def _add_faults(app: QuartTrio, host: Host) -> None:
    def allowed() -> Faults:
        _operator_only(host.state)
        if host.state.faults is None:
            raise Problem(403, "Forbidden", "faults need [chaos] enabled = true in the configuration")
        return host.state.faults

    @app.get("/faults")
    async def faults() -> Response:
        return _json(allowed().active())

    @app.post("/faults")
    async def inject() -> Response:
        registry = allowed()
        order = _order(await request.get_data())
        _find(host.root.tree(), order.path)
        return _json(registry.inject(**msgspec.structs.asdict(order)), 201)

    @app.delete("/faults/<int:id>")
    async def withdraw(id: int) -> Response:
        allowed().withdraw(id)
        return Response(b"", status=204)  # without any body Quart looks for an event loop of asyncio's


def _order(body: Any) -> Order:
    try:
        return msgspec.json.decode(body, type=Order)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "Bad Request", f"not a fault: {error}") from None


def _told(node: Node, state: State) -> dict[str, Any]:
    """`node` for people: times on the wall clock instead of the loop's."""
    offset = state.clock() - trio.current_time()

    def dated(plain: dict[str, Any]) -> dict[str, Any]:
        plain["since"] = to_rfc3339(int((plain["since"] + offset) * 1e9))
        for child in plain["children"]:
            dated(child)
        return plain

    return dated(node.to_dict())


def _find(tree: Node, path: str) -> Node:
    nodes = {node.path: node for node in _all_nodes(tree)}
    if path not in nodes:
        known = [each for each in nodes if each and not each.startswith(f"{SESSIONS}/")]
        nearest = difflib.get_close_matches(path, known, n=5, cutoff=0.3)
        raise Problem(404, "Not Found", f"there is no actor at {path!r}", nearest=nearest)
    return nodes[path]


def _all_nodes(node: Node) -> list[Node]:
    return [node, *(inner for child in node.children for inner in _all_nodes(child))]


def _operator_only(state: State) -> None:
    """Raises Problem unless the request may change something."""
    token = state.settings.gateway.admin_token
    if token is not None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Problem(401, "Unauthorized", "this needs the header 'Authorization: Bearer <admin_token>'")
        return
    if not _is_loopback(request.remote_addr):
        raise Problem(403, "Forbidden", "without an admin_token only the daemon's own machine may do this")
    _no_foreign_page()


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


def _no_foreign_page() -> None:
    """A page of another site, open in the operator's browser, must not act in the operator's name: neither
    by a request across origins, nor under a name of its own that it lets point at this machine."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise Problem(403, "Forbidden", f"a page of {origin} may not do this")
    name = urlsplit(f"//{request.host}").hostname
    if name != "localhost" and not _is_loopback(name):
        raise Problem(403, "Forbidden", f"without an admin_token this is not allowed under the name {name}")
