"""GraphQL queries over HTTP, beside strawberry on uvicorn: the same query, of the same fields, in one document."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from ..compiled import BUILD
from ..peers import CACHING, FOLDER, STRAWBERRY, log_of, python
from ..plan import Bench, Figures, Scenario, Step
from ..processes import Program, ProgramFailed
from ..servers import SYMBOL, Dataflow

OURS: Final = "dataflow"
CONNECTIONS: Final = 16
WORK: Final = f"{CONNECTIONS} connections"
WARM_UP: Final = 1.0
QUERY: Final = "query($s: String!) { marketData(symbol: $s) { symbol open high low close volume timestamp } }"
BODY: Final = json.dumps({"query": QUERY, "variables": {"s": SYMBOL}})


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 3.0 if bench.quick else 6.0
    for name in filter(bench.wanted, (OURS, STRAWBERRY, CACHING)):
        yield Step(WORK, name, seconds + 4, partial(_measured, bench, name, seconds))


def _measured(bench: Bench, name: str, seconds: float) -> Figures:
    with ExitStack() as stack:
        if name == OURS:
            server, port, path = _daemon(bench, stack)
        else:
            command: list[str | Path] = [python(), FOLDER / "strawberry_uvicorn.py"]
            command += ["caching"] if name == CACHING else []
            server = Program(name, command, cores=bench.cores.server, log=log_of(name))
            stack.enter_context(server)
            port, path = server.answer()["port"], "/"
        words = [sys.executable, FOLDER / "http_client.py", str(port), path, str(CONNECTIONS), BODY]
        client = Program("client", words, cores=bench.cores.client, log=BUILD / "http_client.log")
        stack.enter_context(client)
        if len(client.answer()["answer"]["data"]["marketData"]) != QUERY.count(" ") - 7:
            raise ProgramFailed(f"{name} does not answer all fields")
        client.ask(str(WARM_UP))
        cpu, used = server.cpu(), client.cpu()
        passed = client.ask(str(seconds))
        cpu, used = server.cpu() - cpu, client.cpu() - used
    return {
        "per_second": passed["count"] / passed["seconds"],
        "per_cpu_second": passed["count"] / max(cpu, 0.01),
        "client_cpu": used / passed["seconds"],
    }


def _daemon(bench: Bench, stack: ExitStack) -> tuple[Program, int, str]:
    """With one symbol that has a bar of the day."""
    daemon = Dataflow(bench.cores, bench.checkout, {"faces.graphql": {"enabled": True}})
    stack.callback(daemon.close)
    daemon.tell("rate 100")
    admitted = 'dataflow_trades_total{source="binance",verdict="admitted"}'
    while not daemon.metric_or_zero(admitted):
        time.sleep(0.05)
    daemon.tell("idle")
    time.sleep(0.2)  # a trade on its way would change the answer
    return daemon.program, daemon.port, "/graphql"


def told(figures: Figures) -> str:
    return (
        f"{figures['per_second']:,.0f} queries/s, {figures['per_cpu_second']:,.0f} a CPU second of the server, "
        f"client {figures['client_cpu']:.0%} CPU"
    )


SCENARIO = Scenario(
    "graphql", "GraphQL queries/s over HTTP, beside strawberry on uvicorn", (3, 1), steps, told
)
