"""Questions and their answers as values: symbols, trades, the state of the daemon.

Rules of this file: no word of any protocol. A wrong name or value raises a `Problem`, which tells the right
ones. Nothing here waits, but for the disk: only questions about trades and candles are `async`. Who asks them
holds no turn meanwhile (`Turns.elsewhere`), and gives its `account`, so that nobody has the disk for himself.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from decimal import Decimal
from functools import partial
from heapq import nlargest, nsmallest
from importlib.metadata import version
from itertools import islice
from typing import Final

import trio

from actors.session import Backlog
from dataflow.cache.archive import ArchiveFailed
from dataflow.cache.history import History
from dataflow.core import Core
from dataflow.domain import Recorded, Topic
from dataflow.domain.aggregate import Aggregate
from dataflow.domain.quality import Grade, Quality
from dataflow.domain.symbols import ANY, LONGEST, WELL_FORMED, compact, well_formed
from dataflow.domain.timestamps import to_rfc3339
from dataflow.domain.topic import CANDLES, DAYS, TRADES
from dataflow.sources.excerpts import Excerpt
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import SourceState

from .answers import (
    CandlePage,
    ClientInfo,
    ClientsInfo,
    DeliveredInfo,
    DepartureInfo,
    EventsInfo,
    FailoverInfo,
    GuestInfo,
    LineInfo,
    LoadInfo,
    OutboxInfo,
    RefillInfo,
    SourceInfo,
    Status,
    SymbolInfo,
    SymbolsInfo,
    TopicInfo,
    TopicsInfo,
    TradesPage,
)
from .bounds import bounds
from .clients import AnySession, Departure
from .guestbook import Guest, code_of, why_ended
from .limits import Account
from .load import EVERY, KEPT, Load
from .lobby import Lobby
from .problems import InvalidValue, Unavailable
from .reading import TradesWalk, Wanted

MAX_CLIENTS: Final = 200  # in one answer: with 100 subscriptions each some 30 ms of work
MAX_TOPICS: Final = 1000  # in one answer
LISTED_AT_ONCE: Final = 100  # told between two checkpoints: two or three milliseconds
MAX_EVENTS: Final = 1000  # in one answer: all that there are
MAX_COUNT: Final = 1000  # trades in one answer ...
MAX_TRADES: Final = 10_000  # ... and trades and gaps, where a client asks for so many
PARTS_AT_ONCE: Final = 20  # of a walk in one answer: 40,000 entries that are out of a range of time
MAX_CANDLES: Final = 10_000  # in one answer
MAX_FAILOVERS: Final = 20  # symbols in one answer about the daemon
COMPARED: Final = 100  # of many symbols, its neighbours, with one that is unknown: half a millisecond
_BEST_FIRST: Final = ("live", "subscribing", "idle", "connecting", "lost", "rejected")


class Desk:
    """Answers the questions of all clients."""

    def __init__(self, core: Core, lobby: Lobby, load: Load) -> None:
        self._core = core
        self._lobby = lobby
        self._load = load
        self._channels = [name for name, channel in core.channels.items() if channel.offered]

    async def symbols(self) -> AsyncIterator[SymbolInfo]:
        """All symbols, in alphabetical order. Thousands are told in pieces: each as it is when it is told."""
        for number, symbol in enumerate(self._core.symbols, start=1):
            if symbol in self._core.carriers:  # it may have left meanwhile
                yield self._symbol(symbol)
            if number % LISTED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    def symbol(self, symbol: str) -> SymbolInfo:
        """One symbol. Raises InvalidValue."""
        self.check_symbol(symbol)
        return self._symbol(symbol)

    def status(self) -> Status:
        """The state of the sources and of the daemon."""
        core = self._core
        return Status(
            sources=self.sources(),
            sessions=len(self._lobby.clients),
            waiting=self._lobby.admission.waiting,
            ended={why.value: count for why, count in self._lobby.clients.ended.items()},
            loop_lag=round(core.lag.recent.value(trio.current_time()), 4),
            uptime=round(core.uptime, 3),
            epoch=core.epoch,
            version=version("dataflow"),
            failover=self._failovers(),
            rate=self._load.trades,
            sent_rate=self._load.sent,
            cpu=self._load.cpu,
            memory=self._load.memory,
        )

    def load(self, last: int = KEPT) -> LoadInfo:
        """What happened in each of the `last` seconds. Raises InvalidValue."""
        check_range("last", last, 1, KEPT)
        return LoadInfo(EVERY, self._core.ago(self._load.age), self._load.samples(last))

    def topics(self, limit: int = 50) -> TopicsInfo:
        """The `limit` most active of the open topics. Raises InvalidValue."""
        check_range("limit", limit, 1, MAX_TOPICS)
        topics = [
            TopicInfo(topic, len(fanout.subscribers), fanout.log.last, self._load.of_topic(topic))
            for topic, fanout in self._core.topics.open_fanouts
        ]
        foremost = nsmallest(limit, topics, key=lambda info: (-info.rate, -info.subscribers, info.topic))
        return TopicsInfo(len(topics), foremost)

    def sources(self) -> Mapping[str, SourceInfo]:
        """All sources by name, in the order of the configuration."""
        states = self._core.symbols_by_state()
        return {
            name: self._source(source, states.get(name, {})) for name, source in self._core.sources.items()
        }

    def clients(
        self, after: int = 0, limit: int = 50, behind: float = 0.0, most: str | None = None
    ) -> ClientsInfo:
        """At most `limit` clients with an id above `after`. With `behind`, only those whose outbox holds
        something so many seconds old. With `most`, a name in `MOST`, those that have most of it, the
        foremost first, and none to go on behind. Raises InvalidValue."""
        check_range("limit", limit, 1, MAX_CLIENTS)
        if most is not None and most not in MOST:
            raise InvalidValue("most", most, f"must be one of {', '.join(MOST)}")
        now, clients = trio.current_time(), self._lobby.clients
        found = (
            (session, guest)
            for session, guest in clients.guests.items()
            if guest.number > after and (not behind or _behind(session, now) >= behind)
        )
        if most is None:
            some = list(islice(found, limit + 1))
        else:
            some = nlargest(limit, found, key=lambda each: MOST[most](each[0], each[1], now))
        shown = [self._client(session, guest, now) for session, guest in some[:limit]]
        more = len(some) > limit
        return ClientsInfo(
            len(clients),
            _outbox(clients.backlog(), now),
            shown,
            shown[-1].guest.id if more else None,
            [self._departure(each, now) for each in reversed(clients.left)],
        )

    def events(self, after: int | None, limit: int) -> EventsInfo:
        """At most `limit` events with an id above `after`, oldest first; None: the newest ones.

        Raises InvalidValue.
        """
        check_range("limit", limit, 1, MAX_EVENTS)
        ring = self._core.events
        some = ring.newest(limit) if after is None else ring.behind(after, limit)
        return EventsInfo(some, some[-1].id if some else after or 0)

    def unusable(self, source: str) -> Sequence[Excerpt]:
        """The newest messages of `source` that could not be used, newest first. Raises KeyError."""
        return self._core.sources[source].unusable.newest_first()

    def client(self, id: int) -> ClientInfo | None:
        """One client; None when there is none with this id."""
        session = self.session(id)
        if session is None:
            return None
        return self._client(session, self._lobby.clients.guests[session], trio.current_time())

    def session(self, id: int) -> AnySession | None:
        """The session of a client; None when there is none with this id."""
        guests = self._lobby.clients.guests.items()
        return next((session for session, guest in guests if guest.number == id), None)

    def quality(self, symbol: str) -> Sequence[Quality]:
        """The quality of the data of `symbol`, at each of its sources."""
        return self._core.quality(symbol)

    async def recent_trades(
        self,
        symbol: str,
        count: int,
        before: int | None = None,
        after: int | None = None,
        *,
        account: Account | None = None,
    ) -> list[Recorded]:
        """`count` trades, newest first; with `after` oldest first. Times are ns since epoch, exclusive.

        A page by time never splits trades of one microsecond, so it may be shorter or longer.
        Raises InvalidValue, Unavailable, TooManyRequests.
        """
        self.check_symbol(symbol)
        check_range("count", count, 1, MAX_COUNT)
        self._history(symbol)
        tiers = self._core.tiers
        async with self._reading(account):
            if after is not None:
                return await tiers.after(symbol, after, count, before)
            if before is not None:
                return await tiers.before(symbol, before, count)
            return await tiers.latest(symbol, count)

    async def trades(
        self, symbol: str, wanted: Wanted, limit: int, *, account: Account | None = None
    ) -> TradesPage:
        """The first `limit` trades and gaps of what is wanted: memory and disk alike.

        Fewer do not mean the end: `next` tells it. Raises InvalidValue, Unavailable, TooManyRequests.
        """
        check_range("limit", limit, 1, MAX_TRADES)
        walk = self.walk(symbol, wanted, account=account)
        entries, parts = [*walk.first], 0
        while not walk.over and len(entries) <= limit and parts < PARTS_AT_ONCE:
            entries += await walk.part()
            parts += 1
        return walk.page(entries[:limit], cut=len(entries) > limit)

    def walk(self, symbol: str, wanted: Wanted, *, account: Account | None = None) -> TradesWalk:
        """All of what is wanted that there is now, part by part, however much it is. Raises InvalidValue."""
        self.check_symbol(symbol)
        history = self._history(symbol)
        last = self._core.channels[TRADES].log_of(Topic(TRADES, symbol)).last
        return TradesWalk(
            symbol,
            wanted,
            history,
            last,
            self._core.tiers,
            partial(self._reading, account),
            self._core.ago(self._core.settings.candles.lateness),
        )

    @asynccontextmanager
    async def _reading(self, account: Account | None) -> AsyncIterator[None]:
        """While the disk may be read. Raises Unavailable when it does not answer."""
        try:
            async with nullcontext() if account is None else account.reading():
                yield
        except ArchiveFailed as error:
            words = "the history on disk does not answer, try again later"
            raise Unavailable(words, problem=str(error)) from None

    async def candles(
        self,
        symbol: str,
        interval: str,
        start: int | None = None,
        end: int | None = None,
        limit: int = 500,
        *,
        account: Account | None = None,
    ) -> CandlePage:
        """At most `limit` candles whose windows start at `start` or later and before `end`, ns since epoch.

        Oldest first; without `start` the newest ones. It may take seconds: hold no turn. Raises InvalidValue,
        Unavailable, TooManyRequests.
        """
        self.check_symbol(symbol)
        check_range("limit", limit, 1, MAX_CANDLES)
        known = self._core.candles.intervals
        if interval not in known:
            raise InvalidValue("interval", interval, "unknown interval", valid=list(known))
        if start is not None and end is not None and end < start:
            raise InvalidValue("to", to_rfc3339(end), f"must not be before {to_rfc3339(start)}, `from`")
        async with self._reading(account):
            page = await self._core.candles.page(symbol, known[interval], start, end, limit)
        return CandlePage(page.candles, page.next)

    def topic(self, channel: str, symbol: str, variant: str = "") -> Topic:
        """The topic of these names. Raises InvalidValue."""
        self._check_channel(channel)
        self.check_symbol(symbol)
        return self._variant(channel, symbol, variant)

    def every(self, channel: str, variant: str = "") -> Topic:
        """The topic of all symbols that there are and will be. Raises InvalidValue."""
        self._check_channel(channel)
        return self._variant(channel, ANY, variant)

    def _check_channel(self, channel: str) -> None:
        if channel not in self._channels:
            raise InvalidValue("channel", channel, "unknown channel", valid=list(self._channels))

    def _variant(self, channel: str, symbol: str, variant: str) -> Topic:
        topics = {topic.variant: topic for topic in self._core.channels[channel].topics(symbol)}
        if variant not in topics and channel == CANDLES:
            problem = "unknown interval" if variant else "is needed for candles"
            raise InvalidValue("interval", variant or None, problem, valid=list(topics))
        if variant not in topics:
            raise InvalidValue("interval", variant, f"{channel} have no intervals", valid=[None])
        return topics[variant]

    # Names as clients of other systems write them, and the aggregates that these systems have.

    def find(self, written: str) -> str | None:
        """The symbol with this name, with or without its dashes; None when there is none, or several.

        Blanks around it and small letters do not count.
        """
        return self._core.names.find(written)

    def canonical(self, written: str) -> str:
        """The same. For a symbol that does not exist (yet): the name that it would have.

        Raises InvalidValue for what can never be a symbol.
        """
        symbol = self.find(written) or written.strip().upper()
        if not well_formed(symbol):
            raise InvalidValue("symbol", written[: LONGEST + 1], f"must be {WELL_FORMED}")
        return symbol

    def compact(self, symbol: str) -> str:
        """The name without its dashes: "BTCUSDT"."""
        return compact(symbol)

    def price(self, symbol: str) -> Decimal | None:
        """The price of the last admitted trade of `symbol`, however long ago; None before the first."""
        newest = self._core.history(symbol).newest_trade
        return None if newest is None else newest.price

    def aggregate(self, written: str) -> Aggregate | None:
        """The bar of the UTC day so far of the symbol with this name; None without one, or a trade of it.

        See `find`. For faces with `follows_days` alone: it is that of the whole day because of them.
        """
        symbol = self.find(written)
        return None if symbol is None else self._core.days.aggregate(symbol)

    def day_topic(self, symbol: str) -> Topic:
        """The topic of the aggregates of `symbol`, which need not exist yet: subscribe with `snapshot=1`.

        The entries are `Aggregate`: the present one first, then one a trade, or the newest for a client that
        is behind. For faces with `follows_days` alone.
        """
        return Topic(DAYS, symbol)

    def owes_every_entry(self, topic: Topic) -> bool:
        """Whether a subscriber of `topic` must get every entry; else the newest ones are all that counts."""
        return self._core.topics.log_of(topic).stream.newest_by is None

    def check_symbol(self, symbol: str) -> None:
        """Raises InvalidValue when no source carries `symbol`."""
        if symbol not in self._core.carriers:
            raise InvalidValue("symbol", symbol, "unknown symbol", nearest=self._nearest(symbol))

    def _nearest(self, symbol: str) -> Sequence[str]:
        """Known symbols that resemble `symbol`; if none does, some."""
        name, known = symbol[:LONGEST].upper(), self._core.symbols
        at = max(0, bisect_left(known, name) - COMPARED // 2)
        alike = known if len(known) <= COMPARED else known[at : at + COMPARED]
        return difflib.get_close_matches(name, alike, n=5, cutoff=0.3) or known[:5]

    def check_available(self, topic: Topic) -> None:
        """Raises Unavailable when every source has refused a symbol that `topic` needs.

        Nobody refuses a symbol that does not exist.
        """
        for symbol in self._core.channels[topic.channel].wants(topic):
            sources = self._core.carriers.get(symbol, ())
            refusals = {s.name: reason for s in sources if (reason := s.refusal(symbol)) is not None}
            if sources and len(refusals) == len(sources):
                raise Unavailable("upstream unavailable", symbol=symbol, rejected=refusals)

    def _history(self, symbol: str) -> History:
        history = self._core.history(symbol)
        history.expire(trio.current_time())
        return history

    def _source(self, source: SourceState, states: Mapping[Grade, Sequence[str]]) -> SourceInfo:
        delivered, silent, failed = source.delivered, source.silent_for, source.failed_ago
        return SourceInfo(
            state=source.shown,
            since=int(source.since * 1e9),
            age=round(source.age, 3),
            reason=source.reason,
            reason_at=None if failed is None else self._core.ago(failed),
            delivered=DeliveredInfo(
                delivered.trades,
                delivered.batches,
                delivered.bytes,
                None if silent is None else self._core.ago(silent),
                None if silent is None else round(silent, 3),
                self._load.of_source(source.name),
            ),
            connector=source.settings.connector,
            completeness=source.settings.proof.value,
            producers=source.producers if source.listens else None,
            symbols=sorted(source.subscribed_symbols),
            rejected=source.refused_symbols,
            problems=source.problems,
            quality=SymbolsInfo(
                {grade.value: len(states[grade]) for grade in Grade if grade in states},
                source.vitals.missing,
                source.vitals.lag,
            ),
            refill=self._refill(source),
            circuit=source.circuit.value,
            lines=_lines(source),
            bounds=list(bounds(self._core, source)),
            worst=self._core.worst(source, states),
        )

    def _refill(self, source: SourceState) -> RefillInfo | None:
        if not self._core.is_asked(source.name):
            return None
        refills = self._core.refills(source.name)
        return RefillInfo(
            missing=refills.missing_now,
            questions=refills.open,
            asked=refills.asked,
            filled=refills.filled,
            told=refills.told,
            given_up=refills.given_up + refills.pushed_out,
            refused=refills.refused,
            failed=refills.failed,
            circuit=refills.breaker.state(trio.current_time()).value,
        )

    def _failover(self, symbol: str) -> FailoverInfo | None:
        standing = self._core.board.standings.get(symbol)
        if standing is None:
            return None
        age = self._core.board.age(standing)
        return FailoverInfo(
            active=standing.active,
            since=self._core.ago(age),
            age=round(age, 3),
            switches=standing.switches,
            healths={name: standing.healths[name] for name in standing.sources if name in standing.healths},
        )

    def _failovers(self) -> Mapping[str, FailoverInfo]:
        standings = self._core.board.standings.values()
        away = [each.symbol for each in standings if each.active != each.sources[0]]
        some = dict.fromkeys([*away[:MAX_FAILOVERS], *islice(self._core.board.standings, MAX_FAILOVERS)])
        found = {symbol: self._failover(symbol) for symbol in islice(some, MAX_FAILOVERS)}
        return {symbol: info for symbol, info in found.items() if info is not None}

    def _client(self, session: AnySession, guest: Guest, now: float) -> ClientInfo:
        return ClientInfo(
            self._guest(guest, now),
            age=round(now - guest.came_at, 3),
            heard=round(now - session.heard, 3),
            follows={topic: (self._epoch(topic), lane.position) for topic, lane in session.lanes.items()},
            sent=session.sent,
            dropped=session.dropped,
            outbox=_outbox(session.backlog, now),
        )

    def _guest(self, guest: Guest, now: float) -> GuestInfo:
        return GuestInfo(
            id=guest.number,
            address=guest.address,
            protocol=guest.protocol,
            user_agent=guest.agent,
            since=self._core.ago(now - guest.came_at),
        )

    def _departure(self, departure: Departure, now: float) -> DepartureInfo:
        guest, left_ago = departure.guest, now - departure.left_at
        return DepartureInfo(
            self._guest(guest, now),
            left_at=self._core.ago(left_ago),
            age=round(departure.left_at - guest.came_at, 3),
            code=code_of(departure.ended),
            reason=why_ended(departure.ended),
            sent=departure.sent,
            dropped=departure.dropped,
        )

    def _epoch(self, topic: Topic) -> int:
        return self._core.topics.log_of(topic).stream.epoch

    def _symbol(self, symbol: str) -> SymbolInfo:
        history = self._history(symbol)
        newest, came_at = history.latest(1), history.came_at
        sources = self._core.carriers[symbol]
        return SymbolInfo(
            symbol=symbol,
            channels=list(self._channels),
            sources=[source.name for source in sources],
            status=min([source.status(symbol) for source in sources], key=_BEST_FIRST.index),
            quality=self.quality(symbol),
            newest=newest[0] if newest else None,
            offset=self._core.channels[TRADES].log_of(Topic(TRADES, symbol)).last,
            rate=self._load.of_symbol(symbol),
            last_age=None if came_at is None else round(trio.current_time() - came_at, 3),
            failover=self._failover(symbol),
        )


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raises InvalidValue when `value` is below `least` or above `most`."""
    if not least <= value <= most:
        raise InvalidValue(name, value, f"must be {least} to {most}")


