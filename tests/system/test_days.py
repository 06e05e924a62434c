"""Aggregates of the UTC day in a running daemon, through a face that asks for them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from unittest.mock import ANY

import pytest
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from dataflow import app
from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.aggregate import Aggregate
from dataflow.domain.symbols import ANY as ANY_SYMBOL
from dataflow.gateway import face
from dataflow.gateway.face import Conversation, Entrance
from dataflow.gateway.format import Format
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue, Problem
from dataflow.paths import DAYS, FOLLOWERS
from dataflow.server.handshake import Socket
from dataflow.settings.schema import Cache, Session
from supervisors import Point
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, connection, daemon, from_binance, http_client

BTC, ETH = "BTC-USDT", "ETH-USDT"
SOURCE = "binance"
DAY = 86_400 * 10**9
MIDNIGHT = time.time_ns() // DAY * DAY - 30 * DAY  # of any day that is over
NOWHERE = "ws://127.0.0.1:1"  # the trades of these tests come from no exchange


class States(Format):
    """An aggregate as a JSON list."""

    name = "states"

    def item(self, topic: Topic, epoch: int, offset: int, value: Aggregate) -> bytes:
        assert offset == value.offset
        figures = (value.open, value.high, value.low, value.close, value.volume)
        return json.dumps([topic.symbol, offset, *map(str, figures), value.count]).encode()

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        raise AssertionError("a state has no gaps")


class Watching(Conversation):
    """Follows what its client names; "-NAME" ends that."""

    __slots__ = ()

    format = States()

    async def answer(self, text: str) -> bytes:
        topic = self.hall.desk.day_topic(self.hall.desk.canonical(text.removeprefix("-")))
        if text.startswith("-"):
            self.subscriptions.unsubscribe(topic)
            return b'"left"'
        self.hall.desk.check_available(topic)
        joined = await self.subscriptions.subscribe(topic, self.rendering(), snapshot=1)
        assert joined.past is not None
        (*states,) = joined.past.texts
        return states[0] if states else b'"nothing"'

    def refusal(self, problem: Problem) -> bytes:
        return json.dumps({"refused": problem.data}).encode()


class Face(face.Face):
    follows_days = True

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        return (Entrance(Socket("/days"), lambda session, _client: Watching(session, hall)),)


@pytest.fixture(autouse=True)
def _plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the faces of the daemon, as if it were a file among theirs."""
    others = app.faces
    monkeypatch.setattr(app, "faces", lambda settings: [*others(settings), Face(None)])


@asynccontextmanager
async def running(*more: str, **tables: Any) -> AsyncIterator[Daemon]:
    async with daemon(sources=from_binance(NOWHERE, BTC, ETH, *more), **tables) as d:
        yield d


def trades(count: int, *, symbol: str = BTC, first: int = 1, named: bool = True) -> list[Trade]:
    """One a second, from `first` seconds after midnight on, with that price."""
    return [
        Trade(
            SOURCE,
            symbol,
            str(n) if named else None,
            "buy" if named else None,
            Decimal(n),
            Decimal("0.5"),
            MIDNIGHT + n * 10**9,
        )
        for n in range(first, first + count)
    ]


async def deliver(d: Daemon, batch: Sequence[Trade]) -> None:
    """As a connector does; returns when it is admitted."""
    history = d.core.history(batch[0].symbol)
    goal = history.last + len(batch)
    d.core.delivery(batch)
    await until(lambda: history.last >= goal)


@define
class Watcher:
    socket: WebSocketConnection
    heard: list[Any] = field(factory=list)

    async def say(self, text: str) -> None:
        """Returns when it is answered."""
        before = len(self.heard)
        await self.socket.send_message(text)
        await until(lambda: len(self.heard) > before)

    async def listen(self) -> None:
        try:
            while True:
                self.heard.append(json.loads(await self.socket.get_message()))
        except ConnectionClosed:
            pass

    @property
    def places(self) -> list[int]:
        return [state[1] for state in self.heard if isinstance(state, list)]


@asynccontextmanager
async def watching(d: Daemon, *names: str) -> AsyncIterator[Watcher]:
    async with connection(d.url.replace("/ws", "/days")) as socket, trio.open_nursery() as nursery:
        made = Watcher(socket)
        nursery.start_soon(made.listen)
        for name in names:
            await made.say(name)
        yield made
        nursery.cancel_scope.cancel()


