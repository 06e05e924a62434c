"""Trades of one feed that wait, because others before them are missing and are being asked for.

Rules of this file: pure; no place, no clock. What waits stays in the order in which it goes on. It comes in
runs: before each run something is missing. Trades with sequences say themselves what that is, so a trade that
is missing before a run finds its place here, whoever brings it. Without sequences a mark stands before the
run. Then only an answer to the question for its trades can tell that nothing is missing.

A trade between two others is believed if it has their time: see `Hole`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from typing import Final

from attrs import Factory, define, field

from dataflow.domain import Missed, Missing, Switched, Trade

from .verdict import JUMP, Verdict

HELD: Final = 10_000  # trades of a feed that wait; with one more all of them go on
BELT: Final = 1.0  # seconds: how much later than asked for they go on by themselves
_COARSE: Final = (10**9, 10**6)  # nanoseconds: the REST of some upstreams tells whole seconds, of others ms


def between(trade: Trade, before: Trade | None, behind: Trade, slack: int = 0) -> bool:
    """Whether a trade has the time of one that is missing between these two. None: nothing is known there.

    `slack`: nanoseconds more, on both sides.
    """
    earliest = trade.timestamp if before is None else min(before.timestamp, behind.timestamp)
    latest = behind.timestamp if before is None else max(before.timestamp, behind.timestamp)
    return earliest - slack <= trade.timestamp <= latest + slack


def coarseness(trade: Trade) -> int:
    """The unit in which its time may have been told, in nanoseconds; 0 for one that is finer than ms."""
    return next((unit for unit in _COARSE if trade.timestamp % unit == 0), 0)


@define
class Run:
    """Trades that follow each other. Before the first of them something is missing, `since` that time.

    Without sequences: `mark` tells of it. `brought` is what has come of it so far, oldest first, in parts:
    something may be missing between two answers.
    """

    since: float
    trades: deque[Trade]
    mark: Missed | None = None
    brought: list[list[Trade]] = field(factory=list)

    def bring(self, trades: Sequence[Trade]) -> None:
        """Trades of one answer, oldest first, at least one. Those that others have brought join the two."""
        ids = {trade.trade_id for trade in trades}
        apart, joined = [], [*trades]
        for part in self.brought:
            at = next((at for at, trade in enumerate(part) if trade.trade_id in ids), None)
            if at is None:
                apart.append(part)
            else:  # trades of one moment stay in their order, and REST may tell whole seconds
                behind = [trade for trade in part[at:] if trade.trade_id not in ids]
                joined = [*part[:at], *joined, *behind]
        joined.sort(key=_time)
        self.brought = sorted([*apart, joined], key=lambda part: _time(part[0]))

    @property
    def first(self) -> int:
        """The sequence of the first trade."""
        return _sequence(self.trades[0])

    @property
    def last(self) -> int:
        """The sequence of the last trade."""
        return _sequence(self.trades[-1])


@define
class Held:
    """All that waits of one feed, at least one run: either all trades have a sequence, or none has."""

    runs: list[Run]
    count: int = 1
    ids: dict[str | None, Trade] = field(factory=dict)  # of trades without a sequence

    @classmethod
    def begun(cls, trade: Trade, now: float, mark: Missed | None) -> Held:
        """`trade` is the first that waits. `mark`: None for trades with sequences."""
        made = cls([Run(now, deque([trade]), mark)])
        made._know(trade)
        return made

    @property
    def is_numbered(self) -> bool:
        """Whether the trades have sequences."""
        return self.runs[0].mark is None

    def __contains__(self, trade: Trade) -> bool:
        """Whether this trade waits, without a sequence."""
        if trade.trade_id is not None:
            return trade.trade_id in self.ids
        return any(each is trade for run in self.runs for each in run.trades)

    @property
    def newest(self) -> Trade:
        """The last trade that goes on."""
        return self.runs[-1].trades[-1]

    @property
    def since(self) -> float:
        """When the first of the trades began to wait."""
        return self.runs[0].since

    def ends_before(self, trade: Trade) -> bool:
        """Whether its sequence is behind all that wait."""
        return _sequence(trade) > self.runs[-1].last

    def judge(self, trade: Trade, last_sequence: int | None, newest: Trade | None) -> Verdict:
        """What becomes of a trade that is new to the log, which ends with these two. Nothing is changed.

        ADMITTED: it is the next one of the log. HELD: it must wait, see `keep`.
        """
        if not self.is_numbered:
            known = self.ids.get(trade.trade_id)
            if known is None:
                return Verdict.HELD
            return Verdict.DUPLICATE if known.timestamp == trade.timestamp else Verdict.REUSED
        assert last_sequence is not None
        ahead, behind = self._around(trade)
        if ahead is not None and _sequence(trade) <= ahead.last:
            known = ahead.trades[_sequence(trade) - ahead.first]
            return Verdict.DUPLICATE if _is_same(known, trade) else Verdict.LATE
        if behind is None:
            return Verdict.HELD if _sequence(trade) - self.runs[-1].last <= JUMP else Verdict.IMPLAUSIBLE
        if not between(trade, newest if ahead is None else ahead.trades[-1], behind.trades[0]):
            return Verdict.LATE
        return Verdict.ADMITTED if _sequence(trade) == last_sequence + 1 else Verdict.HELD

    def keep(self, trade: Trade, now: float, mark: Missed | None) -> bool:
        """A trade waits from now on. Returns whether something is missing before it that nobody was told of.

        `mark`: some may be missing before it. Trades with sequences need none.
        """
        self.count += 1
        self._know(trade)
        if not self.is_numbered:
            if mark is not None:
                self.runs.append(Run(now, deque([trade]), mark))
            else:
                self.runs[-1].trades.append(trade)
            return mark is not None
        at, (ahead, behind) = self._at(_sequence(trade)), self._around(trade)
        if ahead is not None and _sequence(trade) == ahead.last + 1:
            ahead.trades.append(trade)
            if behind is not None and ahead.last + 1 == behind.first:
                ahead.trades.extend(behind.trades)
                del self.runs[at]
        elif behind is not None and _sequence(trade) + 1 == behind.first:
            behind.trades.appendleft(trade)
        else:
            self.runs.insert(at, Run(now if behind is None else behind.since, deque([trade])))
            return behind is None
        return False

    def bring(self, trades: Sequence[Trade]) -> None:
        """Trades without a sequence have come that were missing before the first run."""
        self.count += sum(trade.trade_id not in self.ids for trade in trades)
        for trade in trades:
            self.ids[trade.trade_id] = trade
        if trades:
            self.runs[0].bring(trades)

    @property
    def brought(self) -> set[str | None]:
        """The ids of those that have come."""
        return {trade.trade_id for trade in chain.from_iterable(self.runs[0].brought)}

    def take(self) -> Run:
        """Take the first run away."""
        run = self.runs.pop(0)
        trades = [*run.trades, *chain.from_iterable(run.brought)]
        self.count -= len(trades)
        for trade in trades:
            self.ids.pop(trade.trade_id, None)
        return run

    def upto(self, before: Trade | None) -> int:
        """The number of runs that an answer concerns which tells of trades before `before`; None: no run."""
        if before is None:
            return 0
        if self.is_numbered:
            return 0 if before.sequence is None else self._at(before.sequence)
        return next((at for at, run in enumerate(self.runs, 1) if _is_same(run.trades[0], before)), 0)

    def missing(self, last_sequence: int | None, newest: Trade | None) -> Iterable[Missing]:
        """What is missing before each run. The log ends with these two."""
        yield missing(last_sequence, newest, self.runs[0].trades[0])
        for one, other in pairwise(self.runs):
            yield missing(one.trades[-1].sequence, one.trades[-1], other.trades[0])

    def _know(self, trade: Trade) -> None:
        if trade.sequence is None and trade.trade_id is not None:
            self.ids[trade.trade_id] = trade

    def _around(self, trade: Trade) -> tuple[Run | None, Run | None]:
        """The run that begins at its sequence or before it, and the following one."""
        at = self._at(_sequence(trade))
        return self.runs[at - 1] if at else None, self.runs[at] if at < len(self.runs) else None

    def _at(self, sequence: int) -> int:
        return bisect_right(self.runs, sequence, key=lambda run: run.first)


@define
class Takeover:
    """A source takes over, and what it sends waits, because the old one is asked for its last trades.

    `items`: what waits, perhaps nothing. `is_over`: the old one has told a trade from after the switch.
    """

    mark: Switched
    since: float
    items: list[Trade | Missed] = field(factory=list)
    is_over: bool = False


def missing(last_sequence: int | None, after: Trade | None, before: Trade) -> Missing:
    """What did not come between two trades; behind this sequence, if they have one."""
    if last_sequence is None or before.sequence is None:
        return Missing(before.source, before.symbol, after, before)
    return Missing(before.source, before.symbol, after, before, last_sequence + 1, before.sequence - 1)


@define(eq=False)
class Holds:
    """How long trades of a source may wait, in seconds (0: never), and who is told of what is missing.

    `switched(mark, place)` is told that the stream has gone over to another source behind that place,
    `anew(source, symbol)` that a source numbers the symbol anew: what was missing before cannot be had.
    `clock`: wall time, seconds since the epoch; asked about trades that are refused. Without one nothing is
    concluded from it.

    None of them may raise. `counts`: trades that have gone on, as those of the store. `ended`: how often
    those that waited for the same loss have gone on, by source, and why: "whole", "unanswered", "overdue",
    "full", "anew" (a new numbering), "mixed" (with and without sequences), "ended" (the source is gone, or
    the daemon ends).
    """

    seconds: Callable[[str], float] = lambda _source: 0.0
    missing: Callable[[Missing], None] = lambda _missing: None
    switched: Callable[[Switched, int], object] = lambda _mark, _place: None
    anew: Callable[[str, str], object] = lambda _source, _symbol: None
    clock: Callable[[], float] = lambda: float("-inf")
    counts: Counter[tuple[str, str]] = Factory(Counter)
    ended: Counter[tuple[str, str]] = Factory(Counter)


def _time(trade: Trade) -> int:
    return trade.timestamp


def _sequence(trade: Trade) -> int:
    assert trade.sequence is not None
    return trade.sequence


def _is_same(one: Trade, other: Trade) -> bool:
    return (one.trade_id, one.timestamp) == (other.trade_id, other.timestamp)
