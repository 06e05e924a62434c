"""The operator's interface over HTTP: health, readiness, metrics, the supervision tree, faults.

Rules of this file: it translates requests into calls and answers into JSON; other modules decide. Each route
says whether it is for the operator only (see `gateway.face.Route`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypedDict, TypeVar

import msgspec
import trio
from attrs import frozen
from msgspec import Meta
from quart import Response, request

from dataflow import paths
from dataflow.domain.secrets import concealed
from dataflow.domain.timestamps import to_rfc3339
from dataflow.faults.registry import (
    NO_CHAOS,
    FaultError,
    Faults,
    Injected,
    Kind,
    TooManyFaults,
    UnknownFault,
)
from dataflow.gateway import face, spelled, spelling
from dataflow.gateway.about import About, Answer, Parameter, Sample, simple
from dataflow.gateway.application import HttpProblem, json_response
from dataflow.gateway.desk import MAX_CLIENTS, MAX_EVENTS, MAX_TOPICS
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.gateway.load import KEPT
from dataflow.gateway.problems import InvalidValue
from dataflow.gateway.spelling import encode
from dataflow.ops.metrics import exposition
from dataflow.ops.readiness import ready
from dataflow.paths import SESSIONS, SOURCES, below
from dataflow.settings.schema import FaceSettings
from supervisors import Node

N = TypeVar("N", int, float)

TOPICS: Final = 50  # in one answer, unless the request says otherwise
CLIENTS: Final = 50  # in one answer, unless the request says otherwise
EVENTS: Final = 200  # likewise
REASON_TOLD: Final = 80  # characters: a close frame has room for little more

_FAULT_ERRORS = {TooManyFaults: (409, "Conflict"), UnknownFault: (404, "Not Found")}


class FaultRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /faults`. `Faults` chooses a `point` and `seconds` where they are missing."""

    path: str
    kind: str
    point: str | None = None
    seconds: float | None = None
    probability: float = 1.0
    times: int = 1


