"""OKX, API v5: `wss://ws.okx.com:8443/ws/v5/business`, or `.../public`.

Rules of this file. The path of the address decides the channel, because OKX has each at one of the two.

`/ws/v5/business` has `trades-all`: every trade in a message of its own. The ids of an instrument grow by one:
OKX writes that an aggregate of three trades with the last id 123 stands for 121, 122 and 123. So they are the
sequence, a skipped one proves a loss, and the REST history fills it.

`/ws/v5/public` has `trades`: one message for the trades of one taker order at one price. Its id is the last
one, and `count` tells how many trades it stands for. So an id that does not follow proves a loss. Aggregates
are in no history, and its single trades would count twice beside them: nothing is refilled.

`seqId` proves nothing, because several messages may have the same one. The quantity of a perpetual or a
future is a number of contracts, as OKX counts it.

Each symbol of a request has an answer of its own. A refusal has the id of its request, and concerns all
symbols of it that have no answer yet.

Problems: not_text, malformed_json, unexpected_json, missing_field, unknown_message, unknown_event,
unknown_channel, unknown_notice, unknown_symbol, rejected, bad_trade_id, bad_count, bad_side, bad_price,
bad_quantity, bad_timestamp. Of an answer by REST also: refused, rate_limited.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlencode

import msgspec
from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.domain.symbols import contract
from dataflow.sources.fields import PositiveDecimals, counted, from_milliseconds, named_in, one_of, present
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Proof, Request, SourceSettings, place, rest_at
from dataflow.sources.reading import Unusable, answered, decoded, excerpt, words_of

_CHANNELS: Final = {"business": "trades-all", "public": "trades"}  # by the end of the path
_SIDES: Final[Mapping[Any, Side]] = {"buy": "buy", "sell": "sell"}  # of the taker
_CLOSING: Final = "64008"  # the notice of a service upgrade; the connection ends 30 s later
_TOO_OFTEN: Final = ("50011", "50013", "50061")  # or the systems are busy
_PAGE: Final = 100  # trades, the most that OKX gives

Operation = Literal["subscribe", "unsubscribe"]


@frozen(kw_only=True)
class Settings(SourceSettings):
    """`url` ends in `/business` (every trade, with refill) or in `/public` (aggregates, without)."""

    # "The total length of multiple channels cannot exceed 64 KB", and there may be 480 requests an hour.
    symbols_a_request: ClassVar[int] = 100
    symbols_a_connection: ClassVar[int] = 1000
    connections_in: ClassVar[tuple[int, float]] = (3, 1.0)

    url: str = field()
    requests_per_second: int = field(default=3, validator=validators.ge(0))
    refill_url: str = rest_at("https://www.okx.com")
    refill_weight: int = field(default=300, validator=validators.gt(0))  # OKX takes 20 in 2 s

    @url.validator
    def _has_a_channel(self, _attribute: object, value: str) -> None:
        if place(value) and _channel(value) is None:
            raise ValueError("must end in /ws/v5/business (every trade) or /ws/v5/public (aggregates)")

    @property
    def numbered(self) -> Proof:
        return Proof.NUMBERS if _channel(self.url) == "trades-all" else Proof.MESSAGES

    def derived(self, symbol: str) -> str:
        """The same for spot and dated futures; a perpetual ends in -SWAP."""
        pair, kind = contract(symbol) or (symbol, "")
        return f"{pair}-SWAP" if kind == "PERP" else symbol


class _Trade(msgspec.Struct, gc=False, rename="camel"):
    inst_id: Any = None
    trade_id: Any = None
    px: Any = None
    sz: Any = None
    side: Any = None
    ts: Any = None
    count: Any = None


class _Channel(msgspec.Struct, gc=False, rename="camel"):
    channel: Any = None
    inst_id: Any = None


class _Frame(msgspec.Struct, gc=False):
    arg: _Channel | None = None
    data: list[_Trade] | None = None
    event: Any = None
    id: Any = None
    code: Any = None
    msg: Any = None


class _Answer(msgspec.Struct):
    code: Any = None
    data: list[_Trade] | None = None


_decoder: Final = msgspec.json.Decoder(_Frame)
_rest_decoder: Final = msgspec.json.Decoder(_Answer)


class _Reader:
    """Reads the fields of a trade, which are the same on both ways."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._is_single = _channel(settings.url) == "trades-all"
        self._decimals = PositiveDecimals()
        self.symbols = {settings.exchange_name(symbol): symbol for symbol in settings.symbols}

    def read(self, said: _Trade) -> Trade:
        symbol = named_in(self.symbols, said.inst_id)
        number = counted(said.trade_id, "bad_trade_id")
        return Trade(
            source=self._name,
            symbol=symbol,
            trade_id=str(number),
            side=one_of(said.side, _SIDES, "bad_side"),
            price=self._decimals.read(said.px, "bad_price"),
            quantity=self._decimals.read(said.sz, "bad_quantity"),
            timestamp=from_milliseconds(said.ts),
            sequence=number if self._is_single else None,
        )


