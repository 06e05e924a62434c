"""Trades that producers push by HTTP, as lines of JSON: `POST /api/v1/ingest/NAME`.

Rules of this file. A line is one object, with the names that trades have on their way out: `symbol`,
`timestamp` (RFC 3339), `price` and `qty` (text or number, all digits count); and, as far as the producer
knows them, `side` (of the taker), `tradeId` and `sequence` (a number that grows by one from trade to trade of
a symbol). An unknown name is refused: it may be one of these with a mistake in it. A line that is too long is
left out, and the next one is read.

Problems: malformed_json, unexpected_json, unknown_field, missing_field, too_long, bad_side, bad_trade_id,
bad_sequence, and the refusals of `sources.intake`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec
from attrs import frozen

from actors.connector import Received
from dataflow.domain import Item, Side
from dataflow.domain.timestamps import from_rfc3339
from dataflow.gateway.about import Sample
from dataflow.sources.fields import PositiveDecimals
from dataflow.sources.port import Pushed, PushJudge, PushSettings
from dataflow.sources.reading import Unusable, excerpt

LONGEST: Final = 65_536  # bytes of a line
LONGEST_ID: Final = 200  # characters
LAST_SEQUENCE: Final = 2**53  # a greater number is noise, and would make a gap that no client can count
_NEEDED: Final = ("symbol", "timestamp", "price", "qty")
_FIELDS: Final = frozenset((*_NEEDED, "side", "tradeId", "sequence"))
_SIDES: Final[dict[Any, Side]] = {"buy": "buy", "sell": "sell"}
_NUMERAL: Final = re.compile(rb'"?([0-9.eE+-]{1,100})"?')
_ABSENT: Final = (b"", b"null")
_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@frozen(kw_only=True)
class Settings(PushSettings):
    """The keys that every such source has are enough."""


class Codec:
    """The lines of one request."""

    def __init__(self, settings: PushSettings, judge: PushJudge) -> None:
        self._judge = judge
        self._decimals = PositiveDecimals()
        self._rest = b""  # the beginning of a line
        self._is_too_long = (
            False  # what comes up to the next end of a line belongs to a line that was refused
        )
        self.whole = 0

    @property
    def begun(self) -> bool:
        """Whether a line has begun that is not whole yet."""
        return bool(self._rest) or self._is_too_long

    def decode(self, data: bytes, into: Received[Item]) -> None:
        """Add what the next bytes bring. The top of this file lists the problems."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._read(self._rest + line, into)
            self._rest, self._is_too_long = b"", False
        self._rest += rest
        if len(self._rest) > LONGEST:
            if not self._is_too_long:
                self._refuse("too_long", self._rest, into)
            self._rest, self._is_too_long = b"", True

    def _read(self, line: bytes, into: Received[Item]) -> None:
        if self._is_too_long or not line.strip():
            return
        if len(line) > LONGEST:
            self._refuse("too_long", line, into)
            return
        self.whole += 1
        try:
            into.items.append(self._judge(self._pushed(line)))
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(line)))

    def _refuse(self, reason: str, line: bytes, into: Received[Item]) -> None:
        self.whole += 1
        into.problems.append((reason, excerpt(line)))

    def _pushed(self, line: bytes) -> Pushed:
        said = _object(line)
        if not said.keys() <= _FIELDS:
            raise Unusable("unknown_field")
        if any(bytes(said.get(name, b"")) in _ABSENT for name in _NEEDED):
            raise Unusable("missing_field")
        return Pushed(
            _text(said["symbol"], "bad_symbol"),
            self._number(said["price"], "bad_price"),
            self._number(said["qty"], "bad_quantity"),
            _moment(_text(said["timestamp"], "bad_timestamp")),
            _side(said.get("side")),
            _trade_id(said.get("tradeId")),
            _sequence(said.get("sequence")),
        )

    def _number(self, raw: msgspec.Raw, otherwise: str) -> Decimal:
        found = _NUMERAL.fullmatch(raw)
        try:
            return self._decimals[found[1].decode() if found else ""]
        except Unusable:
            raise Unusable(otherwise) from None


def _object(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode(line)
    except msgspec.ValidationError:
        raise Unusable("unexpected_json") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Unusable("malformed_json") from None


def _value(raw: msgspec.Raw | None) -> Any:
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Unusable("malformed_json") from None


def _text(raw: msgspec.Raw, otherwise: str) -> str:
    value = _value(raw)
    if not isinstance(value, str):
        raise Unusable(otherwise)
    return value


def _moment(text: str) -> int:
    try:
        return from_rfc3339(text)
    except ValueError:
        raise Unusable("bad_timestamp") from None


def _side(raw: msgspec.Raw | None) -> Side | None:
    value = _value(raw)
    if value is None:
        return None
    side = _SIDES.get(value) if isinstance(value, str) else None
    if side is None:
        raise Unusable("bad_side")
    return side


def _trade_id(raw: msgspec.Raw | None) -> str | None:
    value = _value(raw)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID or not value.isprintable():
        raise Unusable("bad_trade_id")
    return value


def _sequence(raw: msgspec.Raw | None) -> int | None:
    value = _value(raw)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= LAST_SEQUENCE:
        raise Unusable("bad_sequence")
    return value


# -- for the page `/faces` -----------------------------------------------------------------------------


def about(settings: Settings) -> Iterable[Sample]:
    """What producers send."""
    words = (
        "A producer pushes trades, one object a line. Whoever repeats a request after a timeout loses nothing"
        " and doubles nothing, if its trades have a `tradeId`."
    )
    url = "{http}/api/v1/ingest/NAME"
    token = "" if settings.token is None else " -H 'Authorization: Bearer TOKEN'"
    line = (
        '{"symbol":"AAPL","timestamp":"2026-01-02T15:04:05.123456Z","price":"150.25","qty":10,"tradeId":"1"}'
    )
    curl = f"curl -H 'Content-Type: application/x-ndjson'{token} --data-binary '{line}' {url}"
    yield Sample("Trades by HTTP", url, words, lines={"curl": curl})
