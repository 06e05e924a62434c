"""How the sources fare, told to clients and to the log."""

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
    """Tells all clients of outages and their ends, and the log of problems too."""

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
        """Logged once per burst: a source that sends garbage sends a lot of it."""
        if count := self._burst.occurred((source, reason), trio.current_time()):
            logger.bind(path=paths.source(source)).warning("{} ({} times): {}", reason, count, excerpt)
