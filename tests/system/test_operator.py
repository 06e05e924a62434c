"""What an operator sees of clients and sources: who is there, who does not read, who went and why."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio_websocket import wrap_client_stream

from actors.outbox import SlowClient
from dataflow.gateway.problems import Unavailable
from dataflow.settings.schema import Gateway, Session
from simulators import Trade, open_binance
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client
from tests.system.test_trouble import beside_a_deaf_client


async def until(condition: Any) -> None:
    """Returns when `condition()` holds; the test's own timeout is the bound."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def get(http: httpx.AsyncClient, path: str) -> Any:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    """A scrape: the value of each sample, with the labels behind its name."""
    text = (await http.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


async def test_a_client_and_what_it_follows() -> None:
    """All that is known of a client: its words about itself, its places, and how much it was sent."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", "ETH-USDT")) as d,
        http_client(d.http) as http,
        client(d.url) as one,
    ):
        await one.call("subscribe", symbol="BTC-USDT")
        await one.call("subscribe", symbol="ETH-USDT", channel="quality")
        await exchange.wait_subscribed(["BTCUSDT"])
        for n in range(1, 4):
            await exchange.publish(Trade(n, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000 + n))
        await one.until(lambda: len(one.trades()) == 3)
        told = await get(http, "/api/v1/clients")
        (guest,) = told["clients"]
        assert guest == await get(http, f"/api/v1/clients/{guest['id']}") | {
            name: guest[name] for name in ("since", "age", "heard")
        }
        assert (told["total"], told["next"]) == (1, None)
        assert told["outbox"] == guest["outbox"] == {"messages": 0, "bytes": 0, "age": None}
        assert guest["protocol"] == "jsonrpc"
        assert guest["address"].startswith("127.0.0.1:")
        assert 0 <= guest["heard"] <= guest["age"]
        trades, quality = guest["follows"]
        assert trades == {"channel": "trades", "symbol": "BTC-USDT", "epoch": d.core.epoch, "offset": 3}
        assert (quality["channel"], quality["symbol"]) == ("quality", "ETH-USDT")
        assert (guest["sent"] >= 3, guest["dropped"]) == (True, 0)


async def test_behind_a_proxy_the_client_is_named_whether_it_comes_in_or_not(lines: list[str]) -> None:
    """In the list and in the log: its own address, and the proxy. Also if the one is a part of the other's text."""
    gateway = Gateway(port=0, trusted_proxies=("127.0.0.1",), max_sessions=1)
    forwarded = [(b"X-Forwarded-For", b"7.0.0.1")]
    async with daemon(sources={}, gateway=gateway) as d, AsyncExitStack() as stack:
        host = urlsplit(d.http).netloc
        nursery = await stack.enter_async_context(trio.open_nursery())
        for _ in range(2):
            stream = await trio.open_tcp_stream("127.0.0.1", int(host.rpartition(":")[2]))
            await stack.enter_async_context(stream)
            await wrap_client_stream(nursery, stream, host, "/ws", extra_headers=forwarded)
        (guest,) = d.lobby.clients.guests.values()
        assert guest.address.startswith("7.0.0.1 through 127.0.0.1:")
        await until(lambda: any("client refused" in line for line in lines))
        for what in ("client came", "client refused"):
            assert any(f"{what}: 7.0.0.1 through 127.0.0.1:" in line for line in lines)
        nursery.cancel_scope.cancel()


async def test_contained_errors_of_connections_are_counted_by_kind() -> None:
    """A client that breaks HTTP harms nobody; what became of it stands in the metrics."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        port = int(d.http.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            await stream.send_all(3000 * b"\0\0\x08\6\0\0\0\0\0PINGPING")
            while await stream.receive_some():
                pass
        assert (await figures(http))["dataflow_connections_failed_total FloodError"] == 1


def waiting(told: dict[str, Any]) -> list[int]:
    """How many messages wait for each of these clients."""
    return [each["outbox"]["messages"] for each in told["clients"]]


async def test_who_stops_reading_is_seen_among_the_others() -> None:
    """In the list by itself, with what waits for it and for how long, first where what is wrong counts, and in the
    metrics; gone from both when it is let go."""
    async with (
        beside_a_deaf_client(Session(outbox=50, slow_client=SlowClient.DROP_OLDEST)) as (w, deaf),
        http_client(w.daemon.http) as http,
    ):
        assert (await get(http, "/api/v1/clients?behind=0.000001"))["clients"] == []
        published, behind = 0, "/api/v1/clients?behind=0.000001"
        told = again = {"clients": []}
        # The kernel may still take some of what waits. Nothing comes between both looks: equal ones hold for all between.
        while (
            w.daemon.lobby.clients.totals().dropped == 0
            or not waiting(told)
            or waiting(told) != waiting(again)
        ):
            await w.publish(500)
            published += 500
            await w.heard(published)
            told = await get(http, behind)
            firsts = [
                await get(http, f"/api/v1/clients?limit=1&most={most}")
                for most in ("dropped", "waiting", "oldest")
            ]
            both = (await get(http, "/api/v1/clients?most=sent"))["clients"]
            now = await figures(http)
            again = await get(http, behind)
        (stuck,) = told["clients"]
        assert told["total"] == 2
        host, port = deaf.socket.getsockname()
        assert stuck["address"] == f"{host}:{port}"
        assert 0 < stuck["outbox"]["messages"] <= 50
        assert stuck["outbox"]["bytes"] > 100 * stuck["outbox"]["messages"]
        assert stuck["outbox"]["age"] > 0
        assert stuck["dropped"] > 0
        for foremost in firsts:
            assert [each["id"] for each in foremost["clients"]] == [stuck["id"]]
            assert (foremost["total"], foremost["next"]) == (2, None)
        assert [each["sent"] for each in both] == sorted((each["sent"] for each in both), reverse=True)
        assert now["dataflow_outbox_messages"] == stuck["outbox"]["messages"]
        assert now["dataflow_outbox_bytes"] == stuck["outbox"]["bytes"]
        assert now["dataflow_outbox_oldest_seconds"] >= stuck["outbox"]["age"]
        assert (await http.delete(f"/api/v1/clients/{stuck['id']}")).status_code == 202
        await until(lambda: len(w.daemon.lobby.clients) == 1)
        now = await figures(http)
        assert now["dataflow_outbox_messages"] == now["dataflow_outbox_oldest_seconds"] == 0
        assert now["dataflow_sessions_ended_total ended by the operator"] == 1


async def test_the_operator_ends_a_client(lines: list[str]) -> None:
    """The client is told why, and when it may come back; the others stay; the log and the metrics have the reason."""
    async with (
        daemon(sources={}) as d,
        http_client(d.http) as http,
        client(d.url) as other,
        client(d.url) as one,
    ):
        for each in (other, one):
            await each.call("ping")
        answer = await http.delete("/api/v1/clients/2?reason=lunch")
        assert (answer.status_code, answer.json()) == (202, {"id": 2, "status": "ending"})
        await one.until(lambda: one.closed)
        assert one.closed == (1008, "ended by the operator: lunch")
        (told,) = one.of("connection.refused")
        assert told["reason"] == "ended by the operator: lunch"
        assert told["retryAfter"] > 0
        await until(lambda: len(d.lobby.clients) == 1)
        assert await other.call("ping") == "pong"
        for gone in (await http.get("/api/v1/clients/2"), await http.delete("/api/v1/clients/2")):
            assert gone.status_code == 404
            assert "there is no client 2" in gone.json()["detail"]
        assert (await figures(http))["dataflow_sessions_ended_total ended by the operator"] == 1
        assert any("(ended by the operator: lunch, code 1008)" in line for line in lines)


async def test_a_listener_over_http_is_ended_too() -> None:
    """An event stream has no close frame: it gets the notice as its last event."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        http_client(d.http) as http,
        http.stream("GET", "/api/v1/stream/BTC-USDT", headers={"User-Agent": "reader/1"}) as stream,
    ):
        text = ""
        async for piece in stream.aiter_text():
            if not text:
                (guest,) = (await get(http, "/api/v1/clients"))["clients"]
                assert (guest["protocol"], guest["userAgent"]) == ("sse", "reader/1")
                await http.delete("/api/v1/clients/1?reason=lunch")
            text += piece
        assert '"reason":"ended by the operator: lunch"' in text.rstrip().splitlines()[-1]


