"""Quotas, descriptors and memory in the whole daemon: one address cannot take what others need."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import WebSocketConnection, wrap_client_stream

from actors.session import Ending
from dataflow.gateway import lobby
from dataflow.gateway.admission import TOO_LITTLE_MEMORY, TOO_MANY_OF_ONE
from dataflow.gateway.lobby import Lobby
from dataflow.gateway.memory import FREEING_SHARE, GREEDY_BYTES, LOOK_EVERY, MemoryGuard
from dataflow.gateway.room import Room
from dataflow.server.accepting import SAME_ADDRESS
from dataflow.settings.schema import Limits, Operator, Settings
from supervisors import Child, Supervisor, open_supervisor
from tests.support.descriptors import free_descriptors
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance

STRANGER, OTHER = "127.0.0.2", "127.0.0.3"
NO_UPSTREAM = from_binance("ws://127.0.0.1:9/stream", "BTC-USDT", "ETH-USDT")


@asynccontextmanager
async def limited(**limits: Any) -> AsyncIterator[Daemon]:
    async with daemon(sources=NO_UPSTREAM, limits=Limits(loopback=True, **limits)) as made:
        yield made


@asynccontextmanager
async def client(made: Daemon, address: str) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket client that comes from `address`."""
    host, _, port = made.http.removeprefix("http://").partition(":")
    stream = await trio.open_tcp_stream(host, int(port), local_address=address)
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, f"{host}:{port}", "/ws")
        nursery.cancel_scope.cancel()


async def call(socket: WebSocketConnection, method: str, **params: Any) -> dict[str, Any]:
    await socket.send_message(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    while True:
        said = json.loads(await socket.get_message())
        if "id" in said:
            return dict(said)


def http(made: Daemon, address: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=made.http, transport=transport, timeout=None)


async def test_sessions_of_one_address_are_bounded() -> None:
    """One more is closed with 1013 and told when to come back; another address comes in; a place becomes free."""
    async with limited(sessions=1) as made, client(made, STRANGER) as first, client(made, OTHER) as other:
        assert (await call(first, "ping"))["result"] == (await call(other, "ping"))["result"] == "pong"
        async with client(made, STRANGER) as second:
            told = json.loads(await second.get_message())
            assert told["method"] == "connection.refused"
            await until(lambda: second.closed)
            assert second.closed is not None
            assert second.closed.code == 1013
        assert made.lobby.admission.refused[TOO_MANY_OF_ONE] == 1
        await first.aclose()
        await until(lambda: len(made.lobby.clients) == 1)
        async with client(made, STRANGER) as again:
            assert (await call(again, "ping"))["result"] == "pong"


async def test_event_stream_over_the_quota_names_it() -> None:
    """An event stream is a session: one more is 429 with the reason and the time, not a lack of room."""
    async with limited(sessions=1) as made, client(made, STRANGER), http(made, STRANGER) as web:
        await until(lambda: len(made.lobby.clients) == 1)
        answer = await web.get("/api/v1/stream/BTC-USDT")
        assert answer.status_code == 429
        assert answer.json()["detail"] == f"{TOO_MANY_OF_ONE}, try again later"
        assert int(answer.headers["Retry-After"]) > 0


async def test_bodies_of_requests_are_paid_for(mock_clock: MockClock) -> None:
    """What a client sends costs others as well: it counts, whatever the answer is."""
    async with limited(bytes_per_second=200.0) as made, http(made, STRANGER) as web:
        assert (await web.post("/health", content=b"x" * 5_000)).status_code == 405
        assert (await web.get("/health")).status_code == 429


async def test_subscriptions_of_one_address_are_bounded() -> None:
    """All its connections count together; what is given back may be taken again."""
    async with limited(subscriptions=1) as made, client(made, STRANGER) as one, client(made, STRANGER) as two:
        assert "result" in await call(one, "subscribe", symbol="BTC-USDT")
        assert (await call(two, "subscribe", symbol="BTC-USDT"))["error"]["code"] == -32003
        assert "result" in await call(one, "subscribe", symbol="BTC-USDT")  # the same one
        await call(one, "unsubscribe", symbol="BTC-USDT")
        assert "result" in await call(two, "subscribe", symbol="BTC-USDT")
        await two.aclose()
        await until(lambda: len(made.lobby.clients) == 1)
        assert "result" in await call(one, "subscribe", symbol="ETH-USDT")


async def test_calls_of_one_address_are_bounded(mock_clock: MockClock) -> None:
    """A flood is told -32002 and 429 with the time to wait, alone and in a batch; others are served."""
    async with (
        limited(calls_per_second=0.1) as made,
        client(made, STRANGER) as one,
        client(made, OTHER) as other,
    ):
        assert (await call(one, "ping"))["result"] == "pong"
        error = (await call(one, "ping"))["error"]
        assert error["code"] == -32002
        assert error["data"]["limit"] == "calls"
        assert 0 < error["data"]["retryAfter"] <= 10
        await one.send_message('[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"ping"}]')
        [refused] = json.loads(await one.get_message())
        assert refused["error"]["code"] == -32002
        assert (await call(other, "ping"))["result"] == "pong"
        async with http(made, STRANGER) as web:
            answer = await web.get("/health")
            assert answer.status_code == 429
            assert 0 < int(answer.headers["Retry-After"]) <= 10
            assert answer.json()["retryAfter"] > 0
        async with http(made, "127.0.0.4") as web:
            assert (await web.get("/health")).status_code == 200
        async with http(made, "127.0.0.5") as web:
            assert 'dataflow_limits_refused_total{what="calls"} 4.0' in (await web.get("/metrics")).text


async def test_answers_are_paid_for(mock_clock: MockClock) -> None:
    """Who has had more bytes than its share waits, however few calls that took."""
    async with limited(bytes_per_second=10.0) as made, client(made, STRANGER) as one:
        assert "result" in await call(one, "getSymbols")
        error = (await call(one, "ping"))["error"]
        assert error["code"] == -32002
        assert error["data"]["limit"] == "bytes"


async def test_this_machine_is_exempt_by_default() -> None:
    """Tools of the operator, and tests, have no quotas."""
    limits = Limits(sessions=1, subscriptions=1, calls_per_second=0.1, bytes_per_second=1.0)
    async with (
        daemon(sources=NO_UPSTREAM, limits=limits) as made,
        client(made, STRANGER) as one,
        client(made, STRANGER) as two,
    ):
        for _ in range(20):
            assert (await call(one, "ping"))["result"] == (await call(two, "ping"))["result"] == "pong"
        assert "result" in await call(one, "subscribe", symbol="BTC-USDT")
        assert "result" in await call(one, "subscribe", symbol="ETH-USDT")


async def test_reloaded_limits_hold_for_silent_connections_too() -> None:
    """What a reload tells to have changed has changed: one silent connection more closes the one before it."""
    async with daemon(sources={}, limits=Limits(loopback=True)) as made:
        await made.reload(evolve(made.hall.settings, limits=Limits(loopback=True, waiting=1)))
        port = int(made.http.rpartition(":")[2])
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as first,
            await trio.open_tcp_stream("127.0.0.1", port),
        ):
            assert await first.receive_some() == b""
        assert made.lobby.stats.dismissed[SAME_ADDRESS] == 1


