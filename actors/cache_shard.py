"""Owns a slice of the topics: admits, orders, remembers.

Rules of this file. What is remembered lives in the store, which outlives the actor: a shard that
comes back has lost no admitted item and no offset. A message is one batch of items as a connector
delivered it. The shard says *that* a topic has news, never what: readers read the store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

import trio

from supervisors import Context, Ref

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

BATCHES_AT_ONCE = 16  # bounds how long one pass can keep the event loop: of full batches, 8,000 items


class Store(Protocol[T_contra]):
    """The memory of one shard."""

    def admit(self, items: Sequence[T_contra], now: float) -> Collection[str]:
        """Take in what is new, in order; returns the topics that have news. Atomic for every item."""


class CacheShard(Generic[T]):
    """The actor around one store. `news(topic)` wakes whoever reads that topic; it never waits.

    `address` is told where to put batches: before the shard is ready, and again by every incarnation.
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
