"""Start: rules 1 to 5."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from supervisors import (
    AlreadyPresent,
    AlreadyRunning,
    Backoff,
    BadSpec,
    Child,
    Context,
    Limit,
    Mailbox,
    Overflow,
    Pool,
    PoolFull,
    Restart,
    StartFailed,
    Stopping,
    Strategy,
    Supervisor,
    open_supervisor,
)
from tests.supervisors.helpers import TEMPORARY, TRANSIENT, Boom, Log, child, flaky, scripted, settle


def slow(id: str, log: Log, seconds: float, **settings: Any) -> Child:
    async def life(ctx: Context) -> None:
        log("start", ctx.path)
        await trio.sleep(seconds)
        log("ready", ctx.path)
        ctx.ready()
        await ctx.receive()

    return scripted(id, life, **settings)


async def test_children_start_one_at_a_time_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """1: child n+1's `run` is not entered until n is ready."""
    log = Log()
    async with open_supervisor(Supervisor([slow("a", log, 3), slow("b", log, 1), slow("c", log, 2)])):
        assert log.lines == [(what, path) for path in "abc" for what in ("start", "ready")]
        assert trio.current_time() == 6


async def test_a_nested_supervisor_is_ready_when_its_children_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """1: a later child depends on the whole of an earlier one."""
    log = Log()
    inner = Child("in", lambda: Supervisor([slow("a", log, 30), slow("b", log, 1, ready_within=5)]))
    with pytest.raises(StartFailed):
        async with open_supervisor(Supervisor([inner, slow("c", log, 0)])):
            pass
    assert log.of("start") == ["in/a"]  # 30 s are too long for an actor


async def test_an_initial_start_failure_is_not_retried(autojump_clock: trio.testing.MockClock) -> None:
    """2: started children stop in reverse. StartFailed names the child and carries the original error."""
    log = Log()
    with pytest.raises(StartFailed, match="'bad'") as caught:
        async with open_supervisor(Supervisor([child("a", log), child("b", log), flaky("bad", [True])])):
            pytest.fail("the body must not run")
    assert isinstance(caught.value.__cause__, Boom)
    assert caught.value.path == "bad"
    assert log.of("end") == ["b", "a"]


async def test_a_failure_deep_in_the_tree_names_every_step(autojump_clock: trio.testing.MockClock) -> None:
    """2: the root names its own child; the cause names the child below."""
    sub = Child("sub", lambda: Supervisor([flaky("bad", [True])]))
    with pytest.raises(StartFailed) as caught:
        async with open_supervisor(Supervisor([sub])):
            pass
    inner = caught.value.__cause__
    assert caught.value.path == "sub"
    assert isinstance(inner, StartFailed)
    assert inner.path == "sub/bad"
    assert isinstance(inner.__cause__, Boom)


async def test_not_ready_in_time_is_a_start_failure(autojump_clock: trio.testing.MockClock) -> None:
    """3: after `ready_within`, and no orphan is left."""
    log = Log()
    with pytest.raises(StartFailed) as caught:
        async with open_supervisor(Supervisor([slow("a", log, 5, ready_within=4.5)])):
            pass
    assert isinstance(caught.value.__cause__, trio.TooSlowError)
    assert trio.current_time() == 4.5
    assert log.of("ready") == []


async def test_ten_seconds_to_become_ready_by_default(autojump_clock: trio.testing.MockClock) -> None:
    """3: an actor has 10 s."""
    log = Log()
    async with open_supervisor(Supervisor([slow("a", log, 9.9)])):
        pass
    with pytest.raises(StartFailed):
        async with open_supervisor(Supervisor([slow("a", log, 10.1)])):
            pass


async def test_returning_before_ready_is_a_start_failure(autojump_clock: trio.testing.MockClock) -> None:
    """3: a child that ends before `ready` has not started."""

    async def life(ctx: Context) -> None:
        await trio.sleep(1)

    with pytest.raises(StartFailed, match="before it was ready"):
        async with open_supervisor(Supervisor([scripted("a", life, restart=TEMPORARY)])):
            pass


