"""Bytes and age of an update for clients that offer permessage-deflate, beside the same without it, by format.

Rules of this file: one client of `LOOK` looks into its messages, in all rows alike. So the load client does not inflate
a million messages a second, and what it costs is the same for every row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from ..compiled import BUILD, program_with_zlib
from ..load import Load
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..results import Results
from ..servers import SYMBOL, Dataflow

RATES: Final = (2_000, 5_000)
CLIENTS: Final = 1_000
LOOK: Final = 20
WARM_UP: Final = 1.5
IN_TIME: Final = 0.97
TODAY: Final = "JSON"
DEFLATE: Final = "JSON, deflate"
COMPACT: Final = "compact"
COMPACT_DEFLATE: Final = "compact, deflate"
KINDS: Final[dict[str, tuple[dict[str, Any], bool]]] = {  # what is asked for beside the symbol, and the offer
    TODAY: ({}, False),
    DEFLATE: ({}, True),
    "JSON in arrays": ({"batch": True}, False),
    "JSON in arrays, deflate": ({"batch": True}, True),
    COMPACT: ({"format": "compact"}, False),
    COMPACT_DEFLATE: ({"format": "compact"}, True),
    "compact in arrays, deflate": ({"format": "compact", "batch": True}, True),
}


def work(rate: int, kind: str) -> str:
    """The name of a row."""
    return f"{rate:,} trades/s, {kind}"


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 2.0 if bench.quick else 5.0
    if not bench.wanted("dataflow"):
        return
    for rate in RATES:
        for kind in KINDS:
            run = partial(_measure, bench, rate, kind, seconds)
            yield Step(work(rate, kind), "dataflow", seconds + 4, run)


def _measure(bench: Bench, rate: int, kind: str, seconds: float) -> Figures:
    """The figures of one window. `share`: updates that arrived by updates that were due."""
    asked, offers = KINDS[kind]
    call = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"symbol": SYMBOL, **asked}}
    options = {"deflate": True} if offers else {}
    server = Dataflow(bench.cores, bench.checkout)
    try:
        with Load(
            program_with_zlib("wsload"),
            server.port,
            CLIENTS,
            text=json.dumps(call),
            cores=bench.cores.client,
            log=BUILD / "wsload.log",
            look=LOOK,
            **options,
        ) as load:
            server.tell(f"rate {rate}")
            time.sleep(WARM_UP)
            window = load.window(seconds, server.program)
    finally:
        server.close()
    return {**window.figures(), "share": window.per_second / (rate * CLIENTS)}


def beside(results: Results, figure: str, rate: int, kind: str) -> float | None:
    """The ratio of a row to today's JSON at the same rate."""
    rows = (work(rate, kind), "dataflow"), (work(rate, TODAY), "dataflow")
    return results.ratio("deflate", figure, *rows)


def told(figures: Figures) -> str:
    late = "" if figures["share"] > IN_TIME else f", OVERLOADED: {figures['share']:.0%} arrived"
    return (
        f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms, {figures['bytes_per_update']:.0f} bytes, "
        f"server {figures['server_cpu']:.0%}, client {figures['client_cpu']:.0%} CPU{late}"
        + troubles(figures)
    )


SCENARIO = Scenario(
    "deflate", "bytes, age and CPU for clients that offer permessage-deflate", (3, 1), steps, told
)
