"""Failures: rules 36 to 39."""

from __future__ import annotations

import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisors import (
    Backoff,
    Child,
    Context,
    Event,
    Limit,
    Pool,
    Stopping,
    Supervisor,
    TryAgain,
    open_supervisor,
)
from tests.supervisors.helpers import NOW, SOON, TRANSIENT, Boom, Log, child, scripted, settle


@pytest.mark.parametrize(
    "error", [Stopping("not asked"), trio.TooSlowError(), ExceptionGroup("g", [Boom()]), GeneratorExit()]
)
async def test_a_crash_is_what_nobody_asked_for(
    error: BaseException, autojump_clock: trio.testing.MockClock
) -> None:
    """36: of any type, even Stopping."""
    log = Log()
    async with open_supervisor(Supervisor([child("a", restart=TRANSIENT)]), on_event=log.hook) as s:
        s.find("a").put(error)
        await settle()
        assert s.find("a").epoch == 2
        assert log.kinds("a") == ["ready", "dead_letter", "crash", "ready"]


async def test_an_end_that_was_asked_for_is_no_crash(autojump_clock: trio.testing.MockClock) -> None:
    """36: with any error, and nothing is charged."""
    log = Log()

    async def life(ctx: Context) -> None:
        ctx.ready()
        await ctx.stopping.wait()
        raise Boom

    async with open_supervisor(Supervisor([scripted("a", life)], limit=Limit(0)), on_event=log.hook) as s:
        for _ in range(3):
            await s.restart("a")
        assert log.seen("crash") == []
        assert len(log.seen("cleanup_error")) == 3


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["a", "in/b"])
async def test_keyboard_interrupt_and_system_exit_are_never_restarted(
    fatal: type[BaseException], where: str, autojump_clock: trio.testing.MockClock
) -> None:
    """37: from any depth they end the whole tree in order, and are raised bare."""
    log = Log()
    inner = Child("in", lambda: Supervisor([child("b", log)]), backoff=NOW)
    with pytest.raises(fatal):  # noqa: PT012
        async with open_supervisor(Supervisor([child("a", log), inner, child("c", log)])) as s:
            s.find(where).put(fatal())
            await trio.sleep_forever()
    assert log.of("start") == ["a", "in/b", "c"]
    assert log.of("end")[0] == where
    assert len(log.of("end")) == 3


async def test_a_crash_report_tells_all(autojump_clock: trio.testing.MockClock) -> None:
    """38: path, epoch, leaf exceptions with tracebacks, restart count, next delay."""
    log = Log()

    async def life(ctx: Context) -> None:
        ctx.ready()
        await ctx.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, "one")
            nursery.start_soon(fail, "two")

    async def fail(text: str) -> None:
        raise Boom(text)

    async with open_supervisor(Supervisor([scripted("a", life, backoff=SOON)]), on_event=log.hook) as s:
        for _ in range(2):
            s.find("a").put("x")
            await trio.sleep(5)
    first, second = log.seen("crash")
    assert (first.path, first.epoch, first.restarts, first.delay, first.at) == ("a", 1, 1, 1.0, 0)
    assert (second.epoch, second.restarts, second.delay, second.at) == (2, 2, 2.0, 5)
    assert {str(error) for error in first.errors} == {"one", "two"}
    assert all(error.__traceback__ is not None for error in first.errors)


async def test_at_most_100_crash_reports_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """38: in any second. One summary stands for the rest."""
    log = Log()
    spec = Pool([child(i) for i in map(str, range(250))])
    async with open_supervisor(spec, on_event=log.hook) as s:
        await trio.sleep(10.5)
        for i in range(250):
            s.find(str(i)).put("crash")
        await settle()
        assert len(log.seen("crash")) == 100
        await trio.sleep(1.1)
        assert [(e.detail, e.at) for e in log.seen("suppressed")] == [(150, 11.5)]
        s.find("0").put("crash")
        await settle()
        assert len(log.seen("crash")) == 101


async def test_a_summary_is_not_lost_at_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """38: and the block does not wait for it."""
    log = Log()
    async with open_supervisor(Pool([child(i) for i in map(str, range(101))]), on_event=log.hook) as s:
        for i in range(101):
            s.find(str(i)).put("crash")
        await settle()
    assert [event.detail for event in log.seen("suppressed")] == [1]
    assert trio.current_time() == 0


