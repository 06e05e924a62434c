"""Ten thousand clients at once: they connect and subscribe, and come back after a restart of the gateway.

Meanwhile a hundred other clients get another symbol, at a hundred trades a second. Their latency shows the effect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define

from ..compiled import BUILD, program
from ..load import Load, Window
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..processes import Program, ProgramFailed
from ..servers import SUBSCRIBE, SYMBOL, SYMBOLS, Dataflow

CLIENTS, SERVED = 10_000, 100
SNAPSHOT = 50
WORK = f"{CLIENTS:,} clients"
_QUIET = 3.0  # seconds, before the storm


def steps(bench: Bench) -> Iterator[Step]:
    if bench.wanted("dataflow"):
        yield Step(WORK, "dataflow", 40, partial(_measure, bench))


@define
class _Served:
    """The clients that were connected before the storm."""

    load: Load
    server: Dataflow

    def during(self, work: Any) -> tuple[dict[str, Any], Window]:
        """The result of `work()`, and the window of these clients meanwhile."""
        self.load.mark()
        begun, cpu = time.monotonic(), self.server.program.cpu()
        answer = work()
        return answer, self.load.since(begun, cpu, self.server.program)


def _measure(bench: Bench) -> Figures:
    server = Dataflow(bench.cores, bench.checkout, speak=["binance", "blockchain"])
    try:
        return _storm(bench, server)
    finally:
        server.close()


def _storm(bench: Bench, server: Dataflow) -> Figures:
    _fill(server)
    text = SUBSCRIBE.replace(SYMBOL, SYMBOLS["blockchain"])
    cores = bench.cores.client
    with Load(
        program("wsload"), server.port, SERVED, text=text, cores=cores, log=BUILD / "wsload.log"
    ) as load:
        served = _Served(load, server)
        _none, before = served.during(lambda: time.sleep(_QUIET))
        resident = server.program.resident()
        command: list[str | Path] = [program("storm"), "--port", str(server.port), "--clients", str(CLIENTS)]
        with Program(
            "storm", [*command, "--snapshot", str(SNAPSHOT)], cores=cores, log=BUILD / "storm.log"
        ) as storm:
            came, during = served.during(lambda: storm.answer(100))
            grown = server.program.resident() - resident
            storm.ask("arm")
            begun = time.monotonic()
            server.restart("gateway")
            back = storm.ask("await", 100)
            seconds = time.monotonic() - begun
            time.sleep(2)  # more updates, to compare their places
            after = storm.ask("tell")
    if came["served"] < CLIENTS or back["came_back"] < CLIENTS:
        raise ProgramFailed(
            f"of {CLIENTS} clients {came['served']} were served and {back['came_back']} came back"
        )
    return {
        "seconds": came["seconds"],
        "wait_max": came["wait_max"],
        "silence": came["silence"],
        "refused": after["refused"],
        "session_kib": grown / CLIENTS,
        "back_seconds": seconds,
        "back_wait_max": back["wait_max"],
        "back_silence": back["silence"],
        "lost": after["lost"],
        "gaps": after["gaps"],
        "unrecovered": after["unrecovered"],
        "errors": after["errors"],
        "updates": after["updates"],
        "served_p99_before_ms": before.p99_ms,
        "served_p99_during_ms": during.p99_ms,
        "served_max_during_ms": during.max_ms,
        "served_skipped": during.skipped,
        "server_cpu": during.server_cpu,
        "blocked": server.log().count("the event loop is blocked"),
    }


def _fill(server: Dataflow) -> None:
    """Make trades for the snapshots. Then few for the clients of the storm, and many for the others."""
    storm_feed, served_feed = server.feeds
    storm_feed.ask("rate 200")
    time.sleep(2 * SNAPSHOT / 200)
    storm_feed.ask("rate 1")
    served_feed.ask("rate 100")


def told(figures: Figures) -> str:
    return (
        f"all answered in {figures['seconds']:.1f} s, longest wait {figures['wait_max']:.1f} s, longest silence "
        f"{figures['silence']:.1f} s; back in {figures['back_seconds']:.1f} s, lost {figures['lost']:.0f}, "
        f"unrecovered {figures['unrecovered']:.0f}; others' p99 {figures['served_p99_before_ms']:.1f} -> "
        f"{figures['served_p99_during_ms']:.1f} ms" + troubles(figures)
    )


SCENARIO = Scenario("storm", "ten thousand clients come at once, and come back", (3, 1), steps, told)
