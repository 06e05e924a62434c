"""The pace of frames, by their times alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.net.pace import WINDOW, Kind, Pace

WISHES = st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from(Kind)), min_size=1, max_size=60)


@given(most=st.integers(1, 7), wishes=WISHES)
def test_never_more_than_allowed_within_a_second(most: int, wishes: list[tuple[float, Kind]]) -> None:
    """Whatever is wanted when: no window of the peer holds more than `most` frames, and nobody waits for ever."""
    pace, now, left = Pace(most), 0.0, list[float]()
    for later, kind in wishes:
        now = max(now + later, pace.free_at(kind))
        pace.left(kind, now)
        left.append(now)
    for n, first in enumerate(left[:-most]):
        assert left[n + most] >= first + WINDOW


@given(most=st.integers(2, 7), kind=st.sampled_from(Kind))
def test_neither_kind_starves_the_other(most: int, kind: Kind) -> None:
    """A flood of one kind leaves a place for the other at any time."""
    pace, now = Pace(most), 0.0
    other = Kind.ANSWER if kind is Kind.REQUEST else Kind.REQUEST
    for _ in range(50):
        now = max(now, pace.free_at(kind))
        pace.left(kind, now)
        assert pace.free_at(other) <= now


def test_no_bound_is_no_wait() -> None:
    """0 allows any number."""
    pace = Pace(0)
    for _ in range(100):
        assert pace.free_at(Kind.REQUEST) < 0
        pace.left(Kind.REQUEST, 1.0)
