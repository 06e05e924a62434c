"""OKX, the server's side: the channels `trades-all` and `trades`, and the trades of its REST.

Rule 1: fields have the order, and numbers the notation, of the real exchange.
Rule 2: `/ws/v5/business` has every trade, `/ws/v5/public` the aggregates. A channel at the wrong one is
unknown.
Rule 3: each symbol of a request is answered, or refused, by itself.
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
from ..texts import compact, fields, integer, quoted
from ..trade import Item, Trade

PATH = "/ws/v5/business"
PORT = 5010
CHANNELS = {"/ws/v5/business": "trades-all", "/ws/v5/public": "trades"}
WEIGHT_A_MINUTE = 600  # 20 questions in 2 seconds
PAGE = 100
MARKET = (
    Instrument("BTC-USDT", Decimal("61837.6"), increment=Decimal("0.1"), rate=8.0, first_id=609_770_901),
    Instrument("ETH-USDT-SWAP", Decimal("2683.80"), lot=Decimal("0.01"), rate=5.0, first_id=1_110_143_193),
)
SYMBOLS = tuple(each.symbol for each in MARKET)
CONNECTION = "a4d3ae55"  # the id of a connection, which means nothing to us
FAREWELL = (
    '{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. '
    f'Please reconnect.","connId":"{CONNECTION}"}}'
)


def every_trade(trade: Trade) -> str:
    """The message of one trade."""
    return _message(
        "trades-all",
        trade,
        f'"tradeId":"{trade.id}","px":"{trade.price}","sz":"{trade.qty}","side":"{trade.side}","source":"0",'
        f'"ts":"{trade.timestamp_us // 1000}"',
    )


def aggregate(trade: Trade) -> str:
    """The message of the trades of one order at one price; a single trade is an aggregate of itself."""
    first, last = trade.aggregate or (trade.id, trade.id)
    return _message(
        "trades",
        trade,
        f'"tradeId":"{last}","px":"{trade.price}","sz":"{trade.qty}","side":"{trade.side}",'
        f'"ts":"{trade.timestamp_us // 1000}","count":"{last - first + 1}","source":"0","seqId":{last}',
    )


def _message(channel: str, trade: Trade, content: str) -> str:
    name = f'"instId":{quoted(trade.symbol)}'
    return f'{{"arg":{{"channel":"{channel}",{name}}},"data":[{{{name},{content}}}]}}'


@define
class OkxSession:
    """One connection: its instruments."""

    channel: str
    known: frozenset[str]
    refuse: Refuse
    _instruments: dict[str, None] = field(factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        """The instruments whose trades are subscribed."""
        return frozenset(self._instruments)

    def receive(self, message: str | bytes) -> list[str]:
        """Answer ``ping``, and obey ``subscribe`` and ``unsubscribe``."""
        if message == "ping":
            return ["pong"]
        call = fields(message)
        if call is None or call.get("op") not in ("subscribe", "unsubscribe"):
            return [self._error("60012", f"Invalid request: {message!r}", {})]
        arguments = call.get("args")
        if not isinstance(arguments, list) or not arguments:
            return [self._error("60012", f"Invalid request: {message!r}", call)]
        return [self._obey(call, each) for each in arguments]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed instrument."""
        return isinstance(item, Trade) and item.symbol in self._instruments

    def encode(self, item: Item) -> list[str]:
        """The message of a trade of a subscribed instrument."""
        if not isinstance(item, Trade) or item.symbol not in self._instruments:
            return []
        return [every_trade(item) if self.channel == "trades-all" else aggregate(item)]

    def beat(self, now_us: int) -> list[str]:
        """Nothing: OKX answers pings, and sends nothing of its own accord."""
        return []

    def skip(self) -> None:
        """Always raises ValueError: there is no number of a message."""
        raise ValueError("OKX numbers no messages; drop a trade to make a hole in its ids")

    def _obey(self, call: Mapping[str, Any], argument: Any) -> str:
        about = argument if isinstance(argument, dict) else {}
        channel, name, is_new = about.get("channel"), about.get("instId"), call["op"] == "subscribe"
        if not self._knows(channel, name) or (is_new and self.refuse(str(name))):
            return self._error(
                "60018",
                f"Wrong URL or channel:{channel},instId:{name} doesn't exist. Please use the correct URL, "
                "channel and parameters referring to API document.",
                call,
            )
        if is_new:
            self._instruments[str(name)] = None
        else:
            self._instruments.pop(str(name), None)
        answer = {"event": call["op"], "arg": {"channel": channel, "instId": name}, "connId": CONNECTION}
        return compact({**_numbered(call), **answer})

    def _knows(self, channel: Any, name: Any) -> bool:
        return channel == self.channel and isinstance(name, str) and name in self.known

    def _error(self, code: str, words: str, call: Mapping[str, Any]) -> str:
        answer = {"event": "error", "code": code, "msg": words, "connId": CONNECTION}
        return compact({**_numbered(call), **answer})


