"""Administration: rules 25 to 29, and the handle."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from supervisors import (
    ActorGone,
    AlreadyRunning,
    Backoff,
    BadSpec,
    Child,
    Context,
    Exit,
    Limit,
    Mailbox,
    Pool,
    PoolFull,
    StartFailed,
    Stopping,
    Strategy,
    Supervisor,
    UnknownChild,
    open_supervisor,
)
from tests.supervisors.helpers import NOW, SOON, TEMPORARY, TRANSIENT, Log, child, flaky, scripted, settle

STATES = ["idle", "starting", "running", "backoff", "stopping", "done"]


def only(state: str) -> dict[str, int]:
    return {**dict.fromkeys(STATES, 0), state: 1, "total": 1}


async def test_the_six_states(autojump_clock: trio.testing.MockClock) -> None:
    """25 and 27: in `tree()`, in `counts()` and on the Ref."""

    async def life(ctx: Context) -> None:
        await trio.sleep(1)
        ctx.ready("value")
        await trio.sleep(1)
        if ctx.epoch == 1:
            raise RuntimeError("first life")
        await ctx.stopping.wait()
        await trio.sleep(1)

    seen: list[tuple[str, float]] = []

    def look(s: Any) -> None:
        node = s.tree().children[0]
        assert s.counts() == only(node.state)
        assert s.find("a").state == node.state
        seen.append((node.state, node.since))

    async with open_supervisor(Supervisor()) as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.start, scripted("a", life, backoff=SOON))
        for _ in range(5):
            await trio.sleep(0.5)
            look(s)
            await trio.sleep(0.5)
        nursery.start_soon(s.stop, "a")
        await settle()
        look(s)
        await trio.sleep(2)
        look(s)
        nursery.cancel_scope.cancel()
    assert seen == [
        ("starting", 0), ("running", 1), ("backoff", 2), ("starting", 3), ("running", 4), ("stopping", 5), ("done", 6),
    ]  # fmt: skip


async def test_idle_is_a_child_whose_turn_has_not_come(autojump_clock: trio.testing.MockClock) -> None:
    """25: an actor that starts early sees the later ones idle and can send them messages."""
    states = []
    log = Log()

    async def first(ctx: Context) -> None:
        later = ctx.find("b")
        states.append((later.state, later.epoch, later.put("return")))
        ctx.ready()
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", first), child("b", log, restart=TRANSIENT)])):
        await settle()
    assert [(state, epoch, put.name) for state, epoch, put in states] == [("idle", 0, "OK")]
    assert log.lines == [("start", "b"), ("end", "b")]


async def test_remove_only_what_does_not_run(autojump_clock: trio.testing.MockClock) -> None:
    """26: it is an error while the child runs or backs off. Afterwards the id is free."""
    async with open_supervisor(Supervisor([child("a", backoff=SOON)])) as s:
        with pytest.raises(AlreadyRunning):
            s.remove("a")
        s.find("a").put("crash")
        await settle()
        with pytest.raises(AlreadyRunning):
            s.remove("a")
        await s.stop("a")
        s.remove("a")
        with pytest.raises(UnknownChild):
            s.find("a")
        await s.start(child("a"))


async def test_stop_is_idempotent_and_keeps_the_spec(autojump_clock: trio.testing.MockClock) -> None:
    """26: from running, stopping, backoff or done, the state becomes done and nothing restarts."""
    async with open_supervisor(Supervisor([child("a", backoff=SOON)])) as s:
        a = s.find("a")
        a.put("crash")
        await settle()
        assert a.state == "backoff"
        await s.stop("a")
        await s.stop("a")
        await trio.sleep(10)
        assert (a.state, a.epoch) == ("done", 1)
        await s.restart("a")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(s.stop, "a")
        assert (a.state, a.epoch) == ("done", 2)


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_stop_takes_a_child_out_of_a_group_restart(
    strategy: Strategy, autojump_clock: trio.testing.MockClock
) -> None:
    """26: the others come back without it."""
    async with open_supervisor(Supervisor([child(x, backoff=SOON) for x in "abc"], strategy=strategy)) as s:
        s.find("a").put("crash")
        await settle()
        await s.stop("b")
        await s.stop("a")
        await trio.sleep(5)
        assert [s.find(x).state for x in "abc"] == ["done", "done", "running"]


async def test_temporary_and_pool_children_leave_no_spec(autojump_clock: trio.testing.MockClock) -> None:
    """26: after every kind of end."""
    async with open_supervisor(Supervisor([Child("pool", Pool)])) as s:
        pool = s.supervisor("pool")
        for message in ("return", "crash", None):
            temporary = await s.start(child("t", restart=TEMPORARY))
            pooled = await pool.start(child("p", restart=TRANSIENT if message == "return" else TEMPORARY))
            if message is None:
                await s.stop("t")
                await pool.stop("p")
            else:
                temporary.put(message)
                pooled.put(message)
            await settle()
            assert s.counts()["total"] == 1
            assert pool.counts()["total"] == 0
            with pytest.raises(UnknownChild):
                await s.stop("t")


async def test_restart_by_hand(autojump_clock: trio.testing.MockClock) -> None:
    """26: it stops a running child first, revives a stopped one, charges nothing, and returns when ready."""
    log = Log()
    async with open_supervisor(Supervisor([child("a", log)], limit=Limit(0))) as s:
        for _ in range(10):
            ref = await s.restart("a")
        assert (ref.epoch, ref.state) == (11, "running")
        assert log.of("end") == ["a"] * 10
        assert s.tree().children[0].restarts == 0
        await s.stop("a")
        assert (await s.restart("a")).state == "running"
        with pytest.raises(UnknownChild):
            await s.restart("b")


async def test_a_restart_by_hand_that_fails(autojump_clock: trio.testing.MockClock) -> None:
    """26: its caller is told and nothing is charged. A child that was up is retried; one that was down stays down."""
    spec = Supervisor([flaky("a", [False, True, False, True], backoff=SOON)], limit=Limit(0))
    async with open_supervisor(spec) as s:
        with pytest.raises(StartFailed):
            await s.restart("a")
        assert s.find("a").state == "backoff"
        await trio.sleep(2)
        assert s.find("a").state == "running"
        await s.stop("a")
        with pytest.raises(StartFailed):
            await s.restart("a")
        await trio.sleep(10)
        assert s.find("a").state == "done"


@pytest.mark.parametrize("command", ["restart", "start", "stop"])
async def test_an_accepted_command_survives_its_caller(
    command: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A task of the supervisor carries it out, so the cancel of its caller, even of the child itself, changes nothing."""
    log = Log()

    async def slow(ctx: Context) -> None:
        log("start", ctx.path)
        await trio.sleep(1)
        ctx.ready()
        await ctx.stopping.wait()
        await trio.sleep(1)
        log("end", ctx.path)

    async with open_supervisor(Supervisor([scripted("a", slow)])) as s:
        with trio.move_on_after(0.5):
            if command == "start":
                await s.start(scripted("b", slow))
            else:
                await getattr(s, command)("a")
        await trio.sleep(3)
        expected = {"restart": ("a", "running", 2), "stop": ("a", "done", 1), "start": ("b", "running", 1)}[
            command
        ]
        ref = s.find(expected[0])
        assert (ref.path, ref.state, ref.epoch) == expected