def sizes(d: Daemon) -> dict[str, int]:
    """What must not grow with the names that clients make up."""
    core = d.core
    return {
        "open topics": len(core.topics._opened),
        "their names": len(core.topics._by_name),
        "readers": len(core.topics.readers._wakes),
        "histories": sum(len(store.symbols()) for store in core.stores),
        "bars": len(core.days._days),
        "logs": len(core.days._logs),
        "texts": len(d.hall.past._texts),
        "actors": len(d.root.find("topics") and d.root.supervisor("topics").tree().children),
        "sessions": len(d.lobby.clients),
    }


async def test_the_present_state_and_then_one_a_trade() -> None:
    """Exact, in order, once each; whoever comes later begins with the state of then."""
    async with running() as d:
        await deliver(d, trades(3))
        async with watching(d, "btcusdt") as early:
            assert early.heard == [[BTC, 3, "1", "3", "1", "3", "1.5", 3]]
            await deliver(d, trades(2, first=4))
            await until(lambda: len(early.heard) == 3)
            async with watching(d, BTC) as late:
                assert late.heard == early.heard[-1:] == [[BTC, 5, "1", "5", "1", "5", "2.5", 5]]
                await deliver(d, trades(1, first=6))
                await until(lambda: late.places == [5, 6] and early.places == [3, 4, 5, 6])


async def test_the_state_is_of_the_whole_day_though_the_history_is_small() -> None:
    """Nobody listens, and trades come faster than they are kept: each counts."""
    async with running(cache=Cache(trades_per_symbol=400)) as d:
        for first in range(1, 5001, 50):
            await deliver(d, trades(50, first=first, named=first % 3 == 0))
        state = d.hall.desk.aggregate(BTC)
        assert state is not None
        assert (state.count, state.open, state.close, state.volume) == (5000, 1, 5000, 2500)
        assert d.core.days.left_out == {}


async def test_a_client_that_reads_too_slowly_gets_the_newest_state_in_the_end() -> None:
    """States that it has not read make room for newer ones: its outbox stays short, and nothing goes back."""
    async with running(session=Session(outbox=8)) as d:
        host, _, port = d.http.removeprefix("http://").partition(":")
        raw = trio.socket.socket()
        raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        await raw.connect((host, int(port)))
        async with trio.SocketStream(raw) as stream, trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, host, "/days")
            await socket.send_message(BTC)
            await until(lambda: [session for session in d.lobby.clients if session.lanes])
            (session,) = d.lobby.clients
            sock: Any = session._wire._sock  # type: ignore[attr-defined]
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
            fanout = d.core.topics.opened(d.hall.desk.day_topic(BTC))
            assert fanout is not None
            number = behind = 0
            while behind < 300:  # it reads nothing meanwhile
                await deliver(d, trades(20, first=number + 1))
                number += 20
                await until(lambda goal=number: fanout.position == goal)
                assert session.backlog is None or session.backlog.messages <= 8
                behind += 20 * (session.backlog is not None)
            late = Watcher(socket)
            nursery.start_soon(late.listen)
            await until(lambda: late.places[-1:] == [number])
            assert late.places == sorted(set(late.places))
            assert len(late.places) < number - 250
            assert session.ended is None
            nursery.cancel_scope.cancel()


async def test_trades_that_nobody_asks_for_are_read_within_a_second() -> None:
    """A few of them wake nobody; the follower looks by itself."""
    async with running() as d:
        day = d.core.days.day(BTC)
        assert day is not None
        await deliver(d, trades(3))
        await until(lambda: day.position == 3)
        assert day.bar is not None
        assert day.bar.count == 3


