"""One call for several symbols, or for all that there are and will be: `symbol` as a list, or "*"."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import define
from trio_websocket import WebSocketConnection

from dataflow.settings.schema import Limits, Session
from simulators import Trade
from tests.system.daemon import Client, client, connection
from tests.system.test_rpc import Stage, stage

BTC, ETH = "BTC-USDT", "ETH-USDT"
BOTH = [BTC, ETH]


async def publish(s: Stage, symbol: str, *numbers: int) -> None:
    name = symbol.replace("-", "")
    at = 1_700_000_000_000_000
    trades = [Trade(n, name, "buy", f"{n}.10", "0.50", at + n * 1000) for n in numbers]
    for trade in trades:
        await s.exchange.publish(trade)
    last = s.daemon.core.history(symbol)
    while last.newest_trade is None or last.newest_trade.trade_id != str(numbers[-1]):
        await trio.lowlevel.checkpoint()


@define
class Listener:
    """A client that takes its messages one by one."""

    socket: WebSocketConnection

    async def say(self, method: str, **params: Any) -> None:
        await self.socket.send_message(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        )

    async def next(self) -> Any:
        return json.loads(await self.socket.get_message(), parse_float=Decimal)


@asynccontextmanager
async def listener(url: str) -> AsyncIterator[Listener]:
    async with connection(url) as socket:
        yield Listener(socket)


def offsets(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["offset"] for entry in entries]


async def refused(c: Client, **params: Any) -> dict[str, Any]:
    error = (await c.ask("subscribe", **params))["error"]
    assert error["message"] in ("Invalid params", "too many subscriptions"), error
    return {"code": error["code"], **error["data"]}


async def test_a_list_is_answered_by_the_list_of_its_single_answers() -> None:
    """In the order of the call, each as if it were alone; then both streams go on without a hole."""
    async with stage() as s:
        await publish(s, BTC, 1, 2)
        await publish(s, ETH, 7)
        answers = await s.client.call("subscribe", symbol=BOTH, snapshot=5)
        assert [each["symbol"] for each in answers] == BOTH
        assert [offsets(each["trades"]) for each in answers] == [[1, 2], [1]]
        async with client(s.daemon.url) as other:
            alone = [await other.call("subscribe", symbol=symbol, snapshot=5) for symbol in BOTH]
        assert answers == alone
        await publish(s, BTC, 3)
        await publish(s, ETH, 8)
        await s.client.until(lambda: len(s.client.trades()) == 2)
        assert [(t["symbol"], t["offset"]) for t in s.client.trades()] == [(BTC, 3), (ETH, 2)]
        gone = await s.client.call("unsubscribe", symbol=BOTH)
        assert gone == [{"channel": "trades", "symbol": symbol, "event": "unsubscribed"} for symbol in BOTH]
        assert s.daemon.core.topics.subscribers == dict.fromkeys(s.daemon.core.topics.subscribers, 0)


async def test_a_list_resumes_each_symbol_at_its_own_place() -> None:
    """`since` is an object by symbol. A symbol without a position is new."""
    async with stage() as s:
        await publish(s, BTC, 1, 2, 3)
        await publish(s, ETH, 1, 2)
        since = {BTC: {"epoch": s.daemon.core.epoch, "offset": 1}}
        bitcoin, ether = await s.client.call("subscribe", symbol=BOTH, since=since)
        assert (bitcoin["recovered"], offsets(bitcoin["trades"])) == (True, [2, 3])
        assert "recovered" not in ether
        assert ether["offset"] == 2


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"symbol": [BTC, "ETH-USD"]}, {"param": "symbol", "value": "ETH-USD", "problem": "unknown symbol"}),
        ({"symbol": [BTC, BTC]}, {"param": "symbol", "value": BTC, "problem": "is named twice"}),
        ({"symbol": []}, {"param": "symbol", "problem": "must name at least one"}),
        ({"symbol": BOTH, "since": {"epoch": 1, "offset": 2}}, {"param": "since", "value": "epoch"}),
        ({"symbol": BOTH, "since": {ETH: {"epoch": 1}}}, {"param": f"since.{ETH}"}),
        ({"symbol": BOTH, "since": {ETH: {"epoch": 1, "offset": "2"}}}, {"param": f"since.{ETH}.offset"}),
        ({"symbol": BOTH, "format": "xml"}, {"param": "format", "valid": ["json", "compact", "strings"]}),
        (
            {"symbol": BTC, "channel": "quality", "format": "compact"},
            {"param": "format", "problem": "is for trades alone", "valid": ["json", "strings"]},
        ),
    ],
)
async def test_a_mistake_refuses_all_symbols(params: dict[str, Any], told: dict[str, Any]) -> None:
    """The error has the name that is wrong, and what is right; nothing is subscribed."""
    async with stage() as s:
        data = await refused(s.client, **params)
        assert data["code"] == -32602
        assert data | told == data
        assert not any(s.daemon.core.topics.subscribers.values())
        if told.get("problem") == "unknown symbol":
            assert data["nearest"][0] == ETH


async def test_each_symbol_of_a_list_counts_and_none_is_taken_if_not_all_fit() -> None:
    """Of the session's own bound, and of the address's quota: all or nothing, and what was taken comes back."""
    limits = Limits(subscriptions=2, loopback=True)
    async with stage(session=Session(max_subscriptions=1), limits=limits) as s:
        assert (await refused(s.client, symbol=BOTH))["limit"] == 1
        assert not any(s.daemon.core.topics.subscribers.values())
        await s.client.call("subscribe", symbol=BTC)
    async with stage(limits=Limits(subscriptions=1, loopback=True)) as s:
        assert (await refused(s.client, symbol=BOTH))["limit"] == 1
        assert not any(s.daemon.core.topics.subscribers.values())
        await s.client.call("subscribe", symbol=ETH)


async def test_a_list_subscribed_amid_a_burst_misses_and_repeats_nothing() -> None:
    """Again and again over itself, with other formats: every symbol's places come once, in order."""
    async with stage() as s:
        taken: dict[str, list[int]] = {symbol: [] for symbol in BOTH}
        asked = trio.Event()

        async def trade() -> None:
            for n in range(1, 200):
                for symbol in BOTH:
                    await publish(s, symbol, n)
            asked.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trade)
            first = await s.client.call("subscribe", symbol=BOTH)
            for each in first:
                taken[each["symbol"]].append(each["offset"])
            while not asked.is_set():
                await s.client.call("subscribe", symbol=BOTH[::-1], batch=True)
        await s.client.until(
            lambda: all(s.client.traded[x] and s.client.trades(x)[-1]["offset"] == 199 for x in BOTH)
        )
        for symbol in BOTH:
            [start] = taken[symbol]
            assert offsets(s.client.trades(symbol)) == list(range(start + 1, 200))


