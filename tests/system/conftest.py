"""For all system tests: a log that shows only what went wrong, and readers that wait for the disk."""

from __future__ import annotations

import pytest

from dataflow import logs
from dataflow.cache import tiers


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    logs.configure(level="warning")


@pytest.fixture(autouse=True)
def _patient_with_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wait for a disk as long as it takes. Two seconds, after which the daemon answers without it, are
    crossed by a machine that has no turn for the thread that reads."""
    monkeypatch.setattr(tiers, "PATIENCE", 300.0)
