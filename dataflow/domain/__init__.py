"""What the system talks about, as values: no I/O, no clock, and no import of ours."""

from .items import Entry, Gap, Item, Missed, Recorded, Side, Trade
from .topic import Topic

__all__ = ["Entry", "Gap", "Item", "Missed", "Recorded", "Side", "Topic", "Trade"]
