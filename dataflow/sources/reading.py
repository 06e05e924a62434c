"""Helpers to read messages from outside. The result is a reliable value, or a named problem.

Rules of this file. There is one error for bad input of any kind: `Unusable`. No value is repaired. No default
replaces a missing value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from dataflow.domain.secrets import without_kept
from dataflow.domain.timestamps import LATEST

T = TypeVar("T")

EXCERPT: Final = 120  # characters of a message in logs and in the status
_SECRET: Final = 2048  # characters: a longer secret may be shown in part
UNSIGNED: Final = r"[0-9]{1,40}+(?:\.[0-9]{1,40}+)?+(?:[eE][+-]?[0-9]{1,2})?"  # accepted numerals
_is_unsigned: Final = re.compile(UNSIGNED).fullmatch
LAST_COUNT: Final = 2**53  # what a client can count, too
_is_count: Final = re.compile(r"0|[1-9][0-9]{0,15}").fullmatch
_REMEMBERED: Final = 4096  # numerals: holds about three of four in one hour of trades of BTC and ETH


class Unusable(ValueError):
    """A message or value from outside that cannot be used. `reason`: a snake_case name, for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decoded(message: str | bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The JSON of a text message, decoded by `decoder`.

    Raises Unusable: not_text, malformed_json, or unexpected_json for JSON of another shape.
    """
    if not isinstance(message, str):
        raise Unusable("not_text")
    try:
        return decoder.decode(message)
    except msgspec.ValidationError as error:
        raise Unusable("unexpected_json") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unusable("malformed_json") from error


def answered(answer: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The JSON of an answer by HTTP, decoded by `decoder`. Raises Unusable like `decoded`."""
    try:
        return decoded(answer.decode(), decoder)
    except UnicodeError as error:
        raise Unusable("malformed_json") from error


def positive_decimal(numeral: str, otherwise: str) -> Decimal:
    """The exact value of a decimal numeral, greater than zero. Raises Unusable(otherwise)."""
    if _is_unsigned(numeral) is None or not (value := Decimal(numeral)):
        raise Unusable(otherwise)
    return value


class PositiveDecimals(dict[str, Decimal]):
    """A cache of `positive_decimal`: `decimals[numeral]`.

    Many trades have the same few prices and sizes. They share one object. At most `_REMEMBERED` are kept;
    then the cache is emptied. Raises Unusable for any other string, TypeError for an unhashable value.
    """

    def __missing__(self, numeral: str) -> Decimal:
        if _is_unsigned(numeral) is None or not (value := Decimal(numeral)):
            raise Unusable("bad_number")
        if len(self) >= _REMEMBERED:
            self.clear()
        self[numeral] = value
        return value

    def read(self, value: Any, otherwise: str) -> Decimal:
        """The number in a field, written as text. Raises Unusable: missing_field, or `otherwise`."""
        if not isinstance(present(value), str):
            raise Unusable(otherwise)
        try:
            return self[value]
        except Unusable:
            raise Unusable(otherwise) from None


def excerpt(message: str | bytes) -> str:
    """The beginning of a message, in printable ASCII, at most `EXCERPT` characters. None of our secrets."""
    begin = message[: EXCERPT + _SECRET]
    shown = ascii(without_kept(begin)[:EXCERPT]) if isinstance(begin, str) else without_kept(ascii(begin))
    return shown if len(shown) <= EXCERPT else shown[: EXCERPT - 3] + "..."


def present(value: Any) -> Any:
    """The value of a field. Raises Unusable, missing_field."""
    if value is None:
        raise Unusable("missing_field")
    return value


def named_in(symbols: Mapping[str, str], name: Any) -> str:
    """The canonical symbol, by a table of what the upstream calls the known ones. Raises Unusable."""
    symbol = symbols.get(name) if isinstance(present(name), str) else None
    if symbol is None:
        raise Unusable("unknown_symbol")
    return symbol


def counted(value: Any, otherwise: str) -> int:
    """A whole number from 0 to 2**53, also as digits in a text: a greater one is noise. Raises Unusable."""
    number = int(value) if isinstance(present(value), str) and _is_count(value) else value
    if type(number) is not int or not 0 <= number <= LAST_COUNT:
        raise Unusable(otherwise)
    return number


def from_milliseconds(value: Any) -> int:
    """Milliseconds since the epoch, a number or digits in a text, in nanoseconds.

    Raises Unusable, bad_timestamp.
    """
    nanoseconds = counted(value, "bad_timestamp") * 1_000_000
    if not 0 < nanoseconds < LATEST:
        raise Unusable("bad_timestamp")
    return nanoseconds
