"""The JSON objects of `spelling`, as types: for the checker, for the OpenAPI document, and for whoever reads.

Rules of this file: types only. Times are RFC 3339 in UTC with microseconds.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

from dataflow.domain.quality import Grade
from dataflow.events import Kind as Happened

Time = Annotated[str, Meta(description="RFC 3339, UTC", examples=["2025-11-21T03:28:58.000101Z"])]
Seconds = Annotated[float, Meta(description="seconds", ge=0)]
Count = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(description="of one core, so several threads may have more than 1", ge=0)]
Lag = Annotated[
    float,
    Meta(description="seconds from a trade to the daemon, the middle one of late; below 0: a wrong clock"),
]
State = Annotated[Grade, Meta(description="from live, the best, to standby", examples=["live"])]


DECIMAL = "decimal"  # the format of such a number in a schema

if TYPE_CHECKING:
    Number = Decimal
else:  # in a schema msgspec calls a Decimal a text
    Number = Annotated[
        float, Meta(description="with all digits of the source", extra_json_schema={"format": DECIMAL})
    ]


class Delivered(TypedDict):
    """What a source delivered since the start."""

    trades: Count
    batches: Annotated[int, Meta(description="reads that brought trades", ge=0)]
    bytes: Annotated[int, Meta(description="all that came", ge=0)]
    last: Annotated[Time | None, Meta(description="when the newest trade came")]
    age: Annotated[Seconds | None, Meta(description="seconds since then")]
    rate: Annotated[Rate, Meta(description="trades a second, mean of the last 10 s")]


class SymbolsOfSource(TypedDict):
    """How the symbols of a source fare."""

    states: Annotated[dict[str, Count], Meta(description="symbols in each state", examples=[{"live": 12}])]
    missing: Annotated[Count, Meta(description="places in memory that are gaps now")]
    lag: Annotated[Lag | None, Meta(description="the middle one of all symbols")]


class Refill(TypedDict):
    """What came of asking a source for missing trades."""

    missing: Annotated[int, Meta(description="trades that are asked for now", ge=0)]
    questions: Annotated[int, Meta(description="open ones", ge=0)]
    asked: Annotated[int, Meta(description="requests by HTTP", ge=0)]
    filled: Annotated[int, Meta(description="missing trades that came", ge=0)]
    told: Annotated[int, Meta(description="gaps that were told: the answer took too long", ge=0)]
    givenUp: Annotated[int, Meta(description="questions whose trades stay missing", ge=0)]
    refused: Annotated[dict[str, Count], Meta(description="answers that were not believed, by reason")]
    failed: Annotated[dict[str, Count], Meta(description="requests without an answer, by reason")]
    circuit: Annotated[str, Meta(description="open after several refused answers", examples=["closed"])]


class Line(TypedDict):
    """A connection to a source."""

    number: Annotated[int, Meta(ge=1)]
    state: Annotated[str, Meta(examples=["connected"])]
    age: Annotated[Seconds, Meta(description="seconds in this state")]
    reason: Annotated[str | None, Meta(description="why it was lost, or waits; null once it is connected")]
    symbols: Annotated[Count, Meta(description="how many it carries")]
    replaces: Annotated[int | None, Meta(description="the line whose place it is to take")]
    trades: Annotated[Count, Meta(description="that it brought, in all of its connections")]


class Bound(TypedDict):
    """What a source may be asked, and how much of it is used now."""

    name: Annotated[
        Literal["weight", "connections", "symbols", "requests"],
        Meta(
            description="weight of questions by HTTP; new connections to its address; symbols on the fullest"
            " connection; messages to it on the busiest one"
        ),
    ]
    used: Count
    limit: Count
    per: Annotated[Seconds | None, Meta(description="within so many seconds; null: at the same time")]


class WorstScore(TypedDict):
    """How a source fares with the symbol with which it fares worst: the sum of what the parts earn."""

    score: Annotated[int, Meta(ge=0, le=100)]
    state: Annotated[str, Meta(examples=["live"])]
    parts: Annotated[dict[str, Count], Meta(description="connection, quality, lag, errors")]
    symbol: str


class Source(TypedDict):
    """A source: how its connection is, and what it delivered."""

    state: Annotated[str, Meta(description="listening where producers connect to us", examples=["connected"])]
    since: Annotated[Time, Meta(description="begin of this state")]
    age: Annotated[Seconds, Meta(description="seconds since then")]
    reason: Annotated[str | None, Meta(description="why it was lost; null once it is connected")]
    reasonAt: Time | None
    connector: str
    completeness: Annotated[str, Meta(description="what proves that nothing is missing, in words")]
    producers: Annotated[Count | None, Meta(description="that are there now; null where we connect")]
    symbols: Annotated[list[str], Meta(description="subscribed there")]
    rejected: Annotated[dict[str, str], Meta(description="refused symbols, in the words of the source")]
    problems: Annotated[dict[str, Count], Meta(description="unusable messages by kind")]
    circuit: Annotated[str, Meta(description="of attempts to connect: closed, open or half_open")]
    delivered: Delivered
    quality: SymbolsOfSource
    lines: Annotated[list[Line], Meta(description="none where producers connect to us")]
    refill: Annotated[Refill | None, Meta(description="null where nothing can be asked")]
    bounds: Annotated[list[Bound], Meta(description="those that exist for this source")]
    score: Annotated[WorstScore | None, Meta(description="null while nobody wants a symbol of it")]


class Score(TypedDict):
    """How a source fares with one symbol: the sum of what its parts earn."""

    score: Annotated[int, Meta(ge=0, le=100)]
    state: Annotated[str, Meta(examples=["live"])]
    parts: Annotated[dict[str, Count], Meta(description="connection, quality, lag, errors")]


class Failover(TypedDict):
    """Which source the stream of a symbol is of, where it is of one at a time."""

    active: str
    since: Annotated[Time, Meta(description="of the last switch")]
    age: Annotated[Seconds, Meta(description="seconds since then")]
    switches: Annotated[Count, Meta(description="told since the start")]
    sources: Annotated[dict[str, Score], Meta(description="by name, the preferred one first")]


class Status(TypedDict):
    """The daemon and its sources."""

    sources: Annotated[dict[str, Source], Meta(description="by name, in the order of the configuration")]
    sessions: Annotated[int, Meta(description="clients connected", ge=0)]
    waiting: Annotated[dict[str, Count], Meta(description="clients that wait for a turn, by urgency")]
    ended: Annotated[dict[str, Count], Meta(description="clients that left, by the reason")]
    loopLag: Annotated[Seconds, Meta(description="longest delay of the event loop in the last minute")]
    uptime: Seconds
    epoch: Annotated[int, Meta(description="of the positions of all topics")]
    version: str
    failover: Annotated[
        dict[str, Failover],
        Meta(description="symbols with one source at a time; of many some, the preferred one away first"),
    ]
    rate: Annotated[Rate, Meta(description="trades admitted a second, mean of the last 10 s")]
    sentRate: Annotated[Rate, Meta(description="entries sent to clients a second, mean of the last 10 s")]
    cpu: Annotated[Share, Meta(description="what the process computes: a share of one core, last 10 s")]
    memory: Annotated[Count | None, Meta(description="bytes resident; null: not known on this system")]


class SourceQuality(TypedDict):
    """How a symbol fares at one source."""

    state: State
    since: Annotated[Time, Meta(description="begin of this state")]
    reason: Annotated[str | None, Meta(description="why it is not better")]
    missing: Annotated[Count | None, Meta(description="places that are gaps now")]
    lag: Lag | None


class SymbolQuality(TypedDict):
    """How a symbol fares: the best of its sources, and each of them."""

    state: State
    since: Time
    missing: Count | None
    lag: Lag | None
    sources: dict[str, SourceQuality]


class Symbol(TypedDict):
    """A symbol that can be asked for and followed."""

    symbol: Annotated[str, Meta(examples=["BTC-USDT"])]
    channels: list[str]
    sources: Annotated[list[str], Meta(description="those that carry it")]
    status: Annotated[str, Meta(description="at the best of its sources", examples=["live"])]
    lastPrice: Annotated[Number | None, Meta(description="of its newest trade")]
    lastTimestamp: Time | None
    lastAge: Annotated[
        Seconds | None, Meta(description="since that trade came; null: it came before the start, or none did")
    ]
    offset: Annotated[Count, Meta(description="the newest place of its stream")]
    rate: Annotated[Rate, Meta(description="trades a second, mean of the last 10 s")]
    quality: SymbolQuality | None
    failover: NotRequired[Failover]


class Position(TypedDict):
    """A place in a symbol's stream."""

    epoch: int
    offset: Count


