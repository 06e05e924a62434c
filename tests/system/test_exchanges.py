"""The exchanges that speak here, each simulated, through a real daemon: what it trades, what it repeats, and what it lost.

The simulators write the formats a second time. So a misunderstanding of a format would have to be on both sides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from attrs import field, frozen

from dataflow.connectors import bitstamp, coinbase, gemini, kraken
from dataflow.domain.timestamps import from_rfc3339
from dataflow.sources.port import SourceSettings
from simulators import Exchange, Trade, exchanges
from simulators.exchange import open_exchange
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon

SYMBOL = "BTC-USD"
START_US = 1_700_000_000_000_000
EVERY_US = 250_000


@frozen
class Case:
    """`step`: from one id to the next. `is_proven`: a loss can be filled, by a sequence or by the ids around it."""

    connector: str
    settings: Callable[..., SourceSettings]
    path: str | None = None
    keys: dict[str, Any] = field(factory=dict)
    step: int = 1
    is_proven: bool = True

    def __str__(self) -> str:
        return " ".join([self.connector, *(f"{key}={value}" for key, value in self.keys.items())])


CASES = [
    Case("coinbase", coinbase.Settings),
    Case("kraken", kraken.Settings),
    Case("kraken", kraken.Settings, "/", {"version": 1}, is_proven=False),
    Case("bitstamp", bitstamp.Settings, step=13),
    Case("gemini", gemini.Settings, step=13),
]


@frozen
class Stage:
    """A daemon with one source, its exchange, and a client that follows the symbol."""

    case: Case
    exchange: Exchange
    daemon: Daemon
    client: Client
    name: str  # what the exchange calls the symbol

    def trade(self, n: int) -> Trade:
        """The trade number `n`, from 0."""
        return Trade(
            id=1000 + n * self.case.step,
            symbol=self.name,
            side="buy" if n % 3 else "sell",
            price=f"61837.{n % 10}1",
            qty=f"0.{n + 1:08d}",
            timestamp_us=START_US + n * EVERY_US,
        )

    async def publish(self, begin: int, end: int) -> None:
        await self.exchange.publish_all(map(self.trade, range(begin, end)))

    def told(self) -> list[tuple[Any, ...]]:
        """What the client got: a trade by its number, side, price, quantity and time; or the places of a gap."""
        return [
            (each["side"], each["price"], each["qty"], from_rfc3339(each["timestamp"]) // 1000)
            if "price" in each
            else ("gap", each["from"], each["to"])
            for each in self.client.stream(SYMBOL)
        ]

    def expected(self, *numbers: int) -> list[tuple[Any, ...]]:
        trades = map(self.trade, numbers)
        return [(each.side, Decimal(each.price), Decimal(each.qty), each.timestamp_us) for each in trades]


@asynccontextmanager
async def stage(case: Case, **keys: Any) -> AsyncIterator[Stage]:
    definition = exchanges.find(case.connector)
    async with open_exchange(definition.dialect(frozenset())) as exchange:
        address = exchange.url if case.path is None else exchange.rest_url.replace("http", "ws") + case.path
        source = case.settings(
            connector=case.connector,
            url=address,
            refill_url=exchange.rest_url,
            symbols=(SYMBOL,),
            **(case.keys | keys),
        )
        name = "BTC/USD" if case.connector == "kraken" else source.exchange_name(SYMBOL)
        async with daemon(sources={case.connector: source}) as made, client(made.url) as follower:
            await follower.call("subscribe", symbol=SYMBOL, channel="trades")
            await exchange.wait_subscribed([name])
            yield Stage(case, exchange, made, follower, name)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_trades_arrive_as_they_happened(case: Case) -> None:
    """Every digit, the taker's side, the time, the id and the order, at places without a hole."""
    async with stage(case) as on:
        await on.publish(0, 20)
        await on.client.until(lambda: len(on.told()) == 20)
        assert on.told() == on.expected(*range(20))
        ids = [each.get("tradeId") for each in on.client.trades(SYMBOL)]
        assert ids == (
            [str(on.trade(n).id) for n in range(20)] if case.keys.get("version") != 1 else [None] * 20
        )
        status = await on.client.call("getStatus")
        assert status["sources"][case.connector].get("problems", {}) == {}


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_what_was_missed_is_filled(case: Case) -> None:
    """A connection breaks, 80 trades happen, and the first one behind them finds them gone.

    Where something proves what is missing, the client hears of no gap: it comes in its place. Otherwise a gap of
    unknown length is told.
    """
    async with stage(case, hold=60.0) as on:
        await on.publish(0, 5)
        await on.client.until(lambda: len(on.told()) == 5)
        await on.exchange.disconnect("refuse")
        await on.publish(5, 85)
        await on.exchange.disconnect("accept")
        await on.exchange.wait_subscribed([on.name])
        await on.publish(85, 90)
        wanted = on.expected(*range(90))
        if not case.is_proven:
            wanted = [*wanted[:5], ("gap", 6, None), *wanted[85:]]
        await on.client.until(lambda: len(on.told()) >= len(wanted))
        if case.connector == "bitstamp":  # its REST tells whole seconds
            assert [each[:3] for each in on.told()] == [each[:3] for each in wanted]
            assert all(0 <= due[3] - each[3] < 1_000_000 for each, due in zip(on.told(), wanted, strict=True))
        else:
            assert on.told() == wanted


