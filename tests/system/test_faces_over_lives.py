"""A daemon with a history on disk, stopped and killed: what its faces show afterwards is what they showed before."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from playwright.sync_api import Page, expect
from trio_websocket import WebSocketConnection

from dataflow.protobuf import marketdata_pb2 as pb
from simulators import Exchange, Trade, open_binance
from tests.support.browser import Heard, browse, in_the_test
from tests.support.grpc_client import connected, in_thread
from tests.support.node import program
from tests.support.ports import own_port
from tests.support.waiting import until
from tests.system.daemon import connection, http_client
from tests.system.hub import RESTORED, call
from tests.system.process import Home, Life
from tests.system.stomping import PLAIN, frame

SYMBOL, THEIRS = "BTC-USDT", "BTCUSDT"
DESTINATION = f"/topic/market-data/{SYMBOL}"
AT = 1_723_161_240_000_000  # a day that is long over, in microseconds: time is the exchange's


def home(folder: Path, exchange: Exchange) -> Home:
    grpc_port = own_port()
    faces = "".join(
        f"[faces.{name}]\nenabled = true\n"
        for name in ("marketdata", "pricehub", "graphql", "stomp", "signalr")
    )
    return Home(folder, exchange.url, more=f"{faces}[faces.grpc]\nenabled = true\nport = {grpc_port}\n")


async def publish(exchange: Exchange, life: Life, first: int, last: int) -> None:
    """Trades of one day. They are on disk when this returns."""
    await exchange.wait_subscribed([THEIRS])
    for n in range(first, last + 1):
        await exchange.publish(Trade(n, THEIRS, "buy", f"{100 + n % 7}.50", "0.125", AT + n * 1000))
    await life.until_recorded(last - first + 1)


def expected(count: int) -> dict[str, Any]:
    """The day of so many trades, as REST has it."""
    prices = [Decimal(f"{100 + n % 7}.50") for n in range(1, count + 1)]
    return {
        "symbol": SYMBOL,
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": Decimal("0.125") * count,
        "timestamp": (AT + count * 1000) // 1000,
    }


async def shown(life: Life, symbol: str = SYMBOL) -> list[dict[str, Any]]:
    """The day and the price as each face tells them, in the words of the first."""
    query = {"query": '{marketData(symbol: "BTCUSDT") {symbol open high low close volume timestamp}}'}
    async with http_client(life.http) as http:
        texts = [
            (await http.get(f"/api/v1/marketdata/{symbol}")).text,
            (await http.get("/Instruments/BTCUSDT/price")).text,
            (await http.post("/graphql", json=query)).text,
        ]
    day, price, graphql = (json.loads(text, parse_float=Decimal) for text in texts)
    async with connection(life.url.removesuffix("/ws") + f"/ws/marketdata?symbol={symbol}") as socket:
        streamed = json.loads(await socket.get_message(), parse_float=Decimal)
    async with connection(life.url.removesuffix("/ws") + PLAIN) as socket:
        stomped = await first_message(socket)
    assert price == {"instrument": THEIRS, "price": day["close"]}
    return [day, streamed, numbers(graphql["data"]["marketData"]), numbers(stomped), await by_grpc(life, day)]


def numbers(told: dict[str, Any]) -> dict[str, Any]:
    """Of a face that writes the volume and the time as text."""
    return told | {"volume": Decimal(told["volume"]), "timestamp": int(told["timestamp"])}


async def first_message(socket: WebSocketConnection) -> dict[str, Any]:
    await socket.send_message("CONNECT\naccept-version:1.2\nhost:h\n\n\0")
    await socket.get_message()
    await socket.send_message(f"SUBSCRIBE\nid:0\ndestination:{DESTINATION}\n\n\0")
    told: dict[str, Any] = frame(str(await socket.get_message())).json
    return told


async def by_grpc(life: Life, like: dict[str, Any]) -> dict[str, Any]:
    port = int(life.home.more.rpartition("port = ")[2])
    async with connected(f"127.0.0.1:{port}") as stub:
        told = await in_thread(stub.get_aggregate, pb.AggregateRequest(symbol=SYMBOL))
    prices = {name: Decimal(str(getattr(told, name))) for name in ("open", "high", "low", "close")}
    more = {"volume": Decimal(told.volume_exact), "timestamp": told.timestamp // 1_000_000}
    return {"symbol": told.symbol, **prices, **more}


@pytest.mark.parametrize(("ends", "many"), [("stops", 40), ("is killed", 1_200)])
async def test_the_day_is_whole_in_every_face(ends: str, many: int, tmp_path: Path) -> None:
    """Before any new trade, and with the next one: REST, WebSocket, prices, GraphQL, STOMP and gRPC.

    Also of a daemon that had no time for a checkpoint, of more trades than a start loads, and of a day long over.
    """
    async with open_binance() as exchange:
        lives = home(tmp_path, exchange)

        async with lives.living() as life:
            await publish(exchange, life, 1, many)
            assert await shown(life) == [expected(many)] * 5
            await end(life, exchange, ends)
        async with lives.living() as life:
            assert await shown(life) == [expected(many)] * 5
            await publish(exchange, life, many + 1, many + 10)
            assert await shown(life) == [expected(many + 10)] * 5
            await end(life, exchange, ends)
        async with lives.living() as life:
            assert await shown(life) == [expected(many + 10)] * 5


async def end(life: Life, exchange: Exchange, ends: str) -> None:
    if ends == "stops":
        assert await life.stop() == 0
    else:
        await life.kill()
    await exchange.wait_disconnected()


@pytest.mark.parametrize("ends", ["stops", "is killed"])
async def test_clients_of_the_hub_recover_by_themselves(ends: str, tmp_path: Path) -> None:
    """They come back, hear that they must subscribe again, and get what they missed: by `since`, which the hub has,
    too, and by `afterTimestamp`, as they always did."""
    async with open_binance() as exchange:
        lives = home(tmp_path, exchange)
        async with lives.living() as life, program("signalr.mjs") as node:

            async def received(wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
                heard = await node.hear_until(lambda event: "received" in event and wanted(text_of(event)))
                return text_of(heard[-1])

            async def ask(method: str, **params: Any) -> Any:
                await node.tell({"do": "invoke", "name": "a", "text": call(method, method, **params)})
                return (await received(lambda text: text.get("id") == method))["result"]

            url = life.http + "/blockchain"
            await node.tell(
                {"do": "start", "name": "a", "url": url, "transport": "WebSockets", "reconnect": True}
            )
            await received(lambda text: text == RESTORED)
            begun = await ask("subscribe", channel="trades", symbol=SYMBOL)
            await publish(exchange, life, 1, 9)
            ninth = await received(lambda text: text.get("params", {}).get("offset") == 9)
            await end(life, exchange, ends)
            async with lives.living() as second:
                await received(lambda text: text == RESTORED)
                since = {"epoch": begun["epoch"], "offset": 6}
                again = await ask("subscribe", channel="trades", symbol=SYMBOL, since=since)
                assert [trade["tradeId"] for trade in again["trades"]] == ["7", "8", "9"]
                assert (again["recovered"], "rewound" in again, "gaps" in again) == (True, False, False)
                assert (again["epoch"] == begun["epoch"]) == (ends == "stops")
                recent = await ask(
                    "getRecentTrades", symbol=SYMBOL, afterTimestamp=again["trades"][0]["timestamp"]
                )
                assert [trade["tradeId"] for trade in recent] == ["8", "9"]
                assert recent[-1] == ninth["params"]
                await publish(exchange, second, 10, 10)
                tenth = await received(lambda text: text.get("params", {}).get("offset") == 10)
                assert tenth["params"]["tradeId"] == "10"


def text_of(event: dict[str, Any]) -> dict[str, Any]:
    """What the hub has said, of an event of the program."""
    told: dict[str, Any] = json.loads(event["received"][0])
    return told


@pytest.mark.parametrize("ends", ["stops", "is killed"])
async def test_an_event_stream_goes_on_behind_its_last_id(ends: str, tmp_path: Path) -> None:
    """In the same epoch after a stop. After a kill who has more than the disk hears first what is no part of the stream."""
    async with open_binance() as exchange:
        lives = home(tmp_path, exchange)
        async with lives.living() as life:
            await publish(exchange, life, 1, 9)
            epoch = (await status(life))["epoch"]
            await end(life, exchange, ends)
        async with lives.living() as life:
            now = (await status(life))["epoch"]
            assert (now == epoch) == (ends == "stops")
            told = await events(life, f"{epoch}-6", 3)
            assert [each["event"] for each in told] == ["trade"] * 3
            assert [each["id"] for each in told] == [f"{now}-{place}" for place in (7, 8, 9)]
            if ends == "is killed":  # the places 10 to 12 were seen, and never written
                await publish(exchange, life, 13, 13)
                told = await events(life, f"{epoch}-12", 3)
                assert told[0] == {"event": "rewind", "id": f"{now}-9", "data": {"epoch": now, "offset": 9}}
                assert told[1]["data"] == {"from": 10, "to": 12, "reason": "source_gap"}
                assert told[2]["data"]["tradeId"] == "13"


@pytest.mark.parametrize("ends", ["stops", "is killed"])
async def test_the_page_goes_on_across_lives(ends: str, tmp_path: Path) -> None:
    """In a browser that stays open: it fetches what it missed, and every trade has its line, once."""
    async with open_binance() as exchange:
        lives = home(tmp_path, exchange)
        async with lives.living() as life, trio.open_nursery() as nursery:
            opened, lost, seen = trio.Event(), trio.Event(), list[Any]()

            def visit(page: Page, heard: Heard) -> None:
                page.goto(f"{life.http}/#/market/{SYMBOL}")
                places = page.locator("table.tape tbody tr td:nth-child(6)")  # of trades alone
                expect(places.first).to_have_text("5")
                in_the_test(opened.set)
                expect(places.first).to_have_text("9")
                seen.extend(places.all_inner_texts())
                in_the_test(lost.set)

            await publish(exchange, life, 1, 5)
            nursery.start_soon(browse, visit)
            await opened.wait()
            await end(life, exchange, ends)
            async with lives.living() as second:
                await publish(exchange, second, 6, 9)
                await lost.wait()
            assert seen == [str(place) for place in range(9, 0, -1)]


async def events(life: Life, last_id: str, count: int) -> list[dict[str, Any]]:
    """The first `count` events for a client that has so much, as lines."""
    headers = {"Accept": "application/x-ndjson", "Last-Event-ID": last_id}
    found: list[dict[str, Any]] = []

    async def listen(response: httpx.Response) -> None:
        async for line in response.aiter_lines():
            found.extend([json.loads(line)] if line else [])

    async with (
        http_client(life.http) as http,
        http.stream("GET", f"/api/v1/stream/{SYMBOL}", headers=headers) as response,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(listen, response)
        await until(lambda: len(found) >= count)
        nursery.cancel_scope.cancel()
    return found[:count]


async def status(life: Life) -> dict[str, Any]:
    async with http_client(life.http) as http:
        told: dict[str, Any] = (await http.get("/api/v1/status")).json()
    return told
