"""Subscriptions to "*": all symbols that there are and will be, each with places of its own."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import wait_all_tasks_blocked

from actors.outbox import SlowClient
from actors.session import Ending
from dataflow.client import Client as Core
from dataflow.client import Event, Quality, Subscribed
from dataflow.client import Trade as Told
from dataflow.domain import Gap, Topic
from dataflow.faces.jsonrpc.methods import Calls, formats
from dataflow.gateway import recovery
from dataflow.settings.schema import Cache, Limits, Session, Settings
from simulators import Exchange, Trade, open_binance
from supervisors import Point
from tests.actors.fakes import FakeWire
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance
from tests.system.test_long_answers import ALL, NOBODY

BTC, ETH, SOL = SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
EVERY = Topic("trades", "*")


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    last: dict[str, int] = field(factory=dict)

    async def publish(self, symbol: str, count: int = 1, skip: int = 0) -> None:
        """`count` trades, the first one behind a gap of `skip`."""
        for n in range(count):
            last = self.last[symbol] = self.last.get(symbol, 0) + 1 + (skip if n == 0 else 0)
            trade = Trade(last, symbol.replace("-", ""), "buy", "1.5", "2", 1_700_000_000_000_000 + last)
            await self.exchange.publish(trade)
        await until(lambda: self.daemon.core.history(symbol).last == self.last[symbol])

    async def publish_late(self, symbol: str) -> None:
        """The first trade that is missing, if there is one, behind all others."""
        history = self.daemon.core.history(symbol)
        gaps = [
            entry.first for _, entry in history.places(0, 10_000) if isinstance(entry, Gap) and entry.sequence
        ]
        if gaps:
            name = symbol.replace("-", "")
            await self.exchange.publish(
                Trade(gaps[0], name, "buy", "1.5", "2", 1_700_000_000_000_000 + gaps[0])
            )
            await self.publish(symbol)

    async def client(self, room: int) -> FakeWire:
        """A client that takes `room` bytes, and more when its `reads` says so."""
        wire, hall = FakeWire(room), self.daemon.hall
        known = formats(hall.core.symbols, list(hall.settings.sources))
        await hall.open_session(wire, lambda session: Calls(session, hall, known), NOBODY)
        return wire


@asynccontextmanager
async def stage(*symbols: str, eager: bool = True, most: int = 10_000, **tables: Any) -> AsyncIterator[Stage]:
    symbols = symbols or SYMBOLS
    cache = Cache(trades_per_symbol=most)
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *symbols, eager=eager), cache=cache, **tables) as d,
    ):
        if eager:
            await exchange.wait_subscribed([symbol.replace("-", "") for symbol in symbols])
        else:
            await until(lambda: d.core.sources["binance"].link.value == "connected")
        yield Stage(exchange, d)


def offsets(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["offset"] for entry in entries]


async def test_all_symbols_are_answered_and_followed() -> None:
    """The result is a list of single results; then every symbol's stream goes on behind its own offset."""
    async with stage() as s, client(s.daemon.url) as c, client(s.daemon.url) as other:
        await s.publish(BTC, 3)
        await s.publish(ETH, 1)
        answers = await c.call("subscribe", symbol="*", snapshot=2)
        assert answers == [await other.call("subscribe", symbol=symbol, snapshot=2) for symbol in SYMBOLS]
        assert [offsets(each["trades"]) for each in answers] == [[2, 3], [1], []]
        for symbol in SYMBOLS:
            await s.publish(symbol, 2)
        await s.publish(BTC, 1, skip=2)
        await c.until(lambda: len(c.notices) >= 8)
        await other.until(lambda: len(other.notices) >= 8)
        for symbol in SYMBOLS:
            assert c.stream(symbol) == other.stream(symbol)
        assert await c.call("unsubscribe", symbol="*") == {
            "channel": "trades",
            "symbol": "*",
            "event": "unsubscribed",
        }
        await s.publish(SOL)
        assert await c.call("ping") == "pong"
        assert len(c.notices) == 8


