"""Gemini, the server's side: the channel `l2` of Market Data version 2, and the trades of its REST.

Rule 1: fields have the order, and numbers the notation, of the real exchange. The order book has one order on
each side, and never changes.
Rule 2: a subscription is answered with the order book and the last 50 trades, the newest first; an
unsubscription is not answered.
Rule 3: REST has the newest trades since a time, never the oldest ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from attrs import define, field

from ..definition import Definition
from ..dialect import Answer, Dialect, HandshakeRefused, Refuse, Rest, Tape
from ..feed import Feed
from ..market import Instrument, generated
from ..texts import compact, fields, integer, listing, names, quoted
from ..trade import Item, Trade

PORT = 5005
PATH = "/v2/marketdata"
SNAPSHOT = 50
PAGE = 500
MARKET = (
    Instrument("BTCUSD", Decimal("61837.63"), rate=2.0, first_id=2_840_140_800_042_677),
    Instrument(
        "ETHUSD", Decimal("2683.80"), lot=Decimal("0.000001"), rate=1.5, first_id=2_840_140_800_042_700
    ),
)
SYMBOLS = tuple(each.symbol for each in MARKET)
_LATEST_SECONDS: Final = 100_000_000_000  # a greater time is one of milliseconds


def told(trade: Trade, event: str = "event_id") -> str:
    """The message of one trade; in a snapshot its `event` has another name."""
    return (
        f'{{"type":"trade","symbol":{quoted(trade.symbol)},"{event}":{trade.id},'
        f'"timestamp":{trade.timestamp_us // 1000},"price":"{trade.price}","quantity":"{trade.qty}",'
        f'"side":"{trade.side}","tid":{trade.id}}}'
    )


def book(symbol: str, trades: Sequence[Trade]) -> str:
    """The answer to a subscription."""
    newest = ",".join(told(trade, "eventid") for trade in reversed(trades[-SNAPSHOT:]))
    changes = '[["buy","0.01","1"],["sell","1000000.00","1"]]'
    return (
        f'{{"type":"l2_updates","symbol":{quoted(symbol)},"changes":{changes},'
        f'"trades":[{newest}],"auction_events":[]}}'
    )


@define
class GeminiSession:
    """One connection: its symbols."""

    known: frozenset[str]
    refuse: Refuse
    _subscribed: dict[str, None] = field(factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades are subscribed."""
        return frozenset(self._subscribed)

    def receive(self, message: str | bytes) -> list[str]:
        """Obey ``subscribe`` and ``unsubscribe`` without an answer; refuse anything else."""
        call = fields(message)
        if call is None:
            return [_refused("InvalidJson", "The message is no JSON object")]
        symbols = _symbols(call.get("subscriptions"))
        if call.get("type") not in ("subscribe", "unsubscribe") or symbols is None:
            return [_refused("InvalidMessage", "The message is not understood")]
        if call["type"] == "unsubscribe":
            for symbol in symbols:
                self._subscribed.pop(symbol, None)
            return []
        for symbol in symbols:
            if symbol not in self.known or self.refuse(symbol):
                return [_refused("InvalidSymbol", f"{symbol} is not a symbol")]
        self._subscribed.update(dict.fromkeys(symbols))
        return []

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed symbol."""
        return isinstance(item, Trade) and item.symbol in self._subscribed

    def encode(self, item: Item) -> list[str]:
        """The message of a trade of a subscribed symbol."""
        return [told(item)] if isinstance(item, Trade) and item.symbol in self._subscribed else []

    def beat(self, now_us: int) -> list[str]:
        """A heartbeat."""
        return [f'{{"type":"heartbeat","timestamp":{now_us // 1000}}}']

    def skip(self) -> None:
        """Always raises ValueError: messages have no numbers."""
        raise ValueError("this version of Gemini's market data numbers no messages: drop a trade instead")


def _symbols(subscriptions: Any) -> list[str] | None:
    """The symbols of the channel `l2`; None for what is no such list."""
    if not isinstance(subscriptions, list) or not subscriptions:
        return None
    found = []
    for each in subscriptions:
        some = names(each.get("symbols")) if isinstance(each, dict) and each.get("name") == "l2" else None
        if some is None:
            return None
        found += some
    return found


def _refused(reason: str, words: str) -> str:
    return compact({"result": "error", "reason": reason, "message": words})


def row(trade: Trade) -> str:
    """A trade as REST tells it."""
    return (
        f'{{"timestamp":{trade.timestamp_us // 1_000_000},"timestampms":{trade.timestamp_us // 1000},'
        f'"tid":{trade.id},"price":"{trade.price}","amount":"{trade.qty}","exchange":"gemini",'
        f'"type":"{trade.side}"}}'
    )


def gemini_rest(symbols: Iterable[str]) -> Rest:
    """Answers to `/v1/trades/SYMBOL`, as api.gemini.com gives them, for these symbols."""
    known = {symbol.lower(): symbol for symbol in symbols}

    def answer(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
        parts = path.split("/")
        if len(parts) != 4 or parts[1:3] != ["v1", "trades"] or parts[3].lower() not in known:
            return Answer(400, _refused("InvalidSymbol", "The symbol is not known").encode())
        limit = min(integer(query, "limit_trades", 50) or 50, PAGE)
        since, behind = integer(query, "timestamp", 0) or 0, integer(query, "since_tid")
        since_ms = since if since >= _LATEST_SECONDS else since * 1000
        found = [
            trade
            for trade in tape(known[parts[3].lower()])
            if (trade.timestamp_us // 1000 > since_ms if behind is None else trade.id > behind)
        ]
        return listing(row(trade) for trade in reversed(found[-limit:]))

    return answer


def gemini_dialect(
    *, symbols: Iterable[str] = SYMBOLS, heartbeat: float | None = 5.0, ping: float | None = 20.0
) -> Dialect:
    """Gemini's dialect. `symbols` are those that it knows; `Dialect` explains the durations (seconds)."""
    known = frozenset(symbols)
    return Dialect(
        "gemini",
        PATH,
        _opener(known),
        heartbeat=heartbeat,
        ping=ping,
        snapshot=lambda session, symbol, trades: [book(symbol, trades)],
        rest=gemini_rest(known),
        weight_a_minute=120,
    )


def _opener(known: frozenset[str]) -> Callable[[str, dict[str, str], Refuse], GeminiSession]:
    def open_session(path: str, headers: dict[str, str], refuse: Refuse) -> GeminiSession:
        if path.partition("?")[0].rstrip("/") != PATH:
            raise HandshakeRefused(404, f"no such path: the market data are at {PATH}")
        return GeminiSession(known, refuse)

    return open_session


def gemini_feed() -> Feed:
    """A generated market, whose ids have holes as those of the real exchange."""
    return generated(MARKET, ids="gappy")


DEFINITION = Definition(
    title="Gemini",
    port=PORT,
    dialect=lambda symbols: gemini_dialect(symbols={*SYMBOLS, *symbols}),
    feed=gemini_feed,
    symbol=lambda symbol: symbol.replace("-", ""),
)
