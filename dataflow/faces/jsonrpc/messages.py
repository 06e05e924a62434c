"""All messages of the protocol as types: what clients say, what they are answered, and what they are told.

Rules of this file: types and words only. `methods` reads calls by these types. Answers and notifications are
written by hand where that is faster; a test compares all that a daemon says with what stands here. The
documents for tools (`openrpc`, `asyncapi`) are made of this and of nothing else. Bounds stand here as words
for tools; they are checked where they matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

import msgspec
from attrs import field, frozen
from msgspec import Meta

from dataflow.domain.topic import TRADES
from dataflow.gateway import spelled
from dataflow.gateway.answers import Position
from dataflow.gateway.desk import MAX_CANDLES, MAX_COUNT, MAX_TRADES
from dataflow.gateway.recovery import MOST_GAPS

from . import protocol

JSON: Final = "json"
COMPACT: Final = "compact"
STRINGS: Final = "strings"


def _said(words: str, **bounds: Any) -> Meta:
    """Words and bounds for tools. Nothing is checked by them."""
    return Meta(extra_json_schema={"description": words, **bounds})


_SINCE: Final = (
    "the newest position that the client has; of several symbols one each, by the symbol. `gaps`: at most"
    f" {MOST_GAPS:,} of those that it still has, each with its first and last place"
)
_PART: Final = (
    "of `*`: the number of this call and how many there are, where one cannot hold all positions of `since`."
    " All but the last are answered by an empty list; the last one subscribes"
)
_EACH: Final = "the name of a symbol, several names, or `*`: all that there are and will be"
_INTERVAL: Final = "of candles: 1m, say, or 100t (trades), or 10v (volume)"
_CHANNEL: Final = "trades, candles or quality"
_FROM: Final = "RFC 3339: only from this time on"
_TO: Final = "RFC 3339: only before this time"

Channel = Annotated[str, _said(_CHANNEL)]
Interval = Annotated[str | None, _said(_INTERVAL)]


# -- what clients say ----------------------------------------------------------------------------------


@frozen(kw_only=True)
class Subscribe:
    """Follow a topic from now on, or from a place that the client has."""

    symbol: Annotated[str | list[str], _said(_EACH)]
    channel: Channel = TRADES
    snapshot: Annotated[
        int | None, _said("so many of the newest entries first", minimum=0, maximum=MAX_COUNT)
    ] = None
    since: Annotated[dict[str, Any] | None, _said(_SINCE)] = None
    batch: Annotated[bool, _said("several updates may come as one message, an array")] = False
    format: Annotated[str, _said(f"how trades are written: {JSON}, {STRINGS} or {COMPACT}")] = JSON
    interval: Interval = None
    part: Annotated[tuple[int, int] | None, _said(_PART)] = None


@frozen(kw_only=True)
class Unsubscribe:
    """Follow a topic no more."""

    symbol: Annotated[str | list[str], _said("as it was subscribed")]
    channel: Channel = TRADES
    interval: Interval = None


@frozen(kw_only=True)
class RecentTrades:
    """The newest trades, or those around a time."""

    symbol: str
    count: Annotated[int, _said("trades in the answer", minimum=1, maximum=MAX_COUNT)] = 50
    beforeTimestamp: Annotated[str | None, _said("RFC 3339: only before this time")] = None  # noqa: N815 - the public contract's spelling
    afterTimestamp: Annotated[str | None, _said("RFC 3339: only after this time")] = None  # noqa: N815


class GetCandles(msgspec.Struct, kw_only=True, frozen=True, rename={"start": "from", "end": "to"}):
    """Candles of any time."""

    symbol: str
    interval: Annotated[str, _said("1m, say, or 100t (trades), or 10v (volume)")]
    start: Annotated[str | None, _said(_FROM + "; without it the newest ones")] = None
    end: Annotated[str | None, _said(_TO)] = None
    limit: Annotated[int, _said("candles in the answer", minimum=1, maximum=MAX_CANDLES)] = 500


class GetTrades(msgspec.Struct, kw_only=True, rename={"start": "from", "end": "to"}):
    """A part of a symbol's stream, of any time."""

    symbol: str
    after: Annotated[Position | None, _said("a place: only what stands behind it")] = None
    start: Annotated[str | None, _said(_FROM)] = None
    end: Annotated[str | None, _said(_TO)] = None
    limit: Annotated[int, _said("trades and gaps in the answer", minimum=1, maximum=MAX_TRADES)] = 1000


