"""The aggregate of a symbol: the running bar of its trades on the current UTC day.

Rules of this file: values only.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec


class Aggregate(msgspec.Struct, frozen=True, gc=False):
    """The bar of a UTC day, as it was behind place `offset` of the symbol's stream.

    All sources of the symbol count, with `count` trades. Prices are exact, and so is `volume`, the sum of all
    quantities. `start`: midnight. `timestamp`: the exchange's time of the last trade in the bar, whose price
    is `close`. Both are ns since the epoch.
    """

    symbol: str
    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    count: int
    timestamp: int
    offset: int
