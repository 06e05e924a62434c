"""Server-Sent Events over the real daemon: the same stream as everybody's, with resume, for a client that only listens."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import pytest
import trio
from attrs import define, field
from httpx_sse import EventSource, ServerSentEvent

from actors.outbox import SlowClient
from dataflow.chaos.client import dial
from dataflow.domain import Topic
from dataflow.server.connection import Connection
from dataflow.settings.schema import Cache, Gateway, Session
from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

SYMBOL = "BTC-USDT"
PATH = f"/api/v1/stream/{SYMBOL}"
TOPIC = Topic("trades", SYMBOL)


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    published: int = 0

    async def publish(self, count: int) -> None:
        for _ in range(count):
            self.published += 1
            at = 1_700_000_000_000_000 + self.published
            await self.exchange.publish(
                Trade(
                    id=self.published, symbol="BTCUSDT", side="sell", price="2.50", qty="0.5", timestamp_us=at
                )
            )
        await until(lambda: self.daemon.core.history(SYMBOL).last >= self.published)

    @property
    def listeners(self) -> int:
        return self.daemon.core.topics.subscribers.get(TOPIC, 0)


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    """No silence is so long that it changes the reason of a quality."""
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, "ETH-USDT", eager=True, stall_after=600.0), **tables
        ) as d,
    ):
        await d.until_carried(SYMBOL, "ETH-USDT")
        yield Stage(exchange, d)


@define
class Listener:
    """One event stream and what came over it."""

    response: httpx.Response
    events: list[ServerSentEvent] = field(factory=list)
    ended: bool = False

    async def listen(self) -> None:
        try:
            async for event in EventSource(self.response).aiter_sse():
                self.events.append(event)
        except httpx.RemoteProtocolError:
            pass
        self.ended = True

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(e.data, parse_float=Decimal) for e in self.events if e.event == kind]

    @property
    def offsets(self) -> list[int]:
        return [trade["offset"] for trade in self.of("trade")]


@asynccontextmanager
async def listening(s: Stage, path: str = PATH, **headers: str) -> AsyncIterator[Listener]:
    async with (
        http_client(s.daemon.http) as http,
        http.stream("GET", path, headers=headers, timeout=None) as response,
        trio.open_nursery() as nursery,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        listener = Listener(response)
        nursery.start_soon(listener.listen)
        yield listener
        nursery.cancel_scope.cancel()


async def test_a_trade_is_an_event_with_its_place() -> None:
    """The id is the place in the stream, and the data is what every other client gets."""
    async with stage() as s, client(s.daemon.url) as rpc, listening(s) as listener:
        await rpc.call("subscribe", symbol=SYMBOL)
        await until(lambda: s.listeners == 2)
        await s.publish(2)
        await until(lambda: len(listener.events) == 2)
        await rpc.until(lambda: len(rpc.trades()) == 2)
        assert [event.id for event in listener.events] == [f"{s.daemon.core.epoch}-{n}" for n in (1, 2)]
        assert listener.of("trade") == rpc.trades()


async def test_events_as_lines() -> None:
    """The same events, their ids and their data; a client that takes neither gets events."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await s.publish(3)
        since = f"{PATH}?since={s.daemon.core.epoch}-0"
        accept = {"Accept": "text/event-stream;q=0.5, application/x-ndjson"}
        async with (
            listening(s, since) as listener,
            http.stream("GET", since, headers=accept, timeout=None) as answer,
        ):
            assert answer.headers["content-type"] == "application/x-ndjson"
            found: list[Any] = []

            async def listen() -> None:
                async for line in answer.aiter_lines():
                    found.append(json.loads(line))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await until(lambda: len(found) == len(listener.events) == 3)
                nursery.cancel_scope.cancel()
            assert found == [
                {"event": each.event, "id": each.id, "data": json.loads(each.data)}
                for each in listener.events
            ]
        head = await http.head(PATH, headers={"Accept": "application/json"})
        assert head.headers["content-type"] == "text/event-stream"


async def test_a_client_that_comes_back_misses_and_repeats_nothing() -> None:
    """With the id of its last event, as a browser sends it by itself, or with `since` in the address."""
    async with stage() as s:
        await s.publish(5)
        last = f"{s.daemon.core.epoch}-3"
        for headers, query in (({"Last-Event-ID": last}, ""), ({}, f"?since={last}")):
            async with listening(s, PATH + query, **headers) as listener:
                await until(lambda listener=listener: len(listener.offsets) >= s.published - 3)
                await s.publish(4)
                await until(lambda listener=listener: len(listener.offsets) >= s.published - 3)
                assert listener.offsets == list(range(4, s.published + 1))


