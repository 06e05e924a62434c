"""Figures for metrics: nothing is lost between the bounds, and a maximum is forgotten in time."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.figures import SECONDS, Histogram, RecentMaximum


@given(st.lists(st.one_of(st.sampled_from(SECONDS), st.floats(0, 100))))
def test_each_duration_counts_in_every_bucket_that_bounds_it(durations: list[float]) -> None:
    """As Prometheus wants it: a bucket counts what is at most its bound, the last one everything."""
    histogram = Histogram()
    for each in durations:
        histogram.add(each)
    told = dict(histogram.cumulative())
    assert list(told) == [*SECONDS, math.inf]
    assert told == {bound: sum(each <= bound for each in durations) for bound in told}
    assert histogram.total == pytest.approx(sum(durations))


@example([(0, 1.0), (32, 0.0)], 29)
@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 10)), min_size=1), st.integers(0, 100))
def test_a_maximum_is_that_of_the_last_one_to_two_windows(steps: list[tuple[int, float]], later: int) -> None:
    """It never misses a value of the last window, and never remembers one that is older than two."""
    recent, now, taken = RecentMaximum(window=30), 0, []
    for pause, value in steps:
        now += pause
        recent.add(value, now)
        taken.append((now, value))
    now += later
    told = recent.value(now)
    assert told >= max([value for at, value in taken if now - at < 30], default=0.0)
    assert told <= max([value for at, value in taken if now - at < 60], default=0.0)
