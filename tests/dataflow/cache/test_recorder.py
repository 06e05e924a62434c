"""The recorder: what was admitted is on disk exactly once, whatever dies, fails, stalls or is full meanwhile."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from dataflow.cache import recording as module
from dataflow.cache.archive import ArchiveFull, BarRow, Batch, Checkpoint, Keep
from dataflow.cache.recorder import FINISH_WITHIN, PATIENCE, RETRY, SLOW, Habits, Recorder, finish
from dataflow.cache.recording import BARS_WAITING, MOST, NOT_RECORDED, SLICE, Recording
from dataflow.cache.store import Store
from dataflow.domain import Gap, Trade
from supervisors import Backoff, Child, Event, Limit, Mailbox, Overflow, Supervisor, open_supervisor
from tests.support.memory_archive import MemoryArchive
from tests.support.waiting import until

from .items import sequenced

SYMBOL, OTHER = "BTC-USD", "ETH-USD"
INTERVAL = 0.05
DAY = 86_400.0


class Disk(MemoryArchive):
    """One that can be stuck, full, or lose the process between a write and its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.days = 0  # that can be removed ...
        self.firsts: dict[str, int] = {}  # ... and what is left then
        self.is_full = False
        self.dies_after_write = False
        self.retained: list[str] = []
        self.lost: list[str] = []
        self.threads = 0
        self.most_threads = 0
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    @contextmanager
    def stuck(self) -> Iterator[None]:
        self._may_go_on.clear()
        try:
            yield
        finally:
            self._may_go_on.set()

    def append(self, batch: Batch) -> None:
        self.threads += 1
        self.most_threads = max(self.threads, self.most_threads)
        try:
            self._may_go_on.wait()
            if self.is_full:
                raise ArchiveFull("the disk is full")
            super().append(batch)
        finally:
            self.threads -= 1
        self.batches.append(batch)
        if self.dies_after_write:
            self.dies_after_write = False
            raise RuntimeError("died")

    def make_room(self, today: str) -> Mapping[str, int] | None:
        if not self.days:
            return None
        self.days -= 1
        self.is_full = False
        return self.firsts

    def retain(self, keep: Keep, today: str) -> Mapping[str, int]:
        self.retained.append(today)
        return super().retain(keep, today)


@define
class Stage:
    """A recorder at work on a store. `clock` is that of the process, `wall` that on the wall."""

    disk: Disk
    clock: MockClock
    max_trades: int = 10_000
    after_commit: bool = False
    drops_oldest: bool = True
    wall: float = 0.0
    told: list[str] = field(factory=list)
    firsts: dict[str, int] = field(factory=dict)
    events: list[Event] = field(factory=list)
    store: Store = field(init=False)
    recording: Recording = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.recording = Recording(self.history, self.disk, 7, after_commit=self.after_commit)
        self.store = Store(self.recording.epoch, self.max_trades, 1e9, streams=self.recording.streams)
        self.recording.connect(self.told.append, self.firsts.update)

    def history(self, symbol: str) -> Any:
        return self.store.history(symbol)

    def admit(self, *sequences: int, symbol: str = SYMBOL, source: str = "a") -> None:
        trades = [sequenced(n, symbol=symbol, source=source) for n in sequences]
        for grown in self.store.admit(trades, trio.current_time()):
            self.recording.news(grown)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        habits = Habits(INTERVAL, Keep(7, 0, 0), self.drops_oldest)
        child = Child(
            "recorder",
            partial(Recorder, self.recording, self.history, habits, lambda: self.wall),
            mailbox=Mailbox(size=1, overflow=Overflow.CONFLATE, key=lambda _message: None),
            backoff=Backoff(first=0.1, jitter=0),
            stop_within=1.0,
        )
        spec = Supervisor(limit=Limit(restarts=None), children=[child])
        async with open_supervisor(spec, on_event=self.events.append, blocked_after=None):
            yield

    def stored(self, symbol: str = SYMBOL) -> list[tuple[int, Trade | Gap]]:
        return list(self.disk.behind(symbol, 0, 1 << 40))

    def remembered(self, symbol: str = SYMBOL) -> list[tuple[int, Trade | Gap]]:
        return list(self.history(symbol).places(0, 1 << 40))

    async def until_written(self) -> None:
        """However long the clock must run for it."""
        while not self.recording.is_complete:
            self.clock.jump(INTERVAL)
            await until(lambda: not self.disk.threads)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def stage(disk: Disk, mock_clock: MockClock) -> Stage:
    return Stage(disk, mock_clock)


