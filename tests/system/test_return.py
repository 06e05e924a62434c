"""Clients that come back to a daemon that was restarted: with their old position they get a gap and trades, never silence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from httpx_sse import EventSource, ServerSentEvent

from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, connection, daemon, from_binance, http_client

SYMBOL = "BTC-USDT"
LOST = {"from": 0, "to": None, "reason": "overrun"}


async def publish(exchange: Exchange, first: int, last: int) -> None:
    for n in range(first, last + 1):
        at = 1_700_000_000_000_000 + n
        await exchange.publish(
            Trade(id=n, symbol="BTCUSDT", side="buy", price="1.5", qty="2", timestamp_us=at)
        )


@asynccontextmanager
async def begun(exchange: Exchange, first: int, last: int) -> AsyncIterator[Daemon]:
    """A daemon that has got these trades."""
    async with daemon(sources=from_binance(exchange.url, SYMBOL, eager=True)) as d:
        await d.until_carried(SYMBOL)  # the exchange may still know the daemon before
        await publish(exchange, first, last)
        await until(lambda: d.core.history(SYMBOL).last == last - first + 1)
        yield d


async def position(exchange: Exchange) -> dict[str, int]:
    """The position of a client of a daemon that is no more."""
    async with begun(exchange, 1, 20) as d, client(d.url) as before:
        answer = await before.call("subscribe", symbol=SYMBOL, snapshot=5)
        assert answer["offset"] == 20
        return {"epoch": answer["epoch"], "offset": answer["offset"]}


def check(answer: dict[str, Any], before: dict[str, int]) -> None:
    """The gap, and all trades of the new run; from the place of the last one on the stream is live."""
    assert answer["epoch"] != before["epoch"]
    assert answer["recovered"] is False
    assert answer["gaps"] == [LOST]
    assert [(trade["offset"], int(trade["tradeId"])) for trade in answer["trades"]] == [
        (n, 100 + n) for n in range(1, 31)
    ]
    assert answer["offset"] == 30


async def test_over_a_websocket() -> None:
    """One call: what was lost is a gap, what there is comes in the answer, and the stream goes on behind it."""
    async with open_binance() as exchange:
        before = await position(exchange)
        async with begun(exchange, 101, 130) as d, client(d.url) as back:
            answer = await back.call("subscribe", symbol=SYMBOL, since=before)
            check(answer, before)
            await publish(exchange, 131, 133)
            await back.until(lambda: len(back.trades()) == 3)
            assert [trade["offset"] for trade in back.trades()] == [31, 32, 33]
            now = {"epoch": answer["epoch"], "offset": 33}
            assert (await back.call("subscribe", symbol=SYMBOL, since=now))["recovered"] is True


@pytest.mark.parametrize("batch", [False, True])
async def test_in_a_batch_of_calls(batch: bool) -> None:
    """Each call of a batch is answered as it would be alone, whether or not updates may be joined."""
    async with open_binance() as exchange:
        before = await position(exchange)
        async with begun(exchange, 101, 130) as d, connection(d.url) as socket:
            params = {"symbol": SYMBOL, "since": before, "batch": batch}
            call = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": params}
            await socket.send_message(json.dumps([call, {"jsonrpc": "2.0", "id": 2, "method": "ping"}]))
            subscribed, pong = json.loads(await socket.get_message())
            check(subscribed["result"], before)
            assert pong["result"] == "pong"


async def listen(response: httpx.Response, events: list[ServerSentEvent]) -> None:
    async for event in EventSource(response).aiter_sse():
        events.append(event)


async def test_over_server_sent_events() -> None:
    """A browser sends the id of its last event by itself: it gets the gap, the trades, and the live stream."""
    async with open_binance() as exchange:
        before = await position(exchange)
        last = f"{before['epoch']}-{before['offset']}"
        async with (
            begun(exchange, 101, 130) as d,
            http_client(d.http) as http,
            http.stream("GET", f"/api/v1/stream/{SYMBOL}", headers={"Last-Event-ID": last}) as response,
            trio.open_nursery() as nursery,
        ):
            events = list[ServerSentEvent]()
            nursery.start_soon(listen, response, events)
            await publish(exchange, 131, 140)
            await until(lambda: len(events) == 41)
            assert (events[0].event, json.loads(events[0].data)) == ("gap", LOST)
            assert [(event.event, event.id) for event in events[1:]] == [
                ("trade", f"{d.core.epoch}-{offset}") for offset in range(1, 41)
            ]
            nursery.cancel_scope.cancel()
