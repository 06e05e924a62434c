"""Bars: open, high, low and close, volume and count of the trades in a window of time.

Rules of this file: pure. A window is [start, start + width), aligned to the Unix epoch, in the exchanges' own
time: so the bar of a trade is known from the trade alone. Trades of the same time stand in the order of their
sequences where one source gave both, else in the order of their places. So the bar of one source is the same
in whatever order its trades come. Sums are exact, if the decimal context has `DIGITS` digits.

Trades come in runs, in the order of their places. A run costs least as a whole: `bars_of` makes new bars of
it alone, and `Bar.merge` adds each to the bar of its window, and to those of wider windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from dataflow.domain import Gap, Trade
from dataflow.domain.candle import DAY, SECOND, Candle

__all__ = ["DAY", "DIGITS", "SECOND", "Bar", "Part", "bars_of", "pack", "unpack"]

# Of the process's decimal context. Connectors take prices and quantities between 10**-139 and 10**139 (see
# `sources.reading.UNSIGNED`): 556 digits hold each product of two, and 44 more the sum of any number of them.
DIGITS: Final = 600
_ZERO: Final = Decimal(0)


class Bar(msgspec.Struct, eq=False, array_like=True):
    """The bar of the window from `start` to before `end`, ns since the epoch; at least one trade is in it.

    `first` and `last` are its trades that are first and last in time, not in the order of arrival, and
    `first_place` and `last_place` are theirs in the stream of their symbol. `first_offset` and `last_offset`:
    the lowest and the highest place. `gaps`: where trades of the window are missing. `changes`: how often
    anything but the trades has changed.
    """

    start: int
    end: int
    first: Trade
    last: Trade
    high: Decimal
    low: Decimal
    volume: Decimal
    count: int = 1

    quote_volume: Decimal = _ZERO
    buy_volume: Decimal = _ZERO
    first_place: int = 0
    last_place: int = 0
    first_offset: int = 0
    last_offset: int = 0
    closed: bool = False
    gaps: tuple[Gap, ...] = ()
    changes: int = 0

    @classmethod
    def at(cls, trade: Trade, place: int, width: int) -> Bar:
        """The bar, `width` ns wide, that begins with the trade at `place`."""
        start, price, quantity = trade.timestamp // width * width, trade.price, trade.quantity
        bought = quantity if trade.side == "buy" else _ZERO
        return cls(
            start, start + width, trade, trade, price, price, quantity, 1,
            price * quantity, bought, place, place, place, place,
        )  # fmt: skip

    def fold_at(self, trades: Sequence[Trade], places: Sequence[int], begin: int, until: float) -> int:
        """`fold` of trades at these places, which are higher than all before."""
        first, last = self.first, self.last
        end = self.fold(trades, begin, until)
        if end == begin:
            return end
        if self.first is not first:
            self.first_place = places[_index(trades, self.first, range(begin, end))]
        if self.last is not last:
            self.last_place = places[_index(trades, self.last, range(end - 1, begin - 1, -1))]
        self.last_offset = places[end - 1]
        return end

    def fold(self, trades: Sequence[Trade], begin: int = 0, until: float = float("inf")) -> int:
        """Add trades from index `begin` on, in one pass, up to the first that lies outside of the window.

        A trade of the time `until` or later lies outside, too. Returns the index of that trade, or the number
        of trades. Atomic: an exception leaves the bar as it was.
        """
        # Sums are made once for trades in a row of one price and side.
        start, end = self.start, min(self.end, until)
        first, last, high, low = self.first, self.last, self.high, self.low
        earliest, latest = first.timestamp, last.timestamp
        bought, other, turned = _ZERO, _ZERO, _ZERO
        price, side, quantity = last.price, last.side, _ZERO
        count = 0
        for trade in islice(trades, begin, None):
            moment = trade.timestamp
            if moment > latest:
                if moment >= end:
                    break
                last, latest = trade, moment
            elif moment == latest:
                number, its = trade.sequence, last.sequence
                if number is None or its is None or number > its or not _precedes(trade, last):
                    last = trade  # nearly always, and without a call
                if moment == earliest and _precedes(trade, first):
                    first = trade
            elif moment <= earliest:
                if moment < start:
                    break
                if moment < earliest or _precedes(trade, first):
                    first, earliest = trade, moment
            count += 1
            if trade.price == price and trade.side == side:
                quantity += trade.quantity
                continue
            turned += price * quantity
            if side == "buy":
                bought += quantity
            else:
                other += quantity
            price, side, quantity = trade.price, trade.side, trade.quantity
            if price > high:
                high = price
            elif price < low:
                low = price
        bought, other = (bought + quantity, other) if side == "buy" else (bought, other + quantity)
        volume, buy_volume = self.volume + bought + other, self.buy_volume + bought
        self.quote_volume += turned + price * quantity
        self.first, self.last, self.high, self.low = first, last, high, low
        self.volume, self.buy_volume = volume, buy_volume
        self.count += count
        return begin + count

    def merge(self, other: Bar) -> None:
        """Add all trades of `other`, whose window is this one or lies in it. No trade may be in both."""
        if _stands_before(other.first, other.first_place, self.first, self.first_place):
            self.first, self.first_place = other.first, other.first_place
        if _stands_before(self.last, self.last_place, other.last, other.last_place):
            self.last, self.last_place = other.last, other.last_place
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.volume += other.volume
        self.quote_volume += other.quote_volume
        self.buy_volume += other.buy_volume
        self.count += other.count
        self.first_offset = min(self.first_offset, other.first_offset)
        self.last_offset = max(self.last_offset, other.last_offset)

    def in_window(self, width: int, changes: int = 0) -> Bar:
        """A new bar of the same trades, in the wider window that they lie in."""
        start = self.start // width * width
        end = start + width
        return msgspec.structs.replace(self, start=start, end=end, closed=False, gaps=(), changes=changes)

    @property
    def rev(self) -> int:
        """Grows with every change."""
        return self.count + self.changes + self.closed

    def candle(self, symbol: str, interval: str) -> Candle:
        """It as a value."""
        return Candle(
            symbol,
            interval,
            self.start,
            self.first.price,
            self.high,
            self.low,
            self.last.price,
            self.volume,
            self.quote_volume,
            self.buy_volume,
            self.count,
            self.rev,
            self.closed,
            self.gaps,
            self.first_offset,
            self.last_offset,
        )


def _precedes(trade: Trade, other: Trade) -> bool:
    """Whether `trade`, which was offered later and is of the same time, stands before `other`."""
    mine, others = trade.sequence, other.sequence
    return mine is not None and others is not None and mine < others and trade.source == other.source


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Bar).decode


def pack(bar: Bar) -> bytes:
    """A bar as bytes, for a disk."""
    return _encode(bar)


def unpack(data: bytes) -> Bar:
    """The same bar. Raises ValueError for anything else than its bytes."""
    try:
        return _decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no bar: {error}") from None


class Part(NamedTuple):
    """The bar of some trades of a run. `high`: the latest time of a trade that came before the first."""

    bar: Bar
    high: int


def bars_of(
    trades: Sequence[Trade], places: Sequence[int], width: int, high: int, lateness: int, until: float
) -> tuple[list[Part], int]:
    """New bars, `width` ns wide, of a run of trades at these places; and the latest time so far.

    `high` is that before the run. Trades of the time `until` or later are in none. Trades that are more than
    `lateness` behind the latest time have bars of their own, so that it is known how late they were.
    """
    parts: list[Part] = []
    open_bars: dict[int, Bar] = {}
    at, count = 0, len(trades)
    while at < count:
        trade = trades[at]
        moment = trade.timestamp
        if moment >= until:
            at += 1
            continue
        start = moment // width * width
        is_late = moment < high - lateness
        bar = None if is_late else open_bars.get(start)
        if bar is None:
            bar = Bar.at(trade, places[at], width)
            parts.append(Part(bar, high))
            if not is_late:
                open_bars[start] = bar
            at += 1
        at = bar.fold_at(trades, places, at, until)
        if bar.last.timestamp > high:
            high = bar.last.timestamp
    return parts, high


def _index(trades: Sequence[Trade], trade: Trade, indices: Iterable[int]) -> int:
    return next(at for at in indices if trades[at] is trade)


def _stands_before(one: Trade, its_place: int, other: Trade, others_place: int) -> bool:
    """Whether one trade stands before another one."""
    if one.timestamp != other.timestamp:
        return one.timestamp < other.timestamp
    if one.source == other.source and one.sequence is not None and other.sequence is not None:
        return one.sequence < other.sequence
    return its_place < others_place
