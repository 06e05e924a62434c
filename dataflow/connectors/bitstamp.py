"""Bitstamp, channels `live_trades_PAIR`: `wss://ws.bitstamp.net`.

Rules of this file. Ids grow, but not by one, so they prove nothing: each subscription is a possible loss
(`missed`), and so is a message that cannot be read, of its symbol, or of all if it names none. REST tells
the trades of the last minute, hour or day; the trades before and behind a loss show in them whether all is
there.

REST tells times in whole seconds. Of such a second only the beginning is known. A trade of the same second
as the one before the loss cannot be earlier than that one, so it gets its time; and a trade that the stream
has brought keeps the time of the stream.

The taker's side is `type`: 0 bought, 1 sold. A time is `microtimestamp`. Prices and amounts are read from
the texts, because the numbers beside them may have lost digits.

There is a request and an answer for each channel. A refusal that names no channel is reported as one of
everything that has no answer yet; the connector then asks for smaller parts. `bts:request_reconnect`
announces the end of the connection. Nothing comes by itself in a quiet market, so `probe` asks for a
heartbeat.

Problems: not_text, malformed_json, unexpected_json, missing_field, unknown_event, unknown_channel,
unknown_symbol, rejected, bad_trade_id, bad_side, bad_price, bad_quantity, bad_timestamp. Of an answer by
REST also: refused, rate_limited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.sources.fields import (
    PositiveDecimals,
    from_microseconds,
    from_seconds,
    identifier,
    json_text,
    named_in,
    one_of,
    present,
)
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Request, SourceSettings, rest_at
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

CHANNEL: Final = "live_trades_"
SPANS: Final = ("minute", "hour", "day")  # that REST can be asked for
_SECOND: Final = 1_000_000_000

_SIDES: Final[Mapping[int, Side]] = {0: "buy", 1: "sell"}
_REST_SIDES: Final[Mapping[str, Side]] = {"0": "buy", "1": "sell"}
_OTHER_CHANNELS: Final = (
    "order_book_",
    "detail_order_book_",
    "diff_order_book_",
    "live_orders_",
    "funding_rate_",
)
_OTHER_EVENTS: Final = frozenset(
    {"bts:heartbeat", "data", "order_created", "order_changed", "order_deleted", "funding_rate_saved"}
)
_ANSWERS: Final = frozenset({"bts:subscription_succeeded", "bts:unsubscription_succeeded"})
_LENGTHS: Final = {"minute": 60 * _SECOND, "hour": 3600 * _SECOND, "day": float("inf")}
_TOO_OFTEN: Final = frozenset({"400.002", "400.067", "400.068"})


@frozen(kw_only=True)
class Settings(SourceSettings):
    """The keys that every source has."""

    symbols_a_request: ClassVar[int] = 1  # a request names one channel
    # "All clients can make 400 requests per second", and messages count like them. There is no hurry.
    requests_per_second: int = field(default=50, validator=validators.ge(0))
    refill_url: str = rest_at("https://www.bitstamp.net")
    # "There is a default limit threshold of 10,000 requests per 10 minutes in place."
    refill_weight: int = field(default=1000, validator=validators.gt(0))

    def derived(self, symbol: str) -> str:
        """Without the dash, in small letters."""
        return symbol.replace("-", "").lower()


class _Data(msgspec.Struct, gc=False):
    id: Any = None
    type: Any = None
    price: Any = msgspec.field(default=None, name="price_str")
    amount: Any = msgspec.field(default=None, name="amount_str")
    time: Any = msgspec.field(default=None, name="microtimestamp")
    message: Any = None


class _Frame(msgspec.Struct, gc=False):
    event: Any = None
    channel: Any = None
    data: msgspec.Raw = msgspec.Raw()


class _Row(msgspec.Struct, gc=False):
    """Of REST, where everything is a text."""

    tid: Any = None
    date: Any = None
    type: Any = None
    price: Any = None
    amount: Any = None


class _Refusal(msgspec.Struct, gc=False):
    code: Any = None
    reason: Any = None


_frames: Final = msgspec.json.Decoder(_Frame)
_data: Final = msgspec.json.Decoder(_Data)
_answers: Final = msgspec.json.Decoder(list[_Row] | _Refusal)


class Codec:
    """The language of Bitstamp, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name
        self._symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._asked: dict[str, None] = {}  # symbols without an answer yet, the oldest first
        self._subscribed: dict[str, None] = {}

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request for each symbol."""
        self._symbols.update((self._exchange_name(symbol), symbol) for symbol in symbols)
        self._asked.update(dict.fromkeys(symbols))
        return self._requests("bts:subscribe", symbols)

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request for each symbol."""
        return self._requests("bts:unsubscribe", symbols)

    def probe(self) -> Sequence[str]:
        """A heartbeat, which is answered."""
        return ['{"event":"bts:heartbeat"}']

    def missed(self, symbol: str) -> Missed | None:
        """A mark, always: ids prove nothing."""
        return Missed(self._name, symbol, "source_gap", resubscribed=True)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        try:
            said = decoded(message, _frames)
        except Unusable as problem:
            self._mark(self._subscribed, into)  # it may have been a trade
            into.problems.append((problem.reason, excerpt(message)))
            return
        try:
            if said.event == "trade":
                into.items.append(self._trade(said))
            else:
                self._understand(said, into)
        except Unusable as problem:
            if said.event == "trade" or not isinstance(said.event, str):
                self._mark(self._affected(said.channel), into)
            into.problems.append((problem.reason, excerpt(message)))

    def _mark(self, symbols: Iterable[str], into: Received[Item]) -> None:
        into.items.extend(Missed(self._name, symbol, "source_gap") for symbol in symbols)

    def _affected(self, channel: Any) -> list[str]:
        """The subscribed symbols that a message of this channel may have been about."""
        if not isinstance(channel, str):
            return list(self._subscribed)
        symbol = self._symbols.get(channel.removeprefix(CHANNEL))
        return [symbol] if symbol in self._subscribed else []

    def _understand(self, said: _Frame, into: Received[Item]) -> None:
        event = said.event
        if not isinstance(present(event), str):
            raise Unusable("unknown_event")
        if event == "bts:request_reconnect":
            into.leaving = "the upstream announced its end (bts:request_reconnect)"
        elif event == "bts:error":
            self._refuse(said, into)
        elif event in _ANSWERS:
            if self._is_ours(said.channel):
                self._answered(event, self._symbol(said.channel), into)
        elif event in _OTHER_EVENTS:
            if event != "bts:heartbeat" and self._is_ours(said.channel):
                raise Unusable("unknown_event")
        else:
            raise Unusable("unknown_event")

    def _answered(self, event: str, symbol: str, into: Received[Item]) -> None:
        if event == "bts:unsubscription_succeeded":
            self._subscribed.pop(symbol, None)
            into.unsubscribed(symbol)
        else:
            self._asked.pop(symbol, None)
            self._subscribed[symbol] = None
            into.subscribed(symbol)

    def _refuse(self, said: _Frame, into: Received[Item]) -> None:
        try:
            words = decoded(json_text(said.data), _data).message
        except Unusable:
            words = None
        channel = said.channel if isinstance(said.channel, str) and said.channel else None
        symbols = list(self._asked) if channel is None else [self._symbol(channel)]
        if not (symbols and self._asked.keys() >= set(symbols)):
            raise Unusable("rejected")
        into.refused(words_of(words), *symbols)
        for symbol in symbols:
            del self._asked[symbol]

    def _is_ours(self, channel: Any) -> bool:
        """Whether a channel is of trades. Raises Unusable for one that nobody knows."""
        if not isinstance(present(channel), str):
            raise Unusable("unknown_channel")
        if not channel.startswith((CHANNEL, *_OTHER_CHANNELS)):
            raise Unusable("unknown_channel")
        return bool(channel.startswith(CHANNEL))

    def _symbol(self, channel: Any) -> str:
        if not self._is_ours(channel):
            raise Unusable("unknown_channel")
        return named_in(self._symbols, channel.removeprefix(CHANNEL))

    def _trade(self, said: _Frame) -> Trade:
        symbol = self._symbol(said.channel)
        data = decoded(json_text(said.data), _data)
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=identifier(data.id),
            side=one_of(data.type, _SIDES, "bad_side"),
            price=self._decimals.read(data.price, "bad_price"),
            quantity=self._decimals.read(data.amount, "bad_quantity"),
            timestamp=from_microseconds(data.time),
        )

    def _requests(self, event: str, symbols: Iterable[str]) -> list[str]:
        return [_request(event, self._exchange_name(symbol)) for symbol in symbols]


