"""What waits for the readers of a feed, and where each of them stands.

Rules of this file. No I/O: only events of anyio to wait for each other. A queue has a bound. While it is full
the feed waits; nothing in it is ever dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from attrs import define, field

from .client import TRADES
from .events import Filled, Gap, Rewound, Subscribed, Topic, Trade
from .stream import Cursor


@define(eq=False)
class Inbox:
    """What waits for one reader, at most `room` entries. `error`: why it ended, None for an end in order."""

    topics: Sequence[Topic]
    room: int
    queue: deque[Any] = field(factory=deque)
    taken: deque[Any] = field(factory=deque)  # out of the queue by another thread, and not given so far
    ended: bool = False
    error: Exception | None = None
    asleep: anyio.Event | None = None  # of the reader
    crowded: anyio.Event | None = None  # of the feed

    def put(self, event: Any) -> None:
        """Add an event; there must be room."""
        self.queue.append(event)
        if self.asleep is not None:
            self.wake()

    def wake(self) -> None:
        """Let the reader look."""
        if self.asleep is not None:
            self.asleep.set()
            self.asleep = None

    def relieve(self) -> None:
        """Let the feed go on, once half of the room is free."""
        if self.crowded is not None and (self.ended or len(self.queue) <= self.room // 2):
            self.crowded.set()
            self.crowded = None

    def end(self, error: Exception | None = None) -> None:
        """No more comes. What waits is still given out."""
        if not self.ended:
            self.ended, self.error = True, error
        self.wake()
        self.relieve()

    def replace(self, topic: Topic) -> None:
        """A newer reader has the topic: nothing more is given out, and this reader is told."""
        self.queue.clear()
        self.taken.clear()
        self.end(RuntimeError(f"a newer iterator follows {topic} now: this one has ended"))

    async def until_room(self) -> None:
        """Until half of it is free, or nobody reads any more."""
        while len(self.queue) >= self.room and not self.ended:
            self.crowded = self.crowded or anyio.Event()
            await self.crowded.wait()

    async def until_something(self) -> None:
        """Until an event waits, or no more will come."""
        while not self.queue and not self.ended:
            await self.until_woken()

    async def until_woken(self) -> None:
        """Until the next event, or the end. Another reader may have taken it already."""
        self.asleep = self.asleep or anyio.Event()
        await self.asleep.wait()


@define(eq=False)
class Places:
    """Where the readers of a feed stand in each stream."""

    _cursors: dict[str, Cursor] = field(factory=dict)
    _newest: dict[str, Trade] = field(factory=dict)  # not in its cursor so far: most events are trades

    def begin(self, symbol: str, since: Mapping[str, Any] | None) -> None:
        """A stream is followed: from now on, or behind the position of an earlier life."""
        self._newest.pop(symbol, None)
        cursor = self._cursors[symbol] = Cursor()
        if since is not None:
            cursor.hold(symbol, since)

    def give(self, event: Any) -> bool:
        """An event is given to its reader. Whether the reader wants to see it."""
        if type(event) is Trade:
            self._newest[event.symbol] = event
            return True
        if isinstance(event, Gap | Filled | Rewound):
            self._cursor(event.symbol).take(event)
        elif isinstance(event, Subscribed):
            if event.topic.channel == TRADES:
                self._cursor(event.topic.symbol).take(event)
            return False
        return True

    @property
    def positions(self) -> dict[str, dict[str, Any]]:
        """By symbol: plain values, for JSON."""
        for symbol in list(self._newest):
            self._cursor(symbol)
        return {symbol: cursor.since for symbol, cursor in self._cursors.items() if cursor.epoch}

    def _cursor(self, symbol: str) -> Cursor:
        cursor = self._cursors.setdefault(symbol, Cursor())
        newest = self._newest.pop(symbol, None)
        if newest is not None:
            cursor.take(newest)
        return cursor
