"""What a running daemon tells of its load: rates that rise and fade, series without holes, topics."""

from __future__ import annotations

import json

import httpx
import pytest
import trio

from dataflow.settings.schema import Operator
from simulators import Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import client, daemon, from_binance, http_client


async def test_trades_are_seen_in_every_rate_and_in_the_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the source, of the symbol, of the topic, of all, and what went to clients; the sum of the series is the
    number of trades."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", eager=True)) as d,
        client(d.url) as rpc,
        http_client(d.http) as http,
    ):
        await rpc.call("subscribe", symbol="BTC-USDT")
        await rpc.call("subscribe", symbol="*", channel="candles", interval="1m")
        await exchange.wait_subscribed(["BTCUSDT"])
        await until(lambda: len(d.hall.load._looks) > 0)
        for n in range(1, 41):
            await exchange.publish(Trade(n, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000 + n))
        await until(lambda: d.hall.load._looks[-1].trades == 40 and d.hall.load._looks[-1].sent >= 40)
        monkeypatch.setattr(d.hall.load, "look", trio.sleep_forever)  # all answers are about the same seconds

        status = (await http.get("/api/v1/status")).json()
        assert status["rate"] > 0
        assert status["sentRate"] >= status["rate"]
        assert status["sources"]["binance"]["delivered"]["rate"] > 0
        assert status["cpu"] > 0
        assert status["memory"] is None or status["memory"] > 1_000_000
        (symbol,) = (await http.get("/api/v1/symbols")).json()
        assert (symbol["rate"], symbol["offset"]) == (status["rate"], 40)

        told = (await http.get("/api/v1/load")).json()
        series = {name: of for name, of in told.items() if name not in ("every", "end")}
        assert {len(of) for of in series.values()} == {len(d.hall.load.samples(900))}
        assert sum(each or 0 for each in told["trades"]) > 0
        assert told["sessions"][-1] == 1
        assert len((await http.get("/api/v1/load?last=1")).json()["cpu"]) == 1

        topics = (await http.get("/api/v1/topics")).json()
        assert topics["total"] == 2
        by_name = {(each["channel"], each["symbol"]): each for each in topics["topics"]}
        trades = by_name["trades", "BTC-USDT"]
        assert (trades["subscribers"], trades["offset"], trades["rate"]) == (1, 40, symbol["rate"])
        assert by_name["candles", "*"]["variant"] == "1m"
        metrics = (await http.get("/metrics")).text
        for line in (
            'dataflow_source_lines{source="binance",state="connected"} 1.0',
            'dataflow_source_lines{source="binance",state="lost"} 0.0',
            'dataflow_topics{channel="candles"} 1.0',
            'dataflow_subscriptions{channel="trades"} 1.0',
        ):
            assert f"\n{line}\n" in metrics
        assert (await http.get("/api/v1/topics?limit=0")).status_code == 400
        assert (await http.get("/api/v1/load?last=901")).status_code == 400


async def test_the_load_is_of_the_inside_and_topics_are_the_operators() -> None:
    """With a token both need it, without one the load is open as metrics are."""
    async with daemon(sources={}, operator=Operator(token="secret")) as d, http_client(d.http) as http:
        for path in ("/api/v1/load", "/api/v1/topics"):
            assert (await http.get(path)).status_code == 401
            answer = await http.get(path, headers={"Authorization": "Bearer secret"})
            assert answer.status_code == 200


async def test_every_answer_in_json_ends_with_a_newline() -> None:
    """Also an error, a page that is kept by its tag, and one without a body."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        paths = "/health", "/ready", "/actors", "/api/v1/status", "/api/v1/symbols", "/api/v1/none", "/none"
        for path in paths:
            answer = await http.get(path)
            assert answer.text.endswith(("}\n", "]\n"))
            json.loads(answer.text)
            assert int(answer.headers["Content-Length"]) == len(answer.content)
            await same_head(http, path, answer)


async def same_head(http: httpx.AsyncClient, path: str, answer: httpx.Response) -> None:
    head = await http.head(path)
    assert (head.status_code, head.content) == (answer.status_code, b"")
    assert head.headers["Content-Type"] == answer.headers["Content-Type"]
