"""A start from what is on disk: epochs, places, and what each source has given before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dataflow.cache import recorder
from dataflow.cache.archive import Batch, Contents, Keep, Run
from dataflow.cache.history import AHEAD, History, shared
from dataflow.cache.holding import Holds
from dataflow.cache.recorder import Habits, Recorder, warm
from dataflow.cache.recording import FEEDS, FEEDS_EVERY, Recording
from dataflow.cache.store import Store
from dataflow.cache.verdict import Verdict
from dataflow.domain import Gap, Item, Missing, Refilled, Trade
from supervisors import Child, Supervisor, open_supervisor
from tests.support.memory_archive import MemoryArchive
from tests.support.waiting import until

from .items import US, missed, sequenced, trade

SYMBOL = "BTC-USD"
EPOCH = 7
NEVER_OLD = 1e9


class Life:
    """One life of a daemon with this archive."""

    def __init__(self, archive: MemoryArchive, number: int = EPOCH, max_trades: int = 10_000) -> None:
        self.archive = archive
        self.recording = Recording(self.history, archive, number)
        self.store = Store(self.recording.epoch, max_trades, NEVER_OLD, streams=self.recording.streams)
        trio.run(self._warm)

    async def _warm(self) -> None:
        await warm(self.recording, self.history)

    def history(self, symbol: str = SYMBOL) -> History:
        return self.store.history(symbol)

    def admit(self, *items: Item) -> list[Verdict]:
        return [self.history(item.symbol).admit(item, 0.0) for item in items]

    def write(self) -> None:
        self.recording.news(SYMBOL)
        while self.recording.waits:
            batch = self.recording.batch(self.recording.runs())
            self.archive.append(batch)
            self.recording.written(batch)

    def ends(self, *, clean: bool = True) -> None:
        if clean:
            self.write()
        self.archive.close(clean)


def places(log: History) -> list[tuple[int, Trade | Gap]]:
    return log.places(log.first - 1, 1 << 40)


def test_after_a_clean_end_the_epoch_goes_on() -> None:
    """Memory is as it was, and the next place follows."""
    archive = MemoryArchive()
    first = Life(archive)
    first.admit(sequenced(1), sequenced(4))
    first.ends()
    second = Life(archive, EPOCH + 1)
    assert second.recording.epoch == second.history().epoch == EPOCH
    assert places(second.history()) == places(first.history())
    second.admit(sequenced(5))
    assert second.history().last == 5


def test_after_a_death_a_new_epoch_begins_behind_what_is_stored() -> None:
    """Positions up to there are shared with the old epoch, and those behind it are not."""
    archive = MemoryArchive()
    first = Life(archive)
    first.admit(sequenced(1), sequenced(2))
    first.write()
    first.admit(sequenced(3))
    first.ends(clean=False)
    second = Life(archive, EPOCH + 1)
    log = second.history()
    assert (log.epoch, log.last) == (EPOCH + 1, 2)
    assert log.resume(EPOCH, 2, 100).is_known
    assert log.resume(EPOCH, 3, 100) == (False, 2, 2)
    second.ends(clean=False)
    assert Life(archive, 0).recording.epoch == EPOCH + 2, "the number of a start may be lower: a wrong clock"


def test_an_epoch_is_good_up_to_the_earliest_place_where_a_later_one_began() -> None:
    """Also when the stream fell back behind an earlier fork: damage had taken the end of what was stored."""
    assert shared([(1, 1), (2, 11), (3, 16)]) == {1: 10, 2: 15}
    assert shared([(1, 1), (2, 11), (3, 6)]) == {1: 5, 2: 5}


def test_after_damage_a_new_epoch_begins() -> None:
    """Though the last daemon ended in order: the lost end of a stream must not be given away again."""

    class Damaged(MemoryArchive):
        def open(self) -> Contents:
            return attrs.evolve(super().open(), damage=["2026-11-27.db: set aside"])

    archive = Damaged()
    first = Life(archive)
    first.admit(sequenced(1))
    first.ends()
    second = Life(archive, EPOCH + 1)
    assert second.recording.epoch == EPOCH + 1
    assert second.recording.troubles(0, 1) == ["history: 2026-11-27.db: set aside"]


def test_what_an_upstream_repeats_is_recognised() -> None:
    """With and without a sequence; what is missing between is an exact gap, or an inexact one."""
    archive = MemoryArchive()
    first = Life(archive)
    first.admit(
        *(sequenced(n) for n in range(1, 6)), *(trade(f"x{n}", n * US, source="b") for n in range(1, 6))
    )
    first.ends()
    second = Life(archive)
    assert set(second.admit(*(sequenced(n) for n in range(2, 6)))) == {Verdict.DUPLICATE}
    assert second.admit(sequenced(8)) == [Verdict.ADMITTED]
    assert second.admit(missed("b", resubscribed=True), trade("x5", 5 * US, source="b")) == [
        Verdict.NOTED,
        Verdict.DUPLICATE,
    ]
    assert second.admit(trade("x6", 6 * US, source="b")) == [Verdict.ADMITTED]
    assert (
        second.admit(missed("b", resubscribed=True), trade("x9", 9 * US, source="b"))[1] is Verdict.ADMITTED
    )
    gaps = [entry for _, entry in places(second.history()) if isinstance(entry, Gap)]
    assert [(gap.first, gap.last, gap.exact) for gap in gaps] == [(11, 12, True), (15, 15, False)]


async def test_gaps_from_long_before_the_start_can_be_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie before what is loaded. Each is asked for, once, and filled at its exact places, also on disk."""
    monkeypatch.setattr(recorder, "LOADED", 10)
    archive = MemoryArchive()
    first = History(EPOCH, 10_000, NEVER_OLD)
    told: list[Missing] = []
    for number in (*range(1, 50), *range(53, 400), *range(401, 460), 463, 464):
        first.admit(sequenced(number), 0.0)
        first.admit(trade(f"b{number}", number * US, source="b"), 0.0)
    archive.open()
    archive.begin(EPOCH)
    archive.append(Batch([Run.of(SYMBOL, first.places(0, 1 << 40))]))
    archive.close(True)
    store: Store
    recording = Recording(lambda symbol: store.history(symbol), archive, EPOCH)
    store = Store(
        recording.epoch,
        10_000,
        NEVER_OLD,
        staged=recording.fills,
        streams=recording.streams,
        holds=Holds(missing=told.append),
    )
    async with recorded(recording, store):
        await until(lambda: len(told) == 3)
        assert [(each.first, each.last) for each in told] == [(460, 462), (400, 400), (50, 52)]
        assert told[1].after == sequenced(399)
        assert told[1].before == sequenced(401)
        answer = Refilled("a", SYMBOL, tuple(sequenced(each) for each in (50, 51, 52, 400, 461)))
        store.admit([answer], 0.0)
        await until(lambda: not store.history(SYMBOL).has_staged)
    stored = dict(archive.behind(SYMBOL, 0, 1 << 40))
    assert store.counts["a", "filled"] == 5
    found = {entry.sequence for entry in stored.values() if isinstance(entry, Trade) and entry.source == "a"}
    assert found == set(range(1, 465)) - {460, 462}
    shown = [entry for entry in stored.values() if isinstance(entry, Gap)]
    assert [gap.sequence for gap in shown] == [460, 462]
    assert store.history(SYMBOL).reopen([(sequenced(399), gap_of(400), sequenced(401))]) == 0, (
        "a new numbering"
    )