async def test_an_actor_restarts_itself(autojump_clock: trio.testing.MockClock) -> None:
    """A handler inside a gateway may restart that gateway."""

    async def life(ctx: Context) -> None:
        ctx.ready()
        if ctx.epoch == 1:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ctx.supervisor("").restart, "a")
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", life)])) as s:
        await settle()
        await trio.sleep(10)
        assert (s.find("a").epoch, s.find("a").state) == (2, "running")


async def test_counts_are_those_of_direct_children(autojump_clock: trio.testing.MockClock) -> None:
    """27: six states and the total."""
    async with open_supervisor(
        Supervisor([child("a"), Child("in", lambda: Supervisor([child("b"), child("c")]))])
    ) as s:
        assert list(s.counts()) == [*STATES, "total"]
        assert s.counts()["total"] == 2
        assert s.supervisor("in").counts()["running"] == 2


async def test_the_tree_is_plain_data(autojump_clock: trio.testing.MockClock) -> None:
    """27: ready for JSON, errors as strings."""
    inner = Child("in", lambda: Supervisor([Child("pool", Pool), child("b", mailbox=Mailbox(size=2))]))
    async with open_supervisor(Supervisor([inner])) as s:
        b = s.find("in/b")
        b.put("crash")
        await settle()
        for _ in range(3):
            b.put("hang")
        data = json.loads(json.dumps(s.tree().to_dict()))
        sub = data["children"][0]
        assert (data["path"], data["kind"], data["state"], data["mailbox"]) == (
            "",
            "supervisor",
            "running",
            None,
        )
        assert [(n["path"], n["kind"]) for n in sub["children"]] == [("in/pool", "pool"), ("in/b", "actor")]
        node = sub["children"][1]
        assert node["last_error"] == "Boom: in/b"
        assert (node["epoch"], node["restarts"]) == (2, 1)
        assert node["mailbox"] == {
            "size": 2, "overflow": "block", "accepted": 4, "handled": 0, "queued": 2, "dropped": {"full": 1},
            "lost_in_flight": 1, "lost_at": 0.0,
        }  # fmt: skip
        assert s.supervisor("in").tree() == s.tree().children[0]


