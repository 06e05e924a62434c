"""The JSON-RPC methods over a real WebSocket, as clients of the daemon use them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import define
from trio_websocket import ConnectionClosed

from dataflow.settings.schema import Cache, Gateway, Session
from dataflow.sources.lookout import Lookout
from dataflow.sources.vitals import UNHEARD
from simulators import Exchange, Trade, open_binance
from tests.system.daemon import Client, Daemon, client, connection, daemon, from_binance, look_away


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    client: Client

    async def publish(self, first: int, last: int) -> None:
        for n in range(first, last + 1):
            # Three trades share a millisecond, as they do on the exchange when one order meets several.
            at = 1_700_000_000_000_000 + n // 3 * 1000
            side = "buy" if n % 2 else "sell"
            await self.exchange.publish(
                Trade(id=n, symbol="BTCUSDT", side=side, price=f"{n}.10", qty="0.5", timestamp_us=at)
            )

    async def admitted(self, last: int) -> None:
        while self.daemon.core.history("BTC-USDT").last < last:
            await trio.lowlevel.checkpoint()


@pytest.fixture(autouse=True)
def _unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the symbols, so how they fare depends on no moment."""
    monkeypatch.setattr(Lookout, "_look", look_away)


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", "ETH-USDT", eager=True), **tables) as d,
        client(d.url) as listener,
    ):
        await d.until_carried("BTC-USDT", "ETH-USDT")
        yield Stage(exchange, d, listener)


def unheard(source: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The quality of a symbol that is subscribed at one source; the moment is taken from the answer."""
    since = answer["quality"]["since"]
    assert since.endswith("Z")
    state = {"state": "quiet", "since": since, "missing": None, "lag": None}
    return {**state, "sources": {source: {**state, "reason": UNHEARD}}}


def ids(trades: list[dict[str, Any]]) -> list[int]:
    return [int(trade["tradeId"]) for trade in trades]


async def test_a_trade_as_a_client_sees_it() -> None:
    """Every field of the contract, exact decimals, RFC 3339 with microseconds."""
    async with stage() as s:
        answer = await s.client.call("subscribe", channel="trades", symbol="BTC-USDT")
        assert answer == {
            "channel": "trades",
            "symbol": "BTC-USDT",
            "event": "subscribed",
            "epoch": s.daemon.core.epoch,
            "offset": 0,
            "quality": unheard("binance", answer),
        }
        await s.publish(1, 1)
        await s.client.until(lambda: s.client.trades())
        assert s.client.trades()[0] == {
            "seqnum": 1,
            "event": "updated",
            "channel": "trades",
            "symbol": "BTC-USDT",
            "timestamp": "2023-11-14T22:13:20.000000Z",
            "side": "buy",
            "qty": Decimal("0.5"),
            "price": Decimal("1.10"),
            "tradeId": "1",
            "source": "binance",
            "offset": 1,
        }


async def test_snapshot_and_stream_join_without_a_hole() -> None:
    """The answer's offset is the place of its last trade; the first update has the next one."""
    async with stage() as s:
        await s.publish(1, 30)
        await s.admitted(30)
        answer = await s.client.call("subscribe", symbol="BTC-USDT", snapshot=10)
        assert ids(answer["trades"]) == list(range(21, 31))
        assert answer["offset"] == answer["trades"][-1]["offset"] == 30
        await s.publish(31, 40)
        await s.client.until(lambda: len(s.client.trades()) >= 10)
        assert [trade["offset"] for trade in s.client.trades()] == list(range(31, 41))


async def test_subscribing_in_the_middle_of_a_burst_misses_and_repeats_nothing() -> None:
    """Wherever the snapshot falls between the trades, the client gets each of them once, in order."""
    async with stage() as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.publish, 1, 2000)
        await s.admitted(100)
        for _ in range(20):
            async with client(s.daemon.url) as late:
                answer = await late.call("subscribe", symbol="BTC-USDT", snapshot=50)
                await late.until(
                    lambda late=late, answer=answer: len(late.trades()) >= min(50, 2000 - answer["offset"])
                )
                offsets = [t["offset"] for t in (*answer["trades"], *late.trades())]
                assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))


async def test_calls_in_a_batch_are_answered_together_and_lose_no_update() -> None:
    """Two subscriptions in one batch: one array of answers, and both streams begin behind it."""
    async with stage() as s, connection(s.daemon.url) as socket, trio.open_nursery() as nursery:
        nursery.start_soon(s.publish, 1, 500)
        await s.admitted(50)
        calls = [
            {"jsonrpc": "2.0", "id": n, "method": "subscribe", "params": {"symbol": symbol}}
            for n, symbol in enumerate(["BTC-USDT", "ETH-USDT"])
        ]
        await socket.send_message(json.dumps(calls))
        first = json.loads(await socket.get_message())
        assert [answer["id"] for answer in first] == [0, 1]
        position = first[0]["result"]["offset"]
        while position < 500:
            message = json.loads(await socket.get_message())
            assert message["params"]["offset"] == position + 1
            position += 1


