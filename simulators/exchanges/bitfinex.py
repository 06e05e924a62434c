"""Bitfinex, the server's side: the channel `trades` with its snapshot, and the history of trades by REST.

Rule 1: fields have the order, and numbers the notation, of the real exchange (JavaScript).
Rule 2: once it was asked for, every message of a channel has a number, and a snapshot and a heartbeat too.
Rule 3: a trade is told twice, as executed (`te`) and as stored (`tu`).
Rule 4: the greeting of a connection comes before the answer to its first request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field

from ..definition import Definition
from ..dialect import Answer, Dialect, HandshakeRefused, Refuse, Rest, Tape
from ..feed import Feed
from ..market import Instrument, generated
from ..texts import compact, fields, integer
from ..trade import Item, Trade

PATH = "/ws/2"
PORT = 5012
SEQ_ALL = 65536
MOST_CHANNELS = 25
SNAPSHOT = 30  # trades
PAGE = 10_000  # trades of an answer by REST
WEIGHT_A_MINUTE = 15
MARKET = (
    Instrument("tBTCUSD", Decimal("61837"), increment=Decimal(1), rate=4.0, first_id=401_597_393),
    Instrument("tETHUST", Decimal("2683.8"), increment=Decimal("0.1"), rate=3.0, first_id=401_597_394),
)
SYMBOLS = tuple(each.symbol for each in MARKET)
FAREWELL = '{"event":"info","code":20051,"msg":"Stopping. Please try to reconnect"}'
_GREETING = {"event": "info", "version": 2, "serverId": "5d3a2a4a", "platform": {"status": 1}}


def number(text: str) -> str:
    """Write a plain decimal as JavaScript does: 10.50 is ``10.5``, 0.00000025 is ``2.5e-7``."""
    value = Decimal(text).normalize()
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    first = len(digits) - 1 + exponent
    if value and first < -6:
        mantissa = "".join(map(str, digits))
        return f"{mantissa[0]}{'.' if mantissa[1:] else ''}{mantissa[1:]}e{first}"
    return f"{value:f}"


def row(trade: Trade) -> str:
    """A trade: id, milliseconds, amount (less than zero is sold), price."""
    sign = "-" if trade.side == "sell" else ""
    return f"[{trade.id},{trade.timestamp_us // 1000},{sign}{number(trade.qty)},{number(trade.price)}]"


@define
class BitfinexSession:
    """One connection: its channels by symbol, and the number of its next message."""

    known: frozenset[str]
    refuse: Refuse
    is_numbered: bool = False
    _sequence: int = 0
    _channels: dict[str, int] = field(factory=dict)
    _opened: int = 0
    _is_greeted: bool = False
    _now_us: int = 0

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades are subscribed."""
        return frozenset(self._channels)

    def receive(self, message: str | bytes) -> list[str]:
        """Obey ``conf``, ``subscribe`` and ``unsubscribe``, and answer ``ping``."""
        answer = compact(self._answer(fields(message) or {}))
        if self._is_greeted:
            return [answer]
        self._is_greeted = True
        return [compact(_GREETING), answer]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed symbol."""
        return isinstance(item, Trade) and item.symbol in self._channels

    def encode(self, item: Item) -> list[str]:
        """Both messages of a trade of a subscribed symbol."""
        if not isinstance(item, Trade) or item.symbol not in self._channels:
            return []
        channel = self._channels[item.symbol]
        return [self._numbered(f'{channel},"{kind}",{row(item)}') for kind in ("te", "tu")]

    def snapshot(self, symbol: str, trades: Sequence[Trade]) -> list[str]:
        """The newest trades, the newest first."""
        rows = ",".join(map(row, list(trades[-SNAPSHOT:])[::-1]))
        return [self._numbered(f"{self._channels[symbol]},[{rows}]")]

    def beat(self, now_us: int) -> list[str]:
        """A heartbeat of each channel."""
        self._now_us = now_us
        return [self._numbered(f'{channel},"hb"') for channel in self._channels.values()]

    def skip(self) -> None:
        """Skip one number."""
        self._sequence += 1

    def _numbered(self, content: str) -> str:
        if not self.is_numbered:
            return f"[{content}]"
        self._sequence += 1
        return f"[{content},{self._sequence}]"

    def _answer(self, call: Mapping[str, Any]) -> dict[str, Any]:
        match call.get("event"):
            case "conf":
                self.is_numbered = call.get("flags") == SEQ_ALL
                return {"event": "conf", "status": "OK", "flags": call.get("flags")}
            case "ping":
                given = {"cid": call["cid"]} if "cid" in call else {}
                return {"event": "pong", "ts": self._now_us // 1000, **given}
            case "subscribe":
                return self._subscribe(call.get("channel"), call.get("symbol"))
            case "unsubscribe":
                return self._unsubscribe(call.get("chanId"))
        return {"event": "error", "msg": "unknown event", "code": 10000}

    def _subscribe(self, channel: Any, symbol: Any) -> dict[str, Any]:
        about = {"channel": channel, "symbol": symbol}
        if channel != "trades":
            return {**about, "event": "error", "msg": "channel: unknown", "code": 10302}
        if not isinstance(symbol, str) or symbol not in self.known or self.refuse(symbol):
            return {**about, "event": "error", "msg": "symbol: invalid", "code": 10300}
        about["pair"] = symbol[1:]
        if symbol in self._channels:
            return {**about, "event": "error", "msg": "subscribe: dup", "code": 10301}
        if len(self._channels) >= MOST_CHANNELS:
            return {**about, "event": "error", "msg": "subscribe: limit", "code": 10305}
        self._opened += 1
        self._channels[symbol] = 17_470 + self._opened
        return {"event": "subscribed", "channel": channel, "chanId": self._channels[symbol]} | about

    def _unsubscribe(self, channel: Any) -> dict[str, Any]:
        for symbol, number_of in self._channels.items():
            if channel == number_of:
                del self._channels[symbol]
                return {"event": "unsubscribed", "status": "OK", "chanId": channel}
        return {"event": "error", "msg": "unsubscribe: invalid", "code": 10400}


def bitfinex_dialect(*, symbols: Iterable[str] = SYMBOLS, heartbeat: float | None = 15.0) -> Dialect:
    """Bitfinex's dialect. `symbols` are those that it knows; others are refused. `heartbeat`: seconds."""
    known = frozenset(symbols)

    def open_session(path: str, headers: dict[str, str], refuse: Refuse) -> BitfinexSession:
        if urlsplit(path).path != PATH:
            raise HandshakeRefused(404, f"no such path: the channels are at {PATH}")
        return BitfinexSession(known, refuse)

    return Dialect(
        "bitfinex",
        PATH,
        open_session,
        sequenced=True,
        heartbeat=heartbeat,
        ping=None,
        farewell=lambda now_us: FAREWELL,
        snapshot=BitfinexSession.snapshot,
        rest=bitfinex_rest(known),
        weight_a_minute=WEIGHT_A_MINUTE,
    )