async def test_a_failing_dynamic_start_is_the_callers_alone(autojump_clock: trio.testing.MockClock) -> None:
    """4: the spec is not kept, and the restart budget is untouched."""
    async with open_supervisor(Supervisor(limit=Limit(restarts=0))) as s:
        for _ in range(5):
            with pytest.raises(StartFailed) as caught:
                await s.start(flaky("x", [True]))
            assert isinstance(caught.value.__cause__, Boom)
            assert s.counts()["total"] == 0
        await s.start(flaky("x", []))
        assert s.find("x").state == "running"


@pytest.mark.parametrize(
    "spec",
    [
        lambda: Child("a/b", lambda: None),
        lambda: Child("", lambda: None),
        lambda: Child("a", None),  # type: ignore[arg-type]
        lambda: Child("a", lambda: None, ready_within=-1),
        lambda: Child("a", lambda: None, stop_within=-1),
        lambda: Child("a", lambda: None, cleanup_within=-1),
        lambda: Child("a", lambda: None, beat_within=0),
        lambda: Child("a", lambda: None, restart="permanent"),  # type: ignore[arg-type]
        lambda: Supervisor([child("a"), child("a")]),
        lambda: Supervisor([Child(1, lambda: None), Child("1", lambda: None)]),
        lambda: Supervisor(["a"]),  # type: ignore[list-item]
        lambda: Supervisor(strategy="one_for_one"),  # type: ignore[arg-type]
        lambda: Supervisor(auto_shutdown="sometimes"),  # type: ignore[arg-type]
        lambda: Supervisor([child("a", restart=TRANSIENT, significant=True)]),
        lambda: Pool(strategy=Strategy.ONE_FOR_ALL),
        lambda: Pool(max_children=-1),
        lambda: Pool([child("a"), child("b")], max_children=1),
        lambda: Backoff(first=-1),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(cap=float("inf")),
        lambda: Backoff(jitter=-0.1),
        lambda: Limit(restarts=-1),
        lambda: Limit(within=-1),
        lambda: Limit(give_up_after=0),
        lambda: Mailbox(size=0),
        lambda: Mailbox(overflow=Overflow.CONFLATE),
        lambda: Mailbox(key=str),
        lambda: Mailbox(overflow="block"),  # type: ignore[arg-type]
    ],
)
def test_specs_are_validated_before_anything_starts(spec: Any) -> None:
    """5: a contradiction raises BadSpec where it is written."""
    with pytest.raises(BadSpec):
        spec()


async def test_a_specs_supervisor_and_child_types_are_checked() -> None:
    """5: also by `open_supervisor` and `start`."""
    with pytest.raises(BadSpec):
        async with open_supervisor(child("a")):  # type: ignore[arg-type]
            pass
    async with open_supervisor(Supervisor()) as s:
        with pytest.raises(BadSpec):
            await s.start(Supervisor())  # type: ignore[arg-type]


async def test_make_may_decline(autojump_clock: trio.testing.MockClock) -> None:
    """5: None is no error and no charge. The child stays idle; a temporary one is dropped."""
    spec = Supervisor(
        [Child("a", lambda: None), Child("t", lambda: None, restart=TEMPORARY), child("b")],
        limit=Limit(restarts=0),
    )
    async with open_supervisor(spec) as s:
        assert s.find("a").state == "idle"
        assert s.counts() == {
            "idle": 1, "starting": 0, "running": 1, "backoff": 0, "stopping": 0, "done": 0, "total": 2,
        }  # fmt: skip
        ref = await s.start(Child("c", lambda: None))
        assert ref.state == "idle"
        with pytest.raises(AlreadyPresent):
            await s.start(child("c"))
        await s.start(Child("u", lambda: None, restart=TEMPORARY))
        assert s.counts()["total"] == 3


async def test_a_start_meets_the_shutdown(autojump_clock: trio.testing.MockClock) -> None:
    """5: a start that is pending at the shutdown, or comes later, raises Stopping."""
    caught = []

    async def start_slowly(s: Any) -> None:
        with pytest.raises(Stopping):
            await s.start(slow("x", Log(), 5))
        caught.append(trio.current_time())

    async with trio.open_nursery() as nursery, open_supervisor(Supervisor()) as s:
        nursery.start_soon(start_slowly, s)
        await trio.sleep(2)
    assert caught == [2]
    with pytest.raises(Stopping):
        await s.start(child("y"))