async def test_one_symbol_twice_in_a_batch_is_one_subscription() -> None:
    """Both calls are answered, and every trade comes once."""
    async with stage() as s, connection(s.daemon.url) as socket:
        call = {"jsonrpc": "2.0", "method": "subscribe", "params": {"symbol": "BTC-USDT"}}
        await socket.send_message(json.dumps([{**call, "id": 1}, {**call, "id": 2}]))
        answers = json.loads(await socket.get_message())
        assert [answer["result"]["event"] for answer in answers] == ["subscribed", "subscribed"]
        await s.publish(1, 3)
        for offset in (1, 2, 3):
            assert json.loads(await socket.get_message())["params"]["offset"] == offset


async def test_since_brings_exactly_what_was_missed() -> None:
    """A known position is recovered. One of another epoch, in the future or forgotten is not: the answer tells it with
    a gap, and brings all that is left, or as much of it as was asked for."""
    async with stage(cache=Cache(trades_per_symbol=100)) as s:
        await s.publish(1, 150)
        await s.admitted(150)
        epoch = s.daemon.core.epoch

        async def since(epoch: int, offset: int, **more: Any) -> Any:
            return await s.client.call(
                "subscribe", symbol="BTC-USDT", since={"epoch": epoch, "offset": offset}, **more
            )

        answer = await since(epoch, 120)
        assert answer["recovered"] is True
        assert ids(answer["trades"]) == list(range(121, 151))
        assert (await since(epoch, 150))["trades"] == []
        for unknown in ((epoch, 10), (epoch - 1, 120), (epoch, 151)):
            answer = await since(*unknown)
            assert answer["recovered"] is False
            assert ids(answer["trades"]) == list(range(51, 151))
            assert answer["gaps"] == [{"from": 0, "to": None, "reason": "overrun"}]
            assert (answer["epoch"], answer["offset"]) == (epoch, 150)
            answer = await since(*unknown, snapshot=3)
            assert answer["recovered"] is False
            assert ids(answer["trades"]) == [148, 149, 150]
            assert answer["gaps"] == [{"from": 0, "to": None, "reason": "overrun"}]


async def test_a_second_subscription_is_the_same_subscription() -> None:
    """A second subscription repeats no trade, and loses none that was on its way."""
    async with stage() as s:
        await s.client.call("subscribe", symbol="BTC-USDT")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.publish, 1, 300)
            for _ in range(30):
                await s.client.call("subscribe", symbol="BTC-USDT")
        await s.client.until(lambda: len(s.client.trades()) >= 300)
        assert ids(s.client.trades()) == list(range(1, 301))
        await s.client.call("unsubscribe", symbol="BTC-USDT")
        await s.publish(301, 310)
        await s.admitted(310)
        assert await s.client.call("ping") == "pong"
        assert len(s.client.trades()) == 300


async def test_recent_trades_newest_first_and_paging_both_ways() -> None:
    """Pages backwards and forwards hold every trade once, also when several share a timestamp."""
    async with stage() as s:
        await s.publish(1, 100)
        await s.admitted(100)

        async def recent(**params: Any) -> list[dict[str, Any]]:
            trades: list[dict[str, Any]] = await s.client.call("getRecentTrades", symbol="BTC-USDT", **params)
            return trades

        assert ids(await recent()) == list(range(100, 50, -1))
        assert ids(await recent(count=3)) == [100, 99, 98]
        forward: list[int] = []
        after = "2000-01-01T00:00:00Z"
        while page := await recent(afterTimestamp=after, count=10):
            assert len(page) <= 10
            forward += ids(page)
            after = page[-1]["timestamp"]
        assert forward == list(range(1, 101))
        backward: list[int] = []
        before = "2100-01-01T00:00:00Z"
        while page := await recent(beforeTimestamp=before, count=10):
            backward += ids(page)
            before = page[-1]["timestamp"]
        assert backward == list(range(100, 0, -1))


