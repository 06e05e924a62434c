"""GraphQL over HTTP: which requests there are, and which answer fits which client."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.graphql.over_http import (
    GRAPHQL,
    JSON,
    Refused,
    answers_with,
    read_get,
    read_post,
    status_of,
    wants_page,
)
from dataflow.faces.graphql.request import Request

BODY = b'{"query":"{a}","variables":{"x":[1]},"operationName":"Q","extensions":null,"more":1}'
CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/JSON", JSON),
        ("application/json, multipart/mixed", JSON),
        (GRAPHQL, GRAPHQL),
        (f"{GRAPHQL}; charset=utf-8", GRAPHQL),
        (f"{GRAPHQL}, application/json;q=0.9", GRAPHQL),
        (f"application/json;q=0.9,{GRAPHQL}", GRAPHQL),
        (f"{GRAPHQL}, application/json", GRAPHQL),
        (f"{GRAPHQL};q=0.5, application/json", JSON),
        (f"{GRAPHQL}, */*", GRAPHQL),
        (f"{GRAPHQL};q=0, */*", JSON),
        ("application/json;q=0, */*;q=0.1", GRAPHQL),
        (CHROME, JSON),
    ],
)
def test_the_media_type_of_an_answer(accept: str | None, kind: str) -> None:
    """What the client likes best; who has no wish, or takes anything, gets plain JSON."""
    assert answers_with(accept) == kind


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "", "application/xml"])
def test_who_accepts_neither_is_told_so(accept: str) -> None:
    """406, and what there is."""
    with pytest.raises(Refused, match=r"graphql-response\+json or application/json") as caught:
        answers_with(accept)
    assert caught.value.status == 406


def test_a_browser_is_told_from_a_program() -> None:
    """By what it likes best."""
    assert wants_page(CHROME)
    assert not any(map(wants_page, (None, "*/*", "application/json", f"{GRAPHQL}, text/html;q=0.1", "")))


def test_a_failure_in_the_document_has_a_status_only_with_the_media_type_of_its_own() -> None:
    """With `application/json` a status speaks of the transport alone."""
    failed: dict[str, Any] = {"errors": []}
    assert [status_of(failed, kind) for kind in (JSON, GRAPHQL)] == [200, 400]
    assert [status_of(failed | {"data": None}, kind) for kind in (JSON, GRAPHQL)] == [200, 200]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/JSON ;charset="UTF-8"',
        "application/json;",
    ],
)
def test_the_body_of_a_post(content_type: str) -> None:
    """JSON in UTF-8; members without a meaning do not matter."""
    assert read_post(content_type, BODY) == Request("{a}", {"x": [1]}, "Q")


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/json; charset=latin-1", "application/graphql", "x" * 999],
)
def test_a_body_of_another_kind_is_415(content_type: str | None) -> None:
    """A form, which any page may send anywhere, is among them."""
    with pytest.raises(Refused) as caught:
        read_post(content_type, BODY)
    assert (caught.value.status, caught.value.headers) == (415, {"Accept": "application/json"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b'{ "not a JSON', "no JSON"),
        (b'{"query":"\xff"}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "JSON object"),
        (b"{}", "'query' must be text"),
        (b'{"query":1}', "'query' must be text"),
        (b'{"query":"{a}","variables":"{}"}', "'variables' must be an object"),
        (b'{"query":"{a}","extensions":[]}', "'extensions' must be an object"),
        (b'{"query":"{a}","operationName":false}', "'operationName' must be text"),
    ],
)
def test_a_body_that_is_no_request_is_400(body: bytes, words: str) -> None:
    """With what is wrong."""
    with pytest.raises(Refused, match=words) as caught:
        read_post("application/json", body)
    assert caught.value.status == 400


def test_a_request_in_an_address() -> None:
    """Objects are JSON in it; what is empty is not there."""
    assert read_get(b"query=%7Ba%7D&variables=%7B%22x%22%3A1%7D&operationName=Q&extensions=&z=1") == Request(
        "{a}", {"x": 1}, "Q"
    )
    assert read_get(b"query=query+%7Ba%7D") == Request("query {a}", {}, None)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"", "'query' must be text"),
        (b"query=", "'query' must be text"),
        (b"query=%7Ba%7D&variables=x", "no JSON"),
        (b"query=%7Ba%7D&variables=1", "'variables' must be an object"),
        (b"query=%ff", "cannot be read"),
        (b"query=\xff", "cannot be read"),
        (b"a&" * 100, "cannot be read"),
    ],
)
def test_an_address_without_a_request_is_400(query: bytes, words: str) -> None:
    """With what is wrong."""
    with pytest.raises(Refused, match=words) as caught:
        read_get(query)
    assert caught.value.status == 400


@given(
    st.none() | st.text(max_size=50) | st.just("application/json"),
    st.binary() | st.text().map(json.dumps).map(str.encode),
)
def test_any_body_is_a_request_or_refused(content_type: str | None, body: bytes) -> None:
    """And nothing else happens."""
    with suppress(Refused):
        assert isinstance(read_post(content_type, body), Request)


@given(st.binary())
def test_any_address_is_a_request_or_refused(query: bytes) -> None:
    """And nothing else happens."""
    with suppress(Refused):
        assert isinstance(read_get(query), Request)


@given(st.text(alphabet="atx/*;,q=0.19 application/json"))
def test_any_accept_header_has_an_answer(accept: str) -> None:
    """And nothing else happens."""
    wants_page(accept)
    with suppress(Refused):
        assert answers_with(accept) in (JSON, GRAPHQL)
