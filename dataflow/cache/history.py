"""The log of one symbol: admitted trades in order, and gaps for missing ones.

Rules of this file. Pure: no clock, no I/O, no trio; `now` is given. Every place of a log has an offset.
Offsets begin at 1 and grow by one. A place holds a trade or a gap, so that a reader sees a hole in the
offsets. A trade is admitted once, however often it comes. A trade that cannot be judged is refused and
counted, never guessed. All memory is bounded. The cost of appending and of finding does not grow with the
number of stored trades.

Proof that nothing is missing. Either the sequence grows by one. Or, after a resubscription, the source
repeats its newest admitted trade: a stream in order that passes this trade has all trades behind it. An older
duplicate proves nothing. If a connection lost trades in its midst, no duplicate brings them back: that mark
stays until its gap is put, or until a later resubscription repeats the newest trade.

A trade that does not fit is refused at first, and believed when more follow. What proves that a source
numbers anew is a row: trades in order, none before the first of them, and no other trade of that source
between. `ANEW` late trades are one, if their sequences have no hole, none of them may be a missing one, and
all of them happened after the newest admitted trade. `LONG` late trades are one whenever they happened.
Trades that might be repetitions, for their age or their ids, are one only if `LONG` of them in `LASTING`
seconds happened after the newest admitted trade, or after it came here: its own time may lie in the future,
and a clock be set back. Anything shorter proves nothing. It is refused and counted, and who looks after the
source is told (`refused_of`).

What was missing before a new numbering cannot be had (`Holds.anew`). A sequence more than `JUMP` ahead is
implausible until the very next trade continues from it. In all these cases the number of missing trades is
unknown, so one inexact gap announces the loss, the refused trades included. Two connections to one source
bring everything twice, each in order: a repeated number neither counts nor breaks a row.

A new numbering may use an id again. With a sequence, the same id at another timestamp is another trade.
Without a sequence it is refused as reused, because the two cannot be told apart, until a row has proven the
new numbering; then the old ids are forgotten. A replay that looks like a new numbering costs one gap too
many: its trades were never admitted before, and when it reaches admitted trades, the duplicates lead back to
the old numbering.

A missing trade that comes late fills its place. An exact gap of a source with sequences tells which place is
that of which sequence, and the trades around it tell when it was. A trade outside of that time has another
numbering, and fills nothing. What fills is staged at first: no reader sees it, because it must be on disk
before anybody is told of it (`settle`). A filled place never changes again.

A source that can be asked for missing trades (`Holds`) puts no gap at first. The trade that shows the loss
and those behind it wait: at most `HELD`, and no more than half of the log, so that no reader is overrun when
they go on. What is missing may come from another connection to the source, or as an answer (`refill`). They
go on as soon as nothing is missing before them; or behind the gap, when the answer says that it is the last
one, when nobody has answered in time, when more come than may wait, or when a new numbering begins. No trade
passes one that it must follow. What waits has no place: no reader sees it, and no disk. An answer is believed
only for what is missing: at the end of the log, before a trade that waits, or in an exact gap.

A stream may be of one source at a time (`switch`). What the others sent before their turn is not missing.
What may be missing of the old source is asked for like any other loss, and meanwhile the new one waits. But
how much it is nobody knows, so its gap is inexact, and what comes later than that is not of the stream.

A trade without an id cannot be recognised when it comes again. So each that comes is one trade, whatever its
age; only a sequence can refuse it.

When trades are refused for their age, a timestamp does not count if it is more than `AHEAD` later than the
next ones of its source. So one wrong timestamp silences a source for that time at most.

Trades have two orders: by offset, the order of admission, and by timestamp. Trades of the same microsecond
stand in the order of their offsets. The order by time is made on demand, from the trades since the last
demand, because nearly every trade is forgotten before anybody asks. In the worst case all kept trades are out
of order: 10,000 trades take some 10 ms.

Most trades come in runs that need no judgement: one source, a sequence that grows by one or no sequence at
all, ids that are new or none. `admit_run` recognises such a run and admits it as a whole, at a tenth of the
price of `admit`. It does not touch any other run. Only `admit` judges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise, takewhile
from typing import Final, NamedTuple, Protocol

from attrs import Factory, define, evolve, field, setters, validators

from dataflow.domain import Entry, Gap, Missed, Missing, Recorded, Refilled, Switched, Trade

from .feed import NEVER, Feed, Hole, Refused
from .holding import BELT, HELD, Held, Holds, Run, Takeover, between, coarseness, missing
from .ordered import ByPlace, ByTime
from .verdict import JUMP, Verdict

_MICROSECOND: Final = 1000  # nanoseconds; the resolution of a timestamp for clients
_IDS_PER_TRADE: Final = 2  # ids outlive trades: a trade that was served must not be admitted again

STAGED: Final = 10_000  # trades that may wait for the disk; any more are refused as late
TOGETHER: Final = 200  # trades of one fill: some 45 KB for a client
AHEAD: Final = 3600 * 10**9  # nanoseconds


class Resumed(NamedTuple):
    """How a reader goes on: behind place `after`. `is_known`: with everything behind its position.

    `rewound`: what the reader holds behind this place is no part of the log any more. If `after` is higher
    than it, the places between the two cannot be had.
    """

    is_known: bool
    after: int
    rewound: int | None = None


class Filled(NamedTuple):
    """Places of a gap that hold trades now, without a hole between them; at most `TOGETHER`.

    `number`: grows by one from fill to fill of a history, from 1 on.
    """

    number: int
    places: Sequence[tuple[int, Trade]]


class Stored(Protocol):
    """What is on disk of a symbol: an `archive.Stream`."""

    @property
    def last(self) -> int: ...

    @property
    def epochs(self) -> Sequence[tuple[int, int]]: ...


def shared(epochs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Of a chain of (epoch, its first place), the oldest first: `History.shared`.

    A later epoch may begin before an earlier one, when places were lost in between.
    """
    found: dict[int, int] = {}
    end: int | None = None
    for (epoch, _), (_, following) in reversed(list(pairwise(epochs))):
        end = following - 1 if end is None else min(end, following - 1)
        found[epoch] = end
    return found


