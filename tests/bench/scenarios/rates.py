"""Age of an update on arrival, and CPU of the server, at fixed rates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from .. import peers
from ..compiled import BUILD, program
from ..load import Load
from ..peers import JOINING, PEERS
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..results import Results
from ..servers import SUBSCRIBE, Dataflow, Server
from . import saturation

RATES = (50, 100, 500, 5_000)
CLIENTS = 1_000
WARM_UP = 1.0
IN_TIME = 0.97  # share of the due updates that arrives within the window; with less, the server is overloaded


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 2.0 if bench.quick else 5.0
    for rate in (100, 5_000) if bench.quick else RATES:
        for name in [*PEERS, JOINING, "dataflow"]:
            if bench.wanted(name):
                run = partial(measure, bench, name, CLIENTS, rate, seconds)
                yield Step(work(rate, CLIENTS), name, seconds + 4, run)
    for name in ["dataflow"]:
        if bench.wanted(name):
            yield Step(work(100, 1), name, seconds + 4, partial(measure, bench, name, 1, 100, seconds))


def start(bench: Bench, name: str, clients: int) -> Server:
    """The daemon or a peer, without clients yet."""
    return (
        Dataflow(bench.cores, bench.checkout)
        if name == "dataflow"
        else peers.server(name, bench.cores, clients)
    )


def measure(bench: Bench, name: str, clients: int, rate: int, seconds: float) -> Figures:
    """The figures of one window. `share`: updates that arrived by updates that were due."""
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
    """Whether this run has shown before that the server cannot keep up: by its saturation, or at a lower rate."""
    if name in ("dataflow", JOINING) or rate <= 100:  # these two join, so saturation does not bound them
        return False
    most = bench.last("saturation", saturation.work(clients), name, "per_second")
    lower = [bench.last("rates", work(less, clients), name, "share") for less in RATES if less < rate]
    return (most is not None and rate * clients > 1.5 * most) or any(s is not None and s < 0.8 for s in lower)


def measured(results: Results) -> tuple[int, ...]:
    """The rates that were measured: a quick run leaves some out."""
    found = results.works("rates")
    return tuple(rate for rate in RATES if work(rate, CLIENTS) in found)


def beside(results: Results, figure: str, rate: int, server: str, other: str) -> float | None:
    """The ratio of two servers at a rate; None without both, or when `other` was overloaded and is no measure."""
    what = work(rate, CLIENTS)
    share = results.median("rates", what, other, "share")
    if share is None or share < IN_TIME:
        return None
    return results.ratio("rates", figure, (what, server), (what, other))


def work(rate: int, clients: int) -> str:
    """The name of a row."""
    return f"{rate:,} trades/s x {clients:,}"


def told(figures: Figures) -> str:
    if "p50_ms" not in figures:
        return "not tried: a lower rate overloaded it"
    late = "" if figures["share"] > IN_TIME else f", OVERLOADED: {figures['share']:.0%} arrived"
    return (
        f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms, server {figures['server_cpu']:.0%}, "
        f"client {figures['client_cpu']:.0%} CPU{late}" + troubles(figures)
    )


SCENARIO = Scenario("rates", "age of an update on arrival, and CPU, at fixed rates", (3, 1), steps, told)
