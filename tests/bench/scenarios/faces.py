"""The faces beside each other: deliveries a CPU second at one rate, and the memory of an idle client.

All of them get one update a trade, at a rate that each of them can hold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from attrs import field, frozen

from ..compiled import BUILD, program
from ..load import Load
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..servers import SUBSCRIBE, SYMBOL, Dataflow, all_faces

CLIENTS: Final = 1_000
RATE: Final = 60  # trades a second
WARM_UP: Final = 1.5
SETTLE: Final = 1.0
DELIVERIES: Final = "deliveries"
IDLE: Final = "idle client"
JSONRPC: Final = "JSON-RPC"
SSE: Final = "SSE"
SIGNALR: Final = "SignalR"
PRICEHUB: Final = "pricehub"
STOMP: Final = "STOMP"
ALONE: Final = "JSON-RPC, no other face"
COMPACT: Final = SYMBOL.replace("-", "")


@frozen
class Kind:
    """The clients of a face: what each says, and by what its updates are known."""

    path: str
    count: str
    texts: Sequence[str] = ()
    options: Mapping[str, Any] = field(factory=dict)


_HUB = (
    '{"type":1,"target":"SendMessage","arguments":["{\\"jsonrpc\\":\\"2.0\\",\\"id\\":\\"1\\",\\"method\\":\\"subscribe\\",'
    f'\\"params\\":{{\\"channel\\":\\"trades\\",\\"symbol\\":\\"{SYMBOL}\\"}}}}"]}}'
)
_GRAPHQL = (
    '{"id":"1","type":"subscribe","payload":{"query":'
    f'"subscription {{ trades(symbol: \\"{SYMBOL}\\") {{ price qty side tradeId timestamp offset }} }}"}}}}'
)
KINDS: Final[Mapping[str, Kind]] = {
    JSONRPC: Kind("/ws", "trades.update", [SUBSCRIBE]),
    SSE: Kind(f"/api/v1/stream/{SYMBOL}", "event: trade", options={"raw": True}),
    SIGNALR: Kind("/blockchain", "trades.update", ['{"protocol":"json","version":1}', _HUB], {"end": 0x1E}),
    PRICEHUB: Kind("/pricehub", '"Price"'),
    "marketdata": Kind(f"/ws/marketdata?symbol={COMPACT}", '"close"'),
    STOMP: Kind(
        "/ws/websocket",
        '"close"',
        [
            "CONNECT\naccept-version:1.2\nhost:bench\n\n",
            f"SUBSCRIBE\nid:0\ndestination:/topic/market-data/{COMPACT}\n\n",
        ],
        {"end": 0},
    ),
    "GraphQL": Kind(
        "/graphql", '"next"', ['{"type":"connection_init"}', _GRAPHQL], {"protocol": "graphql-transport-ws"}
    ),
}


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 2.0 if bench.quick else 5.0
    if not bench.wanted("dataflow"):
        return
    yield Step(DELIVERIES, ALONE, seconds + 6, partial(_deliveries, bench, JSONRPC, seconds, alone=True))
    for name in KINDS:
        yield Step(DELIVERIES, name, seconds + 6, partial(_deliveries, bench, name, seconds))
    for name in KINDS:
        yield Step(IDLE, name, 8, partial(_memory, bench, name))


def _server(bench: Bench, alone: bool) -> Dataflow:
    return Dataflow(bench.cores, bench.checkout, {} if alone else all_faces())


def _load(bench: Bench, server: Dataflow, kind: Kind, clients: int) -> Load:
    return Load(
        program("wsload"),
        server.port,
        clients,
        text=kind.texts,
        cores=bench.cores.client,
        log=BUILD / "wsload.log",
        path=kind.path,
        count=kind.count,
        **kind.options,
    )


def _deliveries(bench: Bench, name: str, seconds: float, alone: bool = False) -> Figures:
    """The figures of one window. `share`: updates that arrived by updates that were due."""
    server = _server(bench, alone)
    try:
        with _load(bench, server, KINDS[name], CLIENTS) as load:
            server.tell(f"rate {RATE}")
            time.sleep(WARM_UP)
            window = load.window(seconds, server.program)
    finally:
        server.close()
    return {**window.figures(), "share": window.per_second / (RATE * CLIENTS)}


def _memory(bench: Bench, name: str) -> Figures:
    """KiB of a further client that is subscribed and gets nothing."""
    server = _server(bench, False)
    try:
        with _load(bench, server, KINDS[name], CLIENTS):
            time.sleep(SETTLE)
            before = server.program.resident()
            with _load(bench, server, KINDS[name], CLIENTS) as load:
                time.sleep(SETTLE)
                after = server.program.resident()
                dead = load.mark()["dead"]
    finally:
        server.close()
    return {"kib": (after - before) / CLIENTS, "dead": dead}


def told(figures: Figures) -> str:
    if "kib" in figures:
        return f"{figures['kib']:.1f} KiB" + troubles(figures)
    late = "" if figures["share"] > 0.97 else f", only {figures['share']:.0%} arrived"
    return (
        f"{figures['per_cpu_second']:,.0f} deliveries a CPU second, server {figures['server_cpu']:.0%}, "
        f"client {figures['client_cpu']:.0%} CPU{late}" + troubles(figures)
    )


SCENARIO = Scenario("faces", "deliveries a CPU second and memory of a client, by face", (3, 1), steps, told)
