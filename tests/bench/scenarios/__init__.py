"""The kinds of work, a file each; `ALL` in the order in which they are run."""

from __future__ import annotations

from ..plan import Scenario
from . import ingest, memory, rates, saturation, stalled, tls

ALL: tuple[Scenario, ...] = (
    saturation.SCENARIO,
    rates.SCENARIO,
    memory.SCENARIO,
    ingest.SCENARIO,
    stalled.SCENARIO,
    tls.SCENARIO,
)
