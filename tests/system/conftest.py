"""The system tests' log: warnings only, so that a failed test shows what went wrong and nothing else."""

from __future__ import annotations

import pytest

from dataflow import logs


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    logs.configure(level="warning")
