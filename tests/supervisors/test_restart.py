"""Restart: rules 6 to 10."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel

from supervisors import ActorGone, Child, Context, Limit, Pool, Restart, Strategy, Supervisor, open_supervisor
from tests.supervisors.helpers import (
    PERMANENT,
    SOON,
    TEMPORARY,
    TRANSIENT,
    Boom,
    Log,
    Worker,
    child,
    flaky,
    scripted,
    settle,
)

ALL, REST, ONE = Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE, Strategy.ONE_FOR_ONE


@pytest.mark.parametrize(
    ("restart", "message", "comes_back"),
    [
        (PERMANENT, "crash", True),
        (PERMANENT, "return", True),
        (TRANSIENT, "crash", True),
        (TRANSIENT, "return", False),
        (TEMPORARY, "crash", False),
        (TEMPORARY, "return", False),
    ],
)
async def test_who_comes_back(
    restart: Restart, message: str, comes_back: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """6: permanent always, transient only after an abnormal exit, temporary never."""
    log = Log()
    async with open_supervisor(Supervisor([child("a", log, restart=restart)])) as s:
        s.find("a").put(message)
        await settle()
        assert len(log.of("start")) == 1 + comes_back


async def test_a_temporary_bystander_does_not_come_back(autojump_clock: trio.testing.MockClock) -> None:
    """6: a temporary child never, not even as a bystander; a transient one does, unless it had ended by itself."""
    log = Log()
    spec = Supervisor(
        [
            child("a", log),
            child("t", log, restart=TEMPORARY),
            child("n", log, restart=TRANSIENT),
            child("e", log, restart=TRANSIENT),
        ],
        strategy=ALL,
    )
    async with open_supervisor(spec) as s:
        s.find("e").put("return")
        await settle()
        log.clear()
        s.find("a").put("crash")
        await settle()
        assert log.of("start") == ["a", "n"]
        assert [node.path for node in s.tree().children] == ["a", "n", "e"]
        assert s.find("e").state == "done"


@pytest.mark.parametrize(
    ("strategy", "stopped", "started"),
    [(ONE, [], "b"), (REST, ["d", "c"], "bcd"), (ALL, ["d", "c", "a"], "abcd")],
)
async def test_whom_a_crash_concerns(
    strategy: Strategy, stopped: list[str], started: str, autojump_clock: trio.testing.MockClock
) -> None:
    """7: the crashed child; it and its later siblings; or all. They stop in reverse and restart in order."""
    log = Log()
    async with open_supervisor(Supervisor([child(x, log) for x in "abcd"], strategy=strategy)) as s:
        log.clear()
        s.find("b").put("crash")
        await settle()
        assert log.of("end") == ["b", *stopped]
        assert log.of("start") == list(started)


async def test_a_group_is_delayed_once_by_the_crashed_childs_backoff(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """7: not by the backoff of the bystanders, and not once for each."""
    log = Log()
    spec = Supervisor(
        [child("a", log, backoff=SOON), child("b", log), child("c", log, backoff=SOON)], strategy=ALL
    )
    async with open_supervisor(spec) as s:
        s.find("a").put("crash")
        await trio.sleep(0.99)
        assert s.counts()["backoff"] == 3
        await trio.sleep(0.02)
        assert s.counts()["running"] == 3
        s.find("b").put("crash")
        await settle()
        await trio.lowlevel.checkpoint()
        assert s.counts()["running"] == 3


async def test_a_group_restart_costs_one_unit(autojump_clock: trio.testing.MockClock) -> None:
    """8: for any number of members."""
    spec = Supervisor([child(x) for x in "abcde"], strategy=ALL, limit=Limit(restarts=2, within=100))
    async with open_supervisor(spec) as s:
        for _ in range(2):
            s.find("a").put("crash")
            await trio.sleep(1)
        assert s.counts()["running"] == 5


async def test_each_failed_restart_costs_one_more(autojump_clock: trio.testing.MockClock) -> None:
    """8: a crash and two failed attempts cost three units; one more is too many."""
    for attempts, survives in ((2, True), (3, False)):
        fails = [False, *[True] * attempts]
        spec = Supervisor([flaky("a", fails, backoff=SOON)], limit=Limit(restarts=3, within=1000))
        ended = True
        try:
            async with open_supervisor(spec) as s:
                s.find("a").put("crash")
                await trio.sleep(100)
                ended = False
        except Exception:
            assert not survives
        assert ended is not survives


@pytest.mark.parametrize(("strategy", "again"), [(ALL, ["a", "b", "c"]), (REST, ["b", "c"])])
async def test_a_sibling_that_fails_in_a_group_restart(
    strategy: Strategy, again: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    """9: one_for_all retries the whole group, rest_for_one from the failed child on."""
    log = Log()
    spec = Supervisor([child("a", log), flaky("b", [False, True], log), child("c", log)], strategy=strategy)
    async with open_supervisor(spec) as s:
        log.clear()
        s.find("a").put("crash")
        await settle()
        assert log.of("start") == ["a", *again]
        assert s.counts()["running"] == 3


async def test_two_incarnations_never_overlap(autojump_clock: trio.testing.MockClock) -> None:
    """10: not even when the old one ends slowly, after a crash or a restart by hand."""
    alive = 0
    most = 0

    async def life(ctx: Context) -> None:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        ctx.ready()
        try:
            await ctx.receive()
            raise Boom
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            alive -= 1

    async with open_supervisor(Supervisor([scripted("a", life, cleanup_within=10)])) as s:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.restart, "a")
            s.find("a").put("x")
            await trio.sleep(1)
            nursery.start_soon(s.restart, "a")
        await trio.sleep(5)
        assert s.find("a").epoch > 1
    assert most == 1


async def test_one_that_cannot_be_stopped_holds_up_its_own_restart_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """10 and 9: for its group that is a failed restart; the group goes on when the old incarnation has ended."""
    log = Log()
    release = trio.Event()

    async def stubborn(ctx: Context) -> None:
        log("start", ctx.path)
        ctx.ready()
        with trio.CancelScope(shield=ctx.epoch == 1):
            await release.wait()
        await ctx.receive()

    spec = Supervisor(
        [child("a", log), scripted("s", stubborn, stop_within=1, backoff=SOON), child("z", log)],
        strategy=ALL,
        limit=Limit(restarts=None),
    )
    async with open_supervisor(spec, on_event=log.hook) as s:
        log.clear()
        s.find("a").put("crash")
        await trio.sleep(30)
        assert log.seen("unstopped")[0].path == "s"
        assert s.find("s").epoch == 1
        assert s.find("z").state != "running"
        release.set()
        await trio.sleep(30)
        assert s.counts()["running"] == 3
        assert s.find("s").epoch == 2


async def test_a_crash_during_the_initial_start_waits_for_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """7 and 1: a group restart waits until the supervisor is up."""
    log = Log()

    async def late(ctx: Context) -> None:
        log("start", ctx.path)
        await trio.sleep(2)
        ctx.ready()
        await ctx.receive()

    async def early(ctx: Context) -> None:
        log("start", ctx.path)
        ctx.ready()
        if ctx.epoch == 1:
            await trio.sleep(1)
            raise Boom
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", early), scripted("b", late)], strategy=ALL)) as s:
        assert trio.current_time() == 2
        await trio.sleep(3)
        assert log.of("start") == ["a", "b", "a", "b"]
        assert s.counts()["running"] == 2


async def test_a_crash_during_a_group_restart_starts_the_group_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """7: the newer failure takes over; no member is forgotten."""
    log = Log()
    spec = Supervisor([child(x, log, backoff=SOON) for x in "abc"], strategy=REST, limit=Limit(restarts=None))
    async with open_supervisor(spec) as s:
        s.find("b").put("crash")
        await trio.sleep(0.5)
        s.find("a").put("crash")
        await trio.sleep(0.75)
        assert s.counts()["backoff"] == 3
        await trio.sleep(0.5)
        assert s.counts()["running"] == 3
        assert log.of("start") == ["a", "b", "c"] * 2


async def test_children_of_a_pool_restart_alone(autojump_clock: trio.testing.MockClock) -> None:
    """7: a Pool is one_for_one."""
    log = Log()
    async with open_supervisor(Pool([child(x, log) for x in "abc"])) as s:
        s.find("b").put("crash")
        await settle()
        assert log.of("start") == ["a", "b", "c", "b"]
        assert s.counts()["running"] == 3


async def test_every_incarnation_gets_a_fresh_actor(autojump_clock: trio.testing.MockClock) -> None:
    """Each incarnation calls `make`, so no state survives in the actor."""
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker())
        return made[-1]

    async with open_supervisor(Supervisor([Child("a", make, backoff=SOON)])) as s:
        s.find("a").put("crash")
        await trio.sleep(2)
    assert len({id(worker) for worker in made}) == 2


async def test_a_wish_overtakes_an_older_one(autojump_clock: trio.testing.MockClock) -> None:
    """Trap 13: stop against restart, in both orders, also for a temporary child."""
    results: list[Any] = []

    async def slow_end(ctx: Context) -> None:
        ctx.ready()
        await ctx.stopping.wait()
        await trio.sleep(2)

    async def wish(name: str, act: Any, *args: Any) -> None:
        try:
            results.append((name, await act(*args)))
        except Exception as error:
            results.append((name, type(error).__name__))

    async with open_supervisor(
        Supervisor([scripted("a", slow_end), scripted("t", slow_end, restart=TEMPORARY)])
    ) as s:
        ref = s.find("a")
        for id in ("a", "t"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wish, "restart", s.restart, id)
                await trio.sleep(1)
                nursery.start_soon(wish, "stop", s.stop, id)
        assert sorted(results, key=str) == [("restart", "ActorGone")] * 2 + [("stop", None)] * 2
        assert s.counts()["total"] == 1
        assert ref.state == "done"
        await s.restart("a")
        results.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wish, "stop", s.stop, "a")
            await trio.sleep(1)
            nursery.start_soon(wish, "restart", s.restart, "a")
        assert sorted(results, key=str) == [("restart", ref), ("stop", None)]
        assert ref.state == "running"


async def test_a_temporary_child_that_a_group_takes_down_while_it_starts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """6 and 17: its caller is told at once and does not wait for ever (a random walk found this)."""

    async def starting(ctx: Context) -> None:
        await trio.sleep(5)

    async with open_supervisor(Supervisor([child("a")], strategy=ALL)) as s, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(ActorGone):
                await s.start(scripted("t", starting, restart=TEMPORARY))

        nursery.start_soon(start)
        await settle()
        s.find("a").put("crash")
        await settle()
        assert [node.path for node in s.tree().children] == ["a"]
        assert trio.current_time() == 0
