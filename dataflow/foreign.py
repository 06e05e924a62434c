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
_NUMERAL: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?")


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
    if _NUMERAL.fullmatch(numeral) is None:
        raise Unusable(otherwise)
    value = Decimal(numeral)
    if value <= 0:
        raise Unusable(otherwise)
    return value


def excerpt(message: str | bytes) -> str:
    """The beginning of a message, printable, at most `EXCERPT` characters."""
    shown = ascii(message[:EXCERPT])
    return shown if len(shown) <= EXCERPT else shown[: EXCERPT - 3] + "..."
