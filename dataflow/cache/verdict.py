"""What can become of an item that is offered to a history."""

from __future__ import annotations

from enum import Enum
from typing import Final

JUMP: Final = 10_000_000  # places that a sequence may skip; several days of the busiest symbols


class Verdict(Enum):
    """The result of offering an item."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"  # this source has given this trade before
    LATE = "late"  # its sequence is passed, and its place is not known, or holds another trade
    FILLED = "filled"  # it is a missing trade of an exact gap, and gets its place there
    REUSED = "reused"  # a trade of another time has this id, and no sequence tells them apart
    IMPLAUSIBLE = "implausible"  # its sequence is far too high, and no other trade has confirmed it
    TOO_OLD = "too_old"  # older than the remembered ids: it may be new or not
    NOTED = "noted"  # no trade but a mark: some may be missing, or another source takes over
    HELD = "held"  # others are missing before it and are asked for: it waits for them
    UNASKED = "unasked"  # it came as an answer, and nobody asked for it