class Since(spelled.Position):
    """The last place that a client has, and the gaps before it that it still has."""

    gaps: NotRequired[list[tuple[int, int]]]


# What a class of parameters leaves to `methods`, or has as a value of another room.
EXACT: Final[Mapping[tuple[type, str], Sequence[Any]]] = {
    (Subscribe, "since"): (Since, dict[str, Since], None),
    (GetTrades, "after"): (spelled.Position, None),
}


# -- what they are answered ----------------------------------------------------------------------------

Row = tuple[
    Annotated[int | str, _said("topic: its number in the answer, or the name of the symbol")],
    Annotated[int, _said("offset")],
    Annotated[int, _said("timestamp: microseconds since 1970")],
    Annotated[Literal["buy", "sell"] | None, _said("side: of the taker")],
    Annotated[spelled.Number, _said("price")],
    Annotated[spelled.Number, _said("qty")],
    Annotated[str | None, _said("tradeId")],
    Annotated[int | str, _said("source: its index in `sources` of the answer, or its name")],
]  # a trade in the format `compact`

Filled = TypedDict("Filled", {"from": int, "to": int, "trades": list[spelled.Trade]})
FilledRows = TypedDict("FilledRows", {"from": int, "to": int, "trades": list[Row]})


class _Subscribed(TypedDict):
    symbol: str
    event: Literal["subscribed"]
    epoch: int
    offset: Annotated[
        int, Meta(description="the newest place that the answer covers; the first update has the next", ge=0)
    ]
    recovered: NotRequired[Annotated[bool, Meta(description="whether this is all behind `since`")]]
    rewound: NotRequired[
        Annotated[spelled.Position, Meta(description="what the client holds behind it is not of the stream")]
    ]
    gaps: NotRequired[list[spelled.Missing]]
    quality: spelled.SymbolQuality | None


class SubscribedTrades(_Subscribed):
    """Trades are followed. `trades` and `gaps`: what was asked of the past."""

    channel: Literal["trades"]
    trades: NotRequired[list[spelled.Trade]]
    filled: NotRequired[Annotated[list[Filled], Meta(description="of the gaps in `since`")]]


class SubscribedRows(_Subscribed):
    """The same in the format `compact`."""

    channel: Literal["trades"]
    columns: Annotated[list[str], Meta(description="the names of what stands in a row")]
    topic: Annotated[int | str, Meta(description="what the first column has for this symbol")]
    sources: Annotated[list[str], Meta(description="the last column is an index of this list, or a name")]
    trades: NotRequired[list[Row]]
    filled: NotRequired[list[FilledRows]]


class SubscribedCandles(_Subscribed):
    """Candles are followed."""

    channel: Literal["candles"]
    interval: str
    candles: NotRequired[list[spelled.Candle]]


class SubscribedQuality(_Subscribed):
    """Quality is followed: `quality` has it as it is now."""

    channel: Literal["quality"]


class Unsubscribed(TypedDict):
    """It is followed no more, or was not followed."""

    channel: str
    symbol: str
    event: Literal["unsubscribed"]
    interval: NotRequired[str]


class Discovered(TypedDict):
    """The OpenRPC document of all methods."""

    openrpc: Annotated[str, Meta(description="the version of the format")]
    info: dict[str, Any]
    servers: list[dict[str, Any]]
    methods: list[dict[str, Any]]
    components: dict[str, Any]


# -- what they are told --------------------------------------------------------------------------------

