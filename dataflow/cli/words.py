"""Numbers in words, as every command writes them.

Rules of this file: pure. What the daemon does not tell is a dash, never a guess.
"""

from __future__ import annotations

from typing import Any, Final

UNKNOWN: Final = "\N{EN DASH}"
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def several(count: int, one: str, many: str | None = None) -> str:
    """`count` with its noun: "1 session", "2 sessions"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def age(seconds: Any) -> str:
    """A duration in its two largest units, such as "1 min 3 s"; nothing for what is no number."""
    if not isinstance(seconds, int | float):
        return ""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    while len(units) > 1 and not units[0][0]:
        units.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in units[:2])


def rate(value: Any) -> str:
    """So many a second: with one digit behind the point below 100, and none above."""
    if not isinstance(value, int | float):
        return UNKNOWN
    return f"{value:,.1f}" if 0 < value < 99.95 else f"{value:,.0f}"


def lag(seconds: Any) -> str:
    """A short duration, in ms below 1 s."""
    if not isinstance(seconds, int | float):
        return UNKNOWN
    return f"{1000 * seconds:,.0f} ms" if abs(seconds) < 1 else f"{seconds:,.1f} s"


def share(value: Any) -> str:
    """A share of one, in percent."""
    return f"{100 * value:.0f} %" if isinstance(value, int | float) else UNKNOWN


def size(count: Any) -> str:
    """Bytes in the largest unit with a whole number."""
    if not isinstance(count, int | float):
        return UNKNOWN
    value, units = float(count), list(_SIZES)
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.0f} {units[0]}"