async def test_it_is_one_subscription_and_wants_all_symbols_of_the_sources() -> None:
    """Of the session's bound and of the quota; the sources are asked for every symbol, and released after it."""
    tables = {"session": Session(max_subscriptions=1), "limits": Limits(subscriptions=1, loopback=True)}
    async with stage(eager=False, **tables) as s, client(s.daemon.url) as c:
        await c.call("subscribe", symbol="*")
        with trio.fail_after(30):
            await s.exchange.wait_subscribed([symbol.replace("-", "") for symbol in SYMBOLS])
        for symbol in SYMBOLS:
            await s.publish(symbol)
        await c.until(lambda: len(c.trades()) >= 3)
        assert (await c.ask("subscribe", symbol=BTC))["error"]["code"] == -32003
        await c.call("unsubscribe", symbol="*")
        await c.call("subscribe", symbol=BTC)


async def test_a_symbol_that_comes_later_is_announced_and_followed() -> None:
    """With its epoch and the place before its first: a client can resume it like any other."""
    async with stage(BTC) as s, client(s.daemon.url) as c:
        [answer] = await c.call("subscribe", symbol="*", format="compact", batch=True)
        later = s.daemon.hall.settings
        await s.daemon.reload(evolve_sources(later, BTC, ETH))
        await s.exchange.wait_subscribed(["ETHUSDT"])
        await s.publish(ETH, 2)
        await c.until(lambda: len(c.rows) >= 2)
        assert c.of("stream.started") == [
            {"symbol": ETH, "channel": "trades", "epoch": answer["epoch"], "offset": 0}
        ]
        assert [[*row[:2], row[-1]] for row in c.rows] == [[ETH, 1, "binance"], [ETH, 2, "binance"]]
        async with client(s.daemon.url) as again:
            since = {ETH: {"epoch": answer["epoch"], "offset": 1}, "GONE": {"epoch": 1, "offset": 1}}
            told = await again.call("subscribe", symbol="*", since=since)
            assert [(each["symbol"], each.get("recovered")) for each in told] == [(BTC, None), (ETH, True)]
            assert offsets(told[1]["trades"]) == [2]


async def test_positions_come_in_parts() -> None:
    """Of a client that has more of them than one call can hold. What is answered is what one call would be, gaps that
    were filled meanwhile included; before the last part nothing is followed."""
    async with stage() as s, client(s.daemon.url) as c, client(s.daemon.url) as other:
        for symbol in SYMBOLS:
            await s.publish(symbol, 2)
            await s.publish(symbol, 4, skip=2)
        epoch = (await c.call("getTrades", symbol=BTC))["epoch"]
        since = {symbol: {"epoch": epoch, "offset": 6, "gaps": [[3, 4]]} for symbol in SYMBOLS}
        await s.publish_late(ETH)
        assert (
            await c.call("subscribe", symbol="*", part=[1, 3], since={BTC: since[BTC], "GONE": since[BTC]})
            == []
        )
        assert s.daemon.core.topics.opened(EVERY) is None
        assert await c.call("subscribe", symbol="*", part=[2, 3], since={ETH: since[ETH]}) == []
        told = await c.call("subscribe", symbol="*", part=[3, 3], since={SOL: since[SOL]})
        assert told == await other.call("subscribe", symbol="*", since=since)
        assert [(each["symbol"], each["recovered"]) for each in told] == [
            (symbol, True) for symbol in SYMBOLS
        ]
        assert [len(each.get("filled", ())) for each in told] == [0, 1, 0]
        await s.publish(SOL)
        await c.until(lambda: len(c.trades()) == 1)


async def test_the_core_of_the_client_goes_on_with_all_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts and the daemon's answers fit together: what was missed comes, and no stream begins anew."""
    monkeypatch.setattr("dataflow.client.client.POSITIONS_AT_ONCE", 60)
    core, heard = Core(format="compact"), list[Event]()
    async with stage() as s:
        core.follow("*", snapshot=5)
        for calls in (1, 3):
            for symbol in SYMBOLS:
                await s.publish(symbol, 2)
            wire, said = await s.client(ALL), core.connect()
            assert len(said) == calls
            for call in said:
                wire.says_now(call)
            await wait_all_tasks_blocked()
            for text in wire.texts:
                heard += core.hear(text)
            await wire.hangs_up()
        told = [event for event in heard if not isinstance(event, Quality | Subscribed)]
        assert [(event.symbol, event.offset) for event in told if isinstance(event, Told)] == [
            *((symbol, place) for symbol in SYMBOLS for place in (1, 2)),
            *((symbol, place) for symbol in SYMBOLS for place in (3, 4)),
        ]
        assert len(told) == 12


