"""A storm of clients: each is served, told to wait or told when to come back; no trade is lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from attrs import define, field

from actors.subscription import Fanout
from dataflow.client import Connection, connect
from dataflow.client import Trade as Told
from dataflow.domain import Topic
from dataflow.gateway import admission, recovery
from dataflow.gateway.admission import Standing, Turn, Turns, Urgency
from dataflow.settings.schema import Admission, Gateway
from dataflow.topics.topics import Starter, Topics
from simulators import Exchange, Trade, open_binance
from simulators.connection import reset
from tests.system.daemon import Client, Daemon, client, daemon, from_binance, http_client

CLIENTS = 120
SYMBOL = "BTC-USDT"
RETRY = 0.05  # seconds


async def until(condition: Callable[[], bool]) -> None:
    """Returns when `condition()` holds, checked in every pass of the event loop. Fails after two minutes."""
    with trio.fail_after(120):
        while not condition():
            await trio.lowlevel.checkpoint()


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    published: int = 0

    async def publish(self, count: int) -> None:
        """Publish `count` further trades; all are admitted when it returns."""
        for _ in range(count):
            self.published += 1
            at = 1_700_000_000_000_000 + self.published * 1000
            trade = Trade(
                id=self.published, symbol="BTCUSDT", side="buy", price="2.5", qty="0.5", timestamp_us=at
            )
            await self.exchange.publish(trade)
        await until(lambda: self.daemon.core.history(SYMBOL).last >= self.published)

    def hold_a_turn(self) -> Turn:
        """Make all others wait, when only one client may be served at once."""
        turn = self.daemon.lobby.admission.enter(Urgency.SERVED, lambda: None)
        assert turn.standing is Standing.SERVING
        return turn

    async def waiting(self, **expected: int) -> None:
        wanted = {"served": 0, "resuming": 0, "new": 0} | expected
        await until(lambda: self.daemon.lobby.admission.waiting == wanted)

    @property
    def since(self) -> dict[str, int]:
        return {"epoch": self.daemon.core.epoch, "offset": self.published}


@asynccontextmanager
async def stage(*, at_once: int = 1, waiting: int = 1000, **gateway: Any) -> AsyncIterator[Stage]:
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, eager=True),
            admission=Admission(at_once=at_once, waiting=waiting),
            gateway=Gateway(port=0, **gateway),
        ) as d,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        yield Stage(exchange, d)


@define
class Follower:
    """A user's program. `offsets` are the places that it got, in order; anything but trades would be a fault."""

    offsets: list[int] = field(factory=list)
    connections: list[Connection] = field(factory=list)

    async def follow(self, url: str) -> None:
        """Until the end of the test, over however many connections."""
        async with connect(url, retry_first=RETRY, retry_most=RETRY) as feed:
            async for event in feed.trades(SYMBOL, snapshot=5):
                if isinstance(event, Connection):
                    self.connections.append(event)
                else:
                    assert isinstance(event, Told), event
                    self.offsets.append(event.offset)

    def of(self, state: str) -> list[Connection]:
        return [each for each in self.connections if each.state == state]


async def test_all_clients_come_back_after_a_restart_and_miss_no_trade() -> None:
    """Many clients get their snapshots at once. The gateway restarts at the same address, and all resume. Each gets
    every trade once and in order, also those that come before any of them is served again."""
    async with stage(at_once=2) as s, trio.open_nursery() as nursery:
        followers = [Follower() for _ in range(CLIENTS)]
        url = s.daemon.url

        async def all_have_it() -> None:
            await until(lambda: all(each.offsets[-1:] == [s.published] for each in followers))

        await s.publish(20)
        for follower in followers:
            nursery.start_soon(follower.follow, url)
        for _ in range(2):
            await all_have_it()
            await s.publish(10)
            turns = [s.hold_a_turn() for _ in range(2)]
            await s.daemon.root.restart("gateway")
            await s.waiting(resuming=CLIENTS)
            await s.publish(10)
            for turn in turns:
                s.daemon.lobby.admission.leave(turn)
            assert s.daemon.url == url
        await all_have_it()
        await s.publish(10)
        await all_have_it()
        for follower in followers:
            assert follower.offsets == list(range(16, s.published + 1))
            assert len(follower.of("draining")) == 2
            ended = [(each.code, each.reason) for each in follower.of("lost") if each.code is not None]
            assert ended == [(1001, "server going away")] * 2
        assert s.daemon.lobby.admission.admitted == 3 * CLIENTS
        assert s.daemon.crashes() == []
        nursery.cancel_scope.cancel()


