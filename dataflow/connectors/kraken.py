"""Kraken spot: `wss://ws.kraken.com/v2`; with `version = 1` the older `wss://ws.kraken.com`.

Rules of this file. In version 2 a `trade_id` is "a sequence number, unique per book": it is the sequence, a
skipped one is a loss, and the REST history fills it. A subscription asks for the snapshot, the last 50
trades. So a short absence heals by itself. A snapshot is read in the order of its ids.

In version 1 trades have no id. So one that comes twice cannot be recognised, and nothing can be proven: each
subscription is a possible loss (`missed`), and nothing can be refilled. The first message of a pair, if it
has the 50 trades of a snapshot, is left out: they would be repeated after each reconnection. A message or
trade that cannot be read is marked as a loss, of its symbol, or of all if it names none.

Version 1 and REST call BTC XBT, and DOGE XDG. REST tells times with more digits than the stream; here they
end with the microsecond, so that one trade has one time.

Each symbol of a request is answered by itself, also with a refusal. After a subscription there is a
heartbeat every second in which nothing else comes. Before it, `probe` asks.

Problems: not_text, malformed_json, unexpected_json, missing_field, unknown_message, unknown_channel,
unknown_type, unknown_symbol, rejected, bad_trade_id, bad_side, bad_price, bad_quantity, bad_timestamp. Of an
answer by REST also: refused, rate_limited.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlencode

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.sources.fields import (
    PositiveDecimals,
    from_seconds,
    from_text,
    json_number,
    json_text,
    named_in,
    one_of,
    present,
    whole,
)
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Proof, Request, SourceSettings, rest_at
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

SNAPSHOT: Final = 50  # trades
PAGE: Final = 1000  # trades of one answer by REST
_MICROSECOND: Final = 1000

_OLD_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}
_SIDES: Final[Mapping[str, Side]] = {"buy": "buy", "sell": "sell"}
_LETTERS: Final[Mapping[str, Side]] = {"b": "buy", "s": "sell"}
_OTHER_CHANNELS: Final = frozenset(
    {"heartbeat", "status", "ticker", "book", "level3", "ohlc", "instrument", "spread"}
)
_OTHER_EVENTS: Final = frozenset({"heartbeat", "systemStatus", "pong"})
_since: Final = re.compile(r"[?&]since=([0-9]+)").search  # of the path of a request

Method = Literal["subscribe", "unsubscribe"]


@frozen(kw_only=True)
class Settings(SourceSettings):
    """`version`: of the WebSocket API; the address must be that of the same."""

    symbols_a_request: ClassVar[int] = 50
    # An address that tries more than some 150 times within 10 minutes is shut out for as long.
    connections_in: ClassVar[tuple[int, float]] = (150, 600.0)

    version: Literal[2, 1] = field(default=2, validator=validators.in_((2, 1)))

    # The exchange tells no number, only that too many messages are refused ("Exceeded msg rate").
    requests_per_second: int = field(default=5, validator=validators.ge(0))
    refill_url: str = rest_at("https://api.kraken.com")
    # "Calling the public endpoints at a frequency of 1 per second (or less) would remain within the limits."
    refill_weight: int = field(default=60, validator=validators.gt(0))

    @version.validator
    def _can_be_merged(self, _attribute: object, value: int) -> None:
        if value == 1 and (self.lines > 1 or self.rotate_after > 0):
            raise ValueError(
                "version 1 takes no `lines` and no `rotate_after`: its trades have no ids, so two"
                " connections would bring each trade twice"
            )

    @property
    def numbered(self) -> Proof:
        return Proof.NUMBERS if self.version == 2 else Proof.NOTHING

    def derived(self, symbol: str) -> str:
        """With a slash; in version 1 by its old names."""
        return symbol.replace("-", "/") if self.version == 2 else "/".join(_old(symbol.split("-")))

    def rest_name(self, symbol: str) -> str:
        """What REST calls `symbol`."""
        return "".join(_old(self.exchange_name(symbol).split("/")))


def _old(names: Iterable[str]) -> list[str]:
    return [_OLD_NAMES.get(name, name) for name in names]


class _Frame(msgspec.Struct, gc=False):
    """Of version 2."""

    channel: Any = None
    type: Any = None
    data: msgspec.Raw = msgspec.Raw()
    method: Any = None
    success: Any = None
    error: Any = None
    symbol: Any = None
    result: Any = None
    req_id: Any = None


class _Deal(msgspec.Struct, gc=False):
    symbol: Any = None
    side: Any = None
    price: msgspec.Raw = msgspec.Raw()
    qty: msgspec.Raw = msgspec.Raw()
    trade_id: Any = None
    timestamp: Any = None


class _Event(msgspec.Struct, gc=False):
    """Of version 1."""

    event: Any = None
    status: Any = None
    pair: Any = None
    reqid: Any = None
    channel: Any = msgspec.field(default=None, name="channelName")
    subscription: Any = None
    words: Any = msgspec.field(default=None, name="errorMessage")


class _Row(msgspec.Struct, array_like=True, gc=False):
    """A trade of version 1, and of REST, which has an id in the end and a number as time."""

    price: Any = None
    volume: Any = None
    time: msgspec.Raw = msgspec.Raw()
    side: Any = None
    kind: Any = None
    more: Any = None
    trade_id: Any = None


class _Answer(msgspec.Struct, gc=False):
    error: list[Any]
    result: dict[str, msgspec.Raw] = {}


_frames: Final = msgspec.json.Decoder(_Frame)
_deals: Final = msgspec.json.Decoder(list[_Deal])
_events: Final = msgspec.json.Decoder(_Event | list[msgspec.Raw])
_text: Final = msgspec.json.Decoder(str)
_rows: Final = msgspec.json.Decoder(list[_Row])
_answers: Final = msgspec.json.Decoder(_Answer)


def Codec(name: str, settings: Settings) -> Version1 | Version2:  # noqa: N802 - the name of the contract
    """The language of Kraken, for one connection, in the version of the settings."""
    return Version1(name, settings) if settings.version == 1 else Version2(name, settings)


class _Common:
    """What both versions have."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name
        self._symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._ids = count(1)
        self._asked: dict[int, dict[str, None]] = {}  # symbols without an answer, by the id of the request

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        self._symbols.update((self._exchange_name(symbol), symbol) for symbol in symbols)
        number = next(self._ids)
        self._asked[number] = dict.fromkeys(symbols)
        return [self._request("subscribe", number, symbols)]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        return [self._request("unsubscribe", next(self._ids), symbols)]

    def probe(self) -> Sequence[str]:
        """A ping in the words of the exchange."""
        raise NotImplementedError

    def missed(self, symbol: str) -> Missed | None:
        """None: the sequence shows missing trades."""
        return None

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        raise NotImplementedError

    def _request(self, method: Method, number: int, symbols: Collection[str]) -> str:
        raise NotImplementedError

    def _names_of(self, symbols: Iterable[str]) -> list[str]:
        return [self._exchange_name(symbol) for symbol in symbols]

    def _answered(self, symbol: str) -> bool:
        """Whether an answer for `symbol` was due."""
        due = [number for number, symbols in self._asked.items() if symbol in symbols]
        if due:
            del self._asked[due[0]][symbol]
            if not self._asked[due[0]]:
                del self._asked[due[0]]
        return bool(due)

    def _refuse(self, words: Any, name: Any, number: Any, into: Received[Item]) -> None:
        """A request was refused: for the symbol with this name, or for all of it that wait for an answer."""
        asked = self._asked.get(number) if type(number) is int else None
        if name is not None:
            symbol = named_in(self._symbols, name)
            if not self._answered(symbol):
                raise Unusable("rejected")
            into.refused(words_of(words), symbol)
        elif asked:
            into.refused(words_of(words), *asked)
            del self._asked[number]
        else:
            raise Unusable("rejected")


