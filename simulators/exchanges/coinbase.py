"""Coinbase Exchange, the server's side: the channels `matches` and `heartbeat`, and the trades of its REST.

Rule 1: fields have the order, and numbers the notation, of the real exchange. Orders are not simulated:
their ids follow from the id of the trade, which stands for the number of the message (`sequence`) too.
Rule 2: an unknown product refuses the whole request, as on the real exchange. The refusal names no request.
Rule 3: each answer lists all that is subscribed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from attrs import define, field, frozen

from ..definition import Definition
from ..dialect import Answer, Dialect, Refuse, Rest, Tape
from ..feed import Feed
from ..market import Instrument, generated
from ..texts import compact, fields, integer, listing, names, quoted, rfc3339
from ..trade import Item, Trade

PORT = 5002
CHANNELS = ("matches", "heartbeat")
MAKER = {"buy": "sell", "sell": "buy"}
MARKET = (
    Instrument("BTC-USD", Decimal("61837.63"), rate=8.0, first_id=695_000_001),
    Instrument("ETH-USD", Decimal("2683.80"), lot=Decimal("0.00000001"), rate=5.0, first_id=560_000_001),
)
SYMBOLS = tuple(each.symbol for each in MARKET)


def match(trade: Trade, kind: str = "match") -> str:
    """The message of one trade."""
    return (
        f'{{"type":"{kind}","trade_id":{trade.id},"maker_order_id":"{_order(trade, "a")}",'
        f'"taker_order_id":"{_order(trade, "b")}","side":"{MAKER[trade.side]}","size":"{trade.qty}",'
        f'"price":"{trade.price}","product_id":{quoted(trade.symbol)},"sequence":{trade.id},'
        f'"time":"{rfc3339(trade.timestamp_us)}"}}'
    )


def _order(trade: Trade, side: str) -> str:
    return f"00000000-0000-4000-{side}000-{trade.id:012x}"


@frozen
class _Refused(Exception):
    reason: str


@define
class CoinbaseSession:
    """One connection: the products of each channel."""

    known: frozenset[str]
    refuse: Refuse
    _products: dict[str, dict[str, None]] = field(factory=lambda: {channel: {} for channel in CHANNELS})
    _newest: dict[str, int] = field(factory=dict)  # product: id of the newest trade that was sent

    @property
    def symbols(self) -> frozenset[str]:
        """The products whose matches are subscribed."""
        return frozenset(self._products["matches"])

    def receive(self, message: str | bytes) -> list[str]:
        """Obey ``subscribe`` and ``unsubscribe``, and answer with all that is subscribed."""
        call = fields(message)
        if call is None:
            return [_error("Malformed JSON", None)]
        what = call.get("type")
        if what not in ("subscribe", "unsubscribe"):
            return [_error("Unrecognized message type", None)]
        try:
            self._obey(what, _channels(call))
        except _Refused as refused:
            return [_error(f"Failed to {what}", refused.reason)]
        listed = [{"name": name, "product_ids": list(some)} for name, some in self._products.items() if some]
        return [compact({"type": "subscriptions", "channels": listed})]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed product."""
        return isinstance(item, Trade) and item.symbol in self._products["matches"]

    def encode(self, item: Item) -> list[str]:
        """``match`` for a trade of a subscribed product."""
        if not isinstance(item, Trade) or item.symbol not in self._products["matches"]:
            return []
        self._newest[item.symbol] = item.id
        return [match(item)]

    def last_match(self, trades: Sequence[Trade]) -> list[str]:
        """The newest trade from before a subscription."""
        return [match(trade, "last_match") for trade in trades[-1:]]

    def beat(self, now_us: int) -> list[str]:
        """The heartbeat of each product that is subscribed there."""
        return [self._heartbeat(product, now_us) for product in self._products["heartbeat"]]

    def skip(self) -> None:
        """Always raises ValueError: `sequence` is not simulated."""
        raise ValueError("the messages of matches have no numbers of their own; drop a trade to make a hole")

    def _heartbeat(self, product: str, now_us: int) -> str:
        newest = self._newest.get(product, 0)
        return (
            f'{{"type":"heartbeat","last_trade_id":{newest},"product_id":{quoted(product)},'
            f'"sequence":{newest},"time":"{rfc3339(now_us)}"}}'
        )

    def _obey(self, what: str, channels: dict[str, list[str]]) -> None:
        for channel, products in channels.items():
            if channel not in self._products:
                raise _Refused(f"{channel} is not a valid channel")
            if what == "subscribe":
                self._check(channel, products)
        for channel, products in channels.items():
            if what == "subscribe":
                self._products[channel].update(dict.fromkeys(products))
            else:
                for product in products or list(self._products[channel]):
                    self._products[channel].pop(product, None)

    def _check(self, channel: str, products: list[str]) -> None:
        for product in products:
            if product not in self.known or (channel == "matches" and self.refuse(product)):
                raise _Refused(f"{product} is not a valid product")