async def test_a_part_is_refused_unless_all_before_it_were_taken() -> None:
    """Else streams would begin anew although their positions were sent. The first part begins again at any time."""
    async with stage() as s, client(s.daemon.url) as c:
        await s.publish(BTC)
        since = {BTC: {"epoch": (await c.call("getTrades", symbol=BTC))["epoch"], "offset": 0}}

        async def part(number: int, count: int, **params: Any) -> Any:
            params = {"symbol": "*", "since": since} | params
            told = await c.ask("subscribe", part=[number, count], **params)
            return told["error"]["code"] if "error" in told else told["result"]

        many = {BTC: since[BTC] | {"gaps": 1_000 * [[1, 1]]}}
        assert await part(2, 2) == -32000
        another: dict[str, Any] = {"channel": "quality"}
        for number, count, params in ((3, 3, {}), (2, 2, {}), (2, 3, another)):
            assert await part(1, 3) == []
            assert await part(number, count, **params) == -32000  # one is missing, or of another subscription
            assert await part(2, 3) == -32000
        assert await part(1, 3) == []
        assert await part(2, 3, since={BTC: {"epoch": "x", "offset": 1}}) == -32602
        assert await part(3, 3) == -32000  # the one before it was not taken
        for number in range(1, 21):
            assert await part(number, 25, since=many) == []
        assert await part(21, 25) == []  # no gap more
        assert await part(22, 25, since=many) == -32602
        assert await part(23, 25) == -32000
        for nonsense in ([0, 1], [2, 1], [-1, 3], [1], "1", [1, 1, 1]):
            assert (await c.ask("subscribe", symbol="*", part=nonsense))["error"]["code"] == -32602
        assert (await c.ask("subscribe", symbol=BTC, part=[1, 1]))["error"]["code"] == -32602
        assert await part(1, 2) == []
        (answer, *_) = [each for each in await part(2, 2, since={}) if each["symbol"] == BTC]
        assert (answer["recovered"], offsets(answer["trades"])) == (True, [1])


def evolve_sources(settings: Settings, *symbols: str) -> Settings:
    [(name, source)] = settings.sources.items()
    return evolve(settings, sources={name: evolve(source, symbols=symbols)})


async def test_a_symbol_followed_alone_besides_comes_once() -> None:
    """In the format of its own subscription. Each of the two ends by itself, and the other one goes on."""
    async with stage() as s, client(s.daemon.url) as c:
        await c.call("subscribe", symbol="*")
        await s.publish(BTC)
        await c.call("subscribe", symbol=BTC, format="strings")
        await s.publish(BTC)
        await s.publish(ETH)
        await c.until(lambda: len(c.trades()) >= 3)
        await c.call("unsubscribe", symbol=BTC)
        await s.publish(BTC)
        await c.until(lambda: len(c.trades()) >= 4)
        assert [(t["offset"], type(t["price"]) is str) for t in c.trades(BTC)] == [
            (1, False),
            (2, True),
            (3, False),
        ]
        await c.call("subscribe", symbol=BTC)
        await c.call("unsubscribe", symbol="*")
        await s.publish(ETH)
        await s.publish(BTC)
        await c.until(lambda: len(c.trades()) >= 5)
        assert offsets(c.trades(BTC)) == [1, 2, 3, 4]
        assert offsets(c.trades(ETH)) == [1]


async def test_the_quality_of_all_symbols() -> None:
    """The states now, in the answers; then every change. That makes no source deliver anything."""
    async with stage(BTC, eager=False) as s, client(s.daemon.url) as c:
        [answer] = await c.call("subscribe", symbol="*", channel="quality")
        assert answer["quality"]["state"] == "idle"
        async with client(s.daemon.url) as other:
            await other.call("subscribe", symbol=BTC)
            await c.until(lambda: [q["state"] for q in c.of("quality.update")][-1:] == ["quiet"])
        await s.daemon.reload(evolve_sources(s.daemon.hall.settings, BTC, ETH))
        await c.until(lambda: [q["state"] for q in c.of("quality.update") if q["symbol"] == ETH])
        assert c.of("stream.started") == []


