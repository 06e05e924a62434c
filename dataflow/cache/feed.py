"""What one source has given in one symbol: its numbering, the ids that are remembered, and what is missing.

Rules of this file: pure; no place, no clock. `History` has the rules of admission, and asks here. A feed is
changed only by what came from its own source.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from attrs import define, evolve, field

from dataflow.domain import Gap, Missed, Trade

from .holding import Held
from .verdict import Verdict

NEVER: Final = float("-inf")  # earlier than every timestamp

ANEW: Final = 3  # trades in a row that happened after the newest one, by its own time: a new numbering
LONG: Final = 20  # trades in a row for any other proof: more than a few stragglers, and few enough to lose
LASTING: Final = 10.0  # seconds for which a row lasts that only our clock can prove: a replay is shorter
OFF: Final = 5.0  # seconds that the clock of an exchange and ours may differ by
HOLES: Final = 1_000  # of one source that may still be filled: the newest ones

REFUSED: Final = (Verdict.LATE, Verdict.REUSED, Verdict.IMPLAUSIBLE, Verdict.TOO_OLD)


class Refused(NamedTuple):
    """Trades of a feed that were refused since its last admitted one: how many, the first at `since` and the
    last at `at`, on the clock of `History.admit`. `why`: the verdict on the last."""

    trades: int
    since: float
    at: float
    why: Verdict


class Hole(NamedTuple):
    """Missing trades in an exact gap. `sequence` and `first`: those of the first one. All of them have times
    from `earliest` to `latest`."""

    sequence: int
    first: int
    size: int
    earliest: float
    latest: float

    def fits(self, trade: Trade) -> bool:
        """Whether the trade has the time of one of them."""
        return self.earliest <= trade.timestamp <= self.latest


@define(repr=False)
class Feed:
    """The state of one source in one symbol."""

    newest: Trade | None = None  # the last admitted trade
    came_at: float = NEVER  # it did so here, on the clock of `History.admit`
    answered: Trade | None = None  # the same when an answer brought it last, and not the stream
    is_promised: bool = False  # its trades are the stream's, also before the first one
    last_sequence: int | None = None
    missed: Missed | None = None  # trades may be missing before the next trade
    floor: float = NEVER  # highest credible timestamp among the forgotten ids
    refused: Refused | None = None  # None: nothing since the newest trade
    strays: list[int] = field(factory=list)  # sequences, or times, of the last trades, if refused ...
    why: Verdict | None = None  # ... for this
    later: int = 0  # so many of the last strays happened after the newest trade ...
    later_since: float = 0.0  # ... the first of which came then
    ids: dict[str | None, Trade] = field(
        factory=dict
    )  # admitted trades, as far as they are remembered; no None
    holes: list[Hole] = field(factory=list)  # of the present numbering, in its order
    held: Held | None = None  # what waits for missing trades

    def step(self, trade: Trade) -> int | None:
        """The growth of the sequence since the last trade of the source; None without a sequence."""
        if trade.sequence is None or self.last_sequence is None:
            return None
        return trade.sequence - self.last_sequence

    def has_passed(self, trade: Trade) -> bool:
        """Whether its sequence is behind us: if it is missing, then in a gap."""
        step = self.step(trade)
        return step is not None and step <= 0

    def moves_on(self, trades: Sequence[Trade], above_floor: bool) -> bool:
        """Whether each trade of a run follows the one before it, as far as the trades can show it."""
        sequences = [trade.sequence for trade in trades]
        if sequences[0] is None:
            return above_floor and self.missed is None and sequences.count(None) == len(sequences)
        if self.last_sequence is None:
            return False
        first = self.last_sequence + 1
        return sequences == list(range(first, first + len(sequences)))

    def repeated(self, trades: Sequence[Trade]) -> int:
        """How many of the first of these trades are remembered, and do not lead the sequence on."""
        known, last = self.ids.get, self.last_sequence
        for count, trade in enumerate(trades):
            found = known(trade.trade_id)
            if found is None or found.timestamp != trade.timestamp:
                return count
            if last is not None and trade.sequence == last + 1:
                return count
        return len(trades)

    def note(self, mark: Missed) -> Verdict:
        """Some trades may be missing before the next one."""
        if self.newest is not None or self.is_promised:  # else nothing is promised before the first trade
            self.missed = mark if self.missed is None else evolve(mark, reason=self.missed.reason)
        return Verdict.NOTED

    def overlap(self, trade: Trade) -> None:
        """Draw the conclusions from a duplicate: see the top of `history`."""
        mark, newest = self.missed, self.newest if self.held is None else self.held.newest
        if mark and mark.resubscribed and newest and trade.trade_id == newest.trade_id:
            self.missed = None
        if self.step(trade) == 1:  # only when a new numbering reaches trades that were admitted before
            self.last_sequence = trade.sequence

    def goes_on(self, trade: Trade, verdict: Verdict, now: float, clock: Callable[[], float]) -> bool:
        """Count the trades that do not fit. Returns whether this one proves that they are a new stream.

        Then call `begin_anew`. `clock`: wall time, seconds since the epoch.
        """
        if verdict not in REFUSED:
            if self.strays:
                self.strays = []
            return False
        goes_on = self._is_proof(trade, verdict, now, clock)
        if not goes_on:
            before, since = (0, now) if self.refused is None else self.refused[:2]
            self.refused = Refused(before + 1, since, now, verdict)
        return goes_on

    def _is_proof(self, trade: Trade, verdict: Verdict, now: float, clock: Callable[[], float]) -> bool:
        number = trade.timestamp if trade.sequence is None else trade.sequence
        is_later = verdict is not Verdict.IMPLAUSIBLE and self._is_later(trade, now, clock)
        if verdict is not self.why:
            self.strays = []
        self.why = verdict
        if verdict in (Verdict.REUSED, Verdict.TOO_OLD) and not is_later:  # it may be a repetition
            self.strays = []
            return False
        if number in self.strays:  # another connection to the source repeats it
            return False
        if verdict is Verdict.IMPLAUSIBLE:
            before, self.strays = self.strays, [number]
            return before == [number - 1]
        # Two connections are heard in turn, each in order: one brings what the other has passed.
        in_order = bool(self.strays) and number > self.strays[0]
        self.strays = sorted([*self.strays, number]) if in_order else [number]
        del self.strays[1 : -2 * LONG]
        if not (is_later and in_order and self.later):
            self.later, self.later_since = 0, now
        self.later += is_later
        if self._ends_run(trade):
            return True
        lasts = now - self.later_since >= LASTING and self.later >= LONG
        return lasts or (verdict is Verdict.LATE and len(self.strays) >= LONG)

    def _is_later(self, trade: Trade, now: float, clock: Callable[[], float]) -> bool:
        """Whether a trade happened after the newest one: by its own time, or because that one was here
        before, if the time of the newest one lies in the future."""
        if self.newest is None or self.is_younger(trade):
            return self.newest is not None
        wall = clock()
        return wall - (now - self.came_at) + OFF < trade.timestamp / 1e9 <= wall + OFF

    def is_younger(self, trade: Trade) -> bool:
        """Whether a trade happened after the newest admitted one, by their own times."""
        newest = self.newest if self.held is None else self.held.newest
        return newest is not None and trade.timestamp > newest.timestamp

    def _ends_run(self, trade: Trade) -> bool:
        """Whether the strays end with `ANEW` sequences without a hole, none of which may be a missing one."""
        if self.later < ANEW or not self.has_passed(trade) or not self.is_younger(trade):
            return False
        assert trade.sequence is not None
        run = range(trade.sequence - ANEW + 1, trade.sequence + 1)
        return self.strays[-ANEW:] == list(run) and self._hole_at(trade.sequence) is None

    def begin_anew(self) -> None:
        """The row that is over now has proven a new numbering: the old numbers tell nothing any more."""
        self.holes.clear()
        self.strays = []

    def begin_at(self, sequence: int | None) -> None:
        """Its trades are the stream's from here on, behind the one with that sequence. Those before are not,
        so none of them is missing."""
        self.last_sequence, self.missed, self.is_promised = sequence, None, True
        self.strays, self.refused = [], None

    # -- what is missing in exact gaps -----------------------------------------------------------

    def open(self, gap: Gap, following: Trade) -> None:
        """Remember an exact gap before the trade `following`, so that it can be filled."""
        if gap.sequence is None:
            return
        before = self.newest
        moments = [following.timestamp, following.timestamp if before is None else before.timestamp]
        earliest = NEVER if before is None else min(moments)
        self.holes.append(Hole(gap.sequence, gap.first, gap.last - gap.first + 1, earliest, max(moments)))
        del self.holes[:-HOLES]

    def reopen(self, before: Trade, gap: Gap, behind: Trade) -> bool:
        """Remember an exact gap of long ago, which lies between these two trades and before all that are
        remembered. Returns whether it is of the present numbering."""
        end = self.holes[0].sequence if self.holes else self.last_sequence
        size = gap.last - gap.first + 1
        fits = (
            gap.sequence is not None
            and (before.sequence, behind.sequence) == (gap.sequence - 1, gap.sequence + size)
            and end is not None
            and gap.sequence + size <= end
            and len(self.holes) < HOLES
        )
        if fits and gap.sequence is not None:
            moments = before.timestamp, behind.timestamp
            self.holes.insert(0, Hole(gap.sequence, gap.first, size, min(moments), max(moments)))
        return fits

    def hole_of(self, trade: Trade) -> Hole | None:
        """The hole in which this trade is missing; None when there is none, or the time is wrong."""
        hole = None if trade.sequence is None else self._hole_at(trade.sequence)
        return hole if hole is not None and hole.fits(trade) else None

    def _hole_at(self, sequence: int) -> Hole | None:
        at = bisect_right(self.holes, sequence, key=lambda hole: hole.sequence) - 1
        if at < 0 or sequence >= self.holes[at].sequence + self.holes[at].size:
            return None
        return self.holes[at]

    def fill(self, hole: Hole, trades: Sequence[Trade]) -> int:
        """Missing trades of a hole, in order and without a hole between them, have come. Returns the place of
        the first. What is still missing beside them is a smaller hole."""
        assert trades[0].sequence is not None
        before = trades[0].sequence - hole.sequence
        behind = before + len(trades)
        left = hole._replace(size=before, latest=trades[0].timestamp)
        right = Hole(
            hole.sequence + behind,
            hole.first + behind,
            hole.size - behind,
            trades[-1].timestamp,
            hole.latest,
        )
        at = self.holes.index(hole)
        self.holes[at : at + 1] = [part for part in (left, right) if part.size]
        return hole.first + before