def gap_of(number: int) -> Gap:
    return Gap(number, number, "source_gap", True, "a", number + 500)


@asynccontextmanager
async def recorded(recording: Recording, store: Store) -> AsyncIterator[None]:
    habits = Habits(0.01, Keep(7, 0, 0), drops_oldest=True)
    actor = Child("recorder", lambda: Recorder(recording, store.history, habits, lambda: 1.0))
    async with open_supervisor(Supervisor(children=(actor,)), blocked_after=None):
        yield


def test_a_source_keeps_its_sequence_however_long_ago_its_newest_trade_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It lies before the places that are loaded. So the loss of its next trades is still exact."""
    monkeypatch.setattr(recorder, "LOADED", 10)
    archive = MemoryArchive()
    first = Life(archive)
    first.admit(sequenced(100, source="quiet"))
    for n in range(1, 3 * FEEDS_EVERY):
        first.admit(sequenced(n))
        if n % 7 == 0:
            first.write()
    first.admit(sequenced(101, source="quiet"))
    first.admit(*(sequenced(n) for n in range(3 * FEEDS_EVERY, 3 * FEEDS_EVERY + 50)))
    first.ends()
    second = Life(archive)
    assert len(places(second.history())) == 10
    assert second.admit(sequenced(101, source="quiet"))[0] is not Verdict.ADMITTED
    second.admit(sequenced(104, source="quiet"))
    gap = places(second.history())[-2][1]
    assert isinstance(gap, Gap)
    assert (gap.last - gap.first + 1, gap.exact, gap.sequence) == (2, True, 102)


def test_a_checkpoint_of_places_that_are_lost_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows trades that nobody has any more. They may come again, or not: a gap tells of them."""
    monkeypatch.setattr(recorder, "LOADED", 2)
    archive = MemoryArchive()
    first = Life(archive)
    first.admit(sequenced(4999, source="quiet"), *(sequenced(n) for n in range(1, 2 * FEEDS_EVERY)))
    first.admit(sequenced(5000, source="quiet"))
    first.write()
    last = first.history().last
    assert archive.checkpoints(FEEDS)[SYMBOL].position == last
    first.ends(clean=False)
    archive.lose(SYMBOL, last, last)
    second = Life(archive)
    assert second.history().last == last - 1
    assert second.admit(sequenced(5001, source="quiet")) == [Verdict.ADMITTED]
    gap = places(second.history())[-2][1]
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.exact) == ("not_recorded", False), "nobody knows how many are missing"


