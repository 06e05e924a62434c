"""Values as JSON objects: one spelling of a trade, a gap and a quality for every protocol that writes JSON.

Rules of this file: encoding only, and no message: a face puts these objects into messages of its own. Prices
and quantities are JSON numbers with exactly the digits that they have inside; times are RFC 3339 in UTC with
microseconds. Of reading it has what all readers share: what a number is, a time, a position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
from attrs import asdict

from dataflow.domain import Gap, Side, Topic, Trade
from dataflow.domain.candle import Candle
from dataflow.domain.notice import (
    Draining,
    Refused,
    SourceLost,
    SourceRestored,
    StreamSwitched,
    SymbolsChanged,
    Waiting,
)
from dataflow.domain.quality import Quality, best
from dataflow.domain.timestamps import EARLIEST, LATEST, from_rfc3339, to_rfc3339
from dataflow.domain.topic import TRADES
from dataflow.events import Event
from dataflow.events import shown as shown_text
from dataflow.sources.excerpts import Excerpt
from dataflow.sources.health import Health

from . import spelled
from .answers import (
    CandlePage,
    ClientInfo,
    ClientsInfo,
    DepartureInfo,
    EventsInfo,
    FailoverInfo,
    GuestInfo,
    LineInfo,
    LoadInfo,
    OutboxInfo,
    Position,
    RefillInfo,
    SourceInfo,
    Status,
    SymbolInfo,
    TopicInfo,
    TopicsInfo,
    TradesPage,
)
from .problems import InvalidValue

encode: Final = msgspec.json.Encoder(decimal_format="number").encode
EXCERPT: Final = 300  # characters of a message that could not be used
_POSITION: Final = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")
_LOST_PLUS: Final = re.compile(r":[0-9.]+ [0-9]{2}:[0-9]{2}$")  # a time whose + was read as a blank
_WHOLE: Final = 1 << 63  # below it, a number without a fraction is an integer, however it is written


def read_number(written: str) -> int | float:
    """A JSON number with a point or an exponent. JSON has one kind of number: 50.0 and 5e1 are 50.

    For `float_hook` of a decoder. Infinite if no float is so great.
    """
    try:
        value = Decimal(written)
    except InvalidOperation:  # an exponent of a length beyond all sense
        return math.inf
    return int(value) if abs(value) < _WHOLE and value == int(value) else float(value)


def plain(value: Decimal) -> str:
    """The number with exactly the digits that it has, and without an exponent."""
    return f"{value:f}"


def amount(value: Decimal) -> str:
    """A sum: all that it is worth, without an exponent, and without zeros at the end of a fraction."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def milliseconds(ns: int) -> int:
    """A time as other systems have it: whole ms since the epoch. Finer digits are cut off."""
    return ns // 1_000_000


class SpelledTrade(msgspec.Struct, rename="camel", gc=False):
    """A trade as JSON has it; `seqnum` is its offset."""

    seqnum: int
    event: str
    channel: str
    symbol: str
    timestamp: str
    side: Side | None
    qty: Decimal
    price: Decimal
    trade_id: str | None
    source: str
    offset: int


def item(topic: Topic, offset: int, value: Any) -> SpelledTrade | dict[str, Any]:
    """An entry of any channel at its place. A value without a spelling of its own is an attrs class: its
    fields."""
    if isinstance(value, Trade):
        return trade(offset, value, topic.channel)
    if isinstance(value, Quality):
        return quality(value)
    if isinstance(value, Candle):
        return {**candle(value)}
    return {"symbol": topic.symbol, **fields(value), "offset": offset}


def trade(offset: int, trade: Trade, channel: str = TRADES) -> SpelledTrade:
    """An admitted trade at its place."""
    return SpelledTrade(
        offset,
        "updated",
        channel,
        trade.symbol,
        to_rfc3339(trade.timestamp),
        trade.side,
        trade.quantity,
        trade.price,
        trade.trade_id,
        trade.source,
        offset,
    )


def gap(gap: Gap) -> dict[str, Any]:
    """A gap: `from`, `to` (null when nobody knows how many trades are missing) and `reason`."""
    return {"from": gap.first, "to": gap.last if gap.exact else None, "reason": gap.reason}


def candle(candle: Candle) -> spelled.Candle:
    """The bar of a window of trades."""
    return {
        "symbol": candle.symbol,
        "interval": candle.interval,
        "start": to_rfc3339(candle.start),
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "volume": candle.volume,
        "quoteVolume": candle.quote_volume,
        "buyVolume": candle.buy_volume,
        "count": candle.count,
        "rev": candle.rev,
        "closed": candle.closed,
        "complete": candle.complete,
        "gaps": [gap(each) for each in candle.gaps],  # type: ignore[misc]
        "firstOffset": candle.first_offset,
        "lastOffset": candle.last_offset,
    }


def candle_page(symbol: str, interval: str, page: CandlePage) -> spelled.CandlePage:
    """A page of candles."""
    candles = [candle(each) for each in page.candles]
    return {"symbol": symbol, "interval": interval, "candles": candles, "next": _time(page.next)}