# what clients can have most of. `rate`: messages a second since they came
MOST: Final[Mapping[str, Callable[[AnySession, Guest, float], float]]] = {
    "rate": lambda session, guest, now: session.sent / max(1.0, now - guest.came_at),
    "sent": lambda session, _guest, _now: session.sent,
    "dropped": lambda session, _guest, _now: session.dropped,
    "waiting": lambda session, _guest, _now: session.backlog.bytes if session.backlog else 0,
    "oldest": lambda session, _guest, now: _behind(session, now),
}


def _outbox(backlog: Backlog | None, now: float) -> OutboxInfo:
    if backlog is None:
        return OutboxInfo()
    return OutboxInfo(backlog.messages, backlog.bytes, round(now - backlog.since, 3))


def _lines(source: SourceState) -> list[LineInfo]:
    if not isinstance(source.settings, SourceSettings):
        return []
    return [
        LineInfo(
            number,
            line.link.value,
            round(line.age, 3),
            line.reason,
            len(line.symbols),
            None if line.replaces is None else line.replaces.number,
            line.trades,
        )
        for number, line in sorted(source.lines.items())
    ]


def _behind(session: AnySession, now: float) -> float:
    """Seconds for which the oldest message for a client has waited."""
    backlog = session.backlog
    return 0.0 if backlog is None else now - backlog.since
