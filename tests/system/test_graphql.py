"""GraphQL over the real daemon, with the client libraries of others: gql, graphql-ws, and graphql-http's audits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from dataflow.domain import Topic
from dataflow.domain.topic import TRADES
from dataflow.faces.graphql import Settings
from dataflow.faces.graphql.transport_ws import SUBPROTOCOL
from tests.support import node
from tests.support.waiting import until
from tests.system import test_sse
from tests.system.daemon import http_client
from tests.system.test_sse import SYMBOL, Stage

PATH = "/graphql"
BAR = "marketData(symbol: $s) {symbol open high low close volume timestamp}"
TICKS = "subscription($s: String!) {trades(symbol: $s) {price qty side tradeId timestamp time offset source symbol}}"


@asynccontextmanager
async def stage(graphql: Settings | None = None, **tables: Any) -> AsyncIterator[Stage]:
    face = graphql or Settings(enabled=True)
    async with test_sse.stage(faces={"graphql": face}, **tables) as s:
        yield s


def url(s: Stage) -> str:
    return s.daemon.http + PATH


def bar(count: int) -> dict[str, Any]:
    """The bar of the day behind so many trades of the stage."""
    price = Decimal("2.50000000")
    told = {"symbol": SYMBOL, **dict.fromkeys(("open", "high", "low", "close"), price)}
    volume = Decimal("0.5") * count
    return told | {"volume": f"{volume:f}".removesuffix(".0"), "timestamp": "1700000000000"}


def listeners(s: Stage, channel: str = TRADES, symbol: str = SYMBOL) -> int:
    return s.daemon.core.topics.subscribers.get(Topic(channel, symbol), 0)


@define
class Talk:
    """A client that says exactly what a test wants, and keeps what it hears."""

    socket: WebSocketConnection
    heard: list[Any] = field(factory=list)
    closed: tuple[int, str] | None = None

    async def say(self, message: Any) -> None:
        await self.socket.send_message(message if isinstance(message, str | bytes) else json.dumps(message))

    async def subscribe(self, id: str, query: str, **variables: Any) -> None:
        await self.say({"id": id, "type": "subscribe", "payload": {"query": query, "variables": variables}})

    async def listen(self) -> None:
        try:
            while True:
                self.heard.append(json.loads(await self.socket.get_message(), parse_float=Decimal))
        except ConnectionClosed as error:
            reason = error.reason
            self.closed = (reason.code, reason.reason or "") if reason else (1006, "")

    def of(self, id: str) -> list[Any]:
        """The payloads of the results of an operation."""
        return [m["payload"] for m in self.heard if m.get("id") == id and m["type"] == "next"]

    def offsets(self, id: str) -> list[int]:
        return [each["data"]["trades"]["offset"] for each in self.of(id) if each["data"]]


@asynccontextmanager
async def talk(
    s: Stage, *, subprotocols: Sequence[str] = (SUBPROTOCOL,), init: bool = True
) -> AsyncIterator[Talk]:
    address = s.daemon.http.removeprefix("http://")
    host, _, port = address.partition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, address, PATH, subprotocols=list(subprotocols))
        made = Talk(socket)
        nursery.start_soon(made.listen)
        if init:
            await made.say({"type": "connection_init"})
            await until(lambda: made.heard)
            assert made.heard.pop() == {"type": "connection_ack"}
        yield made
        nursery.cancel_scope.cancel()


# Queries.


async def test_the_audits_of_graphql_http() -> None:
    """All of them, also those that the specification only recommends."""
    async with stage() as s, node.program("graphql_audits.mjs", url(s)) as audits:
        told = await audits.hear_until(lambda line: line is None)
        assert len(told) == 62
        assert [audit for audit in told[:-1] if audit["status"] != "ok"] == []


async def test_a_query_answers_with_the_bar_of_the_day() -> None:
    """Exact values, the name in any spelling, and null for what there is not."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await s.publish(3)
        for name in (SYMBOL, " btc-usdt ", "BTCUSDT", "btcusdt"):
            told = await http.post(
                PATH, json={"query": f"query($s: String!) {{{BAR}}}", "variables": {"s": name}}
            )
            assert told.headers["content-type"] == "application/json; charset=utf-8"
            assert json.loads(told.text, parse_float=Decimal) == {"data": {"marketData": bar(3)}}
        for name in ("ETH-USDT", "AAPL", "", "a/b", "x" * 1000):
            told = await http.get(
                PATH,
                params={
                    "query": "query($s:String!){marketData(symbol:$s){close}}",
                    "variables": json.dumps({"s": name}),
                },
            )
            assert (told.status_code, told.json()) == (200, {"data": {"marketData": None}})