KINDS: Final[Mapping[type, str]] = {
    SourceLost: "connection.lost",
    SourceRestored: "connection.restored",
    StreamSwitched: "stream.switched",
    SymbolsChanged: "symbols.changed",
    Waiting: "connection.waiting",
    Refused: "connection.refused",
    Draining: "connection.draining",
}  # the names of notices


def fields(value: Any) -> dict[str, Any]:
    """The fields of an attrs class, a notice for example, named as in JSON."""
    return {_camel(name): each for name, each in asdict(value, recurse=False).items()}


def quality(state: Quality) -> dict[str, Any]:
    """How a symbol fares at one source."""
    return {"symbol": state.symbol, "source": state.source, **_grade(state)}


def symbol_quality(states: Sequence[Quality]) -> spelled.SymbolQuality | None:
    """How a symbol fares: the best of its sources, and each of them; None before anything is known."""
    foremost = best(states)
    if foremost is None:
        return None
    told = _grade(foremost)
    return {
        "state": told["state"],
        "since": told["since"],
        "missing": told["missing"],
        "lag": told["lag"],
        "sources": {state.source: _grade(state) for state in states},
    }


def failover(info: FailoverInfo) -> spelled.Failover:
    """Which source a stream is of, and how each of them fares: the score and its parts."""
    return {
        "active": info.active,
        "since": to_rfc3339(info.since),
        "age": info.age,
        "switches": info.switches,
        "sources": {
            name: {"score": health.score, "state": health.state, "parts": dict(health.parts)}
            for name, health in info.healths.items()
        },
    }


def symbol(info: SymbolInfo) -> spelled.Symbol:
    """A symbol, its newest trade, and how it fares."""
    trade = info.newest.trade if info.newest else None
    told: spelled.Symbol = {
        "symbol": info.symbol,
        "channels": list(info.channels),
        "sources": list(info.sources),
        "status": info.status,
        "lastPrice": trade.price if trade else None,
        "lastTimestamp": to_rfc3339(trade.timestamp) if trade else None,
        "lastAge": info.last_age if trade else None,
        "offset": info.offset,
        "rate": info.rate,
        "quality": symbol_quality(info.quality),
    }
    if info.failover is not None:
        told["failover"] = failover(info.failover)
    return told


def about_page(page: TradesPage) -> dict[str, Any]:
    """A page of trades, without these."""
    told: dict[str, Any] = {
        "symbol": page.symbol,
        "epoch": page.epoch,
        "gaps": [gap(each) for each in page.gaps],
        "next": page.next,
    }
    return told if page.rewound is None else told | {"rewound": page.rewound}


def moment(name: str, text: str | None) -> int | None:
    """The time in the parameter `name`, ns since the epoch. Raises InvalidValue.

    A time that no trade can have is taken as the nearest one that bounds all trades.
    """
    try:
        return None if text is None else max(EARLIEST, min(from_rfc3339(text), LATEST))
    except ValueError as error:
        problem = f"{error}; a + in a URL is written %2B" if _LOST_PLUS.search(text or "") else str(error)
        raise InvalidValue(name, text, problem, example="2020-05-10T18:33:36.696315Z") from None


def shown(position: Position) -> str:
    """A position as a text: "EPOCH:OFFSET"."""
    return f"{position.epoch}:{position.offset}"


def position(name: str, text: str | None) -> Position | None:
    """The position in the parameter `name`. Raises InvalidValue."""
    if text is None:
        return None
    match = _POSITION.fullmatch(text)
    if match is None:
        raise InvalidValue(name, text, "must be EPOCH:OFFSET", example="1763696936212:612")
    return Position(int(match[1]), int(match[2]))


def status(told: Status) -> spelled.Status:
    """The daemon and its sources."""
    return {
        "sources": {name: source(info) for name, info in told.sources.items()},
        "sessions": told.sessions,
        "waiting": dict(told.waiting),
        "ended": dict(told.ended),
        "loopLag": told.loop_lag,
        "uptime": told.uptime,
        "epoch": told.epoch,
        "version": told.version,
        "failover": {symbol: failover(info) for symbol, info in told.failover.items()},
        "rate": told.rate,
        "sentRate": told.sent_rate,
        "cpu": told.cpu,
        "memory": told.memory,
    }


def source(info: SourceInfo) -> spelled.Source:
    """A source, and what it delivered."""
    return {
        "state": info.state,
        "since": to_rfc3339(info.since),
        "age": info.age,
        "reason": info.reason,
        "reasonAt": _time(info.reason_at),
        "connector": info.connector,
        "completeness": info.completeness,
        "producers": info.producers,
        "symbols": list(info.symbols),
        "rejected": dict(info.rejected),
        "problems": dict(info.problems),
        "circuit": info.circuit,
        "delivered": {
            "trades": info.delivered.trades,
            "batches": info.delivered.batches,
            "bytes": info.delivered.bytes,
            "last": _time(info.delivered.last),
            "age": info.delivered.age,
            "rate": info.delivered.rate,
        },
        "quality": {
            "states": dict(info.quality.states),
            "missing": info.quality.missing,
            "lag": info.quality.lag,
        },
        "lines": [line(each) for each in info.lines],
        "refill": None if info.refill is None else _refill(info.refill),
        "bounds": [
            {"name": each.name, "used": each.used, "limit": each.limit, "per": each.per}
            for each in info.bounds
        ],
        "score": None if info.worst is None else _worst(*info.worst),
    }


