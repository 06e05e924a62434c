"""The room for clients is what the process may really open, less what must go on without them."""

from __future__ import annotations

import math
import subprocess
import sys
from textwrap import dedent

from hypothesis import given
from hypothesis import strategies as st

from dataflow.gateway.room import A_SOURCE, CONNECTIONS, EARLY, LEAST_CONNECTIONS, shared_out, wanted

COUNTS = st.integers(0, 200)


@given(st.integers(64, 2_000_000), st.integers(1, 100_000), COUNTS, COUNTS)
def test_clients_never_get_what_the_sources_need(limit: int, sessions: int, sources: int, used: int) -> None:
    """Above the ceiling there is always enough for every source; below it, all clients have room.

    Below it are also what we and the sources open before the first client.
    """
    room = shared_out(limit, sessions, sources, used)
    early = EARLY + sources
    assert 1 <= room.sessions <= sessions
    assert LEAST_CONNECTIONS <= room.connections <= CONNECTIONS
    if limit - room.ceiling < (A_SOURCE - 1) * sources:  # then there was not even room for one client
        assert room.ceiling == used + early + 1
    elif room.sessions > 1:
        assert used + early + room.sessions + room.connections <= room.ceiling


@given(st.integers(1, 100_000), COUNTS, COUNTS)
def test_what_is_wanted_is_enough(sessions: int, sources: int, used: int) -> None:
    """A limit as high as wanted leaves room for every session that the settings promise."""
    room = shared_out(wanted(sessions, sources, used), sessions, sources, used)
    assert room.sessions == sessions
    assert room.connections == CONNECTIONS


def _in_a_process_with(limits: str) -> list[str]:
    program = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, {limits})
        from dataflow import logs
        from dataflow.gateway.room import make_room
        from dataflow.settings.schema import Gateway, Settings
        logs.configure()
        room = make_room(Settings(gateway=Gateway(max_sessions=1_000)))
        print(room.sessions, room.connections, room.ceiling, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True, timeout=120
    )
    return [*done.stdout.split(), *(line for line in done.stderr.splitlines() if "WARNING" in line)]


def test_a_low_soft_limit_is_raised() -> None:
    """The usual limit of 1,024, or less, is no bound where the system allows more. Nothing is warned of."""
    sessions, connections, ceiling, limit, *warnings = _in_a_process_with("(64, 8192)")
    assert (sessions, connections, warnings) == ("1000", str(CONNECTIONS), [])
    assert 64 < int(ceiling) < int(limit) <= 8192


def test_a_low_hard_limit_is_told_once() -> None:
    """Where the system allows no more, the start says how many sessions there is room for."""
    sessions, _, ceiling, limit, *warnings = _in_a_process_with("(64, 64)")
    assert 1 <= int(sessions) < int(ceiling) < int(limit) == 64
    assert len(warnings) == 1
    assert f"room for {sessions} sessions instead of 1,000" in warnings[0]


def test_no_limit_is_no_bound() -> None:
    """The settings alone decide where the system has no bound, or none that Python knows."""
    assert shared_out(10**9, 10_000, 10, 30).ceiling < math.inf
    assert shared_out(10**9, 10_000, 10, 30).sessions == 10_000
