"""Numbers in words."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.cli import words


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.5, "0 s"),
        (60, "1 min 0 s"),
        (7260, "2 h 1 min"),
        (266460.9, "3 d 2 h"),
        (-5, "0 s"),
        ("60", ""),
        (None, ""),
    ],
)
def test_ages(seconds: Any, told: str) -> None:
    """An age has two units, as the daemon counts it: no clock of this machine is asked."""
    assert words.age(seconds) == told


def test_one_and_many() -> None:
    """A single one is in the singular."""
    assert [words.several(n, "session") for n in (0, 1, 1200)] == [
        "0 sessions",
        "1 session",
        "1,200 sessions",
    ]
    assert words.several(2, "switch", "switches") == "2 switches"


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (0.04, "0.0"), (12.34, "12.3"), (99.96, "100"), (4321.5, "4,322"), (None, "\N{EN DASH}")],
)
def test_rates(value: Any, told: str) -> None:
    """Small ones have a digit behind the point. What is not known is a dash, never 0."""
    assert words.rate(value) == told


@pytest.mark.parametrize(
    ("value", "told"), [(0.0031, "3 ms"), (-0.016, "-16 ms"), (2.55, "2.5 s"), (None, "\N{EN DASH}")]
)
def test_lags(value: Any, told: str) -> None:
    """Short ones are in ms; a clock that is ahead makes them negative."""
    assert words.lag(value) == told


@pytest.mark.parametrize(
    ("value", "told"), [(0, "0 B"), (1023, "1,023 B"), (136314880, "130 MiB"), (None, "\N{EN DASH}")]
)
def test_sizes(value: Any, told: str) -> None:
    """In the largest unit that makes it a whole number."""
    assert words.size(value) == told


@pytest.mark.parametrize(("value", "told"), [(0.1234, "12 %"), (1.5, "150 %"), (None, "\N{EN DASH}")])
def test_shares(value: Any, told: str) -> None:
    """Of one core: several threads may make it more than all."""
    assert words.share(value) == told
