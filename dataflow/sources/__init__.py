"""Branch `sources`: the state of each source, and the port for plugs.

A connector imports all that it needs from here.
"""

from actors.connector import Received
from dataflow.domain import Item, Missed, Trade
from dataflow.domain.timestamps import from_rfc3339

from .port import Codec, Intaker, Judge, ListenerSettings, SourceSettings, Tick
from .reading import Unusable, decoded, excerpt, positive_decimal

__all__ = [
    "Codec",
    "Intaker",
    "Item",
    "Judge",
    "ListenerSettings",
    "Missed",
    "Received",
    "SourceSettings",
    "Tick",
    "Trade",
    "Unusable",
    "decoded",
    "excerpt",
    "from_rfc3339",
    "positive_decimal",
]