@define(repr=False, on_setattr=setters.NO_OP)  # validators for the constructor: not at every place
class History:
    """The log of one symbol.

    Keeps at most `max_trades` trades, each for at most `max_age` seconds after its admission. Keeps the ids
    of twice as many trades, of any age. `epoch` tells this log from earlier ones: there the same place may
    have held something else. `shared`: of each earlier epoch whose log went on in this one, the last place
    that is a part of this log, too.
    """

    epoch: int
    max_trades: int = field(validator=validators.ge(1))
    max_age: float = field(validator=validators.gt(0))
    shared: Mapping[int, int] = field(factory=dict, kw_only=True)
    holds: Holds = field(default=Factory(Holds), kw_only=True, eq=False)
    last: int = field(default=0, init=False)  # the offset of the last place; 0 when there is none
    newest_trade: Trade | None = field(default=None, init=False)  # the last admitted one, however long ago
    came_at: float | None = field(default=None, init=False)  # it did so here, on the clock of `admit`
    _untraded: int = field(default=0, init=False)  # places that no trade took when they were put here
    active: str | None = field(default=None, init=False)  # the one source that it is of; None: of all
    _takeover: Takeover | None = field(default=None, init=False)  # this is under way
    holes: int = field(default=0, init=False)  # at least the number of gaps that came, and of fills
    _places: ByPlace[Trade | Gap] = field(init=False, factory=lambda: ByPlace[Trade | Gap]())
    _by_time: ByTime[Recorded] = field(init=False, factory=lambda: ByTime[Recorded]())
    _timed: int = field(default=0, init=False)  # `_by_time` is complete up to this offset
    _trades: int = field(default=0, init=False)
    _ids_by_age: deque[Trade] = field(init=False, factory=deque)
    _feeds: dict[str, Feed] = field(init=False, factory=dict)
    filled: int = field(default=0, init=False)  # the number of the last fill; 0 when there is none
    _staged: deque[tuple[int, Trade]] = field(init=False, factory=deque)
    _fills: deque[Filled] = field(init=False, factory=deque)
    _trades_of_fills: int = field(default=0, init=False)
    _floor: float = field(default=NEVER, init=False)  # of a source that is not among the feeds yet

    @classmethod
    def going_on(
        cls,
        epoch: int,
        max_trades: int,
        max_age: float,
        last: int,
        epochs: Sequence[tuple[int, int]],
        holds: Holds | None = None,
    ) -> History:
        """A log that goes on behind place `last` of a stored one, with nothing in memory yet.

        `epochs`: the chain of the stored one, see `shared`.
        """
        made = cls(epoch, max_trades, max_age, shared=shared(epochs), holds=holds or Holds())
        made.last = made._timed = made._untraded = last
        made.holes = 2 * last  # no more than one gap and one fill for each place
        return made

    def restore(
        self,
        places: Sequence[tuple[int, Trade | Gap]],
        now: float,
        *,
        newest: Iterable[Trade] = (),
        forgotten: float | None = None,
        are_all: bool = True,
    ) -> None:
        """Remember what was stored of a log that goes on: its newest places up to `last`, without a hole.

        `newest`: the newest trade of each source before these places. `forgotten`: the highest time of the
        trades before them, None without any. `are_all`: there were no other sources. Nothing was admitted
        yet.
        """
        for trade in newest:
            self._remember(trade)
        gaps: dict[str, Gap] = {}
        for place, entry in places:
            self._places.append(entry, place, now)
            if isinstance(entry, Gap):
                if entry.source is not None:
                    gaps[entry.source] = entry
            else:
                self._trades += 1
                self._reopen(gaps.pop(entry.source, None), entry)
                self._remember(entry)
                if entry.trade_id is not None:
                    self._feeds[entry.source].ids[entry.trade_id] = entry
                    self._ids_by_age.append(entry)
        if forgotten is not None:
            for feed in self._feeds.values():
                assert feed.newest is not None
                feed.floor = min(forgotten, feed.newest.timestamp + AHEAD)
            self._floor = NEVER if are_all else forgotten
        for feed in self._feeds.values():
            feed.came_at = now  # at the latest
        self._timed = self.first - 1
        self._make_room()

    def reopen(self, stored: Iterable[tuple[Trade, Gap, Trade]]) -> int:
        """Let gaps be filled that lie before what `restore` was given: the newest first, each with the trades
        of its source before it and behind it. Returns how many can be filled.

        They must be of the present numbering, as far as the numbers tell. The others stay gaps.
        """
        opened = 0
        for before, gap, behind in stored:
            feed = self._feeds.get(behind.source)
            if feed is not None and feed.reopen(before, gap, behind):
                opened += 1
                self.holds.missing(missing(before.sequence, before, behind))
        return opened

    def _remember(self, trade: Trade) -> None:
        feed = self._feed(trade.source)
        self.newest_trade = feed.newest = trade
        feed.last_sequence = feed.last_sequence if trade.sequence is None else trade.sequence

    def _reopen(self, gap: Gap | None, trade: Trade) -> None:
        """What is missing before a stored trade may still come, and fill."""
        feed = self._feed(trade.source)
        step = feed.step(trade)
        if step is not None and step <= 0:
            feed.holes.clear()  # a new numbering began here
        if gap is not None and gap.sequence is not None:
            feed.open(gap, trade)
            self.holds.missing(missing(gap.sequence - 1, feed.newest, trade))

    def newest_by_source(self) -> list[Trade]:
        """The newest admitted trade of each source that had one."""
        return [feed.newest for feed in self._feeds.values() if feed.newest is not None]

    def admitted(self, source: str, trade_id: str) -> Trade | None:
        """The admitted trade of a source with that id, as far as the id is remembered."""
        feed = self._feeds.get(source)
        return None if feed is None else feed.ids.get(trade_id)

    def newest_of(self, source: str) -> Trade | None:
        """The newest admitted trade of one source."""
        feed = self._feeds.get(source)
        return None if feed is None else feed.newest

    def lacks(self, missing: Missing) -> bool:
        """Whether any of these trades with sequences may still come: before what waits, or into a gap."""
        feed = self._feeds.get(missing.source)
        if feed is None or feed.last_sequence is None or missing.first is None or missing.last is None:
            return True
        first, last = missing.first, missing.last
        return last > feed.last_sequence or any(
            hole.sequence <= last and first < hole.sequence + hole.size for hole in feed.holes
        )

    def is_answer(self, source: str) -> bool:
        """Whether an answer brought the newest admitted trade of `source`, and not its stream."""
        feed = self._feeds.get(source)
        return feed is not None and feed.newest is not None and feed.newest is feed.answered

    def refused_of(self, source: str) -> Refused | None:
        """The trades of `source` that were refused since its newest admitted one; None without any."""
        feed = self._feeds.get(source)
        return None if feed is None else feed.refused

    def missing_of(self, source: str) -> tuple[int, float]:
        """The kept places that are gaps before trades of `source`; and when the newest of them was put, on
        the clock of `admit`. Costs a look at every kept place."""
        return count_missing(self._places, source)

    @property
    def came(self) -> int:
        """How many trades took a place of their own since this process began. Fills took those of gaps."""
        return self.last - self._untraded

    # -- admission -------------------------------------------------------------------------------

    def admit(self, item: Trade | Missed, now: float) -> Verdict:
        """Give a trade its place, or return why not. `now`: seconds of a monotonic clock; ages count from it.

        HELD: it gets its place later. Any call may give others a place that have waited: `last` tells.
        Atomic: an exception leaves the log as it was.
        """
        self.expire(now)
        feed = self._feed(item.source)
        if self._takeover is not None and item.source == self._takeover.mark.source:
            return self._wait_for_takeover(self._takeover, item, now)
        if feed.held is not None:
            return self._admit_beside(feed.held, item, feed, now)
        if isinstance(item, Missed):
            return feed.note(item)
        verdict = self._judge(item, feed)
        goes_on = feed.goes_on(item, verdict, now, self.holds.clock)
        if goes_on or verdict is Verdict.ADMITTED:
            gap = self._gap_before(item, feed, goes_on)
            if gap is not None and not goes_on and self._must_wait(item, gap, feed, now):
                return Verdict.HELD
            self._put(item, gap, feed, now)
            return Verdict.ADMITTED
        self._follow(item, verdict, feed, now)
        return verdict

    def _follow(self, trade: Trade, verdict: Verdict, feed: Feed, now: float) -> None:
        """Do what follows from a verdict."""
        if verdict is Verdict.ADMITTED:
            self._put(trade, None, feed, now)
        elif verdict is Verdict.HELD:
            self._keep(trade, feed, now)
        elif verdict is Verdict.DUPLICATE:
            feed.overlap(trade)
        elif verdict is Verdict.FILLED:
            self._stage(feed.hole_of(trade), (trade,), feed)
        self._go_on(feed, now)

    def admit_run(self, trades: Sequence[Trade], now: float) -> bool:
        """Admit trades of one source, at least one, if none of them needs to be judged.

        True: the effect is the same as `admit` of each. False: nothing has changed.
        """
        self.expire(now)
        source = trades[0].source
        feed = self._feeds.get(source)
        ids = {trade.trade_id: trade for trade in trades}
        if feed is None or feed.held is not None or self._takeover or len(trades) > self.max_trades:
            return False
        if None in ids:
            return len(ids) == 1 and self._admit_nameless(trades, feed, now)
        if len(ids) < len(trades):
            return False
        if not feed.ids.keys().isdisjoint(ids):
            return False
        old = self._ids_beyond(len(trades))
        own = [trade for trade in old if trade.source == source]
        if len(own) < len(old) and any(self._feeds[trade.source].newest is trade for trade in old):
            return False  # the next trade, of any source, decides whether its timestamp counts
        earliest = min([trade.timestamp for trade in trades])
        highest = max([trade.timestamp for trade in own], default=NEVER)
        floor = max(feed.floor, highest)
        if highest > earliest + AHEAD or not feed.moves_on(trades, floor < earliest):
            return False
        self._put_run(trades, ids, feed, now)
        self._forget_run(old, feed, source)
        feed.floor = floor
        self._make_room()
        return True

    def repeated(self, trades: Sequence[Trade]) -> int:
        """How many of the first of these trades, all of one source, are duplicates that tell nothing else.

        For each of these `admit` would return DUPLICATE, and nothing would change.
        """
        feed = self._feeds.get(trades[0].source)
        if feed is None or feed.held is not None or self._takeover or feed.missed or feed.strays:
            return 0
        return feed.repeated(trades)

    def _admit_nameless(self, trades: Sequence[Trade], feed: Feed, now: float) -> bool:
        if not feed.moves_on(trades, above_floor=True):
            return False
        self._put_run(trades, {}, feed, now)
        self._make_room()
        return True

    def lost(self, item: Trade | Missed | Refilled, now: float) -> bool:
        """An item was received and then lost in a crash. Returns whether a gap was put for it.

        `now` is that of the batch in hand, a part of which may be admitted already.

        A trade with a sequence needs no gap here: the next trade shows exactly how many are missing. Nor does
        another one, if its source can be asked: the next trade waits for it. What waits for an answer that
        was lost is asked for again.
        """
        feed = self._feed(item.source)
        if isinstance(item, Missed):
            feed.note(item)
        elif isinstance(item, Trade) and self._takeover and any(e is item for e in self._takeover.items):
            return False  # it waits still
        elif isinstance(item, Refilled):
            for each in () if feed.held is None else feed.held.missing(feed.last_sequence, feed.newest):
                self.holds.missing(each)
        elif item.sequence is not None:
            if feed.held is None and feed.step(item) == 1:
                self.holds.missing(Missing(item.source, item.symbol, feed.newest, None, item.sequence))
            feed.last_sequence = item.sequence - 1 if feed.last_sequence is None else feed.last_sequence
        elif self._is_lost(item, feed, now):
            if feed.newest is None or not self.holds.seconds(item.source):
                return self._put_unknown("shard_restart", now)
            if feed.held is None and feed.missed is None:
                self.holds.missing(Missing(item.source, item.symbol, feed.newest, None))
            feed.note(Missed(item.source, item.symbol, "shard_restart"))
        return False

    def _is_lost(self, trade: Trade, feed: Feed, now: float) -> bool:
        if self._judge(trade, feed) is not Verdict.ADMITTED or (feed.held is not None and trade in feed.held):
            return False
        return trade.trade_id is not None or all(value is not trade for value in self._places.since(now))

    def expire(self, now: float) -> None:
        """Forget places that are more than `max_age` seconds older than `now`."""
        while self._places.older_than(now - self.max_age):
            self._forget_oldest()

    def _feed(self, source: str) -> Feed:
        found = self._feeds.get(source)
        if found is None:
            found = self._feeds[source] = Feed(floor=self._floor)
            if self._floor > NEVER:  # it may have given trades that nobody knows of any more
                found.missed = Missed(source, "", "not_recorded")
        return found

    def _judge(self, trade: Trade, feed: Feed) -> Verdict:
        step = feed.step(trade)
        known = feed.ids.get(trade.trade_id)
        if known is not None and known.timestamp == trade.timestamp:
            return Verdict.DUPLICATE
        if known is not None and step is None:
            return Verdict.REUSED
        if step is not None and step > 0:  # this proves that the trade is new, even if its id is forgotten
            return Verdict.ADMITTED if step <= JUMP else Verdict.IMPLAUSIBLE
        if step is not None and known is None and self._fits(trade, feed):  # proof as well
            return Verdict.FILLED
        if step is not None and feed.is_younger(trade):  # so it is none that was forgotten
            return Verdict.LATE
        if trade.timestamp <= feed.floor and trade.trade_id is not None:
            return Verdict.TOO_OLD
        return Verdict.ADMITTED if step is None else Verdict.LATE

    def _put(self, trade: Trade, gap: Gap | None, feed: Feed, now: float) -> None:
        offset = (gap.last if gap else self.last) + 1
        if gap:
            self._places.append(gap, gap.last, now)
            self.holes += 1
            self._untraded += gap.last - gap.first + 1
            feed.open(gap, trade)
        self._places.append(trade, offset, now)
        self.last = offset
        self._trades += 1
        self.newest_trade = feed.newest = trade
        self.came_at = feed.came_at = now
        feed.missed = feed.refused = None
        feed.last_sequence = feed.last_sequence if trade.sequence is None else trade.sequence
        if trade.trade_id is not None:
            self._remember_id(trade, feed)
        if self._trades > self.max_trades:
            self._make_room()

    def _remember_id(self, trade: Trade, feed: Feed) -> None:
        feed.ids[trade.trade_id] = trade
        self._ids_by_age.append(trade)
        if len(self._ids_by_age) > self.max_trades * _IDS_PER_TRADE:
            self._forget_id(self._ids_by_age.popleft())

    def _gap_before(self, trade: Trade, feed: Feed, anew: bool) -> Gap | None:
        after = self.last + 1
        if anew:
            self._begin_anew(trade, feed)
            return Gap(after, after, "source_gap", exact=False)
        step = feed.step(trade)
        if step is not None:
            if step <= 1:
                return None
            missing = None if trade.sequence is None else trade.sequence - step + 1
            return Gap(after, after + step - 2, "source_gap", source=trade.source, sequence=missing)
        return None if feed.missed is None else Gap(after, after, feed.missed.reason, exact=False)

    def _begin_anew(self, trade: Trade, feed: Feed) -> None:
        if trade.sequence is None:  # its ids, and its times, are all that tells its trades apart
            feed.floor = feed.strays[0] - 1
            feed.ids.clear()
            self._ids_by_age = deque(each for each in self._ids_by_age if each.source != trade.source)
        feed.begin_anew()
        self.holds.anew(trade.source, trade.symbol)

    def _put_unknown(self, reason: str, now: float, source: str | None = None) -> bool:
        newest = self._places.newest()
        if isinstance(newest, Gap) and not newest.exact and newest.reason == reason:
            return False  # the gap at this place already stands for an unknown number
        self.last += 1
        self.holes += 1
        self._untraded += 1
        self._places.append(Gap(self.last, self.last, reason, exact=False, source=source), self.last, now)
        return True

    def _put_run(
        self, trades: Sequence[Trade], ids: Mapping[str | None, Trade], feed: Feed, now: float
    ) -> None:
        self._places.extend(trades, self.last + 1, now)
        self.last += len(trades)
        self._trades += len(trades)
        self.newest_trade = feed.newest = trades[-1]
        self.came_at = feed.came_at = now
        feed.missed = feed.refused = None
        if feed.strays:
            feed.strays = []
        if trades[-1].sequence is not None:
            feed.last_sequence = trades[-1].sequence
        feed.ids.update(ids)
        self._ids_by_age.extend(ids.values())

    def _ids_beyond(self, room: int) -> list[Trade]:
        """The oldest trades whose ids must be forgotten before `room` more are remembered."""
        excess = len(self._ids_by_age) + room - self.max_trades * _IDS_PER_TRADE
        return list(islice(self._ids_by_age, excess)) if excess > 0 else []

    def _forget_run(self, old: Sequence[Trade], feed: Feed, source: str) -> None:
        """Forget the ids of the oldest trades. The caller sets the floor of `source` itself."""
        ids, forget = feed.ids, self._ids_by_age.popleft
        for trade in old:
            forget()
            if trade.source != source:
                self._forget_id(trade)
            elif ids[trade.trade_id] is trade:
                del ids[trade.trade_id]

    def _forget_id(self, trade: Trade) -> None:
        feed = self._feeds[trade.source]
        if feed.ids[trade.trade_id] is trade:  # and not a later trade of a new numbering
            del feed.ids[trade.trade_id]
        later = self._ids_by_age[-1] if feed.newest is None or feed.newest is trade else feed.newest
        if trade.timestamp <= later.timestamp + AHEAD:
            feed.floor = max(feed.floor, trade.timestamp)

    def _make_room(self) -> None:
        excess = self._trades - self.max_trades
        if excess > 1 and self._trades == len(self._places) and self._timed < self.first:
            self._places.forget(excess)  # no gaps among them, and none is in the order by time
            self._trades -= excess
        while self._trades > self.max_trades:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        offset, oldest = self._places.forget_oldest()
        if isinstance(oldest, Trade):
            if offset <= self._timed:
                self._by_time.remove(oldest.timestamp // _MICROSECOND, offset)
            self._trades -= 1

    # -- waiting for missing trades --------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """The number of trades that wait."""
        taking_over = 0 if self._takeover is None else len(self._takeover.items)
        return taking_over + sum(each.held.count for each in self._feeds.values() if each.held is not None)

    def refill(self, item: Refilled, now: float) -> list[tuple[Trade, Verdict]]:
        """An answer has come: admit what was missing, and let go on what need not wait any longer.

        Returns what became of its trades. HELD: admitted when more is known.
        """
        self.expire(now)
        feed = self._feed(item.source)
        takeover = self._takeover
        if takeover is not None and item.source == takeover.mark.before and item.before is None:
            return self._hand_over(takeover, item, now)
        if self.active not in (None, item.source):  # only what fills an exact gap is of the stream still
            item = evolve(item, trades=tuple(filter(feed.has_passed, item.trades)))
        held = feed.held
        if feed.last_sequence is not None if held is None else held.is_numbered:
            judged = [(trade, self._refill(trade, item, feed, now)) for trade in item.trades]
        elif held is not None:
            judged = self._splice(held, item, feed, now)
        else:
            judged = self._catch_up(item, feed, now)
        if item.is_last and feed.held is not None:
            self._let_go(feed, now, "unanswered", feed.held.upto(item.before))
        if any(trade is feed.newest for trade in item.trades):
            feed.answered = feed.newest
        return judged

    def release(self, now: float, is_due: Callable[[str], bool]) -> None:
        """What waits of these sources goes on, behind its gaps."""
        takeover = self._takeover
        if takeover is not None and takeover.mark.before is not None and is_due(takeover.mark.before):
            self._take_over(takeover, now, is_whole=False)
        for source, feed in self._feeds.items():
            if feed.held is not None and is_due(source):
                self._let_go(feed, now, "ended", len(feed.held.runs))

    def _must_wait(self, trade: Trade, gap: Gap, feed: Feed, now: float) -> bool:
        """Whether a trade behind missing ones waits. Whoever can ask for those is told of them."""
        if feed.newest is None and not gap.exact:
            return False  # nobody knows behind what they would be missing
        waits = self.holds.seconds(trade.source) > 0
        if waits:
            feed.held = Held.begun(trade, now, None if gap.exact else feed.missed)
            feed.missed = None
        if waits or gap.exact:
            self.holds.missing(missing(feed.last_sequence, feed.newest, trade))
        return waits

    def _admit_beside(self, held: Held, item: Trade | Missed, feed: Feed, now: float) -> Verdict:
        """`admit` while others of its source wait."""
        latest = now - self.holds.seconds(item.source) - BELT
        if held.since < latest:
            self._let_go(feed, now, "overdue", sum(run.since < latest for run in held.runs))
            return self.admit(item, now)
        if isinstance(item, Missed):
            return feed.note(item)
        if held.is_numbered is (item.sequence is None):  # nobody can tell which is first
            self._let_go(feed, now, "mixed", len(held.runs))
            return self.admit(item, now)
        verdict = self._judge(item, feed)
        if verdict in (Verdict.ADMITTED, Verdict.IMPLAUSIBLE):
            verdict = held.judge(item, feed.last_sequence, feed.newest)
        if feed.goes_on(item, verdict, now, self.holds.clock):
            self._let_go(feed, now, "anew", len(held.runs))
            self._put(item, self._gap_before(item, feed, anew=True), feed, now)
            return Verdict.ADMITTED
        self._follow(item, verdict, feed, now)
        return verdict

    def _keep(self, trade: Trade, feed: Feed, now: float) -> None:
        held = feed.held
        assert held is not None
        newest, mark = held.newest, feed.missed
        if not held.is_numbered:
            feed.missed = None
        if held.keep(trade, now, mark):
            self.holds.missing(missing(newest.sequence, newest, trade))
        self._bound(held, feed, now)

    def _bound(self, held: Held, feed: Feed, now: float) -> None:
        if held.count > min(HELD, self.max_trades // 2):
            self._let_go(feed, now, "full", len(held.runs))

    def _go_on(self, feed: Feed, now: float) -> None:
        """Trades with sequences before which nothing is missing wait no longer."""
        held, last = feed.held, feed.last_sequence
        while held and held.runs and held.is_numbered and last is not None and held.runs[0].first <= last + 1:
            self._come_out(held.take(), None, feed, now, "whole")
            last = feed.last_sequence
        if held and not held.runs:
            feed.held = None

    def _let_go(self, feed: Feed, now: float, why: str, count: int) -> None:
        """The first `count` runs wait no longer, whatever is missing."""
        for _ in range(count):
            assert feed.held is not None
            run = feed.held.take()
            if run.mark is None:
                gap = self._gap_before(run.trades[0], feed, anew=False)
            else:
                for part in run.brought:  # nobody knows on which side of them the rest is missing
                    self._put_all(part, self._unknown(run.mark), feed, now)
                gap = self._unknown(run.mark)
            self._come_out(run, gap, feed, now, why)
        if feed.held is not None and not feed.held.runs:
            feed.held = None

    def _unknown(self, mark: Missed) -> Gap:
        return Gap(self.last + 1, self.last + 1, mark.reason, exact=False)

    def _come_out(self, run: Run, gap: Gap | None, feed: Feed, now: float, why: str) -> None:
        self._put_all(run.trades, gap, feed, now)
        self.holds.ended[run.trades[0].source, why] += 1

    def _put_all(self, trades: Collection[Trade], gap: Gap | None, feed: Feed, now: float) -> None:
        """Put trades that have waited, behind this gap."""
        later = feed.missed  # a mark behind them
        for trade in trades:
            self._put(trade, gap, feed, now)
            gap = None
        feed.missed = later
        if feed.newest is not None:
            self.holds.counts[feed.newest.source, Verdict.ADMITTED.value] += len(trades)

    def _refill(self, trade: Trade, item: Refilled, feed: Feed, now: float) -> Verdict:
        """Of a trade that came as an answer of a source with sequences."""
        step = feed.step(trade)
        if step is None or (trade.source, trade.symbol) != (item.source, item.symbol):
            return Verdict.UNASKED
        known = feed.ids.get(trade.trade_id)
        if known is not None:
            verdict = Verdict.DUPLICATE if known.timestamp == trade.timestamp else Verdict.UNASKED
        elif step <= 0:
            verdict = Verdict.FILLED if self._fits(trade, feed) else Verdict.LATE
        elif feed.held is not None and not feed.held.ends_before(trade):
            verdict = feed.held.judge(trade, feed.last_sequence, feed.newest)
        else:
            verdict = Verdict.ADMITTED if feed.held is None and step == 1 else Verdict.UNASKED
        self._follow(trade, verdict, feed, now)
        return verdict

    def _splice(self, held: Held, item: Refilled, feed: Feed, now: float) -> list[tuple[Trade, Verdict]]:
        """Of an answer for trades without sequences, while some wait."""
        named = held.upto(item.before)
        if named > 1:
            self._let_go(feed, now, "unanswered", named - 1)
        run, newest = held.runs[0], feed.newest
        first = run.trades[0]
        ids = [trade.trade_id for trade in item.trades]
        begin = 0 if newest is None else _behind(ids, newest)
        end = ids.index(first.trade_id) if first.trade_id in ids else len(ids)
        is_about = named > 0 or end < len(ids)
        judged, brought, known = [], [], held.brought
        for at, trade in enumerate(item.trades):
            verdict = _of_answer(trade, item, feed)
            if verdict is Verdict.HELD and trade.trade_id in held.ids:
                verdict = Verdict.DUPLICATE
            elif verdict is Verdict.HELD:
                is_between = begin <= at < end and between(trade, newest, first, coarseness(trade))
                verdict = Verdict.HELD if is_about and is_between else Verdict.UNASKED
            if verdict is Verdict.HELD or trade.trade_id in known:
                brought.append(trade)
            judged.append((trade, verdict))
        held.bring(brought)
        if item.is_whole and is_about:
            held.take()
            for part in run.brought:
                self._put_all(part, None, feed, now)
            self._come_out(run, None, feed, now, "whole")
            if not held.runs:
                feed.held = None
        else:
            self._bound(held, feed, now)
        return judged

    def _catch_up(self, item: Refilled, feed: Feed, now: float) -> list[tuple[Trade, Verdict]]:
        """Of an answer for trades without sequences, while none wait: only those behind the newest count."""
        newest, judged = feed.newest, []
        begin = 0 if newest is None else _behind([trade.trade_id for trade in item.trades], newest)
        follows = begin > 0 or (
            item.is_whole and newest is not None and all(t.timestamp > newest.timestamp for t in item.trades)
        )
        later = feed.missed  # what it tells of may lie behind the answer
        for at, trade in enumerate(item.trades):
            verdict = _of_answer(trade, item, feed)
            if verdict is Verdict.HELD:
                is_next = follows and at >= begin and item.before is None
                verdict = Verdict.ADMITTED if is_next else Verdict.UNASKED
            if verdict is Verdict.ADMITTED:
                self._put(trade, None, feed, now)
            judged.append((trade, verdict))
        feed.missed = later
        return judged

    # -- from one source to another --------------------------------------------------------------

    def switch(self, mark: Switched, now: float) -> None:
        """The stream goes over to another source. Its trades go on at once, if the old one has left nothing
        behind or cannot be asked: then what may be missing is a gap.

        A mark that comes again, because its batch was lost in a crash, changes nothing. Nor is anybody told
        of one before the first trade.
        """
        self.expire(now)
        feed = self._feed(mark.source)
        if mark.before is None:
            self.active = None
            feed.begin_at(mark.sequence)
            return
        if self.active == mark.source:
            return
        if self._takeover is not None:
            self._take_over(self._takeover, now, is_whole=False)
        self.active = mark.source
        before = self._feed(mark.before)
        if before.held is not None:
            self._let_go(before, now, "ended", len(before.held.runs))
        feed.begin_at(mark.sequence)
        before.is_promised = False
        if self.newest_trade is None:
            return
        takeover = Takeover(mark, now)
        is_whole = mark.is_whole and before.missed is None
        if is_whole or before.newest is None or not self.holds.seconds(mark.before):
            self._take_over(takeover, now, is_whole)
            return
        self._takeover = takeover
        first = None if before.last_sequence is None else before.last_sequence + 1
        about = Missing(mark.before, mark.symbol, before.newest, None, first, until=mark.at)
        self.holds.missing(about)

    def _wait_for_takeover(self, takeover: Takeover, item: Trade | Missed, now: float) -> Verdict:
        assert takeover.mark.before is not None
        overdue = takeover.since + self.holds.seconds(takeover.mark.before) + BELT < now
        if overdue or len(takeover.items) >= min(HELD, self.max_trades // 2):
            self._take_over(takeover, now, is_whole=False)
            return self.admit(item, now)
        takeover.items.append(item)
        return Verdict.HELD if isinstance(item, Trade) else Verdict.NOTED

    def _hand_over(self, takeover: Takeover, item: Refilled, now: float) -> list[tuple[Trade, Verdict]]:
        """An answer of the old source has come: what it traded up to the switch is still of the stream."""
        feed, later = self._feed(item.source), takeover.mark.at
        in_time = tuple(trade for trade in item.trades if trade.timestamp <= later)
        takeover.is_over = takeover.is_over or len(in_time) < len(item.trades)
        if feed.last_sequence is None:
            judged = self._catch_up(evolve(item, trades=in_time), feed, now)
        else:
            judged = [(trade, self._refill(trade, item, feed, now)) for trade in in_time]
        if item.is_last or takeover.is_over:
            self._take_over(takeover, now, item.is_whole or takeover.is_over)
        return judged

    def _take_over(self, takeover: Takeover, now: float, is_whole: bool) -> None:
        """The trades of the new source go on."""
        self._takeover, mark = None, takeover.mark
        if not is_whole:
            self._put_unknown("source_gap", now, mark.before)
        assert mark.before is not None
        self._feed(mark.before).missed = None
        self.holds.switched(mark, self.last)
        for item in takeover.items:
            if self.admit(item, now) is Verdict.ADMITTED:
                self.holds.counts[item.source, Verdict.ADMITTED.value] += 1

    # -- filling ---------------------------------------------------------------------------------

    def fill(self, first: int, trades: Sequence[Trade]) -> bool:
        """Missing trades, at least one, have come: stage them for place `first` and those behind it.

        All or nothing. False: these are not the missing trades of these places, one source's and in order;
        or too many wait already. Memory may have forgotten the places: then the disk has them.
        """
        feed = self._feeds.get(trades[0].source)
        hole = None if feed is None else feed.hole_of(trades[0])
        if feed is None or hole is None or trades[0].sequence is None:
            return False
        begin, ids = trades[0].sequence, [each.trade_id for each in trades if each.trade_id is not None]
        fits = (
            first - hole.first == begin - hole.sequence
            and first + len(trades) <= hole.first + hole.size
            and all(_is_missing(each, begin + at, trades[0], hole) for at, each in enumerate(trades))
            and len(set(ids)) == len(ids)
            and feed.ids.keys().isdisjoint(ids)
            and self._has_room(len(trades))
        )
        if fits:
            self._stage(hole, trades, feed)
        return fits

    @property
    def has_staged(self) -> bool:
        """Whether fills wait to be written and settled."""
        return bool(self._staged)

    def unsettled(self, upto: int, limit: int = STAGED) -> list[Sequence[tuple[int, Trade]]]:
        """Staged fills that lie at places up to `upto`, each without a hole: the oldest, `limit` at most.

        For the disk, which has these places already. `settle` them when they are written.
        """
        return _together(takewhile(lambda place: place[0] <= upto, islice(self._staged, limit)))

    def settle(self, count: int | None = None) -> None:
        """The `count` oldest staged trades (None: all) take their places. Readers see them from now on."""
        for places in _together(islice(list(self._staged), count)):
            self._settle(places)
            for _ in places:
                self._staged.popleft()

    def fills_behind(self, number: int) -> Sequence[Filled]:
        """The fills behind that number, as far as they are remembered: a hole in the numbers tells of others.

        The remembered ones have as many trades as the log may have.
        """
        return [each for each in self._fills if each.number > number]

    def _fits(self, trade: Trade, feed: Feed) -> bool:
        return feed.hole_of(trade) is not None and self._has_room(1)

    def _has_room(self, count: int) -> bool:
        return len(self._staged) + count <= STAGED

    def _stage(self, hole: Hole | None, trades: Sequence[Trade], feed: Feed) -> None:
        assert hole is not None
        self._staged.extend(enumerate(trades, feed.fill(hole, trades)))
        for trade in trades:
            if trade.trade_id is not None:
                self._remember_id(trade, feed)

    def _settle(self, places: Sequence[tuple[int, Trade]]) -> None:
        first, last = places[0][0], places[-1][0]
        gap = self._places.at(first)
        if isinstance(gap, Gap) and gap.first <= first:  # otherwise it is forgotten
            parts: list[tuple[int, Trade | Gap]] = [*places]
            if gap.first < first:
                parts.insert(0, (first - 1, gap.part(gap.first, first - 1)))
            if last < gap.last:
                parts.append((gap.last, gap.part(last + 1, gap.last)))
            self._places.replace(parts)
            self._trades += len(places)
            if last <= self._timed:
                for offset, trade in places:
                    self._by_time.add(trade.timestamp // _MICROSECOND, offset, Recorded(offset, trade))
        self.filled += 1
        self.holes += 1
        self._fills.append(Filled(self.filled, places))
        self._trades_of_fills += len(places)
        while self._trades_of_fills > max(self.max_trades, TOGETHER):
            self._trades_of_fills -= len(self._fills.popleft().places)
        self._make_room()

    # -- reading by place ------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The offset of the first kept place; `last + 1` when there is none."""
        oldest = self._places.oldest()
        if oldest is None:
            return self.last + 1
        offset, value = oldest
        return value.first if isinstance(value, Gap) else offset

    def read(self, after: int, limit: int) -> list[Entry]:
        """At most `limit` entries from offset `after + 1` on, in the order of the log.

        Forgotten places come first, as one gap with the reason "overrun".
        """
        return [_entry(offset, value) for offset, value in self.places(after, limit)]

    def places(self, after: int, limit: int) -> list[tuple[int, Trade | Gap]]:
        """The entries of `read`, each with its last offset. Faster than `read`: no `Recorded` is made."""
        first = self.first
        if after + 1 < first:
            forgotten = Gap(after + 1, first - 1, "overrun")
            return [(first - 1, forgotten), *self._places.after(first - 1, limit - 1)]
        places = list(self._places.after(after, limit))
        if places and isinstance(cut := places[0][1], Gap) and cut.first <= after:
            places[0] = cut.last, cut.part(after + 1, cut.last)
        return places

    def preceding(self, before: int, limit: int) -> list[tuple[int, Trade | Gap]]:
        """The last `limit` kept entries at places before `before`, in order, each with its last offset."""
        places = list(self._places.before(before, limit))
        at = next(self._places.after(before - 1, 1), None)
        if at is not None and isinstance(cut := at[1], Gap) and cut.first < before:
            places.append((before - 1, cut.part(cut.first, before - 1)))
        return places[-limit:]

    def since_when(self, after: int) -> float | None:
        """When the first kept place behind `after` was filled, on the clock of `admit`; None without one."""
        return self._places.since_when(after)

    def newest(self, count: int) -> list[Entry]:
        """The `count` newest trades by offset, with the gaps between and behind them, in log order.

        At most two gaps stand before a trade, so the cost grows with `count` only.
        """
        return [_entry(*place) for place in self.newest_places(count)]

    def newest_places(self, count: int) -> list[tuple[int, Trade | Gap]]:
        """The same, each with its last offset."""
        places: list[tuple[int, Trade | Gap]] = []
        descending = self._places.descending()
        while count and (place := next(descending, None)):
            places.append(place)
            count -= isinstance(place[1], Trade)
        while places and isinstance(places[-1][1], Gap):
            places.pop()
        return places[::-1]

    def resume(self, epoch: int, offset: int, limit: int, oldest: int | None = None) -> Resumed:
        """How a reader with that position goes on, with at most `limit` entries.

        `oldest`: the first place that can be had from somewhere else; None: there is only this memory.
        """
        first = self.first if oldest is None else min(oldest, self.first)
        fork = self.last if epoch == self.epoch else self.shared.get(epoch)
        rewound = fork is not None and epoch != self.epoch and offset > fork
        start = fork if rewound else offset
        if fork is None or start is None or not first - 1 <= start <= fork or self._count(start) > limit:
            return Resumed(False, max(first - 1, self._before_newest(limit)), fork if rewound else None)
        return Resumed(not rewound, start, start if rewound else None)

    def _count(self, after: int) -> int:
        """At least the number of entries behind `after`."""
        return self._places.count_after(after) + max(0, self.first - 1 - after)

    def _before_newest(self, limit: int) -> int:
        """The place before the newest `limit` places; `limit` entries where they are all in memory."""
        if len(self._places) > limit:
            return self._places.before_newest(limit)
        return max(0, self.first - 1 - (limit - len(self._places)))

    # -- reading by time -------------------------------------------------------------------------

    def latest(self, count: int) -> list[Recorded]:
        """The `count` newest trades by timestamp, newest first."""
        return list(islice(self.descending(None), count))

    def before(self, timestamp: int, count: int) -> list[Recorded]:
        """Trades before the microsecond of `timestamp` (ns), newest first. The page ends as in `after`."""
        return page(self.descending(timestamp), count)

    def after(self, timestamp: int, count: int, before: int | None = None) -> list[Recorded]:
        """Trades after the microsecond of `timestamp` (and before that of `before`), oldest first.

        A page of about `count` trades (at least 1). It never ends inside the trades of one microsecond, so
        that the next question, from the last timestamp of the page, loses nothing. It is shortened to the
        last complete microsecond. If one microsecond has more than `count` trades, the page holds all of
        them.
        """
        trades = self.ascending(timestamp)
        if before is not None:
            end = before // _MICROSECOND
            trades = takewhile(lambda recorded: microsecond(recorded) < end, trades)
        return page(trades, count)

    def ascending(self, after: int) -> Iterator[Recorded]:
        """All trades after the microsecond of `after` (ns), oldest first."""
        return self._in_time().ascending(after // _MICROSECOND + 1)

    def descending(self, before: int | None) -> Iterator[Recorded]:
        """All trades before the microsecond of `before` (ns; None: all), newest first."""
        return self._in_time().descending(None if before is None else before // _MICROSECOND)

    def _in_time(self) -> ByTime[Recorded]:
        """The order by time, up to date."""
        self._by_time.update(
            [
                (value.timestamp // _MICROSECOND, offset, Recorded(offset, value))
                for offset, value in self._places.after(self._timed)
                if isinstance(value, Trade)
            ]
        )
        self._timed = self.last
        return self._by_time


def _is_missing(trade: Trade, sequence: int, first: Trade, hole: Hole) -> bool:
    """Whether a trade of a run that begins with `first` is the one with that sequence in `hole`."""
    return (
        trade.sequence == sequence
        and (trade.source, trade.symbol) == (first.source, first.symbol)
        and hole.fits(trade)
    )


def _of_answer(trade: Trade, item: Refilled, feed: Feed) -> Verdict:
    """What can be said of a trade without a sequence in an answer. HELD: it is new."""
    if (trade.source, trade.symbol, trade.sequence) != (item.source, item.symbol, None):
        return Verdict.UNASKED
    if trade.trade_id is None:
        return Verdict.UNASKED
    if trade.trade_id in feed.ids:  # whatever its time: the REST of some upstreams is coarser
        return Verdict.DUPLICATE
    return Verdict.TOO_OLD if trade.timestamp <= feed.floor else Verdict.HELD


def _behind(ids: Sequence[str | None], trade: Trade) -> int:
    """The place behind that trade; 0 if it is not among them."""
    return ids.index(trade.trade_id) + 1 if trade.trade_id is not None and trade.trade_id in ids else 0


def _entry(offset: int, value: Trade | Gap) -> Entry:
    return Recorded(offset, value) if isinstance(value, Trade) else value


def _together(staged: Iterable[tuple[int, Trade]]) -> list[Sequence[tuple[int, Trade]]]:
    """Runs without a hole."""
    runs: list[list[tuple[int, Trade]]] = []
    for place in staged:
        if runs and runs[-1][-1][0] + 1 == place[0] and len(runs[-1]) < TOGETHER:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [*runs]


def count_missing(places: ByPlace[Trade | Gap], source: str) -> tuple[int, float]:
    """See `History.missing_of`. A gap without a source is that of the trade behind it."""
    missing, newest = 0, NEVER
    for gap, following, when in places.of_type(Gap):
        assert isinstance(gap, Gap)
        owner = gap.source or (following.source if isinstance(following, Trade) else None)
        if owner == source and gap.reason != "overrun":
            missing += gap.last - gap.first + 1
            newest = max(newest, when)
    return missing, newest


def microsecond(recorded: Recorded) -> int:
    """Of the trade's timestamp: the finest time that clients see."""
    return recorded.trade.timestamp // _MICROSECOND


def page(trades: Iterator[Recorded], count: int) -> list[Recorded]:
    """A page of about `count` trades that never ends inside those of one microsecond: see `History.after`."""
    some = list(islice(trades, count))
    following = next(trades, None)
    if not some or following is None or microsecond(following) != microsecond(some[-1]):
        return some
    torn = microsecond(following)
    complete = [recorded for recorded in some if microsecond(recorded) != torn]
    return complete or [*some, following, *takewhile(lambda recorded: microsecond(recorded) == torn, trades)]