async def test_an_error_has_its_time_and_leaves_when_it_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """27: an error is shown with its time until the failure is forgiven, and a new one is shown again."""
    backoff = Backoff(first=0.5, jitter=0, reset_after=60)
    async with open_supervisor(Supervisor([child("a", backoff=backoff)])) as s:
        a = s.find("a")

        def told() -> tuple[str | None, float | None]:
            (node,) = s.tree().children
            return node.last_error, node.last_error_at

        assert told() == (None, None)
        await trio.sleep(100)
        crashed_at = trio.current_time()
        a.put("crash")
        await settle()
        assert told() == ("Boom: a", crashed_at)  # while it waits for its restart
        await trio.sleep(0.5 + 59.9)
        assert told() == ("Boom: a", crashed_at)
        await trio.sleep(0.2)
        assert told() == (None, None)
        a.put("crash")
        await settle()
        assert told() == ("Boom: a", trio.current_time())


async def test_max_children_counts_those_in_backoff(autojump_clock: trio.testing.MockClock) -> None:
    """27: a Pool of crashing children does not grow."""
    async with open_supervisor(Pool(max_children=1)) as s:
        (await s.start(child("a", backoff=SOON))).put("crash")
        await settle()
        assert s.counts()["backoff"] == 1
        with pytest.raises(PoolFull):
            await s.start(child("b"))


async def test_replace_applies_at_the_next_incarnation(autojump_clock: trio.testing.MockClock) -> None:
    """28: it starts and kills nothing; accepted messages stay accepted."""
    old, new = Log(), Log()
    async with open_supervisor(Supervisor([child("a", old, mailbox=Mailbox(size=2))])) as s:
        a = s.find("a")
        s.replace(child("a", new, restart=TEMPORARY, mailbox=Mailbox(size=8)))
        await settle()
        assert (a.epoch, new.lines) == (1, [])
        a.put("crash")  # the old incarnation is still permanent
        a.put("anything")
        await settle()
        assert (a.epoch, new.lines) == (2, [("start", "a")])
        mailbox = s.tree().children[0].mailbox
        assert mailbox is not None
        assert (mailbox.size, mailbox.accepted, mailbox.handled, mailbox.lost_in_flight) == (8, 2, 1, 1)
        a.put("crash")
        await settle()
        assert s.counts()["total"] == 0
        with pytest.raises(UnknownChild):
            s.replace(child("a"))
        with pytest.raises(BadSpec):
            s.replace(Supervisor())  # type: ignore[arg-type]


async def test_replace_does_not_cut_a_backoff(autojump_clock: trio.testing.MockClock) -> None:
    """28: in backoff, only the coming incarnation changes."""
    old, new = Log(), Log()
    async with open_supervisor(Supervisor([child("a", old, backoff=SOON)])) as s:
        s.find("a").put("crash")
        await settle()
        s.replace(child("a", new))
        await settle()
        assert s.find("a").state == "backoff"
        await trio.sleep(2)
        assert (old.of("start"), new.of("start")) == (["a"], ["a"])


async def test_watch_fires_once_at_the_end_for_good(autojump_clock: trio.testing.MockClock) -> None:
    """29: not at a restart of any kind. All watchers get the same Exit."""
    exits: list[Exit] = []

    async def watch(ref: Any) -> None:
        exits.append(await ref.watch())

    inner = Child("in", lambda: Supervisor([child("a", restart=TRANSIENT)], limit=Limit(0)), backoff=NOW)
    async with open_supervisor(Supervisor([inner])) as s, trio.open_nursery() as nursery:
        a = s.find("in/a")
        nursery.start_soon(watch, a)
        nursery.start_soon(watch, a)
        a.put("crash")  # escalates: the supervisor restarts
        await settle()
        await s.restart("in")
        await s.supervisor("in").restart("a")
        await settle()
        assert exits == []
        a.put("return")
        await settle()
        assert [(exit.kind, exit.path, exit.epoch) for exit in exits] == [("normal", "in/a", 4)] * 2


