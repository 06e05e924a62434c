"""Memory of an idle session: the growth of the server with some thousand more sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..compiled import BUILD, program
from ..load import Load
from ..peers import LIMIT, PEERS
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..servers import SUBSCRIBE
from .rates import start

_FIRST = 500  # sessions before the measurement: part of their memory is the server's own
_SETTLE = 1.0  # seconds


def steps(bench: Bench) -> Iterator[Step]:
    more = 2_000 if bench.quick else 5_000
    for name in [*PEERS, "dataflow"]:
        if bench.wanted(name) and name != LIMIT:
            yield Step("connected", name, 9, partial(measure, bench, name, more, ""))
    if bench.wanted("dataflow"):
        yield Step("subscribed", "dataflow", 9, partial(measure, bench, "dataflow", more, SUBSCRIBE))
        deflate = partial(measure, bench, "dataflow", more, SUBSCRIBE, deflate=True)
        yield Step("subscribed, deflate", "dataflow", 9, deflate)


def measure(bench: Bench, name: str, more: int, text: str, **options: bool) -> Figures:
    """KiB a session, and the seconds and CPU seconds for `more` clients to connect; each client sends `text`.

    `options` of the load client.
    """
    server = start(bench, name, _FIRST + more)
    wsload, cores, log = program("wsload"), bench.cores.client, BUILD / "wsload.log"
    try:
        with Load(wsload, server.port, _FIRST, text=text, cores=cores, log=log, **options):
            time.sleep(_SETTLE)
            before, cpu = server.program.resident(), server.program.cpu()
            with Load(wsload, server.port, more, text=text, cores=cores, log=log, **options) as load:
                connect_cpu = server.program.cpu() - cpu
                time.sleep(_SETTLE)
                after = server.program.resident()
                dead = load.mark()["dead"]
    finally:
        server.close()
    return {
        "kib": (after - before) / more,
        "dead": dead,
        "connect_seconds": load.connect_seconds,
        "connect_cpu": connect_cpu,
    }


def told(figures: Figures) -> str:
    return f"{figures['kib']:.1f} KiB a session" + troubles(figures)


SCENARIO = Scenario("memory", "resident memory of an idle session", (2, 1), steps, told)