Missing = TypedDict(
    "Missing",
    {
        "from": int,
        "to": Annotated[int | None, Meta(description="null: nobody knows how many")],
        "reason": str,
    },
)  # places without a trade; the syntax of a class has no word for `from`


class Trade(TypedDict):
    """A trade. `seqnum` and `offset` are its place."""

    seqnum: int
    event: Literal["updated"]
    channel: Literal["trades"]
    symbol: str
    timestamp: Time
    side: Annotated[Literal["buy", "sell"] | None, Meta(description="of the taker; null: not told")]
    qty: Number
    price: Number
    tradeId: Annotated[str | None, Meta(description="the source's own; null: it has none")]
    source: str
    offset: int


class _Page(TypedDict):
    symbol: str
    epoch: Annotated[int, Meta(description="of all places in this answer")]
    trades: list[Trade]
    gaps: list[Missing]
    next: Annotated[Position | None, Meta(description="where to go on; null: a bounded range is at its end")]


class TradesPage(_Page, total=False):
    """A part of a symbol's trades."""

    rewound: Annotated[Position, Meta(description="behind it, what you hold is not part of the stream")]


class Outbox(TypedDict):
    """What clients have not taken."""

    messages: Count
    bytes: Count
    age: Annotated[Seconds | None, Meta(description="since the oldest began to wait; null: nothing waits")]