async def test_a_full_pool_says_so(autojump_clock: trio.testing.MockClock) -> None:
    """5: it raises PoolFull; there is room again when a child ends."""
    async with open_supervisor(Pool(max_children=2)) as s:
        a = await s.start(child("a", restart=TEMPORARY))
        await s.start(child("b"))
        with pytest.raises(PoolFull):
            await s.start(child("c"))
        a.put("return")
        await settle()
        await s.start(child("c"))


async def test_duplicates_are_told_apart(autojump_clock: trio.testing.MockClock) -> None:
    """26: AlreadyRunning if the child runs, AlreadyPresent if not, also in backoff."""
    async with open_supervisor(Supervisor([child("a", backoff=Backoff(first=10))])) as s:
        with pytest.raises(AlreadyRunning):
            await s.start(child("a"))
        s.find("a").put("crash")
        await settle()
        assert s.find("a").state == "backoff"
        with pytest.raises(AlreadyPresent):
            await s.start(child("a"))
        await s.stop("a")
        with pytest.raises(AlreadyPresent):
            await s.start(child("a"))


async def test_children_of_a_running_supervisor_do_not_inherit_the_callers_context() -> None:
    """Trap 3: the context variables of the caller do not reach the child."""
    import contextvars

    mark = contextvars.ContextVar("mark", default="tree")
    seen = []

    async def life(ctx: Context) -> None:
        seen.append(mark.get())
        ctx.ready()
        await ctx.receive()

    async with open_supervisor(Supervisor()) as s:
        mark.set("caller")
        await s.start(scripted("a", life))
        await s.restart("a")
    assert seen == ["tree", "tree"]


def test_restart_kinds_are_three() -> None:
    """The contract names exactly these."""
    assert {kind.name for kind in Restart} == {"PERMANENT", "TRANSIENT", "TEMPORARY"}


async def test_nobody_waits_for_a_child_that_is_not_needed(autojump_clock: trio.testing.MockClock) -> None:
    """1, 2: its first start is like a restart. The others start meanwhile, and a failure is retried."""
    log, attempts = Log(), list[int]()

    async def stubborn(ctx: Context) -> None:
        attempts.append(ctx.epoch)
        if ctx.epoch < 3:
            raise Boom
        await trio.sleep(30 if ctx.epoch == 3 else 0)  # too long, once
        ctx.ready()
        await ctx.receive()

    hard = scripted("hard", stubborn, needed=False, backoff=Backoff(first=1.0, jitter=0.0))
    async with open_supervisor(
        Supervisor([hard, slow("later", log, 0)], limit=Limit(restarts=None)), on_event=log.hook
    ) as s:
        assert trio.current_time() == 0
        assert s.counts()["running"] == 1
        await trio.sleep(60)
        assert attempts == [1, 2, 3, 4]
        assert s.counts()["running"] == 2
    assert "unstopped" not in log.kinds()


async def test_a_child_that_is_not_needed_is_retried_when_it_was_added_later_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """4: its caller is told of the failure, and it is not dropped."""
    hard = flaky("hard", [True], needed=False, backoff=Backoff(first=1.0, jitter=0.0))
    async with open_supervisor(Supervisor(limit=Limit(restarts=None))) as s:
        with pytest.raises(StartFailed):
            await s.start(hard)
        assert s.counts()["backoff"] == 1
        await trio.sleep(2)
        assert s.counts()["running"] == 1


async def test_a_group_need_not_wait_for_a_child_either(autojump_clock: trio.testing.MockClock) -> None:
    """2: a child that is not needed fails before the others are up: its group restart follows after it."""
    log = Log()
    hard = flaky("hard", [True], needed=False, backoff=Backoff(first=1.0, jitter=0.0))
    spec = Supervisor([hard, slow("later", log, 3)], strategy=Strategy.ONE_FOR_ALL)
    async with open_supervisor(spec, on_event=log.hook) as s:
        await trio.sleep(60)
        assert s.counts()["running"] == 2
        assert log.of("ready") == ["later", "later"]


async def test_a_start_that_got_no_processor_time_is_not_late(mock_clock: trio.testing.MockClock) -> None:
    """3: the clock runs on while others keep the loop busy. What can go on gets its turns before it is judged."""

    async def many_steps(ctx: Context) -> None:
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            mock_clock.jump(5)  # somebody else took five seconds of each round
        ctx.ready()
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", many_steps)])) as s:
        assert s.counts()["running"] == 1
        assert trio.current_time() >= 250
