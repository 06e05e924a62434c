"""Bybit, API v5: `wss://stream.bybit.com/v5/public/spot`, or `.../linear`.

Rules of this file. The path of the address decides the category, because a category has an address of its
own: spot, or the perpetuals and futures that are settled in USDT or USDC (linear). A symbol of the other
category is refused at the start: it would have the same name there.

One message may have many trades of one symbol, in the order of the match. The ids are UUIDs (linear) or
numbers that all symbols share (spot), and `seq` belongs to the whole engine: nothing proves a loss. So trades
have no sequence, and every subscription leaves a mark, and so does every trade that cannot be read. Block
trades are trades too. The side is the taker's.

A request is answered as a whole, and refused as a whole. One for a topic that is subscribed already is
refused too: with several symbols that is a refusal like any other, with one it is the answer.

The REST gives the newest trades only, 60 (spot) or 1,000 (linear).

Problems: not_text, malformed_json, unexpected_json, missing_field, unknown_message, unknown_topic,
unknown_answer, unknown_symbol, rejected, bad_trade_id, bad_side, bad_price, bad_quantity, bad_timestamp. Of
an answer by REST also: refused, rate_limited.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlencode

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.domain.symbols import contract
from dataflow.sources.fields import PositiveDecimals, from_milliseconds, named_in, one_of, present
from dataflow.sources.port import (
    RATE_LIMITED,
    Newest,
    Page,
    Request,
    SourceSettings,
    place,
    rest_at,
    told_apart,
)
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

_TOPIC: Final = "publicTrade."
_NEWEST: Final = {"spot": 60, "linear": 1000}  # trades that the REST gives, by category
_SIDES: Final[Mapping[Any, Side]] = {"Buy": "buy", "Sell": "sell"}
_TOO_OFTEN: Final = (10006, 10018)
_ALREADY: Final = "error:already subscribed"
_is_id: Final = re.compile(r"[0-9A-Za-z-]{1,64}").fullmatch
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

Operation = Literal["subscribe", "unsubscribe"]


@frozen(kw_only=True)
class Settings(SourceSettings):
    """`url` ends in `/spot`, with symbols BASE-QUOTE, or in `/linear`, with BASE-QUOTE-PERP or -YYMMDD."""

    symbols_a_request: ClassVar[int] = 10  # of spot; linear has no such bound
    symbols_a_connection: ClassVar[int] = 600  # their topics may have 21,000 characters on one connection
    connections_in: ClassVar[tuple[int, float]] = (500, 300.0)

    url: str = field()
    refill_url: str = rest_at("https://api.bybit.com")
    refill_weight: int = field(default=1200, validator=validators.gt(0))  # Bybit takes 600 in 5 s

    @url.validator
    def _has_a_category(self, _attribute: object, value: str) -> None:
        if place(value) and _category(value) not in _NEWEST:
            raise ValueError("must end in /v5/public/spot or /v5/public/linear")

    symbols: tuple[str, ...] = field(default=(), validator=told_apart)

    @symbols.validator
    def _of_the_category(self, _attribute: object, value: tuple[str, ...]) -> None:
        is_linear = _category(self.url) == "linear"
        for symbol in value:
            if (contract(symbol) is not None) is not is_linear:
                wanted = "BASE-QUOTE-PERP or BASE-QUOTE-YYMMDD" if is_linear else "BASE-QUOTE"
                raise ValueError(f"must be {wanted} at an address that ends in /{_category(self.url)}")

    def derived(self, symbol: str) -> str:
        """BTCUSDT; BTCPERP for a perpetual in USDC; BTCUSDT-26DEC25 or BTC-26DEC25 for a future."""
        pair, kind = contract(symbol) or (symbol, "")
        base, _, quote = pair.partition("-")
        if kind == "PERP":
            return f"{base}PERP" if quote == "USDC" else base + quote
        if kind:
            return f"{base if quote == 'USDC' else base + quote}-{_day(kind)}"
        return base + quote


class _Trade(msgspec.Struct, gc=False):
    T: Any = None
    s: Any = None
    S: Any = None
    v: Any = None
    p: Any = None
    i: Any = None


class _Frame(msgspec.Struct, gc=False):
    topic: Any = None
    data: list[_Trade] | None = None
    op: Any = None
    req_id: Any = None
    success: Any = None
    ret_msg: Any = None


class _Listed(msgspec.Struct, rename="camel"):
    exec_id: Any = None
    symbol: Any = None
    price: Any = None
    size: Any = None
    side: Any = None
    time: Any = None


class _Result(msgspec.Struct):
    trades: list[_Listed] | None = msgspec.field(default=None, name="list")


class _Answer(msgspec.Struct, rename="camel"):
    ret_code: Any = None
    result: _Result | None = None


_decoder: Final = msgspec.json.Decoder(_Frame)
_rest_decoder: Final = msgspec.json.Decoder(_Answer)


class Codec:
    """The language of Bybit, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._ids = count(1)
        self._asked: dict[str, tuple[Operation, tuple[str, ...]]] = {}
        self._held: dict[str, None] = {}  # subscribed
        self._is_marked = False  # and no trade since

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        return [self._request("subscribe", symbols)]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        return [self._request("unsubscribe", symbols)]

    def probe(self) -> Sequence[str]:
        """A ping. Bybit ends a connection that has neither data nor pings for ten minutes."""
        return ('{"op":"ping"}',)

    def missed(self, symbol: str) -> Missed | None:
        """A mark, always: the ids prove nothing."""
        return Missed(self._name, symbol, "source_gap", resubscribed=True)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        try:
            frame = decoded(message, _decoder)
        except Unusable as problem:
            # It may have had trades of any symbol. One mark is enough until a trade comes.
            into.problems.append((problem.reason, excerpt(message)))
            if not self._is_marked:
                into.items.extend(Missed(self._name, symbol, "source_gap") for symbol in self._held)
            self._is_marked = True
            return
        try:
            if frame.topic is None:
                self._understand(frame, into)
            else:
                self._receive(frame, message, into)
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _receive(self, frame: _Frame, message: str | bytes, into: Received[Item]) -> None:
        if not isinstance(frame.topic, str) or not frame.topic.startswith(_TOPIC):
            raise Unusable("unknown_topic")
        symbol = named_in(self._symbols, frame.topic.removeprefix(_TOPIC))
        self._is_marked = False
        for said in present(frame.data):
            try:
                if named_in(self._symbols, said.s) != symbol:
                    raise Unusable("unknown_symbol")
                into.items.append(_trade(self._name, symbol, self._decimals, said))
            except Unusable as problem:
                into.problems.append((problem.reason, excerpt(message)))
                into.items.append(Missed(self._name, symbol, "source_gap"))

    def _understand(self, frame: _Frame, into: Received[Item]) -> None:
        if frame.op in ("ping", "pong"):
            return
        if frame.op not in ("subscribe", "unsubscribe"):
            raise Unusable("unknown_message")
        operation, symbols = (
            self._asked.pop(frame.req_id, (None, ())) if _is_text(frame.req_id) else (None, ())
        )
        if operation is None:
            raise Unusable("unknown_answer" if frame.success is True else "rejected")
        is_held = len(symbols) == 1 and _is_text(frame.ret_msg) and frame.ret_msg.startswith(_ALREADY)
        if operation == "unsubscribe":
            if frame.success is not True:
                raise Unusable("rejected")
            for symbol in symbols:
                self._held.pop(symbol, None)
            into.unsubscribed(*symbols)
        elif frame.success is True or is_held:
            self._held.update(dict.fromkeys(symbols))
            into.subscribed(*symbols)
        else:
            into.refused(words_of(frame.ret_msg), *symbols)

    def _request(self, operation: Operation, symbols: Collection[str]) -> str:
        names = {self._settings.exchange_name(symbol): symbol for symbol in symbols}
        self._symbols.update(names)
        number = str(next(self._ids))
        self._asked[number] = (operation, tuple(symbols))
        request = {"req_id": number, "op": operation, "args": [_TOPIC + name for name in names]}
        return msgspec.json.encode(request).decode()


