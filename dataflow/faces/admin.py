"""The operator's interface over HTTP: health, readiness, metrics, the supervision tree, faults.

Rules of this file: it translates requests into calls and answers into JSON; other modules decide. Endpoints
that change something are for the operator only (see `gateway.identity`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import msgspec
import trio
from attrs import frozen
from quart import Response, request

from dataflow.domain.secrets import concealed
from dataflow.domain.timestamps import to_rfc3339
from dataflow.faults.registry import FaultError, Faults, TooManyFaults, UnknownFault
from dataflow.gateway import face
from dataflow.gateway.application import HttpProblem, asker, json_response
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.ops.metrics import exposition
from dataflow.ops.readiness import readiness
from dataflow.paths import SESSIONS
from dataflow.settings.schema import FaceSettings
from dataflow.sources.state import LinkState
from supervisors import Node

_FAULT_ERRORS = {TooManyFaults: (409, "Conflict"), UnknownFault: (404, "Not Found")}


class FaultRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /faults`. `Faults` chooses a `point` and `seconds` where they are missing."""

    path: str
    kind: str
    point: str | None = None
    seconds: float | None = None
    probability: float = 1.0
    times: int = 1


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.admin]`."""


class Face(face.Face):
    """Endpoints alone."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        desk = _Admin(hall)
        return (
            Route("/health", desk.health),
            Route("/ready", desk.ready),
            Route("/metrics", desk.metrics),
            Route("/actors", desk.actors),
            Route("/actors/<path:path>", desk.actor),
            Route("/actors/<path:path>/restart", desk.restart, ("POST",)),
            Route("/faults", desk.faults),
            Route("/faults", desk.inject, ("POST",)),
            Route("/faults/<int:id>", desk.withdraw, ("DELETE",)),
        )


class _Admin:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def health(self) -> Response:
        return json_response({"status": "ok"})

    async def ready(self) -> Response:
        sources = self._hall.core.sources.items()
        down = tuple(name for name, source in sources if source.link is not LinkState.CONNECTED)
        verdict = readiness(self._hall.tree(dynamic=False), down)
        body = {"status": verdict.status, "not_ready": verdict.not_ready, "degraded": verdict.degraded}
        return json_response(body, 503 if verdict.not_ready else 200)

    async def metrics(self) -> Response:
        text = exposition(self._hall.core, self._hall.lobby, self._hall.tree(dynamic=False))
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")

    async def actors(self) -> Response:
        return json_response(self._told(self._hall.tree()))

    async def actor(self, path: str) -> Response:
        return json_response(self._told(_find(self._hall.tree(), path)))

    async def restart(self, path: str) -> Response:
        self._require_operator()
        _find(self._hall.tree(), path)
        if path.startswith(f"{SESSIONS}/"):
            raise HttpProblem(
                409, "Conflict", "a session is its client's: when it ends, the client comes back or not"
            )
        self._hall.restart(path)
        return json_response({"path": path, "status": "restarting"}, 202)

    async def faults(self) -> Response:
        return json_response(self._allowed().active())

    async def inject(self) -> Response:
        registry = self._allowed()
        wanted = _fault_request(await request.get_data())
        _find(self._hall.tree(), wanted.path)
        try:
            return json_response(registry.inject(**msgspec.structs.asdict(wanted)), 201)
        except FaultError as error:
            raise _as_problem(error) from None

    async def withdraw(self, id: int) -> Response:
        try:
            self._allowed().withdraw(id)
        except FaultError as error:
            raise _as_problem(error) from None
        return Response(b"", status=204)  # with no body at all, Quart looks for an event loop of asyncio

    def _require_operator(self) -> None:
        self._hall.identity.require_operator(asker())

    def _allowed(self) -> Faults:
        self._require_operator()
        if self._hall.core.faults is None:
            raise HttpProblem(403, "Forbidden", "faults need [chaos] enabled = true in the configuration")
        return self._hall.core.faults

    def _told(self, node: Node) -> dict[str, Any]:
        """`node` as JSON: its times on the wall clock instead of the event loop's clock, and no secrets."""
        offset = self._hall.core.clock() - trio.current_time()

        def dated(plain: dict[str, Any]) -> dict[str, Any]:
            plain["since"] = to_rfc3339(int((plain["since"] + offset) * 1e9))
            plain["last_error"] = plain["last_error"] and concealed(plain["last_error"])
            for child in plain["children"]:
                dated(child)
            return plain

        return dated(node.to_dict())


def _as_problem(error: FaultError) -> HttpProblem:
    status, title = _FAULT_ERRORS.get(type(error), (400, "Bad Request"))
    return HttpProblem(status, title, str(error), **error.data)


def _fault_request(body: Any) -> FaultRequest:
    try:
        return msgspec.json.decode(body, type=FaultRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpProblem(400, "Bad Request", f"not a fault: {error}") from None


def _find(tree: Node, path: str) -> Node:
    nodes = {node.path: node for node in _all_nodes(tree)}
    if path not in nodes:
        known = [each for each in nodes if each and not each.startswith(f"{SESSIONS}/")]
        nearest = difflib.get_close_matches(path, known, n=5, cutoff=0.3)
        raise HttpProblem(404, "Not Found", f"there is no actor at {path!r}", nearest=nearest)
    return nodes[path]


def _all_nodes(node: Node) -> list[Node]:
    return [node, *(inner for child in node.children for inner in _all_nodes(child))]