async def test_a_crash_of_the_fan_out_repeats_and_skips_nothing() -> None:
    """What was on its way is brought again, to those who do not have it."""
    async with stage() as s, client(s.daemon.url) as c:
        await c.call("subscribe", symbol="*")
        for n in range(1, 6):
            if n in (2, 4):
                s.daemon.sabotage.arm(Point.RECEIVE, f"topics/{EVERY}")
            for symbol in SYMBOLS:
                await s.publish(symbol)
            await c.until(lambda n=n: len(c.trades()) >= 3 * n)
        assert s.daemon.crashes(f"topics/{EVERY}")
        for symbol in SYMBOLS:
            assert offsets(c.trades(symbol)) == [1, 2, 3, 4, 5]


async def test_a_client_that_does_not_read_is_let_go_where_that_is_the_policy() -> None:
    """The entries of all symbols count together; another client goes on."""
    session = Session(outbox=20, slow_client=SlowClient.DISCONNECT)
    async with stage(session=session) as s, client(s.daemon.url) as c:
        await c.call("subscribe", symbol="*")
        wire = await s.client(room=2_000)
        wire.says_now(
            '{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"symbol":"*","format":"compact"}}'
        )
        ended, published = s.daemon.lobby.clients.ended, 0
        while not ended[Ending.SLOW]:  # its subscription may come to be at any time
            for symbol in SYMBOLS:
                await s.publish(symbol)
                published += 1
        await c.until(lambda: len(c.trades()) >= published)


# Whatever a client calls, in whatever order, and however it reads.


@define
class Known:
    """What a client knows of each symbol from all that it was sent, and the rules that must hold."""

    asked: dict[int, tuple[str, Any]] = field(factory=dict)  # calls by id: method, symbol
    answered: list[int] = field(factory=list)
    place: dict[str, int] = field(factory=dict)
    by: dict[str, set[str]] = field(factory=dict)  # the subscriptions that bring a symbol
    numbers: dict[Any, str] = field(factory=dict)  # symbols by what stands for them in arrays
    seen: dict[tuple[str, int], str | None] = field(factory=dict)  # ids of trades by place; None for a gap
    skipped: set[tuple[str, int]] = field(factory=set)  # places that were left out because it was slow

    def take(self, message: Any) -> None:
        if isinstance(message, list) and isinstance(message[0], list | dict):
            for each in message:
                self.take(each)
        elif isinstance(message, list):
            self.move(self.numbers[message[0]], message[1], message[1], message[6])
        elif "id" in message:
            self.answered.append(message["id"])
            self.answer(*self.asked[message["id"]], message["result"])
        elif message["method"] == "trades.update":
            params = message["params"]
            self.move(params["symbol"], params["offset"], params["offset"], params["tradeId"])
        elif message["method"] == "stream.gap":
            params = message["params"]
            self.move(params["symbol"], params["from"], params["to"], None)
            if params["reason"] == "slow_client":
                self.skipped |= {(params["symbol"], n) for n in range(params["from"], params["to"] + 1)}
        elif message["method"] == "stream.filled":
            self.fill(message["params"])

    def move(self, symbol: str, first: int, last: int, trade: str | None) -> None:
        assert self.by.get(symbol), f"{symbol} is not followed"
        assert first == self.place[symbol] + 1, f"{symbol}: {first} behind {self.place[symbol]}"
        self.place[symbol] = last
        self.note(symbol, first, last, trade)

    def note(self, symbol: str, first: int, last: int, trade: str | None) -> None:
        self.seen |= {(symbol, place): trade for place in range(first, last + 1)}

    def fill(self, params: dict[str, Any]) -> None:
        symbol = params["symbol"]
        assert self.by.get(symbol), f"{symbol} is not followed"
        for trade in params["trades"]:
            place, name = (
                (trade[1], trade[6]) if isinstance(trade, list) else (trade["offset"], trade["tradeId"])
            )
            if (symbol, place) in self.seen:
                assert self.seen[symbol, place] in (None, name), f"{symbol} {place} was another trade"
                self.note(symbol, place, place, name)

    def answer(self, method: str, symbol: Any, result: Any) -> None:
        results = result if isinstance(result, list) else [result]
        for each in results:
            if method == "subscribe":
                self.start(each, "*" if symbol == "*" else each["symbol"])
                continue
            for by in self.by.values():
                by.discard(each["symbol"])

    def start(self, result: dict[str, Any], way: str) -> None:
        symbol = result["symbol"]
        self.numbers[result.get("topic", symbol)] = symbol
        followed = self.by.setdefault(symbol, set())
        if not followed:
            self.seen = {place: trade for place, trade in self.seen.items() if place[0] != symbol}
        else:
            assert self.place[symbol] == result["offset"], symbol
        followed.add(way)
        self.place[symbol] = result["offset"]
        for trade in result.get("trades", ()):
            place, name = (
                (trade[1], trade[6]) if isinstance(trade, list) else (trade["offset"], trade["tradeId"])
            )
            self.note(symbol, place, place, name)
        for gap in result.get("gaps", ()):
            self.note(symbol, gap["from"], gap["to"], None)


