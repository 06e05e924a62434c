"""Stop: rules 18 to 20 and 22 (21 is in test_run)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from supervisors import Child, Context, Pool, Stopping, Supervisor, open_supervisor
from tests.supervisors.helpers import Boom, Log, child, scripted, settle


def leisurely(id: str, log: Log, seconds: float, **settings: Any) -> Child:
    """A child that takes `seconds` for a polite stop."""

    async def life(ctx: Context) -> None:
        ctx.ready()
        try:
            await ctx.stopping.wait()
            log("asked", ctx.path)
            await trio.sleep(seconds)
            log("left", ctx.path)
        except trio.Cancelled:
            log("cancelled", ctx.path)
            raise

    return scripted(id, life, **settings)


def shielded(id: str, log: Log, release: trio.Event, **settings: Any) -> Child:
    """A child that ignores every cancel until `release` is set."""

    async def life(ctx: Context) -> None:
        ctx.ready()
        with trio.CancelScope(shield=True):
            await release.wait()
        log("left", ctx.path)

    return scripted(id, life, **settings)


async def test_static_children_stop_in_reverse_one_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """18: children started later stand last in the order."""
    log = Log()
    async with open_supervisor(Supervisor([leisurely(x, log, 1) for x in "ab"])) as s:
        await s.start(leisurely("c", log, 1))
    assert log.lines == [(what, path) for path in "cba" for what in ("asked", "left")]
    assert trio.current_time() == 3


async def test_a_pool_stops_in_parallel_under_one_timer(autojump_clock: trio.testing.MockClock) -> None:
    """18: it takes as long as its slowest child; each child has its own `stop_within`."""
    log = Log()
    async with open_supervisor(Pool()) as s:
        for i in range(300):  # more than one chunk
            await s.start(leisurely(f"p{i}", log, 2))
        await s.start(leisurely("late", log, 99, stop_within=3))
        await s.start(leisurely("soon", log, 99, stop_within=1))
    assert trio.current_time() == 3
    assert log.of("cancelled") == ["soon", "late"]
    assert len(log.of("left")) == 300


async def test_the_ladder(autojump_clock: trio.testing.MockClock) -> None:
    """19: polite stop -> `stop_within` -> cancel -> `cleanup_within` -> reported by path. The block ends with the task."""
    log = Log()
    release = trio.Event()
    spec = Supervisor(
        [leisurely("next", log, 0), shielded("stuck", log, release, stop_within=2, cleanup_within=3)]
    )

    async def free() -> None:
        await trio.sleep(100)
        release.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(free)
        async with open_supervisor(spec, on_event=log.hook):
            pass
    assert [(e.kind, e.path, e.at) for e in log.events if e.kind in ("stop_cancelled", "unstopped")] == [
        ("stop_cancelled", "stuck", 2),
        ("unstopped", "stuck", 5),
    ]
    assert next(e for e in log.seen("stopped") if e.path == "next").at == 5
    assert trio.current_time() == 100
    assert log.of("left") == ["next", "stuck"]


async def test_a_cancelled_stop_is_reported_a_polite_one_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """19: a child that ends within `stop_within` is only reported as `stopped`."""
    log = Log()
    async with open_supervisor(
        Supervisor([leisurely("a", log, 4.9), leisurely("b", log, 5.1)]), on_event=log.hook
    ):
        pass
    assert log.kinds("a") == ["ready", "stopped"]
    assert log.kinds("b") == ["ready", "stop_cancelled", "stopped"]


async def test_stop_within_0_sends_no_polite_signal(autojump_clock: trio.testing.MockClock) -> None:
    """19: it is cancelled at once, and not reported as too slow."""
    log = Log()
    async with open_supervisor(Supervisor([leisurely("a", log, 1, stop_within=0)]), on_event=log.hook):
        pass
    assert log.lines == [("cancelled", "a")]
    assert log.kinds() == ["ready", "stopped"]


async def test_a_supervisor_has_all_the_time_unless_told_otherwise(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """19: by default only the ladders of its children bound it; its own `stop_within` cuts them all short."""
    log = Log()
    patient = Child("p", lambda: Supervisor([leisurely("a", log, 50, stop_within=60)]))
    hurried = Child("h", lambda: Supervisor([leisurely("b", log, 50, stop_within=60)]), stop_within=1)
    async with open_supervisor(Supervisor([patient, hurried]), on_event=log.hook):
        pass
    assert log.lines == [("asked", "h/b"), ("cancelled", "h/b"), ("asked", "p/a"), ("left", "p/a")]
    assert [(event.path, event.at) for event in log.seen("stop_cancelled")] == [("h", 1)]
    assert trio.current_time() == 51


async def test_a_late_start_is_cancelled_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """19: an actor that is not ready gets no polite stop, by hand or at shutdown."""
    log = Log()

    async def starting(ctx: Context) -> None:
        try:
            await trio.sleep_forever()
        finally:
            log("cancelled", ctx.path)

    async def start(s: Any, id: str) -> None:
        with pytest.raises(Exception, match="stop"):
            await s.start(scripted(id, starting, ready_within=1000))

    async with open_supervisor(Supervisor([leisurely("a", log, 3)])) as s, trio.open_nursery() as nursery:
        nursery.start_soon(start, s, "x")
        await settle()
        await s.stop("x")
        assert log.of("cancelled") == ["x"]
        assert trio.current_time() == 0
        assert s.find("x").state == "done"


async def test_a_start_under_way_does_not_delay_the_shutdown(autojump_clock: trio.testing.MockClock) -> None:
    """19: it is cancelled before the others are asked."""

    async def starting(ctx: Context) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery, open_supervisor(Supervisor()) as s:

        async def start() -> None:
            with pytest.raises(Stopping):
                await s.start(scripted("x", starting, ready_within=1000))

        nursery.start_soon(start)
        await settle()
    assert trio.current_time() == 0


async def test_letting_stopping_through_is_polite_also_out_of_a_nursery(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """19: an actor with tasks of its own wraps Stopping in a group."""
    log = Log()

    async def life(ctx: Context) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.receive)
            ctx.ready()

    async with open_supervisor(Supervisor([scripted("a", life), child("b", log)]), on_event=log.hook):
        await settle()
    assert log.kinds("a") == log.kinds("b") == ["ready", "stopped"]


async def test_a_cleanup_error_is_reported_and_harms_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """20: it blocks nobody, restarts nothing, does not mask the shutdown, and `stop` does not raise it."""
    log = Log()

    async def life(ctx: Context) -> None:
        log("start", ctx.path)
        ctx.ready()
        try:
            await ctx.receive()
        finally:
            raise Boom(ctx.path)

    async with open_supervisor(Supervisor([scripted(x, life) for x in "abc"]), on_event=log.hook) as s:
        await s.stop("b")
        assert s.find("b").state == "done"
    assert [event.path for event in log.seen("cleanup_error")] == ["b", "c", "a"]
    assert all(isinstance(event.errors[0], Boom) for event in log.seen("cleanup_error"))
    assert log.of("start") == ["a", "b", "c"]


async def test_an_outer_cancel_ends_everything_and_masks_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """20 and trap 2: cleanup errors mixed with Cancelled are reported; the deadline still ends the block."""
    log = Log()

    async def life(ctx: Context) -> None:
        ctx.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise Boom(ctx.path)

    inner = Child("in", lambda: Supervisor([scripted("x", life)]))
    with trio.move_on_after(5) as scope:
        async with open_supervisor(Supervisor([scripted("a", life), inner]), on_event=log.hook):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert sorted(event.path for event in log.seen("cleanup_error")) == ["a", "in/x"]
    assert "crash" not in log.kinds()


async def test_a_saved_cancelled_raised_again_is_a_crash(autojump_clock: trio.testing.MockClock) -> None:
    """Trap 1 and rule 36: nobody ordered a cancellation, so it must not pass for one."""
    log = Log()

    async def life(ctx: Context) -> None:
        ctx.ready()
        saved: BaseException | None = None
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                saved = error
        await ctx.receive()
        assert saved is not None
        raise saved

    async with open_supervisor(Supervisor([scripted("a", life), child("b", log)]), on_event=log.hook) as s:
        s.find("a").put("x")
        await settle()
        assert s.find("a").epoch == 2
        assert s.counts()["running"] == 2
        assert log.kinds("a").count("crash") == 1
        assert log.of("end") == []


async def test_swallowing_a_cancel_is_a_stop_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    """Trap 1: the intent decides, not `cancelled_caught`."""
    log = Log()

    async def life(ctx: Context) -> None:
        ctx.ready()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            log("swallowed", ctx.path)

    async with open_supervisor(Supervisor([scripted("a", life, stop_within=0)]), on_event=log.hook) as s:
        await s.stop("a")
        assert s.find("a").state == "done"
    assert log.kinds() == ["ready", "stopped"]
    assert log.of("swallowed") == ["a"]


async def test_a_start_that_cannot_be_cancelled_is_bounded_for_its_caller(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Trap 3: StartFailed after `ready_within + cleanup_within`, and reported as unstopped. The same holds at an initial start."""
    log = Log()
    release = trio.Event()

    async def life(ctx: Context) -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    async with open_supervisor(Supervisor(), on_event=log.hook) as s:
        with pytest.raises(Exception, match="not to be cancelled"):
            await s.start(scripted("x", life, ready_within=3, cleanup_within=2))
        assert trio.current_time() == 5
        assert log.kinds() == ["unstopped"]
        release.set()
        await settle()
        assert s.counts()["total"] == 0


@pytest.mark.parametrize("way", ["ends", "raises", "cancelled", "escalates", "not started"])
async def test_no_task_is_left(way: str, autojump_clock: trio.testing.MockClock) -> None:
    """22: after the block, ended in any way, there are as many live Trio tasks as before."""
    from supervisors import Limit, SupervisionError
    from tests.supervisors.helpers import SOON

    def tasks() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    before = tasks()
    inner = Child("in", lambda: Pool([child("p", beat_within=5), child("q", backoff=SOON)]))
    last = child("last") if way != "not started" else Child("last", lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    with trio.CancelScope() as scope:
        try:
            async with open_supervisor(Supervisor([child("a"), inner, last], limit=Limit(0))) as s:
                s.find("in/q").put("crash")
                await settle()
                assert tasks() > before + 3
                if way == "raises":
                    raise Boom
                if way == "cancelled":
                    scope.cancel()
                if way == "escalates":
                    s.find("a").put("crash")
                if way != "ends":
                    await trio.sleep_forever()
        except (Boom, SupervisionError):
            assert way in ("raises", "escalates", "not started")
    assert tasks() == before
