"""Trades a second from one source: admitted by the daemon, and delivered to a client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from .. import peers
from ..compiled import BUILD, program
from ..load import Load
from ..peers import READERS
from ..plan import Bench, Figures, Scenario, Step, troubles
from ..processes import Program, ProgramFailed
from ..servers import SUBSCRIBE, SYMBOL, SYMBOLS, Dataflow, Tables, all_faces
from ..servers import feed as feed_of

WARM_UP = 2.0
DAYS = "binance, one subscriber, days followed"
ALL_FACES = "binance, one subscriber, all faces on"
_ADMITTED = {
    "binance": 'dataflow_trades_total{source="binance",verdict="admitted"}',
    "blockchain": 'dataflow_trades_total{source="blockchain",verdict="admitted"}',
}


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 3.0 if bench.quick else 6.0
    for name in READERS:
        if bench.wanted(name):
            yield Step("binance, no subscriber", name, seconds + 4, partial(_reader, bench, name, seconds))
    if not bench.wanted("dataflow"):
        return
    for speak in ("binance", "blockchain"):
        for clients in (1, 0):
            run = partial(dataflow, bench, clients, seconds, speak)
            yield Step(
                f"{speak}, {'one subscriber' if clients else 'no subscriber'}", "dataflow", seconds + 4, run
            )
    for work, tables in ((DAYS, {"faces.marketdata": {"enabled": True}}), (ALL_FACES, all_faces())):
        yield Step(work, "dataflow", seconds + 4, partial(dataflow, bench, 1, seconds, "binance", tables))


def dataflow(bench: Bench, clients: int, seconds: float, speak: str, faces: Tables | None = None) -> Figures:
    """The figures of the daemon with one client or none, on a feed that speaks the language of an exchange."""
    tables: Tables = {"sources.binance": {"stream": "aggTrade"}} if speak == "binance" else {}
    tables |= faces or {}
    server = Dataflow(bench.cores, bench.checkout, tables, speak=[speak])
    try:
        return _through(bench, server, seconds, speak) if clients else _admitted(server, seconds, speak)
    finally:
        server.close()


def _through(bench: Bench, server: Dataflow, seconds: float, speak: str) -> Figures:
    text = SUBSCRIBE if speak == "binance" else SUBSCRIBE.replace(SYMBOL, SYMBOLS[speak])
    log = BUILD / "wsload.log"
    with Load(program("wsload"), server.port, 1, text=text, cores=bench.cores.client, log=log) as load:
        server.tell("flood")
        time.sleep(WARM_UP)
        before = server.metric(_ADMITTED[speak]), server.feed.cpu()
        window = load.window(seconds, server.program)
        admitted = (server.metric(_ADMITTED[speak]) - before[0]) / window.seconds
        feed = (server.feed.cpu() - before[1]) / window.seconds
    return {**window.figures(), "admitted": admitted, "feed_cpu": feed}


def _admitted(server: Dataflow, seconds: float, speak: str) -> Figures:
    server.tell("flood")
    time.sleep(WARM_UP)
    before, begun = server.metric(_ADMITTED[speak]), time.monotonic()
    cpu, feed = server.program.cpu(), server.feed.cpu()
    time.sleep(seconds)
    after, elapsed = server.metric(_ADMITTED[speak]), time.monotonic() - begun
    return {
        "per_second": (after - before) / elapsed,
        "admitted": (after - before) / elapsed,
        "server_cpu": (server.program.cpu() - cpu) / elapsed,
        "feed_cpu": (server.feed.cpu() - feed) / elapsed,
        "skipped": 0,
    }


def _reader(bench: Bench, name: str, seconds: float) -> Figures:
    with (
        feed_of("binance", bench.cores) as feed,
        peers.reader(name, bench.cores, feed.answer()["port"]) as reader,
    ):
        until_read(feed, reader)
        feed.ask("flood")
        time.sleep(WARM_UP)
        before, begun = reader.ask("count")["count"], time.monotonic()
        cpu, fed = reader.cpu(), feed.cpu()
        time.sleep(seconds)
        rate = (reader.ask("count")["count"] - before) / (time.monotonic() - begun)
        server, feeding = (reader.cpu() - cpu) / seconds, (feed.cpu() - fed) / seconds
    return {"per_second": rate, "admitted": rate, "server_cpu": server, "feed_cpu": feeding, "skipped": 0}


def until_read(feed: Program, reader: Program) -> None:
    """Wait until the feed has a reader. Raises ProgramFailed."""
    deadline = time.monotonic() + 20
    while not feed.ask("count")["readers"]:
        reader.check()
        if time.monotonic() > deadline:
            raise ProgramFailed(f"{reader.name} does not connect to the feed")
        time.sleep(0.05)


def told(figures: Figures) -> str:
    return (
        f"{figures['per_second']:,.0f}/s (admitted {figures['admitted']:,.0f}/s), server {figures['server_cpu']:.0%}, "
        f"feed {figures['feed_cpu']:.0%} CPU" + troubles(figures)
    )


SCENARIO = Scenario("ingest", "trades a second from a source", (3, 1), steps, told)
