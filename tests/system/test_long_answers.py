"""Answers that are too long to stand in memory: made as the client takes them, and without a hole whatever happens meanwhile."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from actors.outbox import SlowClient
from dataflow.domain import Topic
from dataflow.faces.jsonrpc import methods
from dataflow.faces.jsonrpc.methods import Calls
from dataflow.faces.sse import Stream, Wanted
from dataflow.gateway import recovery
from dataflow.gateway.desk import Desk
from dataflow.gateway.recovery import Since
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Cache, Session
from simulators import Exchange, Trade, open_binance
from tests.actors.fakes import FakeWire
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance

SYMBOL, OTHER = "BTC-USDT", "ETH-USDT"
SLICE = 20
NOBODY = Handshake("/", "", (), "192.0.2.1:1", encrypted=False)
ALL = 1 << 40  # bytes: as much as there is


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    published: dict[str, int] = field(factory=lambda: {SYMBOL: 0, OTHER: 0})

    async def publish(self, count: int, symbol: str = SYMBOL) -> None:
        for _ in range(count):
            self.published[symbol] += 1
            n = self.published[symbol]
            at = 1_700_000_000_000_000 + n
            name = symbol.replace("-", "")
            await self.exchange.publish(
                Trade(id=n, symbol=name, side="buy", price="1.5", qty="2", timestamp_us=at)
            )
        await until(lambda: self.daemon.core.history(symbol).last == self.published[symbol])

    async def client(self, room: int) -> FakeWire:
        """A client that takes `room` bytes, and more when its `reads` says so."""
        wire = FakeWire(room)
        await self.daemon.hall.open_session(wire, lambda session: Calls(session, self.daemon.hall), NOBODY)
        return wire

    def since(self, offset: int) -> dict[str, int]:
        return {"epoch": self.daemon.core.epoch, "offset": offset}

    @property
    def session(self) -> Any:
        (session,) = self.daemon.lobby.clients
        return session


@asynccontextmanager
async def stage(most: int = 10_000, **session: Any) -> AsyncIterator[Stage]:
    tables = {"cache": Cache(trades_per_symbol=most), "session": Session(**session)}
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, SYMBOL, OTHER, eager=True), **tables) as d,
    ):
        await exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])
        yield Stage(exchange, d)


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "RECOVERY_SLICE", SLICE)
    monkeypatch.setattr(methods, "TRADES_AT_ONCE", SLICE)


def call(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def messages(wire: FakeWire) -> list[Any]:
    return [json.loads(text) for text in wire.texts]


def places(answer: dict[str, Any]) -> list[tuple[int, int]]:
    """First and last place of each entry of an answer, in order."""
    trades = [(trade["offset"], trade["offset"]) for trade in answer["trades"]]
    gaps = [(gap["from"], gap["to"]) for gap in answer.get("gaps", [])]
    return sorted(trades + gaps)


def check_whole(told: list[tuple[int, int]], after: int, last: int) -> None:
    """Every place once, in order."""
    for first, end in told:
        assert first == after + 1
        after = end
    assert after == last


async def test_of_a_batch_that_is_not_read_little_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls run as their answers are taken: what stands in memory is a slice, not the batch. Then it is all there."""
    asked = [0]
    recent_trades = Desk.recent_trades

    def counted(*args: Any, **more: Any) -> Any:
        asked[0] += 1
        return recent_trades(*args, **more)

    monkeypatch.setattr(Desk, "recent_trades", counted)
    async with stage() as s:
        await s.publish(100)
        wire = await s.client(room=1000)
        await wire.says(json.dumps([call(n, "getRecentTrades", symbol=SYMBOL, count=100) for n in range(50)]))
        await wait_all_tasks_blocked()
        assert asked[0] == 1
        assert s.session.waiting_bytes == 0
        wire.reads(3 * 100 * 220)
        await wait_all_tasks_blocked()
        assert asked[0] <= 5
        wire.reads(ALL)
        await until(lambda: asked[0] == 50)
        await wait_all_tasks_blocked()
        (answers,) = messages(wire)
        assert [answer["id"] for answer in answers] == list(range(50))
        assert all(len(answer["result"]) == 100 for answer in answers)


