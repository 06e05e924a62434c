"""What a client of dataflow must know: places, gaps, fills and rewinds, without a socket and without a clock.

Rules of this room. It imports nothing of the daemon and no library of I/O: only attrs and msgspec. Whoever
has a connection brings the texts. `README.md` has an example.
"""

from .client import EVERY, Client
from .events import (
    Candle,
    Event,
    Filled,
    Gap,
    Notice,
    Position,
    Quality,
    Refused,
    Rewound,
    Topic,
    Trade,
)
from .faults import ServerFault, Unreadable, WrongPlace
from .stream import Stream

__all__ = [
    "EVERY",
    "Candle",
    "Client",
    "Event",
    "Filled",
    "Gap",
    "Notice",
    "Position",
    "Quality",
    "Refused",
    "Rewound",
    "ServerFault",
    "Stream",
    "Topic",
    "Trade",
    "Unreadable",
    "WrongPlace",
]
