"""RFC 3339 text to and from nanoseconds since the Unix epoch, exactly.

Rules of this file. Integers only: no float, no local time zone. A text that is not RFC 3339 raises
ValueError and is never repaired. A leap second (":60") is refused too, because Unix time has no number for
it. Years run from 0001 to 9999, those of trades from 1823 to 2116 (`EARLIEST`, `LATEST`).

Trades come in runs within one second. So both directions remember the seconds that they have converted, and
only work on the fraction.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

# Every trade is between these, ns since the epoch. A store counts in 64 bits, and so do sums of times.
EARLIEST: Final = -(1 << 62)
LATEST: Final = 1 << 62

_SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)

_DATE_TIME: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})")
_REST: Final = re.compile(r"(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))")
_PREFIX_LENGTH: Final = len("2020-05-10T18:33:36")


@lru_cache(maxsize=4096)
def utc_second(text: str) -> int:
    """Seconds since the epoch of an RFC 3339 date-time in UTC, without fraction and without its zone.

    Raises ValueError for any other text.
    """
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"not an RFC 3339 date-time: {text!r}")
    year, month, day, hour, minute, second = map(int, found.groups())
    return (datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)


def from_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 date-time with 0 to 9 fractional digits.

    Raises ValueError for any other text.
    """
    rest = _REST.fullmatch(text, _PREFIX_LENGTH)
    if rest is None:
        raise ValueError(f"not an RFC 3339 date-time: {text[:40]!r}")
    fraction, sign, hours, minutes = rest.groups()
    seconds = utc_second(text[:_PREFIX_LENGTH])
    if sign is not None:
        seconds = _in_range(seconds - _offset(sign, hours, minutes))
    return seconds * _SECOND + (int(fraction.ljust(9, "0")) if fraction else 0)


def to_rfc3339(nanoseconds: int) -> str:
    """The time in UTC with six fractional digits and "Z". Finer digits are cut off, not rounded.

    Raises ValueError outside the years 0001 to 9999.
    """
    seconds, rest = divmod(nanoseconds, _SECOND)
    return f"{_prefix(seconds)}{rest // 1000:06d}Z"


@lru_cache(maxsize=4096)
def _prefix(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=_in_range(seconds))).isoformat()[:_PREFIX_LENGTH] + "."


def _offset(sign: str, hours: str, minutes: str) -> int:
    seconds = int(hours) * 3600 + int(minutes) * 60
    return -seconds if sign == "-" else seconds


def _in_range(seconds: int) -> int:
    if not _FIRST <= seconds <= _LAST:
        raise ValueError(f"outside the years 0001 to 9999: {seconds} s since the epoch")
    return seconds