async def test_two_formats_on_two_symbols_of_one_client() -> None:
    """Each subscription has its own; the values are those of a client with `json`."""
    async with stage() as s, client(s.daemon.url) as plain, listener(s.daemon.url) as c:
        await plain.call("subscribe", symbol=BOTH)
        await c.say("subscribe", symbol=BTC, format="compact", snapshot=0)
        await c.say("subscribe", symbol=ETH, format="strings", snapshot=0)
        told = (await c.next())["result"]
        assert (told["sources"], told["trades"]) == (["binance"], [])
        assert "columns" not in (await c.next())["result"]
        await publish(s, BTC, 5, 9)
        assert dict(zip(told["columns"], await c.next(), strict=True)) == {
            "topic": told["topic"],
            "offset": 1,
            "timestamp": 1_700_000_000_005_000,
            "side": "buy",
            "price": Decimal("5.10"),
            "qty": Decimal("0.50"),
            "tradeId": "5",
            "source": 0,
        }
        gap = await c.next()
        assert (gap["method"], gap["params"]["from"], gap["params"]["to"]) == ("stream.gap", 2, 4)
        assert (await c.next())[1] == 5
        await publish(s, ETH, 4)
        await plain.until(lambda: plain.trades(ETH))
        strings = {"price": "4.10000000", "qty": "0.50000000"}
        assert (await c.next())["params"] == plain.trades(ETH)[0] | strings
