"""One log a symbol: what was admitted, in which order, and what is known to be missing.

Rules of this file. Pure: no clock, no I/O, no trio; `now` is given. Every place of a log has an
offset, starting at 1 and growing by one, and holds a trade or a gap, so that whoever reads offsets
can see a hole. A trade is admitted once, however often it comes. What cannot be judged is refused
and counted, never guessed. Everything that is remembered is bounded, and neither appending nor
finding grows with what is stored.

Trades are ordered twice: by offset, which is the order of admission, and by timestamp, where trades
of the same microsecond stand in the order of their offsets.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice, takewhile
from typing import Final

from attrs import Factory, define, evolve, field, setters, validators

from .domain import Entry, Gap, Item, Missed, Recorded, Trade
from .ordered import ByPlace, ByTime

_MICROSECOND: Final = 1000  # nanoseconds; what clients see of a timestamp
_IDS_PER_TRADE: Final = 2  # ids outlive trades: what was served once must not be admitted again


class Verdict(Enum):
    """What became of an item that was offered."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"  # this source already gave a trade with this id
    LATE = "late"  # its sequence was passed: its place is already announced as a gap
    TOO_OLD = "too_old"  # older than the ids that are remembered: nobody can tell whether it is new
    NOTED = "noted"  # not a trade but a mark that some may be missing


@define
class _Feed:
    """What one source has given to one symbol."""

    admitted: bool = False
    last_sequence: int | None = None
    missed: str | None = None  # why trades may be missing before the next one
    floor: int | None = None  # highest timestamp among the forgotten ids


