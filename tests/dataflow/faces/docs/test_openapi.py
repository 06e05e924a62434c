"""The OpenAPI document says what a description says, and what holds for every endpoint."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from openapi_spec_validator import validate

from dataflow.faces.docs.openapi import Endpoint, document
from dataflow.gateway.about import About, Answer, Parameter


class Thing(TypedDict):
    """A thing."""

    name: str
    inner: Thing | None


PLAIN = About("Look", {200: Answer("a look", Thing)})


def operation(about: About, *, path: str = "/x", method: str = "GET", **more: Any) -> dict[str, Any]:
    """What the document says about one endpoint, once the document is valid."""
    token = more.pop("token", False)
    made = document([Endpoint(method, path, about, "face", **more)], version="1", token=token)
    validate(made)
    ((_, methods),) = made["paths"].items()
    ((_, told),) = methods.items()
    return dict(told)


def test_an_answer_has_its_schema_and_every_error_is_a_problem() -> None:
    """By reference, so that a schema stands once; an error's body is that of RFC 9457."""
    told = operation(About("Look", {200: Answer("a look", Thing)}, {404: "none"}))
    assert told["responses"].pop("200") == {
        "description": "a look",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
    }
    assert set(told["responses"]) == {"403", "404", "429", "500"}
    for answer in told["responses"].values():
        assert answer["content"] == {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        }
    assert told["responses"]["404"]["description"] == "none"


def test_an_error_of_its_own_stands_beside_the_one_that_all_have() -> None:
    """One status can have two reasons."""
    told = operation(About("Look", {204: Answer("done")}, {403: "chaos is off"}))
    assert re.match(r"the name in `Host`.*; or chaos is off$", told["responses"]["403"]["description"])


def test_an_answer_comes_before_an_error_of_the_same_status() -> None:
    """A handler may answer 500 or 503 in words of its own."""
    told = operation(About("Look", {500: Answer("mine", Thing)}))
    assert told["responses"]["500"]["description"] == "mine"


def test_parameters() -> None:
    """Bounds, defaults and places; a variable of the path is required."""
    about = About(
        "Look",
        {204: Answer("done")},
        parameters=(
            Parameter("id", int, "which", place="path"),
            Parameter("limit", Annotated[int, Meta(ge=1, le=50)], "how many", default=5),
            Parameter("symbol", str, "whose", required=True, example="BTC-USDT"),
        ),
    )
    assert operation(about, path="/x/<int:id>")["parameters"] == [
        {"name": "id", "in": "path", "description": "which", "required": True, "schema": {"type": "integer"}},
        {
            "name": "limit",
            "in": "query",
            "description": "how many",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "maximum": 50, "default": 5},
        },
        {
            "name": "symbol",
            "in": "query",
            "description": "whose",
            "required": True,
            "schema": {"type": "string"},
            "example": "BTC-USDT",
        },
    ]


def test_a_body_can_be_too_large_and_too_late() -> None:
    """An endpoint that reads a body has the two errors of all of them."""
    told = operation(About("Do", {202: Answer("done")}, body=Thing), method="POST")
    assert told["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
    }
    assert {"408", "413"} <= set(told["responses"])


@pytest.mark.parametrize(
    ("flags", "secured", "unauthorised", "local"),
    [
        ({}, False, False, False),
        ({"inside": True}, False, False, False),
        ({"operator": True}, False, False, True),
        ({"token": True}, False, False, False),
        ({"token": True, "inside": True}, True, True, False),
        ({"token": True, "operator": True}, True, True, False),
    ],
)
def test_who_may_ask(flags: dict[str, bool], secured: bool, unauthorised: bool, local: bool) -> None:
    """The security scheme stands where this daemon asks for the token, and nowhere else."""
    told = operation(PLAIN, **flags)
    assert told.get("security") == ([{"operator": []}] if secured else None)
    assert ("401" in told["responses"]) is unauthorised
    assert ("own machine" in told["responses"]["403"]["description"]) is local


NAME = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
PIECE = st.one_of(NAME, NAME.map("<{}>".format), NAME.map("<int:{}>".format), NAME.map("<path:{}>".format))


@given(st.lists(PIECE, max_size=5, unique=True))
def test_every_path_becomes_a_template(pieces: list[str]) -> None:
    """Quart's variables become OpenAPI's, and nothing else changes."""
    path = "/" + "/".join(pieces)
    template = Endpoint("GET", path, PLAIN, "face").template
    expected = [
        "{" + piece.strip("<>").rpartition(":")[2] + "}" if "<" in piece else piece for piece in pieces
    ]
    assert template == "/" + "/".join(expected)


def test_one_path_may_have_several_methods_and_a_schema_stands_once() -> None:
    """GET and DELETE of one thing are two operations with names of their own."""
    about = About(
        "A thing", {200: Answer("it", Thing)}, parameters=(Parameter("id", int, "which", place="path"),)
    )
    made = document(
        [Endpoint(method, "/things/<int:id>", about, "face") for method in ("GET", "DELETE")],
        version="1",
        server="/feed",
        faces={"face": "A face.", "other": "Serves no HTTP."},
    )
    validate(made)
    assert set(made["paths"]["/things/{id}"]) == {"get", "delete"}
    names = [each["operationId"] for each in made["paths"]["/things/{id}"].values()]
    assert names == ["get_things_id_", "delete_things_id_"]
    assert set(made["components"]["schemas"]) == {"Thing", "Problem"}
    assert made["servers"] == [{"url": "/feed"}]
    assert made["tags"] == [{"name": "face", "description": "A face."}]
