"""The aims, and the figures that are held against them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import frozen

from .peers import CRYPTOFEED, FASTAPI, JOINING, LIMIT, NODE, PICOWS, STRAWBERRY
from .results import Results
from .scenarios import (
    candles,
    client,
    deflate,
    faces,
    graphql,
    grpc,
    history,
    ingest,
    rates,
    saturation,
    stalled,
    storm,
    ticks,
    tls,
)

OURS = "dataflow"


@frozen
class Aim:
    """`measured` gives None for a figure that was not measured. `least`: the bound is a minimum, else a maximum."""

    about: str
    bound: float
    unit: str
    least: bool
    measured: Callable[[Results], float | None]

    def aim(self) -> str:
        return f"{'>=' if self.least else '<='} {shown(self.bound)}{self.unit}"

    def verdict(self, results: Results) -> str:
        """`met`, `missed by so much`, or `not measured`."""
        value = self.measured(results)
        if value is None:
            return "not measured"
        if value >= self.bound if self.least else value <= self.bound:
            return "met"
        if self.bound == 0:
            return "missed"
        off = (self.bound - value if self.least else value - self.bound) / self.bound
        return f"missed by {off:.0%}" if off < 3 else f"missed, {value / self.bound:.0f} times as much"


def shown(value: float) -> str:
    """With the digits that carry information."""
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _saturation(other: str) -> Callable[[Results], float | None]:
    work = saturation.work(1_000)
    return lambda results: results.ratio("saturation", "per_second", (work, OURS), (work, other))


def _rates(figure: str, rate: int, clients: int) -> Callable[[Results], float | None]:
    return lambda results: results.median("rates", rates.work(rate, clients), OURS, figure)


def _beside(other: str, figure: str, rate: int) -> Callable[[Results], float | None]:
    """The ratio to another server at a fixed rate, to 1,000 clients."""
    return lambda results: rates.beside(results, figure, rate, OURS, other)


def _storm(figure: str) -> Callable[[Results], float | None]:
    return lambda results: results.median("storm", storm.WORK, OURS, figure)


def _unrecovered(results: Results) -> float | None:
    found = [_storm(figure)(results) for figure in ("lost", "gaps", "unrecovered")]
    return None if None in found else sum(value for value in found if value is not None)


def _stalled(results: Results) -> float | None:
    """The largest ratio of the three policies."""
    found = [
        results.ratio("stalled", "p99_ms", (policy, OURS), (stalled.NOBODY, OURS))
        for policy in stalled.POLICIES
    ]
    return max((value for value in found if value is not None), default=None)


def _tls(results: Results) -> float | None:
    plain, encrypted = tls.work(tls.PLAIN), tls.work(tls.TLS)
    return results.ratio("tls", "per_second", (encrypted, OURS), (plain, OURS))


def _deflate(figure: str, kind: str) -> Callable[[Results], float | None]:
    """The larger of the ratios to today's JSON, at both rates."""

    def measured(results: Results) -> float | None:
        found = [deflate.beside(results, figure, rate, kind) for rate in deflate.RATES]
        return max((value for value in found if value is not None), default=None)

    return measured


def beside_jsonrpc(face: str) -> Callable[[Results], float | None]:
    """Deliveries a CPU second, as a share of JSON-RPC's."""
    this, other = (faces.DELIVERIES, face), (faces.DELIVERIES, faces.JSONRPC)
    return lambda results: results.ratio("faces", "per_cpu_second", this, other)


def _jsonrpc_beside_alone(results: Results) -> float | None:
    this, other = (faces.DELIVERIES, faces.JSONRPC), (faces.DELIVERIES, faces.ALONE)
    return results.ratio("faces", "per_cpu_second", this, other)


def _grpc(work: str) -> Callable[[Results], float | None]:
    return lambda results: results.ratio("grpc", "per_cpu_second", (work, OURS), (work, grpc.THEIRS))


def _graphql(results: Results) -> float | None:
    work = graphql.WORK
    return results.ratio("graphql", "per_cpu_second", (work, OURS), (work, STRAWBERRY))


def _days(results: Results) -> float | None:
    this, other = (ingest.DAYS, OURS), ("binance, one subscriber", OURS)
    return results.ratio("ingest", "per_cpu_second", this, other)


def _ingest(results: Results) -> float | None:
    return results.median("ingest", "binance, one subscriber", OURS, "per_second")


def _history(work: str, figure: str) -> Callable[[Results], float | None]:
    return lambda results: results.median("history", work, OURS, figure)


def _candles(what: str) -> Callable[[Results], float | None]:
    return lambda results: results.median("candles", candles.work(what, 64), OURS, "us")


def _ticks(results: Results) -> float | None:
    return results.median("ticks", ticks.THROUGH, OURS, "per_second")


def _beside_cryptofeed(results: Results) -> float | None:
    this, other = ("binance, one subscriber", OURS), ("binance, no subscriber", CRYPTOFEED)
    return results.ratio("ingest", "per_second", this, other)


