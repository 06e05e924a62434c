"""Notices for clients, beside their streams. These are values; each protocol writes them in its own words."""

from __future__ import annotations

from typing import Final, TypeAlias

from attrs import frozen

SWITCHES_AT_ONCE: Final = 100  # that each client is told between two turns of the event loop


@frozen
class SourceLost:
    """A source is lost, or refuses these symbols. The server goes on trying."""

    source: str
    reason: str
    symbols: tuple[str, ...]


@frozen
class SourceRestored:
    """A source is back, and these symbols are subscribed again."""

    source: str
    symbols: tuple[str, ...]


@frozen
class Waiting:
    """A new client has waited `seconds` seconds for its turn. `ahead` clients are still before it."""

    ahead: int
    seconds: float


@frozen
class Refused:
    """There is no room. The connection is closed; the client may try again after `retry_after` seconds."""

    reason: str
    retry_after: float


@frozen
class Draining:
    """The server stops. The connection is closed soon."""

    reason: str = "server going away"


@frozen
class Started:
    """A symbol exists from now on. For those who follow all: its stream begins behind place `offset`."""

    symbol: str
    channel: str
    epoch: int
    offset: int


@frozen
class StreamSwitched:
    """Up to place `offset` the stream is that of the source `from_`, behind it that of `to`.

    For those who follow the symbol, and perhaps before they have come to that place.
    """

    symbol: str
    channel: str
    epoch: int
    offset: int
    from_: str
    to: str
    reason: str


@frozen
class SymbolsChanged:
    """Symbols that a source carries now, and none did before; and the other way round."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


Notice: TypeAlias = (
    SourceLost | SourceRestored | StreamSwitched | SymbolsChanged | Waiting | Refused | Draining
)
