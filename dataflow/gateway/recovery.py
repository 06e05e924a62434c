"""The past in the answer to a subscription: all behind a position, or the newest entries, in slices.

Rules of this file. A long past is made in slices, with a turn for each (see `admission`). Who can write slice
by slice gets only the newest one in the answer: then the log is the queue of a slow client, and what is
forgotten before it was read is a gap. What memory has forgotten is read from disk, in larger parts, and
without a turn; the last slice is always memory's. A disk that fails costs what it has: a gap "overrun" and
`recovered: false`, never silence. No word of any protocol, and none of who goes live when (`subscriptions`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

import trio
from attrs import define, frozen
from loguru import logger

from actors.update import Places
from dataflow import paths
from dataflow.cache.archive import ArchiveFailed
from dataflow.cache.history import Resumed
from dataflow.cache.places import newest, runs
from dataflow.domain import Gap
from dataflow.logs import Burst, often
from dataflow.topics.channel import Deep, TopicLog

from .admission import Turns
from .answers import UNKNOWN, Position
from .past import Part

RECOVERY_LIMIT: Final = 20_000  # entries in the answer to `since`: some 40 ms of encoding, and 4 MB
RECOVERY_SLICE: Final = 200  # of them in one turn: half a millisecond, and 45 KB
DISK_SLICE: Final = 2_000  # of them read from disk at once: some 10 ms in a thread
MOST_GAPS: Final = 1_000  # that a client may ask to be filled at once
FILLED_LIMIT: Final = 2_000  # trades in the answer to that; with what is left the client may ask again

Write: TypeAlias = Callable[[Part], Awaitable[None]]


@frozen
class Since(Position):
    """The last place that a client has. `gaps`: the first and last place of those that it has, too."""

    gaps: Sequence[tuple[int, int]] = ()


@define
class Knows:
    """What a client was told of that a fill may concern: `told` are ranges of places, as they were at the
    fill with the number `fills`."""

    fills: int
    told: list[tuple[int, int]]


def goes_on(resumed: Resumed) -> bool:
    """Whether all is known behind the position, or behind the place to which it was rewound."""
    return resumed.is_known or resumed.rewound == resumed.after


@define
class Recovery:
    """What is on its way to one client of one topic: each slice is written, or added to the one part where
    nobody wants to write.

    `start(after)` makes an empty part behind a place. `hold()`: nothing of the topic is offered until the
    answer is said. `follows()`: whether the client follows it already. `is_torn`: something that was to be in
    the answer could not be had.
    """

    _log: TopicLog
    _turns: Turns
    knows: Knows
    start: Callable[[int], Part]
    _hold: Callable[[], None]
    _follows: Callable[[], bool]
    _troubles: Burst  # with the disk, of all clients
    _write: Write | None
    is_torn: bool = False
    _has_failed: bool = False  # the disk: it is asked no more
    _count: int = 0

    def resume(self, since: Position) -> Resumed:
        """How the client goes on from there."""
        return self._log.resume(since.epoch, since.offset, RECOVERY_LIMIT)

    def begin(self, resumed: Resumed, has_choice: bool) -> Part:
        """The part where a resumed reader goes on. `has_choice`: it takes less if not all can be had."""
        past = self.start(resumed.after)
        if resumed.rewound is not None:
            past.rewind(resumed.rewound)
        if resumed.is_known or self._log.stream.newest_by is not None:
            return past
        if resumed.rewound is None or (has_choice and not goes_on(resumed)):
            past.add([(resumed.after, UNKNOWN)])
        elif resumed.rewound < resumed.after:
            self.add(past, [(resumed.after, Gap(resumed.rewound + 1, resumed.after, "overrun"))])
        return past

    def add(self, past: Part, entries: Places) -> None:
        """These entries come next."""
        past.add(entries)
        gaps = [entry for _, entry in entries if isinstance(entry, Gap) and entry.exact]
        self.knows.told += [(gap.first, gap.last) for gap in gaps]

    async def recover(self, past: Part) -> Part:
        """Everything behind `past` but the newest slice. It ends, however fast new entries come."""
        while self._count < 2 * RECOVERY_LIMIT:
            if self._is_on_disk(past.last):
                entries = await self._reach(past.last, DISK_SLICE)
            else:
                entries = self._log.behind(past.last, RECOVERY_SLICE + 1)
                if len(entries) <= RECOVERY_SLICE:
                    break
                entries = entries[:RECOVERY_SLICE]
            self._count += len(entries)
            for start in range(0, len(entries), RECOVERY_SLICE):
                self.add(past, entries[start : start + RECOVERY_SLICE])
                past = await self._next(past)
        return past

    def end(self, past: Part) -> None:
        """The newest slice, up to the end of the log."""
        self.add(past, self._log.behind(past.last, RECOVERY_SLICE))

    async def filled(self, since: Position) -> list[Places]:
        """What is known of the gaps before the position, as far as it lies on the present branch."""
        gaps = since.gaps if isinstance(since, Since) else ()
        if not gaps:
            return []
        known, after, fork = self.resume(since)
        if not known and fork is None:
            return []  # the client begins anew
        found: list[Places] = []
        count = 0
        for first, last in sorted(gaps):
            after, last = max(first, 1) - 1, min(last, since.offset if fork is None else fork)
            while after < last and count < FILLED_LIMIT and self._count < RECOVERY_LIMIT:
                limit = min(last - after, RECOVERY_SLICE)
                on_disk = self._is_on_disk(after)
                entries = await self._reach(after, limit) if on_disk else self._log.behind(after, limit)
                found += runs([place for place in entries if place[0] <= last])
                count = sum(map(len, found))
                self._count += len(entries)
                after = entries[-1][0] if entries else last
                await self._turns.pause()
        self._count = 0
        return found

    async def older(self, count: int) -> Places:
        """The `count` newest entries, if some of them are on disk alone; else nothing."""
        if not count or not isinstance(self._log, Deep) or not self._log.has_older(count):
            return ()
        return await self._ask(self._log.reach_newest(count))

    def newest(self, count: int, last: int, older: Places) -> Places:
        """The `count` newest entries up to place `last`. `older`: what `older` has found a moment ago."""
        log = self._log
        found: Places = [place for place in log.newest(count + log.last - last) if place[0] <= last]
        if older:
            behind = log.behind(older[-1][0], log.last - older[-1][0] + 1)
            whole = newest([place for place in (*older, *behind) if place[0] <= last], count)
            found = max(found, whole, key=len)
        if self._has_failed:
            found = [(0, UNKNOWN), *found]
        return found

    def _is_on_disk(self, after: int) -> bool:
        return not self._has_failed and isinstance(self._log, Deep) and self._log.is_forgotten(after)

    async def _reach(self, after: int, limit: int) -> Places:
        """Entries behind `after`, as many as there are at once."""
        assert isinstance(self._log, Deep)
        entries = await self._ask(self._log.reach(after, limit))
        self.is_torn |= any(isinstance(entry, Gap) and entry.reason == "overrun" for _, entry in entries)
        return entries or self._log.behind(after, RECOVERY_SLICE)

    async def _ask(self, reading: Coroutine[Any, Any, Places]) -> Places:
        """The answer of the disk; nothing if it fails. Nobody waits for a turn meanwhile."""
        self._turns.leave()
        try:
            return await reading
        except ArchiveFailed as failed:
            if count := self._troubles.occurred("answer", trio.current_time()):  # it fails all that come
                logger.bind(path=paths.SESSIONS).warning(
                    "{}: an answer without what is on disk{}: {}",
                    self._log.stream.topic,
                    often(count),
                    failed,
                )
            self._has_failed = self.is_torn = True
            return ()
        finally:
            await self._turns.take(resuming=False)

    async def show(self, past: Part, entries: Places) -> Part:
        """These entries. They are not sliced for a client that follows the topic: it is owed its updates."""
        if self._write is not None and not self._follows():
            while len(entries) > RECOVERY_SLICE:
                self.add(past, entries[:RECOVERY_SLICE])
                entries = entries[RECOVERY_SLICE:]
                past = await self._next(past)
        self.add(past, entries)
        return past

    async def _next(self, past: Part) -> Part:
        """The part behind `past`, which is written now if it can be."""
        if self._write is None:
            await self._turns.pause()
            return past
        self._hold()
        await self._write(past)
        return self.start(past.last)
