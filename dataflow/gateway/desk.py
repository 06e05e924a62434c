"""Questions and their answers as values: symbols, trades, the state of the daemon.

Rules of this file: no word of any protocol. A wrong name or value raises a `Problem`, which tells the right
ones. Nothing here waits.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final

import trio
from attrs import frozen

from dataflow.cache.history import History
from dataflow.core import Core
from dataflow.domain import Recorded, Topic
from dataflow.domain.quality import Quality
from dataflow.sources.state import SourceState

from .lobby import Lobby
from .problems import InvalidValue, Unavailable

MAX_COUNT: Final = 1000  # trades in one answer
_BEST_FIRST: Final = ("live", "subscribing", "idle", "connecting", "lost", "rejected")


@frozen
class SymbolInfo:
    """A configured symbol.

    `sources` carry it. `status` is the state at the best of them, `quality` the state at each. `newest` is
    its newest trade.
    """

    symbol: str
    channels: Sequence[str]
    sources: Sequence[str]
    status: str
    quality: Sequence[Quality]
    newest: Recorded | None


@frozen
class SourceInfo:
    """A source. It has been in this `state` since `since` (ns since epoch).

    `symbols` are subscribed there; `rejected` has the source's words for each refused symbol. `problems`
    counts unusable messages by kind.
    """

    state: str
    since: int
    reason: str | None
    connector: str
    symbols: Sequence[str]
    rejected: Mapping[str, str]
    problems: Counter[str]


@frozen
class Status:
    """The daemon. `uptime` in seconds; `waiting` counts clients by the urgency of their turn."""

    sources: Mapping[str, SourceInfo]
    sessions: int
    waiting: Mapping[str, int]
    uptime: float
    epoch: int
    version: str


class Desk:
    """Answers the questions of all clients."""

    def __init__(self, core: Core, lobby: Lobby) -> None:
        self._core = core
        self._lobby = lobby

    def symbols(self) -> list[SymbolInfo]:
        """All symbols, in alphabetical order."""
        return [self._symbol(symbol) for symbol in self._core.symbols]

    def status(self) -> Status:
        """The state of the sources and of the daemon."""
        core = self._core
        return Status(
            sources={name: _source(source) for name, source in core.sources.items()},
            sessions=len(self._lobby.clients),
            waiting=self._lobby.admission.waiting,
            uptime=round(core.clock() - core.started, 3),
            epoch=core.epoch,
            version=version("dataflow"),
        )

    def quality(self, symbol: str) -> Sequence[Quality]:
        """The quality of the data of `symbol`, at each of its sources."""
        return self._core.quality(symbol)

    def recent_trades(
        self, symbol: str, count: int, before: int | None = None, after: int | None = None
    ) -> list[Recorded]:
        """`count` trades, newest first; with `after` oldest first. Times are ns since epoch, exclusive.

        A page by time never splits trades of one microsecond, so it may be shorter or longer.
        Raises InvalidValue.
        """
        self.check_symbol(symbol)
        check_range("count", count, 1, MAX_COUNT)
        history = self._history(symbol)
        if after is not None:
            return history.after(after, count, before)
        return history.before(before, count) if before is not None else history.latest(count)

    def topic(self, channel: str, symbol: str, variant: str = "") -> Topic:
        """The topic of these names. Raises InvalidValue."""
        channels = self._core.channels
        if channel not in channels:
            raise InvalidValue("channel", channel, "unknown channel", valid=list(channels))
        self.check_symbol(symbol)
        topics = {topic.variant: topic for topic in channels[channel].topics(symbol)}
        if variant not in topics:
            raise InvalidValue("variant", variant, f"unknown variant of {channel}", valid=list(topics))
        return topics[variant]

    def owes_every_entry(self, topic: Topic) -> bool:
        """Whether a subscriber of `topic` must get every entry; else the newest ones are all that counts."""
        return self._core.channels[topic.channel].log_of(topic).stream.newest_by is None

    def check_symbol(self, symbol: str) -> None:
        """Raises InvalidValue when no source is configured to carry `symbol`."""
        known = self._core.carriers
        if symbol not in known:
            nearest = difflib.get_close_matches(symbol.upper(), known, n=5, cutoff=0.3)
            raise InvalidValue("symbol", symbol, "unknown symbol", nearest=nearest or list(known)[:5])

    def check_available(self, topic: Topic) -> None:
        """Raises Unavailable when every source has refused a symbol that `topic` needs."""
        for symbol in self._core.channels[topic.channel].wants(topic):
            sources = self._core.carriers[symbol]
            refusals = {s.name: reason for s in sources if (reason := s.refusal(symbol)) is not None}
            if len(refusals) == len(sources):
                raise Unavailable("upstream unavailable", symbol=symbol, rejected=refusals)

    def _history(self, symbol: str) -> History:
        history = self._core.history(symbol)
        history.expire(trio.current_time())
        return history

    def _symbol(self, symbol: str) -> SymbolInfo:
        newest = self._history(symbol).latest(1)
        sources = self._core.carriers[symbol]
        return SymbolInfo(
            symbol=symbol,
            channels=list(self._core.channels),
            sources=[source.name for source in sources],
            status=min([source.status(symbol) for source in sources], key=_BEST_FIRST.index),
            quality=self.quality(symbol),
            newest=newest[0] if newest else None,
        )


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raises InvalidValue when `value` is below `least` or above `most`."""
    if not least <= value <= most:
        raise InvalidValue(name, value, f"must be {least} to {most}")


def _source(source: SourceState) -> SourceInfo:
    return SourceInfo(
        state=source.link.value,
        since=int(source.since * 1e9),
        reason=source.reason,
        connector=source.settings.connector,
        symbols=sorted(source.subscribed_symbols),
        rejected=source.refused_symbols,
        problems=source.problems,
    )