def _worst(symbol: str, health: Health) -> spelled.WorstScore:
    return {"score": health.score, "state": health.state, "parts": dict(health.parts), "symbol": symbol}


def line(info: LineInfo) -> spelled.Line:
    """A connection to a source."""
    return {
        "number": info.number,
        "state": info.state,
        "age": info.age,
        "reason": info.reason,
        "symbols": info.symbols,
        "replaces": info.replaces,
        "trades": info.trades,
    }


def _refill(info: RefillInfo) -> spelled.Refill:
    return {
        "missing": info.missing,
        "questions": info.questions,
        "asked": info.asked,
        "filled": info.filled,
        "told": info.told,
        "givenUp": info.given_up,
        "refused": dict(info.refused),
        "failed": dict(info.failed),
        "circuit": info.circuit,
    }


def topics(told: TopicsInfo) -> spelled.Topics:
    """The most active topics."""
    return {"total": told.total, "topics": [_topic(info) for info in told.topics]}


def _topic(info: TopicInfo) -> spelled.OpenTopic:
    spelt: spelled.OpenTopic = {
        "channel": info.topic.channel,
        "symbol": info.topic.symbol,
        "subscribers": info.subscribers,
        "offset": info.offset,
        "rate": info.rate,
    }
    if info.topic.variant:
        spelt["variant"] = info.topic.variant
    return spelt


def load(told: LoadInfo) -> spelled.Load:
    """What happened in each second."""
    samples = told.samples
    return {
        "every": told.every,
        "end": to_rfc3339(told.end),
        "cpu": [None if each is None else each.cpu for each in samples],
        "memory": [None if each is None else each.memory for each in samples],
        "loopLag": [None if each is None else each.loop_lag for each in samples],
        "trades": [None if each is None else each.trades for each in samples],
        "sent": [None if each is None else each.sent for each in samples],
        "sessions": [None if each is None else each.sessions for each in samples],
    }


def clients(told: ClientsInfo) -> spelled.Clients:
    """A part of the clients, and what waits for all."""
    return {
        "total": told.total,
        "outbox": _outbox(told.outbox),
        "clients": [client(each) for each in told.clients],
        "next": told.next,
        "left": [_departure(each) for each in told.left],
    }


def _departure(info: DepartureInfo) -> spelled.Departure:
    return {
        **_guest(info.guest),
        "leftAt": to_rfc3339(info.left_at),
        "age": info.age,
        "code": info.code,
        "reason": info.reason,
        "sent": info.sent,
        "dropped": info.dropped,
    }


def events(told: EventsInfo) -> spelled.Events:
    """What happened."""
    return {"events": [_event(each) for each in told.events], "next": told.next}


def _event(event: Event) -> spelled.Event:
    return {
        "id": event.id,
        "at": to_rfc3339(event.at),
        "kind": event.kind,
        "path": event.path,
        "text": event.text,
        "stack": event.stack,
        "times": event.times,
    }


def problems(unusable: Sequence[Excerpt]) -> spelled.UnusableMessages:
    """Messages of a source that could not be used. No secrets."""
    return {
        "problems": [
            {
                "at": to_rfc3339(each.at),
                "kind": each.kind,
                "text": shown_text(each.text, EXCERPT),
                "times": each.times,
            }
            for each in unusable
        ]
    }


def client(info: ClientInfo) -> spelled.Client:
    """A client: who it is, what it follows, and what it has not taken."""
    return {
        **_guest(info.guest),
        "age": info.age,
        "heard": info.heard,
        "follows": [_follows(topic, *place) for topic, place in info.follows.items()],
        "sent": info.sent,
        "dropped": info.dropped,
        "outbox": _outbox(info.outbox),
    }


def _guest(info: GuestInfo) -> spelled.Guest:
    return {
        "id": info.id,
        "address": info.address,
        "protocol": info.protocol,
        "userAgent": info.user_agent,
        "since": to_rfc3339(info.since),
    }


def _outbox(info: OutboxInfo) -> spelled.Outbox:
    return {"messages": info.messages, "bytes": info.bytes, "age": info.age}


def _follows(topic: Topic, epoch: int, offset: int) -> spelled.Follows:
    told: spelled.Follows = {
        "channel": topic.channel,
        "symbol": topic.symbol,
        "epoch": epoch,
        "offset": offset,
    }
    if topic.variant:
        told["variant"] = topic.variant
    return told


def _time(ns: int | None) -> str | None:
    return None if ns is None else to_rfc3339(ns)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _grade(state: Quality) -> spelled.SourceQuality:
    return {
        "state": state.state,
        "since": to_rfc3339(state.since),
        "reason": state.reason,
        "missing": state.missing,
        "lag": state.lag,
    }