async def test_a_stream_in_the_middle_of_a_burst_has_no_hole() -> None:
    """However past and live meet: every place once, in order, from each of many starts."""
    async with stage() as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.publish, 600)
        await until(lambda: s.daemon.core.history(SYMBOL).last >= 20)
        for start in range(10):
            async with listening(s, f"{PATH}?since={s.daemon.core.epoch}-{start}") as listener:
                await until(lambda listener=listener: len(listener.offsets) >= 150)
                assert listener.offsets == list(range(start + 1, start + 1 + len(listener.offsets)))


async def test_an_unknown_place_is_a_gap_and_then_the_stream() -> None:
    """Of another run's epoch nothing is known: said before anything else, then comes all that is left."""
    async with stage(cache=Cache(trades_per_symbol=3)) as s:
        await s.publish(5)
        async with listening(s, f"{PATH}?since=7-3") as listener:
            await until(lambda: len(listener.offsets) == 3)
            await s.publish(2)
            await until(lambda: len(listener.offsets) == 5)
            assert [event.event for event in listener.events] == ["gap"] + ["trade"] * 5
            assert listener.of("gap") == [{"from": 0, "to": None, "reason": "overrun"}]
            assert listener.offsets == [3, 4, 5, 6, 7]
            last = listener.events[0].id
        async with listening(s, PATH, **{"Last-Event-ID": last}) as again:
            await until(lambda: len(again.offsets) == 3)
            assert [event.event for event in again.events] == ["gap"] + ["trade"] * 3


async def test_a_gap_keeps_its_place() -> None:
    """Trades that the source skipped are an event between those around them, live and in the past."""
    async with stage() as s, listening(s) as listener:
        await until(lambda: s.listeners == 1)
        await s.publish(2)
        s.published += 3
        await s.publish(2)
        await until(lambda: len(listener.events) == 5)
        kinds = ["trade", "trade", "gap", "trade", "trade"]
        assert [event.event for event in listener.events] == kinds
        assert listener.of("gap") == [{"from": 3, "to": 5, "reason": "source_gap"}]
        assert listener.events[2].id == f"{s.daemon.core.epoch}-5"
        async with listening(s, f"{PATH}?since={s.daemon.core.epoch}-0") as late:
            await until(lambda: len(late.events) == 5)
            assert [(e.event, e.id, e.data) for e in late.events] == [
                (e.event, e.id, e.data) for e in listener.events
            ]


@pytest.mark.parametrize(
    ("path", "about"),
    [
        ("/api/v1/stream/BTC-USTD", {"param": "symbol", "nearest": ["BTC-USDT", "ETH-USDT"]}),
        (f"{PATH}?channel=quotes", {"param": "channel", "valid": ["candles", "quality", "trades"]}),
        (f"{PATH}?since=yesterday", {"param": "since", "value": "yesterday"}),
        (f"{PATH}?since=1-2-3", {"param": "since", "value": "1-2-3"}),
    ],
)
async def test_a_mistake_is_answered_with_what_would_be_right(path: str, about: dict[str, Any]) -> None:
    """A problem document, not a stream that never says anything."""
    async with stage() as s, http_client(s.daemon.http) as http:
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert answer.json().items() >= about.items()


async def test_without_room_a_client_is_told_when_to_come_back() -> None:
    """503 with Retry-After; the session that is there stays."""
    async with stage(gateway=Gateway(port=0, max_sessions=1)) as s, listening(s) as listener:
        async with http_client(s.daemon.http) as http:
            answer = await http.get(PATH)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1
        await until(lambda: s.listeners == 1)
        await s.publish(1)
        await until(lambda: listener.offsets == [1])


async def test_who_comes_back_to_a_server_that_stops_comes_again() -> None:
    """A browser tries no more behind a 503, but it does behind the end of a stream."""
    async with stage() as s, http_client(s.daemon.http) as http:
        s.daemon.hall.close()
        answer = await http.get(PATH)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        told = '{"kind":"connection.draining","reason":"server going away"}'
        assert answer.text == f"event: notice\ndata: {told}\n\n"
        assert len(s.daemon.lobby.clients) == 0