def bitfinex_rest(known: frozenset[str]) -> Rest:
    """Answers `trades/SYMBOL/hist`: by time, the newest first unless `sort` is 1."""

    def answer(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
        parts = path.split("/")
        if len(parts) != 5 or parts[1:3] != ["v2", "trades"] or parts[4] != "hist":
            return Answer(404, b'{"error":"NOT_FOUND"}')
        if parts[3] not in known:
            return _error("symbol: invalid")
        limit, start, end = integer(query, "limit", 125), integer(query, "start"), integer(query, "end")
        if limit is None or not 1 <= limit <= PAGE:
            return _error("limit: invalid")
        found = [
            trade
            for trade in tape(parts[3])
            if (start is None or trade.timestamp_us // 1000 >= start)
            and (end is None or trade.timestamp_us // 1000 <= end)
        ]
        rows = found[:limit] if query.get("sort") == "1" else found[::-1][:limit]
        return Answer(200, f"[{','.join(map(row, rows))}]".encode())

    return answer


def _error(words: str) -> Answer:
    return Answer(500, compact(["error", 10020, words]).encode())


def bitfinex_feed() -> Feed:
    """A generated market. Ids belong to the whole exchange, so those of a symbol have gaps."""
    return generated(MARKET, ids="gappy")


DEFINITION = Definition(
    title="Bitfinex",
    port=PORT,
    dialect=lambda symbols: bitfinex_dialect(symbols={*SYMBOLS, *symbols}),
    feed=bitfinex_feed,
    symbol=lambda symbol: symbol if symbol.startswith("t") else None,
)
