"""Binance's spot market streams, the server's side: `@trade`, `@aggTrade`, and other streams of a recording.

Rule 1: `/stream` wraps each payload with the name of its stream, `/ws` does not. Answers are never wrapped.
Rule 2: fields have the order, and numbers the notation, of the real exchange.
Rule 3: an unknown stream is accepted and stays silent, as on the real exchange.
Rule 4: who sends more than five messages and pongs within one second is cut off, as by the real exchange.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from attrs import define, field, frozen

from ..definition import Definition
from ..dialect import Dialect, HandshakeRefused, Refuse
from ..feed import Feed, merge, recorded
from ..recordings import shipped
from ..trade import Item, Trade

PATH = "/stream"
PORT = 5001
FRAMES_PER_SECOND = 5
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")
_TRADES = frozenset({"trade", "aggTrade"})


def number(text: str) -> str:
    """Write a plain decimal as Binance does: at least eight decimals (more are kept, never rounded)."""
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<8}"


def trade_payload(trade: Trade) -> str:
    """The payload of a `@trade` stream."""
    return f'{{"e":"trade",{_head(trade)},"t":{trade.id},{_deal(trade)},{_tail(trade)}}}'


def agg_trade_payload(trade: Trade) -> str:
    """The payload of an `@aggTrade` stream; a single trade is sent as an aggregate of itself."""
    first, last = trade.aggregate or (trade.id, trade.id)
    ends = f'"f":{first},"l":{last}'
    return f'{{"e":"aggTrade",{_head(trade)},"a":{trade.id},{_deal(trade)},{ends},{_tail(trade)}}}'


def _head(trade: Trade) -> str:
    sent = trade.timestamp_us if trade.event_us is None else trade.event_us
    return f'"E":{sent // 1000},"s":"{trade.symbol}"'


def _deal(trade: Trade) -> str:
    return f'"p":"{number(trade.price)}","q":"{number(trade.qty)}"'


def _tail(trade: Trade) -> str:
    return f'"T":{trade.timestamp_us // 1000},"m":{"true" if trade.side == "sell" else "false"},"M":true'


@frozen
class _Malformed(Exception):
    """A request is wrong, and Binance has a code for that; the fields are those of the answer."""

    code: int
    msg: str
    id: object


@define
class BinanceSession:
    """One connection: its streams, in the order of subscription. `wrapped` is true on `/stream`."""

    wrapped: bool
    refuse: Refuse
    _streams: dict[str, None] = field(factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols of its trade streams."""
        named = (stream.partition("@") for stream in self._streams)
        return frozenset(symbol.upper() for symbol, _, kind in named if kind in _TRADES)

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of its streams."""
        return tuple(self._streams)

    def receive(self, message: str | bytes) -> list[str]:
        """Obey SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS; answer anything else with an error code."""
        try:
            request = _request(message)
            result = self._obey(request)
        except _Malformed as wrong:
            return [_compact({"error": {"code": wrong.code, "msg": wrong.msg}, "id": wrong.id})]
        return [_compact({"result": result, "id": request["id"]})]

    def wants(self, item: Item) -> bool:
        """Whether one of its streams carries `item`."""
        return bool(self._carriers(item))

    def encode(self, item: Item) -> list[str]:
        """One message for each stream that carries `item`."""
        return [self._wrap(stream, _payload(stream, item)) for stream in self._carriers(item)]

    def beat(self, now_us: int) -> list[str]:
        """Nothing: Binance has no heartbeat messages, only WebSocket pings."""
        return []

    def skip(self) -> None:
        """Always raises ValueError: there is no sequence number to skip."""
        raise ValueError("Binance numbers no messages; drop a trade to make a hole in its ids")

    def open_streams(self, names: list[str]) -> None:
        """Subscribe to streams named in the URL."""
        self._streams.update((name, None) for name in names if not self._refused(name))

    def _refused(self, stream: str) -> bool:
        symbol, _, kind = stream.partition("@")
        return kind in _TRADES and self.refuse(symbol.upper())

    def _carriers(self, item: Item) -> list[str]:
        return [stream for stream in _streams_of(item) if stream in self._streams]

    def _wrap(self, stream: str, payload: str) -> str:
        return f'{{"stream":"{stream}","data":{payload}}}' if self.wrapped else payload

    def _obey(self, request: dict[str, Any]) -> list[str] | None:
        if request["method"] == "LIST_SUBSCRIPTIONS":
            return list(self._streams)
        names = _names(request)
        if request["method"] == "UNSUBSCRIBE":
            for name in names:
                self._streams.pop(name, None)
            return None
        if refused := [name for name in names if self._refused(name)]:
            raise _Malformed(2, f"Invalid request: {refused[0]} is refused", request["id"])
        self._streams.update((name, None) for name in names)
        return None


def _streams_of(item: Item) -> tuple[str, ...]:
    if not isinstance(item, Trade):
        return (item.stream,)
    symbol = item.symbol.lower()
    return (f"{symbol}@aggTrade",) if item.aggregate else (f"{symbol}@trade", f"{symbol}@aggTrade")


def _payload(stream: str, item: Item) -> str:
    if not isinstance(item, Trade):
        return item.data
    return trade_payload(item) if stream.endswith("@trade") else agg_trade_payload(item)


def _compact(answer: dict[str, Any]) -> str:
    return json.dumps(answer, separators=(",", ":"))


def _request(message: str | bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError) as wrong:
        raise _Malformed(3, f"Invalid JSON: {wrong}", None) from None
    if not isinstance(request, dict):
        raise _Malformed(2, "Invalid request: request must be an object", None)
    return _checked(request)


def _checked(request: dict[str, Any]) -> dict[str, Any]:
    request_id = request.get("id")
    if type(request_id) is not int and not isinstance(request_id, str):
        raise _Malformed(2, "Invalid request: request ID must be an unsigned integer", None)
    if "method" not in request:
        raise _Malformed(2, "Invalid request: missing field `method`", request_id)
    if request["method"] not in METHODS:
        wanted = ", ".join(f"`{method}`" for method in METHODS)
        raise _Malformed(
            2, f"Invalid request: unknown variant `{request['method']}`, expected one of {wanted}", request_id
        )
    return request


def _names(request: dict[str, Any]) -> list[str]:
    params = request.get("params")
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        raise _Malformed(2, "Invalid request: params must be a list of stream names", request["id"])
    return params


def binance_dialect(*, ping: float | None = 20.0, lifetime: float | None = 86_400.0) -> Dialect:
    """Binance's dialect; `Dialect` explains `ping` and `lifetime` (seconds)."""
    return Dialect(
        "binance", PATH, _open_session, ping=ping, lifetime=lifetime, frames_per_second=FRAMES_PER_SECOND
    )


def _open_session(path: str, headers: dict[str, str], refuse: Refuse) -> BinanceSession:
    parts = urlsplit(path)
    if parts.path == "/stream":
        session, names = BinanceSession(True, refuse), _named_in_query(parts.query)
    elif parts.path == "/ws" or parts.path.startswith("/ws/"):
        session, names = BinanceSession(False, refuse), parts.path.removeprefix("/ws").split("/")
    else:
        raise HandshakeRefused(404, "no such path: the streams are at /stream and /ws")
    session.open_streams([name for name in names if name])
    return session


def _named_in_query(query: str) -> list[str]:
    return "/".join(parse_qs(query).get("streams", [])).split("/")


def binance_feed() -> Feed:
    """Six recorded minutes of BTCUSDT and ETHUSDT, looped and moved to now."""
    ticks = (shipped(f"binance_{symbol}_trades_20240808.jsonl.gz").ticks for symbol in ("btcusdt", "ethusdt"))
    return recorded(merge(*ticks), loop=True, rebase=True)


DEFINITION = Definition(
    title="Binance",
    port=PORT,
    dialect=lambda symbols: binance_dialect(),
    feed=binance_feed,
    symbol=lambda symbol: symbol.replace("-", ""),
    plays_messages=True,
)