async def test_many_clients_come_page_by_page() -> None:
    """Each once, in the order of their coming, also when some leave meanwhile; and never more than asked for."""
    async with daemon(sources={}) as d, http_client(d.http) as http, AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(client(d.url)) for _ in range(7)]
        for one in crowd:
            await one.call("ping")
        first = await get(http, "/api/v1/clients?limit=3")
        await crowd[2].socket.aclose()  # the very one to go on behind
        await until(lambda: len(d.lobby.clients) == 6)
        second = await get(http, f"/api/v1/clients?limit=3&after={first['next']}")
        third = await get(http, f"/api/v1/clients?limit=3&after={second['next']}")
        pages = [[each["id"] for each in page["clients"]] for page in (first, second, third)]
        assert pages == [[1, 2, 3], [4, 5, 6], [7]]
        assert third["next"] is None


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("after=-1", "after"),
        ("after=1.5", "after"),
        ("behind=-1", "behind"),
        ("behind=nan", "behind"),
        ("behind=inf", "behind"),
        ("most=noise", "most"),
    ],
)
async def test_a_wrong_question_is_told_what_would_be_right(query: str, wrong: str) -> None:
    """400, with the parameter and its range."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        answer = await http.get(f"/api/v1/clients?{query}")
        assert (answer.status_code, answer.json()["param"]) == (400, wrong)


async def test_clients_are_for_the_operator_alone() -> None:
    """Addresses of others are nobody else's business."""
    gateway = Gateway(port=0, admin_token="secret")
    async with daemon(sources={}, gateway=gateway) as d, http_client(d.http) as http, client(d.url) as one:
        await one.call("ping")
        for method, path in (("GET", ""), ("GET", "/1"), ("DELETE", "/1")):
            assert (await http.request(method, f"/api/v1/clients{path}")).status_code == 401
        assert await one.call("ping") == "pong"
        bearer = {"Authorization": "Bearer secret"}
        assert (await http.get("/api/v1/clients", headers=bearer)).json()["total"] == 1


