"""The daemon without clients: seconds until it is ready, memory, CPU while idle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..plan import Bench, Figures, Scenario, Step
from ..servers import Dataflow

WORK = "start and wait"
_IDLE = 2.0  # seconds


def steps(bench: Bench) -> Iterator[Step]:
    if bench.wanted("dataflow"):
        yield Step(WORK, "dataflow", 4, partial(_measure, bench))


def _measure(bench: Bench) -> Figures:
    server = Dataflow(bench.cores, bench.checkout)
    try:
        cpu = server.program.cpu()
        time.sleep(_IDLE)
        return {
            "seconds": server.start_seconds,
            "mib": server.program.resident() / 1024,
            "server_cpu": (server.program.cpu() - cpu) / _IDLE,
        }
    finally:
        server.close()


def told(figures: Figures) -> str:
    return (
        f"ready in {figures['seconds']:.2f} s, {figures['mib']:.0f} MiB, {figures['server_cpu']:.1%} CPU idle"
    )


SCENARIO = Scenario("start", "start, memory and CPU without clients", (3, 1), steps, told)
