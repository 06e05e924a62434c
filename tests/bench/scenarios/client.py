"""Trades a second into a user's program: the feed of the Python client, beside bare `websockets` and `json.loads`.

Rules of this file: all readers get the same trades from a server that has them at hand, each in the format that it asks
for, and look at each price. `json.loads` makes binary numbers; the rows "exact" make Decimal, as the feed does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from ..compiled import BUILD
from ..plan import Bench, Figures, Scenario, Step
from ..processes import Program
from ..results import Results

FOLDER: Final = Path(__file__).parents[1] / "peer_programs"
WORK: Final = "trades into a program"
OURS: Final = {"dataflow, asyncio": "feed-asyncio", "dataflow, Trio": "feed-trio"}
PLAIN: Final = "websockets + json"
BATCH: Final = "websockets + json, batch"
READERS: Final = {
    **OURS,
    PLAIN: "websockets",
    BATCH: "websockets-batch",
    f"{PLAIN}, exact": "websockets-exact",
    f"{BATCH}, exact": "websockets-batch-exact",
}
PER_CPU: Final = "per_cpu_second"
FIGURES: Final = ("per_second", PER_CPU)
COUNTS: Final = (200_000, 40_000)  # trades in a full and in a quick run


def steps(bench: Bench) -> Iterator[Step]:
    for name, way in READERS.items():
        server = "dataflow" if name in OURS else "websockets"
        if bench.wanted(server):
            yield Step(WORK, name, 8, partial(_measure, bench, way, COUNTS[bench.quick]))


def _measure(bench: Bench, way: str, count: int) -> Figures:
    BUILD.mkdir(exist_ok=True)
    common = ["--count", str(count)]
    serve = [sys.executable, FOLDER / "canned_trades.py", *common]
    with Program("canned trades", serve, cores=bench.cores.client, log=BUILD / "canned-trades.log") as server:
        port = server.answer(60)["port"]
        read = [sys.executable, FOLDER / "client_reader.py", *common, "--port", str(port), "--with", way]
        with Program(way, read, cores=bench.cores.server, log=BUILD / f"{way}.log") as reader:
            told = reader.answer(120)
    return {"per_second": told["count"] / told["seconds"], PER_CPU: told["count"] / told["cpu"]}


def beside(results: Results, feed: str, peer: str) -> float | None:
    """The ratio of two readers, by CPU time."""
    return results.ratio("client", PER_CPU, (WORK, feed), (WORK, peer))


def told(figures: Figures) -> str:
    return f"{figures['per_second']:,.0f} trades/s, {figures['per_cpu_second']:,.0f} a CPU second"


SCENARIO = Scenario("client", "trades a second into a program of a user, in Python", (7, 1), steps, told)
