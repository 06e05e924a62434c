"""Entries as bytes: what is read is what was written."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Gap, Trade
from dataflow.domain.entries import pack, unpack

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
amounts = st.from_regex(r"[0-9]{1,30}(\.[0-9]{1,30})?", fullmatch=True).map(Decimal)
whole = st.integers(-(1 << 63), (1 << 63) - 1)
trades = st.builds(
    Trade,
    texts,
    texts,
    st.none() | texts,
    st.sampled_from([None, "buy", "sell"]),
    amounts,
    amounts,
    whole,
    st.none() | whole,
)
reasons = st.sampled_from(["source_gap", "overrun", "not_recorded"])


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, list[tuple[int, Trade | Gap]]]:
    """A first place, and places from it on."""
    first = last = draw(st.integers(1, 1 << 40))
    last -= 1
    places: list[tuple[int, Trade | Gap]] = []
    for entry in draw(st.lists(trades | st.integers(1, 1000), min_size=1, max_size=40)):
        if isinstance(entry, int):
            exact, number = draw(st.booleans()), draw(st.none() | st.integers(0, 1 << 60))
            gap = Gap(last + 1, last + entry, draw(reasons), exact, draw(st.none() | texts), number)
            last += entry
            places.append((last, gap))
        else:
            last += 1
            places.append((last, entry))
    return first, places


@given(runs())
def test_every_digit_and_every_place_comes_back(run: tuple[int, list[tuple[int, Trade | Gap]]]) -> None:
    """Also zeros at the end of a number, and fields that are None."""
    first, places = run
    found = unpack(pack(places), len(places), first)
    assert found == places
    for (_, entry), (_, written) in zip(found, places, strict=True):
        if isinstance(entry, Trade) and isinstance(written, Trade):
            assert (str(entry.price), str(entry.quantity)) == (str(written.price), str(written.quantity))


@given(runs(), st.integers(0, 40))
def test_runs_are_joined_by_joining_their_bytes(
    run: tuple[int, list[tuple[int, Trade | Gap]]], at: int
) -> None:
    """Nothing is written twice when small runs become a large one."""
    first, places = run
    assert unpack(pack(places[:at]) + pack(places[at:]), len(places), first) == places


@given(runs(), st.binary(min_size=1, max_size=8))
def test_other_bytes_are_refused(run: tuple[int, list[tuple[int, Trade | Gap]]], garbage: bytes) -> None:
    """Too many, too few, or none of its kind: one error."""
    first, places = run
    for data in (pack(places) + garbage, pack(places)[:-1], b""):
        with pytest.raises(ValueError, match="no entries"):
            unpack(data, len(places), first)


def test_a_gap_at_the_wrong_place_is_refused() -> None:
    """A gap knows its places, so a run at a wrong place is found out."""
    with pytest.raises(ValueError, match="stands behind 6"):
        unpack(pack([(5, Gap(4, 5, "overrun"))]), 1, 7)


@pytest.mark.parametrize("count", [15, 16, 65_535, 65_536])
def test_runs_of_any_length(count: int) -> None:
    """The header of msgpack changes its length at these."""
    trade = Trade("a", "B-U", "1", "buy", Decimal("1.10"), Decimal("2"), 3)
    places = [(place, trade) for place in range(1, count + 1)]
    assert unpack(pack(places), count, 1) == places
