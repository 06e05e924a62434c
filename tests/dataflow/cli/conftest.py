"""What the tests of several commands need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dataflow.cli.prepared import Daemon, listening


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Answers as it is told to."""
    with listening() as daemon:
        yield daemon
