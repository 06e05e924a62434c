"""The tree, in the order in which the data flows, and how it is run.

A trade's way. A `Connector` decodes it and delivers it to the shard of its symbol (`Delivery`). The
`CacheShard` admits it into the symbol's history and tells the topic that there is news. The topic's
`Subscription` reads the history and brings every session the same encoded update. The `Session` writes it to
its client's socket. The state that survives a crash of any of them is in `Core`, and for the clients in
`Lobby`.
"""

from __future__ import annotations

import decimal
import gc
import os
import random
import signal
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from attrs import evolve
from loguru import logger

from actors.cache_shard import CacheShard
from actors.connector import Connector, LinkLost, Patience, Source
from actors.follower import Follower
from supervisors import (
    Actor,
    Backoff,
    Child,
    Handle,
    Limit,
    Mailbox,
    Overflow,
    Pool,
    Restart,
    Strategy,
    Supervisor,
)
from supervisors import run as run_supervisor

from . import paths, plugs, stores
from .cache.archive import Archive, ArchiveFailed, Keep
from .cache.recorder import FINISH_WITHIN, Habits, Recorder
from .core import Core
from .domain import Item
from .domain.errors import ConfigError
from .domain.secrets import concealed
from .events import Events
from .faults.at_random import RandomFaults
from .faults.passage import DISCONNECT, Passage
from .gateway.face import Face
from .gateway.hall import Hall, closed_within
from .gateway.herald import Herald
from .gateway.host import HttpServer
from .gateway.identity import ANONYMOUS
from .gateway.limits import Account
from .gateway.lobby import Lobby
from .gateway.memory import MemoryGuard, resident_bytes
from .gateway.notices import Announcer
from .gateway.room import Room, make_room
from .net.budget import Budget
from .net.rest import RestClient
from .ops.dump import Dump
from .ops.lag import LagProbe
from .ops.load import LoadProbe
from .reactions import Reactions
from .reload import Reload
from .settings.schema import History as HistorySettings
from .settings.schema import Settings, WhenFull
from .sources.backfill import Refiller
from .sources.failover import Watch
from .sources.faulty import FaultyIntaker, FaultySource
from .sources.keeper import Keeper
from .sources.lookout import Lookout
from .sources.port import (
    Filler,
    Intaker,
    ListenerSettings,
    PushSettings,
    SourceSettings,
    codec_class,
    filler_of,
)
from .sources.state import Line, SourceState
from .topics.candle_streams import Candles
from .topics.candles import DIGITS
from .topics.days import Days
from .topics.topics import BEAT_WITHIN

# Batches; full: refused, counted, marked as a gap (see Delivery). 16 of the places are for producers that can
# be made to wait: their hurry neither takes the room of an exchange, nor delays it by more than that.
SHARD_MAILBOX = Mailbox(size=4096, reserved=4080)
NOTICES = Mailbox(size=1024)  # a few an outage; full: refused, and counted there
GRACE = 5.0  # seconds: to part from an upstream, and for a loop that is late
CLEANUP_WITHIN = 1.0  # seconds: the default of `Child.cleanup_within`
ONE_REQUEST = Mailbox(size=1, overflow=Overflow.CONFLATE, key=lambda _message: None)
RECORD_AGAIN = 1.0  # seconds: with send = "after_commit" clients wait for the recorder
WARM_WITHIN = 600.0  # seconds: a start takes one, but the server of a database may take its time
FOLLOW_EVERY = 1.0  # seconds: how long a trade that nobody asks for may be unread
ANSWER_WITHIN = 10.0  # seconds for a whole answer to a question by HTTP
FOREVER = Limit(restarts=None)  # an exchange that is down for a day is retried for a day