class Version2(_Common):
    """The WebSocket API 2."""

    def probe(self) -> Sequence[str]:
        """A ping. A connection without a subscription has no heartbeat."""
        return [_json({"method": "ping", "req_id": next(self._ids)})]

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        try:
            said = decoded(message, _frames)
            if said.channel == "trade":
                self._read(said, message, into)
            elif said.channel is not None:
                if not (isinstance(said.channel, str) and said.channel in _OTHER_CHANNELS):
                    raise Unusable("unknown_channel")
            elif said.method is not None:
                self._understand(said, into)
            else:
                raise Unusable("unknown_message")
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _read(self, said: _Frame, message: str | bytes, into: Received[Item]) -> None:
        if said.type not in ("update", "snapshot"):
            raise Unusable("missing_field" if said.type is None else "unknown_type")
        trades = []
        for deal in decoded(json_text(said.data), _deals):
            try:
                trades.append(self._trade(deal))
            except Unusable as problem:
                into.problems.append((problem.reason, excerpt(message)))
        if said.type == "snapshot":
            trades.sort(key=_number)
        into.items.extend(trades)

    def _trade(self, deal: _Deal) -> Trade:
        number = whole(deal.trade_id, "bad_trade_id")
        return Trade(
            source=self._name,
            symbol=named_in(self._symbols, deal.symbol),
            trade_id=str(number),
            side=one_of(deal.side, _SIDES, "bad_side"),
            price=json_number(deal.price, self._decimals, "bad_price"),
            quantity=json_number(deal.qty, self._decimals, "bad_quantity"),
            timestamp=from_text(deal.timestamp),
            sequence=number,
        )

    def _understand(self, said: _Frame, into: Received[Item]) -> None:
        if said.method == "pong":
            return
        result = said.result if isinstance(said.result, dict) else {}
        if said.success is False or said.error is not None:
            if said.method == "unsubscribe":
                raise Unusable("rejected")
            self._refuse(said.error, said.symbol, said.req_id, into)
        elif said.method not in ("subscribe", "unsubscribe") or said.success is not True:
            raise Unusable("unknown_message")
        elif result.get("channel") == "trade":
            symbol = named_in(self._symbols, result.get("symbol"))
            if said.method == "unsubscribe":
                into.unsubscribed(symbol)
            else:
                self._answered(symbol)
                into.subscribed(symbol)

    def _request(self, method: Method, number: int, symbols: Collection[str]) -> str:
        what: dict[str, Any] = {"channel": "trade", "symbol": self._names_of(symbols)}
        if method == "subscribe":
            what["snapshot"] = True
        return _json({"method": method, "params": what, "req_id": number})


