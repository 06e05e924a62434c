"""The Blockchain.com exchange: `wss://ws.blockchain.info/mercury-gateway/v1/ws`.

Rules of this file. `seqnum` counts the messages of a connection: a number that is skipped or repeated
means that something was lost, so every acknowledged symbol is marked and the connection given up.
Messages that could not be read may or may not have had a number: up to that many may be skipped; the
symbols are marked but the connection stays, since a new one would not bring them back. Before the
first message nothing is acknowledged, so any first number will do. Trade ids are not contiguous and
prove nothing: trades carry no sequence, and every subscription leaves a mark.

A trade that is written as the exchange writes them, and comes in its turn, is read by one regular
expression, which allows nothing but what JSON and the checks below allow. Everything else is decoded, and
it is there that what is wrong gets its name.

Every request for trades has one answer, and an answer names its symbol. A rejection that names none is
a problem, and more only when there is no doubt: once as many of them came as requests are unanswered,
they are the answers to these. Until then the other answers are waited for.

Problems: not_text, malformed_json, unexpected_json, missing_field, bad_seqnum, unknown_channel,
unknown_event, rejected, unknown_symbol, bad_timestamp, bad_side, bad_price, bad_quantity,
bad_trade_id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from attrs import field, frozen

from actors.connector import Received
from dataflow.domain import Item, Missed, Side, Trade
from dataflow.domain.timestamps import from_rfc3339, utc_second
from dataflow.sources.port import SourceSettings
from dataflow.sources.reading import (
    EXCERPT,
    UNSIGNED,
    PositiveDecimals,
    Unusable,
    decoded,
    excerpt,
    positive_decimal,
)

ORIGIN: Final = "https://exchange.blockchain.com"  # the exchange refuses a handshake without it

_EVENTS: Final = frozenset({"subscribed", "unsubscribed", "snapshot", "updated"})
_OTHER_CHANNELS: Final = frozenset(
    {"heartbeat", "auth", "balances", "l2", "l3", "prices", "symbols", "ticker", "trading"}
)
_SIDES: Final[Mapping[str, Side]] = {"buy": "buy", "sell": "sell"}
_ABSENT: Final = msgspec.Raw(b"")
_NUMBER: Final = rf"((?!0[0-9]){UNSIGNED})"
_usual: Final = re.compile(
    r'\{"seqnum":(0|[1-9][0-9]{0,17}),"event":"updated","channel":"trades","symbol":"([A-Z0-9-]+)",'
    r'"timestamp":"([^".\\]{19})\.([0-9]{6})Z","side":"(buy|sell)",'
    rf'"qty":{_NUMBER},"price":{_NUMBER},"trade_id":"([0-9A-Za-z-]+)"\}}'
).fullmatch

Action = Literal["subscribe", "unsubscribe"]


@frozen(kw_only=True)
class Settings(SourceSettings):
    """`api_token` is only needed for an account's own channels; trades are public."""

    api_token: str | None = field(default=None, repr=False)


class _Message(msgspec.Struct):
    seqnum: Any = None
    event: Any = None
    channel: Any = None
    symbol: Any = None
    timestamp: Any = None
    side: Any = None
    qty: msgspec.Raw = _ABSENT
    price: msgspec.Raw = _ABSENT  # a list in channel "prices"
    trade_id: Any = None
    text: Any = None


_decoder: Final = msgspec.json.Decoder(_Message)


