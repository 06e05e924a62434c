"""What happened can be asked for afterwards: each failure is an event, a line of the log, and bounded."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.domain.errors import ConfigError
from dataflow.gateway import guestbook
from dataflow.settings.schema import Chaos, Operator, Session
from dataflow.sources.excerpts import FREELY, KEPT
from simulators import Trade, open_binance
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client
from tests.system.test_operator import figures, get, until
from tests.system.test_trouble import beside_a_deaf_client


async def happened(http: httpx.AsyncClient, after: int | None = None) -> list[dict[str, Any]]:
    told = await get(http, "/api/v1/events" + ("" if after is None else f"?after={after}"))
    if told["events"]:
        assert told["next"] == told["events"][-1]["id"]
    return [dict(each) for each in told["events"]]


def kinds(events: list[dict[str, Any]], path: str) -> list[str]:
    return [each["kind"] for each in events if each["path"] == path]


async def test_a_shard_that_is_killed(lines: list[str]) -> None:
    """The fault, the crash with its stack and what was lost in its hand, and the return. The loss has its time."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", eager=True), chaos=Chaos(enabled=True)) as d,
        http_client(d.http) as http,
    ):
        shard = "cache/shard-0"
        for each in range(d.hall.settings.cache.shards):
            d.core.faults.inject(f"cache/shard-{each}", "crash")  # type: ignore[union-attr]
        await exchange.wait_subscribed(["BTCUSDT"])
        await exchange.publish(Trade(1, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000))
        await d.until(lambda: any(e.kind == "ready" and e.epoch == 2 for e in d.events))
        events = await happened(http)
        (shard,) = {each["path"] for each in events if each["kind"] == "crashed"}
        assert kinds(events, shard) == ["fault", "fault", "crashed", "restarted"]
        (crashed,) = [each for each in events if each["kind"] == "crashed"]
        assert crashed["text"].startswith("InjectedFault: injected crash at receive (fault ")
        assert crashed["text"].endswith("1 message in hand lost")
        assert "InjectedFault" in crashed["stack"]
        assert any(line.startswith(f"ERROR {shard}: crashed: InjectedFault") for line in lines)
        box = (await get(http, f"/actors/{shard}"))["mailbox"]
        assert (box["lost_in_flight"], box["lost_at"][:4]) == (1, crashed["at"][:4])
        assert (await figures(http))["dataflow_events_total crashed"] == 1
        last = events[-1]["id"]
        assert await happened(http, last) == []
        assert (await get(http, f"/api/v1/events?after={last - 1}&limit=1"))["next"] == last


