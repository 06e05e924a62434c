"""Binance's market streams, the server's side: `@trade`, `@aggTrade`, and other streams of a recording.
And three questions of its REST: `historicalTrades`, `aggTrades` and `ticker/24hr`.

Rule 1: `/stream` wraps each payload with the name of its stream, `/ws` does not. Answers are never wrapped.
Rule 2: fields have the order, and numbers the notation, of the real exchange.
Rule 3: an unknown stream is accepted and stays silent, as on the real exchange.
Rule 4: who sends more than five messages and pongs within one second is cut off, as by the real exchange.
Rule 5: a symbol without trades is known, and has none. The ticker tells only of symbols that are named.
Rule 6: below `/market` are the futures, with `@aggTrade` only. The same server has both, and one tape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from attrs import define, field, frozen

from ..definition import Definition
from ..dialect import Answer, Dialect, HandshakeRefused, Refuse, Rest, Tape
from ..feed import Feed, merge, recorded
from ..recordings import shipped
from ..texts import quoted
from ..trade import Item, Trade

PATH = "/stream"
FUTURES_PATH = "/market/stream"
PORT = 5001
FRAMES_PER_SECOND = 5
WEIGHT_A_MINUTE = 6000
WEIGHT_HEADER = "x-mbx-used-weight-1m"
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")
_TRADES = frozenset({"trade", "aggTrade"})


def number(text: str) -> str:
    """Write a plain decimal as Binance does: at least eight decimals (more are kept, never rounded)."""
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<8}"


def trade_payload(trade: Trade) -> str:
    """The payload of a `@trade` stream."""
    return f'{{"e":"trade",{_head(trade)},"t":{trade.id},{_deal(trade)},{_tail(trade)}}}'


def futures_payload(trade: Trade) -> str:
    """The payload of an `@aggTrade` stream of the futures, which write numbers as they are."""
    first, last = trade.aggregate or (trade.id, trade.id)
    deal = f'"p":"{trade.price}","q":"{trade.qty}","nq":"{trade.qty}","f":{first},"l":{last}'
    return f'{{"e":"aggTrade",{_head(trade)},"a":{trade.id},{deal},{_when(trade)}}}'


def agg_trade_payload(trade: Trade) -> str:
    """The payload of an `@aggTrade` stream; a single trade is sent as an aggregate of itself."""
    first, last = trade.aggregate or (trade.id, trade.id)
    ends = f'"f":{first},"l":{last}'
    return f'{{"e":"aggTrade",{_head(trade)},"a":{trade.id},{_deal(trade)},{ends},{_tail(trade)}}}'


def _head(trade: Trade) -> str:
    sent = trade.timestamp_us if trade.event_us is None else trade.event_us
    return f'"E":{sent // 1000},"s":{quoted(trade.symbol)}'


def _deal(trade: Trade) -> str:
    return f'"p":"{number(trade.price)}","q":"{number(trade.qty)}"'


def _when(trade: Trade) -> str:
    return f'"T":{trade.timestamp_us // 1000},"m":{"true" if trade.side == "sell" else "false"}'


def _tail(trade: Trade) -> str:
    return f'{_when(trade)},"M":true'


@frozen
class _Malformed(Exception):
    """A request is wrong, and Binance has a code for that; the fields are those of the answer."""

    code: int
    msg: str
    id: object


@define
class BinanceSession:
    """One connection: its streams, in the order of subscription. `wrapped` is true on `/stream`.

    `is_futures`: it carries aggregates only.
    """

    wrapped: bool
    refuse: Refuse
    is_futures: bool = False
    _streams: dict[str, None] = field(factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols of its trade streams."""
        named = (stream.rpartition("@") for stream in self._streams)
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
        return [self._wrap(stream, self._payload(stream, item)) for stream in self._carriers(item)]

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
        symbol, _, kind = stream.rpartition("@")
        return kind in _TRADES and self.refuse(symbol.upper())

    def _carriers(self, item: Item) -> list[str]:
        streams = [stream for stream in _streams_of(item) if stream in self._streams]
        return [each for each in streams if each.endswith("@aggTrade")] if self.is_futures else streams

    def _payload(self, stream: str, item: Item) -> str:
        if self.is_futures and isinstance(item, Trade):
            return futures_payload(item)
        return _payload(stream, item)

    def _wrap(self, stream: str, payload: str) -> str:
        return f'{{"stream":{quoted(stream)},"data":{payload}}}' if self.wrapped else payload

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


def binance_dialect(
    *, path: str = PATH, ping: float | None = 20.0, lifetime: float | None = 86_400.0
) -> Dialect:
    """Binance's dialect; `Dialect` explains `ping` and `lifetime` (seconds)."""
    return Dialect(
        "binance",
        path,
        _open_session,
        ping=ping,
        lifetime=lifetime,
        frames_per_second=FRAMES_PER_SECOND,
        farewell=lambda now_us: f'{{"e":"serverShutdown","E":{now_us // 1000}}}',
        rest=binance_rest,
        weight_a_minute=WEIGHT_A_MINUTE,
        weight_header=WEIGHT_HEADER,
    )