def test_a_trade_that_may_have_been_admitted_before_the_loaded_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a sequence nobody can tell. One wrong date in the past refuses an hour's trades at most."""
    monkeypatch.setattr(recorder, "LOADED", 2)
    archive = MemoryArchive()
    first = Life(archive)
    first.admit(trade("far", 10 * AHEAD), *(trade(f"x{n}", n * US) for n in range(1, 6)))
    first.ends()
    second = Life(archive)
    assert second.admit(trade("x5", 5 * US), trade("x3", 3 * US)) == [Verdict.DUPLICATE, Verdict.TOO_OLD]
    assert second.admit(trade("later", 5 * US + AHEAD + 1)) == [Verdict.ADMITTED]
    assert second.admit(trade("new", 4 * US, source="other")) == [Verdict.TOO_OLD], (
        "no checkpoint tells the sources"
    )


def test_places_that_were_lost_on_disk_are_a_gap_in_memory() -> None:
    """In the midst and at the end: no reader sees a hole without a word."""
    archive = MemoryArchive()
    first = Life(archive)
    first.admit(*(sequenced(n) for n in range(1, 11)))
    first.ends()
    archive.lose(SYMBOL, 4, 5)
    log = Life(archive).history()
    assert [entry for _, entry in places(log) if isinstance(entry, Gap)] == [Gap(4, 5, "overrun")]
    assert log.last == 10


def test_a_symbol_that_no_source_carries_comes_back_as_it_was() -> None:
    """A history is restored for each symbol of the store, whoever carries it now."""
    archive = MemoryArchive()
    archive.open()
    archive.begin(EPOCH)
    archive.append(Batch([Run.of("OLD-USD", [(1, sequenced(1, symbol="OLD-USD"))])]))
    archive.close(clean=True)
    assert Life(archive).history("OLD-USD").newest_trade is not None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.integers(1, 40)),
        st.just(("write", 0)),
        st.just(("die", 0)),
        st.just(("stop", 0)),
    ),
    max_size=60,
)


@given(steps, st.sampled_from((3, 10_000)))
def test_whatever_happens_no_sequence_is_admitted_twice_and_none_is_lost_silently(
    some: Sequence[tuple[str, int]], max_trades: int
) -> None:
    """Trades of one source with a sequence, deaths and stops in any order: at the end the disk has each number once,
    as a trade or within an exact gap."""
    archive = MemoryArchive()
    life = Life(archive, 1, max_trades)
    for number, (what, sequence) in enumerate(some):
        if what == "trade":
            life.admit(sequenced(sequence))
        elif what == "write":
            life.write()
        else:
            life.ends(clean=what == "stop")
            life = Life(archive, number + 2, max_trades)
    life.write()
    expected, place = 0, 0
    for last, entry in archive.behind(SYMBOL, 0, 1 << 40):
        first = entry.first if isinstance(entry, Gap) else last
        assert first == place + 1
        place = last
        if isinstance(entry, Gap):
            assert entry.exact
            expected += last - first + 1
        elif expected:
            expected += 1
            assert entry.sequence == expected
        else:
            expected = entry.sequence or 0