def hall(
    settings: Settings,
    room: Room | None = None,
    archive: Archive | None = None,
    clock: Callable[[], float] = time.time,
) -> Hall:
    """The state of a daemon, before anything runs. `room` for clients: by default as the settings say.

    `archive`: the history on disk, which is opened. `clock`: wall time, in seconds since the epoch. Raises
    ConfigError for a face or a history that cannot be used, and for two faces that want the same path.
    """
    events = Events(clock)
    lobby, on = Lobby(settings, room, events), faces(settings)
    audience = Announcer(lobby.clients, events)
    try:
        core = Core(
            settings, audience, events=events, archive=archive, place=place(settings.history), clock=clock
        )
    except ArchiveFailed as error:
        raise ConfigError([f"[history]: {error}"]) from None
    core.missing = core.want  # the companions of the sources ask for it
    built = Hall(core, lobby, on)
    try:
        built.check_paths()
    except ConfigError:
        core.finish()
        raise
    return built


def store(settings: Settings) -> Archive | None:
    """The history on disk, not yet opened; None when nothing is kept. Raises ConfigError."""
    keys = settings.history
    if not keys.is_on:
        return None
    made: Archive = stores.plug(keys).Store(keys)
    return made


def place(keys: HistorySettings) -> str:
    """Where the history is, for people."""
    return str(Path(keys.directory).resolve()) if keys.store == "sqlite" else concealed(keys.dsn) or "memory"


def tree(hall: Hall, read: Callable[[], Settings] | None = None) -> Supervisor:
    """Later branches depend on earlier ones. `read` gives the configuration anew; None: it stays as it is."""
    core = hall.core
    return Supervisor(
        strategy=Strategy.REST_FOR_ONE,
        limit=_limit(core.settings),
        children=(
            Child(paths.OPS, partial(ops, hall, read)),
            Child(paths.CACHE, partial(cache, core)),
            *history(core),
            Child(paths.TOPICS, partial(topics, core)),
            *followers(hall),
            Child(paths.SOURCES, partial(sources, hall)),
            Child(paths.FAILOVER, partial(failover, core)),
            Child(paths.GATEWAY, partial(gateway, hall)),
            *chaos(core),
        ),
    )


def ops(hall: Hall, read: Callable[[], Settings] | None = None) -> Supervisor:
    """What operators see and ask for. First, so that it stops last; whatever fails here harms nobody else."""
    return Supervisor(
        limit=FOREVER,
        children=(
            # None has anything to finish, so all are cancelled at once.
            Child(paths.name(paths.LAG), partial(LagProbe, hall.core.lag), stop_within=0),
            Child(paths.name(paths.LOAD), partial(LoadProbe, hall.load), stop_within=0),
            Child(paths.name(paths.GUESTBOOK), lambda: hall.lobby.clients.guestbook, stop_within=0),
            *memory(hall),
            Child(paths.name(paths.DUMP), Dump, mailbox=ONE_REQUEST, stop_within=0),
            *([] if read is None else [reload(hall, read)]),
        ),
    )


def memory(hall: Hall) -> tuple[Child, ...]:
    """The bound of the process's memory, when one is configured."""
    most = hall.settings.gateway.max_memory
    if not most:
        return ()
    guard = partial(MemoryGuard, hall.lobby, most, resident_bytes)
    return (Child(paths.name(paths.MEMORY), guard, stop_within=0),)


def reload(hall: Hall, read: Callable[[], Settings]) -> Child:
    """Takes over a changed configuration. A request that comes while one is served is served after it."""
    return Child(
        paths.name(paths.RELOAD),
        partial(Reload, hall, read, partial(source_child, hall)),
        mailbox=ONE_REQUEST,
        stop_within=0,
    )


def cache(core: Core) -> Supervisor:
    """The shards: a batch of items a message."""
    return Supervisor(
        limit=_limit(core.settings),
        children=tuple(
            Child(
                paths.name(paths.shard(n)),
                partial(CacheShard[Item], store, core.news, partial(core.delivery.attach, n)),
                mailbox=SHARD_MAILBOX,
                stop_within=core.settings.supervision.stop_within,
                beat_within=BEAT_WITHIN,
            )
            for n, store in enumerate(core.stores)
        ),
    )


