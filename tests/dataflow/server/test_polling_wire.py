"""The wire of a client that asks again and again: nothing lost between two polls, and none kept for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.session import Ending, WireClosed
from dataflow.server.polling_wire import PollingWire
from dataflow.server.response_wire import BUFFER_BYTES, CLOSE_WITHIN

GONE_AFTER = 15.0


def wire() -> PollingWire:
    return PollingWire(peer="test:1", gone_after=GONE_AFTER)


@define
class Polls:
    """Polls that wait, and what they were answered."""

    wire: PollingWire
    nursery: trio.Nursery
    answers: list[bytes | None] = field(factory=list)

    async def open(self, within: float = 90.0) -> trio.CancelScope:
        """Ask, and wait until the poll waits or is answered; the result cancels it."""
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                self.answers.append(await self.wire.poll(within))

        self.nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        return scope


@asynccontextmanager
async def polls(wire: PollingWire) -> AsyncIterator[Polls]:
    async with trio.open_nursery() as nursery:
        yield Polls(wire, nursery)
        nursery.cancel_scope.cancel()


async def test_a_poll_takes_all_that_waits() -> None:
    """Together and in order; what comes later is for the next one."""
    one = wire()
    one.write_nowait(one.pack([b"a", b"b"]))
    await one.write([b"c"])
    assert await one.poll(90) == b"abc"
    one.write_nowait(b"d")
    assert await one.poll(90) == b"d"


async def test_a_poll_waits_for_the_next_payload() -> None:
    """And is answered with it at once."""
    one = wire()
    async with polls(one) as asked:
        await asked.open()
        assert asked.answers == []
        assert one.polled
        one.write_nowait(b"a")
        await wait_all_tasks_blocked()
        assert asked.answers == [b"a"]
        assert not one.polled


async def test_a_poll_without_anything_ends_empty(mock_clock: MockClock) -> None:
    """After the time that was given."""
    mock_clock.autojump_threshold = 0
    assert await wire().poll(90) == b""
    assert trio.current_time() == 90


async def test_a_newer_poll_takes_the_place_of_the_older_one() -> None:
    """The older one is told so at once, and the connection goes on."""
    one = wire()
    async with polls(one) as asked:
        await asked.open()
        await asked.open()
        assert asked.answers == [None]
        assert not one.over
        one.write_nowait(b"a")
        await wait_all_tasks_blocked()
        assert asked.answers == [None, b"a"]


async def test_a_poll_that_is_cancelled_takes_nothing() -> None:
    """The next one gets it."""
    one = wire()
    async with polls(one) as asked:
        scope = await asked.open()
        one.write_nowait(b"a")
        scope.cancel()
        await wait_all_tasks_blocked()
        assert await one.poll(90) == b"a"


async def test_what_no_poll_has_taken_is_bounded() -> None:
    """What the last poll took counts until the next one shows that it arrived."""
    one = wire()
    assert one.write_nowait(b"x" * BUFFER_BYTES) is None
    assert one.write_nowait(b"y") == b"y"
    await one.poll(90)
    assert one.write_nowait(b"y") == b"y"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.write, [b"y"])
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        assert await one.poll(90) == b"y"


@pytest.mark.parametrize("polled", [False, True])
async def test_a_client_without_an_open_poll_is_gone(mock_clock: MockClock, polled: bool) -> None:
    """Whether it never asked, or not again; a poll that waits keeps it, however long."""
    mock_clock.autojump_threshold = 0
    one = wire()
    if polled:
        await one.poll(90)
    before = trio.current_time()
    with pytest.raises(WireClosed, match="no poll for 15 s"):
        await one.receive()
    assert trio.current_time() - before == GONE_AFTER


async def test_messages_do_not_keep_a_client_that_does_not_ask(mock_clock: MockClock) -> None:
    """It could not be answered."""
    one = wire()
    mock_clock.jump(10)
    one.hear("a")
    assert await one.receive() == "a"
    mock_clock.autojump_threshold = 0
    with pytest.raises(WireClosed):
        await one.receive()
    assert trio.current_time() == GONE_AFTER


async def test_an_open_poll_is_told_the_end_behind_everything(mock_clock: MockClock) -> None:
    """The last bytes first; the poll after them learns that it is over."""
    one = wire()
    one.hear("handshake")
    await one.receive()
    one.write_nowait(b"farewell")
    async with polls(one) as asked:
        asked.nursery.start_soon(one.close, Ending.GOING_AWAY, "server going away")
        await wait_all_tasks_blocked()
        assert one.write_nowait(b"late") == b"late"
        assert not one.over
        assert await one.poll(90) == b"farewell"
        assert await one.poll(90) is None
        assert one.over
        await wait_all_tasks_blocked()
    with pytest.raises(WireClosed):
        one.hear("late")


async def test_close_waits_for_a_client_that_does_not_ask_no_longer_than_agreed(
    mock_clock: MockClock,
) -> None:
    """Then the rest is dropped, and a late poll is told that it is over."""
    mock_clock.autojump_threshold = 0
    one = wire()
    one.hear("handshake")
    await one.receive()
    one.write_nowait(b"a")
    before = trio.current_time()
    await one.close(Ending.SLOW, "slow client")
    assert trio.current_time() - before == CLOSE_WITHIN
    assert one.over
    assert await one.poll(90) is None


async def test_abort_ends_a_poll_that_waits() -> None:
    """At once."""
    one = wire()
    async with polls(one) as asked:
        await asked.open()
        one.abort()
        await wait_all_tasks_blocked()
        assert asked.answers == [None]
