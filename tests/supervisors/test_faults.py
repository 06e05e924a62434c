"""Faults: one async hook at four points, for chaos tests and fault endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from supervisors import Child, Context, Point, Pool, Restart, StartFailed, Supervisor, open_supervisor
from tests.supervisors.helpers import SOON, Boom, Log, child, settle

Strike = Callable[[], Awaitable[None]]


class Faults:
    """A hook that strikes at given points and notes every call."""

    def __init__(self, strikes: dict[tuple[Point, str, int], Strike] | None = None) -> None:
        self.strikes = strikes or {}
        self.calls: list[tuple[Point, str, int]] = []

    async def __call__(self, point: Point, path: str, epoch: int) -> None:
        self.calls.append((point, path, epoch))
        if strike := self.strikes.get((point, path, epoch)):
            await strike()


async def boom() -> None:
    raise Boom


async def stall() -> None:
    await trio.sleep_forever()


async def test_the_four_points_in_their_order(autojump_clock: trio.testing.MockClock) -> None:
    """START, READY, RECEIVE with each message, STOP after a polite stop. Supervisors have points too."""
    faults = Faults()
    inner = Child("in", lambda: Supervisor([child("a")]))
    async with open_supervisor(Supervisor([inner]), faults=faults) as s:
        s.find("in/a").put(None)
        await settle()
    assert faults.calls == [
        (Point.START, "in", 1),
        (Point.START, "in/a", 1),
        (Point.READY, "in/a", 1),
        (Point.READY, "in", 1),
        (Point.RECEIVE, "in/a", 1),
        (Point.STOP, "in/a", 1),
        (Point.STOP, "in", 1),
    ]


@pytest.mark.parametrize("point", [Point.START, Point.READY])
async def test_a_fault_at_start_or_ready_is_a_start_failure(
    point: Point, autojump_clock: trio.testing.MockClock
) -> None:
    """It counts like any start failure: StartFailed at the first start, a retry later."""
    with pytest.raises(StartFailed) as caught:
        async with open_supervisor(Supervisor([child("a")]), faults=Faults({(point, "a", 1): boom})):
            pass
    assert isinstance(caught.value.__cause__, Boom)
    log = Log()
    spec = Supervisor([child("a", backoff=SOON)])
    async with open_supervisor(spec, faults=Faults({(point, "a", 2): boom}), on_event=log.hook) as s:
        s.find("a").put("crash")
        await trio.sleep(5)
        assert s.find("a").epoch == 3
        assert log.kinds("a") == ["ready", "dead_letter", "crash", "start_failed", "ready"]


@pytest.mark.parametrize("point", [Point.START, Point.READY])
async def test_a_stall_at_start_or_ready_runs_into_ready_within(
    point: Point, autojump_clock: trio.testing.MockClock
) -> None:
    """The start fails after `ready_within`, and no task is left."""
    with pytest.raises(StartFailed) as caught:
        async with open_supervisor(Supervisor([child("a")]), faults=Faults({(point, "a", 1): stall})):
            pass
    assert isinstance(caught.value.__cause__, trio.TooSlowError)
    assert trio.current_time() == 10


async def test_an_actor_that_is_done_at_once_has_started(autojump_clock: trio.testing.MockClock) -> None:
    """Also when its work is over before the hook for READY is: as without a hook, it was ready, and ended."""

    class Short:
        async def run(self, ctx: Context) -> None:
            ctx.ready(7)

    for faults in (None, Faults(), Faults({(Point.READY, "a", 1): stall})):
        log = Log()
        async with open_supervisor(Pool(), faults=faults, on_event=log.hook) as s:
            await s.start(Child("a", Short, restart=Restart.TEMPORARY))
            await settle()
            assert log.kinds("a") == ["ready", "exit"]


async def test_a_fault_at_receive_strikes_with_the_message_in_hand(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """So the loss of a message can be rehearsed."""
    log = Log()
    faults = Faults({(Point.RECEIVE, "a", 1): boom})
    async with open_supervisor(Supervisor([child("a")]), faults=faults, on_event=log.hook) as s:
        s.find("a").put("x")
        await settle()
        assert [event.detail for event in log.seen("dead_letter")] == [("x",)]
        assert s.find("a").epoch == 2


async def test_a_stall_at_receive_is_a_hang(autojump_clock: trio.testing.MockClock) -> None:
    """39: the progress watchdog sees it."""
    log = Log()
    faults = Faults({(Point.RECEIVE, "a", 1): stall})
    spec = Supervisor([child("a", beat_within=5)])
    async with open_supervisor(spec, faults=faults, on_event=log.hook) as s:
        s.find("a").put("x")
        await trio.sleep(6)
        assert log.kinds("a") == ["ready", "hung", "dead_letter", "crash", "ready"]


async def test_a_fault_at_stop_is_a_cleanup_error_or_a_slow_stop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """20 and 19: the error is reported; the ladder cancels a stall."""
    log = Log()
    faults = Faults({(Point.STOP, "a", 1): boom, (Point.STOP, "b", 1): stall})
    async with open_supervisor(Supervisor([child("a"), child("b")]), faults=faults, on_event=log.hook):
        pass
    assert log.kinds("a") == ["ready", "stopped", "cleanup_error"]
    assert log.kinds("b") == ["ready", "stop_cancelled", "stopped"]
