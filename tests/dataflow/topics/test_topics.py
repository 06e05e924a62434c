"""The open topics: which of them are woken, and until when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import define
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.update import Stream, Update
from dataflow.domain import Topic
from dataflow.domain.symbols import ANY
from dataflow.domain.topic import TRADES
from dataflow.sources.state import SourceState
from dataflow.topics.topics import SYMBOLS_AT_ONCE, Topics
from supervisors import Child, Pool, PoolFull, Ref, open_supervisor
from tests.dataflow.topics.stage import EPOCH, SYMBOLS, Stage

BTC, ETH = (Topic(TRADES, symbol) for symbol in SYMBOLS)
MIRROR = Topic("mirror", BTC.symbol)
DEAF = Topic("deaf", BTC.symbol)


class Counted:
    """An empty log that counts its readings."""

    last = 0

    def __init__(self, topic: Topic) -> None:
        self.stream = Stream(topic, EPOCH)
        self.readings = 0

    def read(self, after: int) -> Update | None:
        self.readings += 1
        return None


class Fake:
    """A channel of counted logs."""

    offered = True

    def __init__(self, name: str, *, wants: bool) -> None:
        self.name = name
        self._wants = wants
        self._logs: dict[Topic, Counted] = {}

    def topics(self, symbol: str) -> Iterable[Topic]:
        return (Topic(self.name, symbol),)

    def log_of(self, topic: Topic) -> Any:
        return self._logs.setdefault(topic, Counted(topic))

    def wants(self, topic: Topic) -> Collection[str]:
        return (topic.symbol,) if self._wants else ()

    def look(self, symbols: Iterable[str]) -> None: ...


class Listener:
    lanes: Any = {}  # noqa: RUF012 - never changed


@define
class Scene:
    topics: Topics
    sources: dict[str, SourceState]
    pool: Any

    async def open(self, *topics: Topic) -> Listener:
        listener: Any = Listener()
        for topic in topics:
            (await self.topics.open(topic, self.pool)).join(listener)
        return listener

    async def woken_by(self, news: Topic) -> set[Topic]:
        """The topics that read their logs because of this news: of trades, the shards tell the readers."""
        before = {topic: self._log(topic).readings for topic in self.topics.open_topics}
        if news.channel == TRADES:
            self.topics.readers.news(news.symbol)
        else:
            self.topics.news(news)
        await wait_all_tasks_blocked()
        return {topic for topic, readings in before.items() if self._log(topic).readings > readings}

    def _log(self, topic: Topic) -> Counted:
        log: Counted = self.topics.channels[topic.channel].log_of(topic)  # type: ignore[assignment]
        return log


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    stage = Stage()
    channels = [Fake(TRADES, wants=True), Fake("mirror", wants=True), Fake("deaf", wants=False)]
    topics = Topics(stage.ground.carriers, {channel.name: channel for channel in channels})
    async with open_supervisor(Pool()) as pool:
        yield Scene(topics, stage.sources, pool)


async def test_trades_wake_the_topics_that_want_their_symbol() -> None:
    """Of any channel, and no others."""
    async with scene() as s:
        await s.open(BTC, ETH, MIRROR, DEAF)
        assert await s.woken_by(BTC) == {BTC, MIRROR}
        assert await s.woken_by(ETH) == {ETH}


async def test_other_news_wake_their_topic_only() -> None:
    """Also when nothing wants its symbol."""
    async with scene() as s:
        await s.open(BTC, MIRROR, DEAF)
        assert await s.woken_by(MIRROR) == {MIRROR}
        assert await s.woken_by(DEAF) == {DEAF}


async def test_trades_wake_the_others_also_when_nobody_listens_to_trades() -> None:
    """The topic of the trades need not be open."""
    async with scene() as s:
        await s.open(MIRROR)
        assert await s.woken_by(BTC) == {MIRROR}


async def test_all_symbols_are_wanted_and_released_in_turns() -> None:
    """Thousands of them would hold up everybody for a tenth of a second."""
    symbols = {f"S{number}-USD": () for number in range(10 * SYMBOLS_AT_ONCE)}
    looks: list[str] = []
    topics = Topics(symbols, {TRADES: Fake(TRADES, wants=True)}, interest=looks.append)
    every, others = Topic(TRADES, ANY), list[int]()

    async def others_turn() -> None:
        while True:
            others.append(len(looks))
            await trio.lowlevel.checkpoint()

    for act in (topics.want(every, lambda: None), topics.release(every)):
        looks.clear()
        others.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others_turn)
            await act
            nursery.cancel_scope.cancel()
        assert looks == list(symbols)
        between = [later - before for before, later in pairwise([0, *others])]
        assert max(between) <= 2 * SYMBOLS_AT_ONCE


async def test_a_topic_that_has_ended_is_not_woken(mock_clock: MockClock) -> None:
    """It wants nothing any more, and can be opened again."""
    async with scene() as s:
        listener: Any = await s.open(BTC, MIRROR)
        s.topics.leave(MIRROR, listener)
        await wait_all_tasks_blocked()
        assert s.sources["a"].interest.topics == {BTC.symbol}
        mock_clock.jump(31)  # longer than the linger of the sources
        await wait_all_tasks_blocked()
        assert s.topics.open_topics == [BTC]
        assert await s.woken_by(BTC) == {BTC}
        await s.open(MIRROR)
        assert await s.woken_by(BTC) == {BTC, MIRROR}


async def test_an_abandoned_topic_is_not_woken() -> None:
    """Its subscribers are given back."""
    async with scene() as s:
        listener = await s.open(BTC, MIRROR)
        assert list(s.topics.abandon(MIRROR)) == [listener]
        assert await s.woken_by(BTC) == {BTC}


async def test_a_topic_that_is_abandoned_during_its_start_ends_and_is_started_anew() -> None:
    """The client that opens it gets one that lives, and the first actor is gone."""
    async with scene() as s:
        started: list[Ref] = []

        class Starter:
            async def start(self, child: Child) -> Ref:
                ref: Ref = await s.pool.start(child)
                started.append(ref)
                if len(started) == 1:
                    s.topics.abandon(BTC)
                return ref

        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.topics.open, BTC, Starter())
            await wait_all_tasks_blocked()
            starts = len(started)
            started[0].put("news")  # if it lives, the start waits for it: a failure shall not hang
        assert starts == 2
        assert s.topics.open_topics == [BTC]


async def test_nothing_is_kept_of_a_topic_that_is_over() -> None:
    """Neither itself nor its name, nor that it wanted a symbol."""
    async with scene() as s:
        listener: Any = await s.open(MIRROR)
        s.topics.over(str(MIRROR))
        assert s.topics.named(str(MIRROR)) == MIRROR, "it is not over"
        s.topics.abandon(MIRROR)
        s.topics.over(str(MIRROR))
        s.topics.over(str(MIRROR))
        assert (s.topics._opened, s.topics._by_name, s.topics.readers._wakes) == ({}, {}, {})
        s.topics.leave(MIRROR, listener)
        assert s.topics.named(str(MIRROR)) is None


async def test_a_topic_that_cannot_be_started_leaves_nothing() -> None:
    """The client is told, and may try again."""
    async with scene() as s:

        class Refuses:
            async def start(self, child: Child) -> Ref:
                raise PoolFull("full")

        with pytest.raises(PoolFull):
            await s.topics.open(BTC, Refuses())
        assert (s.topics._opened, s.topics._by_name) == ({}, {})
        await s.open(BTC)


async def test_a_symbol_that_comes_to_a_source_is_wanted_there() -> None:
    """If a topic waits for it."""
    async with scene() as s:
        await s.open(BTC)
        for source in s.sources.values():
            source.interest.confine(())
        s.topics.want_again(["X-Y"])
        assert not s.sources["a"].interest.topics
        s.topics.want_again([BTC.symbol])
        assert s.sources["a"].interest.topics == {BTC.symbol}