StreamGap = TypedDict(
    "StreamGap",
    {
        "symbol": str,
        "channel": str,
        "epoch": int,
        "from": Annotated[int, Meta(description="the first missing place")],
        "to": Annotated[
            int | None, Meta(description="the last one; null: nobody knows how many are missing")
        ],
        "reason": str,
        "skipped": NotRequired[
            Annotated[int, Meta(description="trades left out because this client is slow", ge=0)]
        ],
    },
)
StreamFilled = TypedDict(
    "StreamFilled",
    {
        "symbol": str,
        "channel": str,
        "epoch": int,
        "from": int,
        "to": int,
        "trades": list[spelled.Trade],
    },
)
StreamFilledRows = TypedDict(
    "StreamFilledRows",
    {"symbol": str, "channel": str, "epoch": int, "from": int, "to": int, "trades": list[Row]},
)
StreamSwitched = TypedDict(
    "StreamSwitched",
    {
        "symbol": str,
        "channel": str,
        "epoch": int,
        "offset": Annotated[
            int, Meta(description="up to it the stream is that of `from`, behind it of `to`")
        ],
        "from": str,
        "to": str,
        "reason": str,
    },
)


class StreamStarted(TypedDict):
    """A symbol has come: its stream begins behind `offset`."""

    symbol: str
    channel: str
    epoch: int
    offset: int


class QualityUpdate(spelled.SourceQuality):
    """How a symbol fares at one source."""

    symbol: str
    source: str


class ConnectionLost(TypedDict):
    """A source is lost, or refuses these symbols."""

    source: str
    reason: str
    symbols: list[str]


class ConnectionRestored(TypedDict):
    """A source is back."""

    source: str
    symbols: list[str]
    action: Annotated[Literal["resubscribe"], Meta(description="what the server does")]


class ConnectionWaiting(TypedDict):
    """This client waits for its turn."""

    ahead: Annotated[int, Meta(description="clients before it", ge=0)]
    seconds: Annotated[float, Meta(description="for which it has waited", ge=0)]


class ConnectionRefused(TypedDict):
    """There is no room; the connection is closed."""

    reason: str
    retryAfter: Annotated[float, Meta(description="seconds after which it may come back", ge=0)]


class ConnectionDraining(TypedDict):
    """The server stops; the connection is closed soon."""

    reason: str


class SymbolsChanged(TypedDict):
    """Symbols that have their first source now, or none any more."""

    added: list[str]
    removed: list[str]


# -- the tables ----------------------------------------------------------------------------------------


@frozen
class Method:
    """A method, described. `results`: the types that its result may have; `or_list`: or a list of these.

    `errors`: the codes that it has besides those of every call. `example`: params and result.
    """

    summary: str
    params: type | None
    results: Sequence[Any]
    or_list: bool = field(default=False, kw_only=True)
    follows: bool = field(default=False, kw_only=True)  # needs a connection
    errors: Sequence[int] = field(default=(), kw_only=True)
    example: tuple[Mapping[str, Any], Any]


_TRADE: Final = {
    "seqnum": 612,
    "event": "updated",
    "channel": "trades",
    "symbol": "BTC-USDT",
    "timestamp": "2025-11-21T03:28:57.934000Z",
    "side": "buy",
    "qty": 0.00016,
    "price": 61686.0,
    "tradeId": "5023817",
    "source": "binance",
    "offset": 612,
}
_POSITION: Final = {"epoch": 1763696936212, "offset": 612}
_OF: Final = {"symbol": "BTC-USDT"}
_READS: Final = (protocol.INVALID_PARAMS, protocol.UPSTREAM_UNAVAILABLE)

