"""The state that outlives every actor: histories, interests, how the sources fare, and the topics.

Rules of this file. Actors are made from this state and may die at any moment; nothing that they must not lose
is in them. Nothing here waits, nothing here runs by itself, and nothing here knows a client.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from urllib.parse import urlsplit

from .cache.archive import Archive
from .cache.delivery import Delivery, shard_of
from .cache.history import History
from .cache.holding import Holds
from .cache.recorder import finish
from .cache.recording import Recording
from .cache.store import Store
from .cache.tiers import Tiers
from .cache.verdict import Verdict
from .domain import Item, Missing, Switched, Topic, Trade
from .domain.quality import Grade, Quality
from .domain.symbols import Names
from .domain.topic import CANDLES, DAYS, QUALITY
from .events import Events
from .faults.registry import Faults
from .figures import Histogram, Lag
from .net.budget import Budget
from .net.pace import Attempts
from .settings.schema import BackoffSettings, Mode, Send, Settings
from .sources.breaker import Breaker
from .sources.failover import Board, Plan
from .sources.health import Health
from .sources.intake import Intake
from .sources.port import AnySourceSettings, ProducerSettings, SourceSettings, can_be_asked
from .sources.reading import in_short
from .sources.state import FAILURES, Audience, SourceState, carriers
from .sources.wanted import Refills
from .topics.candle_streams import Candles
from .topics.channel import Ground, channels
from .topics.days import Days
from .topics.quality import Qualities, judge
from .topics.topics import Topics


class Core:
    """Built once from the settings. `epoch` tells this run's offsets from those of other runs, `audience`
    hears how the sources fare. `clock`: wall time, for what is shown. `steady` never jumps: for ages.
    `events`: the ring of what happened.

    `archive`: the history on disk, at `place`. It is opened, and waited for. Raises ConfigError and
    ArchiveFailed. Who built the core ends with `finish`.
    """

    def __init__(
        self,
        settings: Settings,
        audience: Audience | None = None,
        *,
        events: Events | None = None,
        epoch: int | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        archive: Archive | None = None,
        place: str = "memory",
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.started = clock()
        self._steady = steady
        self._started_at = steady()
        self.number = int(self.started * 1000) if epoch is None else epoch  # of this start
        self.events = events or Events(clock)
        # None: nothing can be broken on purpose, and nothing asks whether it is.
        self.faults = Faults(settings.chaos.seed, self.events) if settings.chaos.enabled else None
        cache = settings.cache
        self.recording = Recording(
            self.history,
            archive,
            self.number,
            after_commit=settings.history.send is Send.AFTER_COMMIT,
            place=place,
        )
        self.epoch = self.recording.epoch  # of the streams of trades
        self.stores = [
            Store(
                self.epoch,
                cache.trades_per_symbol,
                cache.max_age_seconds,
                self._refused,
                staged=None if archive is None else self.recording.fills,
                streams=self.recording.streams,
                holds=Holds(self.hold, self._missed, self._switched, self._numbered_anew, clock),
            )
            for _ in range(cache.shards)
        ]
        self.missing: Callable[[Missing], None] | None = None  # asks for it; None: no trade waits for others
        self._audience = audience or Audience()
        self._attempts: dict[str, Attempts] = {}  # to connect, by address
        self._known: dict[
            str, SourceState
        ] = {}  # also those that were removed: their trades may be on the way
        self.sources: dict[str, SourceState] = {}
        self.sources = self._states(settings)
        self.carriers = carriers(self.sources, _chosen(settings))
        self.names = Names(self.carriers)
        self.archive = archive
        self.delivery = Delivery(cache.shards)
        self.board = Board(
            lambda: self.sources,
            self.delivery,
            _state_of,
            self._source_of_newest,
            self._settle,
            self._look,
            clock,
            steady,
        )
        self.board.adopt(self._plans())
        until = self.recording.shown if self.recording.after_commit else None
        self.tiers = Tiers(archive, self.history, until)
        ground = Ground(
            self.carriers,
            self.history,
            self.number,
            clock,
            self._wake,
            settings.fanout.joined,
            self.tiers,
            self.recording,
            settings.candles.rules,
            self.active,
        )
        self.channels = channels(ground)
        days = self.channels[DAYS]
        assert isinstance(days, Days)
        self.days = days
        candles = self.channels[CANDLES]
        assert isinstance(candles, Candles)
        self.candles = candles
        self.latency = Histogram()  # from the admission of a trade until a pass has brought it to all sockets
        self.lag = Lag()  # of the event loop
        self.topics = Topics(
            self.carriers,
            self.channels,
            settings.fanout.interval,
            lambda symbol: self._look((symbol,)),
            self.latency.add,
            self.candles.prepare,
            self.number,  # what all symbols are together begins anew at each start
            settings.fanout.joined,
            unwoken=(CANDLES,),
        )
        self.recording.connect(self.topics.readers.news, self.tiers.stored_from)
        self._budgets: dict[str, Budget] = {}  # of their questions by HTTP
        self._refills = defaultdict[str, Refills](Refills)
        self._intakes: dict[str, Intake] = {}  # also of sources that were removed: they may come back

    def adopt(self, settings: Settings) -> None:
        """Follow these settings from now on, in sources only. The connectors are the business of others.

        A source keeps its state, whatever has changed about it, also if it comes back after it was removed.
        """
        before = set(self.carriers)
        for name in self.sources.keys() - settings.sources.keys():
            self.sources[name].interest.confine(())
        self.settings = settings
        self.sources = self._states(settings)
        for name in self._intakes:
            self._known[name].forget_discovered()  # each symbol is judged anew below
        now = carriers(self.sources, _chosen(settings))
        self.carriers.clear()  # it has many readers
        self.carriers.update(now)
        self.names = Names(now)
        for name, intake in self._intakes.items():
            intake.adopt(is_open=self.intake(name) is not None)
        self.board.adopt(self._plans())
        self.topics.want_again(now)
        self._let_go()
        self._look(sorted(before | now.keys()))
        self.topics.appear(now)
        self._tell_of_symbols(now.keys() - before, before - now.keys())

    def intake(self, name: str) -> Intake | None:
        """The entry for what clients push to the source `name`; None if there is no source that takes it."""
        source = self.sources.get(name)
        if source is None or not isinstance(source.settings, ProducerSettings):
            return None
        if name not in self._intakes:
            discover = partial(self.discover, source=name)
            admitted = partial(self._admitted, name)
            self._intakes[name] = Intake(source, self._is_taken, discover, self.delivery.put, admitted)
        return self._intakes[name]

    def attempt(self, source: SourceState, settings: SourceSettings) -> float:
        """Seconds until one more connection to the address of these settings may be made; 0: now, and it
        counts. All sources with that address share what the upstream takes; all lines of a source share its
        circuit."""
        now = self._steady()
        if (wait := source.breaker.wait(now)) > 0:
            return wait
        wait = self.attempts(settings).take(now)
        if wait == 0:
            source.breaker.attempt(now)
        return wait

    def budget(self, name: str) -> Budget:
        """What may be asked of the source `name` by HTTP; all its questions share it."""
        settings = self.sources[name].settings
        assert isinstance(settings, SourceSettings)
        budget = self._budgets.setdefault(name, Budget(settings.refill_weight))
        budget.most = settings.refill_weight
        return budget

    def attempts(self, settings: SourceSettings) -> Attempts:
        """The attempts to connect to the address of these settings; all sources with it share them."""
        where = urlsplit(settings.url).netloc.rpartition("@")[2]
        return self._attempts.setdefault(where, Attempts(*settings.connections_in))

    def refills(self, name: str) -> Refills:
        """What is missing at the source `name`, as far as anybody asks for it."""
        return self._refills[name]

    def want(self, missing: Missing) -> None:
        """These trades shall be asked for. Live ones wait for them if something came behind them.

        Of a source that stands by nobody wants what comes now.
        """
        is_now = missing.before is None and missing.until is None
        if is_now and self.stands_by(missing.source, missing.symbol):
            return
        self.refills(missing.source).add(missing, self.hold(missing.source))

    def discover(self, symbol: str, source: str) -> None:
        """`source` brings `symbol` by itself: from now on it is known like a configured one. Idempotent.

        For sources whose settings allow it (`symbols = ["*"]`). The caller bounds their number, and brings
        nothing that is not well-formed. Raises KeyError for an unknown source.
        """
        state = self.sources[source]
        if state.discover(symbol):
            self.carriers.setdefault(symbol, []).append(state)
            self.names.add(symbol)
            self.topics.want_again((symbol,))
            self._look((symbol,))
            self.topics.appear((symbol,))
            if len(self.carriers[symbol]) == 1:
                self._tell_of_symbols((symbol,), ())

    @property
    def news(self) -> Callable[[str], None]:
        """Whom the shards tell that a symbol's history has grown: its readers, or the disk before them."""
        return self.recording.news if self.recording.after_commit else self.topics.readers.news

    @property
    def symbols(self) -> Sequence[str]:
        """Every symbol that a source carries, in alphabetical order."""
        return sorted(self.carriers)

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return self._steady() - self._started_at

    def ago(self, seconds: float) -> int:
        """The moment so many seconds ago, as ns since the epoch: an age becomes a time to be shown."""
        return int((self.clock() - seconds) * 1e9)

    def history(self, symbol: str) -> History:
        """The log of `symbol`, wherever it is kept."""
        return self.stores[shard_of(symbol, len(self.stores))].history(symbol)

    def quality(self, symbol: str) -> Sequence[Quality]:
        """How the data of `symbol` is, at each of its sources."""
        return self._qualities.now(symbol)

    def symbols_by_state(self) -> Mapping[str, Mapping[Grade, Sequence[str]]]:
        """The symbols of each source that are in each state."""
        return self._qualities.by_source()

    def worst(self, source: SourceState, states: Mapping[Grade, Sequence[str]]) -> tuple[str, Health] | None:
        """The wanted symbol with which `source` fares worst, and how; None while none is wanted.

        `states`: its symbols in each state. There may be thousands: within a state the lag decides, so one of
        each is enough; among the lost ones those that only begin fare better.
        """
        some = []
        for grade, symbols in states.items():
            wanted = [symbol for symbol in symbols if source.interest.term(symbol) is not None]
            if wanted and grade is Grade.LOST:
                some.append(next((each for each in wanted if source.status(each) == "lost"), wanted[0]))
            elif wanted:
                some.append(max(wanted, key=source.vitals.lag_of))
        healths = [(symbol, self.board.health(source.name, symbol)) for symbol in some]
        return min(healths, key=lambda each: each[1].score, default=None)

    @property
    def _qualities(self) -> Qualities:
        channel = self.channels[QUALITY]
        assert isinstance(channel, Qualities)
        return channel

    def hold(self, source: str) -> float:
        """Seconds that trades of `source` wait for missing ones; 0 where nobody asks for those."""
        asked = self._asked(source)
        return 0.0 if asked is None else asked.hold

    def is_asked(self, source: str) -> bool:
        """Whether `source` is asked for missing trades."""
        return self._asked(source) is not None

    def _asked(self, source: str) -> SourceSettings | None:
        """The settings of a source that is asked for missing trades."""
        state = self.sources.get(source)
        if self.missing is None or state is None or not isinstance(state.settings, SourceSettings):
            return None
        return state.settings if state.settings.refill and can_be_asked(state.settings) else None

    def _missed(self, missing: Missing) -> None:
        if self.missing is not None and self._asked(missing.source) is not None:
            self.missing(missing)

    def _numbered_anew(self, source: str, symbol: str) -> None:
        self.refills(source).forget(symbol)
        self._known[source].renumbered_by(symbol)

    def _let_go(self) -> None:
        """Whoever waits for trades that nobody asks for any more goes on."""
        for store in self.stores:
            for symbol in store.release(lambda source: not self.hold(source)):
                self.news(symbol)

    def finish(self) -> bool:
        """After the tree has ended: record what is left, and close the history. See `recorder.finish`."""
        for store in self.stores:
            grown = store.release()  # nobody brings what is missing any more
            if self.archive is not None:
                self.recording.follow(lambda: None)
                for symbol in grown:
                    self.recording.news(symbol)
        return finish(self.recording)

    def active(self, symbol: str) -> str | None:
        """The source whose trades are the stream of `symbol`; None: those of all of its sources are."""
        return self.board.active(symbol)

    def stands_by(self, source: str, symbol: str) -> bool:
        """Whether the stream of `symbol` is that of another source at present."""
        return self.active(symbol) not in (None, source)

    def lost_in_shard(self, shard: int, batches: Iterable[Iterable[Item]]) -> None:
        """Items were in a shard's hand when it crashed: each that was not admitted becomes a gap."""
        for batch in batches:
            for symbol in self.stores[shard].lost(batch):
                self.news(symbol)

    def _states(self, settings: Settings) -> dict[str, SourceState]:
        found = {name: self._state(name, source) for name, source in settings.sources.items()}
        chosen = _chosen(settings)
        for name, state in found.items():
            state.leave_out({symbol for symbol, sources in chosen.items() if name not in sources})
        return found

    def _plans(self) -> dict[str, Plan]:
        """The symbols in mode `failover`, as far as a source has them."""
        return {
            symbol: Plan([source.name for source in self.carriers[symbol]], keys.return_after)
            for symbol, keys in self.settings.symbols.items()
            if keys.mode is Mode.FAILOVER and symbol in self.carriers
        }

    def _source_of_newest(self, symbol: str) -> str | None:
        newest = self.history(symbol).newest_trade
        return None if newest is None else newest.source

    def _settle(self, symbol: str, source: str | None) -> None:
        self.history(symbol).active = source

    def _switched(self, mark: Switched, offset: int) -> None:
        """The stream has switched behind place `offset`."""
        assert mark.before is not None
        self.board.told(mark.symbol)
        self._audience.switched(mark.symbol, self.epoch, offset, mark.before, mark.source, mark.reason)

    def _tell_of_symbols(self, added: Collection[str], removed: Collection[str]) -> None:
        if added or removed:
            self._audience.symbols_changed(sorted(added), sorted(removed))

    def _state(self, name: str, settings: AnySourceSettings) -> SourceState:
        known = self._known.get(name)
        if known is None:
            known = SourceState(
                name,
                settings,
                self._audience,
                self.clock,
                self._look,
                steady=self._steady,
                deliver=self._deliver,
                dice=Random(f"{self.number} {name}"),
                breaker=_breaker(self.settings.backoff),
            )
            self._known[name] = known
        elif known.settings != settings or name not in self.sources:
            known.become(settings)
        return known

    def _admitted(self, source: str, symbol: str, trade_id: str) -> Trade | None:
        return self.history(symbol).admitted(source, trade_id)

    def _is_taken(self, symbol: str) -> bool:
        """Whether an exchange has `symbol`, or any source another one with the same name without dashes."""
        return any(
            each != symbol or any(not isinstance(s.settings, ProducerSettings) for s in self.carriers[each])
            for each in self.names.alike(symbol)
        )

    def _deliver(self, items: Sequence[Item]) -> None:
        self.delivery(items)

    def _wake(self, topic: Topic) -> None:
        self.topics.news(topic)

    def _look(self, symbols: Iterable[str]) -> None:
        self.board.touch(symbols)
        for channel in self.channels.values():
            channel.look(symbols)

    def _refused(self, trade: Trade, verdict: Verdict) -> None:
        about = in_short(f"{trade.symbol}: trade {trade.trade_id}")
        self._known[trade.source].problem(verdict.value, about)


def _breaker(of: BackoffSettings) -> Breaker:
    """It opens for as long as one line alone would wait by then, so that it makes none of them slower."""
    return Breaker(FAILURES, min(of.max_delay, of.initial_delay * of.multiplier ** (FAILURES - 1)))


def _state_of(source: SourceState, symbol: str) -> tuple[str, bool, float | None, bool]:
    """For the board: how the data of `symbol` is there, whether it is connected, the lag if measured, and
    whether that state is known to be so: a silence with a reason is not."""
    status, quality = source.status(symbol), judge(source, symbol, 0)
    state = status if quality.state is Grade.LOST else quality.state.value
    is_known = quality.state is not Grade.QUIET or quality.reason is None
    return state, status not in ("lost", "connecting"), quality.lag, is_known


def _chosen(settings: Settings) -> Mapping[str, Sequence[str]]:
    """The symbols whose sources the configuration names."""
    return {symbol: keys.sources for symbol, keys in settings.symbols.items() if keys.sources}
