"""The kinds of work, one a file. `ALL` has the order of a run."""

from __future__ import annotations

from ..plan import Scenario
from . import (
    candles,
    client,
    deflate,
    download,
    faces,
    graphql,
    grpc,
    history,
    ingest,
    lines,
    memory,
    rates,
    recording,
    saturation,
    stalled,
    start,
    storm,
    ticks,
    tls,
)

ALL: tuple[Scenario, ...] = (
    start.SCENARIO,
    saturation.SCENARIO,
    rates.SCENARIO,
    deflate.SCENARIO,
    memory.SCENARIO,
    ingest.SCENARIO,
    lines.SCENARIO,
    recording.SCENARIO,
    ticks.SCENARIO,
    storm.SCENARIO,
    stalled.SCENARIO,
    tls.SCENARIO,
    faces.SCENARIO,
    grpc.SCENARIO,
    graphql.SCENARIO,
    candles.SCENARIO,
    history.SCENARIO,
    download.SCENARIO,
    client.SCENARIO,
)
