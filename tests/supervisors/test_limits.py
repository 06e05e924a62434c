"""Limits and backoff: rules 11 to 17."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from supervisors import (
    Backoff,
    Child,
    Context,
    Event,
    Limit,
    Pool,
    RestartLimitReached,
    StartFailed,
    Strategy,
    Supervisor,
    open_supervisor,
)
from tests.supervisors.helpers import NOW, SOON, TRANSIENT, Boom, Log, child, flaky, scripted, settle


async def test_n_restarts_are_allowed_and_one_more_escalates(autojump_clock: trio.testing.MockClock) -> None:
    """11: all children stop in reverse; the caller sees one failure."""
    log = Log()
    with pytest.raises(RestartLimitReached, match="'b'") as caught:  # noqa: PT012
        async with open_supervisor(Supervisor([child(x, log) for x in "abc"], limit=Limit(2, within=5))) as s:
            for _ in range(3):
                assert log.of("end").count("a") == 0
                s.find("b").put("crash")
                await settle()
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, Boom)
    assert log.of("end") == ["b", "b", "b", "c", "a"]


@pytest.mark.parametrize(("pause", "survives"), [(5.0, False), (5.001, True)])
async def test_a_failure_exactly_within_old_still_counts(
    pause: float, survives: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """11: as in OTP."""
    lived = False
    try:
        async with open_supervisor(Supervisor([child("a")], limit=Limit(1, within=5))) as s:
            s.find("a").put("crash")
            await trio.sleep(pause)
            s.find("a").put("crash")
            await trio.sleep(1)
            lived = True
    except RestartLimitReached:
        lived = False
    assert lived is survives


@pytest.mark.filterwarnings("ignore::trio.TrioDeprecationWarning")
@pytest.mark.parametrize("strict", [True, False])
def test_escalation_leaves_the_block_bare(strict: bool) -> None:
    """12: it cancels the body and is not wrapped in a group of one, in either mode of the run."""
    cancelled = []

    async def main() -> None:
        try:
            async with open_supervisor(Supervisor([child("a")], limit=Limit(0))) as s:
                s.find("a").put("crash")
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    cancelled.append(True)
                    raise
        except RestartLimitReached:
            return
        pytest.fail("escalation must never be silent")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=strict)
    assert cancelled == [True]


async def test_escalation_and_a_failing_body_are_both_told(autojump_clock: trio.testing.MockClock) -> None:
    """12: neither error hides the other."""
    with pytest.RaisesGroup(RestartLimitReached, KeyError):
        async with open_supervisor(Supervisor([child("a")], limit=Limit(0))) as s:
            s.find("a").put("crash")
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("cleanup of the body")


@pytest.mark.filterwarnings("ignore::trio.TrioDeprecationWarning")
@pytest.mark.parametrize("strict", [True, False])
def test_the_bodys_own_error_leaves_bare(strict: bool) -> None:
    """12: a tree that ends well adds nothing to it. The tree is stopped politely first."""
    log = Log()

    async def main() -> None:
        async with open_supervisor(Supervisor([child("a", log)]), on_event=log.hook):
            raise KeyError("body")

    with pytest.raises(KeyError):
        trio.run(main, strict_exception_groups=strict)
    assert "stop_cancelled" not in log.kinds()
    assert log.of("end") == ["a"]


async def test_an_escalation_is_one_failure_of_the_parents_child(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """11: it climbs one step at a time."""
    log = Log()
    inner = Child("in", lambda: Supervisor([child("a", log)], limit=Limit(0)), backoff=NOW)
    async with open_supervisor(Supervisor([inner, child("b", log)], limit=Limit(1)), on_event=log.hook) as s:
        s.find("in/a").put("crash")
        await settle()
        assert s.find("in/a").state == "running"
        assert s.find("in").epoch == 2
        crash = log.seen("crash")[-1]
        assert crash.path == "in"
        assert isinstance(crash.errors[0], RestartLimitReached)
        assert log.of("end") == ["in/a"]


async def test_an_auto_shutdown_of_the_root_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    """12: it ends the block quietly."""
    spec = Supervisor([child("a", restart=TRANSIENT, significant=True)], auto_shutdown="any_significant")
    reached = False
    async with open_supervisor(spec) as s:
        s.find("a").put("return")
        await trio.sleep_forever()
        reached = True
    assert not reached


async def test_a_restarted_supervisor_gets_its_static_children_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """13: but not its dynamic ones."""
    inner = Child("in", lambda: Supervisor([child("a"), child("b")]), backoff=NOW)
    async with open_supervisor(Supervisor([inner])) as s:
        sub = s.supervisor("in")
        dynamic = await sub.start(child("dyn"))
        await sub.stop("b")
        await s.restart("in")
        assert [node.path for node in s.tree().children[0].children] == ["in/a", "in/b"]
        assert sub.counts()["running"] == 2
        assert not dynamic.alive
        assert (await dynamic.watch()).kind == "stopped"


async def test_a_dynamic_child_ends_for_good_with_its_supervisor(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """13 and 29: its watchers are told at once, not only when the supervisor is back."""
    inner = Child("in", lambda: Supervisor([child("a")], limit=Limit(0)), backoff=SOON)
    async with open_supervisor(Supervisor([inner])) as s:
        dynamic = await s.supervisor("in").start(child("dyn"))
        s.find("in/a").put("crash")
        await settle()
        assert s.find("in").state == "backoff"
        assert not dynamic.alive
        assert s.find("in/a").alive


async def test_backoff_does_not_defeat_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    """14: a limit of 3 in 5 s never trips with delays of seconds; `give_up_after` does, and counts failed restarts."""
    fails = [False, True, True, True, True]
    spec = Supervisor(
        [flaky("a", fails, backoff=Backoff(first=4, jitter=0))], limit=Limit(3, give_up_after=5)
    )
    with pytest.raises(RestartLimitReached):  # noqa: PT012
        async with open_supervisor(spec) as s:
            s.find("a").put("crash")
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(4 + 8 + 16 + 30)


async def test_health_forgives_failures_in_a_row(autojump_clock: trio.testing.MockClock) -> None:
    """14 and 16: `give_up_after` counts from one again after `reset_after` healthy seconds."""
    spec = Supervisor(
        [child("a", backoff=Backoff(first=0, reset_after=10))], limit=Limit(None, give_up_after=2)
    )
    async with open_supervisor(spec) as s:
        for _ in range(5):
            s.find("a").put("crash")
            await trio.sleep(10)
        assert s.find("a").state == "running"


async def test_a_source_that_is_down_for_a_day(autojump_clock: trio.testing.MockClock) -> None:
    """14: without limits it is retried at the capped delay for a day; the rest of the tree is not affected."""
    log = Log()
    day = 24 * 3600
    attempts: list[float] = []

    async def connect(ctx: Context) -> None:
        attempts.append(trio.current_time())
        if 1 < trio.current_time() < day:
            raise OSError("down")
        ctx.ready()
        await trio.sleep(1)
        raise OSError("down")

    sources = Child(
        "sources", lambda: Supervisor([scripted("s", connect, backoff=Backoff(jitter=0))], limit=Limit(None))
    )
    async with open_supervisor(Supervisor([child("before", log), sources, child("after", log)])) as s:
        await trio.sleep(day - 1)
        assert s.find("sources/s").state == "backoff"
        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert all(pause == pytest.approx(30) for pause in pauses[20:])
        assert s.supervisor("").counts()["running"] == 3
        assert log.of("start") == ["before", "after"]


async def test_a_pools_limit_holds_per_child(autojump_clock: trio.testing.MockClock) -> None:
    """15: a shared outage does not climb. A child that exceeds its limit is given up alone, reported and dropped."""
    log = Log()
    pool = Child("pool", lambda: Pool([child(i, log) for i in "abcdefgh"], limit=Limit(1)))
    async with open_supervisor(Supervisor([pool], limit=Limit(0)), on_event=log.hook) as s:
        refs = [s.find(f"pool/{i}") for i in "abcdefgh"]
        for ref in refs:
            ref.put("crash")
        await settle()
        assert s.supervisor("pool").counts()["running"] == 8
        refs[0].put("crash")
        exit = await refs[0].watch()
        assert exit.kind == "given_up"
        assert [event.path for event in log.seen("given_up")] == ["pool/a"]
        assert s.supervisor("pool").counts() == {
            "idle": 0, "starting": 0, "running": 7, "backoff": 0, "stopping": 0, "done": 0, "total": 7,
        }  # fmt: skip


async def test_a_pool_gives_up_on_failures_in_a_row_alone(autojump_clock: trio.testing.MockClock) -> None:
    """15: also by `give_up_after`."""
    pool = Pool([flaky("a", [False, True, True]), child("b")], limit=Limit(None, give_up_after=3))
    async with open_supervisor(pool) as s:
        s.find("a").put("crash")
        await settle()
        assert s.counts()["total"] == 1


async def test_a_static_supervisor_counts_every_crash(autojump_clock: trio.testing.MockClock) -> None:
    """15: the budget is shared by all its children."""
    with pytest.raises(RestartLimitReached):  # noqa: PT012
        async with open_supervisor(Supervisor([child(x) for x in "abc"], limit=Limit(2))) as s:
            for x in "abc":
                s.find(x).put("crash")
            await trio.sleep_forever()


backoffs = st.builds(
    Backoff,
    first=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    cap=st.floats(0, 1e6),
    jitter=st.floats(0, 10),
)


@given(backoffs, st.integers(1, 10**6), st.integers())
def test_the_delay_is_the_formula(backoff: Backoff, failures: int, seed: int) -> None:
    """16: `min(cap, first * factor**(n-1)) * (1 + U[0, jitter])`, from a seed, without overflow at any n."""
    delay = backoff.delay(failures, random.Random(seed))
    assert delay == backoff.delay(failures, random.Random(seed))
    exponent = (
        (failures - 1) * math.log(backoff.factor) + math.log(backoff.first) if backoff.first else -math.inf
    )
    base = min(backoff.cap, math.exp(exponent)) if exponent < 600 else backoff.cap
    assert base * 0.999999 <= delay <= base * (1 + backoff.jitter) * 1.000001


@given(st.integers(1, 200))
def test_without_jitter_the_delay_only_grows(n: int) -> None:
    """16: up to the cap."""
    backoff = Backoff(jitter=0)
    rng = random.Random(0)
    assert backoff.delay(n, rng) <= backoff.delay(n + 1, rng) <= backoff.cap
    assert backoff.delay(1, rng) == backoff.first


async def test_the_delays_follow_the_failures_in_a_row(autojump_clock: trio.testing.MockClock) -> None:
    """16: they double, and start again after `reset_after` healthy seconds, measured from ready."""
    delays: list[float | None] = []

    def hook(event: Event) -> None:
        if event.kind == "crash":
            delays.append(event.delay)

    async def slow(ctx: Context) -> None:
        await trio.sleep(5)  # not healthy yet
        ctx.ready()
        await ctx.receive()
        raise Boom

    backoff = Backoff(first=1, jitter=0, reset_after=10)
    spec = Supervisor([scripted("a", slow, backoff=backoff)], limit=Limit(None))
    async with open_supervisor(spec, on_event=hook) as s:
        for healthy in (0, 0, 9.9, 10, 0):
            while s.find("a").state != "running":  # noqa: ASYNC110
                await trio.sleep(0.05)
            await trio.sleep(healthy)
            s.find("a").put("x")
            await settle()
    assert delays == [1, 2, 4, 1, 2]


async def test_jitter_comes_from_the_given_dice(autojump_clock: trio.testing.MockClock) -> None:
    """16: seedable, so that a run can be repeated."""

    async def delays(seed: int) -> list[float | None]:
        log = Log()
        spec = Supervisor([child("a", backoff=Backoff())], limit=Limit(None))
        async with open_supervisor(spec, rng=random.Random(seed), on_event=log.hook) as s:
            for _ in range(5):
                s.find("a").put("crash")
                await trio.sleep(20)
        return [event.delay for event in log.seen("crash")]

    assert await delays(1) == await delays(1) != await delays(2)


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_every_call_is_answered_while_a_child_backs_off(
    strategy: Strategy, autojump_clock: trio.testing.MockClock
) -> None:
    """17: start, stop, restart, tree, counts, find at the same instant."""
    spec = Supervisor([child("a"), child("z", backoff=Backoff(first=20, jitter=0))], strategy=strategy)
    async with open_supervisor(spec) as s:
        s.find("z").put("crash")
        await settle()
        await s.start(child("b"))
        await s.stop("b")
        await s.restart("b")
        s.tree()
        assert s.counts()["total"] == 3
        assert s.find("z").state == "backoff"
        assert trio.current_time() == 0


async def test_every_call_is_answered_while_a_child_fails_to_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """17: also while its start hangs."""

    async def hang(ctx: Context) -> None:
        await trio.sleep_forever()

    async with open_supervisor(Supervisor([child("a")])) as s, trio.open_nursery() as nursery:

        async def doomed() -> None:
            with pytest.raises(StartFailed):
                await s.start(scripted("h", hang))

        nursery.start_soon(doomed)
        await settle()
        assert s.find("h").state == "starting"
        await s.restart("a")
        await s.start(child("b"))
        await s.stop("b")
        assert trio.current_time() == 0


async def test_a_restart_by_hand_cuts_a_backoff_short(autojump_clock: trio.testing.MockClock) -> None:
    """26: for one child and for a group; it charges nothing."""
    for strategy in Strategy:
        spec = Supervisor(
            [child("a", backoff=SOON), child("b", backoff=SOON)], strategy=strategy, limit=Limit(1)
        )
        async with open_supervisor(spec) as s:
            before = trio.current_time()
            s.find("a").put("crash")
            await settle()
            for _ in range(3):
                await s.restart("a")
            await settle()
            assert s.counts()["running"] == 2
            assert trio.current_time() == before
