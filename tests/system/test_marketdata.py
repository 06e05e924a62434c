"""The day of a symbol over the real daemon: asked for, and live, for clients that only listen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

from actors.outbox import SlowClient
from dataflow import domain
from dataflow.chaos.client import dial
from dataflow.domain import Topic
from dataflow.faces import marketdata
from dataflow.settings.schema import Limits, Session
from simulators import open_binance
from tests.support.node import program
from tests.support.waiting import until
from tests.system.daemon import Daemon, connection, daemon, from_binance, http_client
from tests.system.test_pricehub import Deaf, Listener, living, rejected

SYMBOL = "BTC-USDT"
PATH = "/api/v1/marketdata"
NOON = 1_700_049_600 * 10**9  # ns; the clock of the daemon is later, so its day has begun long ago
MS = 10**6


class Stage:
    def __init__(self, made: Daemon) -> None:
        self.daemon = made
        self.count = 0

    def trade(self, *prices: str, quantity: str = "0.5", symbol: str = SYMBOL) -> None:
        """Trades at once, a millisecond apart."""
        trades = []
        for price in prices:
            self.count += 1
            at, id_ = NOON + self.count * MS, str(self.count)
            value = Decimal(price), Decimal(quantity)
            trades.append(domain.Trade("binance", symbol, id_, "buy", *value, at, None))
        self.daemon.core.delivery(trades)

    @property
    def address(self) -> str:
        return self.daemon.http.replace("http", "ws") + "/ws/marketdata"

    @property
    def host(self) -> tuple[str, int]:
        name, _, port = self.daemon.http.removeprefix("http://").partition(":")
        return name, int(port)

    def followers(self, symbol: str = SYMBOL) -> int:
        return self.daemon.core.topics.subscribers.get(Topic("days", symbol), 0)


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    tables.setdefault("faces", {"marketdata": marketdata.Settings(enabled=True)})
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, SYMBOL, "ETH-USDT", linger=0.0), **tables) as d,
    ):
        await until(lambda: d.core.sources["binance"].link.value == "connected")
        yield Stage(d)


@asynccontextmanager
async def listening(s: Stage, symbol: str = "BTCUSDT", on: str = SYMBOL) -> AsyncIterator[Listener]:
    before = s.followers(on)
    async with connection(f"{s.address}?symbol={symbol}") as socket, trio.open_nursery() as nursery:
        listener = Listener(socket)
        nursery.start_soon(listener.listen)
        await until(lambda: s.followers(on) == before + 1)
        yield listener
        nursery.cancel_scope.cancel()


def of(listener: Listener, field: str) -> Sequence[Any]:
    return [json.loads(text)[field] for text in listener.heard]


async def test_a_day_is_asked_for() -> None:
    """All are numbers with all their digits, under the canonical name, however it was asked for; a whole volume has no point."""
    async with stage() as s, http_client(s.daemon.http) as http:
        s.trade("61837.63000000", "61900.1", "61000.00000001")
        await until(lambda: s.daemon.core.history(SYMBOL).last == 3)
        expected = (
            '{"symbol":"BTC-USDT","open":61837.63000000,"high":61900.1,"low":61000.00000001,'
            f'"close":61000.00000001,"volume":1.5,"timestamp":{NOON // MS + 3}}}'
        )
        for name in ("BTC-USDT", "btcusdt", "%20BtcUsdt%20"):
            answer = await http.get(f"{PATH}/{name}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert answer.text == f"{expected}\n"
        s.trade("0.00000010", quantity="1E+3")
        s.trade("1E+5", quantity="0.50000000")
        await until(lambda: s.daemon.core.history(SYMBOL).last == 5)
        answer = await http.get(f"{PATH}/BTCUSDT")
        assert answer.text.partition('"low"')[2] == (
            f':0.00000010,"close":100000,"volume":1002,"timestamp":{NOON // MS + 5}}}\n'
        )


async def test_what_has_no_trade_is_not_found() -> None:
    """Never zeros: neither for an unknown symbol nor for one without a trade."""
    async with stage() as s, http_client(s.daemon.http) as http:
        for name in ("ETH-USDT", "AAPL", "aapl", "bad symbol"):
            answer = await http.get(f"{PATH}/{name}")
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
            assert answer.json()["error"] == f"NOT_FOUND: Symbol not found: {name}"


async def test_a_client_gets_the_present_state_and_then_one_a_trade() -> None:
    """The same objects as by HTTP; connecting is the interest in the symbol, and what a client says is not heard."""
    async with stage() as s, http_client(s.daemon.http) as http, listening(s) as first:
        assert s.daemon.core.sources["binance"].interest.topics == {SYMBOL}
        await first.socket.send_message('{"symbol":"ETH-USDT"}')
        await first.socket.send_message(b"\xff")
        s.trade("100.5")
        await until(lambda: first.heard)
        async with listening(s, "%20btc-usdt&other=1") as second:
            await until(lambda: second.heard)
            assert second.heard == first.heard == [(await http.get(f"{PATH}/{SYMBOL}")).text.rstrip()]
            s.trade("101.0", "99.0", "100.0")
            await until(lambda: len(first.heard) == len(second.heard) == 4)
            assert second.heard == first.heard
        assert of(first, "close") == [100.5, 101.0, 99.0, 100.0]
        assert of(first, "high") == [100.5, 101.0, 101.0, 101.0]
        assert of(first, "volume") == [0.5, 1, 1.5, 2]
        assert list(json.loads(first.heard[0])) == [
            *("symbol", "open", "high", "low", "close", "volume", "timestamp"),
        ]


async def test_a_symbol_need_not_exist_yet() -> None:
    """Nothing is said until it has a trade; nothing stays of it when its follower leaves."""
    async with stage() as s:
        for _ in range(2):
            async with listening(s, "aapl", on="AAPL") as listener:
                assert listener.heard == []
                assert listener.closed is None
            await until(lambda: not s.daemon.core.topics.open_topics)
        assert "AAPL" not in s.daemon.core.carriers


async def test_what_is_wrong_is_told_before_the_upgrade() -> None:
    """400 for no symbol, for what can never be one, and for a GET without an upgrade; 404 when the face is off."""
    async with stage() as s:
        for query in ("", "?symbol=", "?symbol=a%20b", "?symbol=%2F", f"?symbol={'A' * 65}", "?Symbol=AAPL"):
            refused = await rejected(s.address + query)
            assert (refused.status_code, json.loads(refused.body)["param"]) == (400, "symbol")
        async with http_client(s.daemon.http) as http:
            assert (await http.get("/ws/marketdata?symbol=AAPL")).status_code == 400
        assert len(s.daemon.lobby.clients) == 0
    async with stage(faces={}) as s, http_client(s.daemon.http) as http:
        assert (await rejected(s.address + "?symbol=BTCUSDT")).status_code == 404
        assert (await http.get(f"{PATH}/BTCUSDT")).status_code == 404


async def test_a_client_that_does_not_read_gets_the_newest_state() -> None:
    """It never goes back and the last one arrives, though the policy is to disconnect; at most one waits."""
    async with stage(session=Session(outbox=20, slow_client=SlowClient.DISCONNECT)) as s:
        stream = await dial(*s.host)
        async with stream, trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/ws/marketdata?symbol=BTCUSDT")
            slow = Deaf(socket)
            nursery.start_soon(slow.listen_later)
            await until(lambda: s.followers() == 1)
            [session] = s.daemon.lobby.clients
            async with listening(s) as quick:
                while s.count < 3_000 or session.waiting == 0:
                    s.trade(*(str(s.count + n) for n in range(1, 101)))
                    await until(lambda: len(quick.heard) == s.count)
                    assert session.ended is None
                    assert session.waiting <= 1
                assert of(quick, "close") == list(range(1, s.count + 1))
            slow.reads.set()
            await until(lambda: of(slow, "close")[-1:] == [s.count])
            told = of(slow, "close")
            assert told == sorted(set(told))
            assert len(told) < s.count
            nursery.cancel_scope.cancel()


async def test_a_server_that_stops_or_has_no_room_says_so() -> None:
    """By its close codes, and by no message; Node's `ws` reads them."""
    limits = Limits(sessions=1, loopback=True)
    async with stage(limits=limits) as s, program("prices.mjs", f"{s.address}?symbol=AAPL") as node:
        assert await node.hear() == {"open": ""}
        await until(lambda: s.followers("AAPL") == 1)
        async with connection(f"{s.address}?symbol=AAPL") as socket:
            with pytest.raises(ConnectionClosed) as refused:
                await socket.get_message()
            assert refused.value.reason.code == 1013
        await s.daemon.root.supervisor("gateway").restart("sessions")
        assert await node.hear() == {"closed": 1001}


async def test_a_hundred_clients_leave_nothing_behind() -> None:
    """Of as many symbols, which do not exist: neither sessions nor topics nor tasks."""
    async with stage() as s:
        async with listening(s, "AAPL", on="AAPL"):
            pass
        await until(lambda: not s.daemon.core.topics.open_topics)
        tasks = living()
        for number in range(100):
            async with listening(s, f"A{number % 50}", on=f"A{number % 50}") as listener:
                if number % 2:
                    await listener.socket.aclose()
        await until(lambda: not len(s.daemon.lobby.clients))
        await until(lambda: not s.daemon.core.topics.open_topics)
        await until(lambda: living() <= tasks)
        assert s.daemon.crashes() == []
