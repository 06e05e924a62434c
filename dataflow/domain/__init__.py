"""Values: trades, gaps, topics, qualities, notices, times. No I/O, no clock, no import from other rooms."""

from .items import Entry, Gap, Item, Missed, Missing, Recorded, Refilled, Side, Switched, Trade
from .topic import Topic

__all__ = [
    "Entry",
    "Gap",
    "Item",
    "Missed",
    "Missing",
    "Recorded",
    "Refilled",
    "Side",
    "Switched",
    "Topic",
    "Trade",
]
