"""The answers of the desk, as values. Each protocol writes them in its own words.

Rules of this file: values only. Times are ns since the epoch, ages and durations seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

from dataflow.cache.archive import Places
from dataflow.domain import Gap, Recorded, Topic, Trade
from dataflow.domain.candle import Candle
from dataflow.domain.quality import Quality
from dataflow.events import Event
from dataflow.sources.health import Health

UNKNOWN: Final = Gap(0, 0, "overrun", exact=False)  # before what is left; place 0 is never an entry's


@frozen
class Position:
    """A place in the stream of a topic."""

    epoch: int
    offset: int


@frozen
class FailoverInfo:
    """Which source the stream of a symbol is of, since when (ns since epoch), for `age` seconds, and why.

    `switches`: that were told. `healths`: of each of its sources, the preferred one first.
    """

    active: str
    since: int
    age: float
    switches: int
    healths: Mapping[str, Health]


@frozen
class SymbolInfo:
    """A configured symbol.

    `sources` carry it. `status` is the state at the best of them, `quality` the state at each. `newest` is
    its newest trade, which came here `last_age` seconds ago; None if an earlier process had it. `offset`: its
    newest place. `rate`: trades a second. `failover`: None where all of its sources are in its stream.
    """

    symbol: str
    channels: Sequence[str]
    sources: Sequence[str]
    status: str
    quality: Sequence[Quality]
    newest: Recorded | None
    offset: int
    rate: float
    last_age: float | None
    failover: FailoverInfo | None = None


@frozen
class TradesPage:
    """Entries of a symbol's stream, each with its last place, in the order that was asked for.

    `next`: the position to go on from, in the same direction; None when a bounded range is at its end.
    `more`: whether there is something now. `rewound`: what the client holds behind this place is not part of
    the stream any more. The gap `UNKNOWN` comes first when the client's position says nothing at all.
    """

    symbol: str
    epoch: int
    entries: Places
    next: Position | None
    more: bool
    rewound: Position | None

    @property
    def trades(self) -> list[Recorded]:
        """The trades among them."""
        return [Recorded(last, entry) for last, entry in self.entries if isinstance(entry, Trade)]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps among them."""
        return [entry for _, entry in self.entries if isinstance(entry, Gap)]


@frozen
class DeliveredInfo:
    """What a source delivered since the start. `last`: when the newest trade came (ns since epoch), `age`
    seconds ago. `batches`: the reads that brought trades. `bytes`: all that came. `rate`: trades a second."""

    trades: int
    batches: int
    bytes: int
    last: int | None
    age: float | None
    rate: float


@frozen
class SymbolsInfo:
    """How the symbols of a source fare: their number in each state, the places that are gaps, and the middle
    one of their lags in seconds, None before the first."""

    states: Mapping[str, int]
    missing: int
    lag: float | None


@frozen
class RefillInfo:
    """What came of asking a source for missing trades, since the start.

    `missing` trades are being asked for now, by `questions` that are open; `asked` counts requests by HTTP,
    `filled` trades that came, `told` gaps that were told because the answer took too long, `given_up`
    questions whose trades stay missing. `refused` answers were not believed, by reason; `failed` requests had
    none. `circuit`: of a `Breaker`, open after several answers in a row that were refused.
    """

    missing: int
    questions: int
    asked: int
    filled: int
    told: int
    given_up: int
    refused: Counter[str]
    failed: Counter[str]
    circuit: str


@frozen
class LineInfo:
    """One connection to a source, in this `state` for `age` seconds. `reason` of its newest failure, or wait.

    `symbols`: how many it carries. `replaces`: the number of the line whose place it is to take. `trades`:
    that it brought.
    """

    number: int
    state: str
    age: float
    reason: str | None
    symbols: int
    replaces: int | None
    trades: int


@frozen
class BoundInfo:
    """`used` of the `limit` that a source has within `per` seconds; None: at the same time.

    Names: `weight` of questions by HTTP; `connections`, new ones to the address, whoever makes them;
    `symbols` on the fullest connection; `requests`, messages to the upstream on the busiest connection.
    """

    name: Literal["weight", "connections", "symbols", "requests"]
    used: int
    limit: int
    per: float | None


