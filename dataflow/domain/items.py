"""Trades, and trades that are known to be missing.

Rules of this file: values only. Nothing here does I/O, reads a clock or knows an exchange.
Times are integers, nanoseconds since the Unix epoch. Prices and quantities are exact decimals.
Outside a connector a symbol has its canonical name (`domain.symbols`): "BTC-USD", "AAPL".

Trades exist by the hundred thousand, so they are msgspec Structs: immutable like frozen attrs classes, but
eight times faster to create (a frozen attrs class sets each field through `object.__setattr__`). They also
have no header for the garbage collector. `gc=False` is safe here: the fields hold only atoms, or a Struct
that does not refer back. On disk they are arrays, and their first element tells a trade from a gap (see
`entries`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec
from attrs import frozen

Side: TypeAlias = Literal["buy", "sell"]


class Trade(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """One execution, as its source reported it.

    `trade_id` is None from a source without ids, `side` from one that does not tell it: neither is made up.
    No exchange is such a source. `side` is the side of the taker. `timestamp` is the exchange's own time of
    the trade, ns since epoch.
    `sequence` is the source's counter for this symbol, if the source promises that it grows by exactly one
    per trade. A skipped number then proves a loss. Otherwise it is None.
    """

    source: str
    symbol: str
    trade_id: str | None
    side: Side | None
    price: Decimal
    quantity: Decimal
    timestamp: int
    sequence: int | None = None


@frozen
class Missed:
    """A mark: an unknown number of trades of `source` in `symbol` may be missing at this place of the stream.

    A connector delivers it between the trades. It does so after a subscription to a source without sequence
    numbers, and when the numbering of the connection skipped a message.

    `resubscribed` promises that the stream begins again at this place, in order. If this new run repeats the
    newest trade from before, nothing is missing after all.
    """

    source: str
    symbol: str
    reason: str
    resubscribed: bool = False


@frozen
class Missing:
    """Trades of `source` in `symbol` that did not come: behind `after` and before `before`.

    Each of the two is a trade that was received, or None: nothing was received before, or nothing since.
    `first`..`last`: the sequences that are missing, from a source with sequences; else both are None. `last`
    is None with a `first` when nothing was received since.

    `until`: what is later, ns since epoch, is not missing, because another source took over; and the trades
    of that one wait for the answer.
    """

    source: str
    symbol: str
    after: Trade | None
    before: Trade | None
    first: int | None = None
    last: int | None = None
    until: int | None = None


@frozen
class Refilled:
    """What came of asking for missing trades of `symbol`: `trades`, oldest first, perhaps none. Of a source
    without sequences nothing is missing between them.

    `is_whole`: nothing is missing between the newest trade from before and the first one that waits for this
    answer. `is_last`: nothing more comes in time, so what waits goes on, behind a gap if need be.

    `before`: that of the question, see `Missing`. The answer concerns what waits up to this trade, and
    nothing that began to wait later. None: the question had no end, so nothing waits for the answer.
    """

    source: str
    symbol: str
    trades: tuple[Trade, ...] = ()
    is_whole: bool = False
    is_last: bool = True
    before: Trade | None = None


@frozen
class Switched:
    """A mark: behind this place the stream of `symbol` is that of `source`. Before, it was that of `before`.

    `before` is None where the others stay in the stream, and `source` only joins them. `at`: the time of it,
    ns since epoch. `is_whole`: nothing of `before` is missing up to here. `sequence`: of the last trade of
    `source` that was no part of the stream, from a source with sequences.
    """

    source: str
    symbol: str
    before: str | None
    reason: str
    at: int
    is_whole: bool
    sequence: int | None = None


Item: TypeAlias = Trade | Missed | Refilled | Switched


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An admitted trade and its place. `offset` grows by one per place in the stream of the symbol."""

    offset: int
    trade: Trade

    @property
    def first(self) -> int:
        return self.offset

    @property
    def last(self) -> int:
        return self.offset


class Gap(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """Places `first`..`last` of a symbol's stream that hold no trade, and the reason.

    `exact`: exactly `last - first + 1` trades are missing. If it is False, one place stands for an unknown
    number of trades. An exact gap of a source with sequences can be filled later: `source` is its name, and
    `sequence` belongs to the missing trade of the first place.
    """

    first: int
    last: int
    reason: str
    exact: bool = True
    source: str | None = None
    sequence: int | None = None

    def part(self, first: int, last: int) -> Gap:
        """The gap at some of its places."""
        moved = None if self.sequence is None else self.sequence + first - self.first
        return msgspec.structs.replace(self, first=first, last=last, sequence=moved)


Entry: TypeAlias = Recorded | Gap
