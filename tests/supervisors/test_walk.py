"""Random walks of start, stop, restart, crash and message through a tree, under MockClock and random task order.

The first walk is compared with a model after every step. In the second the steps overlap, and the invariants are checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from supervisors import (
    Backoff,
    Child,
    Context,
    Limit,
    Mailbox,
    Node,
    Overflow,
    Pool,
    Restart,
    RestartLimitReached,
    Strategy,
    SupervisionError,
    Supervisor,
    open_supervisor,
)
from tests.supervisors.helpers import Boom, settle

IDS = "abcde"
WALK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def scheduled_by(seed: int) -> Iterator[None]:
    """Seed the random generator with which Trio orders the tasks of a step."""
    dice = trio._core._run._r
    before = dice.getstate()
    dice.seed(seed)
    try:
        yield
    finally:
        dice.setstate(before)


@define
class Alive:
    """The living incarnations. It notes when two of one child overlap."""

    now: dict[str, int] = field(factory=dict)
    started: list[str] = field(factory=list)
    ended: list[str] = field(factory=list)
    overlaps: list[str] = field(factory=list)

    def begin(self, path: str, epoch: int) -> None:
        self.started.append(path)
        if path in self.now:
            self.overlaps.append(path)
        self.now[path] = epoch

    def end(self, path: str) -> None:
        self.ended.append(path)
        self.now.pop(path, None)


class Walker:
    """An actor that obeys messages, and needs some time to start and to stop."""

    def __init__(self, alive: Alive, starts_in: float = 0, stops_in: float = 0) -> None:
        self.alive, self.starts_in, self.stops_in = alive, starts_in, stops_in

    async def run(self, ctx: Context) -> None:
        self.alive.begin(ctx.path, ctx.epoch)
        try:
            if self.starts_in:
                await trio.sleep(self.starts_in)
            ctx.ready()
            await self.work(ctx)
        finally:
            with trio.CancelScope(shield=True):
                if self.stops_in:
                    await trio.sleep(self.stops_in)
            self.alive.end(ctx.path)

    async def work(self, ctx: Context) -> None:
        while True:
            message = await ctx.receive()
            if message == "crash":
                raise Boom
            if message == "return":
                return


def check(node: Node) -> None:
    """Check the counters of every mailbox in the tree (rule 31)."""
    if box := node.mailbox:
        assert box.accepted == box.handled + box.queued + sum(box.dropped.values()) + box.lost_in_flight
    for child in node.children:
        check(child)


def recount(node: Node) -> dict[str, int]:
    states = ["idle", "starting", "running", "backoff", "stopping", "done"]
    tally = {state: sum(child.state == state for child in node.children) for state in states}
    return {**tally, "total": len(node.children)}


@define
class Kid:
    restart: Restart
    epoch: int = 1
    running: bool = True


@define
class Model:
    """The behaviour of OTP, if restarts took no time."""

    strategy: Strategy
    limit: Limit
    kids: dict[str, Kid]
    charged: list[float] = field(factory=list)
    escalated: bool = False
    stopped: list[str] = field(factory=list)  # by the step, in order
    started: list[str] = field(factory=list)

    def end(self, id: str, abnormal: bool, now: float) -> None:
        kid = self.kids[id]
        self.stopped.append(id)
        if kid.restart is Restart.TEMPORARY or (kid.restart is Restart.TRANSIENT and not abnormal):
            self.stop(id)
            return
        self.charged.append(now)
        if self.limit.restarts is not None:
            recent = [at for at in self.charged if now - at <= self.limit.within]
            self.escalated = len(recent) > self.limit.restarts
        if not self.escalated:
            self.restart_group(id)

    def restart_group(self, id: str) -> None:
        order = list(self.kids)
        first = {Strategy.ONE_FOR_ALL: 0}.get(self.strategy, order.index(id))
        last = first + 1 if self.strategy is Strategy.ONE_FOR_ONE else len(order)
        concerned = [other for other in order[first:last] if self.kids[other].running]
        self.stopped += [other for other in reversed(concerned) if other != id]
        for other in concerned:
            if self.kids[other].restart is Restart.TEMPORARY:
                del self.kids[other]
            else:
                self.begin(other)

    def begin(self, id: str) -> None:
        self.started.append(id)
        self.kids[id].epoch += 1
        self.kids[id].running = True

    def stop(self, id: str) -> None:
        if self.kids[id].restart is Restart.TEMPORARY:
            del self.kids[id]
        else:
            self.kids[id].running = False


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["crash", "return", "stop", "restart", "start"]), st.sampled_from(IDS)),
        st.tuples(st.just("wait"), st.floats(0, 4)),
    ),
    max_size=25,
)
limits = st.builds(Limit, restarts=st.none() | st.integers(1, 4), within=st.just(5.0))
kinds = st.lists(st.sampled_from(Restart), min_size=5, max_size=5)


@WALK
@given(st.sampled_from(Strategy), kinds, limits, steps, st.integers(0, 1000))
def test_every_step_is_that_of_the_model(
    strategy: Strategy, restarts: list[Restart], limit: Limit, steps: list[Any], seed: int
) -> None:
    """6, 7, 8, 10, 11, 26, 27, 31: the running incarnations, and the order in which they started and stopped."""
    kinds = dict(zip(IDS, restarts, strict=True))
    alive = Alive()
    model = Model(strategy, limit, {id: Kid(kinds[id]) for id in IDS[:3]})

    def spec(id: str) -> Child:
        return Child(id, lambda: Walker(alive), restart=kinds[id], backoff=Backoff(first=0))

    async def obey(s: Any, what: str, id: str) -> None:
        alive.started.clear()
        alive.ended.clear()
        model.started.clear()
        model.stopped.clear()
        known = model.kids.get(id)
        if what == "start" and known is None:
            await s.start(spec(id))
            model.kids[id] = Kid(kinds[id])
            model.started.append(id)
        elif known is None or what == "start":
            with pytest.raises(SupervisionError):
                await (
                    s.start(spec(id))
                    if what == "start"
                    else getattr(s, what if what == "stop" else "restart")(id)
                )
        elif what == "stop":
            model.stopped += [id] * known.running
            model.stop(id)
            await s.stop(id)
        elif what == "restart":
            model.stopped += [id] * known.running
            model.begin(id)
            await s.restart(id)
        elif known.running:
            model.end(id, what == "crash", trio.current_time())
            s.find(id).put(what)

    async def walk() -> None:
        with scheduled_by(seed):
            async with open_supervisor(Supervisor([spec(id) for id in IDS[:3]], strategy, limit)) as s:
                for what, arg in steps:
                    if what == "wait":
                        await trio.sleep(arg)
                        continue
                    await obey(s, what, arg)
                    await settle()
                    if model.escalated:
                        await trio.sleep_forever()
                    compare(s)

    def compare(s: Any) -> None:
        tree = s.tree()
        check(tree)
        assert s.counts() == recount(tree)
        seen = {node.path: (node.epoch, node.state) for node in tree.children}
        assert seen == {
            id: (kid.epoch, "running" if kid.running else "done") for id, kid in model.kids.items()
        }
        assert [node.path for node in tree.children] == list(model.kids)
        assert alive.now == {id: kid.epoch for id, kid in model.kids.items() if kid.running}
        assert (alive.started, alive.ended) == (model.started, model.stopped)

    try:
        trio.run(walk, clock=MockClock(autojump_threshold=0))
    except RestartLimitReached:
        assert model.escalated
    else:
        assert not model.escalated
    assert alive.now == {}
    assert alive.overlaps == []


wild = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["crash", "return", "mail", "stop", "restart", "start", "remove"]),
            st.sampled_from(IDS),
        ),
        st.tuples(st.just("wait"), st.floats(0, 4)),
    ),
    min_size=5,
    max_size=40,
)
tempers = st.lists(
    st.tuples(st.sampled_from([0, 0.5, 3]), st.sampled_from([0, 0.5, 3])), min_size=5, max_size=5
)


@WALK
@given(st.sampled_from([*Strategy, Pool]), kinds, tempers, wild, st.integers(0, 1000))
def test_what_holds_always(
    shape: Any, restarts: list[Restart], tempers: list[tuple[float, float]], steps: list[Any], seed: int
) -> None:
    """10, 27, 31 at every moment, with overlapping steps. After a quiet time every child is running or done."""
    kinds = dict(zip(IDS, zip(restarts, tempers, strict=True), strict=True))
    alive = Alive()
    calm = Limit(restarts=None)

    def spec(id: str) -> Child:
        restart, (starts_in, stops_in) = kinds[id]
        box = Mailbox(2, random.Random(id).choice([Overflow.BLOCK, Overflow.DROP_OLDEST]))
        make = lambda: Walker(alive, starts_in, stops_in)  # noqa: E731
        return Child(id, make, restart, Backoff(first=1, jitter=0), box, cleanup_within=10)

    async def command(s: Any, what: str, id: str) -> None:
        try:
            if what == "start":
                await s.start(spec(id))
            elif what in ("stop", "restart"):
                await getattr(s, what)(id)
            elif what == "remove":
                s.remove(id)
            else:
                s.find(id).put(what)
        except SupervisionError:
            return  # refused, or overtaken by another command: both are allowed

    async def walk() -> None:
        children = [spec(id) for id in IDS[:3]]
        top = Pool(children, limit=calm) if shape is Pool else Supervisor(children, shape, calm)
        inner = Child("in", lambda: top)
        with scheduled_by(seed):
            async with open_supervisor(Supervisor([inner])) as s, trio.open_nursery() as nursery:
                sub = s.supervisor("in")
                for what, arg in steps:
                    if what == "wait":
                        await trio.sleep(arg)
                    else:
                        nursery.start_soon(command, sub, what, arg)
                        await trio.lowlevel.checkpoint()
                    look(s)
                await trio.sleep(1000)
                look(s)
                for node in sub.tree().children:
                    assert node.state in ("running", "done")
                    assert (node.path in alive.now) is (node.state == "running")

    def look(s: Any) -> None:
        check(s.tree())
        sub = s.supervisor("in")
        assert sub.counts() == recount(sub.tree())
        assert alive.overlaps == []

    async def bounded() -> None:
        with trio.fail_after(1e6):  # no call may wait for ever
            await walk()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))
    assert alive.now == {}
