"""What an upstream says when it refuses the handshake.

Rules of this file: pure. A wait that makes no sense is ignored. Words from outside are for people: who shows
them cuts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = 3600.0  # seconds; a longer wait is cut to this
_ASK_FOR_A_WAIT: Final = frozenset({418, 429, 503})


def retry_after(status: int, headers: Iterable[tuple[bytes, bytes]], now: float) -> float:
    """Seconds that the upstream asks us to wait. 0.0 if it does not. `now`: seconds since the epoch.

    A date is compared with the date of the answer itself, if it has one: clocks differ.
    """
    named = by_name(headers)
    written = named.get("retry-after", "")
    if status not in _ASK_FOR_A_WAIT or not written:
        return 0.0
    if written.isascii() and written.isdecimal():
        return min(float(written[:100]), LONGEST)
    until, said = _date(written), _date(named.get("date", ""))
    if until is None:
        return 0.0
    return min(max(until - (now if said is None else said), 0.0), LONGEST)


def by_name(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """The headers, with their names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in headers}


def _date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
