"""Kraken spot, the server's side: the channel `trade` of the WebSocket API 2 (at `/v2`) and 1 (at `/`), and
the trades of its REST.

Rule 1: fields have the order, and numbers the notation, of the real exchange. A session has no clock, so
`time_in` and `time_out` are always the same.
Rule 2: symbols have their names of version 2 here ("BTC/USD"); version 1 and REST say XBT and XDG.
Rule 3: each symbol of a request has an answer of its own.
Rule 4: trades of version 1 have no id, and its snapshot cannot be told from other trades.
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
from ..texts import compact, fields, integer, names, quoted, rfc3339
from ..trade import Item, Trade

PORT = 5003
PATH = "/v2"
SNAPSHOT = 50
MARKET = (
    Instrument(
        "BTC/USD",
        Decimal("61837.6"),
        increment=Decimal("0.1"),
        lot=Decimal("0.00000001"),
        rate=4.0,
        first_id=70_000_001,
    ),
    Instrument("ETH/USD", Decimal("2683.80"), lot=Decimal("0.00000001"), rate=3.0, first_id=50_000_001),
)
SYMBOLS = tuple(each.symbol for each in MARKET)
_OLD: Final = {"BTC": "XBT", "DOGE": "XDG"}
_NEVER: Final = rfc3339(0)
_CODES: Final = {"buy": "b", "sell": "s"}


def old_name(symbol: str, between: str = "/") -> str:
    """What version 1 calls it: ``XBT/USD``; and REST, with nothing between: ``XBTUSD``."""
    return between.join(_OLD.get(name, name) for name in symbol.split("/"))


def number(text: str) -> str:
    """A plain decimal as a number of JSON: 40 is ``40.0``."""
    return text if "." in text else f"{text}.0"


def deal(trade: Trade) -> str:
    """A trade in a message of version 2."""
    return (
        f'{{"symbol":{quoted(trade.symbol)},"side":"{trade.side}","price":{number(trade.price)},'
        f'"qty":{number(trade.qty)},"ord_type":"market","trade_id":{trade.id},'
        f'"timestamp":"{rfc3339(trade.timestamp_us)}"}}'
    )


def message(trades: Sequence[Trade], kind: str = "update") -> str:
    """A message of version 2."""
    return f'{{"channel":"trade","type":"{kind}","data":[{",".join(map(deal, trades))}]}}'


def old_message(trades: Sequence[Trade], channel_id: int = 337) -> str:
    """A message of version 1, of one symbol."""
    deals = [
        [trade.price, trade.qty, _seconds(trade.timestamp_us), _CODES[trade.side], "m", ""]
        for trade in trades
    ]
    return compact([channel_id, deals, "trade", old_name(trades[0].symbol)])


def _seconds(us: int) -> str:
    return f"{us // 1_000_000}.{us % 1_000_000:06d}"


@define
class KrakenSession:
    """One connection of version 2."""

    known: frozenset[str]
    refuse: Refuse
    _subscribed: dict[str, bool] = field(factory=dict)  # symbol: whether it wants a snapshot

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades are subscribed."""
        return frozenset(self._subscribed)

    def receive(self, message: str | bytes) -> list[str]:
        """Obey ``subscribe``, ``unsubscribe`` and ``ping``; answer anything else with an error."""
        call = fields(message)
        method = None if call is None else call.get("method")
        if call is None or method not in ("subscribe", "unsubscribe", "ping"):
            return [_failed("Malformed request", "error", None, {})]
        tag = {"req_id": call["req_id"]} if type(call.get("req_id")) is int else {}
        if method == "ping":
            return [compact({"method": "pong"} | tag | {"time_in": _NEVER, "time_out": _NEVER})]
        what = call.get("params")
        symbols = names(what.get("symbol")) if isinstance(what, dict) else None
        if not isinstance(what, dict) or what.get("channel") != "trade" or not symbols:
            return [_failed("Unsupported channel", method, None, tag)]
        return [self._obey(method, symbol, what.get("snapshot") is True, tag) for symbol in symbols]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed symbol."""
        return isinstance(item, Trade) and item.symbol in self._subscribed

    def encode(self, item: Item) -> list[str]:
        """An update with one trade."""
        return [message([item])] if isinstance(item, Trade) and item.symbol in self._subscribed else []

    def snapshot(self, symbol: str, trades: Sequence[Trade]) -> list[str]:
        """The last 50 trades, if they were asked for."""
        wanted = self._subscribed.get(symbol, False)
        return [message(trades[-SNAPSHOT:], "snapshot")] if wanted and trades else []

    def beat(self, now_us: int) -> list[str]:
        """A heartbeat, if there is a subscription."""
        return ['{"channel":"heartbeat"}'] if self._subscribed else []

    def skip(self) -> None:
        """Always raises ValueError: messages have no numbers."""
        raise ValueError("Kraken numbers no messages; drop a trade to make a hole in its ids")

    def _obey(self, method: str, symbol: str, snapshot: bool, tag: dict[str, Any]) -> str:
        if symbol not in self.known or (method == "subscribe" and self.refuse(symbol)):
            return _failed(f"Currency pair not supported {symbol}", method, symbol, tag)
        if method == "unsubscribe" and symbol not in self._subscribed:
            return _failed("Subscription not found", method, symbol, tag)
        result: dict[str, Any] = {"channel": "trade"}
        if method == "subscribe":
            self._subscribed[symbol] = snapshot
            result["snapshot"] = snapshot
        else:
            del self._subscribed[symbol]
        result["symbol"] = symbol
        times = {"success": True, "time_in": _NEVER, "time_out": _NEVER}
        return compact({"method": method} | tag | {"result": result} | times)


def _failed(words: str, method: str, symbol: str | None, tag: dict[str, Any]) -> str:
    about = {} if symbol is None else {"symbol": symbol}
    times = {"time_in": _NEVER, "time_out": _NEVER}
    return compact({"error": words, "method": method} | tag | {"success": False} | about | times)


@define
class OldKrakenSession:
    """One connection of version 1."""

    known: Mapping[str, str]  # old name: symbol
    refuse: Refuse
    _subscribed: dict[str, None] = field(factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades are subscribed."""
        return frozenset(self._subscribed)

    def receive(self, message: str | bytes) -> list[str]:
        """Obey ``subscribe``, ``unsubscribe`` and ``ping``; answer anything else with an error."""
        call = fields(message)
        event = None if call is None else call.get("event")
        if call is None or event not in ("subscribe", "unsubscribe", "ping"):
            return [compact({"errorMessage": "Malformed request", "event": "error"})]
        tag = {"reqid": call["reqid"]} if type(call.get("reqid")) is int else {}
        if event == "ping":
            return [compact({"event": "pong"} | tag)]
        pairs, what = names(call.get("pair")), call.get("subscription")
        if not pairs or not isinstance(what, dict) or what.get("name") != "trade":
            return [compact({"errorMessage": "Malformed request", "event": "error"} | tag)]
        return [self._obey(event, pair, tag) for pair in pairs]

    def wants(self, item: Item) -> bool:
        """Whether `item` is a trade of a subscribed symbol."""
        return isinstance(item, Trade) and item.symbol in self._subscribed

    def encode(self, item: Item) -> list[str]:
        """A message with one trade."""
        return [old_message([item])] if isinstance(item, Trade) and item.symbol in self._subscribed else []

    def snapshot(self, symbol: str, trades: Sequence[Trade]) -> list[str]:
        """The last 50 trades."""
        return [old_message(trades[-SNAPSHOT:])] if trades else []

    def beat(self, now_us: int) -> list[str]:
        """A heartbeat, if there is a subscription."""
        return ['{"event":"heartbeat"}'] if self._subscribed else []

    def skip(self) -> None:
        """Always raises ValueError: messages have no numbers."""
        raise ValueError("Kraken numbers no messages, and trades have no ids")

    def _obey(self, event: str, pair: str, tag: dict[str, Any]) -> str:
        symbol = self.known.get(pair)
        if symbol is None or (event == "subscribe" and self.refuse(symbol)):
            words = f"Currency pair not supported {pair}"
            return compact(
                {"errorMessage": words, "event": "subscriptionStatus"} | _about("error", pair, tag)
            )
        (self._subscribed.update if event == "subscribe" else self._drop)({symbol: None})
        head = {"channelID": 337, "channelName": "trade", "event": "subscriptionStatus"}
        return compact(head | _about(f"{event}d", pair, tag))

    def _drop(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self._subscribed.pop(symbol, None)


def _about(status: str, pair: str, tag: dict[str, Any]) -> dict[str, Any]:
    return {"pair": pair} | tag | {"status": status, "subscription": {"name": "trade"}}


def kraken_rest(symbols: Iterable[str]) -> Rest:
    """Answers to `/0/public/Trades`, as api.kraken.com gives them, for these symbols."""
    known = {old_name(symbol, ""): symbol for symbol in symbols}

    def answer(path: str, query: Mapping[str, str], tape: Tape) -> Answer:
        if path != "/0/public/Trades":
            return Answer(404, b'{"error":["EGeneral:Unknown method"]}')
        pair = query.get("pair", "")
        if pair not in known:
            return Answer(200, b'{"error":["EQuery:Unknown asset pair"]}')
        since, count = integer(query, "since"), min(integer(query, "count", 1000) or 1000, 1000)
        found = list(numbered(tape(known[pair])))
        found = found[-count:] if since is None else [each for each in found if each[0] > since][:count]
        last = found[-1][0] if found else since or 0
        rows = ",".join(_row(trade, ns) for ns, trade in found)
        return Answer(200, f'{{"error":[],"result":{{{quoted(pair)}:[{rows}],"last":"{last}"}}}}'.encode())

    return answer


def numbered(trades: Iterable[Trade]) -> Iterable[tuple[int, Trade]]:
    """Each trade with its time in ns, by which REST goes on. No two of them are the same."""
    before = -1
    for trade in trades:
        before = max(before + 1, trade.timestamp_us * 1000)
        yield before, trade


def _row(trade: Trade, ns: int) -> str:
    moment = f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09d}".rstrip("0")
    moment = f"{moment}0" if moment.endswith(".") else moment
    return f'["{trade.price}","{trade.qty}",{moment},"{_CODES[trade.side]}","m","",{trade.id}]'


