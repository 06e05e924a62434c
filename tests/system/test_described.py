"""Whatever a daemon says over JSON-RPC is in the AsyncAPI document, with every member; nothing else is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, cast

import trio
from attrs import define, evolve, field
from jsonschema import Draft7Validator

from dataflow.domain import Gap, Topic
from dataflow.domain.notice import Refused, StreamSwitched, Waiting
from dataflow.faces.jsonrpc.format import JSONRPC
from dataflow.settings.schema import Session
from simulators import Exchange, Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, connection, daemon, from_binance, http_client

BTC, ETH, SOL = "BTC-USDT", "ETH-USDT", "SOL-USDT"
UNHEARD = {"connection.waiting", "connection.refused", "stream.switched"}  # they are asked of the format


Heard: TypeAlias = tuple[Any, str | None]  # a message, and the method that it answers


@define
class Ear:
    """The socket of a client; keeps every text that came, and to which method it is the answer."""

    socket: Any
    heard: list[Heard]
    asked: dict[Any, str] = field(factory=dict)

    async def get_message(self) -> str:
        text = cast(str, await self.socket.get_message())
        message = json.loads(text)
        is_result = isinstance(message, dict) and "result" in message
        self.heard.append((message, self.asked.pop(message["id"], None) if is_result else None))
        return text

    async def send_message(self, text: str) -> None:
        with suppress(ValueError, TypeError, KeyError):
            call = json.loads(text)
            self.asked[call["id"]] = call["method"]
        await self.socket.send_message(text)


@asynccontextmanager
async def listener(url: str, heard: list[Heard]) -> AsyncIterator[Client]:
    async with connection(url) as socket, trio.open_nursery() as nursery:
        made = Client(cast(Any, Ear(socket, heard)))
        nursery.start_soon(made.listen)
        yield made
        nursery.cancel_scope.cancel()


class Judge:
    """Knows the messages of a document. A member that it does not have is wrong, too."""

    def __init__(self, document: dict[str, Any]) -> None:
        components = strict(document["components"])
        self.validators = {
            name: Draft7Validator(
                {"components": components, "allOf": [{"$ref": f"#/components/messages/{name}/payload"}]}
            )
            for name in components["messages"]
        }

    def names(self, message: Any) -> set[str]:
        """The descriptions that this message keeps."""
        return {name for name, validator in self.validators.items() if validator.is_valid(message)}


def strict(schema: Any) -> Any:
    """The schema with every object closed that tells its members."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(each) for key, each in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def single(heard: list[Heard]) -> list[Heard]:
    """All messages, those in arrays of updates and answers one by one as well."""
    inner = [
        (each, None)
        for message, _ in heard
        if isinstance(message, list) and not is_row(message)
        for each in message
    ]
    return [*heard, *inner]


def is_row(message: Any) -> bool:
    return not isinstance(message[0], dict | list)


async def publish(exchange: Exchange, d: Daemon, *ids: int) -> None:
    for n in ids:
        await exchange.publish(Trade(n, "BTCUSDT", "buy", f"{n}.50", "0.10", 1_700_000_000_000_000 + n))
    await until(lambda: str(ids[-1]) in d.core.history(BTC)._feed("binance").ids)


