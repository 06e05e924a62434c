"""The load: rates are differences of counters, fade, and know no gap; the series is bounded, and has holes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from actors.subscription import Fanout
from dataflow.app import hall
from dataflow.connectors import binance
from dataflow.domain import Topic, Trade
from dataflow.gateway.hall import Hall
from dataflow.gateway.load import EVERY, KEPT, Load
from dataflow.ops.load import LoadProbe
from dataflow.settings.schema import Settings
from dataflow.topics.topics import _Opened
from supervisors import Context

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SYMBOLS = ("BTC-USDT", "ETH-USDT")


class Process:
    """The figures of a process."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.memory: int | None = 1000


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def built(process: Process) -> Hall:
    """A daemon of which nothing runs."""
    source = binance.Settings(
        connector="binance", url="wss://a/stream", symbols=SYMBOLS, refill=False
    )  # so gaps are told at once
    built = hall(Settings(sources={"binance": source}))
    load = Load(built.core, built.lobby.clients, lambda: process.cpu, lambda: process.memory)
    built.load = built.desk._load = load
    return built


def admit(built: Hall, symbol: str, *ids: int) -> None:
    """Trades with these ids; one that is left out is a gap."""
    for n in ids:
        trade = Trade("binance", symbol, str(n), "buy", Decimal(n), Decimal(1), START + n * SECOND, n)
        built.core.history(symbol).admit(trade, trio.current_time())
    built.core.sources["binance"].received(len(ids), 0)


async def seconds(built: Hall, clock: MockClock, count: float) -> None:
    """So many seconds with a look at the end of each."""
    for _ in range(int(count / EVERY)):
        clock.jump(EVERY)
        await built.load.look()


async def test_a_rate_is_the_mean_of_the_last_ten_seconds_and_fades(
    built: Hall, mock_clock: MockClock
) -> None:
    """30 trades of one symbol, and none after that: 3 a second while they are in the window, then 0."""
    await built.load.look()
    admit(built, "BTC-USDT", *range(1, 31))
    await seconds(built, mock_clock, 10)
    (bitcoin, ether), status = [info async for info in built.desk.symbols()], built.desk.status()
    assert (bitcoin.rate, ether.rate, status.rate) == (3.0, 0.0, 3.0)
    assert status.sources["binance"].delivered.rate == 3.0
    await seconds(built, mock_clock, 1)
    assert (built.desk.symbol("BTC-USDT").rate, built.desk.status().rate) == (0.0, 0.0)
    assert built.desk.status().sources["binance"].delivered.rate == 0.0


async def test_a_gap_is_no_trade(built: Hall, mock_clock: MockClock) -> None:
    """1,000 trades are missing between two: they have places, and are not in the rate. The offset has them."""
    await built.load.look()
    admit(built, "BTC-USDT", 1, 1002)
    await seconds(built, mock_clock, 10)
    told = built.desk.symbol("BTC-USDT")
    assert (told.offset, told.rate) == (1002, 0.2)


async def test_a_symbol_that_comes_later_counts_from_its_first_trade(
    built: Hall, mock_clock: MockClock
) -> None:
    """Nobody looked at it before its first trades: they count all the same, in its rate as in that of all."""
    await built.load.look()
    await seconds(built, mock_clock, 5)
    admit(built, "ETH-USDT", *range(1, 51))
    await seconds(built, mock_clock, 5)
    assert (built.desk.symbol("ETH-USDT").rate, built.desk.status().rate) == (5.0, 5.0)


async def test_a_source_that_comes_back_has_not_delivered_all_at_once(
    built: Hall, mock_clock: MockClock
) -> None:
    """Its counter went on where it was when it was removed: what it delivered before is not of now."""
    source = built.core.sources["binance"]
    source.received(5000, 0)
    built.core.sources = {}
    await built.load.look()
    await seconds(built, mock_clock, 20)
    built.core.sources = {"binance": source}
    await seconds(built, mock_clock, 1)
    assert built.load.of_source("binance") == 0.0
    source.received(4, 0)
    await seconds(built, mock_clock, 2)
    assert built.load.of_source("binance") == 2.0


async def test_the_age_of_a_symbol_is_that_of_its_newest_trade(built: Hall, mock_clock: MockClock) -> None:
    """In seconds since it came here; unknown before the first."""
    assert built.desk.symbol("BTC-USDT").last_age is None
    admit(built, "BTC-USDT", 1)
    mock_clock.jump(2.5)
    assert built.desk.symbol("BTC-USDT").last_age == 2.5


async def test_the_series_has_a_sample_a_second_and_a_hole_where_nobody_looked(
    built: Hall, process: Process, mock_clock: MockClock
) -> None:
    """The sample behind a hole is the mean of all that time. Where memory is not known it is null."""
    await built.load.look()
    built.core.lag.add(0.25, trio.current_time())
    process.cpu, process.memory = 0.5, None
    admit(built, "BTC-USDT", *range(1, 11))
    await seconds(built, mock_clock, 1)
    admit(built, "BTC-USDT", *range(11, 19))
    mock_clock.jump(4 * EVERY)
    await built.load.look()
    first, *holes, last = built.load.samples(KEPT)
    assert first is not None
    assert (first.cpu, first.memory, first.loop_lag, first.trades) == (0.5, None, 0.25, 10.0)
    assert holes == [None, None, None]
    assert last is not None
    assert (last.cpu, last.loop_lag, last.trades, last.sessions) == (0.0, 0.0, 2.0, 0)
    assert built.load.samples(2) == [None, last]


async def test_all_that_is_kept_has_a_bound(built: Hall, mock_clock: MockClock) -> None:
    """A loop that stood still for a day makes no more holes than there is room for samples."""
    await built.load.look()
    mock_clock.jump(86_400)
    await built.load.look()
    await seconds(built, mock_clock, 20)
    assert len(built.load.samples(2 * KEPT)) == KEPT
    assert len(built.load._looks) <= 11


async def test_a_topic_has_the_rate_of_its_entries(built: Hall, mock_clock: MockClock) -> None:
    """Those of trades have that of the trades, without gaps; the most active comes first, and `total` counts all."""
    topics = [Topic("trades", "BTC-USDT"), Topic("quality", "BTC-USDT"), Topic("trades", "*")]
    for topic in topics:
        log: Any = built.core.topics.log_of(topic)
        built.core.topics._opened[topic] = _Opened(Fanout(topic, log, log.stream))
    await built.load.look()
    admit(built, "BTC-USDT", 1, 11)
    admit(built, "ETH-USDT", *range(1, 9))
    quality: Any = built.core.topics.log_of(topics[1])
    quality.last += 5
    await seconds(built, mock_clock, 10)
    told = built.desk.topics(2)
    assert (told.total, [(each.topic, each.rate) for each in told.topics]) == (
        3,
        [(topics[2], 1.0), (topics[1], 0.5)],
    )
    assert [(each.rate, each.offset) for each in built.desk.topics().topics if each.topic == topics[0]] == [
        (0.2, 11)
    ]


async def test_a_new_incarnation_of_the_probe_goes_on(built: Hall, mock_clock: MockClock) -> None:
    """A crash of the actor costs no sample that was taken, and adds none out of turn."""
    mock_clock.autojump_threshold = 0
    for _ in range(2):
        with trio.move_on_after(3.5 * EVERY):
            await LoadProbe(built.load).run(cast(Context, Silent()))
    assert len(built.load.samples(KEPT)) == 6
    assert None not in built.load.samples(KEPT)


class Silent:
    """All that the probe asks of its context."""

    def ready(self) -> None:
        pass
