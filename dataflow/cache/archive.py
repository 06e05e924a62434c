"""A history on disk: the Protocol of all stores, and the values that go in and out.

Rules of this file: values and the Protocol. A store is one class `Store` in a file of `dataflow/stores`. It
keeps the stream of each symbol: places that grow by one, a trade or a gap in each. Its methods block, so the
daemon calls them in threads: one writer at a time, and any number of readers beside it. Nothing wrong is ever
returned. What is damaged or was removed is just not there: `Tiers` sees the hole, and puts a gap there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import field, frozen

from dataflow.domain import Gap, Recorded
from dataflow.domain.entries import pack

from .places import Places as Places
from .places import first_place


class ArchiveFailed(Exception):
    """The store cannot do this now: the disk is full or gone, the server is down. Its text is for people.

    Whatever was to be written is not written. It may succeed later.
    """


class ArchiveFull(ArchiveFailed):
    """There is no room. `Archive.make_room` may help."""


@frozen
class Run:
    """Places `first` to `last` of a stream, without a hole.

    `count` entries, packed as `data` (see `domain.entries`). `earliest` and `latest` are the lowest and the
    highest timestamp of its trades, ns since the epoch; None without any. `is_fill`: the places held a gap
    before.
    """

    symbol: str
    first: int
    last: int
    places: Places = field(repr=False)
    data: bytes = field(repr=False)
    earliest: int | None
    latest: int | None
    is_fill: bool = False

    @classmethod
    def of(cls, symbol: str, places: Places, *, is_fill: bool = False) -> Run:
        """The run of these places, at least one."""
        first = first_place(*places[0])
        times = [entry.timestamp for _, entry in places if not isinstance(entry, Gap)]
        earliest, latest = (min(times), max(times)) if times else (None, None)
        return cls(symbol, first, places[-1][0], places, pack(places), earliest, latest, is_fill)

    @property
    def count(self) -> int:
        """The number of entries."""
        return len(self.places)


@frozen
class BarRow:
    """A bar of `width` ns from `start` on (ns since the epoch). A higher `rev` replaces a lower one."""

    symbol: str
    width: int
    start: int
    rev: int
    data: bytes


@frozen
class Checkpoint:
    """The state of a follower named `name`, made of all places of a symbol up to `position`."""

    name: str
    symbol: str
    position: int
    data: bytes


@frozen
class Batch:
    """What one transaction writes: all of it or nothing."""

    runs: Sequence[Run] = ()
    bars: Sequence[BarRow] = ()
    checkpoints: Sequence[Checkpoint] = ()


@frozen
class Stream:
    """What a store has of a symbol: places `first` to `last`. `first` is `last + 1` if nothing is left.

    `epochs`: the chain of (epoch, its first place), the oldest first. The last one is the epoch of the store.
    """

    first: int
    last: int
    epochs: Sequence[tuple[int, int]]


@frozen
class Contents:
    """What a store holds when it is opened.

    `epoch`: that of its newest places; 0 for a new store. `is_clean`: whether all that was admitted in this
    epoch is here, because the last daemon stopped in order. `damage`: what is lost, a line each, for people.
    """

    epoch: int
    is_clean: bool
    streams: Mapping[str, Stream]
    damage: Sequence[str] = ()


@frozen
class Keep:
    """How much a store keeps. `days`: UTC days, today included. `trades` of each symbol; 0: no bound.

    `min_free`: bytes that stay free on the disk; 0: no bound. Today is never removed for its sake.
    """

    days: int
    trades: int
    min_free: int


@frozen
class Usage:
    """`size` in bytes. `free`: bytes that are free beside it, None where nobody knows. `oldest`: the oldest
    UTC day, as "2026-11-27"; None for an empty store."""

    size: int
    free: int | None
    oldest: str | None


@frozen
class StoredStream:
    """Places `first` to `last` of a symbol on one day; a place that is damaged or removed may be among them.

    `trades` of `entries`; `earliest` and `latest`: their lowest and highest time, ns, None without any.
    `size`: bytes, as far as they are known; what is not compressed yet counts 0.
    """

    first: int
    last: int
    entries: int
    trades: int
    earliest: int | None
    latest: int | None
    size: int


@frozen
class StoredDay:
    """What a store has of a UTC day of admission. `name`: as "2026-11-27". `size`: bytes on disk."""

    name: str
    size: int
    streams: Mapping[str, StoredStream]


class Archive(Protocol):
    """A history on disk. Raises ArchiveFailed from every method, if not said otherwise.

    Times are ns since the epoch; a time as a bound means its microsecond, as clients see it.
    """

    @property
    def damaged(self) -> int:
        """The number of parts that were found damaged by reading. Raises nothing."""

    @property
    def lost(self) -> Sequence[str]:
        """A line, for people, for each loss that a write has met since `open`. It only grows."""

    def open(self) -> Contents:
        """Take the store for this process alone, and look what is there.

        Raises ConfigError when it cannot be used at all: no right to write, another daemon, a format of
        another version. A damaged file is set aside under another name.
        """

    def begin(self, epoch: int) -> None:
        """From now on everything is of this epoch, which is the present or a higher one.

        The places of a higher one follow those that are stored. It is on disk when this returns. Until
        `close` the store counts as not clean.
        """

    def append(self, batch: Batch) -> None:
        """Write one transaction. When this returns, it survives the death of the process.

        Runs of a symbol follow each other and what is stored. Places that are stored already are skipped, so
        the same batch can be written again. A fill replaces gaps.
        """

    def behind(self, symbol: str, after: int, limit: int) -> Places:
        """The first `limit` stored entries that end behind place `after`, in order, fills included.

        A gap is never cut. A part that is damaged or removed is left out.
        """

    def newest(self, symbol: str, count: int, below: int) -> Places:
        """The newest `count` stored trades at places below `below`, in order, with the gaps between and
        behind them."""

    def gaps(self, symbol: str, below: int, limit: int) -> Sequence[Gap]:
        """Stored gaps before place `below` that can be filled: exact ones of a source with sequences. The
        newest first, `limit` at most. Those of long ago may be left out: a store looks back for so long only.
        """

    def skip(self, symbol: str, after: int, start: int, end: int) -> int:
        """A place, `after` or higher. No stored trade between them has a time of `start` to before `end`."""

    def ascending(self, symbol: str, after: int, count: int, below: int) -> list[Recorded]:
        """The oldest trades with a time after `after` at places below `below`, sorted by time (in us) and
        place: `count`, and those of the same microsecond as the last one; or all that there are."""

    def descending(self, symbol: str, before: int | None, count: int, below: int) -> list[Recorded]:
        """The same for the newest trades with a time before `before` (None: all), newest first."""

    def latest(self, symbol: str, below: int) -> int | None:
        """The highest time of the stored trades at places below `below`; None without any."""

    def bars(self, symbol: str, width: int, start: int, end: int, limit: int) -> list[BarRow]:
        """The first `limit` bars of this width that start from `start` to before `end`, oldest first."""

    def checkpoints(self, name: str) -> dict[str, Checkpoint]:
        """The newest checkpoints of the follower `name`, by symbol."""

    def retain(self, keep: Keep, today: str) -> Mapping[str, int]:
        """Remove what need not be kept, the oldest first. `today`: the UTC day, as "2026-11-27".

        Returns the first place that is left, for the symbols where it has changed.
        """

    def make_room(self, today: str) -> Mapping[str, int] | None:
        """Remove the oldest day, but never today: for a full disk. Returns the same; None: there is no such
        day."""

    def usage(self) -> Usage:
        """How large it is."""

    def verify(self) -> Sequence[str]:
        """Read everything. Returns a line for each part that is damaged, for people."""

    def close(self, clean: bool) -> None:
        """Give the store back. `clean`: everything that was admitted is written. Raises nothing."""