async def everything(exchange: Exchange, d: Daemon, heard: list[Heard]) -> None:
    """A long and mixed session: every channel and format, gaps, fills, rewinds, new symbols, an outage, mistakes."""
    async with (
        listener(d.url, heard) as one,
        listener(d.url, heard) as compact,
        listener(d.url, heard) as strings,
        listener(d.url, heard) as every,
    ):
        await one.call("subscribe", symbol=BTC, batch=True)
        await one.call("subscribe", symbol=[BTC, ETH], channel="candles", interval="1m")
        await one.call("subscribe", symbol=BTC, channel="quality", snapshot=3)
        await compact.call("subscribe", symbol=BTC, format="compact")
        await strings.call("subscribe", symbol=BTC, format="strings")
        await strings.call(
            "subscribe", symbol=BTC, channel="candles", interval="1s", format="strings", snapshot=5
        )
        await every.call("subscribe", symbol="*", batch=True)
        await exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])
        await publish(exchange, d, 1, 2, 3, 7)  # a gap, and then the fill of a part
        await publish(exchange, d, 5, 8)
        for each in (one, strings):
            await each.until(lambda each=each: each.of("stream.filled") and each.of("candles.update"))
        await compact.until(lambda: compact.of("stream.filled") and len(compact.rows) >= 5)
        await every.until(lambda: len(every.trades()) >= 5)

        epoch = d.core.history(BTC).epoch
        since = {"epoch": epoch, "offset": 7, "gaps": [[4, 6]]}
        d.core.history(BTC).shared = {5: 3}
        for format in ("json", "compact", "strings"):
            for place in (since, {"epoch": 5, "offset": 6}, {"epoch": 6, "offset": 6}):
                await one.call("subscribe", symbol=BTC, format=format, since=place)
            await one.call("subscribe", symbol=BTC, format=format, snapshot=100)
        await one.call("subscribe", symbol=BTC, channel="candles", interval="1m", snapshot=5)
        await one.call("subscribe", symbol=ETH, channel="quality")

        for method, params in (
            ("getRecentTrades", {"symbol": BTC}),
            ("getTrades", {"symbol": BTC}),
            ("getTrades", {"symbol": BTC, "after": {"epoch": 5, "offset": 6}, "limit": 2}),
            ("getCandles", {"symbol": BTC, "interval": "1s"}),
            ("getCandles", {"symbol": BTC, "interval": "2t", "to": "2024-01-01T00:00:00Z"}),
            ("getSymbols", {}),
            ("getStatus", {}),
            ("rpc.discover", {}),
            ("ping", {}),
        ):
            await one.ask(method, **params)

        await one.call("unsubscribe", symbol=[BTC, ETH], channel="candles", interval="1m")
        await one.call("unsubscribe", symbol=BTC)
        for method, params in (  # mistakes of every kind
            ("subscribe", {"symbol": "BTC"}),
            ("subscribe", {"symbol": SOL, "channel": "none"}),
            ("nothing", {}),
            ("ping", {"loud": True}),
        ):
            assert "error" in await one.ask(method, **params)
        for text in (
            "{",
            "[]",
            "7",
            '[{"jsonrpc":"2.0","id":"a","method":"ping"},{"jsonrpc":"2.0","id":null,"method":"getSymbols"},3]',
        ):
            before = len(heard)
            await strings.socket.send_message(text)
            await strings.until(lambda before=before: len(heard) > before)
        async with listener(d.url, heard) as greedy:  # one subscription too many
            await greedy.call("subscribe", symbol=[BTC, ETH])
            for interval in ("1m", "1s"):
                await greedy.call("subscribe", symbol=[BTC, ETH], channel="candles", interval=interval)
            assert "error" in await greedy.ask("subscribe", symbol=ETH, channel="quality")

        await exchange.disconnect("abrupt")
        await one.until(lambda: one.of("connection.lost") and one.of("connection.restored"))
        settings = d.hall.settings
        now = from_binance(exchange.url, BTC, ETH, SOL, eager=True)
        await d.reload(evolve(settings, sources=now))
        await every.until(lambda: every.of("stream.started") and every.of("symbols.changed"))
        await one.until(lambda: one.of("quality.update"))
        await d.root.restart("gateway")
        for each in (one, compact, strings, every):
            await each.until(lambda each=each: each.of("connection.draining"))


async def test_all_that_a_daemon_says_is_described() -> None:
    """Each message keeps exactly the description of its kind, and every kind of message was said."""
    heard: list[Heard] = []
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, BTC, ETH, eager=True), session=Session(max_subscriptions=6)
        ) as d,
        http_client(d.http) as http,
    ):
        judge = Judge((await http.get("/asyncapi.json")).json())
        await everything(exchange, d, heard)
    topic = Topic("trades", BTC)
    for told in (
        JSONRPC.notice(Waiting(412, 1.2)),
        JSONRPC.notice(Refused("too many clients are waiting", 7.5)),
        JSONRPC.notice(StreamSwitched(BTC, "trades", 1, 2, "binance", "kraken", "lost")),
        JSONRPC.gap(topic, 1, Gap(1, 2, "slow_client"), 2),
    ):
        heard.append((json.loads(told), None))
    kinds: set[str] = set()
    for message, method in single(heard):
        found = judge.names(message)
        assert found, message
        assert method is None or f"{method}.result" in found, message
        if isinstance(message, dict) and "method" in message:
            assert found == {message["method"]}
        kinds |= found
    said = {name for name in judge.validators if not name.endswith(".call") and name != "calls"}
    assert said - kinds == set()
