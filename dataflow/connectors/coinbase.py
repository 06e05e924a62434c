"""Coinbase Exchange, channel `matches`: `wss://ws-feed.exchange.coinbase.com`.

Rules of this file. The trade ids of a product grow by one, so they are the sequence. The exchange says of
this channel that messages can be dropped from it, and that the id tells which: a skipped one is a loss, and
the REST history fills it. `sequence` counts all messages of a product, those of other channels too, so it
proves nothing about trades. `side` is that of the maker; a Trade has the other one, the taker's.

A subscription begins with `last_match`, the newest trade from before. It is a trade like any other: with it
a loss shows at once, and not only with the next trade.

A connection without a subscription is closed after 5 seconds, and a quiet product sends nothing. So each
connection begins with the heartbeat of one product, which comes every second.

Each answer lists all that is subscribed now; the difference from the list before it tells what is new. A
refusal names no request. It is reported as one of everything that has no answer yet; the connector then asks
for smaller parts, until a refusal concerns one product.

Messages of the other channels are known by their type, and left out.

Problems: not_text, malformed_json, unexpected_json, missing_field, unknown_type, unknown_symbol, rejected,
bad_trade_id, bad_side, bad_price, bad_quantity, bad_timestamp. Of an answer by REST also: outside_question.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.sources.fields import PositiveDecimals, from_text, named_in, one_of, whole
from dataflow.sources.port import Newest, Page, Proof, Request, SourceSettings, rest_at
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

CHANNEL: Final = "matches"
PULSE: Final = "BTC-USD"  # whose heartbeat is asked for: the product that the exchange will have longest
PAGE: Final = 1000  # trades of one answer at most

_TAKER: Final[Mapping[str, Side]] = {"buy": "sell", "sell": "buy"}
_OTHER_TYPES: Final = frozenset(
    {
        *("heartbeat", "status", "ticker", "snapshot", "l2update", "auction", "rfq_match", "balance"),
        *("received", "open", "done", "change", "activate", "level3"),
    }
)
_before: Final = re.compile(
    r"[?&]after=([0-9]+)"
).search  # of the path of a request: "after" is what is older


@frozen(kw_only=True)
class Settings(SourceSettings):
    """The keys that every source has."""

    # One unknown product refuses the whole request, and smaller parts are asked for until it is found.
    symbols_a_request: ClassVar[int] = 50
    # "Requests per second per IP: 8", which means new connections.
    connections_in: ClassVar[tuple[int, float]] = (8, 1.0)

    # "Messages sent by the client every second per IP: 100", for as many connections as a source may have.
    requests_per_second: int = field(default=25, validator=validators.ge(0))
    refill_url: str = rest_at("https://api.exchange.coinbase.com")
    # Ten requests a second and address, each the same.
    refill_weight: int = field(default=600, validator=validators.gt(0))

    @property
    def numbered(self) -> Proof:
        return Proof.NUMBERS


class _Message(msgspec.Struct, gc=False):
    type: Any = None
    product_id: Any = None
    trade_id: Any = None
    side: Any = None
    size: Any = None
    price: Any = None
    time: Any = None


class _Channel(msgspec.Struct, gc=False):
    name: str
    product_ids: list[str] | None = None


class _Subscriptions(msgspec.Struct, gc=False):
    channels: list[_Channel]


class _Error(msgspec.Struct, gc=False):
    message: Any = None
    reason: Any = None


_decoder: Final = msgspec.json.Decoder(_Message)
_subscriptions: Final = msgspec.json.Decoder(_Subscriptions)
_errors: Final = msgspec.json.Decoder(_Error)
_rows: Final = msgspec.json.Decoder(list[_Message])


class Codec:
    """The language of Coinbase, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name
        self._symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._asked: dict[str, None] = {}  # symbols without an answer yet, the oldest first
        self._subscribed: frozenset[str] = frozenset()  # products
        self._awaits_pulse = True

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """A heartbeat every second: without a subscription the exchange hangs up."""
        return [_request("subscribe", "heartbeat", [PULSE])]

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        self._symbols.update((self._exchange_name(symbol), symbol) for symbol in symbols)
        self._asked.update(dict.fromkeys(symbols))
        return [_request("subscribe", CHANNEL, self._names(symbols))]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        return [_request("unsubscribe", CHANNEL, self._names(symbols))]

    def probe(self) -> Sequence[str]:
        """The heartbeat once more: a request that is always answered."""
        return self.opening()

    def missed(self, symbol: str) -> Missed | None:
        """None: the sequence shows missing trades."""
        return None

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        try:
            said = decoded(message, _decoder)
            if said.type in ("match", "last_match"):
                symbol = named_in(self._symbols, said.product_id)
                into.items.append(_trade(self._name, symbol, said, self._decimals))
            elif said.type == "subscriptions":
                self._compare(decoded(message, _subscriptions).channels, into)
            elif said.type == "error":
                error = decoded(message, _errors)
                self._refused(words_of(error.message, error.reason), into)
            elif not (isinstance(said.type, str) and said.type in _OTHER_TYPES):
                raise Unusable("missing_field" if said.type is None else "unknown_type")
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _compare(self, channels: Iterable[_Channel], into: Received[Item]) -> None:
        """What is subscribed now, against what was before."""
        listed = {channel.name: frozenset(channel.product_ids or ()) for channel in channels}
        if "heartbeat" in listed:
            self._awaits_pulse = False
        now, before = listed.get(CHANNEL, frozenset()), self._subscribed
        self._subscribed = now
        new, gone = (
            [self._symbols.get(name) for name in sorted(some)] for some in (now - before, before - now)
        )
        for symbol in filter(None, new):
            self._asked.pop(symbol, None)
            into.subscribed(symbol)
        into.unsubscribed(*filter(None, gone))
        if None in new:
            raise Unusable("unknown_symbol")

    def _refused(self, words: str, into: Received[Item]) -> None:
        if self._awaits_pulse:  # it was asked for first, so it is refused first
            self._awaits_pulse = False
        elif self._asked:
            into.refused(words, *self._asked)
            self._asked.clear()
            return
        raise Unusable("rejected")

    def _names(self, symbols: Iterable[str]) -> list[str]:
        return [self._exchange_name(symbol) for symbol in symbols]


