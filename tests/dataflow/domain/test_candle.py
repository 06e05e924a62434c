"""What can be the interval of a candle, and the words for what cannot."""

from __future__ import annotations

from decimal import Decimal

import pytest
from attrs import evolve

from dataflow.domain.candle import DAY, HOUR, MINUTE, SECOND, CandleRules, Interval, interval
from dataflow.settings.schema import Candles


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1s", Interval("1s", width=SECOND)),
        ("15s", Interval("15s", width=15 * SECOND)),
        ("1m", Interval("1m", width=MINUTE)),
        ("4h", Interval("4h", width=4 * HOUR)),
        ("1d", Interval("1d", width=DAY)),
        ("100t", Interval("100t", trades=100)),
        ("10v", Interval("10v", volume=Decimal(10))),
        ("0.5v", Interval("0.5v", volume=Decimal("0.5"))),
    ],
)
def test_intervals(name: str, expected: Interval) -> None:
    """Time, a number of trades, or a volume."""
    assert interval(name) == expected


@pytest.mark.parametrize(
    "name",
    ["", "1", "m", "1M", "0m", "01m", "-1m", "1.5m", "1.5t", "0t", "0v", "0.0v", "7m", "2d", "90s", "1 m", "1m\n", "1e3t"],
)  # fmt: skip
def test_what_is_no_interval(name: str) -> None:
    """Windows must divide a day, and those of a minute and more be whole minutes: so each is a sum of finer ones."""
    with pytest.raises(ValueError, match="must be a number and a unit"):
        interval(name)


def test_the_table_of_the_configuration() -> None:
    """Its defaults are those of the rules; a wrong interval is named."""
    assert Candles().rules == CandleRules()
    assert Candles(lateness=0.5).rules == evolve(CandleRules(), lateness=SECOND // 2)
    with pytest.raises(ValueError, match=r'^"7m" must be a number and a unit'):
        Candles(intervals=("1m", "7m"))
    with pytest.raises(ValueError, match="no interval twice"):
        Candles(intervals=("1m", "1m"))
