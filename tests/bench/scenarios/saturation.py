"""Deliveries a second to all clients, with a constant backlog."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import peers
from ..compiled import BUILD, program
from ..load import Load
from ..peers import LIMIT, PEERS
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..servers import SUBSCRIBE, Dataflow, Server

WARM_UP = 1.0
ONE, JOINED = "one update a send", "joined"
_OVER = 1.5  # times the C limit's deliveries, so that the daemon always has a backlog
_JOINED_RATE = 30_000  # trades a second, more than passes with joined updates can send
_REMEMBERED = 400_000  # trades: the whole backlog of a run stays in the history


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 1.5 if bench.quick else 4.0
    for clients in (1_000, 5_000):
        row = work(clients)
        for name in PEERS:
            if bench.wanted(name) or name == LIMIT:
                yield Step(row, name, seconds + 3, partial(_peer, bench, name, clients, seconds))
        if bench.wanted("dataflow"):
            yield Step(row, "dataflow", seconds + 5, partial(_dataflow, bench, row, clients, seconds))
    if bench.wanted("dataflow"):
        run = partial(dataflow, bench, 1_000, seconds, _JOINED_RATE, joined=256)
        yield Step(work(1_000, JOINED), "dataflow", seconds + 5, run)


def work(clients: int, how: str = ONE) -> str:
    """The name of a row."""
    return f"{clients:,} clients, {how}"


def _peer(bench: Bench, name: str, clients: int, seconds: float) -> Figures:
    server = peers.server(name, bench.cores, clients)
    try:
        return measure(bench, server, clients, seconds, "flood")
    finally:
        server.close()


def _dataflow(bench: Bench, row: str, clients: int, seconds: float) -> Figures:
    reached = bench.last("saturation", row, LIMIT, "per_second") or 250_000.0
    return dataflow(bench, clients, seconds, _OVER * reached / clients)


def dataflow(bench: Bench, clients: int, seconds: float, rate: float, joined: int = 1) -> Figures:
    """The figures of the daemon with `rate` trades a second. `share`: updates that arrived by updates that were due."""
    tables = {"fanout": {"joined": joined}, "cache": {"trades_per_symbol": _REMEMBERED}}
    server = Dataflow(bench.cores, bench.checkout, tables)
    try:
        figures = measure(bench, server, clients, seconds, f"rate {rate:.0f}")
    finally:
        server.close()
    return {**figures, "share": figures["per_second"] / (rate * clients)}


def measure(
    bench: Bench,
    server: Server,
    clients: int,
    seconds: float,
    order: str,
    *,
    client: Path | None = None,
    **options: object,
) -> Figures:
    """The figures of one window. The server gets `order` when all clients are connected.

    `client` is the binary of the load client, and `options` are its options.
    """
    binary = client or program("wsload")
    cores, log = bench.cores.client, BUILD / "wsload.log"
    with Load(binary, server.port, clients, text=SUBSCRIBE, cores=cores, log=log, **options) as load:
        server.tell(order)
        time.sleep(WARM_UP)
        window = load.window(seconds, server.program)
        server.tell("idle")
    return {**window.figures(), "connect_seconds": load.connect_seconds}


def told(figures: Figures) -> str:
    return (
        f"{figures['per_second']:,.0f}/s ({figures['per_cpu_second']:,.0f} a CPU second), "
        f"server {figures['server_cpu']:.0%}, client {figures['client_cpu']:.0%} CPU" + troubles(figures)
    )


SCENARIO = Scenario("saturation", "deliveries a second with a backlog", (3, 1), steps, told)
