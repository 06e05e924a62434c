"""Bitstamp, the server's side: the channels `live_trades_PAIR`, and the transactions of its REST.

Rule 1: fields have the order, and numbers the notation, of the real exchange. Its orders are not simulated:
their ids follow from the id of the trade.
Rule 2: an unknown channel is refused, by its name.
Rule 3: REST tells times in whole seconds. The last minute, hour or day ends with the newest trade of the
pair, because a dialect has no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from attrs import define, field

from ..definition import Definition
from ..dialect import Answer, Dialect, Refuse, Rest, Tape
from ..feed import Feed
from ..market import Instrument, generated
from ..texts import compact, fields, listing, quoted
from ..trade import Item, Trade

PORT = 5004
CHANNEL = "live_trades_"
MARKET = (
    Instrument("btcusd", Decimal(61837), increment=Decimal(1), rate=2.0, first_id=216_000_001),
    Instrument("ethusd", Decimal("2683.8"), increment=Decimal("0.1"), rate=1.5, first_id=216_000_020),
)
SYMBOLS = tuple(each.symbol for each in MARKET)
_TYPES: Final = {"buy": 0, "sell": 1}
_SPANS: Final = {"minute": 60, "hour": 3600, "day": 86_400}  # seconds


def number(text: str) -> str:
    """A plain decimal as a number of JSON: without zeros in the end."""
    return f"{Decimal(text).normalize():f}"


def amount(text: str) -> str:
    """A plain decimal with at least eight decimals; more are kept."""
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<8}"


def told(trade: Trade) -> str:
    """The message of one trade."""
    return (
        f'{{"data":{{"id":{trade.id},"timestamp":"{trade.timestamp_us // 1_000_000}",'
        f'"amount":{number(trade.qty)},"amount_str":"{amount(trade.qty)}",'
        f'"price":{number(trade.price)},"price_str":"{trade.price}","type":{_TYPES[trade.side]},'
        f'"microtimestamp":"{trade.timestamp_us}","buy_order_id":{1_400_000_000_000_000 + 2 * trade.id},'
        f'"sell_order_id":{1_400_000_000_000_001 + 2 * trade.id}}},'
        f'"channel":{quoted(CHANNEL + trade.symbol)},"event":"trade"}}'
    )


def farewell(now_us: int) -> str:
    """The message that asks a client to connect again, because the server will go away."""
    return '{"event":"bts:request_reconnect","channel":"","data":""}'


@define
class BitstampSession:
    """One connection: its pairs."""

    known: frozenset[str]
    refuse: Refuse
    _pairs: dict[str, None] = field(factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        """The pairs whose trades are subscribed."""
        return frozenset(self._pairs)

    def receive(self, message: str | bytes) -> list[str]:
        """Obey ``bts:subscribe``, ``bts:unsubscribe`` and ``bts:heartbeat``; refuse anything else."""
        call = fields(message)
        event = None if call is None else call.get("event")
        if call is None or event not in ("bts:subscribe", "bts:unsubscribe", "bts:heartbeat"):
            return [_refused("", "Incorrect JSON format.")]
        if event == "bts:heartbeat":
            return ['{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}']
        data = call.get("data")
        channel = data.get("channel") if isinstance(data, dict) else None
        if not isinstance(channel, str):
            return [_refused("", "Bad subscription string.")]
        return [self._obey(event, channel)]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed pair."""
        return isinstance(item, Trade) and item.symbol in self._pairs

    def encode(self, item: Item) -> list[str]:
        """The message of a trade of a subscribed pair."""
        return [told(item)] if isinstance(item, Trade) and item.symbol in self._pairs else []

    def beat(self, now_us: int) -> list[str]:
        """Nothing: a heartbeat comes only when it is asked for."""
        return []

    def skip(self) -> None:
        """Always raises ValueError: messages have no numbers."""
        raise ValueError("Bitstamp numbers no messages: drop a trade instead")

    def _obey(self, event: str, channel: str) -> str:
        pair = channel.removeprefix(CHANNEL)
        if not channel.startswith(CHANNEL) or pair not in self.known:
            return _refused(channel, "Bad subscription string.")
        if event == "bts:unsubscribe":
            self._pairs.pop(pair, None)
            return compact({"event": "bts:unsubscription_succeeded", "channel": channel, "data": {}})
        if self.refuse(pair):
            return _refused(channel, "Bad subscription string.")
        self._pairs[pair] = None
        return compact({"event": "bts:subscription_succeeded", "channel": channel, "data": {}})


def _refused(channel: str, words: str) -> str:
    data: dict[str, Any] = {"code": None, "message": words}
    return compact({"event": "bts:error", "channel": channel, "data": data})


def row(trade: Trade) -> str:
    """A trade as REST tells it."""
    return (
        f'{{"amount":"{amount(trade.qty)}","date":"{trade.timestamp_us // 1_000_000}",'
        f'"price":"{trade.price}","tid":"{trade.id}","type":"{_TYPES[trade.side]}"}}'
    )


def bitstamp_rest(known: frozenset[str]) -> Rest:
    """Answers to `/api/v2/transactions/PAIR/`, as www.bitstamp.net gives them, for these pairs."""

    def answer(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
        parts = path.strip("/").split("/")
        if len(parts) != 4 or parts[:3] != ["api", "v2", "transactions"] or parts[3] not in known:
            return Answer(404, b'{"code":"404.002","reason":"Market not found."}')
        span = _SPANS.get(query.get("time", "hour"))
        if span is None:
            return Answer(400, b'{"code":"400.002","reason":"Invalid time."}')
        trades = tape(parts[3])
        since = trades[-1].timestamp_us - span * 1_000_000 if trades else 0
        return listing(row(trade) for trade in reversed(trades) if trade.timestamp_us >= since)

    return answer


def bitstamp_dialect(*, symbols: Iterable[str] = SYMBOLS, ping: float | None = 20.0) -> Dialect:
    """Bitstamp's dialect. `symbols` are the pairs that it knows; `Dialect` explains `ping` (seconds)."""
    known = frozenset(symbols)
    return Dialect(
        "bitstamp",
        "/",
        _opener(known),
        ping=ping,
        frames_per_second=400,
        farewell=farewell,
        rest=bitstamp_rest(known),
        weight_a_minute=1000,
    )


def _opener(known: frozenset[str]) -> Callable[[str, dict[str, str], Refuse], BitstampSession]:
    return lambda path, headers, refuse: BitstampSession(known, refuse)


def bitstamp_feed() -> Feed:
    """A generated market, whose ids have holes as those of the real exchange."""
    return generated(MARKET, ids="gappy")


DEFINITION = Definition(
    title="Bitstamp",
    port=PORT,
    dialect=lambda symbols: bitstamp_dialect(symbols={*SYMBOLS, *symbols}),
    feed=bitstamp_feed,
    symbol=lambda symbol: symbol.replace("-", "").lower(),
)