def history(core: Core) -> tuple[Child, ...]:
    """The recorder, if anything is kept on disk. It comes back for ever: the memory holds what it missed."""
    recording, keys = core.recording, core.settings.history
    if recording.archive is None:
        return ()
    if not recording.after_commit:
        core.topics.readers.add_of_all(recording.news)
    keep = Keep(keys.keep_days, keys.keep_trades, keys.min_free_bytes)
    habits = Habits(keys.interval, keep, keys.when_full is WhenFull.DROP_OLDEST)
    recorder = Child(
        paths.name(paths.RECORDER),
        partial(Recorder, recording, core.history, habits, core.clock),
        mailbox=ONE_REQUEST,
        backoff=Backoff(cap=RECORD_AGAIN),
        ready_within=WARM_WITHIN,
        stop_within=core.settings.supervision.stop_within,
    )
    return (Child(paths.HISTORY, lambda: Supervisor(limit=FOREVER, children=(recorder,))),)


def topics(core: Core) -> Pool:
    """One subscription a topic that somebody listens to, started by `Topics`."""
    return Pool(limit=_limit(core.settings))


def followers(hall: Hall) -> tuple[Child, ...]:
    """What is made of the trades of all symbols, whoever listens. Days only if a face needs them.

    Before the sources, so that they see the first trades.
    """
    core = hall.core
    candles, every = core.candles, core.settings.candles.throttle
    children = [follower(core, paths.CANDLES, candles, every, candles.restore)]
    if any(face.follows_days for face in hall.faces):
        core.recording.collect_from(core.days.checkpoints)
        children.append(follower(core, paths.DAYS, core.days, begin=core.days.restore))
    return (Child(paths.FOLLOWERS, lambda: Supervisor(limit=FOREVER, children=tuple(children))),)


def follower(
    core: Core,
    path: str,
    product: Candles | Days,
    interval: float = FOLLOW_EVERY,
    begin: Callable[[], Awaitable[object]] | None = None,
) -> Child:
    """The actor that keeps `product` up to date. `begin()` brings it where it was in an earlier process."""
    core.topics.readers.add_of_all(product.news)
    every = min(interval, FOLLOW_EVERY, core.settings.cache.max_age_seconds / 4)
    return Child(
        paths.name(path),
        partial(Follower, product, every, begin),
        mailbox=ONE_REQUEST,
        ready_within=WARM_WITHIN,
        backoff=Backoff(cap=FOLLOW_EVERY),  # the history does not wait for it for long
        beat_within=BEAT_WITHIN,
        stop_within=0,
    )


def failover(core: Core) -> Supervisor:
    """The choice of the source of a symbol, where the configuration wants one at a time.

    No part of `sources`, for it looks at all of them. Behind them, so that it stops first: a source that ends
    with the daemon is no reason for a switch. While it is down nothing is switched.
    """
    watch = partial(Watch, core.board)
    child = Child(
        paths.name(paths.WATCH), watch, backoff=Backoff(cap=1.0), beat_within=BEAT_WITHIN, stop_within=0
    )
    return Supervisor(limit=FOREVER, children=(child,))


def sources(hall: Hall) -> Supervisor:
    """One branch a source: a flapping exchange restarts alone, with backoff, for as long as it takes."""
    hall.core.board.recall()  # the histories are loaded by now, and tell whose streams they are
    return Supervisor(
        limit=FOREVER, children=tuple(source_child(hall, source) for source in hall.core.sources.values())
    )


def source_child(hall: Hall, source: SourceState) -> Child:
    """The child of `sources` that keeps this one connected, or listens for its producers."""
    settings = source.settings
    make: Callable[[Any], Supervisor | Actor] = partial(upstream, hall, source)
    if isinstance(settings, ListenerSettings):
        make = partial(listener, hall, source)
    elif isinstance(settings, PushSettings):
        make = partial(door, hall, source)
    # A source can never keep the rest from starting.
    return Child(source.name, partial(make, settings), backoff=backoff(hall.settings), needed=False)


