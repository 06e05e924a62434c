"""The desk: questions are answered in values, and a wrong name or value says what would be right."""

from __future__ import annotations

from decimal import Decimal
from difflib import get_close_matches
from typing import Any

import pytest
import trio

from dataflow.app import hall
from dataflow.connectors import binance, blockchain
from dataflow.domain import Recorded, Topic, Trade
from dataflow.domain.quality import Grade
from dataflow.gateway.desk import COMPARED, MAX_COUNT, Desk, check_range
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue, Unavailable
from dataflow.settings.schema import Settings

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SOURCES = {
    "binance": binance.Settings(connector="binance", url="wss://a/stream", symbols=("BTC-USDT", "ETH-USDT")),
    "blockchain": blockchain.Settings(
        connector="blockchain", url="wss://b/", symbols=("BTC-USD", "BTC-USDT")
    ),
}


@pytest.fixture
def built() -> Hall:
    """A daemon of which nothing runs."""
    return hall(Settings(sources=SOURCES))


@pytest.fixture
def desk(built: Hall) -> Desk:
    return built.desk


async def admit(built: Hall, symbol: str, count: int) -> None:
    """`count` trades with the ids and places 1 to `count`, one a second."""
    for n in range(1, count + 1):
        trade = Trade("binance", symbol, str(n), "buy", Decimal(n), Decimal(1), START + n * SECOND, n)
        built.core.history(symbol).admit(trade, trio.current_time())


def places(trades: list[Recorded]) -> list[int]:
    return [recorded.offset for recorded in trades]


async def test_symbols_in_alphabetical_order_each_with_its_sources(built: Hall, desk: Desk) -> None:
    """Every symbol that a source carries, with its newest trade when there is one."""
    await admit(built, "BTC-USDT", 3)
    found = {info.symbol: info async for info in desk.symbols()}
    assert list(found) == ["BTC-USD", "BTC-USDT", "ETH-USDT"]
    both = found["BTC-USDT"]
    assert both.sources == ["binance", "blockchain"]
    assert both.channels == ["candles", "quality", "trades"]
    assert both.newest is not None
    assert (both.newest.offset, both.newest.trade.price) == (3, Decimal(3))
    assert found["ETH-USDT"].newest is None


