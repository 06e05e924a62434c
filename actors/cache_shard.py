"""Owns a part of the topics: admits, orders and remembers their items.

Rules of this file. The memory is the store, which outlives the actor: a restarted shard has lost no admitted
item and no offset. A message is one batch of items from a connector. The shard announces *that* a topic has
news, never the items: readers read the store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

import trio

from supervisors import Context, Ref

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

BATCHES_AT_ONCE = 16  # bounds the time of one pass without a checkpoint: 8,000 items, if the batches are full


class Store(Protocol[T_contra]):
    """The memory of one shard."""

    def admit(self, items: Sequence[T_contra], now: float) -> Collection[str]:
        """Admit new items, in order. Returns the topics that have news. Atomic for every item."""


class CacheShard(Generic[T]):
    """The actor around one store.

    `news(topic)` wakes the readers of a topic; it never waits. Each incarnation calls `address(ref)` before
    it is ready: batches go to `ref` from then on.
    """

    def __init__(self, store: Store[T], news: Callable[[str], None], address: Callable[[Ref], None]) -> None:
        self._store = store
        self._news = news
        self._address = address

    async def run(self, ctx: Context) -> None:
        self._address(ctx.ref)
        ctx.ready()
        while True:
            self._admit(await ctx.receive())
            for batch in ctx.receive_nowait_batch(BATCHES_AT_ONCE):
                self._admit(batch)
            ctx.beat()
            await trio.lowlevel.checkpoint()

    def _admit(self, batch: Sequence[T]) -> None:
        for topic in self._store.admit(batch, trio.current_time()):
            self._news(topic)
