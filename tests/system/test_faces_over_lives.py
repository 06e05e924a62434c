"""A daemon with a history on disk, stopped and killed: what its faces show afterwards is what they showed before."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from trio_websocket import WebSocketConnection

from dataflow.protobuf import marketdata_pb2 as pb
from simulators import Exchange, Trade, open_binance
from tests.support.grpc_client import connected, in_thread
from tests.system.daemon import connection, http_client
from tests.system.process import Home, Life
from tests.system.stomping import PLAIN, frame
from tests.system.test_comeback import free_ports

SYMBOL, THEIRS = "BTC-USDT", "BTCUSDT"
DESTINATION = f"/topic/market-data/{SYMBOL}"
AT = 1_723_161_240_000_000  # a day that is long over, in microseconds: time is the exchange's


def home(folder: Path, exchange: Exchange) -> Home:
    (grpc_port,) = free_ports(1)
    faces = "".join(
        f"[faces.{name}]\nenabled = true\n" for name in ("marketdata", "pricehub", "graphql", "stomp")
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

        async def end(life: Life) -> None:
            if ends == "stops":
                assert await life.stop() == 0
            else:
                await life.kill()
            await exchange.wait_disconnected()

        async with lives.living() as life:
            await publish(exchange, life, 1, many)
            assert await shown(life) == [expected(many)] * 5
            await end(life)
        async with lives.living() as life:
            assert await shown(life) == [expected(many)] * 5
            await publish(exchange, life, many + 1, many + 10)
            assert await shown(life) == [expected(many + 10)] * 5
            await end(life)
        async with lives.living() as life:
            assert await shown(life) == [expected(many + 10)] * 5
