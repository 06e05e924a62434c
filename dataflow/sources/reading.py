"""Reading what strangers sent: a value that can be relied on, or a name for what is wrong with it.

Rules of this file: one error, `Unusable`, for everything that comes from outside, whatever it is;
no value is repaired and no default stands in for one that is missing.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

EXCERPT: Final = 120  # characters of a message that are shown to people
UNSIGNED: Final = r"[0-9]{1,40}+(?:\.[0-9]{1,40}+)?+(?:[eE][+-]?[0-9]{1,2})?"  # numerals that are believed
_is_unsigned: Final = re.compile(UNSIGNED).fullmatch
_REMEMBERED: Final = 4096  # numerals; of BTC's and ETH's trades in one hour this holds about three of four


class Unusable(ValueError):
    """Something from outside that cannot be used; `reason` is the snake_case name to count it under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decoded(message: str | bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """A text message as what `decoder` makes of its JSON.

    Raises Unusable: not_text, malformed_json, or unexpected_json when it is JSON of another shape.
    """
    if not isinstance(message, str):
        raise Unusable("not_text")
    try:
        return decoder.decode(message)
    except msgspec.ValidationError as error:
        raise Unusable("unexpected_json") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unusable("malformed_json") from error


def positive_decimal(numeral: str, otherwise: str) -> Decimal:
    """The exact value of a decimal numeral, greater than zero. Raises Unusable(otherwise)."""
    if _is_unsigned(numeral) is None or not (value := Decimal(numeral)):
        raise Unusable(otherwise)
    return value


class PositiveDecimals(dict[str, Decimal]):
    """`positive_decimal` by subscription, for what comes in great numbers: trades repeat a few prices and
    sizes, and those that do share one object. Remembers at most `_REMEMBERED`, then begins anew.

    Raises Unusable for every other string, TypeError for what is none.
    """

    def __missing__(self, numeral: str) -> Decimal:
        if _is_unsigned(numeral) is None or not (value := Decimal(numeral)):
            raise Unusable("bad_number")
        if len(self) >= _REMEMBERED:
            self.clear()
        self[numeral] = value
        return value


def excerpt(message: str | bytes) -> str:
    """The beginning of a message, printable, at most `EXCERPT` characters."""
    shown = ascii(message[:EXCERPT])
    return shown if len(shown) <= EXCERPT else shown[: EXCERPT - 3] + "..."
