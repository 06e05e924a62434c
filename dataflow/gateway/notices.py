"""The end and return of sources, as notices to clients and lines of the log."""

from __future__ import annotations

from collections.abc import Collection

import trio
from loguru import logger

from actors.connector import STOPPED
from dataflow import paths
from dataflow.domain.notice import SourceLost, SourceRestored
from dataflow.logs import Burst
from dataflow.sources.state import Audience

from .clients import Clients


class Announcer(Audience):
    """Tells clients and the log about outages and their ends. Problems of a source go to the log only."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._burst = Burst()

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        level = "INFO" if reason == STOPPED else "WARNING"
        logger.bind(path=paths.source(source)).log(level, "connection lost: {}", reason)
        self._clients.broadcast(SourceLost(source, reason, tuple(symbols)))

    def restored(self, source: str, symbols: Collection[str]) -> None:
        logger.bind(path=paths.source(source)).info(
            "connection restored: {}", ", ".join(symbols) or "no symbols"
        )
        self._clients.broadcast(SourceRestored(source, tuple(symbols)))

    def problem(self, source: str, reason: str, excerpt: str) -> None:
        """Log a problem once per burst: a broken source sends much garbage."""
        if count := self._burst.occurred((source, reason), trio.current_time()):
            logger.bind(path=paths.source(source)).warning("{} ({} times): {}", reason, count, excerpt)