async def test_the_operators_own_listener_has_places_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """When clients have all descriptors that are theirs, the operator still gets in there, from any address."""
    gc.collect()  # what tests before left gives its descriptors back now, not in between
    limits, operator = Limits(loopback=True), Operator(port=0)
    with free_descriptors() as lowest:
        room = Room(1, ceiling=lowest + 2)  # the listeners stand there
        monkeypatch.setattr(lobby, "Room", lambda _sessions: room)
        async with daemon(sources={}, limits=limits, operator=operator) as made:
            own = f"http://127.0.0.1:{made.lobby.operator_port}"
            async with httpx.AsyncClient(timeout=None) as web:
                assert (await web.get(f"{made.http}/health")).status_code == 503
                assert (await web.get(f"{own}/health")).status_code == 200


class _Greedy:
    """A session of which only the greed counts."""

    peer = "192.0.2.1:1"
    stays = False
    sent = dropped = 0

    def __init__(self, waiting_bytes: int) -> None:
        self.waiting_bytes = waiting_bytes
        self.ended: Any = None
        self.lanes: dict[Any, Any] = {}

    def end(self, why: Ending, words: str) -> None:
        self.ended = why, words


async def test_memory_beyond_the_bound_is_taken_from_the_greediest(mock_clock: MockClock) -> None:
    """They are told why, only as many go as are needed, and nobody comes in until there is room again."""
    lobby, resident = Lobby(Settings()), [200 * GREEDY_BYTES]
    modest, greedy, greediest = (_Greedy(n * GREEDY_BYTES) for n in (0, 10, 50))
    for session in (modest, greedy, greediest):
        lobby.clients.enter(session)  # type: ignore[arg-type]
    guard = MemoryGuard(lobby, 160 * GREEDY_BYTES, lambda: resident[0])
    async with open_supervisor(Supervisor(children=(Child("memory", lambda: guard, stop_within=0),))):
        await until(lambda: lobby.short_of_memory)
        assert greediest.ended == (
            Ending.SLOW,
            f"too little memory: {50 * GREEDY_BYTES} bytes were waiting",
        )
        assert greedy.ended is None
        resident[0] = 159 * GREEDY_BYTES
        mock_clock.jump(2 * LOOK_EVERY)
        await until(lambda: True)
        assert lobby.short_of_memory  # it would be beyond the bound again with the next client
        resident[0] = 100 * GREEDY_BYTES
        mock_clock.jump(2 * LOOK_EVERY)
        await until(lambda: not lobby.short_of_memory)
        assert greedy.ended is modest.ended is None


async def test_memory_that_stays_beyond_the_bound_costs_a_share_of_the_time(mock_clock: MockClock) -> None:
    """Giving memory back holds everybody up: when it does not help, it is done seldom, not at every look."""
    calls = list[float]()

    def give_back() -> None:
        calls.append(trio.current_time())
        mock_clock.jump(0.5)

    guard = MemoryGuard(lobby := Lobby(Settings()), 1, lambda: 2, give_back)
    async with open_supervisor(Supervisor(children=(Child("memory", lambda: guard, stop_within=0),))):
        await until(lambda: lobby.short_of_memory)
        began = trio.current_time()
        for _ in range(100):
            mock_clock.jump(LOOK_EVERY)
            await wait_all_tasks_blocked()
    assert 2 <= len(calls) <= 1 + FREEING_SHARE / 0.5 * (trio.current_time() - began)


@pytest.mark.parametrize("short", [True, False])
async def test_nobody_comes_in_without_memory(short: bool) -> None:
    """A newcomer is sent away with 1013, and counted; who is in stays."""
    async with daemon(sources=NO_UPSTREAM) as made, client(made, STRANGER) as one:
        assert (await call(one, "ping"))["result"] == "pong"
        made.lobby.short_of_memory = short
        async with client(made, OTHER) as two:
            if short:
                assert json.loads(await two.get_message())["method"] == "connection.refused"
            else:
                assert (await call(two, "ping"))["result"] == "pong"
        assert made.lobby.admission.refused[TOO_LITTLE_MEMORY] == short
        assert (await call(one, "ping"))["result"] == "pong"