def upstream(hall: Hall, source: SourceState, settings: SourceSettings) -> Supervisor:
    """One source that we connect to: its lines, which are connections, who keeps them, and companions."""
    name, child_of = source.name, partial(line_child, hall, settings)

    def lines() -> Pool:
        standing = [line for line in source.lines.values() if not line.is_over]
        return Pool(limit=FOREVER, children=map(child_of, standing))

    keep = partial(Keeper, source, paths.lines(name), child_of)
    return Supervisor(
        limit=FOREVER,
        children=(
            Child(paths.name(paths.lines(name)), lines),
            Child(paths.name(paths.keeper(name)), keep, backoff=backoff(hall.settings), stop_within=0),
            *companions(hall, source, settings),
        ),
    )


def line_child(hall: Hall, settings: SourceSettings, line: Line) -> Child:
    """One connection to a source. It restarts alone, with a backoff of its own."""
    return Child(
        line.number,
        partial(connector, hall.core, settings, line),
        backoff=backoff(hall.settings),
        stop_within=hall.settings.supervision.stop_within,
        beat_within=beat_within(settings),
        needed=False,
    )


def companions(hall: Hall, source: SourceState, settings: SourceSettings) -> tuple[Child, ...]:
    """The actors beside the lines of a source."""
    filler, name = filler_of(source.name, settings), source.name
    looks_out = companion(hall, paths.lookout(name), partial(lookout, hall.core, source, settings, filler))
    if filler is None or not settings.refill:
        return (evolve(looks_out, beat_within=BEAT_WITHIN),)
    fills = companion(hall, paths.refill(name), partial(refiller, hall.core, source, settings, filler))
    return (evolve(looks_out, beat_within=BEAT_WITHIN), fills)


def companion(hall: Hall, path: str, make: Callable[[], Lookout | Refiller]) -> Child:
    """An actor beside the lines of a source. It has nothing to finish."""
    return Child(paths.name(path), make, backoff=backoff(hall.settings), stop_within=0, needed=False)


def lookout(core: Core, source: SourceState, settings: SourceSettings, filler: Filler | None) -> Lookout:
    """The actor that finds out which symbols of a source are quiet, and which are stalled."""
    refills = core.refills(source.name)
    return Lookout(
        source,
        core.history,
        core.clock,
        filler=filler,
        reach=partial(asks, settings, core.budget(source.name)) if filler else None,
        wanted=lambda: refills.symbols,
        want=core.want if filler is not None and settings.refill else None,
        is_standby=partial(core.stands_by, source.name),
        left_out=partial(core.delivery.last_left_out, source.name),
    )


def refiller(core: Core, source: SourceState, settings: SourceSettings, filler: Filler) -> Refiller:
    """The actor that asks a source for missing trades."""
    return Refiller(
        source,
        settings,
        filler,
        partial(asks, settings, core.budget(source.name)),
        core.budget(source.name),
        core.refills(source.name),
        core.delivery.put,
        lambda symbol: (
            None if core.stands_by(source.name, symbol) else core.history(symbol).newest_of(source.name)
        ),
        lambda missing: core.history(missing.symbol).lacks(missing),
    )


def asks(settings: SourceSettings, budget: Budget) -> RestClient:
    """Carries questions to the REST of a source."""
    return RestClient(
        settings.refill_url,
        budget,
        most_bytes=settings.max_message_bytes,
        within=ANSWER_WITHIN,
        connect_within=settings.connect_within,
        weight_header=settings.weight_header,
        proxy=settings.proxy,
    )


def backoff(settings: Settings) -> Backoff:
    """The waits before a source is tried again."""
    of = settings.backoff
    return Backoff(first=of.initial_delay, factor=of.multiplier, cap=of.max_delay, jitter=of.jitter)


