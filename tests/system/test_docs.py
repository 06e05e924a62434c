"""The OpenAPI document is true: everything that is served is in it, and answers as it says."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import jsonschema
import pytest
from attrs import define
from openapi_spec_validator import validate
from playwright.sync_api import expect

from dataflow import plugs
from dataflow.app import faces, hall
from dataflow.settings.schema import Chaos, FaceSettings, Gateway, Operator, Settings
from simulators import Trade, open_binance
from tests.support.browser import Heard, browse
from tests.support.lacking import without
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

NAMES = plugs.names("faces")
DOCS = {"docs": plugs.find("faces", "docs").Settings(enabled=True)}
STREAMS = {"text/event-stream"}  # without end


def everything() -> dict[str, FaceSettings]:
    """All faces, switched on; those with a listener of their own on a free port."""
    made = {}
    for name in NAMES:
        cls = plugs.find("faces", name).Settings
        ports = {"port": 0} if any(each.name == "port" for each in cls.__attrs_attrs__) else {}
        made[name] = cls(enabled=True, **ports)
    return made


@define
class Stage:
    daemon: Daemon
    http: httpx.AsyncClient
    document: dict[str, Any]


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    tables.setdefault("faces", DOCS)
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", "ETH-USDT", eager=True), **tables) as d,
        http_client(d.http) as http,
    ):
        await d.until_carried("BTC-USDT")
        await exchange.publish(Trade(1, "BTCUSDT", "buy", "61711.4", "0.0004", 1_700_000_000_000_000))
        await until(lambda: d.core.history("BTC-USDT").last == 1)
        yield Stage(d, http, (await http.get("/openapi.json")).json())


def test_every_endpoint_of_every_face_is_described() -> None:
    """With the variables of its path; what is required has an example that can be tried."""
    built = hall(Settings(faces=everything()))
    assert {face.name for face in built.faces} == set(NAMES)
    for face in built.faces:
        assert face.words, f"{face.name} has no line about itself"
        for route in face.routes(built):
            where = f"{face.name}: {route.path}"
            assert route.about is not None, f"{where} has no about="
            variables = {part.rpartition(":")[2] for part in _between(route.path, "<", ">")}
            told = {each.name for each in route.about.parameters if each.place == "path"}
            assert told == variables, where


def _between(text: str, left: str, right: str) -> list[str]:
    return [part.partition(right)[0] for part in text.split(left)[1:]]


async def test_the_document_is_valid_and_has_two_names() -> None:
    """OpenAPI 3.1 by the validator of others; the second name is the one that ASP.NET's tools know."""
    async with stage(faces=everything()) as s:
        validate(s.document)
        assert s.document["openapi"] == "3.1.0"
        other = await s.http.get("/swagger/v1/swagger.json")
        assert other.json() == s.document


async def test_every_get_answers_as_the_document_says() -> None:
    """Each is asked with the examples of the document. Status, type and body are compared, to the last member.

    The other methods are at least served.
    """
    async with (
        stage(faces=everything(), chaos=Chaos(enabled=True)) as s,
        client(s.daemon.url) as listener,
    ):
        await listener.call("subscribe", symbol="BTC-USDT")
        hub = (await s.http.post("/blockchain/negotiate")).json()["connectionId"]
        SEEDED["/blockchain"] = {"id": hub, "Accept": "text/event-stream"}
        for path, methods in s.document["paths"].items():
            if "get" in methods:
                await _compare(s, path, methods["get"])
            served = (await s.http.options(re.sub(r"{\w+}", "1", path))).headers["allow"].lower().split(", ")
            assert methods.keys() <= set(served), path


SEEDED: dict[str, dict[str, Any]] = {"/api/v1/clients/{id}": {"id": 1}}  # the only client


