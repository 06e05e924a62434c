"""What the system talks about: trades, and trades that are known to be missing.

Rules of this file: values only. Nothing here does I/O, reads a clock or knows an exchange.
Times are integers, nanoseconds since the Unix epoch. Prices and quantities are exact decimals.
Symbols are written BASE-QUOTE ("BTC-USD") everywhere outside a connector.

What there is by the hundred thousand is a msgspec Struct: as immutable as a frozen attrs class, made in an
eighth of the time (a frozen attrs class sets each field through `object.__setattr__`), and without the
garbage collector's header: `gc=False` is safe because their fields hold only atoms, or each other without
a way back.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec
from attrs import frozen

Side: TypeAlias = Literal["buy", "sell"]


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One execution, as its source reported it.

    `side` is the taker's. `timestamp` is the exchange's own time of the trade, ns since epoch.
    `sequence` is the source's counter for this symbol when the source promises that it grows by
    exactly one per trade (a skip then proves a loss), else None.
    """

    source: str
    symbol: str
    trade_id: str
    side: Side
    price: Decimal
    quantity: Decimal
    timestamp: int
    sequence: int | None = None


@frozen
class Missed:
    """Trades of `source` in `symbol` may be missing at this place of its stream, nobody knows how many.

    Sent by a connector down the same way as trades: after a (re)subscription to a source whose ids
    prove nothing, or when a sequence number of the connection was skipped.

    `resubscribed` promises that a new run of the stream, in order, begins at this place: when that
    run repeats the newest trade that was here before, nothing is missing after all.
    """

    source: str
    symbol: str
    reason: str
    resubscribed: bool = False


Item: TypeAlias = Trade | Missed


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An admitted trade and its place: `offset` grows by one per place in the stream of its symbol."""

    offset: int
    trade: Trade

    @property
    def first(self) -> int:
        return self.offset

    @property
    def last(self) -> int:
        return self.offset


@frozen
class Gap:
    """Places `first`..`last` of a symbol's stream that no trade fills, and why.

    `exact` tells whether the number of missing trades is known to be `last - first + 1`; when it is
    False exactly one place stands for an unknown number.
    """

    first: int
    last: int
    reason: str
    exact: bool = True


Entry: TypeAlias = Recorded | Gap
