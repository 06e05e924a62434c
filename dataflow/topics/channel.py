"""What a kind of stream has to be: trades, quality, and whichever comes next, one file each beside this one.

Rules of this file: a Protocol and nothing else. A channel gives each of its topics a log; the log has places
that grow by one, and is read from any of them. A log outlives its readers and never waits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from actors.update import Stream, Update
from dataflow.domain import Topic


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