AIMS = (
    Aim(
        "saturation, 1,000 subscribers, one update a send: share of the C limit",
        0.85,
        "",
        True,
        _saturation(LIMIT),
    ),
    Aim("the same, beside Node ws", 1.5, " x", True, _saturation(NODE)),
    Aim("the same, beside FastAPI", 2.2, " x", True, _saturation(FASTAPI)),
    Aim(
        "5,000 trades/s x 1,000 clients: share that arrives in time",
        0.99,
        "",
        True,
        _rates("share", 5_000, 1_000),
    ),
    # No aim in milliseconds here: they belong to the machine, a ratio to the limit mostly does not.
    Aim("the same: p99, beside the C limit that joins", 2, " x", False, _beside(JOINING, "p99_ms", 5_000)),
    Aim(
        "500 trades/s x 1,000 clients: p99, beside the C limit that joins",
        2,
        " x",
        False,
        _beside(JOINING, "p99_ms", 500),
    ),
    Aim("100 trades/s x 1,000 clients: p50, beside picows", 1.1, " x", False, _beside(PICOWS, "p50_ms", 100)),
    Aim(
        "100 trades/s x 1,000 clients: CPU, beside picows",
        1.1,
        " x",
        False,
        _beside(PICOWS, "server_cpu", 100),
    ),
    Aim("one client, 100 trades/s: p50", 0.5, " ms", False, _rates("p50_ms", 100, 1)),
    Aim("idle session", 8, " KiB", False, lambda results: results.median("memory", "connected", OURS, "kib")),
    Aim("10,000 clients connect, subscribe, get a snapshot of 50", 8, " s", False, _storm("seconds")),
    Aim("the same: longest silence towards a client", 2, " s", False, _storm("silence")),
    Aim("10,000 come back after a restart: places lost, gaps, not recovered", 0, "", False, _unrecovered),
    Aim(
        "50 stalled clients in 1,000: p99 of the others, beside no stalled client", 1.1, " x", False, _stalled
    ),
    Aim("TLS, 8 joined updates, beside plain", 0.5, " x", True, _tls),
    Aim(
        "2,000 and 5,000 trades/s x 1,000 clients that offer deflate: bytes, beside plain JSON",
        0.125,
        " x",
        False,
        _deflate("bytes_per_update", deflate.DEFLATE),
    ),
    Aim("the same: p50", 0.5, " x", False, _deflate("p50_ms", deflate.DEFLATE)),
    Aim("the same: p99", 0.5, " x", False, _deflate("p99_ms", deflate.DEFLATE)),
    Aim(
        "the same in the format compact: bytes",
        0.125,
        " x",
        False,
        _deflate("bytes_per_update", deflate.COMPACT_DEFLATE),
    ),
    Aim("compact without deflate: bytes", 0.33, " x", False, _deflate("bytes_per_update", deflate.COMPACT)),
    Aim("ingest with one subscriber, trades a second", 200_000, "", True, _ingest),
    Aim("the same, beside cryptofeed, which has no subscriber", 2.5, " x", True, _beside_cryptofeed),
    Aim("the same with aggregates of the day, beside without", 0.85, " x", True, _days),
    Aim("ticks by TCP through to one subscriber, a second", 100_000, "", True, _ticks),
    Aim("deliveries a CPU second, beside JSON-RPC: SignalR", 0.9, " x", True, beside_jsonrpc(faces.SIGNALR)),
    Aim("the same: /pricehub", 0.9, " x", True, beside_jsonrpc(faces.PRICEHUB)),
    Aim("the same: STOMP", 0.6, " x", True, beside_jsonrpc(faces.STOMP)),
    Aim("the same: SSE", 0.5, " x", True, beside_jsonrpc(faces.SSE)),
    Aim("JSON-RPC with all faces on and unused, beside alone", 0.95, " x", True, _jsonrpc_beside_alone),
    Aim("gRPC, messages in a CPU second, beside grpcio", 1, " x", True, _grpc(grpc.IN)),
    Aim("gRPC, messages out a CPU second, beside grpcio", 1, " x", True, _grpc(grpc.OUT)),
    Aim("candles: the fold alone, in runs of 64", 0.6, " us", False, _candles(candles.FOLD)),
    Aim("the same with all fields", 1, " us", False, _candles(candles.ALL_FIELDS)),
    Aim("history: bytes of a real trade", 16, "", False, _history(history.RECORDED, "bytes")),
    *[
        Aim(about, 10, " ms", False, _history(history.QUESTIONS, f"{name}_p99_ms"))
        for about, name in (
            ("history of 100 M trades: the latest 50, p99", "latest_50"),
            ("the same: 1,000 after a time, p99", "after_1000"),
            ("the same: 60 bars of a minute, p99", "bars_60"),
        )
    ],
    Aim("warm start of 100 symbols", 1, " s", False, _history(history.QUESTIONS, "warm_start_seconds")),
    Aim("GraphQL, queries a CPU second, beside strawberry on uvicorn", 1, " x", True, _graphql),
    *[
        Aim(about, 1.5, " x", True, partial(client.beside, feed=feed, peer=client.PLAIN))
        for about, feed in zip(
            (
                "the Python client on asyncio, trades a CPU second, beside websockets + json",
                "the same on Trio",
            ),
            client.OURS,
            strict=True,
        )
    ],
)
