"""Candles: the bar of a window of trades as clients see it, and the intervals that there can be.

Rules of this file: values only. An interval is a window of time ("1m"), a number of trades ("100t") or a
volume ("10v").
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

import msgspec
from attrs import frozen

from .items import Gap
from .symbols import ANY

SECOND: Final = 10**9  # nanoseconds
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

_UNITS: Final = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_WRITTEN: Final = re.compile(r"([1-9][0-9]{0,8}|(?:0|[1-9][0-9]{0,8})\.[0-9]{1,8})([smhdtv])")
WELL_FORMED: Final = (
    'a number and a unit: time that divides a day ("1s", "5m", "1h", "1d"; from a minute on, whole minutes), '
    'trades ("100t") or volume ("10v", "0.5v")'
)


@frozen
class Interval:
    """What one candle spans: `width` ns of time, or `trades`, or a `volume`. The other two are 0."""

    name: str
    width: int = 0
    trades: int = 0
    volume: Decimal = Decimal(0)


def interval(name: str) -> Interval:
    """The interval with this name. Raises ValueError, which tells what can be one."""
    match = _WRITTEN.fullmatch(name)
    number, unit = (Decimal(match[1]), match[2]) if match else (Decimal(0), "")
    whole = number == int(number)
    if unit == "v" and number:
        return Interval(name, volume=number)
    if unit == "t" and whole:
        return Interval(name, trades=int(number))
    if unit in _UNITS and whole:
        width = int(number) * _UNITS[unit]
        if DAY % width == 0 and (width < MINUTE or width % MINUTE == 0):
            return Interval(name, width=width)
    raise ValueError(f"must be {WELL_FORMED}")


class Candle(msgspec.Struct, frozen=True):
    """The bar of a window, as it was known when `rev` was given. A higher `rev` of the same candle is newer.

    `start`, ns since the epoch: of the window of time; of trades or volume the time of the first trade.
    Prices are exact, and so are the sums: `volume` of all quantities, `quote_volume` of quantity times price,
    `buy_volume` of the quantities whose taker bought. `closed`: its window is over; only a late trade or a
    fill can still change it. `complete`: no trade of the window is known to be missing; else `gaps` tells
    where some are. `first_offset` and `last_offset`: the lowest and the highest place of its trades.
    """

    symbol: str
    interval: str
    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    count: int
    rev: int
    closed: bool
    gaps: tuple[Gap, ...]
    first_offset: int
    last_offset: int

    @property
    def complete(self) -> bool:
        return not self.gaps


@frozen
class CandleRules:
    """How candles are made. `lateness`, `revise_within` and `throttle`: ns. See `[candles]`.

    `intervals`: those that clients may ask for. `record`: the symbols whose candles of a minute and an hour
    are kept on disk; `ANY` among them: all.
    """

    intervals: tuple[str, ...] = ("1s", "5s", "15s", "1m", "5m", "15m", "1h", "4h", "1d")
    record: tuple[str, ...] = (ANY,)
    lateness: int = 2 * SECOND
    revise_within: int = HOUR
    throttle: int = SECOND
