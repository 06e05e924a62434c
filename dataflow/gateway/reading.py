"""Questions about a part of a symbol's stream, and their answers: positions become places, and back.

Rules of this file. A position goes on behind what the client holds, or before it: the one in the direction of
the walk. If it is on a branch that was lost, the answer begins where that branch left the stream, and says
so. If nothing is known of it, the answer begins with the gap `UNKNOWN`, and holds all that there is. The
other bounds only bound, so there an unknown position is a mistake. A walk goes as far as the stream went when
it began.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from attrs import frozen

from dataflow.cache.archive import Places
from dataflow.cache.history import History
from dataflow.cache.tiers import Tiers
from dataflow.domain.timestamps import to_rfc3339

from .answers import Position, TradesPage
from .problems import InvalidValue
from .spelling import shown
from .subscriptions import UNKNOWN
from .walk import Bounds, Walk


@frozen
class Wanted:
    """Which trades and gaps are wanted. None: no bound.

    Places behind `after` and before `before`; times from `start` to before `end`, ns since the epoch.
    `descending`: the newest place first.
    """

    after: Position | None = None
    before: Position | None = None
    start: int | None = None
    end: int | None = None
    descending: bool = False


@frozen
class Located:
    """Where that is. `goes_on`: whether the position in the direction of the walk says anything, or is None.

    `rewound`: where the branch of a position has left the stream. `open`: the range ends at a place that is
    yet to come.
    """

    bounds: Bounds
    goes_on: bool
    rewound: int | None
    open: bool


def located(wanted: Wanted, history: History, first: int, last: int) -> Located:
    """The places of `wanted` in a stream that can be had from `first` to `last`. Raises InvalidValue."""
    _check(wanted)
    rewound: int | None = None
    ahead = "before" if wanted.descending else "after"

    def place(name: str, position: Position, beyond: int) -> int | None:
        """That of a position; None if nothing is known of it. `beyond`: how far it may be behind the end."""
        nonlocal rewound
        current = position.epoch == history.epoch
        fork = last if current else history.shared.get(position.epoch)
        if fork is None or (current and position.offset > last and not beyond):
            if name == ahead:
                return None
            known = [history.epoch, *history.shared]
            raise InvalidValue(name, shown(position), "nothing is known of this position", epochs=known[:5])
        if position.offset > fork + beyond and not current:
            rewound = fork if rewound is None else min(rewound, fork)
        return min(position.offset, fork + beyond)

    after = 0 if wanted.after is None else place("after", wanted.after, 0)
    before = last + 1 if wanted.before is None else place("before", wanted.before, 1)
    bounds = Bounds(
        max(0, first - 1) if after is None else after,
        last + 1 if before is None else before,
        wanted.start,
        wanted.end,
        wanted.descending,
    )
    is_open = wanted.before is not None and wanted.before.offset > last + 1
    return Located(bounds, None not in (after, before), rewound, is_open)


def _check(wanted: Wanted) -> None:
    for name, position in (("after", wanted.after), ("before", wanted.before)):
        if position is not None and not (0 <= position.offset < 1 << 62 and 0 <= position.epoch < 1 << 62):
            raise InvalidValue(name, shown(position), "an offset and an epoch are whole numbers from 0 on")
    if wanted.start is not None and wanted.end is not None and wanted.start > wanted.end:
        problem = f"must not be before {to_rfc3339(wanted.start)}, `from`"
        raise InvalidValue("to", to_rfc3339(wanted.end), problem)


class TradesWalk:
    """Goes through what is wanted, part by part, in constant memory. `over`: that was all that there is now.

    `first` comes before the first part. `passed`: a range of time that ends by then, ns since the epoch, gets
    no more trades. Every part may raise Unavailable or TooManyRequests; then it can be asked for again.
    """

    def __init__(
        self,
        symbol: str,
        wanted: Wanted,
        history: History,
        last: int,
        tiers: Tiers,
        reading: Callable[[], AbstractAsyncContextManager[Any]],
        passed: int,
    ) -> None:
        where = located(wanted, history, tiers.first(symbol), last)
        self.symbol = symbol
        self.epoch = history.epoch
        self.rewound = None if where.rewound is None else Position(self.epoch, where.rewound)
        self._walk = Walk(tiers, symbol, where.bounds)
        self.first: Places = () if where.goes_on else ((self._walk.at, UNKNOWN),)
        self._descending = wanted.descending
        ends_in_time = wanted.end is not None and wanted.end <= passed
        self._bounded = ends_in_time or (wanted.before is not None and not where.open)
        self._reading = reading

    @property
    def over(self) -> bool:
        """Whether there is nothing more."""
        return self._walk.over

    async def part(self) -> Places:
        """The next entries; perhaps none, although it is not over."""
        async with self._reading():
            return await self._walk.part()

    def __aiter__(self) -> TradesWalk:
        return self

    async def __anext__(self) -> Places:
        """The parts that hold anything."""
        if self.first:
            first, self.first = self.first, ()
            return first
        while not self.over:
            if part := await self.part():
                return part
        raise StopAsyncIteration

    def page(self, entries: Places, cut: bool) -> TradesPage:
        """What came so far as a page. `cut`: the walk has gone beyond its last entry."""
        more = cut or not self.over
        following: int | None = self._walk.told
        if cut:
            last, entry = entries[-1]
            following = getattr(entry, "first", last) if self._descending else last
        elif self.over and (self._descending or self._bounded):
            following = None
        next = None if following is None else Position(self.epoch, following)
        return TradesPage(self.symbol, self.epoch, entries, next, more, self.rewound)
