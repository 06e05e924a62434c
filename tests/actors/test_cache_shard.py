"""The shard: every batch is admitted in order, and a crash loses nothing that was admitted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cache_shard import CacheShard
from supervisors import Backoff, Child, Event, Ref, Supervisor, open_supervisor


@define
class MemoryStore:
    """Admits words; "poison" raises."""

    admitted: list[str] = field(factory=list)

    def admit(self, items: Sequence[str], now: float) -> set[str]:
        for item in items:
            if item == "poison":
                raise RuntimeError(item)
            self.admitted.append(item)
        return {item[0] for item in items}


@define
class Stage:
    store: MemoryStore
    news: list[str]
    events: list[Event]
    addresses: list[Ref]
    handle: Any


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    made = Stage(MemoryStore(), [], [], [], None)

    def shard() -> CacheShard[str]:
        return CacheShard(made.store, made.news.append, made.addresses.append)

    spec = Supervisor(children=[Child("shard", shard, backoff=Backoff(first=1, jitter=0))])
    async with open_supervisor(spec, on_event=made.events.append) as made.handle:
        yield made


async def test_batches_are_admitted_in_order_and_announced() -> None:
    """Items keep the order in which they were put, and every topic with news is named."""
    async with stage() as s:
        s.addresses[0].put(["a1", "b1"])
        s.addresses[0].put(["a2"])
        await wait_all_tasks_blocked()
        assert s.store.admitted == ["a1", "b1", "a2"]
        assert s.news[-1] == "a"
        assert set(s.news) == {"a", "b"}


async def test_the_address_is_known_before_the_shard_is_ready() -> None:
    """An actor that starts after the shard can deliver to it at once."""
    async with stage() as s:
        assert [ref.path for ref in s.addresses] == ["shard"]


async def test_a_poisonous_batch_costs_itself_and_nothing_else(mock_clock: MockClock) -> None:
    """Admitted items stay, waiting ones are admitted after the restart, and the poison is shown with its items."""
    async with stage() as s:
        ref = s.addresses[0]
        ref.put(["a1"])
        ref.put(["a2", "poison", "a3"])
        ref.put(["a4"])
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        letters = [event for event in s.events if event.kind == "dead_letter"]
        assert s.store.admitted[:2] == ["a1", "a2"]
        assert len(letters) == 1
        mailbox = s.handle.tree().children[0].mailbox
        assert mailbox.accepted == 3
        assert mailbox.accepted == mailbox.handled + mailbox.queued + mailbox.lost_in_flight
        s.addresses[-1].put(["a5"])
        await wait_all_tasks_blocked()
        assert s.store.admitted[-1] == "a5"
