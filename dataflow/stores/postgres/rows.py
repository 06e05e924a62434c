"""Entries as rows, and rows as entries: exactly.

Rules of this file: pure. A row is text as COPY takes it. `numeric` keeps all digits of a fraction, zeros at
its end too. What a column cannot hold (an exponent above 0, a minus before a zero, a NUL in a text, a counter
above 64 bits) is as near to it as can be there, and the whole trade is in `exact`, which is what is read.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from dataflow.cache.archive import Places
from dataflow.domain import Gap, Recorded, Trade
from dataflow.domain.entries import pack, unpack
from dataflow.domain.timestamps import to_rfc3339

TRADE_COLUMNS: Final = (
    "symbol, place, time, side, price, quantity, trade_id, source, sequence, ns, day, exact"
)
GAP_COLUMNS: Final = "symbol, first, last, reason, counted, source, sequence, day"
# What `entry` takes: of a trade and of a gap.
TRADE: Final = (
    "place, symbol, source, trade_id, side, price, quantity, ns, sequence, exact, "
    "NULL::bigint, NULL::text, NULL::boolean"
)
GAP: Final = (
    "last, symbol, source, NULL, NULL, NULL::numeric, NULL::numeric, NULL::bigint, sequence, NULL::bytea, "
    "first, reason, counted"
)

_LARGEST: Final = (1 << 63) - 1
_SCALE: Final = 16_383  # digits behind the point that `numeric` can have
_DIGITS: Final = 100_000  # before it, and not all that it can have
_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\v": "\\v", "\f": "\\f", "\0": "�"}
)


def trade_row(place: int, trade: Trade, day: str) -> str:
    """A line of COPY for `TRADE_COLUMNS`. About 4 us."""
    price, quantity, sequence = trade.price, trade.quantity, trade.sequence
    is_plain = _is_plain(price) and _is_plain(quantity)
    texts = f"{trade.trade_id}{trade.source}"
    if not is_plain or "\0" in texts or (sequence is not None and sequence > _LARGEST):
        exact = f"\\\\x{pack([(place, trade)]).hex()}"
        numbers = f"{_near(price)}\t{_near(quantity)}"
        sequence = None if sequence is None or sequence > _LARGEST else sequence
    else:
        exact, numbers = "\\N", f"{price}\t{quantity}"
    return (
        f"{trade.symbol}\t{place}\t{to_rfc3339(trade.timestamp)}\t{trade.side or null}\t{numbers}\t"
        f"{_text(trade.trade_id)}\t{_text(trade.source)}\t{null if sequence is None else sequence}\t"
        f"{trade.timestamp}\t{day}\t{exact}\n"
    )


null: Final = "\\N"


def gap_row(symbol: str, gap: Gap, day: str) -> str:
    """A line of COPY for `GAP_COLUMNS`."""
    sequence = gap.sequence if gap.sequence is not None and gap.sequence <= _LARGEST else None
    return (
        f"{symbol}\t{gap.first}\t{gap.last}\t{_text(gap.reason)}\t{'t' if gap.exact else 'f'}\t"
        f"{_text(gap.source)}\t{null if sequence is None else sequence}\t{day}\n"
    )


def _text(value: str | None) -> str:
    if value is None:
        return null
    return value if value.isalnum() else value.translate(_ESCAPES)


def _is_plain(value: Decimal) -> bool:
    """Whether `numeric` gives it back with the same digits."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -_SCALE <= exponent <= 0 or len(digits) > _DIGITS:
        return False
    return not sign or any(digits)


def _near(value: Decimal) -> str:
    if not value.is_finite() or abs(value.adjusted()) > _SCALE or value.as_tuple().exponent < -_SCALE:  # type: ignore[operator]
        return "NaN"
    return str(value)


def places(rows: list[tuple[Any, ...]]) -> Places:
    """Of rows with the columns `TRADE` and `GAP`. About 2 us for each."""
    return [(row[0], _entry(row)) for row in rows]


def recorded(rows: list[tuple[Any, ...]]) -> list[Recorded]:
    """Of rows with the columns `TRADE`, in the order of time and place."""
    found = [Recorded(row[0], _trade(*row[:10])) for row in rows]
    return sorted(found, key=lambda each: (each.trade.timestamp // 1000, each.offset))


def _entry(row: tuple[Any, ...]) -> Trade | Gap:
    first, reason, counted = row[10:]
    if reason is None:
        return _trade(*row[:10])
    place, _, source, *_, sequence, _ = row[:10]
    return Gap(first, place, reason, counted, source, sequence)


def _trade(
    place: int,
    symbol: str,
    source: str,
    trade_id: str | None,
    side: Any,
    price: Decimal,
    quantity: Decimal,
    ns: int,
    sequence: int | None,
    exact: bytes | None,
) -> Trade:
    if exact is not None:
        ((_, entry),) = unpack(exact, 1, place)
        assert isinstance(entry, Trade)
        return entry
    return Trade(source, symbol, trade_id, side, price, quantity, ns, sequence)
