"""The actor that writes the histories to disk, the start from what is there, and the end.

Rules of this file. Live data never waits for the disk. Runs are encoded here, in the event loop, in slices:
in a thread that would fight the loop for the interpreter. The thread does what releases it: compressing and
writing. There is one such thread at a time, whatever happens: who is cancelled abandons it, and it keeps the
limiter of `Recording` until it is back. So a disk that is stuck has one stuck thread, and two writers never
meet. A write whose end nobody awaited is repeated, and the store skips what it has.

The log has a line when writing fails or takes long, and one when it works again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import trio
from attrs import frozen
from loguru import logger

from dataflow import paths
from dataflow.domain import Gap, Trade
from supervisors import Context

from .archive import Archive, ArchiveFailed, ArchiveFull, Batch, Checkpoint, Keep, Run, Stream
from .history import History
from .places import Places, first_place, whole
from .recording import FEEDS, SLICE, Recording, newest_by_source

T = TypeVar("T")

RETRY: Final = 5.0  # seconds after a failed write
SLOW: Final = 5.0  # seconds that a write takes before the log tells of it
PATIENCE: Final = 0.25  # seconds that readers wait for the disk, beyond the interval
TIDY_EVERY: Final = 60.0  # seconds between two looks for what need not be kept
COLLECT_EVERY: Final = 10.0  # seconds between two checkpoints of followers
LOADED: Final = 1_000  # trades of a symbol that are in memory after a start ...
LOADED_OF_ALL: Final = 100_000  # ... and of all symbols together: a second's work
GAPS: Final = 200  # of a symbol, from before what is loaded, that are tried again after a start ...
GAPS_OF_ALL: Final = 2_000  # ... and of all symbols together: some seconds of reading, beside the rest
NEAR: Final = 200  # entries between a gap and the trades of its source, on either side
FINISH_WITHIN: Final = 5.0  # seconds for the last write of all

_log = logger.bind(path=paths.HISTORY)


@frozen
class Habits:
    """`interval`: seconds between two writes. `drops_oldest`: on a full disk the oldest day is removed."""

    interval: float
    keep: Keep
    drops_oldest: bool


class Recorder:
    """Writes what is new. `clock`: wall time, for the days. Any message means that something waits."""

    def __init__(
        self,
        recording: Recording,
        history_of: Callable[[str], History],
        habits: Habits,
        clock: Callable[[], float],
    ) -> None:
        assert recording.archive is not None
        self._recording = recording
        self._archive: Archive = recording.archive
        self._history_of = history_of
        self._habits = habits
        self._clock = clock
        self._tidied: str | None = None  # the day of the last time

    async def run(self, ctx: Context) -> None:
        recording = self._recording
        if not recording.is_warm:
            await warm(recording, self._history_of)
        self._tidy_at = trio.current_time()
        self._collect_at = self._tidy_at + COLLECT_EVERY
        recording.follow(partial(ctx.ref.put, "news"))
        ctx.start_helper(self._watch)
        ctx.start_helper(self._reopen)
        ctx.ready()
        while not ctx.stopping.is_set():
            await self._attend()
            if not recording.waits:
                with trio.move_on_at(min(self._tidy_at, self._collect_at)):
                    await ctx.receive()
                continue
            begun = trio.current_time()
            is_written = await self._commit()
            with trio.move_on_at(begun + (self._habits.interval if is_written else RETRY)):
                while not (is_written and recording.is_pressing):
                    await ctx.receive()

    async def _commit(self) -> bool:
        """Write what waits. Returns whether that is done."""
        recording = self._recording
        batch = recording.batch(await self._gather())
        if batch == Batch():
            return True
        try:
            await self._append(batch)
        except ArchiveFailed as error:
            self._failed(error)
            return False
        recording.written(batch)
        self._succeeded()
        return True

    async def _gather(self) -> list[Run]:
        runs, work = [], 0
        for run in self._recording.runs():
            runs.append(run)
            work += run.count
            if work >= SLICE:
                await trio.lowlevel.checkpoint()
                work = 0
        return runs

    async def _append(self, batch: Batch) -> None:
        while True:
            try:
                return await self._in_thread(self._archive.append, batch)
            except ArchiveFull as full:
                if not (self._habits.drops_oldest and await self._make_room(full)):
                    raise

    async def _make_room(self, full: ArchiveFull) -> bool:
        removed = await self._in_thread(self._archive.make_room, self._today())
        if removed is None:
            return False
        _log.warning("{}: the oldest day was removed", full)
        self._recording.removed(removed)
        return True

    def _failed(self, error: ArchiveFailed) -> None:
        recording = self._recording
        recording.totals.errors += 1
        if recording.trouble != str(error):
            _log.error("not recording: {}; tried again every {:g} s", error, RETRY)
        recording.trouble = str(error)

    def _succeeded(self) -> None:
        recording = self._recording
        if recording.trouble is not None:
            recording.trouble = None
            _log.info("recording again")
        for line in recording.new_damage():
            _log.error("damaged: {}", line)
        if recording.is_exposed and recording.behind(trio.current_time()) <= self._habits.interval:
            recording.is_exposed = False
            _log.info("clients get only what is on disk again")

    # Beside the writing.

    async def _attend(self) -> None:
        """What is due now and then."""
        now, today = trio.current_time(), self._today()
        if now >= self._collect_at:
            self._collect_at = now + COLLECT_EVERY
            self._recording.collect()
        if now >= self._tidy_at or today != self._tidied:
            self._tidy_at, self._tidied = now + TIDY_EVERY, today
            try:
                removed = await self._in_thread(self._archive.retain, self._habits.keep, today)
            except ArchiveFailed as error:
                self._recording.totals.errors += 1
                _log.warning("nothing old was removed: {}", error)
            else:
                self._recording.removed(removed)

    async def _watch(self) -> None:
        """Tell of a disk that is stuck, and let readers no longer wait for it."""
        recording, told = self._recording, False
        while True:
            await trio.sleep(PATIENCE / 5 if recording.after_commit else 1.0)
            now, since = trio.current_time(), recording.writing_since
            is_slow = since is not None and now - since > SLOW
            if is_slow and not told:
                _log.warning("a write has taken {:g} s and is not done: the disk is slow or stuck", SLOW)
            told = is_slow
            late = self._habits.interval + PATIENCE
            if recording.after_commit and not recording.is_exposed and recording.behind(now) > late:
                _log.warning(
                    "the disk is {:.2f} s behind: clients get trades before they are on disk",
                    recording.behind(now),
                )
                recording.expose()

    async def _reopen(self) -> None:
        """Let the gaps be filled, and asked for, that lie before what was loaded at the start.

        Each symbol once: nobody fills them before, so what the disk says of them stays true.
        """
        recording, left = self._recording, GAPS_OF_ALL
        while recording.unasked and left > 0:
            symbol, below = recording.unasked.popitem()
            try:
                found = await trio.to_thread.run_sync(
                    _gaps, self._archive, symbol, below, min(GAPS, left), abandon_on_cancel=True
                )
            except ArchiveFailed as error:
                _log.warning("{}: its old gaps were not looked for: {}", symbol, error)
                found = []
            left -= len(found)
            opened = self._history_of(symbol).reopen(found)
            if opened:
                _log.info("{}: {} gaps from before the start can be filled", symbol, opened)

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        recording = self._recording
        if recording.writing_since is None:  # else one that was abandoned may go on
            recording.writing_since = trio.current_time()
        try:
            return await trio.to_thread.run_sync(
                call, *args, limiter=recording.limiter, abandon_on_cancel=True
            )
        finally:
            if not recording.limiter.borrowed_tokens:
                recording.writing_since = None

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")


# The start.


@frozen
class _Loaded:
    places: Places
    newest: Mapping[str, Trade]  # before these places, by source
    forgotten: int | None
    are_all: bool


async def warm(recording: Recording, history_of: Callable[[str], History]) -> None:
    """Bring the newest places of each symbol from the disk into its memory. Raises ArchiveFailed."""
    archive = recording.archive
    assert archive is not None
    begun, places = trio.current_time(), 0
    most = max(1, min(LOADED, LOADED_OF_ALL // max(1, len(recording.streams))))
    points = await trio.to_thread.run_sync(archive.checkpoints, FEEDS)
    for symbol, stream in recording.streams.items():
        history = history_of(symbol)
        count, point = min(most, history.max_trades), points.get(symbol)
        loaded = await trio.to_thread.run_sync(_load, archive, symbol, stream, count, point)
        history.restore(
            loaded.places,
            trio.current_time(),
            newest=loaded.newest.values(),
            forgotten=loaded.forgotten,
            are_all=loaded.are_all,
        )
        places += len(loaded.places)
        recording.unasked[symbol] = first_place(*loaded.places[0]) if loaded.places else stream.last + 1
    recording.is_warm = True
    for line in recording.damage:
        _log.error("damaged: {}", line)
    _log.info(
        "recording to {}: {} symbols, {} places loaded in {:.2f} s, {}",
        recording.place,
        len(recording.streams),
        places,
        trio.current_time() - begun,
        _about_epoch(recording),
    )


def _about_epoch(recording: Recording) -> str:
    if recording.goes_on:
        return f"epoch {recording.epoch} goes on"
    why = ", because the history was not closed in order" if recording.was_cut_off else ""
    return f"epoch {recording.epoch} begins{why}"


def _load(archive: Archive, symbol: str, stream: Stream, count: int, point: Checkpoint | None) -> _Loaded:
    """The newest `count` trades of a symbol and all behind them, and the state of its sources before them."""
    places = archive.newest(symbol, count, stream.last + 1)
    places = whole(places, places[0][0] - 1, stream.last) if places else []
    before = places[0][0] - 1 if places else stream.last  # the first is a trade
    if before < stream.first:
        return _Loaded(places, {}, None, True)
    if point is not None and point.position > stream.last:
        point = None  # of places that are lost: the numbers of its trades would hide that
    newest: dict[str, Trade] = {}
    if point is not None:
        newest = {trade.source: trade for trade in newest_by_source(point)}
        newest |= _newest_between(archive, symbol, point.position, before)
    return _Loaded(places, newest, archive.latest(symbol, before + 1), point is not None)


def _newest_between(archive: Archive, symbol: str, after: int, end: int) -> dict[str, Trade]:
    """The newest trade of each source at places behind `after` up to `end`."""
    found: dict[str, Trade] = {}
    while after < end and (places := archive.behind(symbol, after, SLICE)):
        found |= {e.source: e for last, e in places if last <= end and isinstance(e, Trade)}
        after = places[-1][0]
    return found


def _gaps(archive: Archive, symbol: str, below: int, limit: int) -> list[tuple[Trade, Gap, Trade]]:
    """Gaps before place `below` that can be filled, the newest first, each with the trades around it."""
    found = []
    for gap in archive.gaps(symbol, below, limit):
        near = archive.behind(symbol, max(0, gap.first - 1 - NEAR), 2 * NEAR)
        own = [(last, e) for last, e in near if isinstance(e, Trade) and e.source == gap.source]
        before = [entry for last, entry in own if last < gap.first]
        behind = [entry for last, entry in own if last > gap.last]
        if before and behind:
            found.append((before[-1], gap, behind[0]))
    return found


# The end.


def finish(recording: Recording, within: float = FINISH_WITHIN) -> bool:
    """Write what is left and close the store, after the tree has ended. Takes at most about `within` seconds.

    If a disk is stuck, its store is not closed: the next start sees that, and begins a new epoch. Returns
    False if this failed by a fault of ours, not of the disk.
    """
    if recording.archive is None:
        return True
    recording.connect(lambda _symbol: None, lambda _firsts: None)  # nobody is there any more
    faults: list[Exception] = []
    last = threading.Thread(target=_finish, args=(recording, recording.archive, faults), daemon=True)
    is_stuck = recording.limiter.borrowed_tokens > 0
    if not is_stuck:
        last.start()
        last.join(within)
    if is_stuck or last.is_alive():
        _log.error("the disk does not answer: the history is not closed in order")
    return not faults


def _finish(recording: Recording, archive: Archive, faults: list[Exception]) -> None:
    is_whole = False
    try:
        recording.follow(lambda: None)
        recording.collect()
        while recording.waits and (batch := recording.batch(recording.runs())) != Batch():
            archive.append(batch)
            recording.written(batch)
        is_whole = recording.is_complete
    except ArchiveFailed as error:
        _log.error("the last trades are not recorded: {}", error)
    except Exception as error:
        faults.append(error)
        _log.opt(exception=error).error("a fault of the recorder: the last trades may not be recorded")
    finally:
        archive.close(is_whole)
