"""Bitfinex, API v2: `wss://api-pub.bitfinex.com/ws/2`.

Rules of this file. A trade comes twice, as `te` when it is executed and as `tu` when it is stored, with the
same id. The first one is taken: it is earlier, and in the order of the executions. A subscription begins with
a snapshot of the newest trades, the newest first; it is read from its end. The sign of the amount is the side
of the taker: less than zero is sold.

The first request asks for numbers (flag SEQ_ALL): every message of a channel has one then, one more than the
one before, whatever its channel. A skipped or repeated number proves a loss. Then the connection is given up,
and nothing more is read from it: what still comes may be out of order, and the next subscription finds it. As
many numbers may be skipped as there were unreadable messages; then every subscribed symbol is marked, but the
connection stays. Ids belong to the whole exchange and prove nothing, so
trades have no sequence, and every subscription leaves a mark.

An announced restart (20051) and the end of a maintenance (20061), after which Bitfinex advises to subscribe
again, lead to a new connection. A maintenance is a problem under its own name, so that somebody sees it.

Numbers are read with the digits that were sent. Their JSON may have an exponent, and no end of digits.

Problems: not_text, malformed_json, unexpected_json, missing_field, not_numbered, bad_sequence,
unknown_channel, unknown_event, unknown_message, unknown_symbol, rejected, maintenance, bad_trade_id,
bad_price, bad_quantity, bad_timestamp. Of an answer by REST also: refused, rate_limited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlencode

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.domain.symbols import contract
from dataflow.sources.fields import PositiveDecimals, from_milliseconds, named_in, present, whole
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Proof, Request, SourceSettings, rest_at
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

_SEQ_ALL: Final = 65536
_VERSION: Final = 2
_RESTART, _MAINTENANCE, _MAINTENANCE_ENDED = 20051, 20060, 20061
_ALREADY: Final = 10301
_TOO_OFTEN: Final = 11010
_CURRENCIES: Final = {"USDT": "UST", "USDC": "UDC"}  # Tether and USD Coin, as Bitfinex calls them
_PAGE: Final = 10_000  # trades, the most that Bitfinex gives


@frozen(kw_only=True)
class Settings(SourceSettings):
    """The keys that every source has are enough."""

    symbols_a_request: ClassVar[int] = 1
    symbols_a_connection: ClassVar[int] = 25
    connections_in: ClassVar[tuple[int, float]] = (20, 60.0)

    stale_after: float = field(default=30.0, validator=validators.gt(0))  # a heartbeat comes every 15 s
    refill_url: str = rest_at("https://api-pub.bitfinex.com")
    refill_weight: int = field(default=15, validator=validators.gt(0))  # the history takes 15 a minute

    @property
    def numbered(self) -> Proof:
        return Proof.MESSAGES

    def derived(self, symbol: str) -> str:
        """tBTCUSD, tBTCUST (Tether), tDOGE:USD (four letters); tBTCF0:USTF0 for a perpetual."""
        pair, kind = contract(symbol) or (symbol, "")
        base, _, quote = pair.partition("-")
        base, quote = _CURRENCIES.get(base, base), _CURRENCIES.get(quote, quote)
        if kind:  # there are no futures that end on a day: the name of one is refused there
            return f"t{base}F0:{quote}F0" if kind == "PERP" else f"t{symbol}"
        return f"t{base}{quote}" if len(base) <= 3 and len(quote) <= 3 else f"t{base}:{quote}"


class _Numeral(str):
    """A JSON number with a fraction or an exponent, as it was written."""


class _Event(msgspec.Struct, rename="camel"):
    event: Any = None
    version: Any = None
    platform: Any = None
    code: Any = None
    msg: Any = None
    status: Any = None
    channel: Any = None
    symbol: Any = None
    chan_id: Any = None


_event_decoder: Final = msgspec.json.Decoder(_Event)
_decoder: Final = msgspec.json.Decoder(list[Any], float_hook=_Numeral)
_rest_decoder: Final = msgspec.json.Decoder(list[Any] | dict[str, Any], float_hook=_Numeral)


class _Reader:
    """Reads a trade, which is the same on both ways: id, milliseconds, amount, price."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decimals = PositiveDecimals()

    def read(self, symbol: str, said: Any) -> Trade:
        if not isinstance(said, list):
            raise Unusable("unexpected_json")
        if len(said) < 4:
            raise Unusable("missing_field")
        amount = _numeral(said[2], "bad_quantity")
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=str(whole(said[0], "bad_trade_id")),
            side="sell" if amount.startswith("-") else "buy",
            price=self._decimals.read(_numeral(said[3], "bad_price"), "bad_price"),
            quantity=self._decimals.read(amount.removeprefix("-"), "bad_quantity"),
            timestamp=from_milliseconds(whole(said[1], "bad_timestamp")),
        )


