"""The pace of a symbol, and what is concluded from the newest trade of an upstream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.sources.cadence import LEAST, MOST, Cadence, Compared, compare
from dataflow.sources.port import Newest

SECOND = 10**9


def test_a_symbol_without_a_history_gets_the_least_patience() -> None:
    """Nothing is known of it, so it is asked about soon: it may be mute from its first second on."""
    assert Cadence().patience == LEAST


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_patience_is_bounded_and_longer_than_the_last_silence(silences: list[float]) -> None:
    """Whatever came before: a silence like the last one is usual, and no silence is usual for ever."""
    cadence = Cadence()
    for silence in silences:
        cadence.heard(silence)
    assert LEAST <= cadence.patience <= MOST
    assert cadence.patience >= min(silences[-1], MOST)


def test_a_symbol_that_gets_faster_is_believed_after_a_while() -> None:
    """One long silence is forgotten by and by, not at once."""
    cadence = Cadence()
    cadence.heard(60.0)
    cadence.heard(1.0)
    assert cadence.patience == MOST
    for _ in range(100):
        cadence.heard(1.0)
    assert cadence.patience == LEAST


def test_a_fixed_patience_is_not_learned() -> None:
    """What the configuration says counts."""
    cadence = Cadence(fixed=7.5)
    cadence.heard(60.0)
    assert cadence.patience == 7.5


@pytest.mark.parametrize(
    ("told", "known", "found"),
    [
        (Newest(5), Newest(5), Compared.SAME),
        (Newest(6), Newest(5), Compared.NEWER),
        (Newest(4), Newest(5), Compared.UNCLEAR),
        (Newest(5 + 10**9), Newest(5), Compared.UNCLEAR),
        (Newest(6, "x", 0), Newest(5, "x", 9), Compared.NEWER),
        (Newest(None, "a", 9), Newest(None, "a", 5), Compared.SAME),
        (Newest(None, "b", 5 * SECOND), Newest(None, "a", 3 * SECOND), Compared.NEWER),
        (Newest(None, "b", 3 * SECOND), Newest(None, "a", 5 * SECOND), Compared.UNCLEAR),
        (Newest(None, "b", 3 * SECOND), Newest(None, "a", 3 * SECOND), Compared.UNCLEAR),
        (Newest(None, None, 3 * SECOND), Newest(None, "a", 3 * SECOND), Compared.SAME),
        (Newest(None, "b"), Newest(None, "a", 3 * SECOND), Compared.UNCLEAR),
        (Newest(), Newest(5, "a", 3), Compared.UNCLEAR),
        (Newest(None, None, 1000 * SECOND), Newest(None, None, 3 * SECOND), Compared.UNCLEAR),
    ],
)
def test_only_what_is_proven_is_concluded(told: Newest, known: Newest, found: Compared) -> None:
    """Numbers first, then ids, then times. An older answer, another numbering and a wrong clock say nothing."""
    assert compare(told, known, age=10.0) is found
