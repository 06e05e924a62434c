"""Binance's market streams: `wss://stream.binance.com:443/stream` (wrapped) or `/ws` (bare). Also those of
Binance US, and of the futures in USDT and USDC: `wss://fstream.binance.com/market/stream`.

Rules of this file. The address decides the market: a path that begins with `/market/` is that of the futures,
as Binance routes them, and a host of `binance.us` has a REST of its own. A setting beside the address could
contradict it, and BTCUSDT is the name of a pair here and of a perpetual there. So a symbol of the other
market is refused at the start. Of the futures only the aggregates are documented. (They leave out what the
insurance fund and auto-deleveraging trade, and so do their numbers.)

Binance writes symbols without a dash. The way back to BASE-QUOTE is a table of the known symbols, never a
guess at where to cut. The ids of one symbol grow by one, so they are the sequence, and a skipped id proves
a loss. With `stream = "trade"` the id is `t`. With `stream = "aggTrade"` it is `a`, the number of the
aggregate, which grows by one too. (The trades inside are contiguous, `f..l`, but one aggregate is one entry
here, so a gap counts aggregates.) Events of the other stream are not trades here, or every trade would count
twice.

There are two ways to read a trade. The usual way makes it in one expression, if every field has its usual
form. The careful way goes through any other message field by field and names the problem. The usual way must
not accept a message that the careful way refuses. So both decode the same fields, the usual way into narrower
types.

`Filler` asks the REST of the same exchange: `historicalTrades` for trades, `aggTrades` for aggregates. Both
answer from an id on, so the question is exact: the trade before the missing ones, these, and the one behind
them. They hold the very values of the stream. One `ticker/24hr` tells the newest ids of 20 symbols; those of
aggregates are told one by one.

Problems: not_text, malformed_json, unexpected_json, missing_field, unknown_event, unknown_message,
unknown_answer, rejected, unknown_symbol, bad_timestamp, bad_side, bad_price, bad_quantity,
bad_trade_id, and of an answer by HTTP not_text, malformed_json, unexpected_json and the same of fields.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, Final, Literal
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.domain.symbols import contract
from dataflow.domain.timestamps import LATEST
from dataflow.sources.fields import LAST_COUNT, PositiveDecimals, named_in, present, whole
from dataflow.sources.port import Newest, Page, Proof, Request, SourceSettings, is_here, place, told_apart
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

_MICROSECONDS_FROM: Final = 10**14  # as milliseconds this would be the year 5138
_LATEST_USUAL: Final = LATEST // 1_000_000  # milliseconds
_MOST_ROWS: Final = 1000  # of one answer
_TRADES_WEIGHT: Final = 25
_AGGREGATES_WEIGHT: Final = 4
_FUTURES_WEIGHT: Final = 20  # the same question there
_TICKER_WEIGHT: Final = 2  # for up to so many symbols; for more it costs more than to ask again
_TICKER_SYMBOLS: Final = 20

_SIDES: Final[dict[Any, Side]] = {
    True: "sell",
    False: "buy",
}  # of the taker, by whether the buyer was the maker

Method = Literal["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS"]


@frozen(kw_only=True)
class Settings(SourceSettings):
    """`stream`: single trades, or the aggregates of Binance (one taker order at one price)."""

    url: str = field()

    @url.validator
    def _has_trades(self, _attribute: object, value: str) -> None:
        host, _ = place(value) or ("", "")
        if host.startswith("fstream.") and not _is_futures(value):
            raise ValueError(
                "must have the path /market/stream or /market/ws: others carry no trades of futures"
            )
        if host.startswith("dstream."):
            raise ValueError("must not be that of the futures in coins: their quantities are no amounts")

    symbols: tuple[str, ...] = field(default=(), validator=told_apart)

    @symbols.validator
    def _of_the_market(self, _attribute: object, value: tuple[str, ...]) -> None:
        is_futures = _is_futures(self.url)
        if any((contract(symbol) is not None) is not is_futures for symbol in value):
            raise ValueError(
                "must be BASE-QUOTE-PERP or BASE-QUOTE-YYMMDD at an address of futures (/market/...), "
                "and BASE-QUOTE at any other"
            )

    # Symbols share a request, because few are allowed. A refusal does not say which of them it means: the
    # connector then asks again for fewer symbols, until a refusal concerns one.
    symbols_a_request: ClassVar[int] = 50
    symbols_a_connection: ClassVar[int] = 1024
    connections_in: ClassVar[tuple[int, float]] = (300, 300.0)
    weight_header: ClassVar[str | None] = "X-MBX-USED-WEIGHT-1M"

    stream: Literal["trade", "aggTrade"] = field()

    @stream.default
    def _documented(self) -> Literal["trade", "aggTrade"]:
        return "aggTrade" if _is_futures(self.url) else "trade"

    @stream.validator
    def _of_futures(self, _attribute: object, value: str) -> None:
        if value == "trade" and _is_futures(self.url):
            raise ValueError('must be "aggTrade" at an address of futures: no other stream has their trades')

    # Who sends more is cut off, and banned after some times. Pings and pongs count.
    requests_per_second: int = field(default=5, validator=validators.ge(0))
    # Binance ends a connection after 24 h.
    rotate_after: float = field(default=82_800.0, validator=validators.ge(0))
    # Four fifths of what one address may use for spot, half of it for futures. With less, after a lost
    # second of 1,000 symbols, many questions are given up before their turn: each has a weight of 25.
    refill_weight: int = field(validator=validators.gt(0))

    @refill_weight.default
    def _of_the_limit(self) -> int:
        return 1200 if _is_futures(self.url) or _is_american(self.url) else 4800

    refill_url: str = field()

    @refill_url.default
    def _of_the_address(self) -> str:
        if is_here(self.url):  # the exchange knows nothing of what a simulated one has sent
            return ""
        if _is_futures(self.url):
            return "https://fapi.binance.com"
        return "https://api.binance.us" if _is_american(self.url) else "https://api.binance.com"

    @property
    def numbered(self) -> Proof:
        return Proof.NUMBERS

    def derived(self, symbol: str) -> str:
        """BTCUSDT, also for a perpetual; BTCUSDT_251226 for a future that ends on that day."""
        pair, kind = contract(symbol) or (symbol, "PERP")
        name = pair.replace("-", "").upper()
        return name if kind == "PERP" else f"{name}_{kind}"


class _Message(msgspec.Struct, gc=False):  # one per message, and soon dropped
    e: Any = None
    s: Any = None
    t: Any = None
    a: Any = None
    p: Any = None
    q: Any = None
    T: Any = None
    m: Any = None


class _Frame(_Message, gc=False):
    data: _Message | None = None
    id: Any = None
    result: Any = msgspec.UNSET
    error: Any = None  # {"code", "msg"}; some refusals have both at the top
    code: Any = None
    msg: Any = None


class _UsualMessage(_Message, gc=False):
    s: str | None = None
    t: int | None = None
    a: int | None = None
    p: str | None = None
    q: str | None = None
    T: int | None = None
    m: bool | None = None


class _UsualFrame(_UsualMessage, _Frame, gc=False):
    data: _UsualMessage | None = None


_decoder: Final = msgspec.json.Decoder(_Frame)
_decode_usual: Final = msgspec.json.Decoder(_UsualFrame).decode
_UNUSUAL: Final = (LookupError, TypeError, ValueError, RecursionError, msgspec.DecodeError)


class Codec:
    """The language of Binance, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._stream = settings.stream
        self._single = settings.stream == "trade"
        self._exchange_name = settings.exchange_name
        self._symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._ids = count(1)
        self._asked: dict[int, tuple[Method, tuple[str, ...]]] = {}

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        return [self._request("SUBSCRIBE", symbols)]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        return [self._request("UNSUBSCRIBE", symbols)]

    def probe(self) -> Sequence[str]:
        """A harmless request. Its answer is a sign of life: a quiet market sends nothing by itself."""
        return [self._request("LIST_SUBSCRIPTIONS", ())]

    def missed(self, symbol: str) -> Missed | None:
        """None: the sequence shows missing trades."""
        return None

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        if type(message) is str and (trade := self._usual_trade(message)):
            into.items.append(trade)
            return
        try:
            self._understand(decoded(message, _decoder), into)
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _usual_trade(self, message: str) -> Trade | None:
        try:
            frame = _decode_usual(message)
            said: Any = frame.data or frame
            number = said.t if self._single else said.a
            moment = said.T
            if not (said.e == self._stream and 0 <= number <= LAST_COUNT and 0 < moment < _LATEST_USUAL):
                return None
            return Trade(
                self._name,
                self._symbols[said.s],
                str(number),
                _SIDES[said.m],
                self._decimals[said.p],
                self._decimals[said.q],
                moment * 1_000_000,
                number,
            )
        except _UNUSUAL:
            return None

    def _understand(self, frame: _Frame, into: Received[Item]) -> None:
        said: _Message = frame if frame.data is None else frame.data
        if said.e == self._stream:
            into.items.append(self._trade(said))
        elif said.e == "serverShutdown":
            into.leaving = "the upstream announced its end (serverShutdown)"
        elif said.e is not None:
            raise Unusable("unknown_event")
        elif (refusal := _refusal(frame)) is not None or frame.result is not msgspec.UNSET:
            self._answered(frame.id, refusal, into)
        else:
            raise Unusable("unknown_message")

    def _answered(self, request: Any, refusal: str | None, into: Received[Item]) -> None:
        method, symbols = self._asked.pop(request, (None, ())) if type(request) is int else (None, ())
        if refusal is not None and method != "SUBSCRIBE":
            raise Unusable("rejected")
        if method is None:
            raise Unusable("unknown_answer")
        if refusal is not None:
            into.refused(refusal, *symbols)
        elif method != "LIST_SUBSCRIPTIONS":
            (into.subscribed if method == "SUBSCRIBE" else into.unsubscribed)(*symbols)

    def _trade(self, said: _Message) -> Trade:
        number = whole(said.t if self._single else said.a, "bad_trade_id")
        return Trade(
            source=self._name,
            symbol=named_in(self._symbols, said.s),
            trade_id=str(number),
            side=_side(said.m),
            price=self._decimals.read(said.p, "bad_price"),
            quantity=self._decimals.read(said.q, "bad_quantity"),
            timestamp=_timestamp(said.T),
            sequence=number,
        )

    def _request(self, method: Method, symbols: Collection[str]) -> str:
        names = {self._exchange_name(symbol): symbol for symbol in symbols}
        self._symbols.update(names)
        number = next(self._ids)
        self._asked[number] = (method, tuple(symbols))
        request: dict[str, Any] = {"method": method, "id": number}
        if names:
            request["params"] = [f"{name.lower()}@{self._stream}" for name in names]
        return msgspec.json.encode(request).decode()