async def _compare(s: Stage, path: str, told: dict[str, Any]) -> None:
    seeded = dict(SEEDED.get(path, ()))
    query, headers = {}, {"Accept": seeded.pop("Accept", "*/*")}
    for each in told["parameters"]:
        value = each.get("example", seeded.get(each["name"]))
        assert value is not None or not each["required"], f"{path}: {each['name']} has no example"
        if each["in"] == "path":
            path = path.replace("{" + each["name"] + "}", str(value))
        elif each["required"]:
            (query if each["in"] == "query" else headers)[each["name"]] = str(value)
    async with s.http.stream("GET", path, params=query, headers=headers) as answer:
        assert str(answer.status_code) in told["responses"], path
        expected = told["responses"][str(answer.status_code)]
        assert (answer.status_code < 400) is any(status < "400" for status in told["responses"]), path
        headers = {name for name, each in expected.get("headers", {}).items() if each["required"]}
        assert headers <= {name.title() for name in answer.headers}, path
        if "content" not in expected:
            assert await answer.aread() == b"", path
            return
        media = answer.headers["content-type"].partition(";")[0]
        assert media in expected["content"] or "*/*" in expected["content"], path
        if media == "application/json":
            schema = expected["content"][media]["schema"]
            await answer.aread()
            check(answer.json(), schema, s.document)
        elif media not in STREAMS:
            assert await answer.aread(), path


def check(body: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Raises ValidationError unless `body` has the members of `schema` and no others."""
    closed = {"$ref": "#/wanted", "wanted": schema, "components": document["components"]}
    jsonschema.Draft202012Validator(_closed(closed)).validate(body)


def _closed(schema: Any) -> Any:
    """`schema`, without room for members that it does not name."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value) for key, value in schema.items()}
    if "properties" in schema:
        made.setdefault("additionalProperties", False)
    return made


def test_the_comparison_notices() -> None:
    """A missing member, one too many and a wrong type are seen: else the test before proves nothing."""
    schema = {"$ref": "#/components/schemas/A"}
    components = {"A": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}}
    check({"a": "x"}, schema, {"components": {"schemas": components}})
    for wrong in ({}, {"a": 1}, {"a": "x", "b": 2}):
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, schema, {"components": {"schemas": components}})


async def test_what_the_document_calls_an_error_is_one() -> None:
    """Errors of routes with examples that are wrong have the status and the body of the document."""
    async with stage(chaos=Chaos(enabled=True)) as s:
        problem = s.document["components"]["schemas"]["Problem"]
        for method, path, template, body in (
            ("GET", "/actors/nobody", "/actors/{path}", None),
            ("POST", "/actors/nobody/restart", "/actors/{path}/restart", None),
            ("GET", "/api/v1/sources/nobody", "/api/v1/sources/{name}", None),
            ("GET", "/api/v1/clients/99", "/api/v1/clients/{id}", None),
            ("GET", "/api/v1/clients?limit=0", "/api/v1/clients", None),
            ("DELETE", "/faults/99", "/faults/{id}", None),
            ("POST", "/faults", "/faults", b"{"),
            ("POST", "/faults", "/faults", b"x" * 70_000),
            ("GET", "/api/v1/stream/NO-SUCH", "/api/v1/stream/{symbol}", None),
            ("GET", "/swagger/no.js", "/swagger/{name}", None),
            ("GET", "/api/v1/symbols/nothing", "/api/v1/symbols/{symbol}", None),
            ("GET", "/api/v1/trades/nothing", "/api/v1/trades/{symbol}", None),
            ("GET", "/api/v1/trades/BTC-USDT?limit=0", "/api/v1/trades/{symbol}", None),
            ("GET", "/api/v1/candles/BTC-USDT?interval=7m", "/api/v1/candles/{symbol}", None),
            ("POST", "/api/v1/rpc", "/api/v1/rpc", b"no type"),
        ):
            answer = await s.http.request(method, path, content=body)
            assert answer.status_code >= 400
            told = s.document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
            assert list(told["content"]) == [answer.headers["content-type"]]
            jsonschema.Draft202012Validator(problem).validate(answer.json())


async def test_the_document_knows_the_token_and_the_prefix() -> None:
    """The security scheme where the token is asked for; `servers` has `root_path`, and is served there."""
    tables = {"operator": Operator(token="secret"), "gateway": Gateway(port=0, root_path="/feed")}
    async with stage(**tables) as s:
        validate(s.document)
        assert s.document["servers"] == [{"url": "/feed"}]
        secured = {
            path
            for path, methods in s.document["paths"].items()
            if any("security" in each for each in methods.values())
        }
        assert secured == {
            "/metrics",
            "/actors",
            "/actors/{path}",
            "/actors/{path}/restart",
            "/faults",
            "/faults/{id}",
            "/api/v1/load",
            "/api/v1/topics",
            "/api/v1/events",
            "/api/v1/sources/{name}/problems",
            "/api/v1/clients",
            "/api/v1/clients/{id}",
        }
        for path in ("/metrics", "/api/v1/clients"):
            assert (await s.http.get(f"/feed{path}")).status_code == 401
            assert "401" in s.document["paths"][path]["get"]["responses"]
        assert (await s.http.get("/feed/swagger/index.html")).status_code == 200