def gateway(hall: Hall) -> Supervisor:
    """Sessions, broadcaster and HTTP server. None is useful without the others, so they restart together."""
    settings = hall.settings
    return Supervisor(
        strategy=Strategy.ONE_FOR_ALL,
        limit=_limit(settings),
        children=(
            Child(paths.name(paths.SESSIONS), lambda: Pool(max_children=settings.gateway.max_sessions)),
            Child(
                paths.name(paths.HERALD),
                partial(Herald, hall.lobby.clients),
                mailbox=NOTICES,
                beat_within=BEAT_WITHIN,
            ),
            *(child for face in hall.faces for child in face.children(hall)),
            Child(
                paths.name(paths.HTTP),
                partial(HttpServer, hall),
                stop_within=settings.supervision.stop_within,
            ),
        ),
    )


def faces(settings: Settings) -> list[Face]:
    """The protocols for clients that are switched on, by the names of their files in `faces/`.

    Raises ConfigError with a line for each that lacks its library.
    """
    made: list[Face] = []
    problems: list[str] = []
    for name in plugs.names("faces"):
        written = settings.faces.get(name)
        if written is None or written.enabled:
            plug = plugs.find("faces", name)
            keys = written or plug.Settings()
            if keys.enabled:
                try:
                    made.append(plug.Face(keys))
                except ConfigError as error:
                    problems += error.problems
    if problems:
        raise ConfigError(problems)
    return made


def chaos(core: Core) -> tuple[Child, ...]:
    """Random faults, when they are configured. Last, because they concern everything before."""
    settings = core.settings.chaos
    if core.faults is None or not settings.faults_per_minute:
        return ()
    # One for all incarnations: a new one goes on with the dice, not back to their seed.
    actor = RandomFaults(core.faults, settings.faults_per_minute, random.Random(settings.seed))
    return (Child(paths.CHAOS, lambda: actor),)


def connector(core: Core, settings: SourceSettings, line: Line) -> Connector[Item] | None:
    """One connection to an upstream: its language (`Codec`) is all that is particular about it.

    None if nobody wants it any more.
    """
    source = line.source
    share = source.interest.parts.get(line.share)
    if line.is_over or share is None:
        return None
    make_codec = partial(codec_class(settings), source.name, settings)
    reach = partial(plugs.find("transports", settings.transport).Source, source.name, settings)
    if settings.transport == "rest":  # with the bounds that hold for all questions to this source
        reach = partial(reach, ask=partial(asks, settings, core.budget(source.name)))
    elif settings.transport == "websocket":
        reach = partial(reach, paced=line.paced)
    reached: Source[Item] = reach(make_codec)
    if core.faults is not None:
        reached = FaultySource(core.faults, paths.source(source.name), reach, make_codec)
    return Connector(
        reached,
        share,
        core.delivery if line.replaces is None else line.bring,
        partial(line.mark, make_codec().missed),
        line,
        Patience(settings.stale_after, settings.subscribe_within),
        partial(core.attempt, source, settings),
        lambda: line.is_over,
    )


def listener(hall: Hall, source: SourceState, settings: ListenerSettings) -> Supervisor:
    """One source that producers push to: who listens, and an actor for each connection, which dies alone."""
    core, name, transport = hall.core, source.name, plugs.find("transports", settings.transport)
    intake, make_codec = core.intake(name), codec_class(settings)
    assert intake is not None

    numbers = count(1)  # of the connections; they may outlive the actor that accepted them

    def child_of(*about: Any) -> Child:
        codec: Intaker = make_codec(settings, intake.judge)
        passage = None
        if core.faults is not None:
            path = paths.source(name)
            codec = FaultyIntaker(codec, core.faults, path)
            passage = Passage(core.faults, path, lambda: LinkLost(DISCONNECT))
        connection = transport.Connection(*about, codec, intake, passage)
        return Child(next(numbers), lambda: connection, restart=Restart.TEMPORARY)

    def share_of(address: str) -> Account:
        return hall.quotas.account(ANONYMOUS, address)

    pool = paths.producers(name)
    make = partial(transport.Listener, source, settings, intake, pool, share_of, child_of)
    return Supervisor(
        limit=FOREVER,
        children=(
            Child(paths.name(pool), lambda: Pool(max_children=settings.max_connections)),
            Child(
                paths.name(paths.listener(name)),
                make,
                backoff=backoff(hall.settings),
                stop_within=hall.settings.supervision.stop_within,
            ),
        ),
    )


