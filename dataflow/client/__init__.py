"""Live data of a dataflow daemon, for the programs of users.

Rules of this room. It runs on asyncio and on Trio, by anyio, and imports nothing of the daemon. The core
(`client`, `stream`, `events`, `faults`) has neither a socket nor a clock. `README.md` has examples.
"""

from .client import EVERY, Client
from .events import (
    Candle,
    Connection,
    Event,
    Filled,
    Gap,
    Notice,
    Position,
    Quality,
    Refused,
    Rewound,
    Subscribed,
    Topic,
    Trade,
)
from .faults import CallError, ServerFault, Unreachable, Unreadable, WrongPlace
from .feed import Feed, Following, connect
from .frames import to_arrow, to_pandas
from .pages import Page, Pages
from .stream import Stream
from .sync import SyncFeed, SyncFollowing, connect_sync

__all__ = [
    "EVERY",
    "CallError",
    "Candle",
    "Client",
    "Connection",
    "Event",
    "Feed",
    "Filled",
    "Following",
    "Gap",
    "Notice",
    "Page",
    "Pages",
    "Position",
    "Quality",
    "Refused",
    "Rewound",
    "ServerFault",
    "Stream",
    "Subscribed",
    "SyncFeed",
    "SyncFollowing",
    "Topic",
    "Trade",
    "Unreachable",
    "Unreadable",
    "WrongPlace",
    "connect",
    "connect_sync",
    "to_arrow",
    "to_pandas",
]
