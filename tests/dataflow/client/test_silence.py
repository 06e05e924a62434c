"""A daemon that says nothing, or takes nothing: nobody waits for it without end."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest
import trio
from anyio.abc import ByteStream
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.client import Client, Unreachable, calls, connect, link
from dataflow.client import feed as feed_
from dataflow.client.address import address_of
from dataflow.client.events import Connection
from dataflow.client.socket import SILENT_FOR, Lost, Socket

TOO_LONG = 10 * SILENT_FOR
ADDRESS = address_of("http://127.0.0.1:8080")


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
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with `Unreachable` wherever it got stuck."""

    async def never(*_args: Any) -> ByteStream:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def dead(*_args: Any) -> ByteStream:
        await trio.lowlevel.checkpoint()
        return Dead()

    for connection in (never, dead):
        monkeypatch.setattr(anyio, "connect_tcp", connection)
        with trio.fail_after(TOO_LONG), pytest.raises(Unreachable, match="does not answer within"):
            await calls.call(ADDRESS, "ping", {})


async def test_a_socket_that_takes_nothing_is_lost_for_both_directions(autojump_clock: MockClock) -> None:
    """The task that sends and the one that receives both hear of it."""
    socket, heard = Socket(Dead()), list[str]()

    async def listen() -> None:
        with pytest.raises(Lost) as lost:
            await socket.receive()
        heard.append(lost.value.reason)

    with trio.fail_after(TOO_LONG):
        async with trio.open_nursery() as nursery:
            with pytest.raises(Lost, match="takes nothing"):
                await socket.send("a call")
            nursery.start_soon(listen)
    assert heard == ["without a word"]


async def test_a_feed_whose_body_is_cancelled_ends_its_iterators(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
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


async def test_calls_that_wait_are_bounded_beyond_one_for_each_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection begins with all topics, however many: that alone is no reason to leave it."""
    monkeypatch.setattr(link, "UNSAID_MOST", 2)
    core = Client()
    for symbol in ("A-USD", "B-USD", "C-USD"):
        core.follow(symbol)

    class Deaf(Socket):
        async def receive(self) -> list[bytes]:
            await trio.lowlevel.checkpoint()
            return [b'{"jsonrpc": "2.0", "method": "connection.draining", "params": {}}']

    async def deaf(*_args: Any) -> Socket:
        await trio.lowlevel.checkpoint()
        return Deaf(Dead())

    monkeypatch.setattr(link, "open_socket", deaf)
    async with link.Link(ADDRESS, core, core.hear) as news:
        told = [await anext(news) for _ in range(3)]
        assert isinstance(told[2], list)
        for _ in range(4):
            news.say("a call")
        lost = await anext(news)
        assert isinstance(lost, Connection)
        assert re.match(r"the daemon does not take \d calls", str(lost.reason))
