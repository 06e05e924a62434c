"""The fields of a message from outside. The result is a reliable value, or a named problem.

Rules of this file, as of `reading`: one error, `Unusable`. No value is repaired, and no default replaces one
that is missing: a field that is not there is `missing_field`, whatever it is; one that is wrong has a name of
its own. Numbers keep the digits that were sent, and times are integers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from dataflow.domain.timestamps import EARLIEST, LATEST, from_rfc3339

from .reading import Unusable

T = TypeVar("T")

UNSIGNED: Final = r"[0-9]{1,40}+(?:\.[0-9]{1,40}+)?+(?:[eE][+-]?[0-9]{1,2})?"  # accepted numerals
LAST_COUNT: Final = 2**53  # what a client can count, too
_REMEMBERED: Final = 4096  # numerals: holds about three of four in one hour of trades of BTC and ETH
_NAMES: Final = 2**64  # an identifier is a number below it
_SECOND: Final = 1_000_000_000
_is_unsigned: Final = re.compile(UNSIGNED).fullmatch
_is_count: Final = re.compile(r"0|[1-9][0-9]{0,15}").fullmatch
_is_number: Final = re.compile(r"[1-9][0-9]{0,19}").fullmatch
_is_seconds: Final = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9})[0-9]{0,9})?").fullmatch


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


def one_of(value: Any, table: Mapping[Any, T], otherwise: str) -> T:
    """What the table has for a text or a number. Raises Unusable: missing_field, or `otherwise`."""
    found = table.get(value) if type(present(value)) in (str, int) else None
    if found is None:
        raise Unusable(otherwise)
    return found


def counted(value: Any, otherwise: str) -> int:
    """A whole number from 0 to 2**53, also as digits in a text: a greater one is noise. Raises Unusable."""
    number = int(value) if isinstance(present(value), str) and _is_count(value) else value
    if type(number) is not int or not 0 <= number <= LAST_COUNT:
        raise Unusable(otherwise)
    return number


def whole(value: Any, otherwise: str) -> int:
    """A whole number of JSON from 0 to 2**53, and no text. Raises Unusable: missing_field, or `otherwise`."""
    if type(present(value)) is not int:
        raise Unusable(otherwise)
    return counted(value, otherwise)


def identifier(value: Any) -> str:
    """A number that is a name and counts nothing, also as digits in a text. Raises Unusable: bad_trade_id."""
    number = int(value) if isinstance(present(value), str) and _is_number(value) else value
    if type(number) is not int or not 0 < number < _NAMES:
        raise Unusable("bad_trade_id")
    return str(number)


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
        value = positive_decimal(numeral, "bad_number")
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


def json_text(raw: msgspec.Raw) -> str:
    """The JSON of a field, as it was written. Raises Unusable: missing_field."""
    written = bytes(raw)
    if not written or written == b"null":
        raise Unusable("missing_field")
    return written.decode()


def json_number(raw: msgspec.Raw, decimals: PositiveDecimals, otherwise: str) -> Decimal:
    """A number of JSON with all its digits. Raises Unusable: missing_field, or `otherwise`."""
    return decimals.read(json_text(raw), otherwise)


def from_milliseconds(value: Any) -> int:
    """Milliseconds since the epoch, a number or digits in a text, in nanoseconds.

    Raises Unusable, bad_timestamp.
    """
    return _since_epoch(counted(value, "bad_timestamp") * 1_000_000)


def from_microseconds(value: Any) -> int:
    """Microseconds since the epoch, a number or digits in a text, in ns. Raises Unusable: bad_timestamp."""
    return _since_epoch(counted(value, "bad_timestamp") * 1_000)


def from_seconds(value: Any) -> int:
    """Seconds since the epoch with their fraction, in a text, in ns. Raises Unusable: bad_timestamp.

    What is finer than a nanosecond is cut off.
    """
    found = _is_seconds(value) if isinstance(present(value), str) else None
    if found is None:
        raise Unusable("bad_timestamp")
    whole, fraction = found.groups()
    return _since_epoch(int(whole) * _SECOND + (int(fraction.ljust(9, "0")) if fraction else 0))


def from_text(value: Any) -> int:
    """A time as in RFC 3339, in ns since the epoch. Raises Unusable: bad_timestamp."""
    if not isinstance(present(value), str):
        raise Unusable("bad_timestamp")
    try:
        moment = from_rfc3339(value)
    except ValueError:
        raise Unusable("bad_timestamp") from None
    if not EARLIEST < moment < LATEST:
        raise Unusable("bad_timestamp")
    return moment


def _since_epoch(nanoseconds: int) -> int:
    if not 0 < nanoseconds < LATEST:
        raise Unusable("bad_timestamp")
    return nanoseconds