@pytest.mark.parametrize("policy", [SlowClient.DROP_OLDEST, SlowClient.CONFLATE])
@pytest.mark.parametrize("seed", range(25))
async def test_whatever_is_called_no_place_is_missing_or_told_twice(
    seed: int, policy: SlowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All symbols, lists, single ones over each other, in all formats; a client that reads in fits; dropped updates."""
    monkeypatch.setattr(recovery, "RECOVERY_SLICE", 20)
    dice = random.Random(seed)
    session = Session(outbox=30, outbox_bytes=40_000, slow_client=policy)
    async with stage(session=session, most=150) as s:
        for symbol in SYMBOLS:
            await s.publish(symbol)
        wire, told, serial = await s.client(dice.choice([0, 1000, 20_000])), Known(), 0

        def call(repeats: set[str]) -> dict[str, Any]:
            nonlocal serial
            serial += 1
            method = dice.choice(["subscribe", "subscribe", "unsubscribe"])
            symbol = dice.choice(["*", "*", BTC, ETH, [BTC, ETH], [SOL, BTC]])
            if method == "subscribe" and isinstance(symbol, str) and symbol in repeats:
                symbol = "*"
            repeats.add(str(symbol))
            told.asked[serial] = method, symbol
            params: dict[str, Any] = {"symbol": symbol}
            if method == "subscribe":
                params |= {
                    "format": dice.choice(["json", "compact", "strings"]),
                    "batch": dice.random() < 0.3,
                }
                if dice.random() < 0.5:
                    params["snapshot"] = dice.choice([0, 3, 60])
            return {"jsonrpc": "2.0", "id": serial, "method": method, "params": params}

        for _ in range(40):
            action = dice.random()
            if action < 0.3:
                wire.reads(dice.choice([1, 700, 5000, 20_000]))
            elif action < 0.45:
                wire.says_now(json.dumps(call(set())))
            elif action < 0.55:
                repeats: set[str] = set()
                wire.says_now(json.dumps([call(repeats) for _ in range(dice.randrange(1, 4))]))
            else:
                symbol = dice.choice(SYMBOLS)
                await s.publish(symbol, dice.randrange(1, 30), dice.choice([0, 0, 0, 3]))
                if dice.random() < 0.5:
                    await s.publish_late(symbol)
            if dice.random() < 0.7:
                await wait_all_tasks_blocked()
        wire.reads(ALL)
        await wait_all_tasks_blocked()
        for symbol in SYMBOLS:
            await s.publish(symbol)
        await wait_all_tasks_blocked()
        assert wire.closed is None
        for text in wire.texts:
            told.take(json.loads(text))
        assert len(told.answered) == serial
        for symbol in SYMBOLS:
            if told.by.get(symbol):
                assert told.place[symbol] == s.last[symbol]
                history = s.daemon.core.history(symbol)
                for place, entry in history.places(history.first - 1, 10_000):
                    if (symbol, place) in told.seen and (symbol, place) not in told.skipped:
                        assert told.seen[symbol, place] == getattr(entry, "trade_id", None), (symbol, place)
