"""Helpers that run beside an actor, and the garbage that a child leaves: none."""

from __future__ import annotations

import gc
from collections import Counter

import trio

from supervisors import Context, Limit, Pool, Supervisor, open_supervisor
from tests.supervisors.helpers import TEMPORARY, Boom, Log, child, scripted, settle
from tests.support.garbage import collect_all


async def test_a_helper_works_beside_its_actor() -> None:
    """It begins after the call; the actor goes on meanwhile."""
    log = Log()

    async def help_() -> None:
        log("helped", "a")

    async def life(ctx: Context) -> None:
        ctx.ready()
        ctx.start_helper(help_)
        log("went on", "a")
        await ctx.stopping.wait()

    async with open_supervisor(Supervisor([scripted("a", life)])):
        await settle()
        assert [what for what, _ in log.lines] == ["went on", "helped"]


async def test_a_helper_that_fails_is_a_crash_of_its_actor(autojump_clock: trio.testing.MockClock) -> None:
    """The actor ends with the error of the helper and is restarted. Its sibling is not affected."""
    log = Log()

    async def help_() -> None:
        raise Boom

    async def life(ctx: Context) -> None:
        ctx.ready()
        if ctx.epoch == 1:
            ctx.start_helper(help_)
        await ctx.stopping.wait()

    async with open_supervisor(Supervisor([scripted("a", life), child("b")]), on_event=log.hook) as s:
        await settle()
        assert s.find("a").epoch == 2
        assert [type(error) for event in log.seen("crash") for error in event.errors] == [Boom]
        assert s.find("b").epoch == 1


async def test_a_helper_does_not_outlive_its_actor(autojump_clock: trio.testing.MockClock) -> None:
    """It is cancelled when the actor has ended, in any way. A helper that has not begun yet never begins."""
    log = Log()

    async def help_() -> None:
        log("helps", "a")
        try:
            await trio.sleep_forever()
        finally:
            log("ended", "a")

    async def life(ctx: Context) -> None:
        ctx.ready()
        ctx.start_helper(help_)
        await settle()
        ctx.start_helper(help_)
        raise Boom

    async with open_supervisor(Pool(), on_event=log.hook) as s:
        ref = await s.start(scripted("a", life, restart=TEMPORARY))
        await ref.watch()
        await settle()
        assert [what for what, _ in log.lines] == ["helps", "ended"]


async def test_children_that_came_and_went_are_no_garbage(autojump_clock: trio.testing.MockClock) -> None:
    """Returned, stopped, with or without mail: nothing of ours is left for the garbage collector."""
    async with open_supervisor(Pool(limit=Limit(None))) as s:

        async def come_and_go(name: str) -> None:
            ref = await s.start(child(name, restart=TEMPORARY))
            ref.put(name)
            if name == "returns":
                ref.put("return")
            await settle()
            if ref.alive:
                await s.stop(name)
            await ref.watch()

        for name in ("returns", "stopped"):
            await come_and_go(name)
        collect_all()
        gc.disable()
        try:
            for name in ("returns", "stopped") * 10:
                await come_and_go(name)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = Counter(type(each).__module__ for each in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert [kind for kind in kinds if kind.startswith("supervisors")] == []
