"""What it costs that a connection is replaced all the time, and that there are two of them: 5,000 trades a second, one
client. A rotation loses nothing and repeats nothing to clients; so gaps and skipped places are failures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..compiled import BUILD, program
from ..load import Load
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..servers import SUBSCRIBE, Dataflow

RATE = 5_000  # trades a second
ROTATIONS = 20
ROTATE_AFTER = 1.5  # seconds
ONE, ROTATED, TWO = "one line", f"one line, rotated every {ROTATE_AFTER:g} s", "two lines"
_KEYS = {ONE: {}, ROTATED: {"rotate_after": ROTATE_AFTER}, TWO: {"lines": 2}}
_VERDICT = 'dataflow_trades_total{{source="binance",verdict="{}"}}'
_SETTLED = 3.0  # seconds until the second line is subscribed


def steps(bench: Bench) -> Iterator[Step]:
    seconds = ROTATE_AFTER * (ROTATIONS // 4 if bench.quick else ROTATIONS) * 1.2
    if bench.wanted("dataflow"):
        for work in _KEYS:
            yield Step(work, "dataflow", seconds + _SETTLED + 4, partial(measure, bench, work, seconds))


def measure(bench: Bench, work: str, seconds: float) -> Figures:
    """`rotations`: connections in the window. `us`: CPU time a trade. `held`: trades that waited for others."""
    server = Dataflow(bench.cores, bench.checkout, {"sources.binance": {**_KEYS[work], "hold": 2.0}})
    log = BUILD / "wsload.log"
    try:
        with Load(
            program("wsload"), server.port, 1, text=SUBSCRIBE, cores=bench.cores.client, log=log
        ) as load:
            server.tell(f"rate {RATE}")
            time.sleep(_SETTLED)
            before = server.feed.ask("count")["accepted"]
            window = load.window(seconds, server.program)
            rotations = server.feed.ask("count")["accepted"] - before
            held = server.metric_or_zero(_VERDICT.format("held"))
    finally:
        server.close()
    us = window.server_cpu * window.seconds / max(window.updates, 1) * 1e6
    return {**window.figures(), "rotations": rotations, "held": held, "us": us}


def told(figures: Figures) -> str:
    return (
        f"{figures['rotations']:.0f} rotations, {figures['held']:.0f} trades held, {figures['us']:.1f} us a trade, "
        f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms" + troubles(figures)
    )


SCENARIO = Scenario("lines", "a connection replaced all the time, and two of them", (3, 1), steps, told)