async def test_a_crash_costs_no_trade() -> None:
    """That of a shard costs its batch, which is a gap; those of the follower and of the topic's actor nothing."""
    async with running(cache=Cache(shards=1)) as d, watching(d, BTC) as one:
        for number, path in enumerate((DAYS, f"topics/days:{BTC}", "cache/shard-0")):
            d.sabotage.arm(Point.RECEIVE, path)
            d.core.delivery(trades(2, first=3 * number + 1))
            d.root.find(path).put(()) if path == DAYS else None
            await until(lambda path=path: path in d.crashes())
            if path != "cache/shard-0":  # what is still on its way would be struck instead of the next batch
                await until(lambda goal=3 * number + 2: d.core.history(BTC).last == goal)
            await deliver(d, trades(1, first=3 * number + 3))
        await until(lambda: one.places[-1:] == [8])
        assert one.places == sorted(set(one.places)), "none goes back, and none comes twice"
        assert d.core.history(BTC).places(0, 100)[6:] == [
            (7, Gap(7, 7, "shard_restart", exact=False)),
            (8, ANY),
        ]
        state = d.hall.desk.aggregate(BTC)
        assert state is not None
        assert (state.count, state.open, state.close, state.offset) == (7, 1, 9, 8)


async def test_a_client_may_wait_for_a_symbol_that_does_not_exist() -> None:
    """It hears the first trade when the symbol comes into being, like any other symbol."""
    async with running(ANY_SYMBOL) as d, watching(d, " aapl ") as one, http_client(d.http) as http:
        assert one.heard == ["nothing"]
        assert 'dataflow_topic_subscribers{symbol="unknown"} 1.0' in (await http.get("/metrics")).text
        d.core.discover("AAPL", SOURCE)  # as a source does that brings its own
        assert d.core.sources[SOURCE].interest.topics == {"AAPL"}, "it is wanted already"
        await deliver(d, trades(2, symbol="AAPL", named=False))
        await until(lambda: one.places == [1, 2])
        assert d.hall.desk.find("aapl") == "AAPL"
        assert 'dataflow_topic_subscribers{symbol="days:AAPL"} 1.0' in (await http.get("/metrics")).text


async def test_names_that_never_exist_leave_nothing_behind() -> None:
    """A client can make up as many as it likes, and its subscriptions end as they should."""
    async with running() as d:
        await deliver(d, trades(1))
        async with watching(d, BTC) as one:
            await one.say(f"-{BTC}")
        await until(lambda: len(d.lobby.clients) == 0)
        before = sizes(d)
        for _ in range(2):
            async with watching(d) as one:
                for n in range(100):
                    await one.say(f"NAME:{n}")
                for n in range(50):
                    await one.say(f"-name:{n}")
                await until(lambda: len(d.core.topics.open_topics) == before["open topics"] + 50)
        await until(lambda: sizes(d) == before)


async def test_what_can_never_be_a_symbol_is_refused() -> None:
    """In words, and without a trace."""
    async with running() as d, watching(d) as one:
        for text in ("A B", "A/B", "*", "x" * 65, "\0"):
            await one.say(text)
            assert one.heard.pop()["refused"]["param"] == "symbol"
        with pytest.raises(InvalidValue):
            d.hall.desk.canonical("")
        assert d.core.topics.open_topics == []


async def test_the_channel_is_for_faces_alone() -> None:
    """No client can name it: JSON-RPC and Server-Sent Events do not know it."""
    async with running() as d, client(d.url) as rpc, http_client(d.http) as http:
        error = (await rpc.ask("subscribe", channel="days", symbol=BTC))["error"]
        assert error["data"]["valid"] == ["candles", "quality", "trades"]
        assert {tuple(each["channels"]) for each in await rpc.call("getSymbols")} == {
            ("candles", "quality", "trades")
        }
        assert (await http.get(f"/api/v1/stream/{BTC}?channel=days")).status_code == 400


async def test_an_open_topic_wants_its_symbol_upstream() -> None:
    """Like trades do, and no longer than it is open."""
    async with running() as d, watching(d, BTC):
        assert d.core.sources[SOURCE].interest.topics == {BTC}


async def test_without_a_face_that_needs_it_no_day_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No actor, and no call for a batch."""
    monkeypatch.setattr(Face, "follows_days", False)
    async with running() as d:
        (followers,) = [child for child in d.hall.tree().children if child.path == FOLLOWERS]
        assert DAYS not in [child.path for child in followers.children]
        assert d.core.days.news not in d.core.topics.readers._of_all
        await deliver(d, trades(3))
        assert d.core.days._days == {}