class Codec:
    """The language of Bitfinex, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}
        self._reader = _Reader(name)
        self._channels: dict[int, str] = {}  # symbols by the number of their channel
        self._is_numbered = False
        self._due: int | None = None  # the next number
        self._unread = 0  # messages since the last one with a readable number
        self._is_over = False  # the numbering broke

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """A request for numbers."""
        return (_written(event="conf", flags=_SEQ_ALL),)

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request per symbol."""
        names = {self._settings.exchange_name(symbol): symbol for symbol in symbols}
        self._symbols.update(names)
        return [_written(event="subscribe", channel="trades", symbol=name) for name in names]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request per symbol, by its channel."""
        channels = [number for number, symbol in self._channels.items() if symbol in symbols]
        return [_written(event="unsubscribe", chanId=number) for number in channels]

    def probe(self) -> Sequence[str]:
        """A ping: before the first subscription there is no heartbeat."""
        return (_written(event="ping"),)

    def missed(self, symbol: str) -> Missed | None:
        """A mark, always: ids prove nothing. The snapshot may take it back."""
        return Missed(self._name, symbol, "source_gap", resubscribed=True)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        if self._is_over:
            return
        try:
            said = _parsed(message)
            if isinstance(said, list):
                self._count(said, into)
        except Unusable as problem:
            self._unread += 1
            into.problems.append((problem.reason, excerpt(message)))
            return
        if self._is_over:
            return
        try:
            if isinstance(said, list):
                self._receive(said, message, into)
            else:
                self._hear(said, into)
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _count(self, said: list[Any], into: Received[Item]) -> None:
        """The number stands behind the content. More may be appended to a message, so it is not the last."""
        if not self._is_numbered:
            return
        at = 2 if len(said) > 1 and (said[1] == "hb" or isinstance(said[1], list)) else 3
        number = whole(said[at] if len(said) > at else None, "bad_sequence")
        due, unread = self._due, self._unread
        self._due, self._unread = number + 1, 0
        if due is None or number == due:
            return
        if due < number <= due + unread:
            into.items.extend(Missed(self._name, symbol, "source_gap") for symbol in self._channels.values())
        else:
            self._is_over = True
            into.lost = f"message {number} where {due} was due"

    def _receive(self, said: list[Any], message: str | bytes, into: Received[Item]) -> None:
        if len(said) < 2:
            raise Unusable("unknown_message")
        channel, what = said[0], said[1]
        symbol = self._channels.get(channel) if type(channel) is int else None
        if symbol is None:
            raise Unusable("unknown_channel")
        if isinstance(what, list):
            self._trades(symbol, reversed(what), message, into)
        elif what == "te":
            self._trades(symbol, said[2:3] or [None], message, into)
        elif what not in ("hb", "tu"):
            raise Unusable("unknown_message")

    def _trades(self, symbol: str, trades: Iterable[Any], message: str | bytes, into: Received[Item]) -> None:
        for said in trades:
            try:
                into.items.append(self._reader.read(symbol, said))
            except Unusable as problem:
                into.problems.append((problem.reason, excerpt(message)))
                into.items.append(Missed(self._name, symbol, "source_gap"))

    def _hear(self, said: _Event, into: Received[Item]) -> None:
        if said.event == "subscribed":
            self._subscribed(said, into)
        elif said.event == "unsubscribed":
            symbol = self._channels.pop(said.chan_id, None) if type(said.chan_id) is int else None
            if symbol is None:
                raise Unusable("unknown_channel")
            into.unsubscribed(symbol)
        elif said.event == "error":
            self._refused(said, into)
        elif said.event == "info":
            _inform(said, into)
        elif said.event == "conf":
            self._is_numbered = said.status == "OK"
            if not self._is_numbered:
                raise Unusable("not_numbered")
        elif said.event != "pong":
            raise Unusable("unknown_message" if said.event is None else "unknown_event")

    def _subscribed(self, said: _Event, into: Received[Item]) -> None:
        if said.channel != "trades":
            raise Unusable("unknown_channel")
        symbol = named_in(self._symbols, said.symbol)
        self._channels[whole(said.chan_id, "unknown_channel")] = symbol
        into.subscribed(symbol)

    def _refused(self, said: _Event, into: Received[Item]) -> None:
        if said.symbol is None:
            raise Unusable("rejected")
        symbol = named_in(self._symbols, said.symbol)
        if said.code == _ALREADY and symbol in self._channels.values():
            into.subscribed(symbol)
        else:
            into.refused(words_of(said.msg), symbol)


class Filler:
    """The language of Bitfinex's REST: trades of any time, by their milliseconds."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._settings = settings
        self._reader = _Reader(name)

    def fill(self, missing: Missing) -> Request | None:
        """From the millisecond of `after` to that of `before`, oldest first; without `after` the newest."""
        return self._page(missing, _milliseconds(missing.after))

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """Its trades. Behind a full page there may be more, from its last millisecond on."""
        trades = self._read(missing.symbol, answer)
        if missing.after is None:
            return Page(trades[::-1])
        following = self._page(missing, _milliseconds(trades[-1])) if len(trades) >= _PAGE else None
        return Page(trades, None if following == request else following)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """The newest trade of the first symbol: tickers tell of no trade."""
        return self._get(symbols[0], limit=1)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """By its id and its time."""
        trades = self._read(symbols[0], answer)
        return {each.symbol: Newest.of(each) for each in trades[:1]}

    def _page(self, missing: Missing, start: int | None) -> Request:
        bounds = {"start": start, "end": _milliseconds(missing.before)}
        given = {key: value for key, value in bounds.items() if value is not None}
        return self._get(missing.symbol, limit=_PAGE, sort=-1 if start is None else 1, **given)

    def _get(self, symbol: str, **query: int) -> Request:
        name = quote(self._settings.exchange_name(symbol), safe=":")
        return Request(f"/v2/trades/{name}/hist?{urlencode(query)}")

    def _read(self, symbol: str, answer: bytes) -> list[Trade]:
        said = answered(answer, _rest_decoder)
        if isinstance(said, dict) or said[:1] == ["error"]:
            words = said.get("error") if isinstance(said, dict) else said[1:2]
            raise Unusable(RATE_LIMITED if words in ("ERR_RATE_LIMIT", [_TOO_OFTEN]) else "refused")
        return [self._reader.read(symbol, each) for each in said]


