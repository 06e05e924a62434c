"""The wire over a response's body: in order, bounded, ended politely, and never held by a client that is gone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.session import Ending, WireClosed
from dataflow.server.response_wire import BUFFER_BYTES, CLOSE_WITHIN, INBOX_BYTES, INBOX_MESSAGES, InboxFull
from dataflow.server.streaming_wire import START_WITHIN, StreamingWire


def wire() -> StreamingWire:
    return StreamingWire("request", peer="test:1")


class Server:
    """Takes the body of a wire, a piece each time it is told to."""

    def __init__(self, wire: StreamingWire) -> None:
        self.body = cast(AsyncGenerator[bytes, None], wire.body())
        self.taken = b""

    async def takes(self) -> bytes:
        piece = await anext(self.body)
        self.taken += piece
        return piece


@asynccontextmanager
async def serving(wire: StreamingWire) -> AsyncIterator[Server]:
    """A server closes the body, whatever happens."""
    server = Server(wire)
    try:
        yield server
    finally:
        await server.body.aclose()


async def test_what_is_written_is_the_body_in_order() -> None:
    """Payloads that wait leave together, and nothing is torn or lost."""
    one = wire()
    async with serving(one) as server:
        assert one.write_nowait(one.pack([b"a", b"b"])) is None
        await one.write([b"c", b"d"])
        assert await server.takes() == b"abcd"
        assert one.write_nowait(b"e") is None
        assert await server.takes() == b"e"


async def test_what_is_sent_wakes_nobody_who_waits_for_the_client() -> None:
    """Each client has a task that hears it: to wake all of them for an update would cost a third of the update."""
    one = wire()
    assert await one.receive() == "request"
    steps: list[trio.lowlevel.Task] = []

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append(task)

    async def hear() -> None:
        await one.receive()

    async with serving(one) as server, trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        assert one.write_nowait(b"the body has begun") is None
        await server.takes()
        await wait_all_tasks_blocked()
        (hearer,) = nursery.child_tasks
        watch = Steps()
        trio.lowlevel.add_instrument(watch)
        for _ in range(3):
            assert one.write_nowait(b"x") is None
            await server.takes()
            await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(watch)
        assert steps
        assert hearer not in steps
        nursery.cancel_scope.cancel()


async def test_the_request_is_the_only_message() -> None:
    """Then nothing, until the client leaves."""
    one = wire()
    assert await one.receive() == "request"
    async with serving(one) as server:
        one.write_nowait(b"a")
        await server.takes()
        with trio.move_on_after(0) as scope:
            await one.receive()
        assert scope.cancelled_caught
        await server.body.aclose()
        with pytest.raises(WireClosed, match="the client has left"):
            await one.receive()


async def test_what_finds_no_room_is_given_back_and_a_write_waits() -> None:
    """The buffer is bounded, a piece that the client has not taken included."""
    one = wire()
    async with serving(one) as server:
        assert one.write_nowait(b"x" * BUFFER_BYTES) is None
        assert one.write_nowait(b"y") == b"y"
        await server.takes()  # handed to the client, which has not taken it yet
        assert one.write_nowait(b"y") == b"y"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write, [b"y"])
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            assert await server.takes() == b"y"
        assert len(server.taken) == BUFFER_BYTES + 1


async def test_a_client_that_takes_bytes_is_heard(mock_clock: MockClock) -> None:
    """It can give no other sign."""
    one = wire()
    async with serving(one) as server:
        one.write_nowait(b"a")
        await server.takes()
        mock_clock.jump(50)
        one.write_nowait(b"b")
        await server.takes()  # which shows that "a" was taken
        assert one.heard == trio.current_time()


async def test_close_ends_the_body_behind_everything_that_was_written() -> None:
    """Nothing is put behind it, and the server sees an orderly end."""
    one = wire()
    await one.receive()
    async with serving(one) as server:
        one.write_nowait(b"a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.close, Ending.GOING_AWAY, "server going away")
            await wait_all_tasks_blocked()
            assert one.write_nowait(b"late") == b"late"
            assert await server.takes() == b"a"
            with pytest.raises(StopAsyncIteration):
                await server.takes()
        with pytest.raises(WireClosed):
            await one.write([b"late"])


async def test_close_waits_for_a_stalled_client_no_longer_than_agreed(mock_clock: MockClock) -> None:
    """Then the rest is dropped."""
    one = wire()
    await one.receive()
    mock_clock.autojump_threshold = 0
    async with serving(one) as server:
        one.write_nowait(b"a")
        await server.takes()
        before = trio.current_time()
        await one.close(Ending.SLOW, "slow client")
        assert trio.current_time() - before == pytest.approx(CLOSE_WITHIN)
        with pytest.raises(StopAsyncIteration):
            await server.takes()


async def test_close_waits_for_no_body_when_nobody_has_listened() -> None:
    """The server refuses such a request itself, in its own words."""
    one = wire()
    await one.close(Ending.REFUSED, "too many sessions")
    async with serving(one) as server:
        with pytest.raises(StopAsyncIteration):
            await server.takes()


async def test_abort_ends_whoever_waits() -> None:
    """A writer without room, a receiver and the server alike."""
    one = wire()
    ends = list[str]()
    await one.receive()

    async def ended(work: object) -> None:
        with pytest.raises(WireClosed) as closed:
            await work  # type: ignore[misc]
        ends.append(closed.value.words)

    one.write_nowait(b"x" * BUFFER_BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ended, one.write([b"y"]))
        nursery.start_soon(ended, one.receive())
        await wait_all_tasks_blocked()
        one.abort()
    assert ends == ["aborted", "aborted"]
    assert [piece async for piece in one.body()] == []


async def test_a_response_that_is_never_begun_ends_its_session(mock_clock: MockClock) -> None:
    """A client that left before the server began with the body must not hold a session for ever."""
    mock_clock.autojump_threshold = 0
    one = wire()
    await one.receive()
    before = trio.current_time()
    with pytest.raises(WireClosed, match="never begun"):
        await one.receive()
    assert trio.current_time() - before == pytest.approx(START_WITHIN)


async def test_what_comes_by_other_requests_is_heard_in_order() -> None:
    """Behind the request of the response itself, and each shows that the client is there."""
    one = wire()
    async with serving(one):
        one.hear("a")
        one.hear("b")
        assert [await one.receive() for _ in range(3)] == ["request", "a", "b"]


async def test_a_session_that_waits_is_woken_by_a_message(mock_clock: MockClock) -> None:
    """At once, and the client counts as heard."""
    one = wire()
    await one.receive()
    heard = list[str]()

    async def receive() -> None:
        heard.append(await one.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        mock_clock.jump(5)
        one.hear("a")
    assert heard == ["a"]
    assert one.heard == trio.current_time()


@pytest.mark.parametrize(("message", "fits"), [("x", INBOX_MESSAGES), ("x" * (INBOX_BYTES // 4), 4)])
async def test_messages_that_nobody_takes_are_bounded(message: str, fits: int) -> None:
    """In number and in length. What finds no room is refused; what is there stays, in order."""
    one = StreamingWire(peer="test:1")
    for _ in range(fits):
        one.hear(message)
    for _ in range(3):
        with pytest.raises(InboxFull):
            one.hear("late")
    assert await one.receive() == message
    one.hear("next")
    assert [await one.receive() for _ in range(fits)] == [message] * (fits - 1) + ["next"]


async def test_one_message_may_be_longer_than_the_bound() -> None:
    """Its length is bounded where it comes in."""
    one = StreamingWire(peer="test:1")
    one.hear("x" * (INBOX_BYTES + 1))
    with pytest.raises(InboxFull):
        one.hear("y")


async def test_nothing_is_heard_after_the_end() -> None:
    """Whoever sends it learns that the connection is over."""
    one = wire()
    one.abort()
    with pytest.raises(WireClosed, match="aborted"):
        one.hear("a")
