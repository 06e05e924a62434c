"""Real traffic: the excerpts shipped with the project, and whole recordings where there are any."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
EXCERPTS = ROOT / "tests" / "data"


class Traffic:
    """Reads excerpts by name, and whole recordings from the folder in DATAFLOW_RECORDINGS."""

    def __init__(self) -> None:
        self.whole = Path(os.environ.get("DATAFLOW_RECORDINGS", ROOT.parent / "shared"))

    def excerpt(self, name: str) -> list[str]:
        """The incoming messages of an excerpt."""
        return list(_incoming(EXCERPTS / name))

    def recording(self, name: str) -> list[str]:
        """The incoming messages of a whole recording; skips the test where there is none."""
        return list(_incoming(self._present(self.whole / "recordings" / name)))

    def oracle(self) -> list[dict[str, str]]:
        """The trades of the whole Binance recordings, decoded by independent code."""
        return _table(self._present(self.whole / "trades" / "binance_spot_20240808_09.csv.gz"))

    def excerpt_oracle(self) -> list[dict[str, str]]:
        """The trades of the Binance excerpts."""
        return _table(EXCERPTS / "binance_spot_20240808.csv")

    def _present(self, path: Path) -> Path:
        if not path.exists():
            pytest.skip(f"no recording {path.name} in DATAFLOW_RECORDINGS")
        return path


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from file


def _incoming(path: Path) -> Iterator[str]:
    for line in _lines(path):
        entry: dict[str, Any] = json.loads(line)
        if entry["dir"] == "in":
            yield entry["msg"]


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(_lines(path)))


@pytest.fixture(scope="session")
def traffic() -> Traffic:
    return Traffic()