def _request(event: str, name: str) -> str:
    return msgspec.json.encode({"event": event, "data": {"channel": f"{CHANNEL}{name}"}}).decode()


class Filler:
    """The questions to `/api/v2/transactions/PAIR/`: the trades of the last minute, hour or day.

    It cannot be asked for ids, so what lies outside of the loss is left out. The question begins with the
    shortest span that may be long enough, and the next one follows until the trade before the loss is in it.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name

    def fill(self, missing: Missing) -> Request | None:
        """The newest trades of a span that is not shorter than the loss."""
        after, before = missing.after, missing.before
        if after is None:
            return self._request(missing.symbol, "hour")
        length = 0 if before is None else before.timestamp - after.timestamp
        return self._request(missing.symbol, next(each for each in SPANS if length < _LENGTHS[each]))

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """The trades of the loss, with those before and behind it."""
        trades = self._read(missing.symbol, answer)
        after, before = _number(missing.after, -1), _number(missing.before, 1 << 64)
        following = None
        if missing.after is not None and not any(_number(trade, 0) <= after for trade in trades):
            following = self._longer(missing.symbol, request)
        kept = [trade for trade in trades if after <= _number(trade, 0) <= before]
        return Page([_with_time(trade, missing) for trade in kept], following)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """One symbol a question: the last hour."""
        return self._request(symbols[0], "hour")

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """The newest trade of the first symbol; of its time the second."""
        trades = self._read(symbols[0], answer)
        return {each.symbol: Newest.of(each) for each in trades[-1:]}

    def _request(self, symbol: str, span: str) -> Request:
        return Request(f"/api/v2/transactions/{quote(self._exchange_name(symbol), safe='')}/?time={span}")

    def _longer(self, symbol: str, request: Request) -> Request | None:
        asked = SPANS.index(request.path.rpartition("=")[2])
        return self._request(symbol, SPANS[asked + 1]) if asked + 1 < len(SPANS) else None

    def _read(self, symbol: str, answer: bytes) -> list[Trade]:
        """The trades, oldest first."""
        rows = answered(answer, _answers)
        if isinstance(rows, _Refusal):
            code = rows.code if isinstance(present(rows.code), str) else ""
            raise Unusable(RATE_LIMITED if code in _TOO_OFTEN else "refused")
        decimals = PositiveDecimals()
        trades = [self._trade(symbol, row, decimals) for row in rows]
        return sorted(trades, key=lambda trade: _number(trade, 0))

    def _trade(self, symbol: str, row: _Row, decimals: PositiveDecimals) -> Trade:
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=identifier(row.tid),
            side=one_of(row.type, _REST_SIDES, "bad_side"),
            price=decimals.read(row.price, "bad_price"),
            quantity=decimals.read(row.amount, "bad_quantity"),
            timestamp=from_seconds(row.date),
        )


def _number(trade: Trade | None, otherwise: int) -> int:
    return otherwise if trade is None or trade.trade_id is None else int(trade.trade_id)


def _with_time(trade: Trade, missing: Missing) -> Trade:
    """The trade with the best that is known of its time, which REST tells to the second."""
    after = missing.after
    for known in (after, missing.before):
        if known is not None and trade == msgspec.structs.replace(known, timestamp=trade.timestamp):
            return known if known.timestamp // _SECOND == trade.timestamp // _SECOND else trade
    if after is not None and trade.timestamp < after.timestamp < trade.timestamp + _SECOND:
        return msgspec.structs.replace(trade, timestamp=after.timestamp)
    return trade
