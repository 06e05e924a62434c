"""The kinds of work, a file each; `ALL` in the order in which they are run."""

from __future__ import annotations

from ..plan import Scenario
from . import ingest, rates, saturation

ALL: tuple[Scenario, ...] = (saturation.SCENARIO, rates.SCENARIO, ingest.SCENARIO)
