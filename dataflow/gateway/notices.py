"""The end and return of sources, as notices to clients and lines of the log."""

from __future__ import annotations

from collections.abc import Collection

import trio
from loguru import logger

from actors.connector import STOPPED
from dataflow import paths
from dataflow.domain.notice import SourceLost, SourceRestored, StreamSwitched
from dataflow.domain.topic import TRADES
from dataflow.events import Events, Kind
from dataflow.logs import Burst, often
from dataflow.sources.state import CHANGED, REMOVED, Audience

from .clients import Clients

SYMBOLS_TOLD = 10  # in one line of the log; of more only the number is told


class Announcer(Audience):
    """Tells clients, the log and `events` about outages and their ends. Problems go to the log alone."""

    def __init__(self, clients: Clients, events: Events | None = None) -> None:
        self._clients = clients
        self._events = events or Events()
        self._burst = Burst()

    def connected(self, source: str, address: str, symbols: Collection[str]) -> None:
        """Log the first connection. Clients were never told that there was none."""
        logger.bind(path=paths.source(source)).info("connected to {}, {}", address, _carried(symbols))

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        is_wanted = reason in (STOPPED, REMOVED, CHANGED)
        level, verb = ("INFO", "ended") if is_wanted else ("WARNING", "lost")
        logger.bind(path=paths.source(source)).log(level, "connection {}: {}", verb, reason)
        self._keep(Kind.STOPPED if is_wanted else Kind.LOST, source, f"{reason}; concerns {_few(symbols)}")
        self._clients.broadcast(SourceLost(source, reason, tuple(symbols)))

    def restored(self, source: str, symbols: Collection[str], away: float) -> None:
        told = f"after {away:.1f} s, {_carried(symbols)}"
        logger.bind(path=paths.source(source)).info("connection restored {}", told)
        self._keep(Kind.RESTORED, source, told)
        self._clients.broadcast(SourceRestored(source, tuple(symbols)))

    def refused(self, source: str, symbol: str, reason: str) -> None:
        """For clients it is a loss of this symbol. The log has it as a problem."""
        self._keep(Kind.LOST, source, f"{symbol} is refused: {reason}", symbol)
        self._clients.broadcast(SourceLost(source, f"rejected: {reason}", (symbol,)))

    def accepted(self, source: str, symbol: str) -> None:
        logger.bind(path=paths.source(source)).info("{} is refused no more", symbol)
        self._keep(Kind.RESTORED, source, f"{symbol} is refused no more", symbol)
        self._clients.broadcast(SourceRestored(source, (symbol,)))

    def stalled(self, source: str, symbol: str, reason: str) -> None:
        """The lookout has a line of the log for each remedy."""
        self._keep(Kind.STALLED, source, f"{symbol}: {reason}")

    def recovered(self, source: str, symbol: str) -> None:
        if count := self._burst.occurred((source, "recovered"), trio.current_time()):
            logger.bind(path=paths.source(source)).info("{} is stalled no more{}", symbol, often(count))
        self._keep(Kind.RECOVERED, source, f"{symbol}: its trades come again")

    def renumbered(self, source: str, symbol: str) -> None:
        """Clients are told of the gap that stands there."""
        if count := self._burst.occurred((source, "renumbered"), trio.current_time()):
            told = "{} is numbered anew{}: trades may be missing before"
            logger.bind(path=paths.source(source)).warning(told, symbol, often(count))
        self._keep(Kind.RENUMBERED, source, f"{symbol}: trades may be missing before")

    def problem(self, source: str, reason: str, excerpt: str) -> None:
        """Log a problem once per burst: a broken source sends much garbage."""
        if count := self._burst.occurred((source, reason), trio.current_time()):
            logger.bind(path=paths.source(source)).warning("{}{}: {}", reason, often(count), excerpt)

    def given_rest(self, source: str, failures: int, seconds: float) -> None:
        told = "{} attempts in a row have failed: from now on its lines share one every {:.0f} s"
        logger.bind(path=paths.source(source)).warning(told, failures, seconds)

    def switched(self, symbol: str, epoch: int, offset: int, before: str, source: str, reason: str) -> None:
        """Log it once per burst: a source that is lost may have thousands of symbols."""
        told = f"{symbol} comes from {source} and no more from {before}"
        if count := self._burst.occurred((before, source), trio.current_time()):
            logger.bind(path=paths.source(source)).warning("{}{}: {}", told, often(count), reason)
        self._keep(Kind.SWITCHED, source, f"{told}: {reason}")
        self._clients.switched(StreamSwitched(symbol, TRADES, epoch, offset, before, source, reason))

    def symbols_changed(self, added: Collection[str], removed: Collection[str]) -> None:
        self._clients.symbols_changed(added, removed)

    def _keep(self, kind: Kind, source: str, text: str, symbol: str | None = None) -> None:
        """`symbol`: the only one that is concerned, though the connection is as it was."""
        place = paths.source(source)
        self._events.tell(kind, place, text, alike=None if symbol is None else f"{place}: a symbol")


def _carried(symbols: Collection[str]) -> str:
    return f"subscribed to {_few(symbols)}" if symbols else "nothing is subscribed"


def _few(symbols: Collection[str]) -> str:
    names = sorted(symbols)
    more = f" and {len(names) - SYMBOLS_TOLD} more" if len(names) > SYMBOLS_TOLD else ""
    return ", ".join(names[:SYMBOLS_TOLD]) + more or "no symbols"
