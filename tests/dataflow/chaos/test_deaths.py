"""Real deaths: the daemon as a process, killed under load, loses nothing that was on disk; a sabotaged one is found out."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from dataflow.chaos import deaths
from dataflow.chaos.deaths import Passed, outlive
from dataflow.chaos.plan import Deaths

SOME = Deaths(seed=28, deaths=2, seconds=0.8, clients=3)
ONE = Deaths(seed=2, deaths=1, seconds=1.0, clients=2)


def sabotaged(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """The daemon runs these lines before it starts."""
    script = "\n".join(
        [*lines, "import sys", "from dataflow.cli import main", "sys.exit(main(sys.argv[1:]))"]
    )
    monkeypatch.setattr(deaths, "COMMAND", (sys.executable, "-c", script))


async def test_deaths_are_survived() -> None:
    """Every client has in the end what the daemon has, and the disk the same; each trade sent is there or in a gap."""
    told: list[Passed] = []
    lives = await outlive(SOME, told.append)
    assert lives.evidence == []
    assert lives.held
    assert lives.ends["kill"] == 2
    assert lives.on_disk > 0
    assert all(source.admitted > 10 for source in lives.sources.values())
    assert all(client.delivered > 10 for client in lives.clients.values())
    assert {passed.phase for passed in told} == {"killing", "settling"}


async def test_a_rewind_that_is_not_told_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that takes every place of an earlier life for one of its own."""
    sabotaged(
        monkeypatch,
        "from dataflow.cache import history",
        "history.shared = lambda epochs: {epoch: 1 << 60 for epoch, _ in epochs}",
        "import os",
        "os.environ['DATAFLOW__HISTORY__INTERVAL'] = '60'",  # so that there surely is something to take back
    )
    lives = await outlive(ONE)
    assert lives.untold
    assert not lives.held


async def test_a_daemon_that_does_not_start_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal comes to its end and tells what the daemon said."""
    start = deaths._Daemon.start

    async def started_and_ended(self: Any) -> None:
        await start(self)
        assert self.process is not None
        await self.process.wait()  # however slow the machine is, it has said that before the waits begin

    monkeypatch.setattr(deaths._Daemon, "start", started_and_ended)
    monkeypatch.setattr(deaths, "COMMAND", ("sh", "-c", "echo no memory >&2; exit 1"))
    monkeypatch.setattr(deaths, "SERVED_WITHIN", 0.1)
    lives = await outlive(Deaths(2, deaths=1, seconds=0.01, clients=2))
    assert {"broken", "unsettled"} <= lives.violations.keys()
    assert any("no memory" in line for line in lives.evidence)
