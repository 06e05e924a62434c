"""A follower does all that is due: when it is urgent, at least every interval, and again after a crash."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.follower import Follower
from supervisors import Backoff, Child, Limit, Mailbox, Overflow, Supervisor, open_supervisor

INTERVAL = 1.0
MAILBOX = Mailbox(size=1, overflow=Overflow.CONFLATE, key=lambda _message: None)


@define
class Pieces:
    """A sink with some pieces of work. It tells when each was done."""

    due: int = 0
    done: list[float] = field(factory=list)
    fails: int = 0
    wake: Callable[[], object] = print

    def follow(self, wake: Callable[[], object]) -> None:
        self.wake = wake

    def advance(self) -> bool:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("sabotage")
        if self.due:
            self.due -= 1
            self.done.append(trio.current_time())
        return self.due > 0


def tree(sink: Pieces) -> Supervisor:
    child = Child(
        "follower",
        partial(Follower, sink, INTERVAL),
        mailbox=MAILBOX,
        backoff=Backoff(first=0.25, jitter=0),
        beat_within=5.0,
        stop_within=0,
    )
    return Supervisor(limit=Limit(restarts=None), children=(child,))


async def test_what_is_urgent_is_done_at_once(autojump_clock: MockClock) -> None:
    """All of it, before the next look at the clock."""
    sink = Pieces()
    async with open_supervisor(tree(sink)):
        begun = trio.current_time()
        sink.due = 3
        sink.wake()
        await wait_all_tasks_blocked()
        assert sink.done == [begun] * 3


async def test_what_is_not_urgent_is_done_within_the_interval(autojump_clock: MockClock) -> None:
    """Nobody has to wake it."""
    sink = Pieces()
    async with open_supervisor(tree(sink)):
        begun = trio.current_time()
        sink.due = 2
        await trio.sleep(INTERVAL * 1.5)
        assert sink.done == [begun + INTERVAL] * 2


async def test_a_new_incarnation_does_what_is_due(autojump_clock: MockClock) -> None:
    """It looks before it waits: a wake-up may have been lost in the crash."""
    sink = Pieces()
    async with open_supervisor(tree(sink)):
        begun = trio.current_time()
        sink.due, sink.fails = 2, 2
        sink.wake()
        await trio.sleep(0.9)
        assert sink.done == [begun + 0.25 + 0.5] * 2
        sink.due = 1
        sink.wake()
        await wait_all_tasks_blocked()
        assert len(sink.done) == 3, "and it is woken like the first"


async def test_others_run_between_two_pieces(autojump_clock: MockClock) -> None:
    """A long piece of work must not hold up the event loop."""
    sink = Pieces()
    passed = 0

    async def count() -> None:
        nonlocal passed
        while sink.due:
            await trio.lowlevel.checkpoint()
            passed += 1

    async with open_supervisor(tree(sink)), trio.open_nursery() as nursery:
        sink.due = 50
        nursery.start_soon(count)
        sink.wake()
    assert passed >= 40
