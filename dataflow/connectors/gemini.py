"""Gemini, Market Data version 2: `wss://api.gemini.com/v2/marketdata`.

Rules of this file. Trades come with the channel `l2` only, so the changes of the order book come too; they
are left out unread. `side` is that of the taker. A trade id (`tid`) is no counter, and it proves nothing:
each subscription is a possible loss (`missed`), and so is a message that cannot be read, of its symbol, or
of all if it names none.

A subscription is answered by the order book of the symbol, which is long (`max_message_bytes`), and its last
50 trades. They are read in the order of time and id. If the newest trade from before is one of them, nothing
was missed. Otherwise the REST history fills it, as far as the 500 newest trades since then reach.

An unsubscription is not answered. It is counted as done with the next message. A refusal names no symbol. It
is reported as one of everything that has no answer yet; the connector then asks for smaller parts.

Trades of an auction and block trades are told as other events, and are no trades here. REST has them among
the others; they are left out there too.

Problems: not_text, malformed_json, unexpected_json, missing_field, unknown_type, unknown_symbol, rejected,
bad_trade_id, bad_side, bad_price, bad_quantity, bad_timestamp. Of an answer by REST also: refused,
rate_limited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.sources.fields import PositiveDecimals, from_milliseconds, identifier, named_in, one_of
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Request, SourceSettings, rest_at
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

PAGE: Final = 500  # trades of one answer by REST

_SIDES: Final[Mapping[str, Side]] = {"buy": "buy", "sell": "sell"}
_APART: Final = frozenset({"auction", "block"})  # kinds of trades that REST tells, and the stream does not
_OTHER_TYPES: Final = frozenset(
    {"heartbeat", "auction_open", "auction_indicative", "auction_result", "block_trade", "block"}
    | {f"candles_{width}_updates" for width in ("1m", "5m", "15m", "30m", "1h", "6h", "1d")}
)


@frozen(kw_only=True)
class Settings(SourceSettings):
    """The keys that every source has."""

    symbols_a_request: ClassVar[int] = 20  # each is answered with a whole order book

    max_message_bytes: int = field(default=1 << 23, validator=validators.gt(0))  # such an order book
    refill_url: str = rest_at("https://api.gemini.com")
    # "120 requests per minute, and recommend that you do not exceed 1 request per second"
    refill_weight: int = field(default=60, validator=validators.gt(0))

    def derived(self, symbol: str) -> str:
        """Without dashes: BTCUSD, BTCGUSDPERP."""
        return symbol.replace("-", "")


class _Deal(msgspec.Struct, gc=False):
    symbol: Any = None
    timestamp: Any = None
    price: Any = None
    quantity: Any = None
    side: Any = None
    tid: Any = None


class _Message(_Deal, gc=False):
    type: Any = None
    trades: list[_Deal] | None = None
    result: Any = None
    reason: Any = None
    message: Any = None


class _Row(msgspec.Struct, gc=False):
    """Of REST."""

    timestampms: Any = None
    tid: Any = None
    price: Any = None
    amount: Any = None
    type: Any = None


class _Refusal(msgspec.Struct, gc=False):
    result: Any = None
    reason: Any = None


_decoder: Final = msgspec.json.Decoder(_Message)
_answers: Final = msgspec.json.Decoder(list[_Row] | _Refusal)


class Codec:
    """The language of Gemini, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name
        self._symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._asked: dict[str, None] = {}  # symbols without an answer yet, the oldest first
        self._subscribed: dict[str, None] = {}
        self._left: dict[str, None] = {}  # unsubscribed since the last message

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        self._symbols.update((self._exchange_name(symbol), symbol) for symbol in symbols)
        self._asked.update(dict.fromkeys(symbols))
        return [self._request("subscribe", symbols)]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        self._left.update(dict.fromkeys(symbols))
        for symbol in symbols:
            self._subscribed.pop(symbol, None)
        return [self._request("unsubscribe", symbols)]

    def probe(self) -> Sequence[str]:
        """None: there are heartbeats."""
        return ()

    def missed(self, symbol: str) -> Missed | None:
        """A mark, always: ids prove nothing. The last 50 trades may take it back."""
        return Missed(self._name, symbol, "source_gap", resubscribed=True)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        if self._left:
            into.unsubscribed(*self._left)
            self._left.clear()
        try:
            said = decoded(message, _decoder)
        except Unusable as problem:
            self._mark(self._subscribed, into)  # it may have been a trade
            into.problems.append((problem.reason, excerpt(message)))
            return
        try:
            self._understand(said, message, into)
        except Unusable as problem:
            if said.type == "trade" or (said.result is None and not isinstance(said.type, str)):
                self._mark(self._affected(said.symbol), into)
            into.problems.append((problem.reason, excerpt(message)))

    def _mark(self, symbols: Iterable[str], into: Received[Item]) -> None:
        into.items.extend(Missed(self._name, symbol, "source_gap") for symbol in symbols)

    def _affected(self, name: Any) -> list[str]:
        """The subscribed symbols that a message with this name may have been about."""
        if not isinstance(name, str):
            return list(self._subscribed)
        symbol = self._symbols.get(name)
        return [symbol] if symbol in self._subscribed else []

    def _understand(self, said: _Message, message: str | bytes, into: Received[Item]) -> None:
        if said.type == "trade":
            into.items.append(self._trade(named_in(self._symbols, said.symbol), said))
        elif said.type == "l2_updates":
            self._answered(named_in(self._symbols, said.symbol), said.trades or [], message, into)
        elif said.type == "error" or said.result == "error":
            self._refuse(said, into)
        elif not (isinstance(said.type, str) and said.type in _OTHER_TYPES):
            raise Unusable("missing_field" if said.type is None else "unknown_type")

    def _answered(self, symbol: str, deals: list[_Deal], message: str | bytes, into: Received[Item]) -> None:
        """The first message about the order book of a symbol answers its subscription."""
        if symbol not in self._asked:
            return
        del self._asked[symbol]
        self._subscribed[symbol] = None
        into.subscribed(symbol)
        trades, is_whole = [], True
        for deal in deals:
            try:
                trades.append(self._trade(symbol, deal))
            except Unusable as problem:
                is_whole = False
                into.problems.append((problem.reason, excerpt(message)))
        trades.sort(key=lambda trade: (trade.timestamp, _number(trade)))
        if not is_whole:
            self._mark([symbol], into)
        into.items.extend(trades)

    def _refuse(self, said: _Message, into: Received[Item]) -> None:
        if not self._asked:
            raise Unusable("rejected")
        into.refused(words_of(said.reason, said.message), *self._asked)
        self._asked.clear()

    def _trade(self, symbol: str, deal: _Deal) -> Trade:
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=identifier(deal.tid),
            side=one_of(deal.side, _SIDES, "bad_side"),
            price=self._decimals.read(deal.price, "bad_price"),
            quantity=self._decimals.read(deal.quantity, "bad_quantity"),
            timestamp=from_milliseconds(deal.timestamp),
        )

    def _request(self, what: str, symbols: Iterable[str]) -> str:
        names = [self._exchange_name(symbol) for symbol in symbols]
        call = {"type": what, "subscriptions": [{"name": "l2", "symbols": names}]}
        return msgspec.json.encode(call).decode()


