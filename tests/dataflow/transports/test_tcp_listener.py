"""One producer's connection, on a real pair of sockets: its pace, its patience, and its end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.connector import Received
from dataflow.transports.tcp_listener import AT_ONCE, LAST_WITHIN, WHOLE_WITHIN, Connection
from tests.support.waiting import until


@define
class Lines:
    """A language of lines. A line "end" ends the connection."""

    rest: bytes = b""
    whole: int = 0

    @property
    def begun(self) -> bool:
        return bool(self.rest)

    def decode(self, data: bytes, into: Received[Any]) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.whole += len(lines)
        into.items += [line for line in lines if line != b"end"]
        into.lost = "asked for" if b"end" in lines else None


@define
class Shard:
    """Takes what is put while `room` is set."""

    taken: list[bytes] = field(factory=list)
    refused: list[str] = field(factory=list)
    sizes: list[int] = field(factory=list)
    room: trio.Event = field(factory=trio.Event)
    turns: int = 0
    producers: int = 0

    def came(self) -> None:
        self.producers += 1

    def went(self) -> None:
        self.producers -= 1

    async def turn(self) -> None:
        self.turns += 1
        await trio.lowlevel.checkpoint()

    async def put(self, items: Sequence[Any], size: int) -> None:
        self.sizes.append(size)
        await self.room.wait()
        self.taken += items


@define
class Stage:
    ours: socket.socket
    shard: Shard
    stopping: trio.Event
    share: Any
    connection: Connection
    ended: bool = False

    def send(self, data: bytes) -> None:
        self.ours.sendall(data)

    @property
    def hung_up(self) -> bool:
        """Whether the other end has said that it goes."""
        try:
            return self.ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False


@asynccontextmanager
async def connected(*, room: bool = True) -> AsyncIterator[Stage]:
    ours, theirs = socket.socketpair()
    shard = Shard()
    if room:
        shard.room.set()
    stopping, share = trio.Event(), SimpleNamespace(sessions=0)
    intake: Any = SimpleNamespace(
        put=shard.put,
        turn=shard.turn,
        came=shard.came,
        went=shard.went,
        refused=lambda reason, _about: shard.refused.append(reason),
    )
    stage = Stage(ours, shard, stopping, share, Connection(theirs, "peer", share, Lines(), intake))
    with ours:

        async def live() -> None:
            async with trio.open_nursery() as helpers:
                ctx: Any = SimpleNamespace(
                    path="x", ready=lambda: None, stopping=stopping, start_helper=helpers.start_soon
                )
                await stage.connection.run(ctx)
                helpers.cancel_scope.cancel()
            stage.ended = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await wait_all_tasks_blocked()
            yield stage
            nursery.cancel_scope.cancel()
    assert share.sessions == shard.producers == 0
    assert theirs.fileno() == -1, "the socket is closed, however it ended"


async def test_what_comes_is_taken_in_order() -> None:
    """In any pieces. While it lasts, it counts in the share of its address, and as a producer."""
    async with connected() as stage:
        assert stage.share.sessions == stage.shard.producers == 1
        stage.send(b"a\nb\nc")
        stage.send(b"c\n")
        await until(lambda: stage.shard.taken == [b"a", b"b", b"cc"])
        assert sum(stage.shard.sizes) == 7
        assert stage.shard.turns == len(stage.shard.sizes)  # others have theirs between two reads


async def test_nothing_is_read_ahead_of_the_shards() -> None:
    """At most one read is in hand. The rest stays where TCP slows the producer down."""
    async with connected(room=False) as stage:
        lines = b"".join(b"%d\n" % n for n in range(8_000))
        assert len(lines) > 2 * AT_ONCE
        stage.send(lines)
        await until(lambda: stage.shard.sizes)
        await wait_all_tasks_blocked(0.01)
        assert stage.shard.sizes == [AT_ONCE]
        stage.shard.room.set()
        await until(lambda: len(stage.shard.taken) == 8_000)
        assert b"\n".join(stage.shard.taken) + b"\n" == lines


@pytest.mark.parametrize("begun", [b"", b"b"])
async def test_who_goes_in_the_middle_is_counted(begun: bytes) -> None:
    """And what was whole is in."""
    async with connected() as stage:
        stage.send(b"a\n" + begun)
        stage.ours.shutdown(socket.SHUT_WR)
        await until(lambda: stage.ended)
        assert stage.shard.taken == [b"a"]
        assert stage.shard.refused == (["cut_off"] if begun else [])


async def test_the_codec_may_end_it() -> None:
    """What came before is in, what comes behind is not."""
    async with connected() as stage:
        stage.send(b"a\nend\n")
        await until(lambda: stage.ended)
        stage.ours.recv(1)
        assert stage.shard.taken == [b"a"]


async def test_a_message_that_has_begun_must_end(mock_clock: MockClock) -> None:
    """Within ten seconds altogether: dripping does not help. It is counted, and the producer sees the end."""
    async with connected() as stage:
        stage.send(b"a\nb")
        await wait_all_tasks_blocked()
        mock_clock.jump(WHOLE_WITHIN - 1)
        stage.send(b"b")
        await wait_all_tasks_blocked()
        assert not stage.ended
        mock_clock.jump(0.9)
        await wait_all_tasks_blocked()
        assert not stage.ended
        mock_clock.jump(0.2)
        await until(lambda: stage.ended)
        assert (stage.shard.taken, stage.shard.refused) == ([b"a"], ["too_slow"])
        assert stage.hung_up


async def test_each_message_has_the_time_anew(mock_clock: MockClock) -> None:
    """A slow producer that ends each message in time is welcome."""
    async with connected() as stage:
        for n in range(5):
            stage.send(b"a\nb" if n == 0 else b"\nb")
            await wait_all_tasks_blocked()
            mock_clock.jump(WHOLE_WITHIN - 1)
            await wait_all_tasks_blocked()
        assert not stage.ended
        assert stage.shard.taken == [b"a", *[b"b"] * 4]


async def test_an_idle_producer_may_stay(mock_clock: MockClock) -> None:
    """Between two messages there is no clock."""
    async with connected() as stage:
        stage.send(b"a\n")
        await wait_all_tasks_blocked()
        mock_clock.jump(1e6)
        await wait_all_tasks_blocked()
        stage.send(b"b\n")
        await until(lambda: stage.shard.taken == [b"a", b"b"])


async def test_our_own_waiting_is_not_the_producers(mock_clock: MockClock) -> None:
    """While the shards have no room, or this process had no time, a message does not grow late."""
    async with connected(room=False) as stage:
        stage.send(b"a\nb")
        await wait_all_tasks_blocked()
        mock_clock.jump(10 * WHOLE_WITHIN)
        stage.shard.room.set()
        await wait_all_tasks_blocked()
        assert not stage.ended
        stage.send(b"\n")
        await wait_all_tasks_blocked()
        stage.send(b"c")
        await wait_all_tasks_blocked()
        stage.send(b"c\n")
        mock_clock.jump(10 * WHOLE_WITHIN)  # the process stood still, and the rest was here in time
        await until(lambda: stage.shard.taken == [b"a", b"b", b"cc"])
        assert not stage.shard.refused


async def test_leaving_takes_what_has_come(mock_clock: MockClock) -> None:
    """The producer learns that we go; whole messages that it has sent are taken, a begun one is no fault of its."""
    async with connected(room=False) as stage:
        stage.send(b"a\n")
        await wait_all_tasks_blocked()
        stage.send(b"b\nc")
        stage.stopping.set()
        await wait_all_tasks_blocked()
        assert stage.hung_up
        assert not stage.ended
        stage.shard.room.set()
        await until(lambda: stage.ended)
        assert (stage.shard.taken, stage.shard.refused) == ([b"a", b"b"], [])


async def test_leaving_does_not_wait_for_a_producer_without_end(mock_clock: MockClock) -> None:
    """Who goes on sending is left after a second."""
    async with connected(room=False) as stage:
        stage.send(b"a\n")
        await wait_all_tasks_blocked()
        stage.stopping.set()
        await wait_all_tasks_blocked()
        mock_clock.jump(LAST_WITHIN + 0.1)
        stage.send(b"b\n")
        stage.shard.room.set()
        await until(lambda: stage.ended)
        assert stage.shard.taken == [b"a"]
