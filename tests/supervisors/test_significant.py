"""Significant children: rules 23 and 24."""

from __future__ import annotations

import pytest
import trio

from supervisors import BadSpec, Child, Pool, Restart, Supervisor, open_supervisor
from tests.supervisors.helpers import NOW, PERMANENT, TEMPORARY, TRANSIENT, Log, child, settle


def group(log: Log, kinds: dict[str, Restart], mode: str) -> Child:
    """A supervisor "g" of significant children and one plain child."""
    children = [child(id, log, restart=restart, significant=True) for id, restart in kinds.items()]
    spec = Supervisor([*children, child("plain", log)], auto_shutdown=mode)  # type: ignore[arg-type]
    return Child("g", lambda: spec, restart=TRANSIENT, backoff=NOW)


@pytest.mark.parametrize(
    ("restart", "message", "fires"),
    [
        (TRANSIENT, "return", True),
        (TRANSIENT, "crash", False),
        (TEMPORARY, "return", True),
        (TEMPORARY, "crash", True),
    ],
)
async def test_only_its_own_end_fires(
    restart: Restart, message: str, fires: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """23: but not the crash of a transient child, because it comes back."""
    log = Log()
    spec = Supervisor([group(log, {"a": restart}, "any_significant")])
    async with open_supervisor(spec, on_event=log.hook) as s:
        s.find("g/a").put(message)
        await settle()
        assert (s.find("g").state == "done") is fires
        assert (log.kinds("g").count("auto_shutdown") == 1) is fires
        assert ("g/plain" in log.of("end")) is fires


@pytest.mark.parametrize("mode", ["any_significant", "all_significant"])
async def test_a_stop_by_hand_does_not_fire(mode: str, autojump_clock: trio.testing.MockClock) -> None:
    """23: not on `stop(id)`."""
    async with open_supervisor(Supervisor([group(Log(), {"a": TRANSIENT, "t": TEMPORARY}, mode)])) as s:
        await s.supervisor("g").stop("a")
        await s.supervisor("g").stop("t")
        await settle()
        assert s.find("g").state == "running"


async def test_a_sibling_kill_does_not_fire(autojump_clock: trio.testing.MockClock) -> None:
    """23: a group restart that stops a temporary significant child does not fire either."""
    from supervisors import Strategy

    spec = Supervisor(
        [child("a"), child("t", restart=TEMPORARY, significant=True)],
        strategy=Strategy.ONE_FOR_ALL,
        auto_shutdown="any_significant",
    )
    async with open_supervisor(spec) as s:
        s.find("a").put("crash")
        await settle()
        assert s.counts()["running"] == s.counts()["total"] == 1


async def test_all_significant_waits_for_the_last(autojump_clock: trio.testing.MockClock) -> None:
    """23: a child stopped by hand does not count as active, a child in backoff does."""
    kinds = {"a": TRANSIENT, "b": TEMPORARY, "c": TRANSIENT}
    async with open_supervisor(Supervisor([group(Log(), kinds, "all_significant")])) as s:
        a, b = s.find("g/a"), s.find("g/b")
        a.put("return")
        await settle()
        assert s.find("g").state == "running"
        await s.supervisor("g").stop("c")
        assert s.find("g").state == "running"
        b.put("crash")
        await settle()
        assert s.find("g").state == "done"


async def test_an_auto_shutdown_is_a_normal_exit_to_the_parent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """23 as in OTP: a permanent supervisor is started again."""
    log = Log()
    spec = Supervisor([child("a", log, restart=TRANSIENT, significant=True)], auto_shutdown="any_significant")
    async with open_supervisor(Supervisor([Child("g", lambda: spec, backoff=NOW)])) as s:
        s.find("g/a").put("return")
        await settle()
        assert s.find("g").epoch == 2
        assert s.find("g/a").state == "running"


def test_significant_and_permanent_is_rejected() -> None:
    """24: it never ends by itself. A significant child also needs a supervisor with `auto_shutdown` (as in OTP)."""
    with pytest.raises(BadSpec):
        child("a", restart=PERMANENT, significant=True)
    with pytest.raises(BadSpec):
        Supervisor([child("a", restart=TRANSIENT, significant=True)])


async def test_a_dynamic_significant_child_is_checked_too() -> None:
    """24: at `start` as well."""
    async with open_supervisor(Pool()) as s:
        with pytest.raises(BadSpec):
            await s.start(child("a", restart=TEMPORARY, significant=True))