@define(on_setattr=setters.NO_OP)  # the checks are for whoever makes one, not for every place that is added
class History:
    """The log of one symbol.

    Keeps at most `max_trades` trades, none longer than `max_age` seconds after its admission, and
    the ids of twice as many, whatever their age. `epoch` tells this log from an earlier one that
    was lost: offsets of different epochs cannot be compared.
    """

    epoch: int
    max_trades: int = field(validator=validators.ge(1))
    max_age: float = field(validator=validators.gt(0))
    last: int = field(default=0, init=False)  # offset of the last place, 0 when there is none
    _places: ByPlace[Entry] = field(init=False, factory=lambda: ByPlace[Entry]())
    _by_time: ByTime[Recorded] = field(init=False, factory=lambda: ByTime[Recorded]())
    _trades: int = field(default=0, init=False)
    _ids: set[tuple[str, str]] = field(init=False, factory=set)
    _ids_by_age: deque[Trade] = field(init=False, factory=deque)
    _feeds: dict[str, _Feed] = field(init=False, factory=dict)

    # -- admission -------------------------------------------------------------------------------

    def admit(self, item: Item, now: float) -> Verdict:
        """Give a trade its place, or say why not. `now` (seconds, monotonic) is what ages are counted from.

        Either all of it happens or nothing: an exception leaves the log as it was.
        """
        self.expire(now)
        feed = self._feed(item.source)
        if isinstance(item, Missed):
            return _note(feed, item)
        verdict = self._judge(item, feed)
        if verdict is Verdict.ADMITTED:
            self._put(item, feed, now)
        elif verdict is Verdict.DUPLICATE:
            feed.missed = None  # the stream overlaps with what was here before: nothing is missing
        return verdict

    def lost(self, item: Item, now: float) -> bool:
        """Say that an item was received and then lost inside; tell whether a gap was put for it.

        A trade with a sequence needs none: the next one shows exactly what is missing.
        """
        feed = self._feed(item.source)
        if isinstance(item, Missed):
            _note(feed, item)
            return False
        if item.sequence is not None:
            feed.last_sequence = item.sequence - 1 if feed.last_sequence is None else feed.last_sequence
            return False
        if self._judge(item, feed) is not Verdict.ADMITTED:
            return False
        return self._put_unknown("shard_restart", now)

    def expire(self, now: float) -> None:
        """Forget what was admitted more than `max_age` seconds before `now`."""
        while self._places.older_than(now - self.max_age):
            self._forget_oldest()

    def _feed(self, source: str) -> _Feed:
        found = self._feeds.get(source)
        if found is None:
            found = self._feeds[source] = _Feed()
        return found

    def _judge(self, trade: Trade, feed: _Feed) -> Verdict:
        if (trade.source, trade.trade_id) in self._ids:
            return Verdict.DUPLICATE
        step = _step(trade, feed)
        if step is not None and step > 0:
            return Verdict.ADMITTED  # the sequence proves it new, whatever was forgotten
        if feed.floor is not None and trade.timestamp <= feed.floor:
            return Verdict.TOO_OLD
        return Verdict.ADMITTED if step is None else Verdict.LATE

    def _put(self, trade: Trade, feed: _Feed, now: float) -> None:
        gap = self._gap_before(trade, feed)
        recorded = Recorded((gap.last if gap else self.last) + 1, trade)
        moment = trade.timestamp // _MICROSECOND
        if gap:
            self._places.append(gap, gap.last, now)
        self._places.append(recorded, recorded.offset, now)
        self._by_time.add(moment, recorded.offset, recorded)
        self.last = recorded.offset
        self._trades += 1
        feed.admitted, feed.missed = True, None
        feed.last_sequence = feed.last_sequence if trade.sequence is None else trade.sequence
        self._remember(trade)
        self._make_room()

    def _gap_before(self, trade: Trade, feed: _Feed) -> Gap | None:
        after = self.last + 1
        step = _step(trade, feed)
        if step is not None:
            return Gap(after, after + step - 2, "source_gap") if step > 1 else None
        return None if feed.missed is None else Gap(after, after, feed.missed, exact=False)

    def _put_unknown(self, reason: str, now: float) -> bool:
        newest = self._places.newest()
        if isinstance(newest, Gap) and not newest.exact and newest.reason == reason:
            return False  # it already stands for an unknown number at this very place
        self.last += 1
        self._places.append(Gap(self.last, self.last, reason, exact=False), self.last, now)
        return True

    def _remember(self, trade: Trade) -> None:
        self._ids.add((trade.source, trade.trade_id))
        self._ids_by_age.append(trade)
        while len(self._ids_by_age) > self.max_trades * _IDS_PER_TRADE:
            forgotten = self._ids_by_age.popleft()
            self._ids.discard((forgotten.source, forgotten.trade_id))
            feed = self._feeds[forgotten.source]
            feed.floor = max(forgotten.timestamp, forgotten.timestamp if feed.floor is None else feed.floor)

    def _make_room(self) -> None:
        while self._trades > self.max_trades:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = self._places.oldest()
        self._places.forget_oldest()
        if isinstance(oldest, Recorded):
            self._by_time.remove(oldest.trade.timestamp // _MICROSECOND, oldest.offset)
            self._trades -= 1

    # -- reading by place ------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The offset of the first place that is still kept; `last + 1` when none is."""
        oldest = self._places.oldest()
        return oldest.first if oldest else self.last + 1

    def read(self, after: int, limit: int) -> list[Entry]:
        """At most `limit` entries from offset `after + 1` on, in the order of the log.

        Places that were forgotten in the meantime come first, as one gap with reason "overrun".
        """
        first = self.first
        if after + 1 < first:
            return [Gap(after + 1, first - 1, "overrun"), *self._places.after(first - 1, limit - 1)]
        entries = self._places.after(after, limit)
        if entries and entries[0].first <= after and isinstance(entries[0], Gap):
            entries[0] = evolve(entries[0], first=after + 1)
        return entries

    def position_known(self, epoch: int, offset: int) -> bool:
        """Whether everything after that position is still here."""
        return epoch == self.epoch and self.first - 1 <= offset <= self.last

    def since(self, epoch: int, offset: int, limit: int) -> tuple[bool, list[Entry]]:
        """Whether a reader at that position can be given all that came since, and all of it.

        The entries hold the gaps of the source too: what never came cannot be recovered, only told.
        (False, []) when the position is unknown or more than `limit` entries behind.
        """
        if not self.position_known(epoch, offset):
            return False, []
        entries = self.read(offset, limit + 1)
        return (True, entries) if len(entries) <= limit else (False, [])

    # -- reading by time -------------------------------------------------------------------------

    def latest(self, count: int) -> list[Recorded]:
        """The `count` newest trades by timestamp, newest first."""
        return list(islice(self._by_time.descending(), count))

    def before(self, timestamp: int, count: int) -> list[Recorded]:
        """Trades before the microsecond of `timestamp`, newest first; the page ends as in `after`."""
        return _page(self._by_time.descending(timestamp // _MICROSECOND), count)

    def after(self, timestamp: int, count: int, before: int | None = None) -> list[Recorded]:
        """Trades after the microsecond of `timestamp` (and before that of `before`), oldest first.

        A page of about `count` (at least 1): it never ends inside trades of one microsecond, so
        that asking again from the last timestamp of a page loses nothing. It is shortened to the
        last complete microsecond, or holds one whole microsecond when that alone exceeds `count`.
        """
        trades = self._by_time.ascending(timestamp // _MICROSECOND + 1)
        if before is not None:
            end = before // _MICROSECOND
            trades = takewhile(lambda recorded: _moment(recorded) < end, trades)
        return _page(trades, count)


@define
class Store:
    """The histories of the symbols of one shard, made when they are first named.

    `counts` holds the number of items by (source, verdict).
    """

    epoch: int
    max_trades: int
    max_age: float
    counts: Counter[tuple[str, str]] = field(init=False, default=Factory(Counter))
    _histories: dict[str, History] = field(init=False, factory=dict)
    _now: float = field(init=False, default=float("-inf"))  # of the last batch: when its loss happened

    def history(self, symbol: str, now: float | None = None) -> History:
        """The history of `symbol`; with `now`, what has become too old is forgotten first.

        It is made when there is none, so whoever asks vouches that the symbol exists.
        """
        found = self._histories.get(symbol)
        if found is None:
            found = self._histories[symbol] = History(self.epoch, self.max_trades, self.max_age)
        if now is not None:
            found.expire(now)
        return found

    def symbols(self) -> list[str]:
        """The symbols that have a history."""
        return list(self._histories)

    def admit(self, items: Iterable[Item], now: float) -> set[str]:
        """Offer items in order; the symbols whose logs have grown."""
        self._now = now
        grown = set()
        for item in items:
            verdict = self.history(item.symbol).admit(item, now)
            self.counts[item.source, verdict.value] += 1
            if verdict is Verdict.ADMITTED:
                grown.add(item.symbol)
        return grown

    def lost(self, items: Iterable[Item]) -> set[str]:
        """Say that a batch was lost inside, perhaps after a part of it was admitted.

        The symbols that may have news: those of all its trades, since nobody was told of the part
        that was admitted.
        """
        touched = set()
        for item in items:
            self.history(item.symbol).lost(item, self._now)
            touched.add(item.symbol)
        return touched


def _note(feed: _Feed, mark: Missed) -> Verdict:
    if feed.admitted and feed.missed is None:  # before the first trade nothing was promised
        feed.missed = mark.reason
    return Verdict.NOTED


def _step(trade: Trade, feed: _Feed) -> int | None:
    """How far the sequence of its source moved on, None where there is no sequence to tell."""
    if trade.sequence is None or feed.last_sequence is None:
        return None
    return trade.sequence - feed.last_sequence


def _moment(recorded: Recorded) -> int:
    return recorded.trade.timestamp // _MICROSECOND


def _page(trades: Iterator[Recorded], count: int) -> list[Recorded]:
    page = list(islice(trades, count))
    following = next(trades, None)
    if not page or following is None or _moment(following) != _moment(page[-1]):
        return page
    torn = _moment(following)
    complete = [recorded for recorded in page if _moment(recorded) != torn]
    return complete or [*page, following, *takewhile(lambda recorded: _moment(recorded) == torn, trades)]
