"""GraphQL over HTTP: which requests there are, and which answer fits which client. The specification's words.

Rules of this file: pure. A request that cannot be read raises `Refused`, and nothing else does. A failure in
the document is not the transport's: with `application/json`, which many servers and proxies answer by
themselves, its status is 200; only with the media type of its own a status speaks of the document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from .request import BadRequest, Request, decode, read

GRAPHQL: Final = "application/graphql-response+json"
JSON: Final = "application/json"
HTML: Final = "text/html"
MAX_PARAMETERS: Final = 20  # of an address
_EXACT: Final = 2
_NOT_AT_ALL: Final = (0.0, _EXACT)
_RANGE: Final = re.compile(r"\s*([^\s;,]+)\s*(?:;([^,]*))?")
_QUALITY: Final = re.compile(r"(?:^|;)\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)", re.IGNORECASE)
_CONTENT_TYPE: Final = re.compile(
    r"\s*application/json\s*(?:;\s*charset\s*=\s*\"?utf-?8\"?\s*)?;?\s*", re.IGNORECASE
)


class Refused(Exception):
    """A request that is not run. `headers` belong to the answer."""

    def __init__(self, status: int, words: str, **headers: str) -> None:
        super().__init__(words)
        self.status = status
        self.headers: Mapping[str, str] = headers


def read_get(query: bytes) -> Request:
    """The request in an address, behind its "?". Raises Refused."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:
        raise Refused(400, f"the address cannot be read: {error}") from None
    members: dict[str, Any] = dict(pairs)
    try:
        for name in ("variables", "extensions"):
            if name in members:
                members[name] = decode(members[name]) if members[name] else None
        return read({name: value for name, value in members.items() if value != ""})
    except BadRequest as error:
        raise Refused(400, str(error)) from None


def read_post(content_type: str | None, body: bytes) -> Request:
    """The request in a body. Raises Refused."""
    if content_type is None or _CONTENT_TYPE.fullmatch(content_type) is None:
        raise Refused(415, f"the body must be {JSON} in UTF-8, and its Content-Type say so", Accept=JSON)
    try:
        return read(decode(body))
    except BadRequest as error:
        raise Refused(400, str(error)) from None


def answers_with(accept: str | None) -> str:
    """The media type for a client that accepts these. Raises Refused."""
    if accept is None:
        return JSON
    own, json = _liking(accept, GRAPHQL), _liking(accept, JSON)
    if max(own, json) <= _NOT_AT_ALL:
        raise Refused(406, f"the answer can be {GRAPHQL} or {JSON}: accept one of them")
    # Whoever takes anything gets what everybody understands.
    return GRAPHQL if own > json or (own == json and own[1] == _EXACT) else JSON


def wants_page(accept: str | None) -> bool:
    """Whether a person asks, with a browser, and not a program."""
    return accept is not None and _liking(accept, HTML) > max(
        _NOT_AT_ALL, _liking(accept, GRAPHQL), _liking(accept, JSON)
    )


def _liking(accept: str, kind: str) -> tuple[float, int]:
    """How much an `Accept` header likes `kind`, 0 to 1, and how exactly it says so."""
    exact, quality = 0, 0.0
    ranges = ("*/*", kind.partition("/")[0] + "/*", kind)
    for written, parameters in _RANGE.findall(accept):
        exactness = ranges.index(written.lower()) if written.lower() in ranges else -1
        if exactness >= exact:
            weight = _QUALITY.search(parameters)
            exact, quality = exactness, min(float(weight[1]), 1.0) if weight else 1.0
    return (quality, exact) if quality else _NOT_AT_ALL


def status_of(answer: Mapping[str, Any], media_type: str) -> int:
    """The status of an answer that was made: see the rules above."""
    return 400 if media_type == GRAPHQL and "data" not in answer else 200
