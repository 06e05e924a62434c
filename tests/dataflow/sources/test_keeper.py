"""The keeper, with lines that live in memory: what is made before what is broken, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import trio
from attrs import define, field, frozen
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.connector import Connector, LinkLost, Patience, Received
from dataflow.domain import Item
from dataflow.net.pace import Attempts
from dataflow.sources.keeper import Keeper
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import Audience, Line, SourceState
from supervisors import Child, Limit, Pool, Supervisor, open_supervisor


@frozen(kw_only=True)
class Small(SourceSettings):
    """Two symbols on a connection."""

    symbols_a_connection: ClassVar[int] = 2


@define(eq=False)
class Upstream:
    """Any number of connections, and a diary of what happens to each, by number of its line."""

    diary: list[str] = field(factory=list)
    refuses: bool = False
    links: dict[int, Link] = field(factory=dict)

    def told(self) -> list[str]:
        told, self.diary = self.diary, []
        return told


@define(eq=False)
class Way:
    """The way to the upstream of one line."""

    upstream: Upstream
    number: int

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Link]:
        await trio.lowlevel.checkpoint()
        if self.upstream.refuses:
            self.upstream.diary.append(f"{self.number} refused")
            raise LinkLost("refused")
        self.upstream.diary.append(f"{self.number} connected")
        link = self.upstream.links[self.number] = Link(self)
        yield link
        self.upstream.diary.append(f"{self.number} closed")


class Link:
    """One connection. It answers; `says` sends something else."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._send, self._receive = trio.open_memory_channel[Received[Item] | None](100)

    def says(self, **received: Any) -> None:
        self._send.send_nowait(Received(**received))

    async def receive(self) -> Received[Item]:
        got = await self._receive.receive()
        if got is None:
            raise LinkLost("closed")
        return got

    async def turn(self) -> int:
        await trio.lowlevel.checkpoint()
        return 10

    async def subscribe(self, topics: Collection[str]) -> None:
        self._note(f"subscribed to {','.join(topics)}")
        answer = Received[Item]()
        answer.subscribed(*topics)
        self._send.send_nowait(answer)

    async def unsubscribe(self, topics: Collection[str]) -> None:
        self._note(f"unsubscribed from {','.join(topics)}")
        answer = Received[Item]()
        answer.unsubscribed(*topics)
        self._send.send_nowait(answer)

    async def probe(self) -> None:
        self.says(messages=1)

    async def part(self) -> None:
        self._note("parts")
        self._send.send_nowait(None)

    def _note(self, what: str) -> None:
        self._way.upstream.diary.append(f"{self._way.number} {what}")


@define
class Stage:
    source: SourceState
    upstream: Upstream
    handle: Any


@asynccontextmanager
async def stage(
    *symbols: str, kind: type[SourceSettings] = SourceSettings, attempts: Attempts | None = None, **keys: Any
) -> AsyncIterator[Stage]:
    settings = kind(connector="a", url="ws://x/", symbols=symbols, eager=True, stale_after=1e9, **keys)
    source = SourceState("a", settings, Audience(), lambda: 0.0, steady=trio.current_time)
    upstream, paced = Upstream(), attempts or Attempts(0, 1.0)

    def child_of(line: Line) -> Child:
        def connector() -> Connector[Item]:
            return Connector(
                Way(upstream, line.number),
                source.interest.parts[line.share],
                lambda _items: None,
                lambda _topic: None,
                line,
                Patience(1e9, 10.0),
                lambda: paced.take(trio.current_time()),
                lambda: line.is_over,
            )

        return Child(line.number, connector, needed=False)

    def lines() -> Pool:
        return Pool(limit=Limit(restarts=None), children=map(child_of, source.lines.values()))

    def keeper() -> Keeper:
        return Keeper(source, "lines", child_of)

    spec = Supervisor([Child("lines", lines), Child("keeper", keeper, stop_within=0)])
    async with open_supervisor(spec) as handle:
        await wait_all_tasks_blocked()
        yield Stage(source, upstream, handle)


