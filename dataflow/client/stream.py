"""The stream of one topic as one client has it: what came, what is missing, and the place to go on from.

Rules of this file. Pure. Each place comes once and in order, as a trade or as a gap; anything else is a
`WrongPlace`, and what was held stays. A filled place never changes again. What lies behind a rewind is
dropped. A stream that the server cannot go on with begins anew behind a gap from place 0; what it can only
tell in part goes on, with gaps. Entries and open gaps are bounded: the oldest are forgotten, and fills of
forgotten gaps are no news.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from attrs import define, field
from msgspec.structs import replace

from .events import Candle, Entry, Filled, Gap, Position, Quality, Rewound, Subscribed, Topic, Trade
from .faults import ServerFault, WrongPlace

MOST_GAPS: Final = 1_000  # open gaps that are remembered, the newest: each `since` names them
HELD: Final = "earlier"  # the reason of a gap that came with the position of an earlier life
FROM_NOTHING: Final = 0  # no entry has this place; a gap from here says that a new count begins


class _Since(msgspec.Struct):
    epoch: int
    offset: int
    gaps: list[tuple[int, int]] = []


@define(eq=False)
class Cursor:
    """Where a reader stands in a stream: behind what it has taken, not behind what has come for it."""

    epoch: int = 0
    offset: int = 0
    gaps: list[Gap] = field(factory=list)

    @property
    def since(self) -> dict[str, Any]:
        """As `Stream.since`."""
        known: dict[str, Any] = {"epoch": self.epoch, "offset": self.offset}
        return known | ({"gaps": [[gap.first, gap.last] for gap in self.gaps]} if self.gaps else {})

    def hold(self, symbol: str, since: Mapping[str, Any]) -> None:
        """Begin with the position of an earlier life. Raises ValueError."""
        try:
            position = msgspec.convert(since, _Since)
        except msgspec.ValidationError as error:
            raise ValueError(f"{symbol}: no position: {error}") from None
        self.epoch, self.offset = position.epoch, position.offset
        self.gaps = [Gap(symbol=symbol, first=a, to=b, reason=HELD) for a, b in position.gaps[-MOST_GAPS:]]

    def take(self, event: Entry | Filled | Rewound | Subscribed) -> None:
        """Go on behind what was taken."""
        match event:
            case Trade():
                self.offset = event.offset
            case Gap(first=0):
                self.gaps.clear()
            case Gap():
                self.offset = event.last
                if event.exact:
                    self.gaps.append(event)
                    del self.gaps[:-MOST_GAPS]
            case Filled():
                _put(self.gaps, event.first, event.last, ())
            case Rewound():
                _cut(self.gaps, event.offset)
                self.epoch, self.offset = event.epoch, min(self.offset, event.offset)
            case Subscribed():
                self.epoch, self.offset = event.epoch, event.offset


@define(eq=False)
class Stream:
    """The trades of a symbol. `log` holds the newest entries: `keep` of them, at most twice as many, or all.

    `epoch` and `offset` are the position, None before the first answer. `begin`: the place before the first
    one that the client was told of. `live`: subscribed on the present connection. `left`: nobody wants it any
    more, but the server has not heard that so far.
    """

    topic: Topic
    keep: int | None = None
    epoch: int | None = None
    offset: int | None = None
    begin: int = 0
    live: bool = False
    left: bool = False
    log: list[Entry] = field(factory=list)
    gaps: list[Gap] = field(factory=list)  # exact, and not filled so far

    @property
    def since(self) -> dict[str, Any] | None:
        """The `since` of the next subscription; None before the first answer."""
        if self.epoch is None or self.offset is None:
            return None
        known: dict[str, Any] = {"epoch": self.epoch, "offset": self.offset}
        if self.gaps:
            known["gaps"] = [[gap.first, gap.last] for gap in self.gaps]
        return known

    def hold(self, since: Mapping[str, Any]) -> None:
        """Begin with the position of an earlier life. Raises ValueError."""
        cursor = Cursor()
        cursor.hold(self.topic.symbol, since)
        self.epoch, self.offset, self.gaps = cursor.epoch, cursor.offset, cursor.gaps
        self.begin = cursor.offset

    # What the server says. Each raises ServerFault.

    def answered(
        self,
        at: Position,
        entries: Sequence[Entry],
        *,
        recovered: bool | None = None,
        rewound: Position | None = None,
        filled: Sequence[Filled] = (),
    ) -> Iterator[Entry | Filled | Rewound | Subscribed]:
        """The answer to a subscription: `at` is its position, `entries` its trades and gaps in any order."""
        entries = sorted(entries, key=_first)
        self.live = True
        if rewound is not None and self.offset is not None:
            if rewound.epoch != at.epoch:
                raise ServerFault(f"{self.topic.symbol}: a rewind to epoch {rewound.epoch} in {at.epoch}")
            yield self.rewind(rewound)
        if self._goes_on(entries, recovered is True or rewound is not None):
            if self.epoch is not None and at.epoch < self.epoch:
                raise ServerFault(f"{self.topic.symbol}: epoch {at.epoch} goes on with epoch {self.epoch}")
            self.epoch = at.epoch
            for fill in filled:
                yield from self.fill(fill)
        else:
            self.epoch = at.epoch
            yield from self._begin(at, entries)
        yield Subscribed(topic=self.topic, epoch=at.epoch, offset=self.offset or 0, newest=at.offset)
        for entry in entries:
            if entry.first != FROM_NOTHING:
                yield self.take(entry)
        if self.offset != at.offset:
            raise WrongPlace(self.topic.symbol, self._next, at.offset + 1, "the answer has a hole at its end")

    def take(self, entry: Entry) -> Entry:
        """The next trade, or the next gap."""
        if not self.live:
            raise ServerFault(f"{self.topic.symbol}: place {entry.first} came without a subscription")
        expected = self._next
        if entry.first > expected:
            raise WrongPlace(self.topic.symbol, expected, entry.first, "a hole")
        if entry.first < expected:
            raise WrongPlace(self.topic.symbol, expected, entry.first, "told twice, or out of order")
        if entry.last < entry.first:
            raise ServerFault(f"{self.topic.symbol}: a gap from {entry.first} to {entry.last}")
        self.offset = entry.last
        self._keep(entry)
        return entry

    def take_run(self, trades: list[Trade]) -> Iterable[Trade]:
        """The next trades: all at once if each has its place, else one by one, up to the wrong one."""
        first = self._next
        places = [trade.offset for trade in trades]
        if not self.live or places != list(range(first, first + len(places))):
            return (trade for trade in trades if self.take(trade))
        self.offset = places[-1]
        self.log += trades
        self._trim()
        return trades

    def fill(self, told: Filled) -> Iterator[Filled]:
        """Places of gaps hold trades now. Yields those that were open here; others are no news."""
        places = [trade.offset for trade in told.trades]
        count = told.last - told.first + 1  # looked at first: nobody knows how large it is
        if len(places) != count or places != list(range(told.first, told.last + 1)):
            raise ServerFault(f"{self.topic.symbol}: a fill of {told.first} to {told.last} that does not fit")
        if self.offset is None or told.last > self.offset:
            raise WrongPlace(self.topic.symbol, self._next, told.last, "a fill of a place that has not come")
        self._check_held(told)
        for gap in [each for each in self.gaps if each.last >= told.first and each.first <= told.last]:
            first, last = max(gap.first, told.first), min(gap.last, told.last)
            trades = told.trades[first - told.first : last - told.first + 1]
            _put(self.gaps, first, last, ())
            _put(self.log, first, last, trades)
            yield Filled(symbol=self.topic.symbol, first=first, last=last, trades=trades)

    def rewind(self, to: Position) -> Rewound:
        """What came behind this place is no part of the stream; a later epoch goes on from there."""
        if self.epoch is None or self.offset is None or to.epoch <= self.epoch or to.offset >= self.offset:
            came = f"place {to.offset} of epoch {to.epoch}"
            raise ServerFault(f"{self.topic.symbol}: {came} is not before {self.offset} of {self.epoch}")
        dropped = self._trades_behind(to.offset)
        _cut(self.log, to.offset)
        _cut(self.gaps, to.offset)
        self.epoch = to.epoch
        self.offset = to.offset
        self.begin = min(self.begin, to.offset)
        return Rewound(symbol=self.topic.symbol, epoch=to.epoch, offset=to.offset, dropped=dropped)

    def _trades_behind(self, offset: int) -> int:
        """From the log. What it has forgotten counts as trades, except for open gaps."""
        held = self.log[bisect_left(self.log, offset + 1, key=_last) :]
        trades = sum(isinstance(each, Trade) for each in held)
        first = held[0].first if held else (self.offset or 0) + 1
        begin = max(offset, self.begin)
        gaps = sum(max(0, min(gap.last, first - 1) - max(gap.first - 1, begin)) for gap in self.gaps)
        return trades + max(0, first - 1 - begin) - gaps

    def lost(self) -> None:
        """The connection is lost: nothing may come before the next answer."""
        self.live = False

    def _goes_on(self, entries: Sequence[Entry], is_known: bool) -> bool:
        """Whether the answer follows what is held. It may do so although a part of it is missing for good."""
        if self.offset is None or (entries and entries[0].first == FROM_NOTHING):
            return False
        return is_known or (bool(entries) and entries[0].first == self._next)

    def _begin(self, at: Position, entries: Sequence[Entry]) -> Iterator[Gap]:
        """The count begins: for the first time, or anew behind a hole with a name."""
        anew = self.offset is not None
        told = entries[0] if entries and entries[0].first == FROM_NOTHING else None
        first = next((each for each in entries if each.first != FROM_NOTHING), None)
        self.offset = self.begin = at.offset if first is None else first.first - 1
        self.log.clear()
        self.gaps.clear()
        if anew or told is not None:
            reason = told.reason if isinstance(told, Gap) else "overrun"
            hole = Gap(symbol=self.topic.symbol, first=FROM_NOTHING, to=None, reason=reason)
            self._keep(hole)
            yield hole

    @property
    def _next(self) -> int:
        return (self.offset or 0) + 1

    def _keep(self, entry: Entry) -> None:
        if isinstance(entry, Gap) and entry.exact:
            self.gaps.append(entry)
            del self.gaps[:-MOST_GAPS]
        self.log.append(entry)
        self._trim()

    def _trim(self) -> None:
        if self.keep is not None and len(self.log) > 2 * self.keep:
            del self.log[: -self.keep or None]

    def _check_held(self, told: Filled) -> None:
        """A filled place may be told again, but never with another trade."""
        start = bisect_left(self.log, told.first, key=_last)
        for held in self.log[start:]:
            if held.first > told.last:
                return
            if isinstance(held, Trade):
                if held != told.trades[held.offset - told.first]:
                    raise ServerFault(f"{self.topic.symbol}: place {held.offset} holds another trade already")
            elif not held.exact:
                raise ServerFault(f"{self.topic.symbol}: a fill of place {held.first}, which stands for many")


@define(eq=False)
class Qualities:
    """How a symbol fares at each of its sources: the newest state."""

    topic: Topic
    live: bool = False
    states: dict[str, Quality] = field(factory=dict)

    def take(self, state: Quality) -> Quality:
        """A state, which replaces the one before."""
        self.states[state.source] = state
        return state

    def lost(self) -> None:
        """The connection is lost."""
        self.live = False


@define(eq=False)
class Bars:
    """The candles of a symbol and interval, each as it is now: all, or the `keep` that changed last.

    By start; those of a number of trades (`100t`) or a volume (`10v`) by their first place, since several may
    start in one microsecond.
    """

    topic: Topic
    keep: int | None = None
    epoch: int | None = None
    live: bool = False
    candles: dict[datetime | int, Candle] = field(factory=dict)

    def answered(self, epoch: int) -> None:
        """The answer to a subscription. A daemon that was started anew counts revisions anew."""
        self.live = True
        if epoch != self.epoch:
            self.candles.clear()
        self.epoch = epoch

    def take(self, candle: Candle) -> Iterator[Candle]:
        """A candle, if it is news: a revision that is held already, or an older one, yields nothing."""
        by_place = candle.first_offset is not None and candle.interval.endswith(("t", "v"))
        key = candle.first_offset if by_place and candle.first_offset is not None else candle.start
        held = self.candles.pop(key, None)
        if held is not None and candle.rev <= held.rev:
            self.candles[key] = held
            return
        self.candles[key] = candle
        if self.keep is not None and len(self.candles) > self.keep:
            del self.candles[next(iter(self.candles))]
        yield candle

    def lost(self) -> None:
        """The connection is lost."""
        self.live = False


def _first(entry: Entry) -> int:
    return entry.first


def _last(entry: Entry) -> int:
    return entry.last


def _put(entries: list[Any], first: int, last: int, trades: Sequence[Trade]) -> None:
    """Lay `trades` over a part of the gap in `entries` that has these places, if there is one."""
    at = bisect_left(entries, first, key=_last)
    gap = entries[at] if at < len(entries) else None
    if isinstance(gap, Gap) and gap.first <= first and last <= gap.last:
        before = [replace(gap, to=first - 1)] if gap.first < first else []
        behind = [replace(gap, first=last + 1)] if last < gap.last else []
        entries[at : at + 1] = [*before, *trades, *behind]


def _cut(entries: list[Any], offset: int) -> None:
    """Forget all behind `offset`."""
    at = bisect_left(entries, offset + 1, key=_last)
    dropped = entries[at:]
    del entries[at:]
    if dropped and dropped[0].first <= offset:
        entries.append(replace(dropped[0], to=offset))