@frozen
class SourceInfo:
    """A source. It has been in this `state` since `since` (ns since epoch), for `age` seconds.

    `reason` of its newest failure, at `reason_at` (ns since epoch); None again once it is connected.
    `completeness`: what proves that nothing is missing. `producers` that are there now; None where we
    connect. `symbols` are subscribed there; `rejected` has the source's words for each refused symbol.
    `problems` counts unusable messages by kind. `quality`: how all its symbols fare. `refill`: None where
    nothing can be asked. `lines`: its connections; none where producers connect to us. `bounds`: what it may
    be asked. `worst`: the symbol with which it fares worst, and how; None while nobody wants one.
    """

    state: str
    since: int
    age: float
    reason: str | None
    reason_at: int | None
    delivered: DeliveredInfo
    connector: str
    completeness: str
    producers: int | None
    symbols: Sequence[str]
    rejected: Mapping[str, str]
    problems: Counter[str]
    quality: SymbolsInfo
    refill: RefillInfo | None
    circuit: str
    lines: Sequence[LineInfo]
    bounds: Sequence[BoundInfo]
    worst: tuple[str, Health] | None


@frozen
class Status:
    """The daemon. `uptime` in seconds; `waiting` counts clients by the urgency of their turn, `ended` those
    that left by the reason. `loop_lag`: the longest delay of the event loop in the last minute, seconds.
    `failover`: symbols with one source at a time; of many some, those away from the preferred one first.
    A second: trades that were admitted, `rate`, and entries that were sent to clients, `sent_rate`. `cpu`: a
    share of one core. `memory`: bytes resident, None where nobody knows.
    """

    sources: Mapping[str, SourceInfo]
    sessions: int
    waiting: Mapping[str, int]
    ended: Mapping[str, int]
    loop_lag: float
    uptime: float
    epoch: int
    version: str
    failover: Mapping[str, FailoverInfo]
    rate: float
    sent_rate: float
    cpu: float
    memory: int | None


@frozen
class TopicInfo:
    """An open topic, its newest place (or bundle, of all symbols), and its entries a second."""

    topic: Topic
    subscribers: int
    offset: int
    rate: float


@frozen
class TopicsInfo:
    """The most active of `total` open topics, with the greatest rate first."""

    total: int
    topics: Sequence[TopicInfo]


@frozen
class Sample:
    """What happened in one second: `cpu` as a share of one core, `trades` and `sent` entries a second.

    `memory`: bytes resident, None where nobody knows. `loop_lag`: the longest delay in it, in seconds.
    """

    cpu: float
    memory: int | None
    loop_lag: float
    trades: float
    sent: float
    sessions: int


@frozen
class LoadInfo:
    """Samples, one every so many seconds, the oldest first; the newest at `end` (ns since epoch).

    None: nobody looked in that second.
    """

    every: float
    end: int
    samples: Sequence[Sample | None]


@frozen
class OutboxInfo:
    """What clients have not taken.

    `messages` and `bytes` wait behind what is being sent. `age`: seconds since the oldest of all began to
    wait; None when nothing does.
    """

    messages: int = 0
    bytes: int = 0
    age: float | None = None


@frozen
class GuestInfo:
    """Who a client is. It came at `since` (ns since epoch)."""

    id: int
    address: str
    protocol: str
    user_agent: str | None
    since: int


@frozen
class ClientInfo:
    """A client that came `age` seconds ago.

    `heard`: seconds since the last byte came from it. `follows`: the place up to which it was sent each of
    its topics, as (epoch, offset).
    """

    guest: GuestInfo
    age: float
    heard: float
    follows: Mapping[Topic, tuple[int, int]]
    sent: int
    dropped: int
    outbox: OutboxInfo


@frozen
class DepartureInfo:
    """A client that left at `left_at` (ns since epoch), after `age` seconds.

    `code`: of its end, in the close codes of WebSocket; None: it hung up without one.
    """

    guest: GuestInfo
    left_at: int
    age: float
    code: int | None
    reason: str
    sent: int
    dropped: int


@frozen
class ClientsInfo:
    """A part of the clients, the oldest first. `next`: the id to go on behind; None when there are no more.
    `total` and `outbox` are of all clients. `left`: the last ones that left, newest first."""

    total: int
    outbox: OutboxInfo
    clients: Sequence[ClientInfo]
    next: int | None
    left: Sequence[DepartureInfo]


@frozen
class EventsInfo:
    """What happened, oldest first. `next`: the id to go on behind."""

    events: Sequence[Event]
    next: int


@frozen
class CandlePage:
    """Candles, oldest first. `next`: the time from which the page behind this one begins, ns since the epoch;
    None when a bounded range has been read to its end."""

    candles: Sequence[Candle]
    next: int | None
