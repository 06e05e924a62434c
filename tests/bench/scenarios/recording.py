"""Trades a second through to one client, and the lag of the event loop, with a history on disk and without.

Both daemons of a pair run in turn. On one core the thread that writes shares it with the event loop. With all cores it
may use another one: so may the feed and the client, which is the daemon's loss in both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial

from attrs import evolve

from ..compiled import BUILD, program
from ..load import Load
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..servers import RECORDING, SUBSCRIBE, Dataflow, Tables

WARM_UP = 2.0
PACED = 50_000  # trades a second, for the lag
ONE, ALL = "one core", "all cores"
_ADMITTED = 'dataflow_trades_total{source="binance",verdict="admitted"}'
_LAG = "dataflow_loop_lag_seconds_bucket"


def steps(bench: Bench) -> Iterator[Step]:
    if not bench.wanted("dataflow"):
        return
    seconds = 3.0 if bench.quick else 6.0
    for cores in (ONE, ALL):
        for pace in ("flood", f"rate {PACED}"):
            for name, tables in (("without", {}), ("with", RECORDING)):
                work = f"{name} a history, {pace}, {cores}"
                run = partial(dataflow, bench, seconds, tables, pace, cores)
                yield Step(work, "dataflow", seconds + 5, run)


def dataflow(bench: Bench, seconds: float, tables: Tables, pace: str, cores: str) -> Figures:
    """The figures of a daemon with one client."""
    mine = bench.cores
    if cores == ALL:
        mine = evolve(mine, server=mine.server | mine.client | mine.feed)
    tables = {"sources.binance": {"stream": "aggTrade"}, **tables}
    server = Dataflow(mine, bench.checkout, tables, speak=["binance"])
    log = BUILD / "wsload.log"
    try:
        with Load(program("wsload"), server.port, 1, text=SUBSCRIBE, cores=mine.client, log=log) as load:
            server.tell(pace)
            time.sleep(WARM_UP)
            admitted, lag = server.metric(_ADMITTED), _buckets(server)
            written, lost = _history(server)
            window = load.window(seconds, server.program)
            later = _buckets(server)
            rate = (server.metric(_ADMITTED) - admitted) / window.seconds
            written_later, lost_later = _history(server)
        return {
            **window.figures(),
            "admitted": rate,
            "lag_p99_ms": _p99({bound: later[bound] - lag[bound] for bound in later}) * 1000,
            "written": (written_later - written) / window.seconds,
            "not_recorded": lost_later - lost,
        }
    finally:
        server.close()


def _history(server: Dataflow) -> tuple[float, float]:
    return (
        server.metric_or_zero("dataflow_history_entries_total"),
        server.metric_or_zero("dataflow_history_unrecorded_total"),
    )


def _buckets(server: Dataflow) -> dict[float, float]:
    """How many looks found at most so many seconds of lag."""
    lines = [line for line in server.metrics() if line.startswith(_LAG)]
    return {float(line.split('"')[1].replace("+Inf", "inf")): float(line.split()[-1]) for line in lines}


def _p99(counts: Mapping[float, float]) -> float:
    """The bound below which 99 of 100 lie: no finer than the buckets."""
    most = max(counts.values(), default=0.0)
    return min((bound for bound, count in counts.items() if count >= 0.99 * most), default=0.0)


def told(figures: Figures) -> str:
    lost = figures["not_recorded"]
    return (
        f"{figures['per_second']:,.0f}/s, server {figures['server_cpu']:.0%} CPU, written {figures['written']:,.0f}/s"
        f"{f', {lost:,.0f} NOT RECORDED' if lost else ''}, p99 of the lag {figures['lag_p99_ms']:.1f} ms"
        + troubles(figures)
    )


SCENARIO = Scenario("recording", "trades a second with a history on disk", (3, 1), steps, told)
