"""Memory and disk as one log: the places of a symbol, wherever they are kept.

Rules of this file. Memory (`History`) has the newest places, the archive older ones, and some of both. What
memory has is never asked of the disk. Reads of the disk run in threads, a few at a time; whoever waits for
one must hold no turn. A hole in what the archive returns becomes a gap "overrun" here, and nowhere else.
Without an archive all of this is memory alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice, takewhile
from typing import Final, TypeVar

import trio

from dataflow.domain import Recorded, Trade

from .archive import Archive, ArchiveFailed
from .history import History, microsecond, page
from .places import Places, below, first_place, newest, whole

T = TypeVar("T")

READS_AT_ONCE: Final = 2  # of the disk; further ones wait for their turn
AT_ONCE: Final = 2_000  # entries of one read: some milliseconds
PATIENCE: Final = 2.0  # seconds to wait for a disk: then memory answers alone, or nobody


class Tiers:
    """Reads the stream of any symbol. `history_of(symbol)`: its memory. `until(symbol)`: the last place whose
    trade a page by time may have, None: all.

    Every method raises ArchiveFailed when it needs the disk, and the disk does not answer.
    """

    def __init__(
        self,
        archive: Archive | None,
        history_of: Callable[[str], History],
        until: Callable[[str], int] | None = None,
    ) -> None:
        self._archive = archive
        self._history_of = history_of
        self._until = until
        self._limiter = trio.CapacityLimiter(READS_AT_ONCE)
        self._firsts: dict[str, int] = {}  # the oldest place on disk

    def stored_from(self, firsts: Mapping[str, int]) -> None:
        """The archive has these symbols from these places on; it was opened, or has removed something."""
        self._firsts.update(firsts)

    def first(self, symbol: str) -> int:
        """The oldest place that can be had."""
        first = self._history_of(symbol).first
        return min(first, self._firsts.get(symbol, first))

    # By place.

    async def behind(self, symbol: str, after: int, limit: int) -> Places:
        """The first `limit` entries behind place `after`. Forgotten ones come first, as one gap "overrun".

        Reads at most `AT_ONCE` of the disk: fewer than `limit` entries do not mean the end.
        """
        history = self._history_of(symbol)
        if self._archive is None or after + 1 >= history.first:
            return history.places(after, limit)
        found = await self._read(self._archive.behind, symbol, after, min(limit, AT_ONCE))
        places = whole(found, after)
        last = places[-1][0] if places else after
        if len(places) < limit and (len(found) < min(limit, AT_ONCE) or last + 1 >= history.first):
            places += history.places(last, limit - len(places))
        return places

    async def preceding(self, symbol: str, before: int, limit: int) -> Places:
        """The last entries before place `before`, in order: at least one, as long as there is any place.

        Some `limit` of them. Forgotten ones come first, as one gap "overrun".
        """
        places = self._history_of(symbol).preceding(before, limit)
        first = first_place(*places[0]) if places else before
        missing = limit - len(places)
        if not missing or first <= 1:
            return places
        found: Places = ()
        if self._archive is not None and first > self.first(symbol):
            found = await self._read(self._archive.newest, symbol, min(missing, AT_ONCE), first)
        older = below(found, first)
        return [*whole(older, first_place(*older[0]) - 1 if older else 0, first - 1), *places]

    async def newest(self, symbol: str, count: int) -> Places:
        """The newest `count` trades by place, with the gaps between and behind them, in order."""
        history = self._history_of(symbol)
        places = history.newest_places(count)
        missing = count - sum(isinstance(entry, Trade) for _, entry in places)
        if self._archive is None or not missing or self.first(symbol) >= history.first:
            return places
        below = history.first
        older = await self._read(self._archive.newest, symbol, missing, below)
        if not older:
            return places
        joined = whole(older, older[0][0] - 1)  # the first is a trade, which has one place
        return newest([*joined, *history.places(joined[-1][0], history.last)], count)

    async def skip(self, symbol: str, after: int, start: int, end: int) -> int:
        """A place, `after` or higher; between the two is no trade with a time of `start` to before `end`."""
        history = self._history_of(symbol)
        if self._archive is None or after + 1 >= history.first:
            return after
        return min(await self._read(self._archive.skip, symbol, after, start, end), history.first - 1)

    # By time: ns since the epoch, exclusive, to the microsecond. Pages as in `History`.

    async def latest(self, symbol: str, count: int) -> list[Recorded]:
        """The `count` newest trades by timestamp, newest first."""
        return (await self._descending(symbol, None, count))[:count]

    async def before(self, symbol: str, timestamp: int, count: int) -> list[Recorded]:
        """A page of trades before `timestamp`, newest first."""
        return page(iter(await self._descending(symbol, timestamp, count + 1)), count)

    async def after(
        self, symbol: str, timestamp: int, count: int, before: int | None = None
    ) -> list[Recorded]:
        """A page of trades after `timestamp` (and before `before`), oldest first."""
        history = self._history_of(symbol)
        below = history.first
        trades: Iterable[Recorded] = _at_least(self._shown(symbol, history.ascending(timestamp)), count + 1)
        if self._archive is not None and await self._reaches_disk(symbol, below, timestamp // 1000 + 1):
            older = await self._read(self._archive.ascending, symbol, timestamp, count + 1, below)
            trades = sorted([*older, *trades], key=_in_time)
        if before is not None:
            end = before // 1000
            trades = takewhile(lambda recorded: microsecond(recorded) < end, trades)
        return page(iter(trades), count)

    async def _descending(self, symbol: str, before: int | None, count: int) -> list[Recorded]:
        """At least `count` trades, and all of the last microsecond, newest first."""
        history = self._history_of(symbol)
        below = history.first
        found = _at_least(self._shown(symbol, history.descending(before)), count)
        enough = len(found) >= count
        if self._archive is None:
            return found
        try:
            if enough and not await self._reaches_disk(symbol, below, microsecond(found[-1])):
                return found
            older = await self._read(self._archive.descending, symbol, before, count, below)
        except ArchiveFailed:
            if enough:
                return found  # as without a disk
            raise
        return sorted([*older, *found], key=_in_time, reverse=True)

    def _shown(self, symbol: str, trades: Iterable[Recorded]) -> Iterable[Recorded]:
        if self._until is None:
            return trades
        end = self._until(symbol)
        return (recorded for recorded in trades if recorded.offset <= end)

    async def _reaches_disk(self, symbol: str, below: int, since: int) -> bool:
        """Whether a trade on disk alone has a time at or after the microsecond `since`."""
        assert self._archive is not None
        if self._firsts.get(symbol, below) >= below:
            return False
        latest = await self._read(self._archive.latest, symbol, below)
        return latest is not None and latest // 1000 >= since

    # Anything else that the disk is asked.

    async def ask(self, question: Callable[[Archive], T]) -> T | None:
        """The answer of the archive; None when there is none."""
        return None if self._archive is None else await self._read(partial(question, self._archive))

    async def _read(self, read: Callable[..., T], *args: object) -> T:
        with trio.move_on_after(PATIENCE):
            return await trio.to_thread.run_sync(read, *args, limiter=self._limiter, abandon_on_cancel=True)
        raise ArchiveFailed(f"the disk has not answered for {PATIENCE:g} s")


def _at_least(trades: Iterable[Recorded], count: int) -> list[Recorded]:
    """The first `count`, and those of the same microsecond as the last one."""
    rest = iter(trades)
    found = list(islice(rest, count))
    if found:
        moment = microsecond(found[-1])
        found += takewhile(lambda recorded: microsecond(recorded) == moment, rest)
    return found


def _in_time(recorded: Recorded) -> tuple[int, int]:
    return microsecond(recorded), recorded.offset
