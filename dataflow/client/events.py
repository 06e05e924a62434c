"""What a client is told, as values. Their fields have the names of the JSON members, in Python's spelling.

Rules of this file: values only. Prices and quantities are exact. Times have microseconds, in UTC.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec

Place: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]  # JSON of others has no larger integers
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
Side: TypeAlias = Literal["buy", "sell"]


class Topic(NamedTuple):
    """What can be followed. `interval`: of the channel `candles` only."""

    channel: str
    symbol: str
    interval: str | None = None

    def __str__(self) -> str:
        return ":".join(filter(None, self))


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in the stream of a symbol."""

    epoch: Place
    offset: Place


class _Value(msgspec.Struct, frozen=True, rename="camel"):
    """The base of all events."""


class Trade(_Value, frozen=True, kw_only=True, gc=False):
    """A trade at its place. `side`: the taker's, `buy` or `sell`. None: the source tells no side or no id."""

    symbol: str
    offset: int
    timestamp: Moment
    side: Side | None
    price: Decimal
    quantity: Decimal = msgspec.field(name="qty")
    trade_id: str | None
    source: str

    @property
    def first(self) -> int:
        """The place, as of a gap."""
        return self.offset

    @property
    def last(self) -> int:
        """The place, as of a gap."""
        return self.offset


class Gap(_Value, frozen=True, kw_only=True, gc=False):
    """Places without a trade, and why. `to` is None when nobody knows how many trades are missing.

    From place 0: all that the client had before is no part of what follows.
    """

    symbol: str = ""
    first: Place = msgspec.field(name="from")
    to: Place | None
    reason: str
    skipped: int | None = None

    @property
    def exact(self) -> bool:
        """Whether it has as many places as trades are missing. Only such a gap can be filled."""
        return self.to is not None

    @property
    def last(self) -> int:
        """The last place."""
        return self.first if self.to is None else self.to


class Filled(_Value, frozen=True, kw_only=True):
    """Places of earlier gaps that hold these trades now."""

    symbol: str
    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")
    trades: tuple[Trade, ...]


class Rewound(_Value, frozen=True, kw_only=True):
    """The daemon died with trades that it had told and not kept: what came behind `offset` is no part of the
    stream any more. `dropped`: the number of trades that the client held there."""

    symbol: str
    epoch: int
    offset: int
    dropped: int


class Quality(_Value, frozen=True, kw_only=True):
    """How good the data of a symbol is at one source."""

    symbol: str
    source: str
    state: str
    since: Moment
    reason: str | None = None
    missing: int | None = None
    lag: float | None = None


class Missing(_Value, frozen=True, kw_only=True):
    """Places of trades that a candle lacks. `to` is None when nobody knows how many."""

    first: int = msgspec.field(name="from")
    to: int | None
    reason: str


class Candle(_Value, frozen=True, kw_only=True):
    """A candle as it is now. A later one of the same `start` has a higher `rev` and replaces it."""

    symbol: str
    interval: str
    start: Moment
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    count: Place
    rev: Place
    closed: bool
    complete: bool
    gaps: tuple[Missing, ...] = ()
    first_offset: int | None = None
    last_offset: int | None = None


class Notice(_Value, frozen=True, kw_only=True):
    """What is told besides the streams, such as `connection.lost`, and what this client does not know."""

    method: str
    params: dict[str, Any]


class Refused(_Value, frozen=True, kw_only=True):
    """A subscription that the server refuses. `topic` is None when the call was not understood at all."""

    topic: Topic | None
    code: int
    message: str
    data: Any = None


class Subscribed(_Value, frozen=True, kw_only=True):
    """The server has answered a subscription: what follows of `topic` stands behind `offset`.

    It comes before the entries of the answer, and behind a rewind or the gap of a new count. `newest`: the
    last place of the answer.
    """

    topic: Topic
    epoch: int
    offset: int
    newest: int


class Connection(_Value, frozen=True, kw_only=True):
    """What became of the connection to the daemon. The core never yields it: it has no connection.

    `state`: connecting, connected, lost, waiting (for a turn at the daemon), refused, draining, closed.
    `code`: of the close, 1006 for a connection that broke. `retry_in`: seconds until the next attempt.
    """

    state: str
    reason: str | None = None
    code: int | None = None
    retry_in: float | None = None


Entry: TypeAlias = Trade | Gap
Event: TypeAlias = Trade | Gap | Filled | Rewound | Quality | Candle | Notice | Refused | Subscribed