class Filler:
    """The questions to `/v1/trades/SYMBOL`: the newest trades since a time, 500 at most.

    It cannot be asked for ids, nor for older ones than these 500. What lies outside of the loss is left out.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name

    def fill(self, missing: Missing) -> Request | None:
        """What came since the trade before the loss, and this one with it."""
        return self._request(missing.symbol, missing.after)

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """The trades of the loss, with those before and behind it."""
        trades = self._read(missing.symbol, answer)
        after, before = missing.after, missing.before
        places = {trade.trade_id: at for at, trade in enumerate(trades)}
        if before is not None:
            trades = trades[: places.get(before.trade_id, len(trades)) + 1]
            trades = [trade for trade in trades if trade.timestamp <= before.timestamp]
        if after is not None:
            trades = trades[places.get(after.trade_id, 0) :]
            trades = [trade for trade in trades if trade.timestamp >= after.timestamp]
        return Page(trades)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """One symbol a question."""
        return self._request(symbols[0], None, 1)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """The newest trade of the first symbol."""
        trades = self._read(symbols[0], answer)
        return {each.symbol: Newest.of(each) for each in trades[-1:]}

    def _request(self, symbol: str, since: Trade | None, most: int = PAGE) -> Request:
        name = quote(self._exchange_name(symbol).lower(), safe="")
        # Whether a trade of this very time is among them, nobody says.
        begin = "" if since is None else f"&timestamp={since.timestamp // 1_000_000 - 1}"
        return Request(f"/v1/trades/{name}?limit_trades={most}{begin}")

    def _read(self, symbol: str, answer: bytes) -> list[Trade]:
        """The trades, oldest first."""
        rows = answered(answer, _answers)
        if isinstance(rows, _Refusal):
            if rows.result is None:
                raise Unusable("unexpected_json")
            raise Unusable(RATE_LIMITED if rows.reason == "RateLimit" else "refused")
        decimals = PositiveDecimals()
        some = (row for row in rows if not (isinstance(row.type, str) and row.type in _APART))
        trades = [self._trade(symbol, row, decimals) for row in some]
        return sorted(trades, key=lambda trade: (trade.timestamp, _number(trade)))

    def _trade(self, symbol: str, row: _Row, decimals: PositiveDecimals) -> Trade:
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=identifier(row.tid),
            side=one_of(row.type, _SIDES, "bad_side"),
            price=decimals.read(row.price, "bad_price"),
            quantity=decimals.read(row.amount, "bad_quantity"),
            timestamp=from_milliseconds(row.timestampms),
        )


def _number(trade: Trade) -> int:
    assert trade.trade_id is not None
    return int(trade.trade_id)