class Version1(_Common):
    """The WebSocket API 1: arrays, and trades without ids."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        self._subscribed: dict[str, bool] = {}  # symbol: whether a snapshot may still come

    def probe(self) -> Sequence[str]:
        """A ping. A connection without a subscription has no heartbeat."""
        return [_json({"event": "ping", "reqid": next(self._ids)})]

    def missed(self, symbol: str) -> Missed | None:
        """A mark, always: nothing proves that no trade was missed."""
        return Missed(self._name, symbol, "source_gap")

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        try:
            said = decoded(message, _events)
        except Unusable as problem:
            self._mark(self._subscribed, into)  # it may have been trades
            into.problems.append((problem.reason, excerpt(message)))
            return
        try:
            if isinstance(said, list):
                self._read(said, message, into)
            else:
                self._understand(said, into)
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _mark(self, symbols: Iterable[str], into: Received[Item]) -> None:
        into.items.extend(Missed(self._name, symbol, "source_gap") for symbol in symbols)

    def _read(self, said: list[msgspec.Raw], message: str | bytes, into: Received[Item]) -> None:
        channel = _string(said[-2]) if len(said) >= 4 else None
        if channel is None:
            self._mark(self._subscribed, into)
            raise Unusable("unknown_message")
        if channel != "trade":
            if channel.partition("-")[0] not in _OTHER_CHANNELS:
                raise Unusable("unknown_channel")
            return
        symbol = self._symbols.get(_string(said[-1]) or "")
        if symbol is None:
            raise Unusable("unknown_symbol")
        try:
            rows = decoded(json_text(said[1]), _rows)
        except Unusable:
            self._mark([symbol], into)
            raise
        may_be_snapshot = self._subscribed.get(symbol, False)
        self._subscribed[symbol] = False
        if may_be_snapshot and len(rows) == SNAPSHOT:
            return
        for row in rows:
            try:
                into.items.append(self._trade(symbol, row))
            except Unusable as problem:
                self._mark([symbol], into)
                into.problems.append((problem.reason, excerpt(message)))

    def _trade(self, symbol: str, row: _Row) -> Trade:
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=None,
            side=one_of(row.side, _LETTERS, "bad_side"),
            price=self._decimals.read(row.price, "bad_price"),
            quantity=self._decimals.read(row.volume, "bad_quantity"),
            timestamp=from_seconds(_string(row.time) or json_text(row.time)),
        )

    def _understand(self, said: _Event, into: Received[Item]) -> None:
        if said.event == "subscriptionStatus":
            self._status(said, into)
        elif said.event == "error":
            self._refuse(said.words, None, said.reqid, into)
        elif said.event is None:
            raise Unusable("unknown_message")
        elif not (isinstance(said.event, str) and said.event in _OTHER_EVENTS):
            raise Unusable("unknown_type")

    def _status(self, said: _Event, into: Received[Item]) -> None:
        asked = said.subscription.get("name") if isinstance(said.subscription, dict) else None
        channel = present(said.channel if asked is None else asked)
        if channel != "trade":
            if not isinstance(channel, str) or channel.partition("-")[0] not in _OTHER_CHANNELS:
                raise Unusable("unknown_channel")
            return
        if said.status == "error":
            self._refuse(said.words, said.pair, said.reqid, into)
            return
        symbol = named_in(self._symbols, said.pair)
        if said.status == "subscribed":
            self._answered(symbol)
            self._subscribed[symbol] = True
            into.subscribed(symbol)
        elif said.status == "unsubscribed":
            self._subscribed.pop(symbol, None)
            into.unsubscribed(symbol)
        else:
            raise Unusable("missing_field" if said.status is None else "unknown_type")

    def _request(self, method: Method, number: int, symbols: Collection[str]) -> str:
        names = self._names_of(symbols)
        return _json({"event": method, "pair": names, "subscription": {"name": "trade"}, "reqid": number})


def _json(call: dict[str, Any]) -> str:
    return msgspec.json.encode(call).decode()


def _cursor(text: str) -> int:
    if re.fullmatch("[0-9]{1,19}", text) is None:
        raise Unusable("bad_timestamp")
    return int(text)


def _string(raw: msgspec.Raw) -> str | None:
    try:
        return _text.decode(raw)
    except msgspec.DecodeError:
        return None


def _number(trade: Trade) -> int:
    assert trade.sequence is not None
    return trade.sequence


class Filler:
    """The questions to `/0/public/Trades`: 1,000 trades behind a time, the oldest first.

    It cannot be asked for ids. What is neither missing nor one of the two around is left out.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._rest_name = settings.rest_name
        self._has_ids = settings.version == 2

    def fill(self, missing: Missing) -> Request | None:
        """What came since the trade before the missing ones. In version 1 None: no trade has an id."""
        if not self._has_ids:
            return None
        after = missing.after
        return self._request(missing.symbol, None if after is None else after.timestamp - _MICROSECOND)

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """The trades in the range, and the request for what came later."""
        trades, last = self._read(missing.symbol, answer)
        first = 0 if missing.first is None else missing.first - 1
        end = None if missing.last is None else missing.last + 1
        if end is None and missing.before is not None:
            end = missing.before.sequence
        found = _since(request.path)
        following = None
        is_behind = bool(trades) and end is not None and _number(trades[-1]) >= end
        if found and len(trades) >= PAGE and not is_behind and last > int(found[1]):
            following = self._request(missing.symbol, last)
        kept = [each for each in trades if first <= _number(each) and (end is None or _number(each) <= end)]
        return Page(kept, following)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """One symbol a question."""
        return self._request(symbols[0], None, 1)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """The newest trade of the first symbol. In version 1 its time only."""
        trades, _ = self._read(symbols[0], answer)
        if not self._has_ids:
            return {each.symbol: Newest(timestamp=each.timestamp) for each in trades[-1:]}
        return {each.symbol: Newest.of(each) for each in trades[-1:]}

    def _request(self, symbol: str, since: int | None, most: int = PAGE) -> Request:
        query: dict[str, Any] = {"pair": self._rest_name(symbol), "count": most}
        if since is not None:
            query["since"] = max(0, since)
        return Request(f"/0/public/Trades?{urlencode(query)}")

    def _read(self, symbol: str, answer: bytes) -> tuple[list[Trade], int]:
        """The trades, and what to go on from (ns)."""
        said = answered(answer, _answers)
        if said.error:
            words = " ".join(map(str, said.error)).lower()
            is_too_often = "rate limit" in words or "too many requests" in words or "throttled" in words
            raise Unusable(RATE_LIMITED if is_too_often else "refused")
        last = said.result.pop("last", msgspec.Raw())
        if len(said.result) != 1:
            raise Unusable("unknown_symbol" if said.result else "missing_field")
        (pair,) = said.result.values()
        decimals = PositiveDecimals()
        trades = [self._trade(symbol, row, decimals) for row in answered(bytes(pair), _rows)]
        return trades, _cursor(_string(last) or json_text(last))

    def _trade(self, symbol: str, row: _Row, decimals: PositiveDecimals) -> Trade:
        number = whole(row.trade_id, "bad_trade_id")
        moment = from_seconds(json_text(row.time))
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=str(number),
            side=one_of(row.side, _LETTERS, "bad_side"),
            price=decimals.read(row.price, "bad_price"),
            quantity=decimals.read(row.volume, "bad_quantity"),
            timestamp=moment - moment % _MICROSECOND,
            sequence=number,
        )
