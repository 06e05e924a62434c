"""Aggregates as messages: whole units, all digits beside them, nanoseconds, and no number that does not fit."""

from __future__ import annotations

from decimal import Decimal

import pytest

from dataflow.domain.aggregate import Aggregate
from dataflow.faces.grpc.format import MOST, message

TIME = 1_700_000_000_123_456_789


def aggregate(volume: str) -> Aggregate:
    return Aggregate(
        symbol="AAPL",
        start=1_699_920_000_000_000_000,
        open=Decimal("150.25"),
        high=Decimal("152.1"),
        low=Decimal("1E-7"),
        close=Decimal("151.5"),
        volume=Decimal(volume),
        count=3,
        timestamp=TIME,
        offset=3,
    )


def test_prices_are_doubles_and_the_time_is_in_nanoseconds() -> None:
    told = message(aggregate("15"))
    assert (told.symbol, told.open, told.high, told.low, told.close) == ("AAPL", 150.25, 152.1, 1e-7, 151.5)
    assert told.timestamp == TIME


@pytest.mark.parametrize(
    ("volume", "units", "exact"),
    [
        ("15", 15, "15"),
        ("15.000", 15, "15"),
        ("3.0251", 3, "3.0251"),
        ("0.99999999", 0, "0.99999999"),
        ("1E+3", 1000, "1000"),
        ("1E-8", 0, "0.00000001"),
        (str(MOST), MOST, str(MOST)),
        (str(2 * MOST), MOST, str(2 * MOST)),
    ],
)
def test_a_volume_is_whole_units_rounded_down_and_all_of_it_as_text(
    volume: str, units: int, exact: str
) -> None:
    """Two ticks can have more units than a number of the message: then it has its greatest."""
    told = message(aggregate(volume))
    assert (told.volume, told.volume_exact) == (units, exact)
