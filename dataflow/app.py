"""The tree, in the order in which the data flows, and how it is run.

A trade's way: `connector` decodes it and delivers it to the shard of its symbol (`Delivery`), the
`CacheShard` admits it into the symbol's history and tells the topic that there is news, the
`Subscription` reads the history and offers every session the same encoded update, the `Session`
writes it to its client's socket. Whatever must survive a crash is in `State`.
"""

from __future__ import annotations

import gc
import sys
from functools import partial

from attrs import evolve

from actors.cache_shard import CacheShard
from actors.connector import Connector, Patience
from supervisors import Backoff, Child, Limit, Mailbox, Pool, Strategy, Supervisor
from supervisors import run as run_supervisor

from .config import Settings
from .domain import Item
from .gateway.http import HttpServer
from .reactions import Reactions
from .sources import SourceState
from .state import State
from .websocket import WebSocketSource

SHARD_MAILBOX = Mailbox(size=4096)  # batches; full: refused, counted, marked as a gap (see Delivery)
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
            Child(name, partial(connector, state, source), backoff=patient)
            for name, source in state.sources.items()
        ),
    )


def gateway(state: State) -> Supervisor:
    """The sessions, and the server that brings them; neither is of use without the other."""
    return Supervisor(
        strategy=Strategy.ONE_FOR_ALL,
        limit=_limit(state.settings),
        children=(
            Child("sessions", lambda: Pool(max_children=state.settings.gateway.max_sessions)),
            Child("http", partial(HttpServer, state), stop_within=state.settings.supervision.stop_within),
        ),
    )


def connector(state: State, source: SourceState) -> Connector[Item]:
    """One upstream: its language (`Codec`) is all that is particular about it."""
    settings = source.settings
    # `Codec` stands beside the `Settings` that the configuration found: see `ports`.
    make_codec = partial(sys.modules[type(settings).__module__].Codec, source.name, settings)
    return Connector(
        WebSocketSource(source.name, settings, make_codec),
        source.interest,
        state.delivery,
        make_codec().missed,
        source,
        Patience(settings.stale_after, settings.subscribe_within),
    )


def run(settings: Settings, *, children_before: tuple[Child, ...] = ()) -> int:
    """Run the daemon until a signal ends it.

    Returns the exit code: 0 clean, 1 the user's mistake, 2 a failure inside.

    `children_before` are started first and stopped last: the simulated exchanges of the demo.
    """
    # Long-lived objects outnumber garbage here by far: rarer collections halve the cost of opening sessions.
    gc.set_threshold(50_000, 50, 1_000)
    state = State(settings)
    reactions = Reactions(state)
    spec = tree(state)
    deadline = settings.gateway.drain_seconds + 2 * settings.supervision.stop_within + 5
    code = run_supervisor(
        evolve(spec, children=(*children_before, *spec.children)),
        deadline=deadline,
        on_event=reactions,
        faults=state.faults,
    )
    if code == 0:
        return 0
    return 1 if reactions.address_taken else 2


def _limit(settings: Settings) -> Limit:
    return Limit(restarts=settings.supervision.restarts, within=settings.supervision.within)