def _numbered(call: Mapping[str, Any]) -> dict[str, str]:
    return {"id": call["id"]} if isinstance(call.get("id"), str) else {}


def okx_dialect(*, path: str = PATH, symbols: Iterable[str] = SYMBOLS) -> Dialect:
    """OKX's dialect at one of its paths. `symbols` are those that it knows; others are refused."""
    known = frozenset(symbols)
    return Dialect(
        "okx",
        path,
        _opener(known),
        ping=None,
        farewell=lambda now_us: FAREWELL,
        rest=okx_rest(known),
        weight_a_minute=WEIGHT_A_MINUTE,
    )


def _opener(known: frozenset[str]) -> Callable[[str, dict[str, str], Refuse], OkxSession]:
    def open_session(path: str, headers: dict[str, str], refuse: Refuse) -> OkxSession:
        channel = CHANNELS.get(urlsplit(path).path)
        if channel is None:
            raise HandshakeRefused(404, f"no such path: the channels are at {' and '.join(CHANNELS)}")
        return OkxSession(channel, known, refuse)

    return open_session


def okx_rest(known: frozenset[str]) -> Rest:
    """Answers `trades` (the newest ones) and `history-trades` (pages by id or by time), newest first."""

    def answer(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
        question = path.removeprefix("/api/v5/market/")
        if question not in ("trades", "history-trades"):
            return Answer(404, b'{"msg":"Not Found","data":null,"code":"404"}')
        if query.get("instId") not in known:
            return _refused("51001", "Instrument ID doesn't exist")
        if any(integer(query, name) is None for name in ("limit", "after", "before") if name in query):
            return _refused("51000", "Parameter error")
        limit, older, newer = (integer(query, name) for name in ("limit", "after", "before"))
        trades = sorted(tape(query["instId"]), key=lambda trade: -trade.id)
        if question == "trades":
            return _listed(trades[: min(limit or PAGE, 500)])
        found = [
            trade
            for trade in trades
            if (older is None or trade.id < older) and (newer is None or trade.id > newer)
        ]
        return _listed(found[: min(limit or PAGE, PAGE)])

    return answer


def _refused(code: str, words: str) -> Answer:
    return Answer(200, compact({"code": code, "data": [], "msg": words}).encode())


def _listed(trades: Sequence[Trade]) -> Answer:
    rows = ",".join(map(_row, trades))
    return Answer(200, f'{{"code":"0","msg":"","data":[{rows}]}}'.encode())


def _row(trade: Trade) -> str:
    return (
        f'{{"instId":{quoted(trade.symbol)},"side":"{trade.side}","sz":"{trade.qty}","source":"0","px":"{trade.price}",'
        f'"tradeId":"{trade.id}","ts":"{trade.timestamp_us // 1000}"}}'
    )


def okx_feed() -> Feed:
    """A generated market."""
    return generated(MARKET)


DEFINITION = Definition(
    title="OKX",
    port=PORT,
    dialect=lambda symbols: okx_dialect(symbols={*SYMBOLS, *symbols}),
    feed=okx_feed,
    symbol=lambda symbol: symbol if "-" in symbol else None,
)