def _request(what: str, channel: str, products: list[str]) -> str:
    return msgspec.json.encode({"type": what, "product_ids": products, "channels": [channel]}).decode()


def _trade(source: str, symbol: str, said: _Message, decimals: PositiveDecimals) -> Trade:
    number = whole(said.trade_id, "bad_trade_id")
    return Trade(
        source=source,
        symbol=symbol,
        trade_id=str(number),
        side=one_of(said.side, _TAKER, "bad_side"),
        price=decimals.read(said.price, "bad_price"),
        quantity=decimals.read(said.size, "bad_quantity"),
        timestamp=from_text(said.time),
        sequence=number,
    )


class Filler:
    """The questions to `/products/PRODUCT/trades`, which has all trades. An answer is 1,000 of them at most.

    It begins with the newest one below a given id, so a range of ids is asked for exactly: the missing ones
    and the two around them, which show whether the answer is about the same trades. Only if the range has no
    end the newest ones are asked for, and what is older than it is left out.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name

    def fill(self, missing: Missing) -> Request | None:
        """The newest missing trades. Older ones follow."""
        first, last = _range(missing)
        if last is None:
            return self._request(missing.symbol, None, PAGE)
        return self._request(missing.symbol, last + 1, PAGE if first is None else last + 1 - first)

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """The trades of an answer, and the request for those below them."""
        trades = self._read(missing.symbol, answer)
        found = _before(request.path)
        below = int(found[1]) if found else None
        if below is not None and any(_number(trade) >= below for trade in trades):
            raise Unusable("outside_question")
        first, _ = _range(missing)
        following = None
        if trades and first is not None and (oldest := min(map(_number, trades))) > first:
            following = self._request(missing.symbol, oldest, oldest - first)
        if below is None and first is not None:
            trades = [trade for trade in trades if _number(trade) >= first]
        return Page(trades, following)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """One product a question."""
        return self._request(symbols[0], None, 1)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """The newest trade of the first symbol."""
        trades = self._read(symbols[0], answer)
        return {each.symbol: Newest.of(each) for each in trades[-1:]}

    def _request(self, symbol: str, below: int | None, count: int) -> Request:
        after = "" if below is None else f"&after={below}"
        product = quote(self._exchange_name(symbol), safe="")
        return Request(f"/products/{product}/trades?limit={max(1, min(count, PAGE))}{after}")

    def _read(self, symbol: str, answer: bytes) -> list[Trade]:
        decimals = PositiveDecimals()
        rows = answered(answer, _rows)
        return [_trade(self._name, symbol, row, decimals) for row in reversed(rows)]


def _range(missing: Missing) -> tuple[int | None, int | None]:
    """The ids to ask for: of the missing trades, and of the one on each side."""
    first = None if missing.first is None else missing.first - 1
    if missing.last is None and missing.before is not None:
        return first, missing.before.sequence
    return first, None if missing.last is None else missing.last + 1


def _number(trade: Trade) -> int:
    assert trade.sequence is not None
    return trade.sequence