def _parsed(message: str | bytes) -> _Event | list[Any]:
    if isinstance(message, str) and message.startswith("{"):
        return decoded(message, _event_decoder)
    return decoded(message, _decoder)


def _inform(said: _Event, into: Received[Item]) -> None:
    if said.code == _RESTART:
        into.leaving = words_of(said.msg, otherwise=f"the upstream announced its end ({_RESTART})")
    elif said.code == _MAINTENANCE_ENDED:
        into.leaving = "a maintenance of the upstream has ended: it must be asked again"
    elif said.code == _MAINTENANCE:
        raise Unusable("maintenance")
    elif said.code is not None:
        raise Unusable("unknown_message")
    elif said.version is not None and said.version != _VERSION:
        into.lost = (
            f"the upstream speaks version {excerpt(str(said.version))} of its language, not {_VERSION}"
        )
    elif isinstance(said.platform, dict) and said.platform.get("status") == 0:
        raise Unusable("maintenance")


def _numeral(value: Any, otherwise: str) -> str:
    if type(present(value)) is int:
        return str(value)
    if not isinstance(value, _Numeral):
        raise Unusable(otherwise)
    return value


def _milliseconds(trade: Trade | None) -> int | None:
    return None if trade is None else trade.timestamp // 1_000_000


def _written(**fields: object) -> str:
    return msgspec.json.encode(fields).decode()
