"""A daemon that says nothing, or takes nothing: nobody waits for it without end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio
from anyio.abc import ByteStream
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.client import Unreachable, calls, connect
from dataflow.client import feed as feed_
from dataflow.client.address import address_of
from dataflow.client.events import Connection
from dataflow.client.socket import SILENT_FOR, Lost, Socket

TOO_LONG = 10 * SILENT_FOR
ADDRESS = address_of("http://127.0.0.1:8080")


@pytest.fixture
def impatient(mock_clock: MockClock) -> None:
    """What waits for a time need not."""
    mock_clock.autojump_threshold = 0


class Dead(ByteStream):
    """A connection whose other end is gone without a word."""

    def __init__(self) -> None:
        self.closed = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await self.closed.wait()
        raise anyio.ClosedResourceError

    async def send(self, item: bytes) -> None:
        await trio.sleep_forever()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed.set()
        await trio.lowlevel.checkpoint()


async def test_a_call_waits_neither_for_a_connection_nor_for_room(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with `Unreachable` wherever it got stuck."""

    async def never(*_args: Any) -> ByteStream:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def dead(*_args: Any) -> ByteStream:
        await trio.lowlevel.checkpoint()
        return Dead()

    for dial in (never, dead):
        monkeypatch.setattr(calls, "dial", dial)
        with trio.fail_after(TOO_LONG), pytest.raises(Unreachable, match="does not answer within"):
            await calls.call(ADDRESS, "ping", {})


async def test_a_socket_that_takes_nothing_is_lost_for_both_directions(impatient: None) -> None:
    """The task that sends and the one that receives both hear of it."""
    socket, heard = Socket(Dead()), list[str]()

    async def listen() -> None:
        with pytest.raises(Lost) as lost:
            await socket.receive()
        heard.append(lost.value.reason)

    with trio.fail_after(TOO_LONG):
        async with trio.open_nursery() as nursery:
            with pytest.raises(Lost, match="took nothing"):
                await socket.send("a call")
            nursery.start_soon(listen)
    assert heard == ["without a word"]


async def test_a_feed_whose_body_is_cancelled_ends_its_iterators(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task outside of the cancelled one may read them: it comes to their end."""

    async def never(*_args: Any) -> Any:
        await trio.sleep_forever()

    monkeypatch.setattr("dataflow.client.link.open_socket", never)
    got: list[Any] = []
    opened = trio.Event()
    following: feed_.Following[Any]

    async def read() -> None:
        await opened.wait()
        got.extend([event async for event in following])

    with trio.fail_after(TOO_LONG):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with trio.CancelScope() as scope:
                async with connect("http://127.0.0.1:8080", wait=True) as feed:
                    following = feed.trades("BTC-USD")
                    opened.set()
                    await wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    assert got[-1] == Connection(state="closed")
