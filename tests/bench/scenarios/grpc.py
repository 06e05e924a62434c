"""gRPC on one connection, beside grpcio's own server: messages in on one stream, messages out on several.

The client is grpcio's, in Python, and mostly the limit of what passes; so the server's CPU time counts, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

from ..compiled import BUILD
from ..plan import Bench, Figures, Scenario, Step
from ..processes import Program
from ..servers import CHECKOUT, SYMBOL, Dataflow, free_port

OURS: Final = "dataflow"
THEIRS: Final = "grpcio"
IN: Final = "in"
OUT: Final = "out"
RATE: Final = 500  # trades a second, each a message to every stream
PROGRAMS: Final = CHECKOUT / "tests" / "bench" / "peer_programs"


def steps(bench: Bench) -> Iterator[Step]:
    count, seconds = (20_000, 2.0) if bench.quick else (100_000, 5.0)
    for name in filter(bench.wanted, (OURS, THEIRS)):
        yield Step(IN, name, count / 10_000 + 4, partial(_measured, bench, name, f"push {count}"))
    for name in filter(bench.wanted, (OURS, THEIRS)):
        yield Step(OUT, name, seconds + 4, partial(_measured, bench, name, f"follow {seconds}"))


def _measured(bench: Bench, name: str, command: str) -> Figures:
    with ExitStack() as stack:
        if name == OURS:
            server, port = _daemon(bench, stack, 0 if "push" in command else RATE)
        else:
            server = stack.enter_context(_program("grpcio_server", bench.cores.server))
            port = server.answer()["port"]
        client = stack.enter_context(_program("grpc_client", bench.cores.client, str(port), SYMBOL))
        client.answer()
        before = server.cpu()
        passed = client.ask(command, 120)
        cpu = server.cpu() - before
    per_second = passed["count"] / passed["seconds"]
    return {"per_second": per_second, "per_cpu_second": passed["count"] / max(cpu, 0.01)}


def _daemon(bench: Bench, stack: ExitStack, rate: int) -> tuple[Program, int]:
    port = free_port()
    tables = {
        "faces.grpc": {"enabled": True, "port": port},
        "sources.ticks": {"connector": "ticks_protobuf", "port": free_port()},
    }
    daemon = Dataflow(bench.cores, bench.checkout, tables)
    stack.callback(daemon.close)
    if rate:
        daemon.tell(f"rate {rate}")
    return daemon.program, port


def _program(name: str, cores: set[int], *words: str) -> Program:
    command = [sys.executable, PROGRAMS / f"{name}.py", *words]
    environ = {"PYTHONPATH": str(CHECKOUT)}
    return Program(name, command, cores=cores, log=BUILD / f"{name}.log", environ=environ, cwd=CHECKOUT)


def told(figures: Figures) -> str:
    return f"{figures['per_second']:,.0f} messages/s, {figures['per_cpu_second']:,.0f} a CPU second of the server"


SCENARIO = Scenario("grpc", "messages/s of gRPC on one connection, in and out", (3, 1), steps, told)
