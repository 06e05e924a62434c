"""The channel `trades`: every trade and every gap, for every subscriber."""

from __future__ import annotations

import gc
from decimal import Decimal

from dataflow.cache.recording import Recording
from dataflow.cache.store import Store
from dataflow.cache.tiers import Tiers
from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.topic import TRADES
from dataflow.topics.channel import Channel
from dataflow.topics.trades import PersistedLog, make
from tests.dataflow.topics.stage import AT_ONCE, EPOCH, SYMBOLS, Stage, read_on
from tests.support.memory_archive import MemoryArchive

BTC = Topic(TRADES, SYMBOLS[0])


def played() -> tuple[Stage, Channel]:
    stage = Stage()
    return stage, stage.make(make)


def test_gaps_stand_in_their_places() -> None:
    """A gap is an entry of class `hole`, so it is not counted among the items."""
    stage, channel = played()
    first, _ = stage.trade(), stage.hole()
    second = stage.trade()
    log = channel.log_of(BTC)
    gap = Gap(2, 2, "source_gap", exact=False)
    assert read_on(log, 0) == [(1, first), (2, gap), (3, second)]
    update = log.read(0)
    assert update is not None
    assert update.items == 2


def test_a_run_is_bounded() -> None:
    """A long stream is read in runs of `at_once` entries."""
    stage, channel = played()
    for _ in range(2 * AT_ONCE):
        stage.trade()
    update = channel.log_of(BTC).read(0)
    assert update is not None
    assert len(update.places) == AT_ONCE


async def test_the_past_of_a_position_is_complete() -> None:
    """Up to the limit; for another epoch or a longer past it is what there is, from its beginning."""
    stage, channel = played()
    trades = [stage.trade() for _ in range(4)]
    log = channel.log_of(BTC)
    assert [trade for _, trade in log.newest(2)] == trades[2:]
    assert log.resume(EPOCH, 1, 10)[:2] == (True, 1)
    assert log.resume(EPOCH, 1, 2)[:2] == (False, 2)
    assert log.resume(EPOCH - 1, 1, 10)[:2] == (False, 0)
    assert log.behind(1, 10) == [(2, trades[1]), (3, trades[2]), (4, trades[3])]
    assert log.behind(2, 1) == [(3, trades[2])]


async def test_a_symbol_may_come_into_being_while_its_log_is_read() -> None:
    """The log is empty until then, and has every trade of it from the first one on."""
    stage, channel = played()
    topic = Topic(TRADES, "NEW")
    log = channel.log_of(topic)
    assert (log.last, log.read(0), log.newest(5), log.behind(0, 5)) == (0, None, (), ())
    assert log.resume(EPOCH, 3, 10)[:2] == (False, 0)
    assert isinstance(stage.ground.carriers, dict)
    stage.ground.carriers["NEW"] = [stage.sources["a"]]
    trades = [stage.trade("NEW") for _ in range(AT_ONCE + 1)]
    assert channel.log_of(topic) is log
    places = list(enumerate(trades, 1))
    assert read_on(log, 0) == log.newest(10) == log.behind(0, 10) == places
    assert log.resume(EPOCH, 1, 10)[:2] == (True, 1)
    del log
    gc.collect()
    assert read_on(channel.log_of(topic), 0) == places


def test_nothing_is_kept_of_a_symbol_that_does_not_exist() -> None:
    """Clients can name any number of them."""
    stage, channel = played()
    for number in range(5):
        assert channel.log_of(Topic(TRADES, f"NO{number}")).last == 0
    gc.collect()
    assert len(channel._expected) == 0  # type: ignore[attr-defined]
    assert stage.store._histories == {}


def test_the_state_of_a_source_is_no_entry() -> None:
    """Trades are the same in any state of their source."""
    stage, channel = played()
    stage.sources["a"].up([])
    assert channel.log_of(BTC).last == 0
    assert stage.news == []


def test_a_topic_wants_its_symbol() -> None:
    """The sources must deliver it."""
    _stage, channel = played()
    assert set(channel.wants(BTC)) == {BTC.symbol}


async def test_after_commit_a_log_ends_at_the_last_place_on_disk() -> None:
    """However a run lies across it; the newest trades are those before it."""
    store, archive = Store(EPOCH, 1000, 1e9), MemoryArchive()
    recording = Recording(store.history, archive, EPOCH, after_commit=True)
    log = PersistedLog(BTC, store.history(BTC.symbol), 100, Tiers(archive, store.history), recording)
    trades = [
        Trade("a", BTC.symbol, str(n), "buy", Decimal(n), Decimal(1), n * 1000, n) for n in range(1, 10)
    ]
    store.admit(trades[:5], 0.0)
    recording.news(BTC.symbol)
    batch = recording.batch(recording.runs())
    archive.append(batch)
    store.admit(trades[5:], 0.0)
    recording.written(batch)
    assert log.last == 5
    for after in range(5):
        written = [*enumerate(trades[:5], 1)][after:]
        assert read_on(log, after) == list(log.behind(after, 100)) == written
        assert list(log.newest(5 - after)) == written
    assert log.read(5) is None
