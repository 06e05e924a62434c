"""What a history shows of the life of a source: its newest trade, who brought it, and what is missing."""

from __future__ import annotations

from decimal import Decimal

from dataflow.cache.store import Store
from dataflow.domain import Item, Missed, Refilled, Trade

SYMBOL = "BTC-USD"


def trade(number: int, source: str = "a") -> Trade:
    return Trade(source, SYMBOL, str(number), "buy", Decimal(1), Decimal(1), number * 10**9, number)


def offered(*items: Item, at: float = 0.0) -> Store:
    store = Store(1, 1000, 1e9)
    for number, item in enumerate(items):
        store.admit([item], at + number)
    return store


def test_each_source_has_its_newest_trade() -> None:
    """None before the first."""
    log = offered(trade(1), trade(7, "b")).history(SYMBOL)
    assert (log.newest_of("a"), log.newest_of("b"), log.newest_of("c")) == (trade(1), trade(7, "b"), None)


def test_an_answer_is_told_from_the_stream() -> None:
    """Until the next trade of the stream. One that only repeats what is known changes nothing."""
    store = offered(trade(1))
    log = store.history(SYMBOL)
    assert not log.is_answer("a")
    store.admit([Refilled("a", SYMBOL, (trade(1), trade(2), trade(3)))], 1.0)
    assert log.newest_of("a") == trade(3)
    assert log.is_answer("a")
    store.admit([trade(4)], 2.0)
    assert not log.is_answer("a")
    store.admit([Refilled("a", SYMBOL, (trade(3), trade(4)))], 3.0)
    assert not log.is_answer("a")
    assert not log.is_answer("b")


def test_missing_places_count_for_the_source_that_lacks_them() -> None:
    """An exact gap as many as it has, an inexact one for the source of the trade behind it; with their time."""
    store = offered(
        *(trade(1), trade(1, "b"), trade(5), Missed("b", SYMBOL, "source_gap"), trade(9, "b"), trade(6))
    )
    log = store.history(SYMBOL)
    assert log.missing_of("a") == (3, 2.0)
    assert log.missing_of("b")[0] == 7
    assert log.missing_of("c")[0] == 0
    store.admit([trade(2), trade(3), trade(4)], 9.0)
    assert log.missing_of("a")[0] == 0