def kraken_dialect(
    *, symbols: Iterable[str] = SYMBOLS, heartbeat: float | None = 1.0, ping: float | None = 20.0
) -> Dialect:
    """Kraken's dialect. `symbols` are those that it knows; `Dialect` explains the durations (seconds)."""
    known = frozenset(symbols)
    return Dialect(
        "kraken",
        PATH,
        _opener(known),
        heartbeat=heartbeat,
        ping=ping,
        snapshot=lambda session, symbol, trades: session.snapshot(symbol, trades),
        rest=kraken_rest(known),
        weight_a_minute=60,
    )


def _opener(
    known: frozenset[str],
) -> Callable[[str, dict[str, str], Refuse], KrakenSession | OldKrakenSession]:
    old = {old_name(symbol): symbol for symbol in known}

    def open_session(path: str, headers: dict[str, str], refuse: Refuse) -> KrakenSession | OldKrakenSession:
        match path.partition("?")[0]:
            case "/v2":
                return KrakenSession(known, refuse)
            case "/":
                return OldKrakenSession(old, refuse)
        raise HandshakeRefused(404, "no such path: version 2 is at /v2, version 1 at /")

    return open_session


def kraken_feed() -> Feed:
    """A generated market."""
    return generated(MARKET)


def kraken_symbol(symbol: str) -> str | None:
    """BTC-USD and BTC/USD are ``BTC/USD``."""
    return symbol.replace("-", "/") if "-" in symbol or "/" in symbol else None


DEFINITION = Definition(
    title="Kraken",
    port=PORT,
    dialect=lambda symbols: kraken_dialect(symbols={*SYMBOLS, *symbols}),
    feed=kraken_feed,
    symbol=kraken_symbol,
)
