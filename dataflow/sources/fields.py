"""Fields of messages whose form is not that of every upstream: beside `reading`, and with its rules.

A field that is not there is `missing_field`, whatever it is; one that is wrong has a name of its own. Numbers
keep the digits that were sent, and times are integers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from dataflow.domain.timestamps import EARLIEST, LATEST, from_rfc3339

from .reading import PositiveDecimals, Unusable, counted, present

T = TypeVar("T")

_NAMES: Final = 2**64  # an identifier is a number below it
_SECOND: Final = 1_000_000_000
_is_number: Final = re.compile(r"[1-9][0-9]{0,19}").fullmatch
_is_seconds: Final = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9})[0-9]{0,9})?").fullmatch


def one_of(value: Any, table: Mapping[Any, T], otherwise: str) -> T:
    """What the table has for a text or a number. Raises Unusable: missing_field, or `otherwise`."""
    found = table.get(value) if type(present(value)) in (str, int) else None
    if found is None:
        raise Unusable(otherwise)
    return found


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


def json_text(raw: msgspec.Raw) -> str:
    """The JSON of a field, as it was written. Raises Unusable: missing_field."""
    written = bytes(raw)
    if not written or written == b"null":
        raise Unusable("missing_field")
    return written.decode()


def json_number(raw: msgspec.Raw, decimals: PositiveDecimals, otherwise: str) -> Any:
    """A number of JSON with all its digits. Raises Unusable: missing_field, or `otherwise`."""
    return decimals.read(json_text(raw), otherwise)


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
