"""The SignalR hub over the real daemon: what its clients have relied on, by every transport and in both protocols."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from dataflow.domain import Topic
from dataflow.faces.signalr import Settings
from dataflow.settings.schema import Gateway
from simulators import Exchange, Trade, open_binance
from tests.support.node import Program, program
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance

SYMBOL = "BTC-USDT"
TOPIC = Topic("trades", SYMBOL)
HANDSHAKE = '{"protocol":"json","version":1}\x1e'
RESTORED = {"jsonrpc": "2.0", "method": "connection.restored", "params": {"action": "resubscribe"}}
PAGE = "http://localhost:4200"


def call(method: str, id: Any = None, **params: Any) -> str:
    """A call of JSON-RPC; without an id a notification."""
    written = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(written if id is None else written | {"id": id})


def invocation(text: str, id: str | None = None) -> str:
    """A record that sends it to the hub."""
    record: dict[str, Any] = {"type": 1, "target": "SendMessage", "arguments": [text]}
    return json.dumps(record if id is None else record | {"invocationId": id}) + "\x1e"


SUBSCRIBE = call("subscribe", "1", channel="trades", symbol=SYMBOL)


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    published: int = 0

    async def publish(self, count: int) -> None:
        """Trades whose id, time and price tell their number."""
        for _ in range(count):
            self.published += 1
            number = self.published
            await self.exchange.publish(
                Trade(
                    id=number,
                    symbol="BTCUSDT",
                    side="sell" if number % 2 else "buy",
                    price=f"{number}.25",
                    qty="0.5",
                    timestamp_us=1_700_000_000_000_000 + 1000 * number,
                )
            )
        await until(lambda: self.daemon.core.history(SYMBOL).last >= self.published)

    @property
    def url(self) -> str:
        return self.daemon.http + "/blockchain"

    @property
    def listeners(self) -> int:
        return self.daemon.core.topics.subscribers.get(TOPIC, 0)

    @property
    def hubs(self) -> int:
        return len(self.daemon.lobby.clients)


def expected(number: int) -> dict[str, Any]:
    """The trade of that number, as a client gets it."""
    return {
        "seqnum": number,
        "event": "updated",
        "channel": "trades",
        "symbol": SYMBOL,
        "timestamp": f"2023-11-14T22:13:20.{number:03}000Z",
        "side": "sell" if number % 2 else "buy",
        "qty": 0.5,
        "price": number + 0.25,
        "tradeId": str(number),
        "source": "binance",
        "offset": number,
    }


@asynccontextmanager
async def stage(settings: Settings | None = None, **tables: Any) -> AsyncIterator[Stage]:
    faces = {"signalr": settings or Settings(enabled=True)}
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, "ETH-USDT", eager=True), faces=faces, **tables
        ) as d,
    ):
        await exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])
        yield Stage(exchange, d)


# The client of Microsoft.


@define
class Page:
    """A program with hub clients by name, and what each was told."""

    program: Program
    received: dict[str, list[Any]] = field(factory=lambda: defaultdict(list))  # JSON-RPC, read
    events: dict[str, list[dict[str, Any]]] = field(factory=lambda: defaultdict(list))  # all else

    async def listen(self) -> None:
        while True:
            event = await self.program.hear()
            name = event.pop("name")
            if "received" in event:
                [text] = event["received"]  # exactly one argument
                assert isinstance(text, str)
                self.received[name].append(json.loads(text))
            else:
                self.events[name].append(event)

    async def tell(self, do: str, name: str, **order: Any) -> None:
        await self.program.tell({"do": do, "name": name} | order)

    async def ask(self, do: str, name: str, **order: Any) -> dict[str, Any]:
        """The next event of the client."""
        seen = len(self.events[name])
        await self.tell(do, name, **order)
        await until(lambda: len(self.events[name]) > seen)
        return self.events[name][seen]

    def trades(self, name: str) -> list[Any]:
        return [each["params"] for each in self.received[name] if each.get("method") == "trades.update"]

    def answers(self, name: str) -> list[Any]:
        return [each for each in self.received[name] if "id" in each]


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    async with program("signalr.mjs") as running, trio.open_nursery() as nursery:
        made = Page(running)
        nursery.start_soon(made.listen)
        yield made
        nursery.cancel_scope.cancel()


WAYS = {
    "WebSockets": {"transport": "WebSockets"},
    "skipped": {"transport": "WebSockets", "skip": True},
    "ServerSentEvents": {"transport": "ServerSentEvents"},
    "LongPolling": {"transport": "LongPolling"},
    "WebSockets, MessagePack": {"transport": "WebSockets", "protocol": "messagepack"},
    "LongPolling, MessagePack": {"transport": "LongPolling", "protocol": "messagepack"},
}


async def test_the_client_of_microsoft_works_by_every_way() -> None:
    """Exact trades in order, answers before completions, errors of the hub and of JSON-RPC; and nothing stays behind."""
    async with stage() as s, page() as p:
        await s.publish(60)
        for number, (name, way) in enumerate(WAYS.items(), start=1):
            assert await p.ask("start", name, url=s.url, **way) == {
                "started": "object" if "skip" in way else "string"
            }
            assert await p.ask("invoke", name, text=SUBSCRIBE) == {"result": None}
            assert p.received[name][0] == RESTORED
            [answer] = p.answers(name)  # it came before the invocation was complete
            assert (answer["id"], answer["result"]["event"]) == ("1", "subscribed")
            await until(lambda number=number: s.listeners == number)
            failed = await p.ask("invoke", name, target="Subscribe", text="x")
            assert "Unknown hub method 'Subscribe'" in failed["failed"]
            failed = await p.ask("invoke", name, texts=["x", "y"])
            assert "exactly one string" in failed["failed"]
        assert s.listeners == s.hubs == len(WAYS)
        await s.publish(300)
        for name in WAYS:
            await until(lambda name=name: len(p.trades(name)) == 300)
            assert p.trades(name) == [expected(number) for number in range(61, 361)]
            assert await p.ask("invoke", name, text=call("getRecentTrades", 7, symbol=SYMBOL)) == {
                "result": None
            }
            recent = p.answers(name)[-1]
            assert recent == {"jsonrpc": "2.0", "result": [expected(n) for n in range(360, 310, -1)], "id": 7}
            assert await p.ask("send", name, text=call("unsubscribe", 8, symbol=SYMBOL)) == {"sent": True}
            await until(lambda name=name: p.answers(name)[-1]["id"] == 8)
        assert s.listeners == 0
        for name in WAYS:
            assert await p.ask("stop", name) == {"closed": None}
        await until(lambda: s.hubs == 0)
        assert s.daemon.crashes() == []


async def test_clients_reconnect_across_a_restart_of_the_daemon() -> None:
    """They are told that they may, come back by themselves, and are told to subscribe anew; then trades go on."""
    ways = ("WebSockets", "ServerSentEvents", "LongPolling", "WebSockets, MessagePack")
    async with page() as p:
        async with stage() as s:
            port = int(s.daemon.http.rpartition(":")[2])
            for name in ways:
                await p.ask("start", name, url=s.url, reconnect=True, **WAYS[name])
                await p.ask("invoke", name, text=SUBSCRIBE)
            await s.publish(2)
            await until(lambda: all(len(p.trades(name)) == 2 for name in ways))
        for name in ways:
            await until(lambda name=name: {"reconnecting": None} in p.events[name])
        async with stage(gateway=Gateway(port=port)) as s:
            for name in ways:
                await until(lambda name=name: {"reconnected": "string"} in p.events[name])
                await until(lambda name=name: p.received[name].count(RESTORED) == 2)
                await p.ask("invoke", name, text=SUBSCRIBE)
            await until(lambda: s.listeners == len(ways))
            await s.publish(3)
            for name in ways:
                await until(lambda name=name: len(p.trades(name)) == 5)
                assert p.trades(name) == [expected(number) for number in (1, 2, 1, 2, 3)]