async def test_a_recovery_that_is_overtaken_by_forgetting_has_a_gap() -> None:
    """A client reads so slowly that what it wants is forgotten meanwhile: that is a gap in the answer, and no more."""
    async with stage(most=100) as s:
        await s.publish(100)
        wire = await s.client(room=1000)
        await wire.says(json.dumps(call(1, "subscribe", symbol=SYMBOL, since=s.since(0))))
        await wait_all_tasks_blocked()
        await s.publish(300)
        wire.reads(ALL)
        await wait_all_tasks_blocked()
        answer = messages(wire)[0]["result"]
        assert (answer["recovered"], answer["offset"]) == (True, 400)
        assert answer["gaps"] == [{"from": 21, "to": 300, "reason": "overrun"}]
        check_whole(places(answer), 0, 400)
        await s.publish(1)
        await wait_all_tasks_blocked()
        assert messages(wire)[1]["params"]["offset"] == 401


async def test_what_else_comes_waits_behind_a_long_answer() -> None:
    """Updates of other topics follow it, in order and whole; so do the updates behind its own position."""
    async with stage() as s:
        await s.publish(200)
        wire = await s.client(room=ALL)
        await wire.says(json.dumps(call(1, "subscribe", symbol=OTHER)))
        await wait_all_tasks_blocked()
        wire.room = 1000
        await wire.says(json.dumps(call(2, "subscribe", symbol=SYMBOL, since=s.since(0))))
        await wait_all_tasks_blocked()
        await s.publish(5, OTHER)
        await s.publish(5)
        wire.reads(ALL)
        await wait_all_tasks_blocked()
        await s.publish(5)
        await wait_all_tasks_blocked()
        _, answer, *updates = messages(wire)
        check_whole(places(answer["result"]), 0, 205)
        told = [(update["params"]["symbol"], update["params"]["offset"]) for update in updates]
        assert told == [(OTHER, n) for n in range(1, 6)] + [(SYMBOL, n) for n in range(206, 211)]


async def test_a_followed_topic_is_recovered_without_a_repetition() -> None:
    """Updates that waited for the client are part of the answer then, and the stream goes on behind it."""
    async with stage() as s:
        await s.publish(100)
        wire = await s.client(room=ALL)
        await wire.says(json.dumps(call(1, "subscribe", symbol=SYMBOL)))
        await wait_all_tasks_blocked()
        wire.room = 10
        await s.publish(50)
        await wire.says(json.dumps(call(2, "subscribe", symbol=SYMBOL, since=s.since(100))))
        await wait_all_tasks_blocked()
        await s.publish(50)
        wire.reads(ALL)
        await wait_all_tasks_blocked()
        await s.publish(10)
        await wait_all_tasks_blocked()
        told = [message for message in messages(wire) if message.get("id") != 1]
        at = next(n for n, message in enumerate(told) if message.get("id") == 2)
        check_whole(places(told[at]["result"]), 100, 200)
        live = [message["params"]["offset"] for message in told[at + 1 :]]
        assert live == list(range(201, 211))


@pytest.mark.parametrize("past", [{}, {"snapshot": 30}, {"since": 90}])
@pytest.mark.parametrize("known", [True, False])
async def test_a_second_subscription_in_a_long_batch_has_its_updates_behind_it(
    known: bool, past: dict[str, int]
) -> None:
    """Followed before or by the same batch: the answer tells no place that comes as an update after it."""
    async with stage() as s:
        await s.publish(100)
        wire = await s.client(room=ALL)
        if known:
            await wire.says(json.dumps(call(0, "subscribe", symbol=SYMBOL)))
            await wait_all_tasks_blocked()
        wire.room = 1000
        since = {"since": s.since(past["since"])} if "since" in past else past
        calls = [
            call(1, "subscribe", symbol=SYMBOL),
            call(2, "getRecentTrades", symbol=SYMBOL, count=100),
            call(3, "subscribe", symbol=SYMBOL, **since),
        ]
        await wire.says(json.dumps(calls))
        await wait_all_tasks_blocked()
        await s.publish(20)
        wire.reads(ALL)
        await wait_all_tasks_blocked()
        await s.publish(5)
        await wait_all_tasks_blocked()
        told = messages(wire)[1:] if known else messages(wire)
        answer = told[0][2]["result"]
        if past:
            check_whole(places(answer), {"snapshot": 70, "since": 90}[next(iter(past))], answer["offset"])
        assert answer["offset"] == (120 if "since" in past else 100)
        live = [update["params"]["offset"] for update in told[1:]]
        assert live == list(range(answer["offset"] + 1, 126))


