"""Ticks a second from a producer by TCP: through to one client, and admitted without a client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..compiled import BUILD, program
from ..load import Load
from ..plan import Bench, Figures, Scenario, Step
from ..processes import Program
from ..servers import SUBSCRIBE, SYMBOL, Dataflow, free_port
from .ingest import told

TICKER = "AAPL"
THROUGH = "one subscriber"
WARM_UP = 2.0
RATE = 1_000  # ticks a second, for their age
_ADMITTED = 'dataflow_trades_total{source="ticks",verdict="admitted"}'
_SUBSCRIBE = SUBSCRIBE.replace(SYMBOL, TICKER)
_IN_BATCHES = _SUBSCRIBE.replace(f'"{TICKER}"', f'"{TICKER}","batch":true')


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 3.0 if bench.quick else 6.0
    if not bench.wanted("dataflow"):
        return
    for work, text, say in (
        (THROUGH, _SUBSCRIBE, "flood"),
        ("one subscriber, in batches", _IN_BATCHES, "flood"),
        ("no subscriber", None, "flood"),
        (f"one subscriber, {RATE:,} a second", _SUBSCRIBE, f"rate {RATE}"),
    ):
        yield Step(work, "dataflow", seconds + 4, partial(_run, bench, seconds, text, say))


def _run(bench: Bench, seconds: float, text: str | None, say: str) -> Figures:
    port = free_port()
    tables = {"sources.ticks": {"connector": "ticks_protobuf", "port": port}}
    server = Dataflow(bench.cores, bench.checkout, tables, speak=())
    try:
        command = [program("ticks"), "--to", str(port), "--symbol", TICKER]
        with Program("ticks", command, cores=bench.cores.feed, log=BUILD / "ticks.log") as producer:
            producer.answer(10)
            producer.ask("rate 100")  # the symbol must be known before anybody subscribes to it
            while not server.metric_or_zero(_ADMITTED):
                time.sleep(0.05)
            return _measured(bench, server, producer, seconds, text, say)
    finally:
        server.close()


def _measured(
    bench: Bench, server: Dataflow, producer: Program, seconds: float, text: str | None, say: str
) -> Figures:
    load = None
    if text is not None:
        log = BUILD / "wsload.log"
        options = {"count": "trades.update"} if text == _IN_BATCHES else {}
        load = Load(
            program("wsload"), server.port, 1, text=text, cores=bench.cores.client, log=log, **options
        )
    try:
        producer.ask(say)
        time.sleep(WARM_UP)
        before, begun, fed = server.metric(_ADMITTED), time.monotonic(), producer.cpu()
        cpu = server.program.cpu()
        if load is None:
            time.sleep(seconds)
            figures: Figures = {"skipped": 0}
        else:
            figures = load.window(seconds, server.program).figures()
        admitted, elapsed = server.metric(_ADMITTED) - before, time.monotonic() - begun
        return {
            "per_second": admitted / elapsed,
            **figures,
            "admitted": admitted / elapsed,
            "server_cpu": (server.program.cpu() - cpu) / elapsed,
            "feed_cpu": (producer.cpu() - fed) / elapsed,
        }
    finally:
        if load is not None:
            load.close()


SCENARIO = Scenario("ticks", "ticks a second from a producer by TCP", (3, 1), steps, told)
