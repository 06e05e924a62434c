"""The WebSocket protocol of the Blockchain.com exchange, the server's side.

Rule 1: `seqnum` counts all messages of one connection, from 0.
Rule 2: fields have the order, numbers the notation, and rejections the words of the real exchange.
Rule 3: the channels are `heartbeat` and `trades`. Others (l2, l3, ticker, prices, symbols, ...) are rejected,
not imitated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from attrs import define, field, frozen

from ..definition import Definition
from ..dialect import Dialect, HandshakeRefused, Refuse
from ..feed import Feed, merge, recorded, relabel
from ..recordings import shipped
from ..texts import quoted
from ..trade import Item, Trade

ORIGIN = "https://exchange.blockchain.com"
PATH = "/mercury-gateway/v1/ws"
PORT = 5000
SYMBOLS = ("BTC-USD", "ETH-USD", "BTC-USDT", "ETH-USDT", "ETH-BTC", "LTC-USD", "BCH-USD", "XLM-USD")
NAMES = {"BTCUSDT": "BTC-USD", "ETHUSDT": "ETH-USD"}  # names for the recorded trades of Binance


def number(text: str) -> str:
    """Write a plain decimal as the exchange (Java) does: 0.0005892 is ``5.892E-4``, 200 is ``200.0``."""
    _, digits, exponent = Decimal(text).normalize().as_tuple()
    assert isinstance(exponent, int)
    first = len(digits) - 1 + exponent
    if digits == (0,):
        return "0.0"
    if -3 <= first < 7:
        plain = f"{Decimal(text).normalize():f}"
        return plain if "." in plain else f"{plain}.0"
    mantissa = "".join(map(str, digits))
    return f"{mantissa[0]}.{mantissa[1:] or '0'}E{first}"


def timestamp(us: int) -> str:
    """Microseconds since the epoch as ``2020-05-10T18:33:36.696315Z``."""
    seconds, micros = divmod(us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def updated(seqnum: int, trade: Trade) -> str:
    """The message of one trade."""
    return (
        f'{{"seqnum":{seqnum},"event":"updated","channel":"trades","symbol":{quoted(trade.symbol)},'
        f'"timestamp":"{timestamp(trade.timestamp_us)}","side":"{trade.side}","qty":{number(trade.qty)},'
        f'"price":{number(trade.price)},"trade_id":"{trade.id}"}}'
    )


@frozen
class _Reject(Exception):
    """A request is rejected; the fields are those of the answer."""

    fields: dict[str, str]


@define
class BlockchainSession:
    """One connection: its subscriptions, and the number of its next message."""

    known: frozenset[str]
    refuse: Refuse
    seqnum: int = 0
    heartbeat: bool = False
    _trades: set[str] = field(factory=set)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades are subscribed."""
        return frozenset(self._trades)

    def receive(self, message: str | bytes) -> list[str]:
        """Obey one request; the answer is ``subscribed``, ``unsubscribed``, or ``rejected`` with a reason."""
        try:
            event, fields = self._obey(_request(message))
        except _Reject as refusal:
            event, fields = "rejected", refusal.fields
        return [self._say(event=event, **fields)]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed symbol."""
        return isinstance(item, Trade) and item.symbol in self._trades

    def encode(self, item: Item) -> list[str]:
        """``updated`` for a trade of a subscribed symbol."""
        if not isinstance(item, Trade) or item.symbol not in self._trades:
            return []
        return [updated(self._next(), item)]

    def beat(self, now_us: int) -> list[str]:
        """The heartbeat, when it is subscribed."""
        if not self.heartbeat:
            return []
        return [self._say(event="updated", channel="heartbeat", timestamp=timestamp(now_us))]

    def skip(self) -> None:
        """Skip one `seqnum`."""
        self._next()

    def _next(self) -> int:
        self.seqnum += 1
        return self.seqnum - 1

    def _say(self, **fields: str) -> str:
        return json.dumps({"seqnum": self._next(), **fields}, separators=(",", ":"))

    def _obey(self, request: dict[str, Any]) -> tuple[str, dict[str, str]]:
        action, channel = request.get("action"), request.get("channel")
        named = {"channel": channel if isinstance(channel, str) else ""}
        if action is None:
            raise _Reject({**named, "text": "Missing action"})
        if action not in ("subscribe", "unsubscribe"):
            raise _Reject({**named, "text": "Invalid action"})
        if channel == "heartbeat":
            return self._switch_heartbeat(action, named)
        if channel == "trades":
            return self._switch_trades(action, request.get("symbol"), named)
        raise _Reject({**named, "text": "Invalid channel"})

    def _switch_heartbeat(self, action: str, named: dict[str, str]) -> tuple[str, dict[str, str]]:
        _reject_repetition(action, self.heartbeat, named)
        self.heartbeat = action == "subscribe"
        return f"{action}d", named

    def _switch_trades(
        self, action: str, symbol: object, named: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        if not isinstance(symbol, str):
            raise _Reject({**named, "text": "missing symbol field"})
        if symbol not in self.known or self.refuse(symbol):
            raise _Reject({**named, "symbol": symbol, "text": "invalid symbol identifier"})
        named = {**named, "symbol": symbol}
        _reject_repetition(action, symbol in self._trades, named)
        (self._trades.add if action == "subscribe" else self._trades.discard)(symbol)
        return f"{action}d", named


def _request(message: str | bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError):
        request = None
    if not isinstance(request, dict):
        raise _Reject({"channel": "", "text": "Invalid json received"})
    return request


def _reject_repetition(action: str, already: bool, named: dict[str, str]) -> None:
    if action == "subscribe" and already:
        raise _Reject({**named, "text": "Already subscribed"})
    if action == "unsubscribe" and not already:
        raise _Reject({**named, "text": "Not subscribed"})


def blockchain_dialect(
    *,
    symbols: Iterable[str] = SYMBOLS,
    require_origin: bool = True,
    heartbeat: float | None = 5.0,
    ping: float | None = 20.0,
    lifetime: float | None = None,
) -> Dialect:
    """Blockchain.com's dialect. `symbols` are those that it knows; others are rejected.

    `require_origin` rejects clients without the right header `Origin`, as the real exchange does. `Dialect`
    explains the durations (seconds).
    """
    known = frozenset(symbols)
    opener = _opener(known, require_origin)
    return Dialect(
        "blockchain", PATH, opener, sequenced=True, heartbeat=heartbeat, ping=ping, lifetime=lifetime
    )


def _opener(
    known: frozenset[str], require_origin: bool
) -> Callable[[str, dict[str, str], Refuse], BlockchainSession]:
    def open_session(path: str, headers: dict[str, str], refuse: Refuse) -> BlockchainSession:
        if not path.partition("?")[0].endswith("/ws"):
            raise HandshakeRefused(404, f"no such path: the exchange is at {PATH}")
        if require_origin and headers.get("origin") != ORIGIN:
            raise HandshakeRefused(400, f"the header 'Origin: {ORIGIN}' is required")
        return BlockchainSession(known, refuse)

    return open_session


def blockchain_feed() -> Feed:
    """Five minutes of Binance's BTCUSDT and ETHUSDT as BTC-USD and ETH-USD; looped and moved to now."""
    ticks = (shipped(f"binance_{symbol}_trades_20240809.csv.gz").ticks for symbol in ("btcusdt", "ethusdt"))
    return recorded(relabel(merge(*ticks), NAMES), loop=True, rebase=True)


DEFINITION = Definition(
    title="Blockchain.com exchange",
    port=PORT,
    dialect=lambda symbols: blockchain_dialect(symbols={*SYMBOLS, *symbols}),
    feed=blockchain_feed,
    symbol=lambda symbol: symbol if "-" in symbol else NAMES.get(symbol),
)