class Filler:
    """The language of Bybit's REST: the newest trades, and no older ones."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._decimals = PositiveDecimals()

    def fill(self, missing: Missing) -> Request | None:
        """All that Bybit gives. There is no other question."""
        return self._newest(missing.symbol, _NEWEST[_category(self._settings.url)])

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """The trades from the time of `after` to the time of `before`; these two are among them."""
        begin = missing.after.timestamp if missing.after else 0
        end = missing.before.timestamp if missing.before else None
        trades = self._read(answer, missing.symbol)
        return Page([t for t in trades if begin <= t.timestamp and (end is None or t.timestamp <= end)])

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """The newest trade of the first symbol: tickers tell of no trade."""
        return self._newest(symbols[0], 1)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """By its id and its time."""
        trades = self._read(answer, symbols[0])
        return {each.symbol: Newest.of(each) for each in trades[-1:]}

    def _newest(self, symbol: str, limit: int) -> Request:
        asked = {
            "category": _category(self._settings.url),
            "symbol": self._settings.exchange_name(symbol),
            "limit": limit,
        }
        return Request(f"/v5/market/recent-trade?{urlencode(asked)}")

    def _read(self, answer: bytes, symbol: str) -> list[Trade]:
        """The trades of an answer, oldest first: Bybit gives the newest first."""
        said = answered(answer, _rest_decoder)
        if (code := present(said.ret_code)) != 0:
            raise Unusable(RATE_LIMITED if code in _TOO_OFTEN else "refused")
        symbols = {self._settings.exchange_name(symbol): symbol}
        return [
            _trade(
                self._name,
                named_in(symbols, each.symbol),
                self._decimals,
                _Trade(T=each.time, S=each.side, v=each.size, p=each.price, i=each.exec_id),
            )
            for each in reversed(present(present(said.result).trades))
        ]


def _trade(source: str, symbol: str, decimals: PositiveDecimals, said: _Trade) -> Trade:
    if not (_is_text(present(said.i)) and _is_id(said.i)):
        raise Unusable("bad_trade_id")
    return Trade(
        source=source,
        symbol=symbol,
        trade_id=said.i,
        side=one_of(said.S, _SIDES, "bad_side"),
        price=decimals.read(said.p, "bad_price"),
        quantity=decimals.read(said.v, "bad_quantity"),
        timestamp=from_milliseconds(said.T),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _category(url: str) -> str:
    _, path = place(url) or ("", "")
    return path.rpartition("/")[2]


def _day(date: str) -> str:
    """251226 as Bybit writes it: 26DEC25. As it stands, if it is no date; Bybit then refuses it."""
    year, month, day = date[:2], int(date[2:4]), date[4:]
    return f"{day.removeprefix('0')}{_MONTHS[month - 1]}{year}" if 1 <= month <= 12 else date