class Alive(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class Verdict(TypedDict):
    """Whether the daemon is ready, and what is not."""

    status: Literal["ready", "degraded", "not ready"]
    not_ready: Annotated[list[str], Meta(description="paths of actors that should run and do not")]
    degraded: Annotated[
        list[str], Meta(description="paths of sources that are down, and what is wrong with the history")
    ]


class Mailbox(TypedDict):
    """Counters: accepted = handled + queued + all dropped + lost_in_flight."""

    size: spelled.Count
    overflow: Annotated[str, Meta(description="what a full mailbox does", examples=["block", "conflate"])]
    accepted: spelled.Count
    handled: spelled.Count
    queued: spelled.Count
    dropped: Annotated[
        dict[str, spelled.Count],
        Meta(description="by reason; `conflated` is no loss: a newer one stands for it"),
    ]
    lost_in_flight: Annotated[int, Meta(description="in the hand of the actor at its crashes", ge=0)]
    lost_at: Annotated[spelled.Time | None, Meta(description="of the newest one lost in flight")]


class _Actor(TypedDict):
    path: Annotated[str, Meta(description="empty: the root")]
    kind: Literal["actor", "supervisor", "pool"]
    state: Literal["idle", "starting", "running", "backoff", "stopping", "done"]
    epoch: Annotated[int, Meta(description="of its newest incarnation; 0 before the first", ge=0)]
    restarts: spelled.Count
    last_error: Annotated[str | None, Meta(description="null again once it is forgiven")]
    last_error_at: spelled.Time | None
    since: Annotated[spelled.Time, Meta(description="begin of this state")]
    mailbox: Annotated[Mailbox | None, Meta(description="null: a supervisor has none")]
    age: Annotated[spelled.Seconds, Meta(description="seconds since then")]


class Actor(_Actor, total=False):
    """An actor of the supervision tree, with all below it."""

    children: list[Actor]
    delivered: Annotated[spelled.Delivered, Meta(description="of sources alone")]
    quality: Annotated[spelled.SymbolsOfSource, Meta(description="of sources alone")]
    line: Annotated[spelled.Line, Meta(description="of connections to sources alone")]


class Restarting(TypedDict):
    """A restart that has been asked for."""

    path: str
    status: Literal["restarting"]


class Ending(TypedDict):
    """A client that is shown out."""

    id: int
    status: Literal["ending"]


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.admin]`."""


class Face(face.Face):
    """Endpoints alone."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        desk = _Admin(hall)
        return (
            Route("/health", desk.health, about=_HEALTH),
            Route("/ready", desk.ready, about=_READY),
            Route("/metrics", desk.metrics, inside=True, about=_METRICS),
            Route("/actors", desk.actors, inside=True, about=_ACTORS),
            Route("/actors/<path:path>", desk.actor, inside=True, about=_ACTOR),
            Route("/actors/<path:path>/restart", desk.restart, ("POST",), operator=True, about=_RESTART),
            Route("/api/v1/load", desk.load, inside=True, about=_LOAD),
            Route("/api/v1/topics", desk.topics, operator=True, about=_TOPICS),
            Route("/faults", desk.faults, operator=True, about=_FAULTS),
            Route("/faults", desk.inject, ("POST",), operator=True, about=_INJECT),
            Route("/faults/<int:id>", desk.withdraw, ("DELETE",), operator=True, about=_WITHDRAW),
            Route("/api/v1/events", desk.events, inside=True, about=_EVENTS),
            Route("/api/v1/sources/<name>/problems", desk.problems, inside=True, about=_PROBLEMS),
            Route("/api/v1/clients", desk.clients, operator=True, about=_CLIENTS),
            Route("/api/v1/clients/<int:id>", desk.client, operator=True, about=_CLIENT),
            Route("/api/v1/clients/<int:id>", desk.end_client, ("DELETE",), operator=True, about=_END),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        yield simple("Readiness", "/ready", "Whether everything runs; 503 when something does not.")


class _Admin:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def health(self) -> Response:
        return json_response({"status": "ok"})

    async def ready(self) -> Response:
        verdict = ready(self._hall)
        body = {"status": verdict.status, "not_ready": verdict.not_ready, "degraded": verdict.degraded}
        code = _number("code", int, 503)
        if code not in (200, 503):
            raise InvalidValue("code", code, "must be 503 or 200")
        return json_response(body, code if verdict.not_ready else 200)

    async def metrics(self) -> Response:
        text = exposition(self._hall.core, self._hall.lobby, self._hall.tree(dynamic=False))
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")

    async def actors(self) -> Response:
        return json_response(self._told(self._hall.tree()))

    async def actor(self, path: str) -> Response:
        return json_response(self._told(_find(self._hall.tree(), path)))

    async def restart(self, path: str) -> Response:
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

    async def load(self) -> Response:
        return _spelled(spelling.load(self._hall.desk.load(_number("last", int, KEPT))))

    async def topics(self) -> Response:
        return _spelled(spelling.topics(self._hall.desk.topics(_number("limit", int, TOPICS))))

    async def events(self) -> Response:
        after = _number("after", int, 0) if "after" in request.args else None
        return _spelled(spelling.events(self._hall.desk.events(after, _number("limit", int, EVENTS))))

    async def problems(self, name: str) -> Response:
        known = self._hall.core.sources
        if name not in known:
            raise HttpProblem(404, "Not Found", f"there is no source {name!r}", valid=list(known))
        return _spelled(spelling.problems(self._hall.desk.unusable(name)))

    async def clients(self) -> Response:
        after, limit = _number("after", int, 0), _number("limit", int, CLIENTS)
        return _spelled(
            spelling.clients(
                self._hall.desk.clients(after, limit, _number("behind", float, 0.0), request.args.get("most"))
            )
        )

    async def client(self, id: int) -> Response:
        info = self._hall.desk.client(id)
        if info is None:
            raise _no_client(id)
        return _spelled(spelling.client(info))

    async def end_client(self, id: int) -> Response:
        session = self._hall.desk.session(id)
        if session is None:
            raise _no_client(id)
        self._hall.show_out(session, request.args.get("reason", "")[:REASON_TOLD])
        return _spelled({"id": id, "status": "ending"}, 202)

    def _sources(self) -> dict[str, Any]:
        return {name: spelling.source(info) for name, info in self._hall.desk.sources().items()}

    def _allowed(self) -> Faults:
        if self._hall.core.faults is None:
            raise HttpProblem(403, "Forbidden", NO_CHAOS)
        return self._hall.core.faults

    def _told(self, node: Node) -> dict[str, Any]:
        """`node` as JSON: moments of the event loop's clock become ages and times, and a source tells what it
        delivered, how its symbols fare, and how its connections are. No secrets."""
        now, ago, sources = trio.current_time(), self._hall.core.ago, self._sources()
        lines = {
            paths.line(name, line["number"]): line for name, of in sources.items() for line in of["lines"]
        }

        def dated(plain: dict[str, Any]) -> dict[str, Any]:
            children = plain.pop("children")
            plain["age"] = round(now - plain["since"], 3)
            for part, key in ((plain, "since"), (plain, "last_error_at"), (plain["mailbox"], "lost_at")):
                if part is not None and part[key] is not None:
                    part[key] = to_rfc3339(ago(now - part[key]))
            plain["last_error"] = plain["last_error"] and concealed(plain["last_error"])
            source = sources.get(below(SOURCES, plain["path"]) or "")
            if source is not None:
                plain["delivered"], plain["quality"] = source["delivered"], source["quality"]
            if (line := lines.get(plain["path"])) is not None:
                plain["line"] = line
            return plain | {"children": [dated(child) for child in children]}

        return dated(node.to_dict())


def _spelled(body: Any, status: int = 200) -> Response:
    return Response(encode(body), status, mimetype="application/json")


def _number(name: str, kind: type[N], default: N) -> N:
    """The parameter `name` of the query. Raises InvalidValue."""
    text = request.args.get(name)
    try:
        value = default if text is None else kind(text)
    except ValueError:
        value = kind(-1)
    if not 0 <= value < math.inf:
        raise InvalidValue(name, text, f"must be {'a whole' if kind is int else 'a'} number, 0 or more")
    return value


def _no_client(id: int) -> HttpProblem:
    return HttpProblem(404, "Not Found", f"there is no client {id}: it has left, or never came")


def _as_problem(error: FaultError) -> HttpProblem:
    status, title = _FAULT_ERRORS.get(type(error), (400, "Bad Request"))
    return HttpProblem(status, title, str(error), **error.data)


_json: Final = msgspec.json.Decoder(float_hook=spelling.read_number)


def _fault_request(body: Any) -> FaultRequest:
    try:
        return msgspec.convert(_json.decode(body), FaultRequest)
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


# -- descriptions for OpenAPI --------------------------------------------------------------------------

_PATH: Final = Parameter("path", str, "the path of an actor", place="path", example="cache/shard-0")
_FAULT_ID: Final = Parameter("id", Annotated[int, Meta(ge=0)], "the id of a fault", place="path")
_CLIENT_ID: Final = Parameter("id", Annotated[int, Meta(ge=0)], "the id of a client", place="path")
_NO_ACTOR: Final = "no actor has this path; `nearest` has similar ones"
_NO_CHAOS: Final = "faults need `[chaos] enabled = true`"

_HEALTH: Final = About("Whether the process answers", {200: Answer("it does", Alive)})
_READY: Final = About(
    "Whether everything runs",
    {
        200: Answer(
            "ready; or degraded: sources are down or the history is not written, all else is served", Verdict
        ),
        503: Answer("not ready", Verdict),
    },
    {400: "`code` is neither 503 nor 200"},
    parameters=(
        Parameter(
            "code",
            Literal[503, 200],
            "the status of an answer `not ready`; 200 for a page, whose browser complains about 503",
            default=503,
        ),
    ),
)
_METRICS: Final = About(
    "Metrics for Prometheus",
    {200: Answer("the text format of Prometheus", str, "text/plain")},
)
_ACTORS: Final = About("The supervision tree", {200: Answer("the root, with all below it", Actor)})
_ACTOR: Final = About(
    "One actor of the supervision tree",
    {200: Answer("the actor, with all below it", Actor)},
    {404: _NO_ACTOR},
    parameters=(_PATH,),
)
_RESTART: Final = About(
    "Restart an actor",
    {202: Answer("its supervisor restarts it", Restarting)},
    {404: _NO_ACTOR, 409: "it is a client's session", 503: "the HTTP server itself is just being restarted"},
    parameters=(_PATH,),
    more="It stops politely and starts anew, with all below it. Nothing beside it restarts.",
)
_LOAD: Final = About(
    "How much there was to do",
    {200: Answer("small series, one sample a second", spelled.Load)},
    {400: "a value out of its range"},
    parameters=(
        Parameter("last", Annotated[int, Meta(ge=1, le=KEPT)], "only so many samples", default=KEPT),
    ),
    more="The daemon keeps those of the last quarter of an hour.",
)
_TOPICS: Final = About(
    "The open topics",
    {200: Answer("a part of them, the most active first", spelled.Topics)},
    {400: "a value out of its range"},
    parameters=(
        Parameter("limit", Annotated[int, Meta(ge=1, le=MAX_TOPICS)], "topics in the answer", default=TOPICS),
    ),
)
_FAULTS: Final = About(
    "The faults in force", {200: Answer("injected faults", list[Injected])}, {403: _NO_CHAOS}
)
_INJECT: Final = About(
    "Inject a fault",
    {201: Answer("in force", Injected)},
    {
        400: "no such fault; the members of the problem say what is possible",
        403: _NO_CHAOS,
        404: _NO_ACTOR,
        409: "too many faults are in force",
    },
    body=FaultRequest,
    more=f"`kind` is one of {', '.join(Kind)}. `seconds`: duration of a delay or hang.",
)
_WITHDRAW: Final = About(
    "Withdraw a fault",
    {204: Answer("withdrawn")},
    {403: _NO_CHAOS, 404: "no fault in force has this id"},
    parameters=(_FAULT_ID,),
)
_EVENTS: Final = About(
    "What happened",
    {200: Answer("crashes, restarts, sources lost and back, faults, reloads", spelled.Events)},
    {400: "a value out of its range"},
    parameters=(
        Parameter("after", Annotated[int, Meta(ge=0)], "only ids above this one; else the newest events"),
        Parameter("limit", Annotated[int, Meta(ge=1, le=MAX_EVENTS)], "events in the answer", default=EVENTS),
    ),
    more="The daemon keeps 1,000 of them in memory. Repetitions at one place within a second are one"
    " event. A burst of one kind pushes out no other kind.",
)
_PROBLEMS: Final = About(
    "Messages of a source that could not be used",
    {200: Answer("the newest 50", spelled.UnusableMessages)},
    {404: "no source has this name; `valid` has those that exist"},
    parameters=(Parameter("name", str, "the NAME of `[sources.NAME]`", place="path", example="binance"),),
)
_CLIENTS: Final = About(
    "The clients, and the last ones that left",
    {200: Answer("a part of them, the oldest first", spelled.Clients)},
    {400: "a value out of its range"},
    parameters=(
        Parameter("after", Annotated[int, Meta(ge=0)], "only ids above this one", default=0),
        Parameter(
            "limit", Annotated[int, Meta(ge=1, le=MAX_CLIENTS)], "clients in the answer", default=CLIENTS
        ),
        Parameter(
            "behind",
            Annotated[float, Meta(ge=0)],
            "only those whose outbox holds something so many seconds old; 0: all",
            default=0,
        ),
        Parameter(
            "most",
            Literal["rate", "sent", "dropped", "waiting", "oldest"],
            "those that have most of it, the foremost first, and no `next`; `rate`: messages a second since"
            " they came, `waiting`: bytes in the outbox, `oldest`: how long the oldest has waited there",
        ),
    ),
)
_CLIENT: Final = About(
    "One client",
    {200: Answer("the client", spelled.Client)},
    {404: "it has left, or never came"},
    parameters=(_CLIENT_ID,),
)
_END: Final = About(
    "End a client",
    {202: Answer("it is told so, and its session ends", Ending)},
    {404: "it has left, or never came"},
    parameters=(
        _CLIENT_ID,
        Parameter("reason", str, f"told to the client, at most {REASON_TOLD} characters", default=""),
    ),
)