@pytest.mark.parametrize(("message", "kind"), [("return", "normal"), ("crash", "crash"), (None, "stopped")])
async def test_watch_tells_how_it_ended_also_when_it_is_over(
    message: Any, kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    """29: also for a target already dead."""
    async with open_supervisor(Supervisor([child("a", restart=TEMPORARY)])) as s:
        a = s.find("a")
        if message is None:
            await s.stop("a")
        else:
            a.put(message)
            await settle()
        assert not a.alive
        exit = await a.watch()
        assert (exit.kind, exit.epoch, len(exit.errors)) == (kind, 1, kind == "crash")


async def test_watch_fires_when_the_whole_tree_ends(autojump_clock: trio.testing.MockClock) -> None:
    """29: for every child in it."""
    exits: list[str] = []

    async def watch(ref: Any) -> None:
        exits.append((await ref.watch()).path)

    async with trio.open_nursery() as nursery:  # noqa: SIM117
        async with open_supervisor(Supervisor([child("a"), Child("in", lambda: Pool([child("b")]))])) as s:
            for path in ("", "a", "in", "in/b"):
                nursery.start_soon(watch, s.find(path))
            await settle()
    assert sorted(exits) == ["", "a", "in", "in/b"]


async def test_a_stopped_child_ends_for_good_until_it_is_restarted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """29: `stop(id)` is an end; after a restart by hand a new watch waits again."""
    async with open_supervisor(Supervisor([child("a")])) as s:
        a = s.find("a")
        await s.stop("a")
        assert (await a.watch()).kind == "stopped"
        await s.restart("a")
        with trio.move_on_after(10) as scope:
            await a.watch()
        assert scope.cancelled_caught


async def test_a_handle_survives_the_restarts_of_its_supervisor(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The contract of `s.supervisor(path)`. While the supervisor is down, calls raise ActorGone."""
    inner = Child("in", lambda: Supervisor([child("a")], limit=Limit(0)), backoff=SOON)
    async with open_supervisor(Supervisor([inner])) as s:
        sub, a = s.supervisor("in"), s.find("in/a")
        await sub.start(child("b"))
        a.put("crash")
        await settle()
        with pytest.raises(ActorGone):
            await sub.start(child("b"))
        await trio.sleep(2)
        await sub.start(child("b"))
        assert sub.counts()["running"] == 2
        assert (a.state, a.epoch) == ("running", 2)
        assert sub.find("b").path == "in/b"
    for call in (sub.start(child("c")), s.start(child("c")), sub.stop("a"), s.restart("in")):
        with pytest.raises(Stopping):
            await call


async def test_unknown_paths(autojump_clock: trio.testing.MockClock) -> None:
    """Paths: ids joined by "/", the root is the empty path, an unknown one is UnknownChild."""
    async with open_supervisor(Supervisor([child("a"), Child("in", lambda: Supervisor([child("b")]))])) as s:
        assert s.find("").path == ""
        assert s.find("in/b").path == "in/b"
        for path in ("x", "in/x", "a/b", "/", "a/"):
            with pytest.raises(UnknownChild):
                s.find(path)
        with pytest.raises(UnknownChild):
            s.supervisor("a")
        with pytest.raises(UnknownChild):
            await s.stop("x")
        with pytest.raises(UnknownChild):
            s.remove("x")


async def test_a_context_finds_its_siblings_before_the_tree_is_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Actors start before `open_supervisor` yields. Paths are from the root, for an actor at any depth."""
    found = []

    async def life(ctx: Context) -> None:
        found.append((ctx.find("first").value, ctx.ref.path, await ctx.find("first").ask("?")))
        await ctx.supervisor("pool").start(child("made"))
        ctx.ready()
        await ctx.receive()

    async def first(ctx: Context) -> None:
        ctx.ready(42)
        while True:
            (await ctx.receive()).reply("!")

    inner = Child("in", lambda: Supervisor([scripted("deep", life)]))
    async with open_supervisor(Supervisor([scripted("first", first), Child("pool", Pool), inner])) as s:
        assert found == [(42, "in/deep", "!")]
        assert s.find("pool/made").state == "running"


async def test_the_value_is_that_of_the_newest_incarnation(autojump_clock: trio.testing.MockClock) -> None:
    """`ready(value)` becomes `ref.value`."""

    async def life(ctx: Context) -> None:
        ctx.ready(f"port {ctx.epoch}")
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", life, backoff=Backoff(first=0))])) as s:
        assert s.find("a").value == "port 1"
        assert (await s.restart("a")).value == "port 2"
