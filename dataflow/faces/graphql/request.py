"""A GraphQL request as it comes, over HTTP and over WebSocket alike: its parts, and how they are read.

Rules of this file: pure. What is no request raises `BadRequest`, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import frozen


class BadRequest(Exception):
    """The client's mistake: this is no GraphQL request. The text says what is wrong."""


@frozen
class Request:
    """What to run: a document, which of its operations, and the values of its variables."""

    query: str
    variables: Mapping[str, Any]
    operation_name: str | None


def decode(text: str | bytes) -> Any:
    """JSON of any kind. Raises BadRequest."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        raise BadRequest(f"no JSON: {error}") from None


def read(members: Any) -> Request:
    """The request with these members: the body of a POST, or the payload of `subscribe`. Raises BadRequest.

    Members without a meaning are ignored.
    """
    if not isinstance(members, dict):
        raise BadRequest("a request is a JSON object")
    query, name = members.get("query"), members.get("operationName")
    if not isinstance(query, str):
        raise BadRequest("'query' must be text: the GraphQL document")
    if not isinstance(name, str | None):
        raise BadRequest("'operationName' must be text")
    variables, extensions = members.get("variables"), members.get("extensions")
    for key, value in (("variables", variables), ("extensions", extensions)):
        if not isinstance(value, dict | None):
            raise BadRequest(f"'{key}' must be an object")
    return Request(query, variables or {}, name)
