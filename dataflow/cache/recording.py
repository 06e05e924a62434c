"""What is on disk of each symbol, what waits to be written, and how the store fares.

Rules of this file. It outlives the actor that writes (`recorder`), which may die at any moment: a position
moves only after its batch is written, so a death repeats places, which the store skips, and loses none. The
history in memory is the queue. Where it would forget places before the next write is due, they are taken from
it at once and wait as runs, some `READY` at most. What it forgets before that is a gap "not_recorded".
What others want to be written beside the trades (bars, checkpoints) waits until the places are written that
it was made of. No clock: times are seconds of the clock of `History.admit`, and are given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, chain, takewhile
from typing import Final

import msgspec
import trio
from attrs import define, evolve, frozen

from dataflow import paths
from dataflow.domain import Gap, Trade

from .archive import Archive, BarRow, Batch, Checkpoint, Run, Stream
from .history import History

NOT_RECORDED: Final = "not_recorded"  # the reason of a gap: memory forgot these before they were written
SLICE: Final = 1_000  # entries of one run: half a millisecond of work
MOST: Final = 20_000  # entries of one batch: some 50 ms of writing
READY: Final = 100_000  # entries that are taken before their time; some 30 MB
BARS_WAITING: Final = 100_000  # bars; further ones are refused
FEEDS: Final = "feeds"  # the checkpoint with the newest trade of each source
FEEDS_EVERY: Final = 500  # places: so the start need not look further back for a source

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Trade]).decode

Checkpoints = Callable[[], Iterable[Checkpoint]]


@define(eq=False)
class _Track:
    """How far one symbol is written. All up to `taken` are in runs. `shown`: the last place that readers may
    see, where they wait for it."""

    history: History
    position: int
    taken: int
    shown: int
    fed: int  # the position of the newest checkpoint of its sources


@frozen
class _Ready:
    """A run that waits. `since`: when its first place came, as far as memory still had it."""

    run: Run
    since: float | None


@frozen
class _WaitingBar:
    row: BarRow
    position: int


@define
class Totals:
    """Counts since the start. `bytes` are those of the entries before compression."""

    commits: int = 0
    entries: int = 0
    bytes: int = 0
    errors: int = 0
    unrecorded: int = 0  # places that memory forgot before they were written
    bars_refused: int = 0


class Recording:
    """Of all symbols. `history_of(symbol)`: the memory. Without an `archive` nothing is recorded.

    `number` becomes the epoch, unless the store was closed in order: then its epoch goes on. With
    `after_commit` readers see a place only after it is written. `place`: where the store is, for people.

    The constructor opens the archive and waits for it. Raises ConfigError and ArchiveFailed.
    """

    def __init__(
        self,
        history_of: Callable[[str], History],
        archive: Archive | None = None,
        number: int = 0,
        *,
        after_commit: bool = False,
        place: str = "memory",
    ) -> None:
        self.archive = archive
        self.after_commit = after_commit and archive is not None
        self.place = place
        self.epoch = number
        self.goes_on = False  # the epoch of the last daemon
        self.was_cut_off = False  # the last daemon had no time to close the history
        self.streams: Mapping[str, Stream] = {}
        self.damage: tuple[str, ...] = ()
        self._lost = 0  # lines that the store has told while it was open
        self.totals = Totals()
        self.trouble: str | None = None  # why nothing can be written now
        self.writing_since: float | None = None  # a write is on its way
        self.unasked: dict[
            str, int
        ] = {}  # symbols whose gaps before that place may be filled, once looked for
        self.is_warm = archive is None  # what is on disk is in memory, as far as it belongs there
        self.is_exposed = False  # readers see places that are not written, because the disk is stuck
        self.limiter = trio.CapacityLimiter(1)  # a thread that is stuck in a dead disk keeps it
        self._history_of = history_of
        self._tracks: dict[str, _Track] = {}
        self._news: dict[str, None] = {}  # symbols with places that are not taken
        self._ready: list[_Ready] = []  # taken and not written
        self._entries_ready = 0
        self._fills: dict[str, None] = {}  # symbols with fills that are staged
        self._bars: dict[tuple[str, int, int], _WaitingBar] = {}
        self._points: dict[tuple[str, str], Checkpoint] = {}
        self._givers: list[Checkpoints] = []
        self._wake: Callable[[], object] = lambda: None
        self._told: Callable[[str], object] = lambda _symbol: None
        self._stored_from: Callable[[Mapping[str, int]], object] = lambda _firsts: None
        if archive is not None:
            self._open(archive)

    def _open(self, archive: Archive) -> None:
        contents = archive.open()
        self.damage = tuple(contents.damage)
        self.was_cut_off = contents.epoch > 0 and not contents.is_clean
        # Damage may have taken the end of a stream: its places must not be given away again in this epoch.
        self.goes_on = contents.is_clean and contents.epoch > 0 and not contents.damage
        self.epoch = contents.epoch if self.goes_on else max(self.epoch, contents.epoch + 1)
        archive.begin(self.epoch)
        self.streams = {
            symbol: stream if self.goes_on else _forked(stream, self.epoch)
            for symbol, stream in contents.streams.items()
        }

    def connect(
        self, told: Callable[[str], object], stored_from: Callable[[Mapping[str, int]], object]
    ) -> None:
        """From now on `told(symbol)` is called when readers that waited for the disk may read on, and
        `stored_from(firsts)` when the oldest place on disk of a symbol is another one."""
        self._told, self._stored_from = told, stored_from
        stored_from({symbol: stream.first for symbol, stream in self.streams.items()})

    # For those who have something to write. None of these waits.

    def news(self, symbol: str) -> None:
        """The history of `symbol` has grown."""
        if not self._news:
            self._wake()
        self._news[symbol] = None
        track = self._track(symbol)
        if track.history.last - track.taken >= track.history.max_trades // 2 and self._entries_ready < READY:
            deque(self._take(symbol, track), maxlen=0)
            self._wake()
        if self.is_exposed:
            self._show(symbol)

    def fills(self, symbol: str) -> None:
        """Fills are staged in the history of `symbol`. They are settled when they are written."""
        self._wake()
        self._fills[symbol] = None

    def bars(self, rows: Iterable[BarRow], position: int) -> bool:
        """Write these bars as soon as all places of their symbol up to `position` are written.

        A later row replaces one that waits. Returns whether they were taken: if not, too many wait; come
        again. Without an archive they are dropped.
        """
        rows = list(rows)
        if self.archive is None:
            return True
        if len(self._bars) + len(rows) > BARS_WAITING:
            self.totals.bars_refused += len(rows)
            return False
        self._wake()
        for row in rows:
            self._bars[row.symbol, row.width, row.start] = _WaitingBar(row, position)
        return True

    def checkpoint(self, point: Checkpoint) -> None:
        """Write it as soon as its position is written. It replaces an earlier one that waits.

        It is written with or after all bars that were offered before it with no higher position.
        """
        if self.archive is not None:
            self._wake()
            self._points[point.name, point.symbol] = point

    def collect_from(self, giver: Checkpoints) -> None:
        """Ask `giver()` for checkpoints every few seconds, and at the end."""
        self._givers.append(giver)

    # For readers.

    def shown(self, symbol: str) -> int:
        """The last place that readers of `symbol` may see, with `after_commit`."""
        return self._track(symbol).shown

    def position(self, symbol: str) -> int:
        """All places up to this one are on disk, or were."""
        return self._track(symbol).position

    def behind(self, now: float) -> float:
        """Seconds since the oldest place came that is not written; 0 without one."""
        times = [ready.since for ready in self._ready]
        for symbol in self._news:
            track = self._track(symbol)
            times.append(track.history.since_when(track.taken))
        return now - min((since for since in times if since is not None), default=now)

    @property
    def damaged(self) -> int:
        """The number of parts of the store that are damaged, as far as they were met."""
        return len(self.damage) + (0 if self.archive is None else self.archive.damaged)

    def troubles(self, now: float, most: float) -> list[str]:
        """What is wrong, in words; behind by more than `most` seconds is. Empty: nothing."""
        if self.archive is None:
            return []
        behind, words = self.behind(now), []
        if self.trouble is not None:
            words.append(self.trouble)
        if behind > most:
            words.append(f"behind {behind:.0f} s")
        return [f"{paths.HISTORY}: {each}" for each in (*words, *self.damage)]

    # For the recorder.

    def follow(self, wake: Callable[[], object]) -> None:
        """A recorder is here: it hears `wake()` when something waits. It looks at all symbols once."""
        self._wake = wake
        self._news.update(
            dict.fromkeys(name for name, each in self._tracks.items() if each.history.last > each.taken)
        )

    @property
    def waits(self) -> bool:
        """Whether anything may be there to be written."""
        return bool(self._news or self._ready or self._fills) or any(
            True for _ in chain(self._due_points(), self._due_bars())
        )

    @property
    def is_pressing(self) -> bool:
        """Whether so much waits that it should be written before its time."""
        return self._entries_ready >= MOST

    def collect(self) -> None:
        """Ask the givers for their checkpoints."""
        for giver in self._givers:
            for point in giver():
                self.checkpoint(point)

    def runs(self) -> Iterator[Run]:
        """Take what is to be written next, about `MOST` entries in all, run by run as they are asked for."""
        for symbol in list(self._news):
            for run in self._take(symbol, self._track(symbol)):
                yield run
                if self._entries_ready >= MOST:
                    return

    def _take(self, symbol: str, track: _Track) -> Iterator[Run]:
        self._news.pop(symbol, None)
        while track.taken < track.history.last:
            # As long as some is left, and behind the others: a busy symbol must not keep them waiting.
            self._news[symbol] = None
            since = track.history.since_when(track.taken)
            run = _next(symbol, track.history, track.taken)
            if run.last == track.history.last:
                self._news.pop(symbol, None)
                self._point_at_feeds(symbol, track)
            track.taken = run.last
            self._ready.append(_Ready(run, since))
            self._entries_ready += run.count
            yield run

    def _point_at_feeds(self, symbol: str, track: _Track) -> None:
        last = track.history.last
        if last - track.fed >= FEEDS_EVERY:
            track.fed = last
            data = _encode(track.history.newest_by_source())
            self._points[FEEDS, symbol] = Checkpoint(FEEDS, symbol, last, data)

    def batch(self, runs: Iterable[Run] = ()) -> Batch:
        """What is to be written next, with these `runs()`: about `MOST` entries, and what is made of places
        that are on disk then."""
        deque(runs, maxlen=0)  # they are among the ready ones
        counts = accumulate((ready.run.count for ready in self._ready), initial=0)
        fit = takewhile(lambda each: each[0] < MOST, zip(counts, self._ready, strict=False))
        runs = tuple(ready.run for _, ready in fit)
        reached = {run.symbol: run.last for run in runs}
        runs = (*runs, *self._due_fills(reached))
        bars = tuple(each.row for each in self._due_bars(reached))
        return Batch(runs, bars, tuple(self._due_points(reached)))

    def written(self, batch: Batch) -> None:
        """The batch is on disk."""
        totals, new = self.totals, {}
        totals.commits += 1
        del self._ready[: sum(not run.is_fill for run in batch.runs)]
        self._entries_ready = sum(ready.run.count for ready in self._ready)
        for run in batch.runs:
            track = self._track(run.symbol)
            if run.is_fill:
                track.history.settle(run.count)
                continue
            if not track.position and run.symbol not in self.streams:
                new[run.symbol] = run.first
            track.position = run.last
            totals.entries += run.count
            totals.bytes += len(run.data)
            totals.unrecorded += _lost(run)
        for row in batch.bars:
            if self._bars[key := (row.symbol, row.width, row.start)].row is row:
                del self._bars[key]
        for point in batch.checkpoints:
            if self._points[point.name, point.symbol] is point:
                del self._points[point.name, point.symbol]
        if new:
            self._stored_from(new)
        self._settled({run.symbol: None for run in batch.runs if run.is_fill})
        if self.after_commit:
            for symbol in {run.symbol: None for run in batch.runs}:
                self._show(symbol)

    def expose(self) -> None:
        """The disk is stuck: readers no longer wait for it."""
        self.is_exposed = True
        for symbol in {ready.run.symbol: None for ready in self._ready} | self._news:
            self._show(symbol)

    def new_damage(self) -> tuple[str, ...]:
        """What the store has found lost since the last time, in words; `troubles` has it from now on."""
        new = () if self.archive is None else tuple(self.archive.lost[self._lost :])
        self._lost += len(new)
        self.damage += new
        return new

    def removed(self, firsts: Mapping[str, int]) -> None:
        """The store has removed old places; these are the first ones that are left."""
        if firsts:
            self._stored_from(firsts)

    @property
    def is_complete(self) -> bool:
        """Whether all that was admitted is on disk."""
        tracks = [*self._tracks.values(), *map(self._track, self._news)]
        return all(track.history.last == track.position for track in tracks)

    def _show(self, symbol: str) -> None:
        track = self._track(symbol)
        end = track.history.last if self.is_exposed else track.position
        if end > track.shown:
            track.shown = end
            self._told(symbol)

    def _track(self, symbol: str) -> _Track:
        track = self._tracks.get(symbol)
        if track is None:
            stream = self.streams.get(symbol)
            last = 0 if stream is None else stream.last
            track = self._tracks[symbol] = _Track(self._history_of(symbol), last, last, last, 0)
        return track

    def _due_fills(self, reached: Mapping[str, int]) -> list[Run]:
        """Of gaps that are on disk, or will be when what has `reached` these places is."""
        return [
            Run.of(symbol, places, is_fill=True)
            for symbol in self._fills
            for places in self._track(symbol).history.unsettled(self._end(symbol, reached), SLICE)
        ]

    def _settled(self, symbols: Iterable[str]) -> None:
        """Some of the fills of these symbols are on disk, and may be told."""
        for symbol in symbols:
            if not self._track(symbol).history.has_staged:
                self._fills.pop(symbol, None)
            self._told(symbol)

    def _due_bars(self, reached: Mapping[str, int] | None = None) -> Iterator[_WaitingBar]:
        return (each for each in self._bars.values() if each.position <= self._end(each.row.symbol, reached))

    def _due_points(self, reached: Mapping[str, int] | None = None) -> Iterator[Checkpoint]:
        return (each for each in self._points.values() if each.position <= self._end(each.symbol, reached))

    def _end(self, symbol: str, reached: Mapping[str, int] | None) -> int:
        return max(self._track(symbol).position, (reached or {}).get(symbol, 0))


def newest_by_source(point: Checkpoint) -> list[Trade]:
    """What a checkpoint of `FEEDS` holds."""
    return _decode(point.data)


def _forked(stream: Stream, epoch: int) -> Stream:
    return evolve(stream, epochs=(*stream.epochs, (epoch, stream.last + 1)))


def _next(symbol: str, history: History, position: int) -> Run:
    """The next run behind `position`. What memory has forgotten is a gap."""
    forgotten = history.first - 1
    places = history.places(position, SLICE)
    if position < forgotten:
        places[0] = forgotten, Gap(position + 1, forgotten, NOT_RECORDED)
    return Run.of(symbol, places)


def _lost(run: Run) -> int:
    """The number of its places that were not recorded: only its first entry can stand for some."""
    gap = run.places[0][1]
    return gap.last - gap.first + 1 if isinstance(gap, Gap) and gap.reason == NOT_RECORDED else 0