async def test_symbols_and_status() -> None:
    """Symbols with their sources, state and last price; sources with their connection."""
    async with stage() as s:
        await s.publish(1, 2)
        await s.admitted(2)
        btc, eth = await s.client.call("getSymbols")
        assert 0 <= btc.pop("lastAge") < 60
        assert 0 <= btc.pop("rate") <= 2
        assert btc == {
            "symbol": "BTC-USDT",
            "channels": ["candles", "quality", "trades"],
            "sources": ["binance"],
            "status": "live",
            "lastPrice": Decimal("2.10"),
            "lastTimestamp": "2023-11-14T22:13:20.000000Z",
            "offset": 2,
            "quality": unheard("binance", btc),
        }
        assert (eth["lastPrice"], eth["lastTimestamp"], eth["lastAge"]) == (None, None, None)
        assert (eth["offset"], eth["rate"]) == (0, 0)
        status = await s.client.call("getStatus")
        assert status["sources"]["binance"]["state"] == "connected"
        assert status["sessions"] == 1
        assert status["uptime"] >= 0


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("subscribe", {"symbol": "BTC-USTD"}, -32602),
        ("subscribe", {"symbol": "BTC-USDT", "channel": "quotes"}, -32602),
        ("subscribe", {"symbol": "BTC-USDT", "snapshot": -1}, -32602),
        ("subscribe", {"symbol": "BTC-USDT", "snapshot": 1001}, -32602),
        ("subscribe", {}, -32602),
        ("unsubscribe", {"symbol": "NO-SUCH"}, -32602),
        ("getRecentTrades", {"symbol": "BTC-USDT", "count": 0}, -32602),
        ("getRecentTrades", {"symbol": "BTC-USDT", "count": 1001}, -32602),
        ("getRecentTrades", {"symbol": "BTC-USDT", "afterTimestamp": "yesterday"}, -32602),
        ("getRecentTrade", {"symbol": "BTC-USDT"}, -32601),
    ],
)
async def test_a_mistake_is_answered_with_the_right_values(
    method: str, params: dict[str, Any], code: int
) -> None:
    """The code of the contract, and `data` that helps."""
    async with stage() as s:
        error = (await s.client.ask(method, **params))["error"]
        assert error["code"] == code
        assert error["data"]


async def test_an_unknown_symbol_names_the_nearest() -> None:
    """The answer to a typo has the most similar symbol."""
    async with stage() as s:
        error = (await s.client.ask("subscribe", symbol="btc-usd"))["error"]
        assert error["data"]["nearest"][0] == "BTC-USDT"


async def test_too_many_subscriptions_are_refused_and_the_others_go_on() -> None:
    """-32003 with the limit; unsubscribing makes room."""
    async with stage(session=Session(max_subscriptions=1)) as s:
        await s.client.call("subscribe", symbol="BTC-USDT")
        error = (await s.client.ask("subscribe", symbol="ETH-USDT"))["error"]
        assert (error["code"], error["data"]["limit"]) == (-32003, 1)
        await s.client.call("unsubscribe", symbol="BTC-USDT")
        await s.client.call("subscribe", symbol="ETH-USDT")


async def test_too_many_sessions_are_told_to_come_back_later() -> None:
    """Close code 1013; the other session goes on."""
    async with stage(gateway=Gateway(port=0, max_sessions=1)) as s:
        async with client(s.daemon.url) as refused:
            await refused.until(lambda: refused.closed)
            assert refused.closed is not None
            assert refused.closed[0] == 1013
        assert await s.client.call("ping") == "pong"


async def test_a_message_that_is_too_big_closes_with_1009() -> None:
    """A client may send at most 64 KiB; the other sessions go on."""
    async with stage() as s, connection(s.daemon.url) as socket:
        await socket.send_message("[" + " " * 70_000 + "]")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1009
        assert await s.client.call("ping") == "pong"


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", -32700), ("[]", -32600), ('{"jsonrpc": "2.0", "id": 1}', -32600), ("[1]", -32600)],
)
async def test_nonsense_is_answered_and_the_connection_lives(text: str, code: int) -> None:
    """A client gets an error for each wrong message, and may go on."""
    async with stage() as s, connection(s.daemon.url) as socket:
        await socket.send_message(text)
        answer = json.loads(await socket.get_message())
        error = answer[0]["error"] if isinstance(answer, list) else answer["error"]
        assert error["code"] == code
        await socket.send_message('{"jsonrpc": "2.0", "method": "ping"}')
        await socket.send_message('{"jsonrpc": "2.0", "id": "x", "method": "PING"}')
        assert json.loads(await socket.get_message()) == {"jsonrpc": "2.0", "id": "x", "result": "pong"}


async def test_a_stop_tells_every_client_and_closes_with_1001() -> None:
    """`connection.draining` comes behind all waiting messages, then 1001, within `drain_seconds`."""
    async with stage() as s:
        await s.client.call("subscribe", symbol="BTC-USDT")
        await s.daemon.root.stop("gateway")
        await s.client.until(lambda: s.client.closed)
        assert s.client.closed is not None
        assert s.client.closed[0] == 1001
        assert s.client.notices[-1]["method"] == "connection.draining"
