"""The protocol for tools: the OpenRPC document of its calls, and the AsyncAPI document of all its messages.

Rules of this file: pure; every word and type is that of `messages`. Schemas are those that msgspec derives,
written as JSON Schema draft 7 wants them, for that is what both kinds of documents have. The same trade has
its decimals as texts in the format `strings`: such schemas are made of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from dataflow.gateway import spelled

from .messages import ERRORS, EVERYWHERE, EXACT, METHODS, NOTIFICATIONS, Method, Row
from .protocol import MAX_BATCH

_REF: Final = "#/components/schemas/"
_SPELT: Final = ("Trade", "Filled", "StreamFilled", "SubscribedTrades", "Candle", "SubscribedCandles")
_AS_TEXTS: Final = "InStrings"  # behind the names of these
_ID: Final = {"type": ["string", "number", "null"]}
_JSONRPC: Final = {"const": "2.0"}
_INFO: Final = (
    "Trades, candles and their quality, live and resumable. Numbers have all digits of the source: read them"
    " as decimals. Times are RFC 3339 in UTC."
)


@cache
def openrpc(port: int, root_path: str, encrypted: bool) -> msgspec.Raw:
    """The OpenRPC 1.3 document, as JSON. `root_path`: the prefix of all paths."""
    s = "s" if encrypted else ""
    host = {"host": {"default": f"127.0.0.1:{port}", "description": "where the daemon is reached"}}
    socket = {"name": "WebSocket", "url": f"ws{s}://${{host}}{root_path}/ws", "variables": host}
    post = {"name": "POST", "url": f"http{s}://${{host}}{root_path}/api/v1/rpc", "variables": host}
    schemas = _Schemas()
    made = {
        "openrpc": "1.3.2",
        "info": _info("dataflow: JSON-RPC 2.0", " Notifications are described in /asyncapi.json."),
        "servers": [socket, post],
        "methods": [_method(name, each, schemas, [socket]) for name, each in METHODS.items()],
        "components": {"schemas": schemas.components},
    }
    return msgspec.Raw(msgspec.json.encode(made))


@cache
def asyncapi(port: int, root_path: str, encrypted: bool) -> bytes:
    """The AsyncAPI 3.0 document of the WebSocket, as JSON. `root_path`: the prefix of all paths."""
    schemas = _Schemas()
    messages = {**_calls(schemas), **_answers(schemas), **_notifications(schemas)}
    made = {
        "asyncapi": "3.0.0",
        "info": _info("dataflow: JSON-RPC 2.0 over WebSocket", " The calls alone are in rpc.discover."),
        "defaultContentType": "application/json",
        "servers": {
            "daemon": {
                "host": "{host}",
                "pathname": root_path or "/",
                "protocol": "wss" if encrypted else "ws",
                "variables": {
                    "host": {"default": f"127.0.0.1:{port}", "description": "where the daemon is reached"}
                },
            }
        },
        "channels": {
            "connection": {
                "address": "/ws",
                "title": "One client's connection",
                "description": "Answers, updates and notices arrive in the order in which they were made.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": _operations(),
        "components": {"messages": messages, "schemas": schemas.components},
    }
    return msgspec.json.encode(made)


def _info(title: str, more: str) -> dict[str, Any]:
    licence = {"name": "MIT"}
    return {"title": title, "version": version("dataflow"), "description": _INFO + more, "license": licence}


class _Schemas:
    """The schemas of all types. `components`: those that have names."""

    def __init__(self) -> None:
        types = list(_types())
        written, components = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
        self._written = {str(each): _draft_7(schema) for each, schema in zip(types, written, strict=True)}
        self.components: dict[str, Any] = _draft_7(components)
        self.components |= {name + _AS_TEXTS: self._as_texts(self.components[name]) for name in _SPELT}
        self.components |= {each.__name__: self._params(each) for each in _params_of_all()}

    def any_of(self, types: Iterable[Any], *, texts: bool = False) -> dict[str, Any]:
        """What may be of any of these types. `texts`: and with texts for decimals, where it has such."""
        found = [self._written[str(each)] for each in types]
        others = [self._as_texts(each) for each in found if self._as_texts(each) != each] if texts else []
        return _any_of([*found, *others])

    def _params(self, kind: type) -> dict[str, Any]:
        """A class of parameters. It may have values of other rooms, whose names are those of messages."""
        _, components = msgspec.json.schema_components((kind,), ref_template=_REF + "{name}")
        schema: dict[str, Any] = _draft_7(components[kind.__name__])
        for (of, name), types in EXACT.items():
            if of is kind:
                schema["properties"][name]["anyOf"] = [self._written[str(each)] for each in types]
        return schema

    def _as_texts(self, schema: Any) -> Any:
        """`schema` with texts for decimals, in what it refers to as well."""
        if isinstance(schema, list):
            return [self._as_texts(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        if schema.get("format") == spelled.DECIMAL:
            return schema | {"type": "string"}
        name = str(schema.get("$ref", "")).removeprefix(_REF)
        if name in _SPELT:
            return schema | {"$ref": f"{_REF}{name}{_AS_TEXTS}"}
        return {key: self._as_texts(each) for key, each in schema.items()}


def _types() -> Iterable[Any]:
    for method in METHODS.values():
        yield from method.results
    for types in EXACT.values():
        yield from types
    for notification in NOTIFICATIONS.values():
        yield from notification.types
    yield Row


def _params_of_all() -> Iterable[type]:
    return (method.params for method in METHODS.values() if method.params is not None)


def _draft_7(schema: Any) -> Any:
    """A schema of 2020-12, as far as msgspec writes such, in the words of draft 7."""
    if isinstance(schema, list):
        return [_draft_7(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _draft_7(each) for key, each in schema.items()}
    if "prefixItems" in made:
        made["items"], made["additionalItems"] = made.pop("prefixItems"), False
    return made


def _any_of(schemas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"anyOf": [*schemas]} if len(schemas) > 1 else {**schemas[0]}


def _result(method: Method, schemas: _Schemas) -> dict[str, Any]:
    one = schemas.any_of(method.results, texts=method.follows)
    return _any_of([one, {"type": "array", "items": one}]) if method.or_list else one


# -- OpenRPC -------------------------------------------------------------------------------------------


def _method(name: str, method: Method, schemas: _Schemas, socket: Sequence[Any]) -> dict[str, Any]:
    said, result = method.example
    told: dict[str, Any] = {
        "name": name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": _params(method, schemas),
        "result": {"name": "result", "schema": _result(method, schemas)},
        "errors": [
            {"code": code, "message": ERRORS[code][0], "data": ERRORS[code][1]}
            for code in (*method.errors, *EVERYWHERE)
        ],
        "examples": [
            {
                "name": name,
                "params": [{"name": each, "value": value} for each, value in said.items()],
                "result": {"name": "result", "value": result},
            }
        ],
    }
    return told | ({"servers": socket, "description": "It needs a connection."} if method.follows else {})


def _params(method: Method, schemas: _Schemas) -> list[dict[str, Any]]:
    if method.params is None:
        return []
    component = schemas.components[method.params.__name__]
    required = component.get("required", ())
    return [
        {"name": name, "required": name in required, "schema": schema}
        for name, schema in component["properties"].items()
    ]


# -- AsyncAPI ------------------------------------------------------------------------------------------


def _object(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": [*required], "properties": properties}


def _message(name: str, summary: str, payload: Any, *, answered: bool = False) -> dict[str, Any]:
    told = {"name": name, "title": name, "summary": summary, "payload": payload}
    return told | ({"correlationId": {"location": "$message.payload#/id"}} if answered else {})


def _call_of(name: str) -> str:
    return f"{name}.call"


def _result_of(name: str) -> str:
    return f"{name}.result"


def _payload_of(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{name}/payload"}


def _calls(schemas: _Schemas) -> dict[str, Any]:
    made = {}
    for name, method in METHODS.items():
        parts: dict[str, Any] = {"jsonrpc": _JSONRPC, "id": _ID, "method": {"const": name}}
        if method.params is not None:
            component = schemas.components[method.params.__name__]
            in_order = [*component["properties"].values()]
            by_place = {
                "type": "array",
                "description": f"in this order: {', '.join(component['properties'])}",
                "items": in_order,
                "additionalItems": False,
            }
            parts["params"] = _any_of([{"$ref": _REF + method.params.__name__}, by_place])
        required = ["jsonrpc", "method", *(["params"] if method.params else [])]
        call = _object(required, **parts)
        made[_call_of(name)] = _message(_call_of(name), method.summary, call, answered=True)
    anything = _any_of([_payload_of(_call_of(name)) for name in METHODS])
    several = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": anything}
    return made | {"calls": _message("calls", "Several calls, which run in this order", several)}


def _answers(schemas: _Schemas) -> dict[str, Any]:
    made = {}
    for name, method in METHODS.items():
        required = ("jsonrpc", "result", "id")
        result = _object(required, jsonrpc=_JSONRPC, result=_result(method, schemas), id=_ID)
        summary = f"The answer to {name}"
        made[_result_of(name)] = _message(_result_of(name), summary, result, answered=True)
    codes = "; ".join(f"{code}: {when}" for code, (_, when) in ERRORS.items())
    error = _object(
        ("code", "message"),
        code={"enum": [*ERRORS], "description": codes},
        message={"type": "string"},
        data={"type": "object", "description": "what was wrong, and what would be right"},
    )
    answer = _object(("jsonrpc", "error", "id"), jsonrpc=_JSONRPC, error=error, id=_ID)
    made["error"] = _message("error", "A call was refused, or failed", answer, answered=True)
    several = {"type": "array", "minItems": 1, "items": _any_of([_payload_of(name) for name in made])}
    return made | {"answers": _message("answers", "The answers to several calls", several)}


def _notifications(schemas: _Schemas) -> dict[str, Any]:
    made = {}
    for name, each in NOTIFICATIONS.items():
        params = schemas.any_of(each.types, texts=True)
        required = ("jsonrpc", "method", "params")
        told = _object(required, jsonrpc=_JSONRPC, method={"const": name}, params=params)
        made[name] = _message(name, each.summary, told)
    row = schemas.any_of([Row])
    made["row"] = _message("row", "A trade in the format `compact`", row)
    several = {"type": "array", "minItems": 2, "items": _any_of([_payload_of(name) for name in made])}
    return made | {"updates": _message("updates", "Several updates together, with `batch`", several)}


def _operations() -> dict[str, Any]:
    channel = {"$ref": "#/channels/connection"}

    def of(*names: str) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/connection/messages/{name}"} for name in names]

    def operation(action: str, name: str, summary: str, *answers: str) -> dict[str, Any]:
        told = {"action": action, "channel": channel, "summary": summary, "messages": of(name)}
        return told | ({"reply": {"channel": channel, "messages": of(*answers)}} if answers else {})

    calls = {
        name: operation("receive", _call_of(name), method.summary, _result_of(name), "error")
        for name, method in METHODS.items()
    }
    calls["calls"] = operation("receive", "calls", "Several calls together", "answers", "error")
    told = {name: operation("send", name, each.summary) for name, each in NOTIFICATIONS.items()}
    told["row"] = operation("send", "row", "A trade in the format `compact`")
    told["updates"] = operation("send", "updates", "Several updates together")
    return calls | told
