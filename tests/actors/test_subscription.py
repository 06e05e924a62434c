"""The subscription: counts subscribers, holds the upstream, fans out every place exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.subscription import SUBSCRIBERS_AT_ONCE, Fanout, Lane, Subscription
from actors.update import Encode, Fill, Places, Rendering, Stream, Update
from supervisors import Backoff, Child, Event, Mailbox, Overflow, Pool, Restart, open_supervisor
from tests.actors.fakes import Fillings


class AsTheyAre:
    """A format: entries that are texts already."""

    def encoder(self, topic: object, epoch: int) -> Encode:
        def encode(places: Places) -> list[bytes]:
            return [text for _, text in places]

        return encode

    def filled(self, topic: object, epoch: int, places: Places) -> None:
        return None


class MemoryLog:
    """A log of numbered texts, read in runs of at most three."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.came: list[float] = []
        self.stream = Stream("a", 1)

    def append(self, *texts: str) -> None:
        self.texts.extend(text.encode() for text in texts)
        self.came.extend(trio.current_time() for _ in texts)

    @property
    def last(self) -> int:
        return len(self.texts)

    def read(self, after: int) -> Update | None:
        run = self.texts[after : after + 3]
        if not run:
            return None
        return Update(self.stream, after + 1, list(enumerate(run, after + 1)), self.came[after])


def texts_of(texts: Sequence[bytes]) -> tuple[bytes, ...]:
    """A payload of these subscribers: the texts as they are."""
    return tuple(texts)


EVERYBODYS = Rendering(AsTheyAre(), None, texts_of)


class Listener:
    """A subscriber that keeps its own position, as a session does, on a connection that takes `room` texts."""

    def __init__(self, position: int = 0, *, free: bool = True, room: int = 1 << 30) -> None:
        self.lane: Lane[Any] = Lane(position, EVERYBODYS, self.send if free else None)
        self.lanes: dict[str, Lane[Any]] = {"a": self.lane}
        self.heard: list[str] = []
        self.rests: list[tuple[bytes, ...]] = []
        self.written = self.offered = 0
        self.raises = False
        self.room = room

    def send(self, payload: tuple[bytes, ...]) -> int:
        self._maybe_raise()
        self.written += 1
        if not self.room:
            raise BlockingIOError
        taken = payload[: self.room]
        self.room -= len(taken)
        self.heard.extend(text.decode() for text in taken)
        return len(taken)

    def finish(self, payload: tuple[bytes, ...], taken: int | None) -> None:
        self.rests.append(payload[taken or 0 :])
        self.lane.send = None

    def offer(self, update: Update) -> None:
        self._maybe_raise()
        self.offered += 1
        if "a" in self.lanes and (rest := update.after(self.lane.position)) is not None:
            self.lane.position = rest.last
            self.heard.extend(text.decode() for _, text in rest.places)

    def amend(self, fill: Fill) -> None:
        self._maybe_raise()
        if fill.number > self.lane.fills:
            self.lane.fills = fill.number
            self.heard.append(f"fill {fill.number}")

    def unfollow(self) -> None:
        self.lanes.clear()
        self.lane.send = None

    def _maybe_raise(self) -> None:
        if self.raises:
            self.raises = False
            raise RuntimeError("a subscriber broke its promise")


@define
class Upstream:
    log: list[str] = field(factory=list)

    async def want(self, topic: str, wake: Any) -> None:
        self.log.append(f"want {topic}")

    async def release(self, topic: str) -> None:
        self.log.append(f"release {topic}")


@define
class Stage:
    log: MemoryLog
    topic: Fanout
    upstream: Upstream
    events: list[Event]
    ref: Any
    pool: Any
    served: list[float]
    forgotten: list[int]

    async def news(self, *texts: str) -> None:
        self.log.append(*texts)
        self.ref.put("news")
        await wait_all_tasks_blocked()


@asynccontextmanager
async def stage(*before: str, interval: float = 0.0) -> AsyncIterator[Stage]:
    log = MemoryLog()
    log.append(*before)
    topic, upstream, events, served = Fanout("a", log), Upstream(), list[Event](), list[float]()
    forgotten: list[int] = []
    child = Child(
        "a",
        lambda: Subscription(
            topic, upstream, linger=30, interval=interval, served=served.append, forgotten=forgotten.append
        ),
        restart=Restart.TRANSIENT,
        backoff=Backoff(first=1, jitter=0),
        mailbox=Mailbox(1, Overflow.CONFLATE, key=lambda _: None),
    )
    async with open_supervisor(Pool(), on_event=events.append) as pool:
        ref = await pool.start(child)
        yield Stage(log, topic, upstream, events, ref, pool, served, forgotten)