async def test_a_hook_that_fails_harms_nobody(
    capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    """38: one traceback goes to standard error, and the next event calls the hook again."""
    calls = 0

    def hook(event: Event) -> None:
        nonlocal calls
        calls += 1
        raise Boom("the hook itself")

    async with open_supervisor(Supervisor([child("a")]), on_event=hook) as s:
        s.find("a").put("crash")
        await settle()
        assert s.find("a").epoch == 2
    assert calls == 5  # ready, dead_letter, crash, ready, stopped
    assert capsys.readouterr().err.count("Boom: the hook itself") == 1


async def test_a_hung_actor_counts_as_crashed(autojump_clock: trio.testing.MockClock) -> None:
    """39: no `beat` within `beat_within`, counted from ready. An actor idle in `receive` is not hung."""
    log = Log()

    async def life(ctx: Context) -> None:
        await trio.sleep(8)  # not counted: not ready yet
        ctx.ready()
        while True:
            for pause in await ctx.receive():
                await trio.sleep(pause)
                ctx.beat()

    async with open_supervisor(Supervisor([scripted("a", life, beat_within=5)]), on_event=log.hook) as s:
        a = s.find("a")
        await trio.sleep(100)  # idle
        a.put([4.9, 4.9, 4.9])
        await trio.sleep(100)
        a.put([4.9])
        await trio.sleep(100)
        assert a.epoch == 1
        a.put([4.9, 5.1])
        await trio.sleep(20)
        assert a.epoch == 2
        (hung,) = log.seen("hung")
        (crash,) = log.seen("crash")
        assert hung.at == crash.at == 308 + 4.9 + 5
        assert isinstance(crash.errors[0], trio.TooSlowError)
        assert log.seen("unstopped") == []


async def test_a_hung_actor_that_ignores_the_cancel_is_reported(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """39 and 19: unstopped after `cleanup_within`; restarted when it has ended."""
    log = Log()

    async def life(ctx: Context) -> None:
        ctx.ready()
        if ctx.epoch == 1:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)
        await ctx.receive()

    spec = Supervisor([scripted("a", life, beat_within=5, cleanup_within=2)])
    async with open_supervisor(spec, on_event=log.hook) as s:
        await trio.sleep(30)
        assert [(e.kind, e.at) for e in log.events] == [
            ("ready", 0), ("hung", 5), ("unstopped", 7), ("crash", 20), ("ready", 20),
        ]  # fmt: skip
        assert s.find("a").epoch == 2


async def test_a_supervisor_has_no_beat(autojump_clock: trio.testing.MockClock) -> None:
    """39: a `beat_within` for a supervisor is an error."""
    with pytest.raises(Exception, match="has no beat"):
        async with open_supervisor(Supervisor([Child("in", Supervisor, beat_within=5)])):
            pass


async def test_a_blocked_event_loop_is_reported_from_a_thread() -> None:
    """39: with the stack of whoever blocks it, once each time, while it blocks."""
    reports: list[tuple[str, int]] = []
    told, done = threading.Event(), trio.Event()

    def hook(event: Event) -> None:
        # On a busy machine the loop may stand still elsewhere, too. Such a report is right, and not this test's.
        if event.kind == "blocked" and "the_guilty_function" in event.detail:
            reports.append((event.detail, threading.get_ident()))
            told.set()

    def the_guilty_function() -> None:
        told.wait()  # the report must come while this blocks
        told.clear()

    async def life(ctx: Context) -> None:
        ctx.ready()
        for _ in range(2):
            the_guilty_function()
            await wait_all_tasks_blocked()  # the loop turns: the next time is another time
        done.set()
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", life)]), on_event=hook, blocked_after=0.01):
        await done.wait()
    assert len(reports) == 2
    assert threading.get_ident() not in [thread for _, thread in reports]


async def test_without_blocked_after_there_is_no_thread() -> None:
    """39: None switches it off, and so does a missing hook."""

    def watches() -> int:
        return sum("loop watch" in thread.name for thread in threading.enumerate())

    for thread in threading.enumerate():
        if "loop watch" in thread.name:  # of a tree that has just ended
            thread.join()
    before = watches()
    async with open_supervisor(Supervisor(), on_event=lambda _: None, blocked_after=None):
        assert watches() == before
    async with open_supervisor(Supervisor()):
        assert watches() == before
    async with open_supervisor(Supervisor(), on_event=lambda _: None):
        assert watches() == before + 1


async def test_a_mock_clock_does_not_look_blocked(autojump_clock: trio.testing.MockClock) -> None:
    """39: the watch uses the real clock and no timer of the loop, so virtual hours may pass at once."""
    log = Log()
    async with open_supervisor(Supervisor([child("a")]), on_event=log.hook, blocked_after=60):
        for _ in range(10):
            await trio.sleep(3600)
    assert log.kinds() == ["ready", "stopped"]


async def test_an_actor_without_processor_time_is_not_hung(mock_clock: trio.testing.MockClock) -> None:
    """39: the clock runs on while others keep the loop busy. The actor gets its turns before it is judged."""

    async def life(ctx: Context) -> None:
        ctx.ready()
        for _ in range(20):
            mock_clock.jump(6)  # somebody else took six seconds of each round
            await trio.lowlevel.checkpoint()
            ctx.beat()
        await ctx.receive()

    log = Log()
    async with open_supervisor(Supervisor([scripted("a", life, beat_within=5)]), on_event=log.hook):
        await settle()
        assert log.seen("hung") == []


@pytest.mark.parametrize(
    ("wish", "delay"),
    [
        ({}, 1.0),
        ({"at_least": 60.0}, 60.0),
        ({"at_least": 0.5}, 1.0),
        ({"at_most": 0.0}, 0.0),
        ({"at_most": 5.0}, 1.0),
    ],
)
async def test_an_actor_may_know_when_to_try_again(
    wish: dict[str, float], delay: float, autojump_clock: trio.testing.MockClock
) -> None:
    """16: a TryAgain bounds the delay of the restart, on both sides, also inside a group."""

    async def life(ctx: Context) -> None:
        ctx.ready()
        if ctx.epoch == 1:
            raise ExceptionGroup("both", [TryAgain("later", **wish)])
        await ctx.receive()

    log = Log()
    backoff = Backoff(first=1.0, jitter=0.0)
    async with open_supervisor(Supervisor([scripted("a", life, backoff=backoff)]), on_event=log.hook) as s:
        await trio.sleep(delay + 0.5)
        assert log.seen("crash")[0].delay == delay
        assert s.find("a").epoch == 2


def test_a_wait_without_an_end_is_refused() -> None:
    """16: a mistake shows where it is made."""
    for wish in (
        {"at_least": float("inf")},
        {"at_least": -1.0},
        {"at_most": -1.0},
        {"at_most": float("nan")},
    ):
        with pytest.raises(ValueError, match="seconds >= 0"):
            TryAgain("never", **wish)