def _open_session(path: str, headers: dict[str, str], refuse: Refuse) -> BinanceSession:
    parts = urlsplit(path)
    is_futures, place = parts.path.startswith("/market/"), parts.path.removeprefix("/market")
    if place == "/stream":
        session, names = BinanceSession(True, refuse, is_futures), _named_in_query(parts.query)
    elif place == "/ws" or place.startswith("/ws/"):
        session, names = BinanceSession(False, refuse, is_futures), place.removeprefix("/ws").split("/")
    else:
        raise HandshakeRefused(404, "no such path: the streams are at /stream and /ws, of futures in /market")
    session.open_streams([name for name in names if name])
    return session


def _named_in_query(query: str) -> list[str]:
    return "/".join(parse_qs(query).get("streams", [])).split("/")


def binance_rest(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
    """Answer a question as api.binance.com does, also a wrong one."""
    answer = _QUESTIONS.get(path)
    if answer is None:
        return Answer(404, b"<html><body><h1>404 Not found</h1></body></html>")
    try:
        return answer(path, query, tape)
    except _Refused as refused:
        return Answer(400, _compact({"code": refused.code, "msg": refused.msg}).encode())


@frozen
class _Refused(Exception):
    code: int
    msg: str


def _historical_trades(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
    rows = [_historical(trade) for trade in _asked(query, tape) if trade.aggregate is None]
    return Answer(200, f"[{','.join(rows)}]".encode(), weight=25)


def _aggregate_trades(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
    rows = [_aggregate(trade) for trade in _asked(query, tape)]
    return Answer(200, f"[{','.join(rows)}]".encode(), weight=4)


def _futures_trades(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
    rows = [_futures_row(trade) for trade in _asked(query, tape)]
    return Answer(200, f"[{','.join(rows)}]".encode(), weight=20)


def _ticker(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
    if "symbol" in query:
        return Answer(200, _compact(_mini(query["symbol"], tape)).encode(), weight=2)
    try:
        symbols = msgspec.json.decode(query.get("symbols", ""), type=list[str])
    except msgspec.DecodeError:
        raise _Refused(-1100, "Illegal characters found in parameter 'symbols'") from None
    weight = 2 if len(symbols) <= 20 else 40 if len(symbols) <= 100 else 80
    return Answer(200, msgspec.json.encode([_mini(symbol, tape) for symbol in symbols]), weight=weight)


_QUESTIONS: Final[Mapping[str, Rest]] = {
    "/api/v3/historicalTrades": _historical_trades,
    "/api/v3/aggTrades": _aggregate_trades,
    "/fapi/v1/aggTrades": _futures_trades,
    "/api/v3/ticker/24hr": _ticker,
}


def _asked(query: Mapping[str, str], tape: Tape) -> Sequence[Trade]:
    if not query.get("symbol"):
        raise _Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    limit, trades = min(_integer(query, "limit", 500), 1000), tape(query["symbol"])
    if "fromId" not in query:
        return trades[-limit:]
    first = _integer(query, "fromId", 0)
    return sorted((trade for trade in trades if trade.id >= first), key=lambda trade: trade.id)[:limit]


def _integer(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdecimal()):
        raise _Refused(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        )
    return int(text)


def _historical(trade: Trade) -> str:
    quote = number(format(Decimal(trade.price) * Decimal(trade.qty), ".8f"))
    deal = f'"price":"{number(trade.price)}","qty":"{number(trade.qty)}","quoteQty":"{quote}"'
    maker = "true" if trade.side == "sell" else "false"
    return (
        f'{{"id":{trade.id},{deal},"time":{trade.timestamp_us // 1000},'
        f'"isBuyerMaker":{maker},"isBestMatch":true}}'
    )


def _aggregate(trade: Trade) -> str:
    first, last = trade.aggregate or (trade.id, trade.id)
    return f'{{"a":{trade.id},{_deal(trade)},"f":{first},"l":{last},{_tail(trade)}}}'


def _futures_row(trade: Trade) -> str:
    first, last = trade.aggregate or (trade.id, trade.id)
    ends = f'"f":{first},"l":{last}'
    return f'{{"a":{trade.id},"p":"{trade.price}","q":"{trade.qty}",{ends},{_when(trade)}}}'


def _mini(symbol: str, tape: Tape) -> dict[str, Any]:
    """What `type=MINI` tells. All that is on the tape counts as of the last day."""
    trades = tape(symbol)
    ends = (*trades[:1], *trades[-1:])
    ids = [trade.id if trade.aggregate is None else trade.aggregate[1] for trade in ends] or [-1]
    prices = [number(trade.price) for trade in ends] or [number("0")]
    return {
        "symbol": symbol,
        "openPrice": prices[0],
        "lastPrice": prices[-1],
        "openTime": trades[0].timestamp_us // 1000 if trades else 0,
        "closeTime": trades[-1].timestamp_us // 1000 if trades else 0,
        "firstId": ids[0],
        "lastId": ids[-1],
        "count": len(trades),
    }


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