async def test_each_pass_tells_once_how_old_its_oldest_entry_is(mock_clock: MockClock) -> None:
    """Once a pass, not once a subscriber or an entry; and not at all while nobody listens."""
    async with stage() as s:
        await s.news("1")
        assert s.served == []
        for _ in range(5):
            s.topic.join(Listener(1))
        s.log.append("2")
        mock_clock.jump(0.25)
        s.log.append("3")
        mock_clock.jump(0.5)
        await s.news("4", "5")  # a run has three entries: these are two passes
        assert s.served == [0.75, 0.0]


async def test_every_subscriber_hears_everything_from_its_position_on(mock_clock: MockClock) -> None:
    """Early and late subscribers get the same stream, each from where it stands."""
    async with stage("old") as s:
        early, late = Listener(1), Listener(3)
        s.topic.join(early)
        await s.news("x", "y")
        s.topic.join(late)
        await s.news("z", "zz", "zzz", "zzzz")
        assert early.heard == ["x", "y", "z", "zz", "zzz", "zzzz"]
        assert late.heard == ["z", "zz", "zzz", "zzzz"]


async def test_one_wake_up_is_enough_for_any_amount_of_news(mock_clock: MockClock) -> None:
    """Wake-ups are conflated: what counts is the log."""
    async with stage() as s:
        listener = Listener()
        s.topic.join(listener)
        s.log.append(*map(str, range(10)))
        for _ in range(5):
            s.ref.put("news")
        await wait_all_tasks_blocked()
        assert listener.heard == [str(n) for n in range(10)]


async def test_a_fill_comes_before_the_news_behind_it(mock_clock: MockClock) -> None:
    """Whoever reads further has it in its place already; so it must be told first."""
    async with stage("1", "2") as s:
        listener = Listener(2)
        s.topic.join(listener)
        fillings = Fillings()
        s.topic.stream.filling = fillings
        fillings.fill("a", 1)
        fillings.fill("a", 2)
        await s.news("3")
        assert listener.heard == ["fill 1", "fill 2", "3"]
        await s.news("4")
        assert listener.heard == ["fill 1", "fill 2", "3", "4"]


async def test_a_crash_in_the_middle_of_a_fill_repeats_and_skips_nothing(mock_clock: MockClock) -> None:
    """How far a fill was brought outlives the actor; who has it already does not get it again."""
    async with stage("1", "2") as s:
        first, second = Listener(2), Listener(2)
        s.topic.join(first)
        s.topic.join(second)
        fillings = Fillings()
        s.topic.stream.filling = fillings
        fillings.fill("a", 1)
        second.raises = True
        await s.news()
        assert (first.heard, second.heard) == (["fill 1"], [])
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert first.heard == second.heard == ["fill 1"]


async def test_fills_that_were_forgotten_are_counted(mock_clock: MockClock) -> None:
    """A reader sees them by a hole in the numbers."""
    async with stage("1", "2") as s:
        fillings = Fillings()
        s.topic.stream.filling = fillings
        for place in (1, 2, 1):
            fillings.fill("a", place)
        fillings.forgotten = 2
        await s.news("3")
        assert s.forgotten == [2]


async def test_a_crash_in_the_middle_of_a_fan_out_repeats_and_skips_nothing(mock_clock: MockClock) -> None:
    """Subscribers that were served before the crash are not served again; the others are."""
    async with stage() as s:
        first, second = Listener(), Listener()
        s.topic.join(first)
        s.topic.join(second)
        second.raises = True
        await s.news("1", "2")
        assert (first.heard, second.heard) == (["1", "2"], [])
        s.log.append("3")
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert first.heard == second.heard == ["1", "2", "3"]


async def test_a_crash_does_not_let_go_of_the_upstream(mock_clock: MockClock) -> None:
    """A restart must not cost an upstream subscription: nothing is released in between."""
    async with stage() as s:
        listener = Listener()
        s.topic.join(listener)
        listener.raises = True
        await s.news("1")
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert s.upstream.log == ["want a", "want a"]
        await s.pool.restart("a")
        assert "release a" not in s.upstream.log


async def test_the_last_subscriber_leaves_and_the_upstream_lingers(mock_clock: MockClock) -> None:
    """Not the leaving but the linger after it releases the upstream, and ends the actor."""
    async with stage() as s:
        listener = Listener()
        s.topic.join(listener)
        await s.news("1")
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        s.topic.leave(listener)
        await s.news()
        mock_clock.jump(29)
        await wait_all_tasks_blocked()
        assert s.upstream.log == ["want a"]
        mock_clock.jump(2)
        await wait_all_tasks_blocked()
        assert s.upstream.log == ["want a", "release a"]
        assert not s.topic.open
        assert s.pool.counts()["total"] == 0


async def test_a_subscriber_within_the_linger_keeps_the_subscription(mock_clock: MockClock) -> None:
    """A page that reloads costs nothing upstream."""
    async with stage() as s:
        mock_clock.jump(29)
        s.topic.join(Listener())
        await s.news()
        mock_clock.jump(1000)
        await wait_all_tasks_blocked()
        assert s.upstream.log == ["want a"]
        assert s.topic.open


