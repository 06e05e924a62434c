"""Promises of domain.quality."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain.quality import Grade, Quality, best


def quality(source: str, state: Grade, since: int = 0) -> Quality:
    return Quality("BTC-USD", source, state, since)


def test_the_best_state_wins() -> None:
    """What a client can expect of it decides; a source that stands by counts last. In any order of the sources."""
    worst_first = [quality(state.value, state) for state in reversed(Grade)]
    for length in range(1, len(worst_first) + 1):
        assert best(worst_first[:length]) == worst_first[length - 1]
        assert best(worst_first[length - 1 :: -1]) == worst_first[length - 1]
    flowing, not_flowing = ["live", "quiet", "refilling", "gapped"], ["stalled", "idle", "lost", "rejected"]
    assert [state.value for state in Grade] == [*flowing, *not_flowing, "standby"]


def test_the_oldest_of_equal_states_wins() -> None:
    """It has been so for longest; of the same age the first source wins."""
    assert best([quality("a", Grade.LIVE, 2), quality("b", Grade.LIVE, 1)]) == quality("b", Grade.LIVE, 1)
    assert best([quality("a", Grade.LIVE, 1), quality("b", Grade.LIVE, 1)]) == quality("a", Grade.LIVE, 1)


def test_no_source_has_no_best() -> None:
    """None, not an error."""
    assert best([]) is None


@given(
    st.lists(st.builds(quality, st.text(max_size=2), st.sampled_from(Grade), st.integers(0, 3)), min_size=1)
)
def test_the_best_is_one_of_them_and_none_is_better(qualities: list[Quality]) -> None:
    """For any qualities."""
    found = best(iter(qualities))
    assert found in qualities
    order = list(Grade)
    assert all((order.index(q.state), q.since) >= (order.index(found.state), found.since) for q in qualities)