def door(hall: Hall, source: SourceState, settings: PushSettings) -> Actor:
    """One source that producers push to by HTTP: the gateway takes their requests."""
    intake = hall.core.intake(source.name)
    assert intake is not None
    made: Actor = plugs.find("transports", settings.transport).Door(source, intake)
    return made


def beat_within(settings: SourceSettings) -> float:
    """Seconds without a beat after which a connector is hung, for it cannot be waiting any more: for the
    connection, for room to say its opening, its subscriptions and a probe, and through a silence."""
    return settings.connect_within + 3 * settings.subscribe_within + settings.stale_after + GRACE


def run(
    settings: Settings,
    *,
    read: Callable[[], Settings] | None = None,
    children_before: tuple[Child, ...] = (),
) -> int:
    """Run the daemon until a signal ends it.

    Returns the exit code: 0 clean, 1 the user's mistake, 2 a failure inside.

    `read` gives the configuration anew and raises ConfigError; None: there is nothing to read again.
    `children_before` are started first and stopped last: the simulated exchanges of the demo.
    """
    decimal.getcontext().prec = DIGITS  # for all tasks and threads: they inherit this very context
    # Long-lived objects outnumber garbage here by far: rarer collections halve the cost of opening sessions.
    gc.set_threshold(*settings.runtime.gc_thresholds)
    gc.freeze()  # imported modules stay: no collection need look at them again
    built = hall(settings, make_room(settings), store(settings))
    reactions = Reactions(built)
    spec = tree(built, read)
    is_sound = True

    def end() -> None:
        nonlocal is_sound
        is_sound = built.core.finish()

    code = run_supervisor(
        evolve(spec, children=(*children_before, *spec.children)),
        deadline=stop_deadline(settings),
        on_event=reactions,
        faults=built.core.faults,
        on_failure=lambda error: reactions.mistake or traceback.print_exception(error),
        signals=signals(lasting=read is not None),
        finish=end,
    )
    if code == 0 and is_sound:
        return 0
    return 1 if reactions.mistake else 2


def signals(lasting: bool) -> Mapping[int, Callable[[Handle], object]]:
    """What the signals do that end nothing: the work is that of an actor, whose mailbox has room for one.

    Without a configuration to read again (`lasting` is False) a closed terminal ends the process in order.
    """
    if os.name != "posix":
        return {}
    return {
        signal.SIGHUP: (
            (lambda root: root.find(paths.RELOAD).put("SIGHUP"))
            if lasting
            else (lambda _root: signal.raise_signal(signal.SIGTERM))
        ),
        signal.SIGUSR1: lambda root: root.find(paths.DUMP).put("SIGUSR1"),
        signal.SIGUSR2: lambda _root: logger.warning(
            "SIGUSR2 does nothing. SIGHUP reads configuration, certificate and log file again; SIGUSR1 writes"
            " the tree and all tasks to the log; SIGTERM and SIGINT stop in order, a second one at once"
        ),
    }


def stop_deadline(settings: Settings) -> float:
    """Seconds after which a stop has taken longer than all of its steps together may take."""
    sources = settings.sources.values()
    listening = sum(isinstance(each, ListenerSettings) for each in sources)  # and their producers, at once
    # http, the topics at once, the recorder, each of the others
    one_by_one = 3 + settings.cache.shards + len(sources) + listening
    each = settings.supervision.stop_within + CLEANUP_WITHIN
    at_once = 7 + 3 * (len(sources) - listening)  # the actors of `ops`, the follower, those beside lines
    tree = closed_within(settings.gateway) + one_by_one * each + at_once * CLEANUP_WITHIN
    return tree + FINISH_WITHIN + GRACE


def _limit(settings: Settings) -> Limit:
    return Limit(restarts=settings.supervision.restarts, within=settings.supervision.within)
