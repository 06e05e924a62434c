"""The tree, in the order in which the data flows, and how it is run.

A trade's way: `connector` decodes it and delivers it to the shard of its symbol (`Delivery`), the
`CacheShard` admits it into the symbol's history and tells the topic that there is news, the
`Subscription` reads the history and offers every session the same encoded update, the `Session`
writes it to its client's socket. Whatever must survive a crash is in `State`.
"""

from __future__ import annotations

import gc
import random
import sys
from functools import partial

from attrs import evolve

from actors.cache_shard import CacheShard
from actors.connector import Connector, Patience, Source
from supervisors import Backoff, Child, Limit, Mailbox, Pool, Strategy, Supervisor
from supervisors import run as run_supervisor

from .core import State
from .domain import Item
from .faults.at_random import PATH as CHAOS
from .faults.at_random import RandomFaults
from .gateway.herald import Herald
from .gateway.host import HttpServer, closed_within
from .reactions import Reactions
from .settings.schema import Settings
from .sources.faulty import FaultySource
from .sources.port import SourceSettings
from .sources.state import SourceState
from .topics.topics import BEAT_WITHIN
from .transports.websocket import WebSocketSource

SHARD_MAILBOX = Mailbox(size=4096)  # batches; full: refused, counted, marked as a gap (see Delivery)
NOTICES = Mailbox(size=1024)  # a few an outage; full: refused, and counted there
GRACE = 5.0  # seconds: to part from an upstream, and for a loop that is late
CLEANUP_WITHIN = 1.0  # seconds: what `Child.cleanup_within` is by default
FOREVER = Limit(restarts=None)  # an exchange that is down for a day is retried for a day


def tree(state: State) -> Supervisor:
    """What stands later depends on what stands earlier."""
    return Supervisor(
        strategy=Strategy.REST_FOR_ONE,
        limit=_limit(state.settings),
        children=(
            Child("cache", partial(cache, state)),
            Child("topics", partial(topics, state)),
            Child("sources", partial(sources, state)),
            Child("gateway", partial(gateway, state)),
            *chaos(state),
        ),
    )


def cache(state: State) -> Supervisor:
    """The shards: a batch of items a message."""
    return Supervisor(
        limit=_limit(state.settings),
        children=tuple(
            Child(
                f"shard-{n}",
                partial(CacheShard[Item], store, state.topics.news, partial(state.delivery.attach, n)),
                mailbox=SHARD_MAILBOX,
                stop_within=state.settings.supervision.stop_within,
                beat_within=BEAT_WITHIN,
            )
            for n, store in enumerate(state.stores)
        ),
    )


def topics(state: State) -> Pool:
    """One subscription a symbol that somebody listens to, started by `Topics`."""
    return Pool(limit=_limit(state.settings))


def sources(state: State) -> Supervisor:
    """One connector a source: a flapping exchange restarts alone, with backoff, for as long as it takes."""
    backoff = state.settings.backoff
    patient = Backoff(
        first=backoff.initial_delay, factor=backoff.multiplier, cap=backoff.max_delay, jitter=backoff.jitter
    )
    return Supervisor(
        limit=FOREVER,
        children=tuple(
            Child(
                name,
                partial(connector, state, source),
                backoff=patient,
                stop_within=state.settings.supervision.stop_within,
                beat_within=beat_within(source.settings),
            )
            for name, source in state.sources.items()
        ),
    )


def gateway(state: State) -> Supervisor:
    """The sessions, who tells them what concerns all, and the server that brings them: of use together."""
    return Supervisor(
        strategy=Strategy.ONE_FOR_ALL,
        limit=_limit(state.settings),
        children=(
            Child("sessions", lambda: Pool(max_children=state.settings.gateway.max_sessions)),
            Child("herald", partial(Herald, state.clients), mailbox=NOTICES, beat_within=BEAT_WITHIN),
            Child("http", partial(HttpServer, state), stop_within=state.settings.supervision.stop_within),
        ),
    )


def chaos(state: State) -> tuple[Child, ...]:
    """Random faults, when they are asked for: last, for they concern everything before."""
    settings = state.settings.chaos
    if state.faults is None or not settings.faults_per_minute:
        return ()
    # One for all incarnations: who comes back goes on with the dice, not back to their seed.
    actor = RandomFaults(state.faults, settings.faults_per_minute, random.Random(settings.seed))
    return (Child(CHAOS, lambda: actor),)


def connector(state: State, source: SourceState) -> Connector[Item]:
    """One upstream: its language (`Codec`) is all that is particular about it."""
    settings = source.settings
    # `Codec` stands beside the `Settings` that the configuration found: see `ports`.
    make_codec = partial(sys.modules[type(settings).__module__].Codec, source.name, settings)
    reach = partial(WebSocketSource, source.name, settings)
    upstream: Source[Item] = reach(make_codec)
    if state.faults is not None:
        upstream = FaultySource(state.faults, f"sources/{source.name}", reach, make_codec)
    return Connector(
        upstream,
        source.interest,
        state.delivery,
        make_codec().missed,
        source,
        Patience(settings.stale_after, settings.subscribe_within),
    )


def beat_within(settings: SourceSettings) -> float:
    """Seconds without a beat after which a connector is hung, for it cannot be waiting any more: for the
    connection, for room to say its opening, its subscriptions and a probe, and through a silence."""
    return settings.connect_within + 3 * settings.subscribe_within + settings.stale_after + GRACE


def run(settings: Settings, *, children_before: tuple[Child, ...] = ()) -> int:
    """Run the daemon until a signal ends it.

    Returns the exit code: 0 clean, 1 the user's mistake, 2 a failure inside.

    `children_before` are started first and stopped last: the simulated exchanges of the demo.
    """
    # Long-lived objects outnumber garbage here by far: rarer collections halve the cost of opening sessions.
    gc.set_threshold(*settings.runtime.gc_thresholds)
    gc.freeze()  # what was imported stays: no collection need look at it again
    state = State(settings)
    reactions = Reactions(state)
    spec = tree(state)
    code = run_supervisor(
        evolve(spec, children=(*children_before, *spec.children)),
        deadline=stop_deadline(settings),
        on_event=reactions,
        faults=state.faults,
    )
    if code == 0:
        return 0
    return 1 if reactions.address_taken else 2


def stop_deadline(settings: Settings) -> float:
    """Seconds after which a stop has taken longer than all of its steps together may take."""
    one_by_one = (
        2 + settings.cache.shards + len(settings.sources)
    )  # http, the topics at once, each of the others
    each = settings.supervision.stop_within + CLEANUP_WITHIN
    return closed_within(settings.gateway) + one_by_one * each + GRACE


def _limit(settings: Settings) -> Limit:
    return Limit(restarts=settings.supervision.restarts, within=settings.supervision.within)
