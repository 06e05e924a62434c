"""Bars: open, high, low and close, volume and count of the trades in a window of time.

Rules of this file: pure. A window is [start, start + width), aligned to the Unix epoch, in the exchanges' own
time: so the bar of a trade is known from the trade alone. Trades of the same time stand in the order of their
sequences where one source gave both, else in the order in which they are offered. So the bar of one source is
the same in whatever order its trades come. Sums are exact, if the decimal context has `DIGITS` digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import islice
from typing import Final

from attrs import define

from dataflow.domain import Trade

SECOND: Final = 10**9  # nanoseconds
DAY: Final = 86_400 * SECOND

# Of the process's decimal context. Connectors take quantities between 10**-139 and 10**139 (see
# `sources.reading.UNSIGNED`): 278 digits hold each of them, and 22 more the sum of any number of them.
DIGITS: Final = 300


@define(eq=False)
class Bar:
    """The bar of the window from `start` to before `end`, ns since the epoch; at least one trade is in it.

    `first` and `last` are its trades that are first and last in time, not in the order of arrival.
    """

    start: int
    end: int
    first: Trade
    last: Trade
    high: Decimal
    low: Decimal
    volume: Decimal
    count: int = 1

    @classmethod
    def of(cls, trade: Trade, width: int) -> Bar:
        """The bar, `width` ns wide, that begins with `trade`."""
        start = trade.timestamp // width * width
        return cls(start, start + width, trade, trade, trade.price, trade.price, trade.quantity)

    def fold(self, trades: Sequence[Trade], begin: int = 0, until: float = float("inf")) -> int:
        """Add trades from index `begin` on, in one pass, up to the first that lies outside of the window.

        A trade of the time `until` or later lies outside, too. Returns the index of that trade, or the number
        of trades. Atomic: an exception leaves the bar as it was.
        """
        start, end = self.start, min(self.end, until)
        first, last, high, low, volume = self.first, self.last, self.high, self.low, self.volume
        earliest, latest = first.timestamp, last.timestamp
        count = 0
        for trade in islice(trades, begin, None):
            moment = trade.timestamp
            if moment > latest:
                if moment >= end:
                    break
                last, latest = trade, moment
            elif moment == latest:
                if not _precedes(trade, last):
                    last = trade
                if moment == earliest and _precedes(trade, first):
                    first = trade
            elif moment <= earliest:
                if moment < start:
                    break
                if moment < earliest or _precedes(trade, first):
                    first, earliest = trade, moment
            price = trade.price
            if price > high:
                high = price
            elif price < low:
                low = price
            volume += trade.quantity
            count += 1
        self.first, self.last, self.high, self.low, self.volume = first, last, high, low, volume
        self.count += count
        return begin + count


def _precedes(trade: Trade, other: Trade) -> bool:
    """Whether `trade`, which was offered later and is of the same time, stands before `other`."""
    mine, others = trade.sequence, other.sequence
    return mine is not None and others is not None and mine < others and trade.source == other.source