METHODS: Final[Mapping[str, Method]] = {
    "subscribe": Method(
        "Follow trades, candles or quality",
        Subscribe,
        (SubscribedTrades, SubscribedRows, SubscribedCandles, SubscribedQuality),
        or_list=True,
        follows=True,
        errors=(*_READS, protocol.TOO_MANY_SUBSCRIPTIONS),
        example=(
            {**_OF, "channel": "trades", "snapshot": 1},
            {
                "channel": "trades",
                **_OF,
                "event": "subscribed",
                **_POSITION,
                "trades": [_TRADE],
                "quality": None,
            },
        ),
    ),
    "unsubscribe": Method(
        "Follow it no more",
        Unsubscribe,
        (Unsubscribed,),
        or_list=True,
        follows=True,
        errors=(protocol.INVALID_PARAMS,),
        example=(_OF, {"channel": "trades", **_OF, "event": "unsubscribed"}),
    ),
    "getRecentTrades": Method(
        "Trades, the newest first; with afterTimestamp the oldest first",
        RecentTrades,
        (list[spelled.Trade],),
        errors=_READS,
        example=({**_OF, "count": 1}, [_TRADE]),
    ),
    "getTrades": Method(
        "Trades and gaps in the order of the stream, from memory and disk alike",
        GetTrades,
        (spelled.TradesPage,),
        errors=_READS,
        example=(
            {**_OF, "from": "2025-11-21T03:28:57Z", "limit": 1},
            {**_OF, "epoch": _POSITION["epoch"], "trades": [_TRADE], "gaps": [], "next": _POSITION},
        ),
    ),
    "getCandles": Method(
        "Candles, the oldest first",
        GetCandles,
        (spelled.CandlePage,),
        errors=_READS,
        example=(
            {**_OF, "interval": "1m", "limit": 1},
            {**_OF, "interval": "1m", "candles": [], "next": None},
        ),
    ),
    "getSymbols": Method(
        "All symbols, in alphabetical order",
        None,
        (list[spelled.Symbol],),
        example=({}, []),
    ),
    "getStatus": Method(
        "The daemon and its sources",
        None,
        (spelled.Status,),
        example=(
            {},
            {
                "sources": {},
                "sessions": 1,
                "waiting": {"served": 0, "resuming": 0, "new": 0},
                "ended": {"gone": 4},
                "loopLag": 0.0031,
                "uptime": 612.034,
                "epoch": _POSITION["epoch"],
                "version": "0.1.0",
                "failover": {},
                "rate": 0.0,
                "sentRate": 0.0,
                "cpu": 0.0312,
                "memory": 58720256,
            },
        ),
    ),
    "rpc.discover": Method(
        "This document",
        None,
        (Discovered,),
        example=({}, {"openrpc": "1.3.2", "info": {}, "servers": [], "methods": [], "components": {}}),
    ),
    "ping": Method("Whether somebody is there", None, (Literal["pong"],), example=({}, "pong")),
}


@frozen
class Notification:
    """What is told without a question, and `types` that its params may have."""

    summary: str
    types: Sequence[Any]


NOTIFICATIONS: Final[Mapping[str, Notification]] = {
    "trades.update": Notification("A trade; in the format `compact` a row stands for it", (spelled.Trade,)),
    "candles.update": Notification("A candle as it is now", (spelled.Candle,)),
    "quality.update": Notification("A symbol fares otherwise at a source", (QualityUpdate,)),
    "stream.gap": Notification("Places that hold no trade", (StreamGap,)),
    "stream.filled": Notification(
        "Places that were told as a gap hold these trades now", (StreamFilled, StreamFilledRows)
    ),
    "stream.started": Notification("A symbol has come, for those who follow all", (StreamStarted,)),
    "stream.switched": Notification("A stream is that of another source from now on", (StreamSwitched,)),
    "symbols.changed": Notification("Symbols have come, or gone", (SymbolsChanged,)),
    "connection.lost": Notification("A source is lost", (ConnectionLost,)),
    "connection.restored": Notification("A source is back", (ConnectionRestored,)),
    "connection.waiting": Notification("Many clients have come, and this one waits", (ConnectionWaiting,)),
    "connection.refused": Notification("There is no room for this client", (ConnectionRefused,)),
    "connection.draining": Notification("The server stops", (ConnectionDraining,)),
}

ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    protocol.PARSE_ERROR: ("Parse error", "the text is no JSON"),
    protocol.INVALID_REQUEST: ("Invalid Request", "JSON, but no call"),
    protocol.METHOD_NOT_FOUND: ("Method not found", "`data` has the nearest names"),
    protocol.INVALID_PARAMS: ("Invalid params", "`data` tells which, and what would be right"),
    protocol.INTERNAL_ERROR: ("Internal error", "a failure inside; the server's log has it"),
    protocol.UPSTREAM_UNAVAILABLE: ("temporarily unavailable", "it cannot be had at present"),
    protocol.UNAUTHORISED: ("Unauthorised", "the client may not do this"),
    protocol.RATE_LIMITED: ("Rate limited", "more than the client's quota, or 4 MiB of answers to a batch"),
    protocol.TOO_MANY_SUBSCRIPTIONS: ("too many subscriptions", "`data.limit` is how many there may be"),
}  # by code: the message, or a usual one; and when
EVERYWHERE: Final = (protocol.INTERNAL_ERROR, protocol.RATE_LIMITED)