async def test_a_served_client_goes_on_while_a_storm_waits() -> None:
    """No newcomer is answered yet, and the served client gets every trade. Its calls are answered before theirs."""
    async with stage() as s, client(s.daemon.url) as served, trio.open_nursery() as nursery:
        await served.call("subscribe", symbol=SYMBOL)
        turn = s.hold_a_turn()
        order: list[str] = []

        async def newcomer() -> None:
            async with client(s.daemon.url) as new:
                answer = await new.call("subscribe", symbol=SYMBOL, snapshot=5)
                assert [trade["offset"] for trade in answer["trades"]] == list(range(16, 21))
                order.append("new")

        async def ask() -> None:
            await served.call("ping")
            order.append("served")

        for _ in range(50):
            nursery.start_soon(newcomer)
        await s.waiting(new=50)
        await s.publish(20)
        await served.until(lambda: len(served.trades()) == 20)
        assert [trade["offset"] for trade in served.trades()] == list(range(1, 21))
        nursery.start_soon(ask)
        await s.waiting(new=50, served=1)
        assert order == []
        s.daemon.lobby.admission.leave(turn)
        assert s.daemon.lobby.admission.waiting == {"served": 0, "resuming": 0, "new": 50}
        await until(lambda: len(order) == 51)  # the clients' sockets are read in any order


async def test_beyond_max_sessions_a_client_is_told_when_to_come_back() -> None:
    """By a notification and in the close reason of 1013, with the same delay in both."""
    async with stage(max_sessions=1) as s, client(s.daemon.url) as served:
        assert await served.call("ping") == "pong"
        async with client(s.daemon.url) as refused:
            await refused.until(lambda: refused.closed)
            (told,) = refused.of("connection.refused")
            assert told["reason"] == "too many sessions"
            assert 5.0 <= told["retryAfter"] <= 10.0
            assert refused.closed == (
                1013,
                f"too many sessions, try again in {float(told['retryAfter']):g} s",
            )
        assert await served.call("ping") == "pong"
        async with http_client(s.daemon.http) as http:
            metrics = (await http.get("/metrics")).text.splitlines()
        assert 'dataflow_sessions_refused_total{reason="too many sessions"} 1.0' in metrics
        assert "dataflow_admission_admitted_total 1.0" in metrics
        assert 'dataflow_admission_waiting{kind="new"} 0.0' in metrics
        assert any(line.startswith("dataflow_admission_longest_wait_seconds ") for line in metrics)


async def test_a_resuming_client_takes_the_place_of_the_newest_waiting_one() -> None:
    """Without room to wait, a new client is closed with 1013. For a resuming client, the newest new one is closed
    instead. The resuming client is then served first."""
    async with (
        stage(waiting=2) as s,
        client(s.daemon.url) as first,
        client(s.daemon.url) as second,
        client(s.daemon.url) as third,
        client(s.daemon.url) as resuming,
        trio.open_nursery() as nursery,
    ):
        turn = s.hold_a_turn()
        order: list[str] = []

        async def subscribe(who: Client, name: str, **params: Any) -> None:
            with suppress(KeyError):  # closed without an answer
                await who.call("subscribe", symbol=SYMBOL, **params)
                order.append(name)

        nursery.start_soon(subscribe, first, "first")
        await s.waiting(new=1)
        nursery.start_soon(subscribe, second, "second")
        await s.waiting(new=2)
        nursery.start_soon(subscribe, third, "third")
        await third.until(lambda: third.closed)
        nursery.start_soon(lambda: subscribe(resuming, "resuming", since=s.since))
        await second.until(lambda: second.closed)
        for refused in (second, third):
            (told,) = refused.of("connection.refused")
            reason = f"too many clients are waiting, try again in {float(told['retryAfter']):g} s"
            assert refused.closed == (1013, reason)
        assert s.daemon.lobby.admission.waiting == {"served": 0, "resuming": 1, "new": 1}
        s.daemon.lobby.admission.leave(turn)
        assert s.daemon.lobby.admission.waiting == {"served": 0, "resuming": 0, "new": 1}
        await until(lambda: len(order) == 2)
        assert set(order) == {"resuming", "first"}  # the clients' sockets are read in any order


