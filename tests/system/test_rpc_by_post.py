"""JSON-RPC by POST: the same answers as over a WebSocket, for whoever has none."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx

from dataflow.faces.jsonrpc import posted
from dataflow.settings.schema import Limits
from simulators import Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import client, daemon, from_binance, http_client

JSON = {"Content-Type": "application/json"}


def call(id_: int | None, method: str, **params: Any) -> dict[str, Any]:
    made = {"jsonrpc": "2.0", "method": method, "params": params}
    return made if id_ is None else made | {"id": id_}


def still(answer: Any) -> Any:
    """Without what changes by itself of a symbol: the seconds since its trade, its trades of the last seconds."""
    for each in answer.get("result", ()):
        if isinstance(each, dict) and "lastAge" in each:
            each |= {"lastAge": 0, "rate": 0}
    return answer


def exact(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


async def post(http: httpx.AsyncClient, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await http.post(posted.PATH, content=content, headers={**JSON, **headers})


async def test_answers_are_those_of_the_websocket() -> None:
    """Of every method that follows nothing: alone, in a batch, and without an answer."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", eager=True)) as d,
        client(d.url) as rpc,
        http_client(d.http) as http,
    ):
        await d.until_carried("BTC-USDT")
        for n in (1, 2, 5):
            await exchange.publish(Trade(n, "BTCUSDT", "buy", f"{n}.10", "0.5", 1_700_000_000_000_000 + n))
        await until(lambda: d.core.history("BTC-USDT").last == 5)
        await until(lambda: d.core.sources["binance"].vitals.missing == 2)  # they are counted later
        questions: list[tuple[str, dict[str, Any]]] = [
            ("getRecentTrades", {"symbol": "BTC-USDT", "count": 2}),
            ("getTrades", {"symbol": "BTC-USDT", "limit": 2}),
            ("getTrades", {"symbol": "BTC-USDT", "from": "2023-11-14T22:13:20.000002Z"}),
            ("getCandles", {"symbol": "BTC-USDT", "interval": "1m"}),
            ("getSymbols", {}),
            ("ping", {}),
            ("rpc.discover", {}),
            ("getTrades", {"symbol": "BTC"}),
            ("getTrades", {"symbol": "BTC-USDT", "frmo": 1}),
        ]
        expected = [still(await rpc.ask(method, **params)) for method, params in questions]
        for (method, params), answer in zip(questions, expected, strict=True):
            said = await post(http, call(answer["id"], method, **params))
            assert said.status_code == 200
            assert said.text.endswith("}\n")
            assert still(exact(said.text)) == answer
        batch = [
            call(answer["id"], *question[:1], **question[1])
            for question, answer in zip(questions, expected, strict=True)
        ]
        said = await post(http, [*batch, call(None, "ping")])
        assert [still(answer) for answer in exact(said.text)] == expected
        assert "getStatus" in posted.METHODS.names

        page = expected[1]["result"]
        assert [each["offset"] for each in page["trades"]] == [1, 2]
        assert page["gaps"] == []
        more = await rpc.call("getTrades", symbol="BTC-USDT", after=page["next"])
        assert [each["offset"] for each in more["trades"]] == [5]
        assert more["gaps"] == [{"from": 3, "to": 4, "reason": "source_gap"}]


async def test_what_is_wrong_with_calls_and_with_requests() -> None:
    """A wrong call is an error of JSON-RPC, with 200. A wrong request is a problem document. A notification has no
    answer, and a subscription no place."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        http_client(d.http) as http,
    ):
        for body, code in ((b"{", -32700), (b"", -32700), (b"\xff", -32700), (b"[]", -32600), (b"7", -32600)):
            answer = await post(http, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (200, code)
        for method in ("subscribe", "UNSUBSCRIBE"):
            answer = await post(http, call(1, method, symbol="BTC-USDT"))
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (200, -32601)
            assert "/ws" in error["data"]["problem"]
        assert d.core.topics.subscribers == {}
        silent = await post(http, call(None, "ping"))
        assert (silent.status_code, silent.content) == (204, b"")
        for status, headers, content in (
            (415, {"Content-Type": "text/plain"}, b"{}"),
            (415, {"Content-Encoding": "gzip"}, b"{}"),
            (406, {"Accept": "text/html"}, b"{}"),
            (413, {}, b" " * 70_000),
        ):
            answer = await post(http, content, **headers)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            answer = await http.request(method, posted.PATH)
            assert answer.status_code == 405
            assert answer.headers["allow"] == "OPTIONS, POST"


async def test_every_call_is_paid_for() -> None:
    """As many as the quota has; the others of the batch are told when to come back."""
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, "BTC-USDT"), limits=Limits(loopback=True, calls_per_second=0.5)
        ) as d,
        http_client(d.http) as http,
    ):
        answers = (await post(http, [call(n, "ping") for n in range(8)])).json()
        assert [answer.get("result") for answer in answers] == ["pong"] * 5 + [None] * 3
        assert answers[-1]["error"]["code"] == -32002
        assert answers[-1]["error"]["data"]["retryAfter"] > 0
        assert (await post(http, call(9, "ping"))).status_code == 429
