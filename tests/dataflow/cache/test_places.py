"""Parts of a sequence of entries: nothing is lost at a border, and nothing is there twice."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dataflow.cache.places import Places, above, below, first_place, newest, runs, whole
from dataflow.domain import Gap, Trade

from .items import trade


def stream(lengths: list[int]) -> Places:
    """A trade where the length is 0, and a gap of so many places elsewhere."""
    places: list[tuple[int, Trade | Gap]] = []
    last = 0
    for length in lengths:
        first, last = last + 1, last + max(1, length)
        places.append((last, Gap(first, last, "lost") if length else trade(str(first), last)))
    return places


streams = st.lists(st.integers(0, 3), max_size=12).map(stream)


def held(places: Places) -> list[tuple[int, bool]]:
    """Each place by itself, and whether it has a trade."""
    found = []
    for last, entry in places:
        assert not isinstance(entry, Gap) or entry.last == last
        found += [(at, isinstance(entry, Trade)) for at in range(first_place(last, entry), last + 1)]
    return found


@given(streams, st.integers(0, 40))
def test_a_border_cuts_a_gap_in_two(places: Places, border: int) -> None:
    assert held(below(places, border + 1)) == [each for each in held(places) if each[0] <= border]
    assert held(above(places, border)) == [each for each in held(places) if each[0] > border]


@given(streams, st.sets(st.integers(0, 11)), st.integers(0, 40))
def test_a_part_that_is_not_there_is_a_gap(places: Places, lost: set[int], after: int) -> None:
    """Every place behind the beginning is told once, and no trade is made of nothing."""
    left = [place for at, place in enumerate(places) if at not in lost]
    end = places[-1][0] if places else 0
    found = whole(left, after, end)
    assert [at for at, _ in held(found)] == [*range(after + 1, end + 1)]
    trades = [each for each in held(left) if each[1] and each[0] > after]
    assert [each for each in held(found) if each[1]] == trades


@given(streams, st.integers(0, 5))
def test_the_newest_items_and_the_gaps_behind_them(places: Places, count: int) -> None:
    found = newest(places, count)
    items = [last for last, entry in places if isinstance(entry, Trade)]
    assert list(found) == list(places[len(places) - len(found) :])
    assert [last for last, entry in found if isinstance(entry, Trade)] == items[
        len(items) - min(count, len(items)) :
    ]


@given(streams)
def test_runs_are_whole_and_as_long_as_can_be(places: Places) -> None:
    found = runs(places)
    assert [each for run in found for each in run] == [each for each in places if isinstance(each[1], Trade)]
    assert all([last for last, _ in run] == [*range(run[0][0], run[-1][0] + 1)] for run in found)
    assert all(one[-1][0] + 1 < other[0][0] for one, other in itertools.pairwise(found))