async def test_the_new_line_delivers_before_the_old_one_is_closed(mock_clock: MockClock) -> None:
    """Connected, subscribed and heard; then the old one unsubscribes, hears the answer, parts and is closed."""
    async with stage("A", rotate_after=1000.0) as s:
        assert s.upstream.told() == ["1 connected", "1 subscribed to A"]
        mock_clock.jump(899)
        await wait_all_tasks_blocked()
        assert s.upstream.told() == []
        mock_clock.jump(202)
        await wait_all_tasks_blocked()
        assert s.upstream.told() == ["2 connected", "2 subscribed to A"]
        assert sorted(s.source.lines) == [1, 2]
        s.upstream.links[2].says(messages=1)
        await wait_all_tasks_blocked()
        assert s.upstream.told() == ["1 unsubscribed from A", "1 parts", "1 closed"]
        assert sorted(s.source.lines) == [2]
        assert s.source.status("A") == "live"


async def test_while_the_new_line_cannot_be_had_the_old_one_stays(mock_clock: MockClock) -> None:
    """It is tried again and again, with the backoff."""
    async with stage("A", rotate_after=1000.0) as s:
        s.upstream.told()
        s.upstream.refuses = True
        mock_clock.jump(1101)
        for _ in range(10):
            await wait_all_tasks_blocked()
            mock_clock.jump(40)
        assert set(s.upstream.told()) == {"2 refused"}
        assert s.source.status("A") == "live"
        s.upstream.refuses = False
        mock_clock.jump(40)
        await wait_all_tasks_blocked()
        s.upstream.links[2].says(messages=1)
        await wait_all_tasks_blocked()
        assert s.upstream.told()[-1] == "1 closed"


async def test_an_announced_end(mock_clock: MockClock) -> None:
    """The next line is made at the announcement; the old one goes on until that one delivers."""
    async with stage("A") as s:
        mock_clock.jump(5)
        s.upstream.told()
        s.upstream.links[1].says(leaving="bye", messages=1)
        await wait_all_tasks_blocked()
        assert s.upstream.told() == ["2 connected", "2 subscribed to A"]
        s.upstream.links[2].says(messages=1)
        await wait_all_tasks_blocked()
        assert s.upstream.told() == ["1 unsubscribed from A", "1 parts", "1 closed"]


async def test_lines_follow_the_shares(mock_clock: MockClock) -> None:
    """A symbol without room makes one; the last symbol takes it away."""
    async with stage("A", "B", kind=Small) as s:
        s.upstream.told()
        s.source.interest.want("C", "me")
        await wait_all_tasks_blocked()
        assert s.upstream.told() == ["2 connected", "2 subscribed to C"]
        s.source.interest.release("C", "me")
        await wait_all_tasks_blocked()
        assert s.upstream.told()[-2:] == ["2 parts", "2 closed"]
        assert sorted(s.source.lines) == [1]


async def test_attempts_of_all_lines_are_paced(mock_clock: MockClock) -> None:
    """Three lines, and an upstream that takes two connections in ten seconds: the third one waits, which is
    told and no failure. What was made before a restart counts too."""
    async with stage(*"ABCDEF", kind=Small, attempts=Attempts(2, 10.0)) as s:

        def connected() -> list[int]:
            return sorted(int(each[0]) for each in s.upstream.told() if each.endswith(" connected"))

        first = connected()
        [last] = {1, 2, 3} - set(first)
        assert (s.source.lines[last].reason or "").startswith("waits 10 s for its turn")
        mock_clock.jump(10.6)
        await wait_all_tasks_blocked()
        assert connected() == [last]
        for number in first:
            await s.handle.supervisor("lines").restart(number)
        await wait_all_tasks_blocked()
        again = connected()
        assert len(again) == 1
        mock_clock.jump(10.6)
        await wait_all_tasks_blocked()
        assert sorted(again + connected()) == first
        assert all(node.restarts == 0 for node in s.handle.supervisor("lines").tree().children)


@pytest.mark.parametrize("part", ["lines", "keeper"])
async def test_a_restart_of_any_part_keeps_what_there_is(part: str, mock_clock: MockClock) -> None:
    """All lines come back with their pool, and a keeper finds those that are there."""
    async with stage("A", "B", "C", kind=Small, lines=2) as s:
        await wait_all_tasks_blocked()
        assert sorted(s.source.lines) == [1, 2, 3, 4]
        s.upstream.told()
        await s.handle.restart(part)
        await wait_all_tasks_blocked()
        made = sorted(each for each in s.upstream.told() if " connected" in each)
        assert made == ([f"{n} connected" for n in (1, 2, 3, 4)] if part == "lines" else [])
        assert all(line.link.value == "connected" for line in s.source.lines.values())