async def test_outages_and_the_end_are_told() -> None:
    """A lost source and a stopping server are notices; then the stream ends, and the client comes back by itself."""
    async with stage() as s, listening(s) as listener:
        await until(lambda: s.listeners == 1)
        await s.exchange.disconnect("graceful")
        await until(lambda: len(listener.of("notice")) == 2)
        lost, restored = listener.of("notice")
        assert (lost["kind"], lost["source"]) == ("connection.lost", "binance")
        assert (restored["kind"], restored["source"]) == ("connection.restored", "binance")
        await s.daemon.root.supervisor("gateway").restart("sessions")
        await until(lambda: listener.ended)
        assert listener.of("notice")[-1] == {"kind": "connection.draining", "reason": "server going away"}


async def test_a_server_that_stops_says_farewell_and_holds_nobody() -> None:
    """A stream without end would hold it. WebSockets have connections of their own, and stay for a restart."""
    async with stage() as s, client(s.daemon.url) as rpc, listening(s) as listener:
        await rpc.call("subscribe", symbol=SYMBOL)
        await until(lambda: s.listeners == 2)
        await s.daemon.root.supervisor("gateway").restart("http")
        await until(lambda: listener.ended)
        assert listener.of("notice") == [{"kind": "connection.draining", "reason": "server going away"}]
        await s.publish(1)
        await rpc.until(lambda: len(rpc.trades()) == 1)
        assert rpc.closed is None


async def test_quality_comes_by_the_same_way() -> None:
    """First how the symbol fares at each source, then every change; it is no interest in the symbol."""
    async with stage() as s, listening(s, f"{PATH}?channel=quality") as listener:
        await until(lambda: listener.events)
        assert [(q["source"], q["state"]) for q in listener.of("quality")] == [("binance", "quiet")]
        await s.exchange.disconnect("graceful")
        await until(lambda: len(listener.of("quality")) >= 3)
        states = [quality["state"] for quality in listener.of("quality")]
        assert states[:2] == ["quiet", "lost"]
        await until(lambda: listener.of("quality")[-1]["state"] == "quiet")
        assert s.listeners == 0


async def test_a_listener_that_leaves_leaves_nothing() -> None:
    """Its session ends, and its topic has one subscriber less."""
    async with stage() as s:
        for _ in range(3):
            async with listening(s):
                await until(lambda: s.listeners == 1)
            await until(lambda: s.listeners == 0 and len(s.daemon.lobby.clients) == 0)
        assert s.daemon.crashes() == []


def give_small_buffer(peer: str) -> None:
    """The kernel takes no more than some kilobytes for this client of the server."""
    (connection,) = [each for each in gc.get_objects() if type(each) is Connection and each._peer == peer]
    connection._stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)


@pytest.mark.parametrize("policy", [SlowClient.DISCONNECT, SlowClient.DROP_OLDEST])
async def test_a_listener_that_does_not_read_holds_nobody_up(policy: SlowClient) -> None:
    """It is let go of, or told what it missed; what waits for it is bounded; another client gets everything."""
    settings = Session(outbox=50, slow_client=policy)
    async with stage(session=settings) as s, client(s.daemon.url) as quick:
        await quick.call("subscribe", symbol=SYMBOL)
        host, _, port = s.daemon.http.removeprefix("http://").partition(":")
        async with await dial(host, int(port)) as raw:  # its buffers are soon full
            await raw.send_all(f"GET {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            await until(lambda: s.listeners == 2)
            (deaf,) = [session for session in s.daemon.lobby.clients if session.peer.startswith(host)][-1:]
            give_small_buffer(deaf.peer)  # else the kernel takes megabytes for it
            while deaf.ended is None and not deaf.dropped:
                await s.publish(200)
                assert deaf.waiting <= 50 + 256
            await quick.until(lambda: len(quick.trades()) == s.published)
            assert [trade["offset"] for trade in quick.trades()] == list(range(1, s.published + 1))


async def test_head_tells_what_get_would() -> None:
    """The same headers, no body, and no client."""
    async with stage() as s, http_client(s.daemon.http) as http:
        asked = await http.head(PATH)
        async with http.stream("GET", PATH) as answer:
            for told in (asked, answer):
                assert told.status_code == 200
                told.headers.pop("date")
                told.headers.pop("transfer-encoding", None)
            assert asked.headers == answer.headers
