"""The Blockchain.com exchange: `wss://ws.blockchain.info/mercury-gateway/v1/ws`.

Rules of this file. `seqnum` counts the messages of a connection. A skipped or repeated number proves a loss:
every acknowledged symbol is marked, and the connection is given up. An unreadable message may have had a
number or not. So as many numbers may be skipped as there were unreadable messages. In that case the symbols
are marked but the connection stays, because a new one would not bring the messages back. The first number of
a connection may be any number, because nothing is acknowledged before it. Trade ids are not contiguous and
prove nothing. So trades have no sequence, and every subscription leaves a mark.

A trade in the usual form and with the next number is read by one regular expression. It allows nothing that
JSON and the checks below forbid. Any other message is decoded, and there problems get their names.

Every request for trades has one answer, and the answer names its symbol. A rejection without a symbol is a
problem as long as there is doubt. Once there are as many of them as unanswered requests, they answer these.
Until then the codec waits for the other answers.

Problems: not_text, malformed_json, unexpected_json, missing_field, bad_seqnum, unknown_channel,
unknown_event, rejected, unknown_symbol, bad_timestamp, bad_side, bad_price, bad_quantity,
bad_trade_id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
from attrs import field, frozen

from actors.connector import Received
from dataflow.domain import Item, Missed, Side, Trade
from dataflow.domain.timestamps import utc_second
from dataflow.sources.fields import (
    UNSIGNED,
    PositiveDecimals,
    from_text,
    json_number,
    named_in,
    one_of,
)
from dataflow.sources.port import Proof, SourceSettings
from dataflow.sources.reading import EXCERPT, Unusable, decoded, excerpt, words_of

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
    r'"timestamp":"((?:19|20)[^".\\]{17})\.([0-9]{6})Z","side":"(buy|sell)",'
    rf'"qty":{_NUMBER},"price":{_NUMBER},"trade_id":"([0-9A-Za-z-]+)"\}}'
).fullmatch

Action = Literal["subscribe", "unsubscribe"]


@frozen(kw_only=True)
class Settings(SourceSettings):
    """`api_token`: only for the private channels of an account. Trades are public."""

    symbols_a_request: ClassVar[int] = 1

    api_token: str | None = field(default=None, repr=False)

    @property
    def numbered(self) -> Proof:
        return Proof.MESSAGES


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
    """The language of Blockchain.com, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._known = {symbol: symbol for symbol in settings.symbols}
        self._decimals = PositiveDecimals()
        self._acknowledged: dict[str, None] = {}
        self._unanswered: dict[tuple[Action, str], None] = {}  # requests for trades, in order
        self._nameless: list[str] = []  # the texts of rejections without a symbol
        self._next_seqnum: int | None = None
        self._unread = 0  # messages since the last one with a readable seqnum

    def headers(self) -> Collection[tuple[str, str]]:
        """The origin. The exchange refuses a handshake without it."""
        return (("Origin", ORIGIN),)

    def opening(self) -> Sequence[str]:
        """A request for the heartbeat, which distinguishes a quiet market from a dead connection."""
        heartbeat = _request("subscribe", channel="heartbeat")
        token = self._settings.api_token
        if token is None:
            return (heartbeat,)
        return (_request("subscribe", channel="auth", token=token), heartbeat)

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request per symbol: each answer names its symbol."""
        self._known.update((symbol, symbol) for symbol in symbols)
        return self._requests("subscribe", symbols)

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request per symbol."""
        return self._requests("unsubscribe", symbols)

    def probe(self) -> Sequence[str]:
        """None: there is a heartbeat every 5 seconds."""
        return ()

    def missed(self, symbol: str) -> Missed | None:
        """A mark, always: trade ids prove nothing."""
        return Missed(self._name, symbol, "source_gap", resubscribed=True)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
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
        """The trade of a usual message, which is counted. In doubt None, and nothing is counted."""
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
        symbol = named_in(self._known, said.symbol)
        self._acknowledged[symbol] = None
        into.subscribed(symbol)
        self._answered("subscribe", symbol, into)

    def _unsubscribed(self, said: _Message, into: Received[Item]) -> None:
        symbol = named_in(self._known, said.symbol)
        self._acknowledged.pop(symbol, None)
        into.unsubscribed(symbol)
        self._answered("unsubscribe", symbol, into)

    def _rejected(self, said: _Message, into: Received[Item]) -> None:
        reason = words_of(said.text)
        if said.symbol is None:
            self._nameless.append(reason)
            if not self._attribute(into):
                raise Unusable("rejected")
            return
        symbol = named_in(self._known, said.symbol)
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
        """Match rejections without a symbol to unanswered requests, if there is no doubt.

        Returns whether a symbol was refused.
        """
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
            # This trade is lost. Mark its symbol, or all symbols if the message names none.
            nameless = not isinstance(said.symbol, str)
            self._mark([symbol for symbol in self._acknowledged if nameless or symbol == said.symbol], into)
            raise

    def _trade(self, said: _Message) -> Trade:
        return Trade(
            source=self._name,
            symbol=named_in(self._known, said.symbol),
            trade_id=_trade_id(said.trade_id),
            side=one_of(said.side, _SIDES, "bad_side"),
            price=json_number(said.price, self._decimals, "bad_price"),
            quantity=json_number(said.qty, self._decimals, "bad_quantity"),
            timestamp=from_text(said.timestamp),
        )


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
