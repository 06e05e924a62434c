"""The OpenAPI 3.1 document of endpoints that are described.

Rules of this file: pure. It says what `About` says, and what holds for every endpoint: the checks of
`gateway.application`. Schemas are those that msgspec derives from types, JSON Schema 2020-12 as OpenAPI 3.1
wants them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from attrs import frozen

from dataflow.gateway.about import NOTHING, About, Answer, Parameter

PROBLEM_JSON: Final = "application/problem+json"
OPERATOR: Final = "operator"  # the security scheme
_VARIABLE: Final = re.compile(r"<(?:[^:<>]+:)?(\w+)>")
_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}

_ALWAYS: Final = {
    403: "the name in `Host` is not ours, or a page of another site asks",
    429: "this client asks for more than its quota has room for; `Retry-After` says when to come back",
    500: "a failure inside; the log has it",
}
_WITH_BODY: Final = {408: "the body did not come in time", 413: "the body is too large"}
_WITH_TOKEN: Final = {401: "the header `Authorization: Bearer TOKEN` is missing, or the token is wrong"}
_WITHOUT_TOKEN: Final = {403: f"{_ALWAYS[403]}; or the client is not on the daemon's own machine"}


class Problem(msgspec.Struct):
    """RFC 9457. Further members say what was wrong, and what would be right."""

    type: str
    title: str
    status: int
    detail: str


@frozen
class Endpoint:
    """A described endpoint of the face `face`. `path` as Quart writes it.

    `inside`: with a token it is for the operator only. `operator`: without one, too.
    """

    method: str
    path: str
    about: About
    face: str
    inside: bool = False
    operator: bool = False

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _VARIABLE.sub(r"{\1}", self.path)


def document(
    endpoints: Sequence[Endpoint],
    *,
    version: str,
    server: str = "/",
    faces: Mapping[str, str] | None = None,
    token: bool = False,
) -> dict[str, Any]:
    """The document. `server`: the prefix of all paths. `faces`: a line about each. `token`: the operator has
    one."""
    types = dict.fromkeys((Problem, *(each for endpoint in endpoints for each in _types(endpoint.about))))
    written, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(types, written, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(each.template, {})[each.method.lower()] = _operation(each, schemas, token)
    used = dict.fromkeys(each.face for each in endpoints)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dataflow",
            "version": version,
            "summary": "Trades and candles, live and of any time: the HTTP endpoints of this daemon",
            "description": _TEXT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "tags": [{"name": name, "description": (faces or {}).get(name, "")} for name in used],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                OPERATOR: {"type": "http", "scheme": "bearer", "description": _TOKEN if token else _NO_TOKEN}
            },
        },
    }


_TEXT: Final = (
    "What is served here depends on the faces that are switched on. `/faces` shows all of them, also those"
    " that speak over WebSocket, gRPC and TCP.\n\nEvery error is `application/problem+json` (RFC 9457)."
    " `HEAD` works wherever `GET` does."
)
_TOKEN: Final = "The token of the operator: `[operator] token`."
_NO_TOKEN: Final = (
    "No token is configured: what is for the operator is answered to clients on the daemon's own machine."
    " `[operator] token` changes that."
)


def _types(about: About) -> Iterable[Any]:
    """All types that it names."""
    yield from (parameter.type for parameter in about.parameters)
    if about.body is not NOTHING:
        yield about.body
    for answer in about.answers.values():
        if answer.type is not NOTHING:
            yield from (answer.type, *answer.also.values())


def _operation(endpoint: Endpoint, schemas: Mapping[Any, Any], token: bool) -> dict[str, Any]:
    about = endpoint.about
    guarded = token and (endpoint.operator or endpoint.inside)
    told: dict[str, Any] = {
        "operationId": _name(endpoint),
        "summary": about.summary,
        "tags": [endpoint.face],
        "parameters": [_parameter(each, schemas[each.type]) for each in about.parameters],
        "responses": _responses(endpoint, schemas, guarded),
    }
    if about.more:
        told["description"] = about.more
    if about.body is not NOTHING:
        content = {about.body_media: {"schema": schemas[about.body]}}
        told["requestBody"] = {"required": True, "content": content}
    if guarded:
        told["security"] = [{OPERATOR: []}]
    return told


def _name(endpoint: Endpoint) -> str:
    """For generators of clients, and unique: "get_api_v1_sources_name_"."""
    return endpoint.method.lower() + re.sub(r"\W+", "_", endpoint.template)


def _parameter(parameter: Parameter, schema: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.words,
        "required": parameter.required or parameter.place == "path",
        "schema": dict(schema),
    }
    if parameter.default is not NOTHING:
        told["schema"]["default"] = parameter.default
    if parameter.example is not NOTHING:
        told["example"] = parameter.example
    return told


def _responses(endpoint: Endpoint, schemas: Mapping[Any, Any], guarded: bool) -> dict[str, Any]:
    about = endpoint.about
    errors = {
        **_ALWAYS,
        **(_WITH_BODY if about.body is not NOTHING else {}),
        **(_WITH_TOKEN if guarded else _WITHOUT_TOKEN if endpoint.operator else {}),
    }
    for status, words in about.errors.items():
        errors[status] = f"{errors[status]}; or {words}" if status in errors else words
    told = {status: _answer(answer, schemas) for status, answer in about.answers.items()}
    problem = {"content": {PROBLEM_JSON: {"schema": _PROBLEM}}}
    told |= {
        status: {"description": words, **problem} for status, words in errors.items() if status not in told
    }
    return {str(status): told[status] for status in sorted(told)}


def _answer(answer: Answer, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"description": answer.words}
    headers = {**answer.headers, **answer.sometimes}
    if headers:
        text = {"schema": {"type": "string"}}
        told["headers"] = {
            name: {"description": words, "required": name in answer.headers, **text}
            for name, words in headers.items()
        }
    if answer.type is not NOTHING:
        media = {answer.media: answer.type, **answer.also}
        told["content"] = {name: {"schema": schemas[each]} for name, each in media.items()}
    return told
