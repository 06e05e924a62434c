"""Fifty clients of a thousand stop reading: the effect on the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..compiled import BUILD, program
from ..load import Load
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..servers import SUBSCRIBE, Dataflow

READING, STALLED = 950, 50
NOBODY = "nobody stalls"
POLICIES = ("disconnect", "drop_oldest", "conflate")
RATE = 2_000  # trades a second: enough to fill the socket buffers of a stalled client within the warm-up
_WARM_UP = 7.0


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 4.0 if bench.quick else 6.0
    for policy in (NOBODY, *POLICIES):
        if bench.wanted("dataflow"):
            run = partial(_measure, bench, policy, seconds)
            yield Step(policy, "dataflow", seconds + _WARM_UP + 3, run)


def _measure(bench: Bench, policy: str, seconds: float) -> Figures:
    stalled = 0 if policy == NOBODY else STALLED
    tables = {} if policy == NOBODY else {"session": {"slow_client": policy}}
    server = Dataflow(bench.cores, bench.checkout, tables)
    try:
        with Load(
            program("wsload"),
            server.port,
            READING + stalled,
            text=SUBSCRIBE,
            cores=bench.cores.client,
            log=BUILD / "wsload.log",
            slow=stalled,
        ) as load:
            before = server.program.resident()
            server.tell(f"rate {RATE}")
            time.sleep(_WARM_UP)
            window = load.window(seconds, server.program)
            sessions = server.metric("dataflow_sessions")
            grown = (server.program.resident() - before) / 1024
    finally:
        server.close()
    share = window.per_second / (RATE * READING)
    return {**window.figures(), "share": share, "sessions": sessions, "grown_mib": grown}


def told(figures: Figures) -> str:
    return (
        f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms, {figures['share']:.0%} arrived, "
        f"{figures['sessions']:.0f} sessions at the end, memory +{figures['grown_mib']:.0f} MiB"
        + troubles(figures)
    )


SCENARIO = Scenario("stalled", "effect of fifty clients that do not read on the others", (3, 1), steps, told)