async def says_binary(d: Daemon) -> None:
    async with client(d.url) as one:
        await one.socket.send_message(b"binary")
        await one.until(lambda: one.closed)


async def says_too_much(d: Daemon) -> None:
    async with client(d.url) as one:
        await one.socket.send_message("x" * 70_000)
        await one.until(lambda: one.closed)


async def leaves(d: Daemon) -> None:
    async with client(d.url) as one:
        await one.call("ping")
        await one.socket.aclose()


async def accuses(d: Daemon) -> None:
    """The client says that it found a fault: it left, and did nothing wrong."""
    async with client(d.url) as one:
        await one.call("ping")
        await one.socket.aclose(1002, "your fault")


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (says_binary, "protocol violation"),
        (says_too_much, "protocol violation"),
        (leaves, "gone"),
        (accuses, "gone"),
    ],
)
async def test_every_client_that_went_counts_under_its_reason(
    act: Any, reason: str, lines: list[str]
) -> None:
    """In `/metrics`, in the status and in the log."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        await act(d)
        await until(lambda: not len(d.lobby.clients))
        now = await figures(http)
        prefix = "dataflow_sessions_ended_total "
        ended = {name.removeprefix(prefix): n for name, n in now.items() if name.startswith(prefix)}
        assert {name: n for name, n in ended.items() if n} == {reason: 1}
        assert (await get(http, "/api/v1/status"))["ended"] == ended
        (went,) = [line for line in lines if "client went" in line]
        assert f"({reason}" in went


async def test_what_a_source_delivered_is_seen_everywhere(lines: list[str]) -> None:
    """In its node of the tree, among the sources, in the status and in the metrics; and its first connection in the log,
    without the password."""
    async with open_binance() as exchange:
        secret = exchange.url.replace("ws://", "ws://me:hush@")
        async with (
            daemon(sources=from_binance(secret, "BTC-USDT", eager=True)) as d,
            http_client(d.http) as http,
        ):
            await exchange.wait_subscribed(["BTCUSDT"])
            assert (await get(http, "/api/v1/sources/binance"))["delivered"]["last"] is None
            for n in range(1, 6):
                await exchange.publish(Trade(n, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000 + n))
            await until(lambda: d.core.history("BTC-USDT").last == 5)
            node = (await get(http, "/actors/sources/binance"))["delivered"]
            source = (await get(http, "/api/v1/sources"))["binance"]
            status = (await get(http, "/api/v1/status"))["sources"]["binance"]
            assert (node["trades"], node["last"] is None, node["age"] >= 0) == (5, False, True)
            for told in (source["delivered"], status["delivered"]):
                assert {name: told[name] for name in ("trades", "batches", "bytes")} == {
                    name: node[name] for name in ("trades", "batches", "bytes")
                }
            now = await figures(http)
            assert now["dataflow_source_trades_total binance"] == 5
            assert now["dataflow_source_bytes_total binance"] == node["bytes"] > 500
            assert now["dataflow_source_silent_seconds binance"] >= 0
            unknown = await http.get("/api/v1/sources/kraken")
            assert (unknown.status_code, unknown.json()["valid"]) == (404, ["binance"])
        (connected,) = [line for line in lines if "sources/binance: connected" in line]
        assert (
            connected
            == f"INFO sources/binance: connected to {secret.replace('hush', '***')}, subscribed to BTC-USDT"
        )


async def test_the_way_of_a_trade_is_timed_once_a_pass() -> None:
    """However many clients a pass serves, it counts once."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        http_client(d.http) as http,
        client(d.url) as one,
        client(d.url) as other,
    ):
        for each in (one, other):
            await each.call("subscribe", symbol="BTC-USDT")
        await exchange.wait_subscribed(["BTCUSDT"])
        for n in range(1, 4):
            await exchange.publish(Trade(n, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000 + n))
            for each in (one, other):
                await each.until(lambda each=each, n=n: len(each.trades()) == n)
        now = await figures(http)
        assert now["dataflow_fanout_latency_seconds_count"] == 3
        assert now["dataflow_fanout_latency_seconds_sum"] > 0
        await until(lambda: d.core.lag.histogram.total)
        assert (await figures(http))["dataflow_loop_lag_seconds_count"] > 0


async def test_an_age_is_not_told_by_the_clock_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is set forward by a day: nobody has been here for a day, and the daemon did not run for one."""
    async with daemon(sources={}) as d, http_client(d.http) as http, client(d.url) as one:
        await one.call("ping")
        now = d.core.clock()
        monkeypatch.setattr(d.core, "clock", lambda: now + 86400)
        assert (await get(http, "/api/v1/status"))["uptime"] < 3600
        assert (await get(http, "/api/v1/clients/1"))["age"] < 3600
        assert (await get(http, "/actors/gateway"))["age"] < 3600


async def test_a_server_that_stops_refuses_to_restart_others() -> None:
    """It could not see to the restart, so it does not promise one: a 503, not a failure inside."""
    async with daemon(sources={}) as d:
        parted = d.hall.part_with_guests
        refused = []

        async def part_with_guests(within: float) -> None:
            with pytest.raises(Unavailable, match="temporarily"):
                d.hall.restart("topics")
            refused.append(within)
            await parted(within)

        d.hall.part_with_guests = part_with_guests  # type: ignore[method-assign]
        await d.root.supervisor("gateway").restart("http")
        assert len(refused) == 1
