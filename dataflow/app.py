"""The tree, in the order in which the data flows, and how it is run.

A trade's way: `connector` decodes it and delivers it to the shard of its symbol (`Delivery`), the
`CacheShard` admits it into the symbol's history and tells the topic that there is news, the
`Subscription` reads the history and offers every session the same encoded update, the `Session`
writes it to its client's socket. Whatever must survive a crash is in `State`.
"""

from __future__ import annotations

from functools import partial

from actors.cache_shard import CacheShard
from actors.connector import Connector, Patience
from supervisors import Backoff, Child, Limit, Mailbox, Pool, Strategy, Supervisor

from .config import Settings
from .domain import Item
from .gateway.http import HttpServer
from .sources import SourceState
from .state import State

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