class Codec:
    """Blockchain.com's language, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._known = {symbol: symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._acknowledged: dict[str, None] = {}
        self._unanswered: dict[tuple[Action, str], None] = {}  # requests for trades, in order
        self._nameless: list[str] = []  # what was said in rejections that name no symbol
        self._next_seqnum: int | None = None
        self._unread = 0  # messages since the last one whose seqnum could be read

    def headers(self) -> Collection[tuple[str, str]]:
        """The origin, without which the exchange refuses."""
        return (("Origin", ORIGIN),)

    def opening(self) -> Sequence[str]:
        """The heartbeat, which tells a quiet market from a dead connection."""
        heartbeat = _request("subscribe", channel="heartbeat")
        token = self._settings.api_token
        if token is None:
            return (heartbeat,)
        return (_request("subscribe", channel="auth", token=token), heartbeat)

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request a symbol: the exchange answers each by name."""
        self._known.update((symbol, symbol) for symbol in symbols)
        return self._requests("subscribe", symbols)

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request a symbol."""
        return self._requests("unsubscribe", symbols)

    def probe(self) -> Sequence[str]:
        """Nothing: there is a heartbeat every 5 seconds."""
        return ()

    def missed(self, symbol: str) -> Missed | None:
        """Always a mark: trade ids prove nothing."""
        return Missed(self._name, symbol, "source_gap", resubscribed=True)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add what `message` says; see the problems at the top of this file."""
        if type(message) is str and (trade := self._trade_in_turn(message)):
            into.items.append(trade)
            return
        try:
            said = decoded(message, _decoder)
            self._count(said.seqnum, into)
        except Unusable as problem:
            self._unread += 1
            into.problems.append((problem.reason, excerpt(message)))
            return
        try:
            self._understand(said, into)
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _trade_in_turn(self, message: str) -> Trade | None:
        """The trade of a usual message, and it is counted; None, and nothing is, where there is a doubt."""
        usual = _usual(message)
        if usual is None:
            return None
        seqnum, symbol, second, microseconds, side, quantity, price, trade_id = usual.groups()
        number = int(seqnum)
        if number != self._next_seqnum:
            return None
        try:
            trade = Trade(
                self._name,
                self._known[symbol],
                trade_id,
                _SIDES[side],
                self._decimals[price],
                self._decimals[quantity],
                utc_second(second) * 1_000_000_000 + int(microseconds) * 1000,
            )
        except (KeyError, ValueError):
            return None
        self._next_seqnum = number + 1
        self._unread = 0
        return trade

    def _count(self, seqnum: object, into: Received[Item]) -> None:
        if seqnum is None:
            raise Unusable("missing_field")
        if type(seqnum) is not int or seqnum < 0:
            raise Unusable("bad_seqnum")
        expected, unread = self._next_seqnum, self._unread
        self._next_seqnum, self._unread = seqnum + 1, 0
        if expected is None or seqnum == expected:
            return
        self._mark(self._acknowledged, into)
        if not expected < seqnum <= expected + unread and into.lost is None:
            into.lost = f"seqnum {seqnum} where {expected} was due"

    def _mark(self, symbols: Collection[str], into: Received[Item]) -> None:
        into.items.extend(Missed(self._name, symbol, "source_gap") for symbol in symbols)

    def _understand(self, said: _Message, into: Received[Item]) -> None:
        if said.channel == "trades":
            handle = _HANDLERS.get(_text(said.event))
            if handle is None:
                raise Unusable("unknown_event")
            handle(self, said, into)
        elif said.event == "rejected":
            raise Unusable("rejected")
        elif _text(said.channel) not in _OTHER_CHANNELS:
            raise Unusable("unknown_channel")
        elif _text(said.event) not in _EVENTS:
            raise Unusable("unknown_event")

    def _requests(self, action: Action, symbols: Collection[str]) -> list[str]:
        self._unanswered.update(((action, symbol), None) for symbol in symbols)
        return [_request(action, channel="trades", symbol=symbol) for symbol in symbols]

    def _subscribed(self, said: _Message, into: Received[Item]) -> None:
        symbol = self._symbol(said)
        self._acknowledged[symbol] = None
        into.subscribed(symbol)
        self._answered("subscribe", symbol, into)

    def _unsubscribed(self, said: _Message, into: Received[Item]) -> None:
        symbol = self._symbol(said)
        self._acknowledged.pop(symbol, None)
        into.unsubscribed(symbol)
        self._answered("unsubscribe", symbol, into)

    def _rejected(self, said: _Message, into: Received[Item]) -> None:
        reason = said.text[:EXCERPT] if isinstance(said.text, str) else "refused without a reason"
        if said.symbol is None:
            self._nameless.append(reason)
            if not self._attribute(into):
                raise Unusable("rejected")
            return
        symbol = self._symbol(said)
        asked: list[Action] = [action for action, about in self._unanswered if about == symbol]
        action = asked[0] if asked else "subscribe"
        if action == "subscribe":
            into.refused(reason, symbol)
        self._answered(action, symbol, into)
        if action == "unsubscribe":
            raise Unusable("rejected")

    def _answered(self, action: Action, symbol: str, into: Received[Item]) -> None:
        self._unanswered.pop((action, symbol), None)
        self._attribute(into)

    def _attribute(self, into: Received[Item]) -> bool:
        """Hold nameless rejections against what is unanswered if that is beyond doubt; whether any was."""
        if len(self._unanswered) > len(self._nameless):
            return False
        refused = [symbol for action, symbol in self._unanswered if action == "subscribe"]
        for symbol in refused:
            into.refused("; ".join(dict.fromkeys(self._nameless))[:EXCERPT], symbol)
        self._unanswered.clear()
        self._nameless.clear()
        return bool(refused)

    def _updated(self, said: _Message, into: Received[Item]) -> None:
        try:
            into.items.append(self._trade(said))
        except Unusable:
            # A trade was here and is lost: its symbol is marked, or all of them when it has no name.
            nameless = not isinstance(said.symbol, str)
            self._mark([symbol for symbol in self._acknowledged if nameless or symbol == said.symbol], into)
            raise

    def _trade(self, said: _Message) -> Trade:
        return Trade(
            source=self._name,
            symbol=self._symbol(said),
            trade_id=_trade_id(said.trade_id),
            side=_side(said.side),
            price=_number(said.price, "bad_price"),
            quantity=_number(said.qty, "bad_quantity"),
            timestamp=_timestamp(said.timestamp),
        )

    def _symbol(self, said: _Message) -> str:
        symbol = self._known.get(_text(said.symbol))
        if symbol is None:
            raise Unusable("unknown_symbol")
        return symbol


_HANDLERS: Final[Mapping[str, Callable[[Codec, _Message, Received[Item]], None]]] = {
    "subscribed": Codec._subscribed,
    "unsubscribed": Codec._unsubscribed,
    "rejected": Codec._rejected,
    "updated": Codec._updated,
}


def _request(action: Action, **fields: str) -> str:
    return msgspec.json.encode({"action": action, **fields}).decode()


def _text(value: object) -> str:
    if value is None:
        raise Unusable("missing_field")
    return value if isinstance(value, str) else ""


def _trade_id(value: object) -> str:
    if not (found := _text(value)):
        raise Unusable("bad_trade_id")
    return found


def _side(value: object) -> Side:
    side = _SIDES.get(_text(value))
    if side is None:
        raise Unusable("bad_side")
    return side


def _number(raw: msgspec.Raw, otherwise: str) -> Any:
    written = bytes(raw)
    if not written or written == b"null":
        raise Unusable("missing_field")
    return positive_decimal(written.decode(), otherwise)


def _timestamp(value: object) -> int:
    try:
        return from_rfc3339(_text(value))
    except Unusable:
        raise
    except ValueError as error:
        raise Unusable("bad_timestamp") from error
