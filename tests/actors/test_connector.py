"""The connector: connected, resubscribed, never fooled by silence, and alone in its trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.connector import Connector, Interest, LinkLost, Patience, Received
from supervisors import Backoff, Child, Event, Limit, Supervisor, open_supervisor
from tests.actors.fakes import Diary, FakeUpstream

BACKOFF = Backoff(first=1.0, factor=2.0, cap=30.0, jitter=0.0)


@define
class Stage:
    upstream: FakeUpstream
    interest: Interest
    diary: Diary
    delivered: list[str]
    events: list[Event]
    handle: Any

    def crashes(self) -> list[BaseException]:
        return [error for event in self.events if event.kind == "crash" for error in event.errors]


@asynccontextmanager
async def stage(
    *topics: str,
    missed: Callable[[str], str | None] = lambda _topic: None,
    upstream: FakeUpstream | None = None,
) -> AsyncIterator[Stage]:
    made = Stage(upstream or FakeUpstream(), Interest(), Diary(), [], [], None)
    for topic in topics:
        made.interest.want(topic, "test")

    def connector() -> Connector[str]:
        return Connector(
            made.upstream,
            made.interest,
            made.delivered.extend,
            missed,
            made.diary,
            Patience(stale_after=15, subscribe_within=10),
        )

    spec = Supervisor(children=[Child("it", connector, backoff=BACKOFF)], limit=Limit(restarts=None))
    async with open_supervisor(spec, on_event=made.events.append) as handle:
        made.handle = handle
        await wait_all_tasks_blocked()
        yield made


async def test_what_is_wanted_is_subscribed_and_delivered(mock_clock: MockClock) -> None:
    """The wanted topics are asked for at once, and items arrive in order."""
    async with stage("a", "b") as s:
        s.upstream.publish("1", "2")
        s.upstream.publish("3")
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a", "b"))]
        assert s.delivered == ["1", "2", "3"]
        assert s.diary.lines == ["connecting", "subscribed a", "subscribed b", "up a,b"]


async def test_interest_is_followed(mock_clock: MockClock) -> None:
    """A topic wanted later is subscribed, one no longer wanted by anybody is unsubscribed."""
    async with stage() as s:
        s.interest.want("a", "first")
        s.interest.want("a", "second")
        await wait_all_tasks_blocked()
        s.interest.release("a", "first")
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",))]
        s.interest.release("a", "second")
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",)), ("unsubscribe", ("a",))]


async def test_a_topic_wanted_again_while_its_answer_is_out_is_not_asked_for_twice(
    mock_clock: MockClock,
) -> None:
    """What was asked for is let go of only after its answer, and then for good."""
    upstream = FakeUpstream()
    upstream.mute = True
    async with stage("a", upstream=upstream) as s:
        s.interest.release("a", "test")
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",))]
        upstream.send.send_nowait(Received(subscribed=["a"]))
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a",)), ("unsubscribe", ("a",))]


async def test_a_lost_connection_is_made_anew_and_resubscribed(mock_clock: MockClock) -> None:
    """After a cut the connector is back after the backoff with every topic that is wanted by then."""
    async with stage("a") as s:
        s.upstream.cut("reset by peer")
        await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down reset by peer"
        s.interest.want("b", "test")
        mock_clock.jump(1.0)
        await wait_all_tasks_blocked()
        assert s.upstream.log == [("subscribe", ("a",)), ("subscribe", ("a", "b"))]
        assert s.diary.lines[-1] == "up a,b"


async def test_a_source_that_is_down_at_start_is_nothing_special(mock_clock: MockClock) -> None:
    """The tree starts, and the source is retried for as long as it takes: here, for a day."""
    upstream = FakeUpstream()
    upstream.up = False
    async with stage("a", upstream=upstream) as s:
        assert s.handle.counts()["total"] == 1
        for _ in range(24 * 60 * 2):
            mock_clock.jump(30)
            await wait_all_tasks_blocked()
        assert upstream.attempts > 2000
        upstream.up = True
        mock_clock.jump(30)
        await wait_all_tasks_blocked()
        assert upstream.subscribed == {"a"}
        assert {type(error) for error in s.crashes()} == {LinkLost}


async def test_silence_is_probed_and_then_believed(mock_clock: MockClock) -> None:
    """Half of `stale_after` brings a probe, the whole of it ends the connection."""
    async with stage("a") as s:
        mock_clock.jump(7.6)
        await wait_all_tasks_blocked()
        assert s.upstream.probes == 1
        assert s.upstream.attempts == 1
        mock_clock.jump(7.6)
        await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down stale: no message for 15 s"
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert s.upstream.attempts == 2


async def test_any_message_is_a_sign_of_life(mock_clock: MockClock) -> None:
    """As long as something comes every now and then, nothing is reconnected."""
    async with stage("a") as s:
        for _ in range(10):
            mock_clock.jump(10)
            await wait_all_tasks_blocked()
            s.upstream.send.send_nowait(Received())
            await wait_all_tasks_blocked()
        assert s.upstream.attempts == 1


async def test_a_subscription_without_an_answer_ends_the_connection(mock_clock: MockClock) -> None:
    """An upstream that talks but never confirms is as good as dead."""
    upstream = FakeUpstream()
    upstream.mute = True
    async with stage("a", upstream=upstream) as s:
        for _ in range(3):
            mock_clock.jump(4)
            upstream.send.send_nowait(Received())
            await wait_all_tasks_blocked()
        assert s.diary.lines[-1] == "down no answer to the subscription of a"


async def test_a_refused_topic_is_reported_and_not_asked_for_again(mock_clock: MockClock) -> None:
    """A refusal concerns one topic: the connection stays up with the others."""
    upstream = FakeUpstream()
    upstream.refuses["b"] = "unknown symbol"
    async with stage("a", "b", upstream=upstream) as s:
        s.interest.want("c", "test")
        await wait_all_tasks_blocked()
        assert upstream.log == [("subscribe", ("a", "b")), ("subscribe", ("c",))]
        assert "refused b: unknown symbol" in s.diary.lines
        assert "up a" in s.diary.lines


async def test_a_mark_precedes_what_follows_a_subscription(mock_clock: MockClock) -> None:
    """Where the ids prove nothing, every (re)subscription leaves a mark before the first item."""
    async with stage("a", missed=lambda topic: f"missed {topic}") as s:
        s.upstream.publish("1")
        await wait_all_tasks_blocked()
        s.upstream.cut()
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        s.upstream.publish("2")
        await wait_all_tasks_blocked()
        assert s.delivered == ["missed a", "1", "missed a", "2"]


async def test_what_came_before_the_verdict_is_delivered(mock_clock: MockClock) -> None:
    """A read that ends the connection still delivers its items and reports its problems."""
    async with stage("a") as s:
        s.upstream.send.send_nowait(
            Received(items=["1"], problems=[("bad_price", "x")], lost="seqnum 5 after 3")
        )
        await wait_all_tasks_blocked()
        assert s.delivered == ["1"]
        assert s.diary.lines[-2:] == ["problem bad_price: x", "down seqnum 5 after 3"]


@pytest.mark.parametrize("where", ["deliver", "subscribe", "receive", "connect"])
async def test_a_failure_inside_restarts_the_connector(
    where: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever raises, wherever: the next incarnation is connected and subscribed again."""
    failing = [True]

    def explode(*_arguments: object) -> None:
        if failing:
            failing.clear()
            raise RuntimeError(where)

    upstream = FakeUpstream()
    genuine = {name: getattr(upstream, name) for name in ("subscribe", "receive")}

    async def subscribe(topics: Any) -> None:
        explode()
        await genuine["subscribe"](topics)

    async def receive() -> Any:
        explode()
        return await genuine["receive"]()

    @asynccontextmanager
    async def connect() -> AsyncIterator[FakeUpstream]:
        explode()
        async with FakeUpstream.connect(upstream) as link:
            yield link

    if where == "deliver":
        async with stage("a", missed=lambda _topic: explode()) as s:
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
            assert s.upstream.subscribed == {"a"}
        return
    monkeypatch.setattr(
        upstream, where, {"subscribe": subscribe, "receive": receive, "connect": connect}[where]
    )
    async with stage("a", upstream=upstream) as s:
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert upstream.subscribed == {"a"}
        assert [str(error) for error in s.crashes()] == [where]
        assert "down internal error: RuntimeError" in s.diary.lines


async def test_a_stop_closes_the_connection_politely(mock_clock: MockClock) -> None:
    """A stopped connector leaves through the link's own exit and counts as stopped, not crashed."""
    async with stage("a") as s:
        await s.handle.stop("it")
        assert s.diary.lines[-1] == "down stopped"
        assert s.crashes() == []


async def test_nothing_is_lost_between_reading_and_probing(mock_clock: MockClock) -> None:
    """Items that come at the very moment of a probe are delivered once."""
    async with stage("a") as s:
        for n in range(50):
            mock_clock.jump(7.5)
            s.upstream.publish(str(n))
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert s.delivered == [str(n) for n in range(50)]
