"""The documents for tools are valid, complete and true: by the official schemas, and by the tables of the code."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from dataflow.faces.jsonrpc import methods
from dataflow.faces.jsonrpc.describing import asyncapi, openrpc
from dataflow.faces.jsonrpc.messages import ERRORS, METHODS, NOTIFICATIONS
from dataflow.gateway.spelling import KINDS

WHERE = (8080, "/feed", False)
ASYNCAPI: dict[str, Any] = json.loads(asyncapi(*WHERE))
OPENRPC: dict[str, Any] = json.loads(bytes(openrpc(*WHERE)))


def official(checkout: Path, name: str) -> Draft7Validator:
    """The schema of such documents. Schemas in them are of draft 7: that of OpenRPC names a mirror of it."""
    text = gzip.decompress((checkout / "tests" / "data" / f"{name}.json.gz").read_bytes()).decode()
    text = re.sub(
        r'"https://meta.json-schema.tools/?(#[^"]*)?"', '"http://json-schema.org/draft-07/schema#"', text
    )
    return Draft7Validator(json.loads(text))


@pytest.mark.parametrize(("name", "document"), [("asyncapi_3_0", ASYNCAPI), ("openrpc_1_3", OPENRPC)])
def test_a_document_is_valid(checkout: Path, name: str, document: dict[str, Any]) -> None:
    """By the schema of those who publish the format."""
    errors = [
        f"{[*error.path]}: {error.message[:200]}" for error in official(checkout, name).iter_errors(document)
    ]
    assert errors == []


@pytest.mark.parametrize("document", [ASYNCAPI, OPENRPC])
def test_whatever_is_referred_to_exists(document: dict[str, Any]) -> None:
    """And every schema is one, of draft 7."""
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found
    for schema in document["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_method_is_described_and_no_other() -> None:
    """With the parameters that it reads, in their order."""
    table = methods._METHODS
    assert sorted(METHODS) == sorted(table.names)
    for name, described in METHODS.items():
        assert described.params is table.find(name).params
    assert [each["name"] for each in OPENRPC["methods"]] == [*METHODS]
    for name in METHODS:
        assert f"{name}.call" in ASYNCAPI["channels"]["connection"]["messages"]
        assert ASYNCAPI["operations"][name]["action"] == "receive"


def test_every_notice_is_described() -> None:
    """Those of the gateway, beside what streams have."""
    streams = {
        "trades.update",
        "candles.update",
        "quality.update",
        "stream.gap",
        "stream.filled",
        "stream.started",
    }
    assert {*NOTIFICATIONS} == {*KINDS.values()} | streams
    for name in NOTIFICATIONS:
        assert ASYNCAPI["operations"][name]["action"] == "send"


@pytest.mark.parametrize("method", OPENRPC["methods"], ids=lambda method: str(method["name"]))
def test_an_example_is_what_its_schemas_say(method: dict[str, Any]) -> None:
    """So examples do not rot."""
    (example,) = method["examples"]
    schemas = {each["name"]: each["schema"] for each in method["params"]} | {
        "result": method["result"]["schema"]
    }
    for each in (*example["params"], example["result"]):
        schema = {"components": OPENRPC["components"], "allOf": [schemas[each["name"]]]}
        Draft7Validator(schema).validate(each["value"])
    given = {each["name"] for each in example["params"]}
    assert {each["name"] for each in method["params"] if each["required"]} <= given
    assert {error["code"] for error in method["errors"]} <= ERRORS.keys()


def test_a_trade_in_strings_has_no_number_with_a_fraction() -> None:
    """Such schemas differ from the others by their decimals alone."""
    schemas = ASYNCAPI["components"]["schemas"]
    for name, decimals in (
        ("Trade", {"price", "qty"}),
        ("Candle", {"open", "high", "low", "close", "volume", "quoteVolume", "buyVolume"}),
    ):
        plain, texts = schemas[name]["properties"], schemas[f"{name}InStrings"]["properties"]
        assert {key for key in plain if plain[key] != texts[key]} == decimals
        assert {texts[key]["type"] for key in decimals} == {"string"}


def test_the_documents_say_where_the_daemon_is() -> None:
    """The prefix of all paths, and TLS."""
    assert ASYNCAPI["servers"]["daemon"]["pathname"] == "/feed"
    assert [each["url"] for each in OPENRPC["servers"]] == [
        "ws://${host}/feed/ws",
        "http://${host}/feed/api/v1/rpc",
    ]
    assert json.loads(asyncapi(443, "", True))["servers"]["daemon"]["protocol"] == "wss"
    assert json.loads(bytes(openrpc(443, "", True)))["servers"][0]["url"] == "wss://${host}/ws"