class Codec:
    """The language of OKX, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._channel = _channel(settings.url)
        self._reader = _Reader(name, settings)
        self._ids = count(1)
        self._asked: dict[str, tuple[Operation, dict[str, None]]] = {}  # by id: what has no answer yet
        self._due: dict[str, int] = {}  # of aggregates: the id that follows, by symbol

    def headers(self) -> Collection[tuple[str, str]]:
        """None."""
        return ()

    def opening(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        return [self._request("subscribe", symbols)]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """One request."""
        for symbol in symbols:
            self._due.pop(symbol, None)
        return [self._request("unsubscribe", symbols)]

    def probe(self) -> Sequence[str]:
        """A ping. Without any message within 30 seconds OKX ends a connection."""
        return ("ping",)

    def missed(self, symbol: str) -> Missed | None:
        """A mark for aggregates. None for single trades: the sequence shows missing ones."""
        if self._channel == "trades-all":
            return None
        return Missed(self._name, symbol, "source_gap", resubscribed=True)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        if message == "pong":
            return
        try:
            frame = decoded(message, _decoder)
            if frame.data is None:
                self._understand(frame, into)
                return
            if frame.arg is None or frame.arg.channel != self._channel:
                raise Unusable("unknown_channel")
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))
            return
        for said in frame.data:
            try:
                self._receive(said, into)
            except Unusable as problem:
                into.problems.append((problem.reason, excerpt(message)))

    def _receive(self, said: _Trade, into: Received[Item]) -> None:
        trade = self._reader.read(said)
        if trade.sequence is None:
            self._follow(trade, counted(said.count, "bad_count"), into)
        into.items.append(trade)

    def _follow(self, trade: Trade, size: int, into: Received[Item]) -> None:
        """Put a mark before an aggregate whose first trade does not follow the last one."""
        last = int(trade.trade_id or 0)
        if not 0 < size <= last + 1:
            raise Unusable("bad_count")
        due = self._due.get(trade.symbol, 0)
        if due and last - size + 1 > due:
            into.items.append(Missed(self._name, trade.symbol, "source_gap"))
        self._due[trade.symbol] = max(due, last + 1)

    def _understand(self, frame: _Frame, into: Received[Item]) -> None:
        if frame.event in ("subscribe", "unsubscribe"):
            if frame.arg is None or frame.arg.channel != self._channel:
                raise Unusable("unknown_channel")
            self._confirmed(frame.event, named_in(self._reader.symbols, frame.arg.inst_id), frame.id, into)
        elif frame.event == "error":
            self._refused(frame, into)
        elif frame.event == "notice":
            if frame.code != _CLOSING:
                raise Unusable("unknown_notice")
            into.leaving = words_of(frame.msg, otherwise=f"the upstream announced its end ({_CLOSING})")
        else:
            raise Unusable("unknown_message" if frame.event is None else "unknown_event")

    def _confirmed(self, operation: str, symbol: str, request: Any, into: Received[Item]) -> None:
        (into.subscribed if operation == "subscribe" else into.unsubscribed)(symbol)
        _, waiting = self._asked.get(request, ("", {})) if isinstance(request, str) else ("", {})
        waiting.pop(symbol, None)
        if not waiting and isinstance(request, str):
            self._asked.pop(request, None)

    def _refused(self, frame: _Frame, into: Received[Item]) -> None:
        asked = self._asked.pop(frame.id, None) if isinstance(frame.id, str) else None
        if asked is None or asked[0] == "unsubscribe":
            raise Unusable("rejected")
        into.refused(words_of(frame.msg), *asked[1])

    def _request(self, operation: Operation, symbols: Collection[str]) -> str:
        names = {self._settings.exchange_name(symbol): symbol for symbol in symbols}
        self._reader.symbols.update(names)
        number = str(next(self._ids))
        self._asked[number] = (operation, dict.fromkeys(symbols))
        arguments = [{"channel": self._channel, "instId": name} for name in names]
        return msgspec.json.encode({"id": number, "op": operation, "args": arguments}).decode()


class Filler:
    """The language of OKX's REST: `history-trades`, single trades of the last three months."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._settings = settings
        self._reader = _Reader(name, settings)

    def fill(self, missing: Missing) -> Request | None:
        """The page that ends with the trade behind the missing ones; None for aggregates.

        The trades around the missing ones are asked for, too: they show whether the numbers mean the same.
        """
        if _channel(self._settings.url) != "trades-all":
            return None
        return self._page(missing, None if missing.last is None else missing.last + 2)

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """Its trades. As long as there are some, and not the first one that is asked for, older ones follow.

        A page is so many trades below an id. If ids were skipped, it has older ones, which are left out.
        """
        trades, lowest = self._read(answer), _lowest(missing)
        if lowest is None or not trades:
            return Page(trades)
        oldest = min(map(_number, trades))
        following = self._page(missing, oldest) if oldest > lowest else None
        return Page([trade for trade in trades if _number(trade) >= lowest], following)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """The newest trade of the first symbol: tickers tell of no trade."""
        return _get("trades", instId=self._settings.exchange_name(symbols[0]), limit=1)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """By id, which is the sequence of single trades."""
        return {trade.symbol: Newest.of(trade) for trade in self._read(answer) if trade.symbol in symbols}

    def _page(self, missing: Missing, below: int | None) -> Request:
        """Up to 100 trades with ids lower than `below`; None: the newest."""
        name, lowest, query = self._settings.exchange_name(missing.symbol), _lowest(missing), {}
        if below is not None:
            query["after"] = below  # in OKX's words a page goes on "after" what is newer
        elif lowest is not None:
            query["before"] = lowest - 1
        most = _PAGE if below is None or lowest is None else min(below - lowest, _PAGE)
        return _get("history-trades", instId=name, type=1, **query, limit=most)

    def _read(self, answer: bytes) -> list[Trade]:
        """The trades of an answer, oldest first: OKX gives the newest first."""
        said = answered(answer, _rest_decoder)
        if present(said.code) != "0":
            raise Unusable(RATE_LIMITED if said.code in _TOO_OFTEN else "refused")
        return [self._reader.read(each) for each in reversed(present(said.data))]


def _channel(url: str) -> str | None:
    _, path = place(url) or ("", "")
    return _CHANNELS.get(path.rpartition("/")[2])


def _number(trade: Trade) -> int:
    assert trade.trade_id is not None
    return int(trade.trade_id)


def _lowest(missing: Missing) -> int | None:
    return None if missing.first is None else max(missing.first - 1, 1)


def _get(what: str, **query: object) -> Request:
    return Request(f"/api/v5/market/{what}?{urlencode(query)}")