def kinds(stage: Stage) -> list[str]:
    return [event.kind for event in stage.events]


async def test_what_is_admitted_is_written_in_order(mock_clock: MockClock, stage: Stage) -> None:
    """Trades and gaps of several symbols, each entry once, at its place."""
    async with stage.running():
        stage.admit(1, 2, 5)
        stage.admit(10, symbol=OTHER)
        await stage.until_written()
        stage.admit(6)
        await stage.until_written()
    assert stage.stored() == stage.remembered()
    assert stage.stored(OTHER) == stage.remembered(OTHER)
    assert stage.firsts == {SYMBOL: 1, OTHER: 1}


async def test_writes_are_an_interval_apart(mock_clock: MockClock, stage: Stage) -> None:
    """What comes within the interval after a write waits for its end, and goes together."""
    async with stage.running():
        stage.admit(1)
        await until(lambda: stage.disk.commits == 1)
        stage.admit(2)
        stage.admit(3)
        await until(lambda: True)
        assert stage.disk.commits == 1
        stage.clock.jump(INTERVAL)
        await until(lambda: stage.disk.commits == 2)
        assert stage.recording.is_complete


async def test_a_death_between_write_and_answer_repeats_nothing_and_loses_nothing(
    mock_clock: MockClock, stage: Stage
) -> None:
    """The batch is on disk, but nobody knows: it is offered again, and the store skips it."""
    async with stage.running():
        stage.disk.dies_after_write = True
        stage.admit(1, 2)
        await until(lambda: "crash" in kinds(stage))
        assert stage.recording.position(SYMBOL) == 0
        stage.admit(3)
        stage.clock.jump(1)
        await stage.until_written()
    assert stage.stored() == stage.remembered()
    assert [last for last, _ in stage.stored()] == [1, 2, 3]


async def test_a_position_moves_only_after_the_write(mock_clock: MockClock, stage: Stage) -> None:
    """While the write is on its way, nobody is told that these places are on disk."""
    async with stage.running():
        with stage.disk.stuck():
            stage.admit(1)
            await until(lambda: stage.disk.threads)
            assert stage.recording.position(SYMBOL) == 0
            assert not stage.recording.is_complete
        await until(lambda: stage.recording.position(SYMBOL) == 1)


async def test_a_failing_store_is_tried_again(mock_clock: MockClock, stage: Stage, lines: list[str]) -> None:
    """One line for each reason, one when it ends; the words are in `troubles`; nothing is lost."""
    async with stage.running():
        stage.disk.broken = "the directory is gone"
        stage.admit(1)
        await until(lambda: stage.recording.trouble)
        stage.admit(2)
        for _ in range(3):
            stage.clock.jump(RETRY)
            await until(lambda: not stage.disk.threads)
        now = trio.current_time()
        assert stage.recording.troubles(now, 2) == [
            "history: the directory is gone",
            f"history: behind {now:.0f} s",
        ]
        stage.disk.broken = "the disk is read-only"
        stage.clock.jump(RETRY)
        await until(lambda: stage.recording.trouble == "the disk is read-only")
        stage.disk.broken = None
        stage.clock.jump(RETRY)
        await until(lambda: stage.recording.is_complete)
        assert stage.recording.troubles(trio.current_time(), 2) == []
    assert [each for each in lines if "recording" in each][1:] == [
        "ERROR history: not recording: the directory is gone; tried again every 5 s",
        "ERROR history: not recording: the disk is read-only; tried again every 5 s",
        "INFO history: recording again",
    ]
    assert stage.recording.totals.errors >= 2
    assert stage.stored() == stage.remembered()


@pytest.mark.parametrize("firsts", [{OTHER: 2}, {}])
async def test_a_full_disk_loses_its_oldest_day(
    mock_clock: MockClock, stage: Stage, firsts: dict[str, int]
) -> None:
    """The very same batch is written after that, and readers hear what is gone. A day may hold no trade."""
    async with stage.running():
        stage.disk.is_full, stage.disk.days, stage.disk.firsts = True, 1, firsts
        stage.admit(1)
        await until(lambda: stage.recording.is_complete)
    assert stage.disk.days == 0
    assert stage.firsts == {SYMBOL: 1} | firsts
    assert stage.recording.totals.errors == 0