async def test_each_listener_tells_what_it_serves() -> None:
    """With a listener of the operator's own the document of the clients has no endpoint that is a 404 there."""
    async with stage(operator=Operator(port=0)) as s:
        addresses = s.daemon.root.find("gateway/http").value
        own = "http://" + urlsplit(addresses[1]).netloc
        async with http_client(own) as http:
            there = (await http.get("/openapi.json")).json()
            assert "/actors" in there["paths"]
            assert (await http.get("/actors")).status_code == 200
        assert "/actors" not in s.document["paths"]
        assert (await s.http.get("/actors")).status_code == 404
        assert set(s.document["paths"]) < set(there["paths"])
        validate(s.document)


class Addresses(HTMLParser):
    """Every address that a page loads, and whether it has a script of its own inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [given[name] or "" for name in ("src", "href") if name in given]
        self.inline |= tag == "style" or (tag == "script" and "src" not in given) or "style" in given
        self.inline |= any(name.startswith("on") for name in given)


async def test_swagger_ui_is_made_of_our_files() -> None:
    """No file from elsewhere, no script inside the page, and a content policy that allows neither."""
    async with stage() as s:
        page = await s.http.get("/swagger/index.html")
        seen = Addresses(page.text)
        assert seen.found
        assert not seen.inline
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "://" not in policy
        assert "default-src 'none'" in policy
        for address in seen.found:
            url = urljoin(str(page.url), address)
            assert url.startswith(s.daemon.http)
            got = await s.http.get(url)
            assert got.status_code == 200, url
            again = await s.http.get(url, headers={"If-None-Match": got.headers.get("etag", "none")})
            assert again.status_code == (200 if url.endswith(".json") else 304), url
        for path in ("/docs", "/swagger", "/swagger/"):
            moved = await s.http.get(path)
            assert moved.status_code == 302
            assert urljoin(str(moved.url), moved.headers["location"]).endswith("/swagger/index.html")


async def test_swagger_ui_in_a_browser() -> None:
    """It shows every endpoint, tries one, asks nobody else, and its content policy hinders nothing."""

    def visit(page: Any, heard: Heard) -> Heard:
        page.goto(f"{http}/docs")
        block = page.locator("#operations-rest-get_api_v1_sources_name_")
        block.locator(".opblock-summary-control").click()
        block.locator(".execute").click()
        answer = block.locator(".live-responses-table tbody .response-col_description").first
        expect(answer).to_contain_text('"connector": "binance"')
        expect(page.locator(".opblock")).to_have_count(endpoints)
        return heard

    async with stage() as s:
        http, endpoints = s.daemon.http, sum(map(len, s.document["paths"].values()))
        heard = await browse(visit)
        assert heard.complaints == []
        assert {urlsplit(url).netloc for url in heard.urls if not url.startswith("data:")} == {
            urlsplit(http).netloc
        }


async def test_a_disabled_face_is_a_404() -> None:
    """It is off unless it is switched on."""
    async with stage(faces={}) as s:
        for path in ("/openapi.json", "/swagger", "/swagger/index.html", "/swagger/v1/swagger.json", "/docs"):
            assert (await s.http.get(path)).status_code == 404, path


def test_without_its_library_a_disabled_face_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is needed only by who switches the face on."""
    monkeypatch.setitem(sys.modules, "swagger_ui_bundle", None)
    assert "docs" not in [face.name for face in faces(Settings())]


@pytest.mark.parametrize("command", [["run", "--config"], ["check"]], ids=lambda command: command[0])
def test_without_its_library_the_daemon_says_what_to_install(command: list[str], tmp_path: Path) -> None:
    """One clear line, and exit code 1; `check` knows it before."""
    (tmp_path / "on.toml").write_text("[gateway]\nport = 0\n[faces.docs]\nenabled = true\n")
    ended = without("swagger_ui_bundle", *command, str(tmp_path / "on.toml"))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(
        '[faces.docs]: needs a library: pip install "dataflow[docs]"'
    )
    assert "Traceback" not in ended.stderr
