"""HTTP: the endpoints for operators and their tools, and the right to change something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from attrs import define
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from dataflow.settings.schema import Chaos, Gateway, Operator
from simulators import open_binance
from supervisors import Point
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

STATES = {"idle", "starting", "running", "backoff", "stopping", "done"}


@define
class Stage:
    daemon: Daemon
    http: httpx.AsyncClient
    exchange: Any

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", "ETH-USDT"), **tables) as d,
        http_client(d.http) as http,
    ):
        await until(lambda: d.core.sources["binance"].link.value == "connected")
        yield Stage(d, http, exchange)


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


async def test_health_answers_while_the_loop_turns() -> None:
    """`/health` answers ok."""
    async with stage() as s:
        assert await s.get("/health") == {"status": "ok"}


async def test_ready_when_everything_static_runs_and_degraded_while_a_source_is_down() -> None:
    """With a lost source the status is 200 and names it: the daemon still serves its history."""
    async with stage() as s, client(s.daemon.url) as listener:
        assert await s.get("/ready") == {"status": "ready", "not_ready": [], "degraded": []}
        await s.exchange.disconnect("refuse")
        await listener.until(lambda: listener.of("connection.lost"))
        answer = await s.get("/ready")
        assert answer == {"status": "degraded", "not_ready": [], "degraded": ["sources/binance"]}


async def test_the_tree_as_json() -> None:
    """Every node has its figures; children are in the order of the tree."""
    async with stage() as s, client(s.daemon.url) as listener:
        await listener.call("subscribe", symbol="BTC-USDT")
        tree = await s.get("/actors")
        assert [child["path"] for child in tree["children"]] == [
            "ops",
            "cache",
            "topics",
            "followers",
            "sources",
            "failover",
            "gateway",
        ]
        topic = await s.get("/actors/topics/BTC-USDT")
        assert topic["kind"] == "actor"
        assert topic["state"] in STATES
        assert topic["mailbox"]["accepted"] == topic["mailbox"]["handled"] + topic["mailbox"]["queued"] + sum(
            topic["mailbox"]["dropped"].values()
        )
        sessions = await s.get("/actors/gateway/sessions")
        assert len(sessions["children"]) == 1


async def test_an_unknown_path_names_the_nearest() -> None:
    """404, with the most similar paths."""
    async with stage() as s:
        body = assert_problem(await s.http.get("/actors/cache/shard-9"), 404)
        assert "cache/shard-0" in body["nearest"]


@pytest.mark.parametrize("path", ["cache/shard-0", "sources/binance", "cache", "gateway/http", "gateway"])
async def test_restart_is_accepted_and_happens(path: str) -> None:
    """202, and the actor comes back, even the HTTP server itself."""
    async with stage() as s:
        answer = await s.http.post(f"/actors/{path}/restart")
        assert answer.status_code == 202
        await s.daemon.until(
            lambda: any(e.path == path and e.kind == "ready" and e.epoch > 1 for e in s.daemon.events)
        )
        async with http_client(s.daemon.http) as again:
            assert (await again.get("/health")).status_code == 200


@pytest.mark.parametrize("path", ["gateway/http", "gateway"])
async def test_a_restart_of_the_server_does_not_wait_for_itself(path: str, mock_clock: MockClock) -> None:
    """The clock stands still, so a wait for a deadline would never end."""
    async with stage() as s:
        assert (await s.http.post(f"/actors/{path}/restart")).status_code == 202
        await s.daemon.until(lambda: any(e.path == path and e.epoch > 1 for e in s.daemon.events))
        assert not [e for e in s.daemon.events if e.kind in ("stop_cancelled", "crash", "unstopped")]


async def test_restarts_that_fail_or_cross_each_other_harm_no_client() -> None:
    """Restarts that fail or cross each other leave the HTTP server and its clients alone."""
    async with stage() as s, client(s.daemon.url) as listener:
        s.daemon.sabotage.arm(Point.START, "cache/shard-0")
        for path in ("cache/shard-0", "sources", "sources/binance", "sources", "cache"):
            assert (await s.http.post(f"/actors/{path}/restart")).status_code == 202
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert await listener.call("ping") == "pong"
        assert s.daemon.crashes("gateway") == []


async def test_a_session_cannot_be_restarted() -> None:
    """It belongs to its client: 409, and the client stays."""
    async with stage() as s, client(s.daemon.url) as listener:
        assert_problem(await s.http.post("/actors/gateway/sessions/1/restart"), 409)
        assert await listener.call("ping") == "pong"


async def test_restart_of_an_unknown_actor_is_a_404() -> None:
    """Nothing is restarted, and the answer is a problem."""
    async with stage() as s:
        assert_problem(await s.http.post("/actors/nobody/restart"), 404)


TOKENS = [{"operator": Operator(token="secret")}, {"gateway": Gateway(port=0, admin_token="secret")}]
RIGHT = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("tables", TOKENS, ids=["token", "old name"])
async def test_with_a_token_the_inside_is_the_operators(tables: dict[str, Any]) -> None:
    """401 without the token or with a wrong one, for changes and for a look inside. The rest stays open."""
    async with stage(**{"gateway": Gateway(port=0)} | tables) as s:
        path = "/actors/cache/shard-0/restart"
        for method, each in [("POST", path), *(("GET", path) for path in INSIDE), ("HEAD", "/metrics")]:
            assert (await s.http.request(method, each)).status_code == 401
            refused = await s.http.request(method, each, headers={"Authorization": "Bearer wrong"})
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
        assert (await s.http.post(path, headers=RIGHT)).status_code == 202
        for each in ("/actors", "/actors/cache", "/metrics"):
            assert (await s.http.get(each, headers=RIGHT)).status_code == 200
        for each in ("/", "/health", "/ready"):
            assert (await s.http.get(each)).status_code == 200
        async with client(s.daemon.url) as listener:
            assert await listener.call("ping") == "pong"


INSIDE = ["/actors", "/actors/cache", "/metrics", "/faults"]
CHANGES = [("POST", "/actors/cache/shard-0/restart"), ("GET", "/faults"), ("POST", "/faults")]
CHANGES += [("DELETE", "/faults/1")]


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "203.0.113.5, 10.0.0.7"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": ""},
        {"Forwarded": "for=203.0.113.5;proto=https"},
        {"Forwarded": "?!"},
        {"X-Real-IP": "203.0.113.5"},
        {"Via": "1.1 edge"},
    ],
    ids=lambda header: "{}: {}".format(*next(iter(header.items()))),
)
async def test_what_a_proxy_passes_on_is_never_local(header: dict[str, str]) -> None:
    """Without a token every change is a 403, whatever the header says, and nothing is changed."""
    async with stage(chaos=Chaos(enabled=True)) as s:
        body = {"path": "cache/shard-0", "kind": "crash"}
        for method, path in CHANGES:
            assert_problem(await s.http.request(method, path, headers=header, json=body), 403)
        assert (await s.http.get("/actors", headers=header)).status_code == 200
        assert (await s.http.get("/faults")).json() == []
        assert not [e for e in s.daemon.events if e.epoch > 1]
        assert (await s.http.post("/actors/cache/shard-0/restart")).status_code == 202


@pytest.mark.parametrize(
    ("tables", "header", "inside", "codes"),
    [
        ({"chaos": Chaos(enabled=True)}, {}, "open", (200, 200, 200)),
        ({}, {}, "open", (200, 200, 403)),
        ({}, {"Via": "1.1 edge"}, "open", (200, 403, 403)),
        (
            {"operator": Operator(token="pässwort")},
            {"Authorization": "Bearer wrong"},
            "token",
            (401, 401, 401),
        ),
        ({"operator": Operator(token="secret")}, RIGHT, "open", (200, 200, 403)),
        ({"operator": Operator(port=0)}, {}, "elsewhere", (404, 404, 404)),
    ],
)
async def test_what_would_be_refused_is_known_before(
    tables: dict[str, Any], header: Any, inside: str, codes: tuple[int, ...]
) -> None:
    """`/api/v1/faces` tells it to each client, in the words of the refusal, so that no page has to ask in vain."""
    async with stage(**tables) as s:
        told = (await s.http.get("/api/v1/faces", headers=header)).json()["access"]
        answers = [
            await s.http.get(each, headers=header) for each in ("/actors", "/api/v1/clients", "/faults")
        ]
        assert tuple(each.status_code for each in answers) == codes
        assert (told["admin"], told["inside"]) == (True, inside)
        for why, answer in ((told["operator"], answers[1]), (told["operator"] or told["faults"], answers[2])):
            assert why == (answer.json()["detail"] if answer.status_code >= 400 else None)
        if inside == "elsewhere":
            own = s.daemon.root.find("gateway/http").value[1]
            async with http_client(own) as operator:
                there = (await operator.get("/api/v1/faces")).json()["access"]
            assert (there["inside"], there["operator"]) == ("open", None)


async def test_with_the_token_a_proxy_does_not_matter() -> None:
    """The right token is a proof, whoever passed it on."""
    async with stage(operator=Operator(token="pässwort")) as s:
        headers = [(b"x-forwarded-for", b"203.0.113.5"), (b"authorization", "Bearer pässwort".encode())]
        answer = await s.http.post("/actors/cache/shard-0/restart", headers=headers)
        assert answer.status_code == 202


async def test_without_trust_this_machine_is_no_proof() -> None:
    """`trust_local = false` and no token: nobody may change anything, and everybody may look."""
    async with stage(operator=Operator(trust_local=False)) as s:
        assert_problem(await s.http.post("/actors/cache/shard-0/restart"), 403)
        assert (await s.http.get("/actors")).status_code == 200


async def test_the_operator_may_have_a_listener_of_its_own() -> None:
    """Everything is served there. The clients' listener has all but the operator's routes; a restart of the
    server keeps both ports."""
    async with stage(operator=Operator(port=0)) as s:
        _, own = addresses = s.daemon.root.find("gateway/http").value
        for path in INSIDE:
            assert "operator" in assert_problem(await s.http.get(path), 404)["detail"]
        for path in ("/", "/health", "/ready"):
            assert (await s.http.get(path)).status_code == 200
        async with http_client(own) as operator, client(f"{own.replace('http', 'ws')}/ws") as listener:
            for path in ("/", "/health", "/ready", "/actors", "/metrics"):
                assert (await operator.get(path)).status_code == 200
            assert await listener.call("ping") == "pong"
            assert (await operator.post("/actors/gateway/http/restart")).status_code == 202
            await s.daemon.until(
                lambda: any(e.path == "gateway/http" and e.epoch > 1 for e in s.daemon.events)
            )
        await s.daemon.until(lambda: s.daemon.root.find("gateway/http").value == addresses)
        async with http_client(own) as again:
            assert (await again.get("/actors")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
async def test_a_foreign_page_in_the_operators_browser_may_change_nothing(headers: dict[str, str]) -> None:
    """Without a token, clients on this machine may act, but no page of another site in its browser."""
    async with stage() as s:
        assert_problem(await s.http.post("/actors/cache/shard-0/restart", headers=headers), 403)


async def test_faults_are_refused_unless_chaos_is_enabled() -> None:
    """403 by default."""
    async with stage() as s:
        fault = {"path": "cache/shard-0", "kind": "crash"}
        body = assert_problem(await s.http.post("/faults", json=fault), 403)
        assert "chaos" in body["detail"]


async def test_metrics_are_what_prometheus_reads() -> None:
    """The text parses, and holds the figures of sources, trades, clients and actors."""
    async with stage() as s, client(s.daemon.url) as listener:
        await listener.call("subscribe", symbol="BTC-USDT")
        for store in s.daemon.core.stores:  # a source's symbols lie in several shards
            store.counts["binance", "admitted"] += 2
        answer = await s.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        series = [line.rpartition(" ")[0] for line in answer.text.splitlines() if not line.startswith("#")]
        assert len(series) == len(set(series))
        found = {
            sample.name: sample
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert found["dataflow_source_connected"].value == 1
        assert found["dataflow_sessions"].value == 1
        assert found["dataflow_trades_total"].value == 2 * len(s.daemon.core.stores)
        assert found["dataflow_topic_subscribers"].value == 1
        assert "dataflow_actor_restarts_total" in found


async def test_the_page_is_served() -> None:
    """`/` is a page for people."""
    async with stage() as s:
        answer = await s.http.get("/")
        assert answer.headers["content-type"].startswith("text/html")
        assert "<title>" in answer.text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/health", 405)])
async def test_every_error_is_a_problem(method: str, path: str, status: int) -> None:
    """Unknown paths and wrong methods have the same form of answer."""
    async with stage() as s:
        answer = await s.http.request(method, path)
        told = assert_problem(answer, status)["detail"]
        assert (
            status != 404
            or told == "nothing is served at /nothing: a wrong path, or one of a face that is off"
        )
        assert answer.headers.get("Allow") == ("GET, HEAD, OPTIONS" if status == 405 else None)


async def test_an_unknown_kind_of_fault_is_refused() -> None:
    """400 with chaos enabled: it is the client's mistake."""
    async with stage(chaos=Chaos(enabled=True)) as s:
        answer = await s.http.post("/faults", json={"path": "cache/shard-0", "kind": "explode"})
        assert_problem(answer, 400)
