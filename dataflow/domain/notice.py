"""What clients are told besides their streams, as values: each protocol writes them in its own words."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen


@frozen
class SourceLost:
    """A source is lost, or refuses these symbols; the server goes on trying."""

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
    """A newcomer has waited for `seconds` seconds for its turn, behind `ahead` others."""

    ahead: int
    seconds: float


@frozen
class Refused:
    """There is no room: the connection is closed, and may be tried again after `retry_after` seconds."""

    reason: str
    retry_after: float


@frozen
class Draining:
    """The server is going away: the connection is closed soon."""

    reason: str = "server going away"


Notice: TypeAlias = SourceLost | SourceRestored | Waiting | Refused | Draining
