"""A CSV of all that is on disk: its rows a second, its memory, and the latency of live updates beside it."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, field

from dataflow.cache.archive import Batch, Run
from dataflow.domain import Trade
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store

from ..compiled import BUILD, program
from ..load import Load
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..servers import SUBSCRIBE, SYMBOL, Dataflow

CLIENTS, RATE = 100, 500  # trades a second
COMMIT = 8_192  # trades
START = 1_732_665_600  # 2024-11-27
READ_BYTES = 1 << 16
LONGEST = 900.0  # seconds for the whole download


def steps(bench: Bench) -> Iterator[Step]:
    rows = 1_000_000 if bench.quick else 10_000_000
    if bench.wanted("dataflow"):
        run = partial(_measure, bench, rows, 4.0 if bench.quick else 10.0)
        yield Step(f"{rows:,} trades as CSV", "dataflow", rows / 40_000 + 30, run)


def _measure(bench: Bench, rows: int, seconds: float) -> Figures:
    """Latencies of live updates without and with the download; MiB that it took more; rows a second."""
    with TemporaryDirectory() as folder:
        _fill(Path(folder), rows)
        tables = {"history": {"directory": folder, "min_free_bytes": 0, "keep_days": 100_000}}
        server = Dataflow(bench.cores, bench.checkout, tables)
        cores, log = bench.cores.client, BUILD / "wsload.log"
        try:
            with Load(program("wsload"), server.port, CLIENTS, text=SUBSCRIBE, cores=cores, log=log) as load:
                server.tell(f"rate {RATE}")
                time.sleep(2)
                alone = load.window(seconds, server.program).figures()
                before = most = server.program.resident()
                download = Download(server.port)
                beside = load.window(seconds, server.program).figures()
                while download.thread.is_alive():
                    most = max(most, server.program.resident())
                    time.sleep(0.05)
        finally:
            server.close()
    return {
        **{name: beside[name] for name in ("p50_ms", "p99_ms")},
        "alone_p50_ms": alone["p50_ms"],
        "alone_p99_ms": alone["p99_ms"],
        "rows": download.rows,
        "rows_per_second": download.rows / download.seconds,
        "grown_mib": (most - before) / 1024,
    }


def _fill(folder: Path, rows: int) -> None:
    store = Store(History(directory=str(folder)), lambda: START + 3_600.0)
    store.open()
    store.begin(1)
    price, size = Decimal("61837.63000000"), Decimal("0.00017000")
    for first in range(1, rows + 1, COMMIT):
        places = [
            (n, Trade("a", SYMBOL, str(n), "buy", price + n * 7 % 500, size, START * 10**9 + n * 10**7, n))
            for n in range(first, min(first + COMMIT, rows + 1))
        ]
        store.append(Batch([Run.of(SYMBOL, places)]))
    store.close(True)


@define
class Download:
    """Reads in a thread of its own. `seconds` that it took. A download that is cut off raises in its thread."""

    port: int
    rows: int = 0
    seconds: float = 0.0
    thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST)
        connection.request("GET", f"/api/v1/trades/{SYMBOL}", headers={"Accept": "text/csv"})
        answer = connection.getresponse()
        while piece := answer.read(READ_BYTES):
            self.rows += piece.count(b"\n")
            self.seconds = time.monotonic() - begun
        connection.close()


def told(figures: Figures) -> str:
    return (
        f"{figures['rows']:,.0f} rows, {figures['rows_per_second']:,.0f}/s, memory +{figures['grown_mib']:.0f} MiB, live "
        f"p50 {figures['p50_ms']:.1f} and p99 {figures['p99_ms']:.1f} ms, without it {figures['alone_p50_ms']:.1f} and "
        f"{figures['alone_p99_ms']:.1f}" + troubles(figures)
    )


SCENARIO = Scenario("download", "a CSV of the history, and live updates beside it", (1, 1), steps, told)