def _channels(call: dict[str, Any]) -> dict[str, list[str]]:
    """The products of each channel that a request names. Raises _Refused."""
    common, channels = names(call.get("product_ids", [])), call.get("channels")
    if common is None or not isinstance(channels, list) or not channels:
        raise _Refused("channels and product_ids must be lists")
    found: dict[str, list[str]] = {}
    for channel in channels:
        name = channel.get("name") if isinstance(channel, dict) else channel
        own = names(channel.get("product_ids", [])) if isinstance(channel, dict) else []
        if not isinstance(name, str) or own is None:
            raise _Refused("a channel must have a name, and a list of products")
        found[name] = [*common, *own]
    return found


def _error(message: str, reason: str | None) -> str:
    return compact({"type": "error", "message": message} | ({} if reason is None else {"reason": reason}))


def row(trade: Trade) -> str:
    """A trade as REST tells it."""
    return (
        f'{{"trade_id":{trade.id},"side":"{MAKER[trade.side]}","size":"{trade.qty}","price":"{trade.price}",'
        f'"time":"{rfc3339(trade.timestamp_us)}"}}'
    )


def coinbase_rest(known: frozenset[str]) -> Rest:
    """Answers to `/products/PRODUCT/trades`, as api.exchange.coinbase.com gives them, for these products."""

    def answer(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
        parts = path.split("/")
        if len(parts) != 4 or (parts[1], parts[3]) != ("products", "trades") or parts[2] not in known:
            return Answer(404, b'{"message":"NotFound"}')
        limit = integer(query, "limit", 1000) or 0
        if not 1 <= limit <= 1000:
            return Answer(400, b'{"message":"limit is out of range"}')
        older, newer = integer(query, "after"), integer(query, "before")
        found = [
            trade
            for trade in reversed(tape(parts[2]))
            if (older is None or trade.id < older) and (newer is None or trade.id > newer)
        ][:limit]
        cursors = (("CB-BEFORE", str(found[0].id)), ("CB-AFTER", str(found[-1].id))) if found else ()
        return listing(map(row, found), cursors)

    return answer


def coinbase_dialect(
    *, symbols: Iterable[str] = SYMBOLS, heartbeat: float | None = 1.0, ping: float | None = 20.0
) -> Dialect:
    """Coinbase's dialect. `symbols` are the products that it knows; `Dialect` explains the durations (s)."""
    known = frozenset(symbols)
    return Dialect(
        "coinbase",
        "/",
        _opener(known),
        heartbeat=heartbeat,
        ping=ping,
        frames_per_second=100,
        snapshot=lambda session, symbol, trades: session.last_match(trades),
        rest=coinbase_rest(known),
        weight_a_minute=600,
    )


def _opener(known: frozenset[str]) -> Callable[[str, dict[str, str], Refuse], CoinbaseSession]:
    return lambda path, headers, refuse: CoinbaseSession(known, refuse)


def coinbase_feed() -> Feed:
    """A generated market."""
    return generated(MARKET)


DEFINITION = Definition(
    title="Coinbase Exchange",
    port=PORT,
    dialect=lambda symbols: coinbase_dialect(symbols={*SYMBOLS, *symbols}),
    feed=coinbase_feed,
    symbol=lambda symbol: symbol if "-" in symbol else None,
)