class _Follows(TypedDict):
    channel: str
    symbol: str
    epoch: int
    offset: int


class Follows(_Follows, total=False):
    """A topic, and the place up to which the client was sent it."""

    variant: Annotated[str, Meta(description="of channels that have several streams a symbol")]


class _OpenTopic(TypedDict):
    channel: str
    symbol: Annotated[str, Meta(description="`*`: all symbols together", examples=["BTC-USDT"])]
    subscribers: Count
    offset: Annotated[Count, Meta(description="its newest place; of `*` the number of bundles")]
    rate: Annotated[Rate, Meta(description="entries a second, mean of the last 10 s; gaps are none")]


class OpenTopic(_OpenTopic, total=False):
    """A topic that somebody follows, or did a moment ago."""

    variant: Annotated[str, Meta(description="of channels that have several streams a symbol")]


class Topics(TypedDict):
    """The most active topics."""

    total: Annotated[Count, Meta(description="all that are open")]
    topics: list[OpenTopic]


class Load(TypedDict):
    """What happened in each second, the oldest first. null: nobody looked, for the daemon was held up."""

    every: Annotated[Seconds, Meta(description="between two samples")]
    end: Annotated[Time, Meta(description="of the newest sample")]
    cpu: Annotated[list[Share | None], Meta(description="a share of one core")]
    memory: Annotated[list[Count | None], Meta(description="bytes resident; null as well: not known")]
    loopLag: Annotated[list[Seconds | None], Meta(description="longest delay of the event loop")]
    trades: Annotated[list[Rate | None], Meta(description="trades admitted")]
    sent: Annotated[list[Rate | None], Meta(description="entries sent to clients")]
    sessions: Annotated[list[Count | None], Meta(description="clients connected")]


