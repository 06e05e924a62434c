"""How old an update is when it arrives, and what that costs, at fixed rates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from .. import peers
from ..compiled import BUILD, program
from ..load import Load
from ..peers import PEERS
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..results import Results
from ..servers import SUBSCRIBE, Dataflow, Server
from . import saturation

RATES = (50, 100, 500, 5_000)
CLIENTS = 1_000
WARM_UP = 1.0
IN_TIME = 0.97  # share of what was due that must arrive within the window, or the server is overloaded


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 2.0 if bench.quick else 5.0
    for rate in (100, 5_000) if bench.quick else RATES:
        for name in [*PEERS, "dataflow"]:
            if bench.wanted(name):
                run = partial(_measure, bench, name, CLIENTS, rate, seconds)
                yield Step(work(rate, CLIENTS), name, seconds + 4, run)
    for name in ["dataflow"]:
        if bench.wanted(name):
            yield Step(work(100, 1), name, seconds + 4, partial(_measure, bench, name, 1, 100, seconds))


def start(bench: Bench, name: str, clients: int) -> Server:
    return (
        Dataflow(bench.cores, bench.checkout)
        if name == "dataflow"
        else peers.server(name, bench.cores, clients)
    )


def _measure(bench: Bench, name: str, clients: int, rate: int, seconds: float) -> Figures:
    if _hopeless(bench, name, clients, rate):
        return {"share": 0.0}
    server = start(bench, name, clients)
    try:
        log = BUILD / "wsload.log"
        with Load(
            program("wsload"), server.port, clients, text=SUBSCRIBE, cores=bench.cores.client, log=log
        ) as load:
            server.tell(f"rate {rate}")
            time.sleep(WARM_UP)
            window = load.window(seconds, server.program)
    finally:
        server.close()
    return {**window.figures(), "share": window.per_second / (rate * clients)}


def _hopeless(bench: Bench, name: str, clients: int, rate: int) -> bool:
    """Whether this run has shown that the server cannot: far beyond its saturation, or overloaded at less."""
    if name == "dataflow" or rate <= 100:
        return False
    most = bench.last("saturation", saturation.work(clients), name, "per_second")
    lower = [bench.last("rates", work(less, clients), name, "share") for less in RATES if less < rate]
    return (most is not None and rate * clients > 1.5 * most) or any(s is not None and s < 0.8 for s in lower)


def measured(results: Results) -> tuple[int, ...]:
    """The rates that were tried: a quick run leaves some out."""
    found = results.works("rates")
    return tuple(rate for rate in RATES if work(rate, CLIENTS) in found)


def work(rate: int, clients: int) -> str:
    """The name of a row."""
    return f"{rate:,} trades/s x {clients:,}"


def told(figures: Figures) -> str:
    if "p50_ms" not in figures:
        return "not tried: it was overloaded by less"
    late = "" if figures["share"] > IN_TIME else f", OVERLOADED: {figures['share']:.0%} arrived"
    return (
        f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms, server {figures['server_cpu']:.0%}, "
        f"client {figures['client_cpu']:.0%} CPU{late}" + troubles(figures)
    )


SCENARIO = Scenario("rates", "age of an update on arrival, and CPU, at fixed rates", (3, 1), steps, told)