async def test_a_source_that_is_cut(lines: list[str]) -> None:
    """Lost, tried again, back after so many seconds; a line of the log for each."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", eager=True)) as d,
        http_client(d.http) as http,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        await until(lambda: d.core.sources["binance"].link.value == "connected")
        await exchange.disconnect("graceful")
        await until(lambda: any("connection restored after " in line for line in lines))
        events = await happened(http)
        assert kinds(events, "sources/binance") == ["lost", "restored"]
        assert set(kinds(events, "sources/binance/lines/1")) == {"backoff"}
        lost = next(each for each in events if each["kind"] == "lost")
        assert lost["text"].endswith("; concerns BTC-USDT")
        assert lost["stack"] is None
        assert re.match(r"after \d+\.\d s, subscribed to BTC-USDT$", events[-1]["text"])
        assert any(line.endswith(" s, subscribed to BTC-USDT") for line in lines)
        source = (await get(http, "/api/v1/sources"))["binance"]
        assert (source["score"]["symbol"], source["score"]["state"]) == ("BTC-USDT", "quiet")
        assert source["score"]["score"] == sum(source["score"]["parts"].values())
        bounds = {each["name"]: each for each in source["bounds"]}
        assert bounds["symbols"] == {"name": "symbols", "used": 1, "limit": 1024, "per": None}
        assert bounds["connections"]["used"] >= 2
        (line,) = d.core.sources["binance"].lines.values()
        assert line.pace is not None
        assert line.pace.most == bounds["requests"]["limit"]


async def test_a_client_that_stalls_is_told_before_it_is_ended(
    lines: list[str], mock_clock: MockClock
) -> None:
    """A warning and an event while it is there; afterwards it stands among those that left."""
    async with (
        beside_a_deaf_client(Session(outbox=1000)) as (w, _deaf),
        http_client(w.daemon.http) as http,
    ):
        published = 0
        while not any("client takes nothing" in line for line in lines):
            await wait_all_tasks_blocked()
            if w.daemon.lobby.clients.backlog() is not None:  # of the deaf one: the other one has heard all
                mock_clock.jump(guestbook.QUIET)
                continue
            await w.publish(100)
            published += 100
            await w.heard(published)
        (told,) = [each for each in await happened(http) if each["kind"] == "stalled"]
        assert told["path"] == "gateway/sessions/2"
        assert "client takes nothing: the oldest of what it was sent has waited for " in told["text"]
        assert len(w.daemon.lobby.clients) == 2
        (session,) = [each for each in w.daemon.lobby.clients if each.backlog is not None]
        while session.ended is None:
            await w.publish(500)
            published += 500
            await w.heard(published)
        while len(w.daemon.lobby.clients) > 1:  # it does not read the farewell either: the daemon gives it up
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
        (left,) = (await get(http, "/api/v1/clients"))["left"]
        assert (left["id"], left["code"], left["protocol"]) == (2, 1008, "jsonrpc")
        assert left["reason"] == "slow client: 1000 messages were waiting"
        assert left["since"] < left["leftAt"]
        assert left["sent"] > 1000


async def test_a_flood_of_garbage(lines: list[str]) -> None:
    """The newest pieces can be looked at, few of a second; all of them count; the log has a line."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", eager=True)) as d,
        http_client(d.http) as http,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        exchange.faults.add(kind="garbage", times=300)
        for n in range(1, 302):
            await exchange.publish(Trade(n, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000 + n))
        await until(lambda: d.core.sources["binance"].problems.total() >= 300)
        problems = (await get(http, "/api/v1/sources/binance/problems"))["problems"]
        garbage = [each for each in problems if each["kind"] != "rejected"]
        assert FREELY <= len(garbage) <= KEPT
        assert sum(each["times"] for each in garbage) >= 300
        assert all(0 < len(each["text"]) <= 300 for each in problems)
        assert len([line for line in lines if line.startswith("WARNING sources/binance: ")]) < 20
        missing = await http.get("/api/v1/sources/nowhere/problems")
        assert (missing.status_code, missing.json()["valid"]) == (404, ["binance"])


async def test_what_the_operator_did_is_there_too() -> None:
    """A restart by hand, and a configuration that was read again, in vain or not."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        assert (await http.post("/actors/cache/shard-0/restart")).status_code == 202
        await d.until(lambda: any(e.kind == "ready" and e.epoch == 2 for e in d.events))
        await d.reload(ConfigError(["x: unknown key"]))
        await d.reload(d.hall.settings)
        events = await happened(http)
        assert kinds(events, "cache/shard-0") == ["stopped", "restarted"]
        assert [each["text"] for each in events if each["kind"] == "reload"] == [
            "not reloaded, everything stays as it was: x: unknown key",
            "reloaded: nothing has changed",
        ]


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/sources/binance/problems", "/api/v1/clients"])
async def test_with_a_token_only_the_operator_looks_back(path: str) -> None:
    """A stack, an excerpt and an address are nobody else's business."""
    async with daemon(
        sources=from_binance("ws://127.0.0.1:9", "BTC-USDT"), operator=Operator(token="sesame")
    ) as d:
        await refused_without_token(d, path)


async def refused_without_token(d: Daemon, path: str) -> None:
    async with http_client(d.http) as http:
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers={"Authorization": "Bearer sesame"})).status_code == 200


async def test_who_hangs_up_leaves_its_own_code() -> None:
    """Its close code, and no words of ours."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        async with client(d.url) as one:
            await one.call("ping")
            await one.socket.aclose(4001, "seen enough")
        await until(lambda: not len(d.lobby.clients))
        (left,) = (await get(http, "/api/v1/clients"))["left"]
        assert (left["code"], left["reason"]) == (4001, "gone: seen enough")
