"""The queue between a feed and its reader: bounded, in order, and nobody waits for what has happened already."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, seed
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from dataflow.client import Connection, Filled, Gap, Rewound, Subscribed, Topic, Trade
from dataflow.client.inbox import Inbox, Places

TOPIC = Topic("trades", "BTC-USD")


@seed(13)
@given(
    room=st.integers(1, 5),
    steps=st.lists(st.sampled_from(["put", "put", "put", "take", "take", "settle", "end"]), max_size=40),
)
async def test_nothing_is_lost_doubled_or_reordered_within_the_bound(room: int, steps: list[str]) -> None:
    """Whatever the order in which the feed puts, the reader takes, and the reader leaves."""
    inbox = Inbox((), room)
    wanted, got, most = 0, list[int](), 0
    put_one, take_one = trio.Semaphore(0), trio.Semaphore(0)

    async def feed() -> None:
        nonlocal wanted, most
        while True:
            await put_one.acquire()
            if len(inbox.queue) >= inbox.room:
                await inbox.until_room()
            if not inbox.ended:
                wanted += 1
                inbox.put(wanted)
                most = max(most, len(inbox.queue))

    async def reader() -> None:
        while True:
            await take_one.acquire()
            await inbox.until_something()
            if inbox.queue:
                got.append(inbox.queue.popleft())
                inbox.relieve()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        nursery.start_soon(reader)
        for step in steps:
            match step:
                case "put":
                    put_one.release()
                case "take":
                    take_one.release()
                case "settle":
                    await wait_all_tasks_blocked()
                case "end":
                    inbox.end()
        await wait_all_tasks_blocked()
        puts, takes = steps.count("put"), steps.count("take")
        if "end" not in steps:
            # The feed waits until half of the room is free; so more may come only after more was taken.
            assert wanted == puts or len(inbox.queue) > room // 2 or takes > len(got)
            assert len(got) == min(takes, wanted)
        for _ in range(puts + 1):
            take_one.release()
            await wait_all_tasks_blocked()
        assert got == list(range(1, wanted + 1))
        assert most <= room
        nursery.cancel_scope.cancel()


def trade(offset: int) -> Trade:
    return Trade(
        symbol="BTC-USD", offset=offset, timestamp=None, side=None, price=None, quantity=None, trade_id=None, source="x"  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_replaced_reader_gets_nothing_more() -> None:
    """What waited for it would move the position of the newer reader."""
    inbox = Inbox((TOPIC,), 5)
    inbox.put(trade(2))
    inbox.taken.append(trade(1))
    inbox.replace(TOPIC)
    assert not inbox.queue
    assert not inbox.taken
    assert str(inbox.error) == "a newer iterator follows trades:BTC-USD now: this one has ended"


def test_a_position_is_that_of_what_was_given() -> None:
    """With the gaps that are open, through everything that can happen to a stream; and nothing before an answer."""
    places = Places()
    places.begin("BTC-USD", None)
    assert places.positions == {}
    assert not places.give(Subscribed(topic=TOPIC, epoch=1, offset=4, newest=5))
    steps = [
        (trade(5), {"epoch": 1, "offset": 5}),
        (
            Gap(symbol="BTC-USD", first=6, to=8, reason="source_gap"),
            {"epoch": 1, "offset": 8, "gaps": [[6, 8]]},
        ),
        (Connection(state="lost"), {"epoch": 1, "offset": 8, "gaps": [[6, 8]]}),
        (trade(9), {"epoch": 1, "offset": 9, "gaps": [[6, 8]]}),
        (
            Filled(symbol="BTC-USD", first=7, last=7, trades=(trade(7),)),
            {"epoch": 1, "offset": 9, "gaps": [[6, 6], [8, 8]]},
        ),
        (
            Rewound(symbol="BTC-USD", epoch=2, offset=7, dropped=1),
            {"epoch": 2, "offset": 7, "gaps": [[6, 6]]},
        ),
        (Gap(symbol="BTC-USD", first=8, to=None, reason="x"), {"epoch": 2, "offset": 8, "gaps": [[6, 6]]}),
        (Gap(symbol="BTC-USD", first=0, to=None, reason="overrun"), {"epoch": 2, "offset": 8}),
    ]
    for event, position in steps:
        assert places.give(event)
        assert places.positions == {"BTC-USD": position}


@pytest.mark.parametrize(
    "since", [{}, {"epoch": 1}, {"epoch": 1, "offset": "5"}, {"epoch": 1, "offset": 5, "gaps": [[1]]}]
)
def test_what_is_no_position_is_refused(since: dict[str, object]) -> None:
    """With the symbol, at once."""
    with pytest.raises(ValueError, match=r"^BTC-USD: no position: "):
        Places().begin("BTC-USD", since)
