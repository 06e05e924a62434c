"""The end and return of sources, as notices to clients and lines of the log."""

from __future__ import annotations

from collections.abc import Collection

import trio
from loguru import logger

from actors.connector import STOPPED
from dataflow import paths
from dataflow.domain.notice import SourceLost, SourceRestored, StreamSwitched
from dataflow.domain.topic import TRADES
from dataflow.logs import Burst, often
from dataflow.sources.state import CHANGED, REMOVED, Audience

from .clients import Clients

SYMBOLS_TOLD = 10  # in one line of the log; of more only the number is told


class Announcer(Audience):
    """Tells clients and the log about outages and their ends. Problems of a source go to the log only."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._burst = Burst()

    def connected(self, source: str, address: str, symbols: Collection[str]) -> None:
        """Log the first connection. Clients were never told that there was none."""
        logger.bind(path=paths.source(source)).info(
            "connected to {}, subscribed to {}", address, _few(symbols)
        )

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        level = "INFO" if reason in (STOPPED, REMOVED, CHANGED) else "WARNING"
        logger.bind(path=paths.source(source)).log(level, "connection lost: {}", reason)
        self._clients.broadcast(SourceLost(source, reason, tuple(symbols)))

    def restored(self, source: str, symbols: Collection[str]) -> None:
        logger.bind(path=paths.source(source)).info("connection restored: {}", _few(symbols))
        self._clients.broadcast(SourceRestored(source, tuple(symbols)))

    def problem(self, source: str, reason: str, excerpt: str) -> None:
        """Log a problem once per burst: a broken source sends much garbage."""
        if count := self._burst.occurred((source, reason), trio.current_time()):
            logger.bind(path=paths.source(source)).warning("{}{}: {}", reason, often(count), excerpt)

    def given_rest(self, source: str, failures: int, seconds: float) -> None:
        told = "{} attempts in a row have failed: from now on its lines share one every {:.0f} s"
        logger.bind(path=paths.source(source)).warning(told, failures, seconds)

    def switched(self, symbol: str, epoch: int, offset: int, before: str, source: str, reason: str) -> None:
        """Log it once per burst: a source that is lost may have thousands of symbols."""
        if count := self._burst.occurred((before, source), trio.current_time()):
            told = f"{symbol} comes from {source} and no more from {before}"
            logger.bind(path=paths.source(source)).warning("{}{}: {}", told, often(count), reason)
        self._clients.switched(StreamSwitched(symbol, TRADES, epoch, offset, before, source, reason))

    def symbols_changed(self, added: Collection[str], removed: Collection[str]) -> None:
        self._clients.symbols_changed(added, removed)


def _few(symbols: Collection[str]) -> str:
    names = sorted(symbols)
    more = f" and {len(names) - SYMBOLS_TOLD} more" if len(names) > SYMBOLS_TOLD else ""
    return ", ".join(names[:SYMBOLS_TOLD]) + more or "no symbols"