@pytest.mark.parametrize("how", ["graceful", "abrupt"])
async def test_a_client_that_hangs_up_while_it_waits_leaves_the_queue(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free at once, although no client was served or given a sign since."""
    monkeypatch.setattr(admission, "FIRST_SIGN", float("inf"))
    async with stage() as s, client(s.daemon.url) as gone:
        turn = s.hold_a_turn()
        await gone.socket.send_message('{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
        await s.waiting(new=1)
        if how == "graceful":
            await gone.socket.aclose()
        else:
            await reset(gone.socket._stream)
        await s.waiting(new=0)
        assert s.daemon.lobby.admission.admitted == 0
        s.daemon.lobby.admission.leave(turn)


async def test_a_waiting_client_gets_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells the number of clients before it and the seconds. Its further calls are answered later, in order."""
    monkeypatch.setattr(admission, "FIRST_SIGN", 0.0)
    async with (
        stage() as s,
        client(s.daemon.url) as before,
        client(s.daemon.url) as waits,
        trio.open_nursery() as nursery,
    ):
        turn = s.hold_a_turn()
        nursery.start_soon(before.call, "ping")
        await s.waiting(new=1)
        for number, method in enumerate(("ping", "getStatus")):
            call = {"jsonrpc": "2.0", "id": number, "method": method}
            await waits.socket.send_message(json.dumps(call))
        await s.waiting(new=2)
        await waits.until(lambda: waits.of("connection.waiting"))
        told = waits.of("connection.waiting")[0]
        assert told["ahead"] == 1
        assert told["seconds"] >= 0
        s.daemon.lobby.admission.leave(turn)
        await waits.until(lambda: len(waits.answers) == 2)
        assert list(waits.answers) == [0, 1]
        assert waits.answers[0]["result"] == "pong"
        assert waits.answers[1]["result"]["waiting"] == {"served": 0, "resuming": 0, "new": 0}


async def test_a_slow_start_of_a_topic_delays_no_other_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first subscriber gives its turn back meanwhile, although there is only one turn."""
    started, go_on, open_ = trio.Event(), trio.Event(), Topics.open

    async def slow(self: Topics, topic: Topic, pool: Starter) -> Fanout:
        started.set()
        await go_on.wait()
        return await open_(self, topic, pool)

    monkeypatch.setattr(Topics, "open", slow)
    async with (
        stage() as s,
        client(s.daemon.url) as first,
        client(s.daemon.url) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: first.call("subscribe", symbol=SYMBOL))
        await started.wait()
        with trio.fail_after(120):
            assert await other.call("ping") == "pong"
        assert not first.answers
        go_on.set()


async def test_a_long_recovery_is_done_in_slices_without_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile trades come and other clients have their turns. In the end no place is missing or sent twice."""
    monkeypatch.setattr(recovery, "RECOVERY_SLICE", 20)
    pauses = [0]
    pause = Turns.pause

    async def counted(self: Turns) -> None:
        pauses[0] += 1
        await pause(self)

    monkeypatch.setattr(Turns, "pause", counted)
    async with stage() as s, client(s.daemon.url) as late, trio.open_nursery() as nursery:
        since = s.since
        await s.publish(400)
        nursery.start_soon(s.publish, 400)
        answer = await late.call("subscribe", symbol=SYMBOL, since=since)
        assert answer["recovered"] is True
        assert pauses[0] >= 400 / 20
        await until(lambda: answer["offset"] + len(late.trades()) == 800)
        offsets = [trade["offset"] for trade in (*answer["trades"], *late.trades())]
        assert offsets == list(range(1, 801))
        assert answer["trades"][-1]["offset"] == answer["offset"]


async def test_a_symbol_twice_in_a_batch_is_one_stream_without_a_hole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trades come between the two calls, before either is answered; each is sent once."""
    pause = Turns.pause
    async with stage() as s, client(s.daemon.url) as twice:

        async def with_trades(self: Turns) -> None:
            await s.publish(5)
            await pause(self)

        monkeypatch.setattr(Turns, "pause", with_trades)
        await s.publish(5)
        call = {"jsonrpc": "2.0", "method": "subscribe", "params": {"symbol": SYMBOL}}
        await twice.socket.send_message(json.dumps([call | {"id": 1}, call | {"id": 2}]))
        await twice.until(lambda: len(twice.answers) == 2)
        assert [twice.answers[number]["result"]["offset"] for number in (1, 2)] == [5, 5]
        await s.publish(5)
        await twice.until(lambda: len(twice.trades()) == 10)
        assert [trade["offset"] for trade in twice.trades()] == list(range(6, 16))