async def test_a_long_snapshot_is_of_one_moment() -> None:
    """As many entries as were asked for, up to the answer's offset; what came while it was read follows as updates."""
    async with stage() as s:
        await s.publish(200)
        wire = await s.client(room=1000)
        await wire.says(json.dumps(call(1, "subscribe", symbol=SYMBOL, snapshot=100)))
        await wait_all_tasks_blocked()
        await s.publish(30)
        wire.reads(ALL)
        await wait_all_tasks_blocked()
        answer, *updates = messages(wire)
        assert answer["result"]["offset"] == 200
        check_whole(places(answer["result"]), 100, 200)
        assert [update["params"]["offset"] for update in updates] == list(range(201, 231))


@pytest.mark.parametrize("face", ["jsonrpc", "sse"])
@pytest.mark.parametrize("seed", range(8))
async def test_however_a_client_reads_no_place_is_missing_or_told_twice(face: str, seed: int) -> None:
    """Recovery, forgetting, a small outbox and a client that reads in fits: trades and gaps are the whole stream."""
    dice = random.Random(seed)
    async with stage(most=150, outbox=30, outbox_bytes=5000, slow_client=SlowClient.DROP_OLDEST) as s:
        await s.publish(150)
        wire = FakeWire(dice.choice([0, 1000, 20_000]))
        if face == "sse":
            wanted = Wanted(Topic("trades", SYMBOL), Since(s.daemon.core.epoch, 0))
            wire.says_now(wanted)  # type: ignore[arg-type]
            await s.daemon.hall.open_session(wire, lambda session: Stream(session, s.daemon.hall), NOBODY)
        else:
            wire.says_now(json.dumps(call(1, "subscribe", symbol=SYMBOL, since=s.since(0))))
            await s.daemon.hall.open_session(wire, lambda session: Calls(session, s.daemon.hall), NOBODY)
        for _ in range(30):
            if dice.random() < 0.6:
                wire.reads(dice.choice([1, 700, 5000, 20_000]))
            else:
                await s.publish(dice.randrange(40))
            await wait_all_tasks_blocked()
            assert s.session.waiting_bytes <= 5000 + 300 * 256
        wire.reads(ALL)
        await wait_all_tasks_blocked()
        await s.publish(1)
        await wait_all_tasks_blocked()
        told = _events(wire) if face == "sse" else _told(wire)
        check_whole(told, 0, s.published[SYMBOL])


def _told(wire: FakeWire) -> list[tuple[int, int]]:
    answer, *notices = messages(wire)
    told = places(answer["result"])
    assert told[-1][1] == answer["result"]["offset"]
    return told + [_place(notice["params"]) for notice in notices]


def _events(wire: FakeWire) -> list[tuple[int, int]]:
    lines = b"".join(wire.sent).decode().splitlines()
    return [_place(json.loads(line.removeprefix("data: "))) for line in lines if line.startswith("data: ")]


def _place(told: dict[str, Any]) -> tuple[int, int]:
    return (told["from"], told["to"]) if "from" in told else (told["offset"], told["offset"])


async def test_who_leaves_a_long_answer_gives_everything_back() -> None:
    """Its session ends at once, and its topic has one subscriber less; another client goes on."""
    async with stage() as s:
        await s.publish(200)
        wire = await s.client(room=100)
        await wire.says(json.dumps(call(1, "subscribe", symbol=SYMBOL, since=s.since(0))))
        await wait_all_tasks_blocked()
        assert s.daemon.core.topics.subscribers[Topic("trades", SYMBOL)] == 1
        await wire.hangs_up()
        with trio.fail_after(60):
            await until(lambda: len(s.daemon.lobby.clients) == 0)
        assert s.daemon.core.topics.subscribers[Topic("trades", SYMBOL)] == 0
        assert s.daemon.lobby.admission.waiting == {"served": 0, "resuming": 0, "new": 0}
        other = await s.client(room=ALL)
        await other.says(json.dumps(call(1, "ping")))
        await wait_all_tasks_blocked()
        assert messages(other)[0]["result"] == "pong"
        assert s.daemon.crashes() == []