PROVEN = pytest.mark.parametrize("case", [case for case in CASES if case.is_proven], ids=str)


@PROVEN
async def test_a_lying_answer_is_not_believed(case: Case) -> None:
    """Other prices, two values for an id, another symbol, what nobody asked for: the honest answer comes later."""
    async with stage(case, hold=60.0) as on:
        await on.publish(0, 5)
        await on.client.until(lambda: len(on.told()) == 5)
        lie = on.exchange.fault("rest_lie", times=2)
        await on.exchange.disconnect("refuse")
        await on.publish(5, 85)
        await on.exchange.disconnect("accept")
        await on.exchange.wait_subscribed([on.name])
        await on.publish(85, 90)
        await on.client.until(lambda: len(on.told()) >= 90)
        assert lie.struck == 2
        assert [each[:3] for each in on.told()] == [each[:3] for each in on.expected(*range(90))]


@pytest.mark.parametrize("case", [case for case in CASES if case.step == 1 and case.is_proven], ids=str)
async def test_a_lost_message_is_filled(case: Case) -> None:
    """The connection stays, one message is missing: the next one shows it."""
    async with stage(case, hold=60.0) as on:
        await on.publish(0, 5)
        on.exchange.fault("drop", times=3)
        await on.publish(5, 12)
        await on.client.until(lambda: len(on.told()) == 12)
        assert on.told() == on.expected(*range(12))


async def test_an_announced_end_loses_nothing() -> None:
    """Bitstamp asks for a new connection, and ends the old one later. What happens meanwhile is not missing."""
    (case,) = (each for each in CASES if each.connector == "bitstamp")
    async with stage(case, hold=60.0) as on:
        await on.publish(0, 5)
        await on.client.until(lambda: len(on.told()) == 5)
        await on.exchange.disconnect("announce", 0.05)
        await on.publish(5, 20)
        await on.exchange.wait_subscribed([on.name])
        await on.publish(20, 25)
        await on.client.until(lambda: len(on.told()) == 25)
        assert [each[:3] for each in on.told()] == [each[:3] for each in on.expected(*range(25))]


@PROVEN
async def test_questions_alone_are_enough(case: Case) -> None:
    """Without a WebSocket, asked by HTTP: each trade once, and no gap, also where no sequence proves it."""
    definition = exchanges.find(case.connector)
    async with open_exchange(definition.dialect(frozenset())) as exchange:
        keys = {"symbols": (SYMBOL,), "transport": "rest", "poll_interval": 0.05, "eager": True}
        make = partial(
            case.settings, connector=case.connector, refill_weight=100_000, refill_url=exchange.rest_url
        )
        source = make(url=exchange.url, **(case.keys | keys))
        name = "BTC/USD" if case.connector == "kraken" else source.exchange_name(SYMBOL)
        async with daemon(sources={case.connector: source}) as made, client(made.url) as follower:
            on = Stage(case, exchange, made, follower, name)
            await on.publish(0, 5)
            answer = await follower.call("subscribe", symbol=SYMBOL, channel="trades", snapshot=0)
            for begin, end in ((5, 12), (12, 20)):
                await on.publish(begin, end)
                await until(lambda wanted=end: made.core.history(SYMBOL).last == wanted)
            behind = answer["offset"]
            await follower.until(lambda: len(on.told()) == 20 - behind)
            assert [each[:3] for each in on.told()] == [each[:3] for each in on.expected(*range(behind, 20))]
        assert [event for event in made.events if event.errors] == []


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_an_unknown_symbol_is_refused_alone(case: Case) -> None:
    """The others are subscribed, and the source says which one was refused."""
    definition = exchanges.find(case.connector)
    async with open_exchange(definition.dialect(frozenset())) as exchange:
        address = exchange.url if case.path is None else exchange.rest_url.replace("http", "ws") + case.path
        symbols = ("BTC-USD", "ETH-USD", "NONE-USD")
        make = partial(case.settings, connector=case.connector, refill=False, eager=True)
        source = make(url=address, symbols=symbols, **case.keys)
        async with daemon(sources={case.connector: source}) as made:
            state = made.core.sources[case.connector]
            await until(lambda: state.subscribed_symbols == {"BTC-USD", "ETH-USD"})
            await until(lambda: "NONE-USD" in state.refused_symbols)
