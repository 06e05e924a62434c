"""Ten minutes of real trades of two symbols, as an exchange's archive has them (see `tests/data/README.md`)."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

from dataflow.domain import Trade

FILE: Final = Path(__file__).parents[1] / "data" / "binance_spot_20240808_09.csv.gz"


@cache
def rows() -> Sequence[Mapping[str, str]]:
    """The rows of the file in their order: each number with exactly its digits, BTCUSDT before ETHUSDT."""
    with gzip.open(FILE, "rt") as lines:
        return list(csv.DictReader(lines))


def admitted(row: Mapping[str, str], symbol: str) -> Trade:
    """A row as a source delivers it, under the name `symbol`."""
    return Trade(
        "binance",
        symbol,
        row["trade_id"],
        row["side"],  # type: ignore[arg-type]
        Decimal(row["price"]),
        Decimal(row["qty"]),
        int(row["timestamp_us"]) * 1000,
        int(row["trade_id"]),
    )
