"""Branch `sources`: the state of each source, and the port for plugs.

A connector imports all that it needs from here.
"""

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.domain.timestamps import from_rfc3339

from .fields import positive_decimal
from .port import (
    RATE_LIMITED,
    Codec,
    Filler,
    Intaker,
    Judge,
    ListenerSettings,
    Newest,
    Page,
    Request,
    SourceSettings,
    Tick,
)
from .reading import Unusable, answered, decoded, excerpt

__all__ = [
    "RATE_LIMITED",
    "Codec",
    "Filler",
    "Intaker",
    "Item",
    "Judge",
    "ListenerSettings",
    "Missed",
    "Missing",
    "Newest",
    "Page",
    "Received",
    "Request",
    "SourceSettings",
    "Tick",
    "Trade",
    "Unusable",
    "answered",
    "decoded",
    "excerpt",
    "from_rfc3339",
    "positive_decimal",
]