class _Row(msgspec.Struct, gc=False):  # of `historicalTrades`, and of `aggTrades`
    id: Any = None
    price: Any = None
    qty: Any = None
    time: Any = None
    isBuyerMaker: Any = None  # noqa: N815
    a: Any = None
    p: Any = None
    q: Any = None
    T: Any = None
    m: Any = None


class _Ticker(msgspec.Struct, gc=False):
    symbol: Any = None
    lastId: Any = None  # noqa: N815


_decode_rows: Final = msgspec.json.Decoder(list[_Row])
_decode_tickers: Final = msgspec.json.Decoder(list[_Ticker])


class Filler:
    """The language of Binance's REST: missing trades, and the newest ids."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._single = settings.stream == "trade"
        self._exchange_name = settings.exchange_name
        self._decimals = PositiveDecimals()
        self._root = "/fapi/v1" if _is_futures(settings.url) else "/api/v3"
        aggregates = _FUTURES_WEIGHT if _is_futures(settings.url) else _AGGREGATES_WEIGHT
        self._weight = _TRADES_WEIGHT if self._single else aggregates

    def fill(self, missing: Missing) -> Request | None:
        """From the trade before the missing ones to the one behind them, at most 1,000 at once."""
        first = None if missing.first is None else max(missing.first - 1, 0)
        return self._part(missing, first)

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """The trades of one answer. More follow when it is as long as it may be, and not at the end yet."""
        rows = answered(answer, _decode_rows)
        trades = [self._trade(missing.symbol, row) for row in rows]
        asked = parse_qs(urlsplit(request.path).query)
        first = int(asked["fromId"][0]) if "fromId" in asked else None
        last = max((trade.sequence or 0 for trade in trades), default=0)
        is_full = len(rows) >= int(asked["limit"][0])
        following = None
        if first is not None and is_full and last >= first and not self._is_end(missing, last):
            following = self._part(missing, last + 1)
        return Page(trades, following)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """One question for up to 20 symbols; for an aggregate one for each."""
        if not symbols:
            return None
        if self._single:
            names = [self._exchange_name(symbol) for symbol in symbols[:_TICKER_SYMBOLS]]
            listed = quote(msgspec.json.encode(names))
            return Request(f"{self._root}/ticker/24hr?type=MINI&symbols={listed}", _TICKER_WEIGHT)
        query = urlencode({"symbol": self._exchange_name(symbols[0]), "limit": 1})
        return Request(f"{self._root}/aggTrades?{query}", self._weight)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """The id of the newest trade; of an aggregate its time, too."""
        if not self._single:
            trades = [self._trade(symbols[0], row) for row in answered(answer, _decode_rows)]
            return {each.symbol: Newest.of(each) for each in trades[-1:]}
        asked = {self._exchange_name(symbol): symbol for symbol in symbols[:_TICKER_SYMBOLS]}
        found = {}
        for told in answered(answer, _decode_tickers):
            symbol = named_in(asked, told.symbol)
            if told.lastId != -1:  # none in the last 24 hours
                number = whole(told.lastId, "bad_trade_id")
                found[symbol] = Newest(number, str(number))
        return found

    def _part(self, missing: Missing, first: int | None) -> Request:
        last = None if missing.last is None else missing.last + 1
        query: dict[str, object] = {"symbol": self._exchange_name(missing.symbol)}
        if first is not None:
            query["fromId"] = first
        query["limit"] = _MOST_ROWS if first is None or last is None else min(last - first + 1, _MOST_ROWS)
        name = "historicalTrades" if self._single else "aggTrades"
        return Request(f"{self._root}/{name}?{urlencode(query)}", self._weight)

    def _is_end(self, missing: Missing, last: int) -> bool:
        return missing.last is not None and last > missing.last

    def _trade(self, symbol: str, row: _Row) -> Trade:
        single = self._single
        number = whole(row.id if single else row.a, "bad_trade_id")
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=str(number),
            side=_side(row.isBuyerMaker if single else row.m),
            price=self._decimals.read(row.price if single else row.p, "bad_price"),
            quantity=self._decimals.read(row.qty if single else row.q, "bad_quantity"),
            timestamp=_timestamp(row.time if single else row.T),
            sequence=number,
        )


def _is_futures(url: str) -> bool:
    _, path = place(url) or ("", "")
    return path.startswith("/market/")


def _is_american(url: str) -> bool:
    host, _ = place(url) or ("", "")
    return host == "binance.us" or host.endswith(".binance.us")


def _refusal(frame: _Frame) -> str | None:
    if frame.error is None and frame.code is None:
        return None
    return words_of(frame.error.get("msg") if isinstance(frame.error, dict) else frame.msg)


def _side(buyer_is_maker: Any) -> Side:
    if not isinstance(present(buyer_is_maker), bool):
        raise Unusable("bad_side")
    return _SIDES[buyer_is_maker]


def _timestamp(value: Any) -> int:
    if type(present(value)) is not int or value <= 0:
        raise Unusable("bad_timestamp")
    nanoseconds = value * (1_000 if value > _MICROSECONDS_FROM else 1_000_000)
    if nanoseconds >= LATEST:
        raise Unusable("bad_timestamp")
    return int(nanoseconds)