async def test_twice_the_same_subscriber_counts_once(mock_clock: MockClock) -> None:
    """Joining twice and leaving once leaves nobody."""
    async with stage() as s:
        listener = Listener()
        s.topic.join(listener)
        s.topic.join(listener)
        s.topic.leave(listener)
        s.topic.leave(listener)
        assert not s.topic.subscribers
        await s.news("1")
        assert listener.heard == []


@pytest.mark.parametrize("subscribers", [1, SUBSCRIBERS_AT_ONCE, SUBSCRIBERS_AT_ONCE + 1, 1000])
async def test_large_crowds_are_all_served(subscribers: int, mock_clock: MockClock) -> None:
    """The pauses in a large fan-out skip nobody."""
    async with stage() as s:
        crowd = [Listener() for _ in range(subscribers)]
        for listener in crowd:
            s.topic.join(listener)
        await s.news("1", "2", "3", "4")
        assert all(listener.heard == ["1", "2", "3", "4"] for listener in crowd)


async def test_who_is_where_the_pass_begins_is_written_to_at_once(mock_clock: MockClock) -> None:
    """The short way is for those who are in step and free; the others are asked, and find their own part."""
    async with stage("old") as s:
        in_step, busy, ahead, behind = Listener(1), Listener(1, free=False), Listener(2), Listener(0)
        for listener in (in_step, busy, ahead, behind):
            s.topic.join(listener)
        await s.news("x", "y")
        assert [(one.written, one.offered) for one in (in_step, busy, ahead, behind)] == [
            (1, 0),
            (0, 1),
            (0, 1),
            (0, 1),
        ]
        assert in_step.heard == busy.heard == behind.heard == ["x", "y"]
        assert ahead.heard == ["y"]
        assert [one.lane.position for one in (in_step, busy, ahead, behind)] == [3, 3, 3, 3]
        assert in_step.lane.sent == 2


async def test_what_a_write_leaves_over_is_finished_by_its_subscriber(mock_clock: MockClock) -> None:
    """A cut payload counts as given: its rest is handed over once, and nothing is written past it."""
    async with stage() as s:
        slow, other = Listener(room=1), Listener()
        s.topic.join(slow)
        s.topic.join(other)
        await s.news("1", "2", "3")
        await s.news("4")
        assert slow.rests == [(b"2", b"3")]
        assert (slow.written, slow.offered) == (1, 1)
        assert other.heard == ["1", "2", "3", "4"]


async def test_who_has_joined_and_is_not_live_yet_is_left_alone(mock_clock: MockClock) -> None:
    """A subscriber whose answer is not said yet gets nothing before it, and everything behind it."""
    async with stage() as s:
        early, other = Listener(1), Listener()
        early.lanes.clear()
        s.topic.join(early)
        s.topic.join(other)
        await s.news("1")
        assert (early.written, early.offered) == (0, 0)
        early.lanes["a"] = early.lane
        await s.news("2")
        assert early.heard == ["2"]
        assert other.heard == ["1", "2"]


async def test_who_comes_and_goes_between_passes_is_seen(mock_clock: MockClock) -> None:
    """The list of those who are live is as new as the last coming and going."""
    async with stage() as s:
        stays, goes, comes = Listener(), Listener(), Listener(1)
        s.topic.join(stays)
        s.topic.join(goes)
        await s.news("1")
        s.topic.leave(goes)
        s.topic.join(comes)
        await s.news("2")
        assert (stays.heard, goes.heard, comes.heard) == (["1", "2"], ["1"], ["2"])
        s.topic.leave(comes)
        await s.news("3")
        assert (stays.heard, comes.heard) == (["1", "2", "3"], ["2"])


async def test_who_leaves_during_a_pass_is_not_served_any_more(mock_clock: MockClock) -> None:
    """A pass pauses for others: whoever unfollows meanwhile gets nothing of it."""
    async with stage() as s:
        crowd = [Listener() for _ in range(SUBSCRIBERS_AT_ONCE + 1)]
        for listener in crowd:
            s.topic.join(listener)
        first, last = crowd[0], crowd[-1]
        take = first.send

        def leave(payload: tuple[bytes, ...]) -> int:
            last.unfollow()
            return take(payload)

        first.lane.send = leave
        await s.news("1")
        assert (first.heard, last.heard) == (["1"], [])


async def test_passes_begin_an_interval_apart(mock_clock: MockClock) -> None:
    """The first news leaves at once; what comes within the interval leaves together, at its end."""
    async with stage(interval=0.5) as s:
        listener = Listener()
        s.topic.join(listener)
        await s.news("1")
        assert listener.heard == ["1"]
        await s.news("2")
        await s.news("3")
        assert listener.heard == ["1"]
        mock_clock.jump(0.5)
        await wait_all_tasks_blocked()
        assert listener.heard == ["1", "2", "3"]
        assert listener.written == 2