@pytest.mark.parametrize(("drops_oldest", "days"), [(True, 0), (False, 3)])
async def test_a_full_disk_without_anything_to_remove(
    disk: Disk, mock_clock: MockClock, drops_oldest: bool, days: int
) -> None:
    """Nothing is removed, and it is tried again until there is room."""
    stage = Stage(disk, mock_clock, drops_oldest=drops_oldest)
    disk.is_full, disk.days = True, days
    async with stage.running():
        stage.admit(1)
        await until(lambda: stage.recording.trouble == "the disk is full")
        assert disk.days == days
        disk.is_full = False
        stage.clock.jump(RETRY)
        await until(lambda: stage.recording.is_complete)
    assert stage.stored() == stage.remembered()


async def test_news_without_growth_are_nothing_to_write(mock_clock: MockClock, stage: Stage) -> None:
    """As after a batch that was lost in a crash: the recorder sleeps again."""
    async with stage.running():
        stage.admit(1)
        await stage.until_written()
        stage.recording.news(SYMBOL)
        mock_clock.jump(INTERVAL)
        await until(lambda: not stage.recording.waits)
    assert len(stage.disk.batches) == 1


async def test_what_memory_forgets_before_the_write_is_a_gap(
    disk: Disk, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The places are kept, their number is counted, and no later place moves."""
    monkeypatch.setattr(module, "READY", 5)
    stage = Stage(disk, mock_clock, max_trades=4)
    async with stage.running():
        disk.broken = "gone"
        for n in range(1, 21):
            stage.admit(n)
        await until(lambda: stage.recording.trouble)
        disk.broken = None
        stage.clock.jump(RETRY)
        await until(lambda: stage.recording.is_complete)
    stored = stage.stored()
    (at,) = [at for at, (_, entry) in enumerate(stored) if isinstance(entry, Gap)]
    gap = stored[at][1]
    assert isinstance(gap, Gap)
    assert gap.reason == NOT_RECORDED
    assert [last for last, _ in stored[:at]] == list(range(1, gap.first))
    assert stored[at + 1 :] == stage.remembered()[1:]
    assert [last for last, _ in stored][-1] == 20
    assert stage.recording.totals.unrecorded == gap.last - gap.first + 1 == 20 - 6 - 4


async def test_what_memory_would_forget_is_taken_before(disk: Disk, mock_clock: MockClock) -> None:
    """Within an interval, or while a write takes its time, more comes than memory keeps: nothing is lost."""
    stage = Stage(disk, mock_clock, max_trades=4)
    async with stage.running():
        stage.admit(1)
        with disk.stuck():
            await until(lambda: disk.threads)
            for n in range(2, 101, 2):
                stage.admit(n, n + 1)
        await stage.until_written()
    assert [last for last, _ in stage.stored()] == list(range(1, 102))
    assert not stage.recording.totals.unrecorded


async def test_much_is_written_before_the_interval_is_over(
    disk: Disk, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what waits stays bounded, however long the interval is."""
    monkeypatch.setattr(module, "MOST", 10)
    stage = Stage(disk, mock_clock, max_trades=8)
    async with stage.running():
        stage.admit(1)
        await until(lambda: disk.commits == 1)
        for n in range(2, 30, 4):
            stage.admit(*range(n, n + 4))
        await until(lambda: disk.commits > 1)
    assert mock_clock.current_time() == 0


async def test_a_backlog_is_written_in_bounded_batches_of_bounded_runs(
    disk: Disk, mock_clock: MockClock
) -> None:
    """And nothing is lost, repeated or out of order."""
    stage = Stage(disk, mock_clock, max_trades=3 * MOST)
    async with stage.running():
        disk.broken = "gone"
        stage.admit(1)
        await until(lambda: stage.recording.trouble)
        stage.admit(*range(2, 2 * MOST))
        stage.admit(1, symbol=OTHER)
        disk.broken = None
        stage.clock.jump(RETRY)
        await until(lambda: disk.batches)
        await stage.until_written()
    for batch in disk.batches:
        assert sum(run.count for run in batch.runs) <= MOST + SLICE
        assert all(run.count <= SLICE for run in batch.runs)
    assert stage.stored() == stage.remembered()


async def test_a_disk_that_is_stuck_has_one_stuck_thread(
    mock_clock: MockClock, stage: Stage, lines: list[str]
) -> None:
    """A new incarnation does not start a second writer; the log and the state tell the age of the first."""
    with stage.disk.stuck():
        async with stage.running():
            stage.admit(1)
            await until(lambda: stage.disk.threads)
            for _ in range(8):
                stage.clock.jump(1)
                await until(lambda: True)
            since = stage.recording.writing_since
            assert since is not None
            assert trio.current_time() - since > SLOW
            assert stage.recording.troubles(trio.current_time(), 2) == ["history: behind 8 s"]
            assert len([each for each in lines if "slow or stuck" in each]) == 1
            stage.clock.jump(2)  # for the stop, which waits a second for the write
            stage.clock.rate = 100
        async with stage.running():
            stage.admit(2)
            await until(lambda: stage.recording.limiter.statistics().tasks_waiting)
            assert stage.disk.most_threads == 1
            assert stage.recording.writing_since == since
    assert stage.recording.position(SYMBOL) == 0
    assert stage.disk.most_threads == 1


async def test_the_end_of_a_stuck_disk_is_bounded(
    mock_clock: MockClock, stage: Stage, lines: list[str]
) -> None:
    """The store is not closed in order then, and the next start knows it."""
    with stage.disk.stuck():
        stage.admit(1)
        await trio.to_thread.run_sync(partial(finish, stage.recording, within=0.01))
        assert "does not answer" in lines[-1]
    assert FINISH_WITHIN > 0
    assert not stage.recording.is_complete


async def test_the_end_writes_what_is_left(mock_clock: MockClock, stage: Stage) -> None:
    """Everything is on disk, the followers' last word too, and the store is clean."""
    stage.recording.collect_from(lambda: [Checkpoint("days", SYMBOL, 3, b"last")])
    stage.admit(1, 2, 3)
    await trio.to_thread.run_sync(finish, stage.recording)
    contents = stage.disk.open()
    assert contents.is_clean
    assert contents.streams[SYMBOL].last == 3
    assert stage.disk.checkpoints("days")[SYMBOL].data == b"last"


async def test_an_end_that_cannot_write_is_not_clean(mock_clock: MockClock, stage: Stage) -> None:
    """A new epoch follows: the last places may be given to other trades."""
    stage.disk.broken = "full"
    stage.admit(1)
    await trio.to_thread.run_sync(finish, stage.recording)
    stage.disk.broken = None
    assert not stage.disk.open().is_clean


@pytest.mark.parametrize("where", ["append", "collect"])
async def test_a_fault_at_the_end_is_told_and_the_store_is_not_clean(
    mock_clock: MockClock, stage: Stage, lines: list[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The daemon must not end as if all was well."""
    stage.admit(1)
    at: Any = stage.disk if where == "append" else stage.recording
    monkeypatch.setattr(at, where, lambda *_: 1 / 0)
    assert not await trio.to_thread.run_sync(finish, stage.recording)
    (line,) = lines
    assert line.startswith("ERROR history: a fault of the recorder: the last trades may not be recorded")
    assert "ZeroDivisionError" in line
    assert not stage.disk.open().is_clean


async def test_old_things_are_removed_each_minute_and_at_midnight(
    mock_clock: MockClock, stage: Stage
) -> None:
    """With the day of the wall clock."""
    stage.wall = DAY - 30
    async with stage.running():
        await until(lambda: len(stage.disk.retained) == 1)
        stage.clock.jump(60)
        await until(lambda: len(stage.disk.retained) == 2)
        stage.wall = DAY
        stage.admit(1)
        await until(lambda: len(stage.disk.retained) == 3)
    assert stage.disk.retained == ["1970-01-01", "1970-01-01", "1970-01-02"]


class TestBarsAndCheckpoints:
    """What is made of the trades."""

    def bar(self, rev: int = 1, start: int = 0) -> BarRow:
        return BarRow(SYMBOL, 60, start, rev, b"bar")

    async def test_they_are_written_with_the_places_that_they_are_made_of(
        self, mock_clock: MockClock, stage: Stage
    ) -> None:
        """Never before them, and a checkpoint never before the bars that it stands behind."""
        stage.admit(1, 2)
        stage.recording.bars([self.bar()], 2)
        stage.recording.bars([self.bar(start=60)], 3)
        stage.recording.checkpoint(Checkpoint("candles", SYMBOL, 3, b"three"))
        batch = stage.recording.batch(stage.recording.runs())
        assert [row.start for row in batch.bars] == [0]
        assert not batch.checkpoints
        stage.recording.written(batch)
        stage.admit(3)
        batch = stage.recording.batch(stage.recording.runs())
        assert [row.start for row in batch.bars] == [60]
        assert [point.data for point in batch.checkpoints] == [b"three"]
        stage.recording.written(batch)
        assert not stage.recording.waits

    async def test_they_wake_the_recorder_by_themselves(self, mock_clock: MockClock, stage: Stage) -> None:
        """A bar that is closed by the clock has no trade behind it."""
        async with stage.running():
            stage.admit(1)
            await stage.until_written()
            stage.recording.bars([self.bar()], 1)
            stage.clock.jump(INTERVAL)
            await until(lambda: stage.disk.bars(SYMBOL, 60, 0, 1, 9))

    async def test_a_later_row_replaces_one_that_waits(self, mock_clock: MockClock, stage: Stage) -> None:
        """Also while the earlier one is being written: then both are."""
        stage.admit(1)
        stage.recording.bars([self.bar()], 1)
        batch = stage.recording.batch(stage.recording.runs())
        stage.recording.bars([self.bar(2)], 1)
        stage.recording.written(batch)
        assert [row.rev for row in stage.recording.batch(()).bars] == [2]

    async def test_their_number_is_bounded(self, mock_clock: MockClock, stage: Stage) -> None:
        """Too many are refused as a whole, and counted."""
        rows = [self.bar(start=n) for n in range(BARS_WAITING)]
        assert stage.recording.bars(rows, 1)
        assert not stage.recording.bars([self.bar(start=-1)], 1)
        assert stage.recording.totals.bars_refused == 1

    async def test_without_an_archive_nothing_waits(self, mock_clock: MockClock, stage: Stage) -> None:
        """Nobody would ever write it."""
        nothing = Recording(stage.history)
        assert nothing.bars([self.bar()], 0)
        nothing.checkpoint(Checkpoint("days", SYMBOL, 0, b""))
        assert not nothing.waits
        assert nothing.troubles(0, 0) == []


class TestAfterCommit:
    """`send = "after_commit"`."""

    @pytest.fixture
    def stage(self, disk: Disk, mock_clock: MockClock) -> Stage:
        return Stage(disk, mock_clock, after_commit=True)

    async def test_readers_see_a_place_when_it_is_on_disk(self, mock_clock: MockClock, stage: Stage) -> None:
        """They are woken by the write, not by the trade."""
        async with stage.running():
            with stage.disk.stuck():
                stage.admit(1)
                await until(lambda: stage.disk.threads)
                assert not stage.told
                assert stage.recording.shown(SYMBOL) == 0
            await until(lambda: stage.told)
            assert stage.recording.shown(SYMBOL) == 1

    async def test_readers_do_not_wait_for_a_stuck_disk(
        self, mock_clock: MockClock, stage: Stage, lines: list[str]
    ) -> None:
        """After a quarter of a second they get everything at once; what they saw stays seen; then they wait again."""
        async with stage.running():
            with stage.disk.stuck():
                stage.admit(1)
                await until(lambda: stage.disk.threads)
                stage.clock.jump(INTERVAL + PATIENCE)
                await until(lambda: True)
                assert not stage.told
                stage.clock.jump(PATIENCE / 5)
                await until(lambda: stage.told == [SYMBOL])
                stage.admit(2)
                assert stage.recording.shown(SYMBOL) == 2
                assert "before they are on disk" in lines[-1]
            await stage.until_written()
            assert stage.recording.shown(SYMBOL) == 2
            assert not stage.recording.is_exposed
            with stage.disk.stuck():
                stage.admit(3)
                await until(lambda: True)
                assert stage.recording.shown(SYMBOL) == 2


async def test_what_the_store_finds_lost_is_told(
    mock_clock: MockClock, stage: Stage, lines: list[str]
) -> None:
    """While the daemon runs: in the log once, and in `troubles` from then on."""
    async with stage.running():
        for sequence in (1, 2):
            stage.admit(sequence)
            mock_clock.jump(1)
            await until(lambda: stage.recording.position(SYMBOL) == sequence)  # noqa: B023
            stage.disk.lost = ["2026-11-27.db was removed"]
        stage.admit(3)
        mock_clock.jump(1)
        await until(lambda: stage.recording.position(SYMBOL) == 3)
    assert stage.recording.troubles(trio.current_time(), 2) == ["history: 2026-11-27.db was removed"]
    assert [line for line in lines if "removed" in line] == [
        "ERROR history: damaged: 2026-11-27.db was removed"
    ]
