"""What a kind of stream has to be: trades, quality, and others to come, one file each beside this one.

Rules of this file: Protocols and values. A channel gives each of its topics a log. A log has places that grow
by one, and is read from any of them; it outlives its readers and never waits. A module in this folder that
defines `make(ground)` is a channel, and nothing else has to know it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from actors.update import Stream, Update
from dataflow import plugs
from dataflow.cache.history import History
from dataflow.domain import Topic
from dataflow.sources.state import SourceState


class TopicLog(Protocol):
    """One topic's stream and as much of its past as is remembered. An `actors.subscription.Log`."""

    @property
    def stream(self) -> Stream:
        """What its updates have in common. `newest_by` says whether a slow subscriber is owed every entry."""

    @property
    def last(self) -> int:
        """The last place; 0 while it is empty."""

    def read(self, after: int) -> Update | None:
        """The next run behind `after`, bounded in length, gaps included; None when there is nothing."""

    def newest(self, count: int) -> Sequence[Any]:
        """The `count` newest entries, oldest first, for a subscriber's start."""

    def since(self, epoch: int, offset: int, limit: int) -> tuple[bool, Sequence[Any]]:
        """Whether a reader at that position can be given all that came since, and that: at most `limit`
        entries."""

    def behind(self, offset: int) -> Sequence[Any]:
        """Everything behind `offset`; entries that were forgotten meanwhile are a gap."""


@frozen
class Ground:
    """What a channel may stand on.

    `carriers`: the sources of each symbol. `history_of(symbol)`: its trades. `epoch` tells this run from
    others. `clock`: wall time in seconds since the epoch. `news(topic)` wakes the readers of a topic.
    `at_once` bounds a run.
    """

    carriers: Mapping[str, Sequence[SourceState]]
    history_of: Callable[[str], History]
    epoch: int
    clock: Callable[[], float]
    news: Callable[[Topic], None]
    at_once: int


class Channel(Protocol):
    """A kind of stream, found by its name."""

    @property
    def name(self) -> str:
        """As clients write it: "trades"."""

    def topics(self, symbol: str) -> Iterable[Topic]:
        """Its topics of `symbol`, one for each variant."""

    def log_of(self, topic: Topic) -> TopicLog:
        """The log of `topic`: always the same one."""

    def wants(self, topic: Topic) -> Collection[str]:
        """The symbols whose trades `topic` needs from the sources while somebody listens."""

    def look(self, symbols: Iterable[str]) -> None:
        """How these symbols fare at a source, or who wants them, may have changed. Never waits or raises."""


def channels(ground: Ground) -> dict[str, Channel]:
    """All channels, by their names."""
    modules = [plugs.find("topics", name) for name in plugs.names("topics")]
    made: list[Channel] = [module.make(ground) for module in modules if hasattr(module, "make")]
    return {channel.name: channel for channel in made}
