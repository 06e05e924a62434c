"""The newest messages that could not be used: few are kept of a flood, and none goes uncounted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.sources.excerpts import FREELY, KEPT, KINDS, Excerpts


def test_a_flood_leaves_room_for_what_is_rare() -> None:
    """80,000 pieces of garbage in eight seconds: a refusal from before is there, and all of a second count."""
    unusable = Excerpts()
    unusable.add("rejected", "BTC-USD: no such symbol", 100.0)
    for n in range(80_000):
        unusable.add("malformed_json", f"garbage {n}", 101 + n / 10_000)
    kept = unusable.newest_first()
    assert kept[-1].kind == "rejected"
    assert kept[0].times == 10_000 - FREELY + 1
    assert sum(each.times for each in kept) == 80_001


def test_a_few_of_one_kind_keep_their_texts() -> None:
    """Four symbols that are refused at once are four messages."""
    unusable = Excerpts()
    for symbol in "ABCD":
        unusable.add("rejected", symbol, 1.0)
    assert [(each.text, each.times) for each in unusable.newest_first()] == [(s, 1) for s in "DCBA"]


@given(st.lists(st.tuples(st.integers(0, 3 * KINDS), st.floats(-1, 2)), max_size=400))
def test_it_is_bounded_whatever_comes(came: list[tuple[int, float]]) -> None:
    """Endless kinds need no memory, and a clock that is set back harms nothing."""
    unusable, now = Excerpts(), 10.0
    for kind, pause in came:
        now += pause
        unusable.add(str(kind), "x", now)
        assert len(unusable.newest_first()) <= KEPT
        assert len(unusable._series) <= KINDS
    assert sum(each.times for each in unusable.newest_first()) <= len(came)
