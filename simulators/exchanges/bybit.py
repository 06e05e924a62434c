"""Bybit, the server's side: the topics `publicTrade.SYMBOL` of spot and linear, and the newest trades.

Rule 1: fields have the order, and numbers the notation, of the real exchange; they differ by category.
Rule 2: a request is answered, or refused, as a whole. Also one for a topic that is subscribed already.
Rule 3: trades of spot are named by numbers, those of linear by UUIDs, which follow from the id of the trade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field

from ..definition import Definition
from ..dialect import Answer, Dialect, HandshakeRefused, Refuse, Rest, Tape
from ..feed import Feed
from ..market import Instrument, generated
from ..texts import compact, fields, integer, names, quoted
from ..trade import Item, Trade

PATH = "/v5/public/spot"
PORT = 5011
PATHS = {"/v5/public/spot": "spot", "/v5/public/linear": "linear"}
TOPIC = "publicTrade."
MOST_TOPICS = 10  # of one request, at spot
NEWEST = {"spot": 60, "linear": 1000}  # trades of an answer by REST
WEIGHT_A_MINUTE = 7200  # 600 questions in 5 seconds
MARKET = (
    Instrument("BTCUSDT", Decimal("61837.63"), lot=Decimal("0.000001"), rate=8.0, first_id=2_240_000_000_970),
    Instrument("ETHUSDT", Decimal("2683.80"), rate=5.0, first_id=2_240_000_000_971),
)
SYMBOLS = tuple(each.symbol for each in MARKET)
CONNECTION = "d5phu6rboasumi7uds7g-223s"  # the id of a connection, which means nothing to us


def name_of(trade: Trade, category: str) -> str:
    """The id of a trade as the category writes it."""
    return str(trade.id) if category == "spot" else f"00000000-0000-5000-8000-{trade.id:012x}"


def public_trade(trade: Trade, category: str) -> str:
    """The message of one trade."""
    at, side = trade.timestamp_us // 1000, trade.side.capitalize()
    i, p, v = f'"i":"{name_of(trade, category)}"', f'"p":"{trade.price}"', f'"v":"{trade.qty}"'
    if category == "spot":
        row = f'{i},"T":{at},{p},{v},"S":"{side}","s":{quoted(trade.symbol)}'
        head = f'"ts":{at},"type":"snapshot"'
    else:
        row = f'"T":{at},"s":{quoted(trade.symbol)},"S":"{side}",{v},{p},"L":"PlusTick",{i}'
        head = f'"type":"snapshot","ts":{at}'
    tail = f'"BT":false,"RPI":false,"seq":{trade.id}'
    return f'{{"topic":{quoted(TOPIC + trade.symbol)},{head},"data":[{{{row},{tail}}}]}}'


@define
class BybitSession:
    """One connection: its topics."""

    category: str
    known: frozenset[str]
    refuse: Refuse
    _topics: dict[str, None] = field(factory=dict)  # symbols

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades are subscribed."""
        return frozenset(self._topics)

    def receive(self, message: str | bytes) -> list[str]:
        """Answer ``ping``, and obey ``subscribe`` and ``unsubscribe``."""
        call = fields(message)
        if call is None:
            return [self._answer({}, False, "Invalid request format")]
        op = call.get("op")
        if op == "ping":
            return [self._answer(call, True, "pong")]
        topics = names(call.get("args"))
        if op not in ("subscribe", "unsubscribe") or topics is None:
            return [self._answer(call, False, "error:request,op or args")]
        refusal = self._refusal(topics) if op == "subscribe" else None
        if refusal is not None:
            return [self._answer(call, False, refusal)]
        for topic in topics:
            symbol = topic.removeprefix(TOPIC)
            if op == "subscribe":
                self._topics[symbol] = None
            else:
                self._topics.pop(symbol, None)
        return [self._answer(call, True, op if self.category == "spot" else "")]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed symbol."""
        return isinstance(item, Trade) and item.symbol in self._topics

    def encode(self, item: Item) -> list[str]:
        """The message of a trade of a subscribed symbol."""
        if not isinstance(item, Trade) or item.symbol not in self._topics:
            return []
        return [public_trade(item, self.category)]

    def beat(self, now_us: int) -> list[str]:
        """Nothing: Bybit answers pings, and sends nothing of its own accord."""
        return []

    def skip(self) -> None:
        """Always raises ValueError: there is no number of a message."""
        raise ValueError("Bybit numbers no messages; drop a trade")

    def _refusal(self, topics: list[str]) -> str | None:
        if self.category == "spot" and len(topics) > MOST_TOPICS:
            return f"args size >{MOST_TOPICS}"
        for topic in topics:
            symbol = topic.removeprefix(TOPIC)
            if not topic.startswith(TOPIC) or symbol not in self.known or self.refuse(symbol):
                return f"error:handler not found,topic:{topic}"
            if symbol in self._topics:
                return f"error:already subscribed,topic:{topic}"
        return None

    def _answer(self, call: Mapping[str, Any], success: bool, words: str) -> str:
        answer = {"success": success, "ret_msg": words, "conn_id": CONNECTION}
        return compact({**answer, "req_id": call.get("req_id", ""), "op": call.get("op", "")})


def bybit_dialect(*, path: str = PATH, symbols: Iterable[str] = SYMBOLS) -> Dialect:
    """Bybit's dialect at one of its paths. `symbols` are those that it knows; others are refused."""
    known = frozenset(symbols)
    return Dialect(
        "bybit", path, _opener(known), ping=None, rest=bybit_rest(known), weight_a_minute=WEIGHT_A_MINUTE
    )