class Guest(TypedDict):
    """Who a client is."""

    id: int
    address: str
    protocol: Annotated[str, Meta(examples=["jsonrpc"])]
    userAgent: str | None
    since: Time


class Client(Guest):
    """A client."""

    age: Seconds
    heard: Annotated[Seconds, Meta(description="since the last byte from it")]
    follows: list[Follows]
    sent: Annotated[int, Meta(description="entries of topics", ge=0)]
    dropped: Annotated[int, Meta(description="entries that it will not get", ge=0)]
    outbox: Outbox


class Departure(Guest):
    """A client that has left."""

    leftAt: Time
    age: Annotated[Seconds, Meta(description="that it stayed")]
    code: Annotated[
        int | None,
        Meta(description="of its end, in the close codes of WebSocket; null: it hung up without one"),
    ]
    reason: Annotated[str, Meta(examples=["slow client: 1024 messages were waiting"])]
    sent: Annotated[int, Meta(description="entries of topics", ge=0)]
    dropped: Annotated[int, Meta(description="entries that it did not get", ge=0)]


class Event(TypedDict):
    """Something that happened."""

    id: Annotated[int, Meta(description="grows, also over restarts")]
    at: Annotated[Time, Meta(description="of the first time")]
    kind: Annotated[Happened, Meta(examples=["crashed"])]
    path: Annotated[str, Meta(description="of the actor; of a source `sources/NAME`; empty: the root")]
    text: str
    stack: Annotated[str | None, Meta(description="the traceback of a crash, or its end")]
    times: Annotated[int, Meta(description="within a second; it may still grow meanwhile", ge=1)]


class Events(TypedDict):
    """What happened, oldest first."""

    events: list[Event]
    next: Annotated[int, Meta(description="the id to go on after")]


class UnusableMessage(TypedDict):
    """A message of a source that could not be used."""

    at: Time
    kind: Annotated[str, Meta(examples=["malformed_json"])]
    text: Annotated[str, Meta(description="its beginning, or what was wrong")]
    times: Annotated[int, Meta(description="with others of its kind in that second, not shown", ge=1)]


class UnusableMessages(TypedDict):
    """The newest messages of a source that could not be used, newest first."""

    problems: list[UnusableMessage]


class Clients(TypedDict):
    """A part of the clients, the oldest first, and what waits for all."""

    total: Count
    outbox: Annotated[Outbox, Meta(description="of all clients together")]
    clients: list[Client]
    next: Annotated[int | None, Meta(description="the id to go on after; null: there are no more")]
    left: Annotated[list[Departure], Meta(description="the last ones that left, newest first")]


class Candle(TypedDict):
    """The bar of a window of trades."""

    symbol: str
    interval: Annotated[str, Meta(examples=["1m"])]
    start: Annotated[Time, Meta(description="begin; of `100t` and `10v` the time of its first trade")]
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    quoteVolume: Annotated[Number, Meta(description="sum of quantity times price")]
    buyVolume: Annotated[Number, Meta(description="of the trades whose taker bought")]
    count: Annotated[int, Meta(description="trades", ge=1)]
    rev: Annotated[int, Meta(description="grows with every change of this candle", ge=1)]
    closed: Annotated[bool, Meta(description="its window is over")]
    complete: Annotated[bool, Meta(description="no trade of the window is known to be missing")]
    gaps: Annotated[list[Missing], Meta(description="where trades of the window may be missing")]
    firstOffset: int
    lastOffset: int


class CandlePage(TypedDict):
    """Candles of one symbol, oldest first."""

    symbol: str
    interval: str
    candles: list[Candle]
    next: Annotated[Time | None, Meta(description="`from` of the next page; null: there is no more")]
