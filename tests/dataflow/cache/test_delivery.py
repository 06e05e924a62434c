"""Delivery into the shards: never waits, keeps order, and owes a mark for refused items."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dataflow.cache.delivery import Delivery, shard_of
from dataflow.domain import Missed, Trade
from supervisors import ActorGone, Put


class Box:
    """A shard's mailbox that can be full."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.full = False
        self.gone = False
        self.room = trio.Event()
        self.room.set()

    def put(self, batch: Any) -> Put:
        if self.full:
            return Put.DROPPED
        self.batches.append(batch)
        return Put.OK

    async def send(self, batch: Any) -> Put:
        if self.gone:
            raise ActorGone("ended")
        await self.room.wait()
        self.batches.append(batch)
        return Put.OK


def trade(number: int, symbol: str = "BTC-USD") -> Trade:
    return Trade("a", symbol, str(number), "buy", Decimal(1), Decimal(1), number)


def delivery(*boxes: Box) -> Delivery:
    made = Delivery(len(boxes))
    for number, box in enumerate(boxes):
        made.attach(number, box)  # type: ignore[arg-type]
    return made


def test_every_symbol_has_one_shard_and_keeps_its_order() -> None:
    """All items of a symbol go to one shard, in the order in which they came."""
    boxes = [Box(), Box(), Box()]
    symbols = ["BTC-USD", "ETH-USD", "XRP-USD", "SOL-USD"]
    items = [trade(n, symbol) for n in range(10) for symbol in symbols]
    delivery(*boxes)(items)
    for symbol in symbols:
        box = boxes[shard_of(symbol, 3)]
        assert [i.timestamp for batch in box.batches for i in batch if i.symbol == symbol] == list(range(10))
    found = [(number, i) for number, box in enumerate(boxes) for batch in box.batches for i in batch]
    assert len(found) == len(items), "each item is in one shard"
    assert all(number == shard_of(item.symbol, 3) for number, item in found)


def test_the_shard_of_a_symbol_is_the_same_in_every_process() -> None:
    """It does not depend on a random hash seed."""
    assert [shard_of(symbol, 8) for symbol in ("BTC-USD", "ETH-USD", "ADA-EUR")] == [0, 7, 1]


def test_items_that_a_full_shard_refuses_are_counted_and_marked_before_the_next_ones() -> None:
    """No waiting; the next batch that finds room begins with the mark of the hole, once."""
    box = Box()
    deliver = delivery(box)
    box.full = True
    deliver([trade(1), trade(2)])
    deliver([trade(3)])
    assert deliver.overflowed["a"] == 3
    box.full = False
    deliver([trade(4)])
    deliver([trade(5)])
    assert box.batches == [[Missed("a", "BTC-USD", "source_gap"), trade(4)], [trade(5)]]


def test_a_given_batch_is_not_changed() -> None:
    """Neither by splitting nor by owed marks; a batch for one shard is handed on as it is."""
    box = Box()
    deliver = delivery(box)
    box.full = True
    deliver([trade(1)])
    box.full = False
    given = [trade(2), trade(3, "ETH-USD")]
    deliver(given)
    assert given == [trade(2), trade(3, "ETH-USD")]
    deliver(given)
    assert box.batches[-1] is given


def test_a_refused_mark_is_still_owed() -> None:
    """The mark itself may find no room, any number of times."""
    box = Box()
    deliver = delivery(box)
    box.full = True
    deliver([Missed("a", "BTC-USD", "source_gap")])
    deliver([trade(1)])
    box.full = False
    deliver([trade(2)])
    assert box.batches == [[Missed("a", "BTC-USD", "source_gap"), trade(2)]]


def test_items_before_any_shard_is_known_are_owed_too() -> None:
    """A connector cannot start before the shards. If it did, nothing would be lost in silence."""
    deliver = Delivery(1)
    deliver([trade(1)])
    box = Box()
    deliver.attach(0, box)  # type: ignore[arg-type]
    deliver([trade(2)])
    assert box.batches == [[Missed("a", "BTC-USD", "source_gap"), trade(2)]]


SYMBOLS = ("BTC-USD", "ETH-USD")  # in different shards of two


async def test_who_can_wait_loses_nothing() -> None:
    """`put` waits for each shard, in order, and refuses nothing."""
    boxes = [Box(), Box()]
    for box in boxes:
        box.room = trio.Event()
    put = delivery(*boxes).put
    items = [trade(n, symbol) for n in range(3) for symbol in SYMBOLS]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, items)
        await wait_all_tasks_blocked()
        assert not any(box.batches for box in boxes)
        for box in boxes:
            box.room.set()
    for symbol in SYMBOLS:
        [batch] = boxes[shard_of(symbol, 2)].batches
        assert batch == [item for item in items if item.symbol == symbol]


async def test_what_is_cut_off_while_it_waits_is_counted_and_marked() -> None:
    """A stop that cannot wait leaves a mark for every symbol in every shard, and no trade uncounted."""
    boxes = [Box(), Box()]
    boxes[shard_of(SYMBOLS[0], 2)].room = trio.Event()
    deliver = delivery(*boxes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver.put, [trade(n, symbol) for n in range(3) for symbol in SYMBOLS])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    delivered = [item for box in boxes for batch in box.batches for item in batch]
    assert deliver.overflowed["a"] == 6 - len(delivered)
    boxes[shard_of(SYMBOLS[0], 2)].room.set()
    await deliver.put([trade(9, SYMBOLS[0])])
    [batch] = boxes[shard_of(SYMBOLS[0], 2)].batches
    assert batch == [Missed("a", SYMBOLS[0], "source_gap"), trade(9, SYMBOLS[0])]


async def test_a_shard_that_has_ended_takes_nothing() -> None:
    """The caller hears of it, and what it wanted to deliver is counted."""
    box = Box()
    box.gone = True
    deliver = delivery(box)
    with pytest.raises(ActorGone):
        await deliver.put([trade(1)])
    assert deliver.overflowed["a"] == 1
    with pytest.raises(ActorGone):
        await Delivery(1).put([trade(1)])
