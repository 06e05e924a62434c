"""What outlives every actor: histories, interests, source states, clients, and who is told of what.

Rules of this file. Actors are made from this state and may die at any moment; what they must not
lose is here. Nothing here waits, and nothing here runs by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

import trio
from loguru import logger

from actors.connector import STOPPED
from actors.update import Update

from .cache.delivery import Delivery, shard_of
from .cache.history import History, Store, Verdict
from .domain import Item, Trade
from .faces.jsonrpc import format as wire
from .faults.registry import Faults
from .gateway.admission import Admission
from .gateway.clients import Clients
from .logs import Burst
from .settings.schema import Settings
from .sources.reading import excerpt
from .sources.state import Audience, SourceState, sources_of
from .topics.topics import Topics


class State:
    """Built once from the settings. `epoch` tells this run's offsets from those of other runs."""

    def __init__(
        self, settings: Settings, *, epoch: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.started = clock()
        self.epoch = int(self.started * 1000) if epoch is None else epoch
        # None: nothing can be broken on purpose, and nothing asks whether it is.
        self.faults = Faults(settings.chaos.seed) if settings.chaos.enabled else None
        cache = settings.cache
        self.stores = [
            Store(self.epoch, cache.trades_per_symbol, cache.max_age_seconds, self._refused)
            for _ in range(cache.shards)
        ]
        self.clients = Clients()
        # Where the gateway listens: a port that was any is this very one when it is started anew.
        self.port = settings.gateway.port
        newcomers = settings.admission
        self.admission = Admission(newcomers.at_once, newcomers.waiting, newcomers.retry_after)
        announcer = Announcer(self.clients)
        self.sources = {
            name: SourceState(name, source, announcer, clock) for name, source in settings.sources.items()
        }
        self.topics = Topics(self.sources, self.log_of, settings.fanout.interval)
        self.delivery = Delivery(cache.shards)

    @property
    def symbols(self) -> list[str]:
        """Every symbol that a source is configured to carry, in alphabetical order."""
        return sorted({symbol for source in self.sources.values() for symbol in source.settings.symbols})

    def sources_of(self, symbol: str) -> list[SourceState]:
        """The sources that carry `symbol`."""
        return sources_of(symbol, self.sources)

    def history(self, symbol: str) -> History:
        """The log of `symbol`, wherever it is kept."""
        return self.stores[shard_of(symbol, len(self.stores))].history(symbol)

    def log_of(self, symbol: str) -> TopicLog:
        """The log of `symbol` as a subscription reads it."""
        return TopicLog(symbol, self.history(symbol), self.settings.fanout.joined)

    def _refused(self, trade: Trade, verdict: Verdict) -> None:
        about = excerpt(f"{trade.symbol}: trade {trade.trade_id}")
        self.sources[trade.source].problem(verdict.value, about)

    def lost_in_shard(self, shard: int, batches: Iterable[Iterable[Item]]) -> None:
        """Items were in a shard's hand when it crashed: whatever was not admitted becomes a gap."""
        for batch in batches:
            for symbol in self.stores[shard].lost(batch):
                self.topics.news(symbol)

    def abandon(self, symbol: str) -> None:
        """Nothing of `symbol` will be fanned out any more: its listeners must not wait for it in vain."""
        listeners = self.topics.abandon(symbol)
        for session in self.clients:
            if session in listeners:
                session.end(1011, f"the subscription of {symbol} failed")


class TopicLog:
    """A history as a subscription reads it: encoded, in runs of at most `at_once` entries."""

    def __init__(self, symbol: str, history: History, at_once: int) -> None:
        self._symbol = symbol
        self._history = history
        self._at_once = at_once
        self._encode = wire.Updates(symbol, history.epoch).messages

    @property
    def last(self) -> int:
        return self._history.last

    def read(self, after: int) -> Update | None:
        places = self._history.places(after, self._at_once)
        return Update(self._symbol, self._encode(places)) if places else None


class Announcer(Audience):
    """Tells clients and the log how the sources fare."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._burst = Burst()

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        level = "INFO" if reason == STOPPED else "WARNING"
        logger.bind(path=f"sources/{source}").log(level, "connection lost: {}", reason)
        self._clients.broadcast(wire.connection_lost(source, reason, symbols))

    def restored(self, source: str, symbols: Collection[str]) -> None:
        logger.bind(path=f"sources/{source}").info(
            "connection restored: {}", ", ".join(symbols) or "no symbols"
        )
        self._clients.broadcast(wire.connection_restored(source, symbols))

    def problem(self, source: str, reason: str, excerpt: str) -> None:
        """Logged once per burst: a source that sends garbage sends a lot of it."""
        if count := self._burst.occurred((source, reason), trio.current_time()):
            logger.bind(path=f"sources/{source}").warning("{} ({} times): {}", reason, count, excerpt)
