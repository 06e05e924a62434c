"""The Protocols of channels. A channel is a kind of stream, and one file in this folder: trades, quality.

Rules of this file: Protocols and values. A channel gives each of its topics a log. The places of a log grow
by one, and it can be read from any place. A log outlives its readers and never waits. One whose older entries
are on disk can be asked for them, too (`Deep`). A module in this folder that defines `make(ground)` is a
channel. No other file names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import Factory, frozen

from actors.update import Places, Stream, Update
from dataflow import plugs
from dataflow.cache.history import History, Resumed
from dataflow.cache.recording import Recording
from dataflow.cache.tiers import Tiers
from dataflow.domain import Topic
from dataflow.domain.candle import CandleRules
from dataflow.sources.state import SourceState


class TopicLog(Protocol):
    """The stream of one topic, and the part of its past that is remembered. An `actors.subscription.Log`."""

    @property
    def stream(self) -> Stream:
        """The common part of its updates. With `newest_by` a slow subscriber gets only the newest entries."""

    @property
    def last(self) -> int:
        """The last place; 0 while the log is empty."""

    def read(self, after: int) -> Update | None:
        """The next run behind place `after`, gaps included; bounded. None when there is nothing."""

    def newest(self, count: int) -> Places:
        """The `count` newest entries, oldest first, for the answer to a new subscriber."""

    def resume(self, epoch: int, offset: int, limit: int) -> Resumed:
        """How a reader with that position goes on, with at most `limit` entries."""

    def behind(self, offset: int, limit: int) -> Places:
        """The first `limit` entries behind `offset`. Entries that are forgotten already become one gap."""


class Deep(ABC):
    """The part of a log that memory has forgotten and a disk still has. Each read may take seconds."""

    @abstractmethod
    def is_forgotten(self, after: int) -> bool:
        """Whether the place behind `after` has left memory, and may be on disk."""

    @abstractmethod
    def has_older(self, count: int) -> bool:
        """Whether memory has fewer than `count` items, and the disk may have more."""

    @abstractmethod
    async def reach(self, after: int, limit: int) -> Places:
        """At most `limit` entries behind `after`, of disk and memory; fewer do not mean the end.

        What neither has is one gap "overrun". Raises ArchiveFailed.
        """

    @abstractmethod
    async def reach_newest(self, count: int) -> Places:
        """The `count` newest items of both, and the gaps between them. Raises ArchiveFailed."""


@frozen
class Ground:
    """The parts of the core that a channel may use.

    `carriers`: the sources of each symbol. `history_of(symbol)`: its trades, as far as they are in memory;
    `tiers`: all of them. `epoch`: the number of this run of the daemon, for streams that begin with it.
    `clock`: wall time, seconds since the epoch. `news(topic)` wakes the readers of a topic. `at_once`: the
    most entries of one `read`. `recording`: what is on disk, and what else shall be; its epoch is that of the
    trades. `candles`: how these are made. `active(symbol)`: the source that is preferred to all others at
    present; None: every one counts.
    """

    carriers: Mapping[str, Sequence[SourceState]]
    history_of: Callable[[str], History]
    epoch: int
    clock: Callable[[], float]
    news: Callable[[Topic], None]
    at_once: int
    tiers: Tiers
    recording: Recording
    candles: CandleRules = Factory(CandleRules)
    active: Callable[[str], str | None] = lambda _symbol: None

    def streaming(self, symbol: str) -> Sequence[SourceState]:
        """The sources whose trades are the stream of `symbol` now: one if one is preferred, else all."""
        carriers, active = self.carriers.get(symbol, ()), self.active(symbol)
        return carriers if active is None else [each for each in carriers if each.name == active]


class Channel(Protocol):
    """A kind of stream. Clients name it in their subscriptions."""

    @property
    def name(self) -> str:
        """The name that clients write: "trades"."""

    @property
    def offered(self) -> bool:
        """Whether clients may name it. If not, faces subscribe to it in ways of their own."""

    def topics(self, symbol: str) -> Iterable[Topic]:
        """The topics of `symbol`, one for each variant."""

    def log_of(self, topic: Topic) -> TopicLog:
        """The log of `topic`: always the same object, as long as somebody has it."""

    def wants(self, topic: Topic) -> Collection[str]:
        """The symbols that the sources must deliver while `topic` has subscribers. Their trades wake it.

        `ANY` among them: all that there are, and those that come to be.
        """

    def look(self, symbols: Iterable[str]) -> None:
        """The state of these symbols at a source, or the interest in them, may have changed.

        Never waits, never raises.
        """


def channels(ground: Ground) -> dict[str, Channel]:
    """All channels in this folder, by their names."""
    modules = [plugs.find("topics", name) for name in plugs.names("topics")]
    made: list[Channel] = [module.make(ground) for module in modules if hasattr(module, "make")]
    return {channel.name: channel for channel in made}