def _opener(known: frozenset[str]) -> Callable[[str, dict[str, str], Refuse], BybitSession]:
    def open_session(path: str, headers: dict[str, str], refuse: Refuse) -> BybitSession:
        category = PATHS.get(urlsplit(path).path)
        if category is None:
            raise HandshakeRefused(404, f"no such path: the topics are at {' and '.join(PATHS)}")
        return BybitSession(category, known, refuse)

    return open_session


def bybit_rest(known: frozenset[str]) -> Rest:
    """Answers `recent-trade`: the newest trades, the newest first."""

    def answer(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
        if path != "/v5/market/recent-trade":
            return Answer(404, b"")
        category, symbol = query.get("category", ""), query.get("symbol", "")
        if category not in NEWEST:
            return _result(10001, "params error: Category Invalid", "{}")
        if symbol not in known:
            return _result(10001, "params error: Symbol Invalid", "{}")
        limit = min(integer(query, "limit", NEWEST[category]) or 1, NEWEST[category])
        rows = ",".join(_row(trade, category) for trade in _newest(tape(symbol), limit))
        return _result(0, "OK", f'{{"category":"{category}","list":[{rows}]}}')

    return answer


def _newest(trades: Sequence[Trade], limit: int) -> list[Trade]:
    return list(trades[-limit:])[::-1]


def _result(code: int, words: str, result: str) -> Answer:
    return Answer(
        200, f'{{"retCode":{code},"retMsg":"{words}","result":{result},"retExtInfo":{{}}}}'.encode()
    )


def _row(trade: Trade, category: str) -> str:
    return (
        f'{{"execId":"{name_of(trade, category)}","symbol":{quoted(trade.symbol)},"price":"{trade.price}",'
        f'"size":"{trade.qty}","side":"{trade.side.capitalize()}","time":"{trade.timestamp_us // 1000}",'
        f'"isBlockTrade":false,"isRPITrade":false,"seq":"{trade.id}"}}'
    )


def bybit_feed() -> Feed:
    """A generated market."""
    return generated(MARKET)


DEFINITION = Definition(
    title="Bybit",
    port=PORT,
    dialect=lambda symbols: bybit_dialect(symbols={*SYMBOLS, *symbols}),
    feed=bybit_feed,
    symbol=lambda symbol: symbol.replace("-", ""),
)