async def test_others_have_their_turn_while_all_symbols_are_told(
    built: Hall, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands, and each page asks for all. One that leaves meanwhile is not told."""
    monkeypatch.setattr("dataflow.gateway.desk.LISTED_AT_ONCE", 1)
    told: list[str] = []

    async def remove_the_last() -> None:
        assert len(told) < 3
        del built.core.carriers["ETH-USDT"]

    async with trio.open_nursery() as nursery:
        async for info in desk.symbols():
            if not told:
                nursery.start_soon(remove_the_last)
            told.append(info.symbol)
    assert told == ["BTC-USD", "BTC-USDT"]


async def test_the_status_of_a_symbol_is_that_of_its_best_source(built: Hall, desk: Desk) -> None:
    """One source is connected, the other one is not."""
    built.core.sources["blockchain"].up(())
    built.core.sources["binance"].down("cut")
    found = {info.symbol: info async for info in desk.symbols()}
    assert {symbol: info.status for symbol, info in found.items()} == {
        "BTC-USD": "idle",
        "BTC-USDT": "idle",
        "ETH-USDT": "lost",
    }
    grades = {quality.source: (quality.state, quality.reason) for quality in found["BTC-USDT"].quality}
    assert grades == {"binance": (Grade.LOST, "cut"), "blockchain": (Grade.IDLE, None)}
    assert desk.quality("BTC-USDT") == found["BTC-USDT"].quality


async def test_the_status_of_the_daemon(built: Hall, desk: Desk) -> None:
    """Sources with their states and counts, clients, and the epoch."""
    binance_state = built.core.sources["binance"]
    binance_state.down("cut")
    binance_state.problem("bad_price", "x")
    status = desk.status()
    assert list(status.sources) == ["binance", "blockchain"]
    source = status.sources["binance"]
    assert (source.state, source.reason, source.connector) == ("lost", "cut", "binance")
    assert source.since == int(binance_state.since * 1e9)
    assert source.problems == {"bad_price": 1}
    assert (status.sessions, status.waiting) == (0, {"served": 0, "resuming": 0, "new": 0})
    assert status.epoch == built.core.epoch
    assert status.uptime >= 0


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, [20, 19, 18]),
        ({"before": START + 10 * SECOND}, [9, 8, 7]),
        ({"after": START + 10 * SECOND}, [11, 12, 13]),
        ({"after": START + 10 * SECOND, "before": START + 13 * SECOND}, [11, 12]),
        ({"after": START + 20 * SECOND}, []),
        ({"before": START}, []),
    ],
)
async def test_recent_trades(built: Hall, desk: Desk, question: dict[str, Any], expected: list[int]) -> None:
    """Newest first, after a time oldest first; both limits are outside the answer."""
    await admit(built, "BTC-USDT", 20)
    assert places(await desk.recent_trades("BTC-USDT", 3, **question)) == expected


async def test_recent_trades_of_a_symbol_without_any(desk: Desk) -> None:
    """An empty answer, no problem."""
    assert await desk.recent_trades("ETH-USDT", 50) == []


@pytest.mark.parametrize("count", [-1, 0, MAX_COUNT + 1])
async def test_a_wrong_count_is_told_the_range(desk: Desk, count: int) -> None:
    """The problem has the parameter, its value and what would be right."""
    with pytest.raises(InvalidValue) as caught:
        await desk.recent_trades("BTC-USDT", count)
    assert caught.value.data == {"param": "count", "value": count, "problem": "must be 1 to 1000"}


@pytest.mark.parametrize("value", [1, 2, 3])
def test_a_range_includes_its_ends(value: int) -> None:
    """No problem at either end."""
    check_range("count", value, 1, 3)


@pytest.mark.parametrize(
    ("written", "nearest"),
    [("BTC-USDTT", "BTC-USDT"), ("btc-usd", "BTC-USD"), ("ETHUSDT", "ETH-USDT"), ("eth", "ETH-USDT")],
)
async def test_an_unknown_symbol_is_told_the_nearest(desk: Desk, written: str, nearest: str) -> None:
    """Also when only the case is wrong: a symbol has one spelling."""
    for channel in ("trades", None):
        with pytest.raises(InvalidValue) as caught:
            desk.topic(channel, written) if channel else await desk.recent_trades(written, 1)
        data = caught.value.data
        assert (data["param"], data["value"], data["problem"]) == ("symbol", written, "unknown symbol")
        assert data["nearest"][0] == nearest


@pytest.mark.parametrize("written", ["", "???", "x" * 10_000])
async def test_a_symbol_that_resembles_none_is_told_some(desk: Desk, written: str) -> None:
    """At most five, so that the answer stays short."""
    with pytest.raises(InvalidValue) as caught:
        desk.check_symbol(written)
    assert caught.value.data["nearest"] == ["BTC-USD", "BTC-USDT", "ETH-USDT"]


async def test_a_topic_by_channel_and_symbol(desk: Desk) -> None:
    """An unknown channel is told the valid ones."""
    assert desk.topic("trades", "BTC-USD") == Topic("trades", "BTC-USD")
    assert desk.topic("quality", "BTC-USD") == Topic("quality", "BTC-USD")
    with pytest.raises(InvalidValue) as caught:
        desk.topic("quotes", "BTC-USD")
    assert caught.value.data == {
        "param": "channel",
        "value": "quotes",
        "problem": "unknown channel",
        "valid": ["candles", "quality", "trades"],
    }


async def test_a_topic_is_unavailable_when_every_source_refuses_its_symbol(built: Hall, desk: Desk) -> None:
    """One source that does not refuse is enough. Quality needs no source."""
    trades, quality = Topic("trades", "BTC-USDT"), Topic("quality", "BTC-USDT")
    for name in ("binance", "blockchain"):
        desk.check_available(trades)
        built.core.sources[name].interest.want("BTC-USDT", object())
        built.core.sources[name].refused("BTC-USDT", "no such market")
    with pytest.raises(Unavailable) as caught:
        desk.check_available(trades)
    assert caught.value.data == {
        "symbol": "BTC-USDT",
        "rejected": {"binance": "no such market", "blockchain": "no such market"},
    }
    desk.check_available(quality)


def test_a_symbol_is_found_by_what_clients_of_other_systems_write(built: Hall, desk: Desk) -> None:
    """With or without its dashes, in any case; nothing is cut by guess."""
    for written in ("BTC-USDT", "BTCUSDT", " btcusdt ", "Btc-Usdt"):
        assert desk.find(written) == desk.canonical(written) == "BTC-USDT"
    assert desk.find("BTC-USD-T") is None
    assert desk.find("") is None
    assert desk.compact("BTC-USDT") == "BTCUSDT"


def test_the_name_of_a_symbol_that_does_not_exist(desk: Desk) -> None:
    """It would be called so. What no symbol can be called is refused, and not repeated at length."""
    assert desk.canonical(" aapl ") == "AAPL"
    assert desk.canonical("X:Y") == "X:Y"
    for written in ("", " ", "a b", "a/b", "*", "\0", "x" * 65, "ß" * 40, "y" * 10_000):
        with pytest.raises(InvalidValue) as refused:
            desk.canonical(written)
        assert len(refused.value.data["value"]) <= 65


async def test_an_aggregate_is_of_a_symbol_with_trades(built: Hall, desk: Desk) -> None:
    """None else, and never zeros."""
    assert desk.aggregate("BTC-USDT") is None
    assert desk.aggregate("AAPL") is None
    await admit(built, "BTC-USDT", 3)
    found = desk.aggregate("BTC-USDT")
    assert found is not None
    assert (found.open, found.high, found.low, found.close, found.volume, found.count) == (1, 3, 1, 3, 3, 3)
    assert (found.timestamp, found.offset) == (START + 3 * SECOND, 3)


def test_the_topic_of_a_symbol_that_does_not_exist(built: Hall, desk: Desk) -> None:
    """Nobody refuses it, and asking leaves nothing."""
    topic = desk.day_topic("AAPL")
    desk.check_available(topic)
    assert not desk.owes_every_entry(topic)
    assert [store.symbols() for store in built.core.stores] == [[], []]


async def test_aggregates_are_no_channel_for_clients(desk: Desk) -> None:
    """Faces ask for them in ways of their own."""
    with pytest.raises(InvalidValue) as refused:
        desk.topic("days", "BTC-USDT")
    assert refused.value.data["valid"] == ["candles", "quality", "trades"]
    async for info in desk.symbols():
        assert info.channels == ["candles", "quality", "trades"]


def test_a_wrong_symbol_costs_little_among_thousands(
    desk: Desk, built: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compared with few, its neighbours: a client could keep the daemon busy with guesses."""
    compared: list[int] = []

    def count(name: str, symbols: list[str], **more: Any) -> list[str]:
        compared.append(len(symbols))
        return get_close_matches(name, symbols, **more)

    monkeypatch.setattr("dataflow.gateway.desk.difflib.get_close_matches", count)
    built.core.carriers.update({f"{first}{n}": [] for first in "ABX" for n in range(500)})
    for name, near in (("X1000", "X100"), ("btc-usd!", "BTC-USD"), ("?", "A0")):
        with pytest.raises(InvalidValue) as refused:
            desk.check_symbol(name)
        assert near in refused.value.data["nearest"]
    assert max(compared) <= COMPARED
