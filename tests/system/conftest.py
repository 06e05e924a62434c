"""For all system tests: a log that shows only what went wrong, and a daemon that has patience."""

from __future__ import annotations

import pytest

from dataflow import logs
from dataflow.cache import tiers
from dataflow.faces.stomp import requests


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    logs.configure(level="warning")


@pytest.fixture(autouse=True)
def _patient_with_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wait for a disk as long as it takes. Two seconds, after which the daemon answers without it, are
    crossed by a machine that has no turn for the thread that reads."""
    monkeypatch.setattr(tiers, "PATIENCE", 300.0)


@pytest.fixture(autouse=True)
def _patient_with_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of SockJS may be without a response for as long as it takes. A busy machine crosses five seconds
    between two polls."""
    monkeypatch.setattr(requests, "GONE_AFTER", 300.0)
