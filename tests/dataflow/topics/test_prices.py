"""The channel `prices`: each price of a symbol in its order, of one or of all, and never an old one."""

from __future__ import annotations

import pytest

from dataflow.domain.symbols import ANY
from dataflow.domain.topic import Topic
from dataflow.topics import prices
from dataflow.topics.prices import EVERY, PriceLog
from tests.dataflow.topics.stage import SYMBOLS, Stage, check_log, read_on

BTC, ETH = SYMBOLS


def log_of(stage: Stage, topic: Topic = EVERY) -> PriceLog:
    return stage.make(prices.make).log_of(topic)  # type: ignore[return-value]


def told(log: PriceLog, after: int = 0) -> list[tuple[str, str | None]]:
    return [(trade.symbol, trade.trade_id) for _, trade in read_on(log, after)]


def test_the_log_of_all_symbols_keeps_the_promises_of_a_log() -> None:
    """Whichever symbols grow."""
    stage = Stage()

    def grow(number: int) -> None:
        stage.trade(SYMBOLS[number % 2])
        if number % 3:
            stage.trade(SYMBOLS[0])

    check_log(stage.make(prices.make), EVERY, grow)


def test_each_price_comes_once_and_in_the_order_of_its_symbol() -> None:
    """Gaps take no place: nobody is told of a price that there was not."""
    stage = Stage()
    log = log_of(stage)
    for number in range(1, 9):
        if number in (3, 6):
            stage.hole(BTC)
        stage.trade(ETH if number % 4 == 0 else BTC)
    entries = told(log)
    assert [each for each in entries if each[0] == BTC] == [(BTC, each) for each in "123567"]
    assert [each for each in entries if each[0] == ETH] == [(ETH, each) for each in "48"]
    assert log.last == 8
    stage.hole(BTC)
    assert log.read(8) is None


def test_what_came_before_the_first_reader_is_no_news() -> None:
    """A price has no time: an old one would pass for one of now."""
    stage = Stage()
    stage.trade(BTC)
    log = log_of(stage)
    assert log.last == 0
    stage.trade(BTC)
    stage.trade(ETH)
    position = log.last  # of somebody who comes now
    assert log.read(position) is None
    stage.trade(BTC)
    assert told(log, position) == [(BTC, "4")]


def test_a_symbol_that_comes_to_be_belongs_to_all() -> None:
    """From its first trade on."""
    stage = Stage()
    log = log_of(stage)
    stage.trade(BTC)
    stage.ground.carriers["AAPL"] = [stage.sources["a"]]  # type: ignore[index]
    stage.look(["AAPL", "not configured"])
    stage.trade("AAPL")
    assert told(log) == [(BTC, "1"), ("AAPL", "2")]


def test_a_symbol_that_comes_back_brings_nothing_old() -> None:
    """Its history is still there; only what comes from now on is news."""
    stage = Stage()
    carriers = stage.ground.carriers.pop(BTC)  # type: ignore[attr-defined]
    stage.trade(BTC)
    log = log_of(stage)
    stage.ground.carriers[BTC] = carriers  # type: ignore[index]
    stage.look([BTC])
    stage.trade(BTC)
    assert told(log) == [(BTC, "2")]


def test_one_symbol_alone() -> None:
    """Nothing of the others."""
    stage = Stage()
    log = log_of(stage, Topic("prices", ETH))
    for symbol in (BTC, ETH, BTC, ETH):
        stage.trade(symbol)
    assert told(log) == [(ETH, "2"), (ETH, "4")]


def test_a_reader_far_behind_gets_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log does not grow beyond its bound; where a look finds more than that, of each symbol the newest is taken."""
    monkeypatch.setattr(prices, "KEPT", 10)
    stage = Stage()
    log = log_of(stage)
    for _ in range(100):
        stage.trade(BTC)
    stage.trade(ETH)
    assert told(log) == [(BTC, "100"), (ETH, "101")]
    for number in range(102, 152):
        stage.trade(BTC)
        assert told(log, log.last - 1) == [(BTC, str(number))]
    assert 10 <= len(told(log)) <= 20
    assert told(log)[-1] == (BTC, "151")
    for _ in range(20):
        stage.trade(BTC)
    stage.hole(ETH)
    assert told(log, log.last - 1) == [(BTC, "171")]


def test_the_topic_of_all_symbols_wants_all() -> None:
    """Also those that nobody knows yet."""
    channel = Stage().make(prices.make)
    assert list(channel.wants(EVERY)) == [ANY]
    assert str(EVERY) == "prices:*"
