"""The interest in a source, divided among connections of a limited size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dataflow.sources.shares import Division

SYMBOLS = [f"{letter}-USD" for letter in "ABCDEFGH"]


def shares(division: Division) -> dict[int, list[str]]:
    return {number: sorted(part.topics) for number, part in division.parts.items()}


def test_a_symbol_goes_where_there_is_room() -> None:
    """The first share is filled first; a symbol that nobody wants any more makes room for another."""
    division = Division(2, ["A", "B", "C"])
    assert shares(division) == {1: ["A", "B"], 2: ["C"]}
    division.release("A", division)
    division.want("D", "me")
    division.want("E", "me")
    assert shares(division) == {1: ["B", "D"], 2: ["C", "E"]}


def test_a_share_without_symbols_is_gone_but_for_the_last_one() -> None:
    """Whichever it is. The source stays connected although nobody wants anything."""
    division = Division(1)
    assert shares(division) == {1: []}
    division.want("A", "me")
    division.want("B", "me")
    division.release("A", "me")
    assert shares(division) == {2: ["B"]}
    division.release("B", "me")
    assert shares(division) == {2: []}
    division.want("C", "me")
    assert shares(division) == {2: ["C"]}


def test_another_size_deals_all_out_anew() -> None:
    """And the same size changes nothing."""
    news: list[None] = []
    division = Division(1, ["B", "A"], lambda: news.append(None))
    told = len(news)
    division.divide(1)
    assert (shares(division), len(news)) == ({1: ["B"], 2: ["A"]}, told)
    division.divide(5)
    assert (shares(division), len(news)) == ({1: ["A", "B"]}, told + 1)


@pytest.mark.parametrize("room", [1, 3])
@given(st.lists(st.sampled_from(SYMBOLS)))
def test_the_smallest_number_of_shares(room: int, symbols: list[str]) -> None:
    """Of symbols that are only ever added."""
    division = Division(room)
    for symbol in symbols:
        division.want(symbol, "me")
    assert len(division.parts) == max(1, -(-len(set(symbols)) // room))


class Wishes(RuleBasedStateMachine):
    """Any sequence of wishes."""

    def __init__(self) -> None:
        super().__init__()
        self.reshaped = 0
        self.division = Division(3, (), self.reshape)
        self.wanted: dict[str, set[int]] = {}
        self.placed: dict[str, int] = {}
        self.numbers: set[int] = {1}

    def reshape(self) -> None:
        self.reshaped += 1

    @rule(symbol=st.sampled_from(SYMBOLS), holder=st.integers(0, 1))
    def want(self, symbol: str, holder: int) -> None:
        self.division.want(symbol, holder)
        self.wanted.setdefault(symbol, set()).add(holder)

    @rule(symbol=st.sampled_from(SYMBOLS), holder=st.integers(0, 1))
    def release(self, symbol: str, holder: int) -> None:
        self.division.release(symbol, holder)
        self.wanted.get(symbol, set()).discard(holder)

    @rule(possible=st.sets(st.sampled_from(SYMBOLS)))
    def confine(self, possible: set[str]) -> None:
        self.division.confine(possible)
        self.wanted = {symbol: held for symbol, held in self.wanted.items() if symbol in possible}

    @precondition(lambda self: self.placed)
    @rule()
    def wake(self) -> None:
        self.division.touch()

    @invariant()
    def each_wanted_symbol_is_in_one_share_with_room_and_stays_there(self) -> None:
        wanted = {symbol for symbol, held in self.wanted.items() if held}
        parts = self.division.parts
        assert sorted(symbol for part in parts.values() for symbol in part.topics) == sorted(wanted)
        assert all(len(part.topics) <= 3 for part in parts.values())
        assert all(part.topics for part in parts.values()) or len(parts) == 1
        assert self.division.topics == wanted
        now = {symbol: number for number, part in parts.items() for symbol in part.topics}
        assert all(self.division.part_of(symbol) == now.get(symbol) for symbol in SYMBOLS)
        assert all(self.placed[symbol] == now[symbol] for symbol in self.placed.keys() & now.keys())
        self.placed = now

    @rule(symbol=st.sampled_from(SYMBOLS))
    def want_where_there_is_room(self, symbol: str) -> None:
        before = {number: len(part.topics) for number, part in self.division.parts.items()}
        self.want(symbol, 0)
        if any(size < 3 for size in before.values()):
            assert self.division.parts.keys() == before.keys()

    @invariant()
    def another_set_of_shares_is_told(self) -> None:
        if self.division.parts.keys() != self.numbers:
            assert self.reshaped
        self.numbers, self.reshaped = set(self.division.parts), 0


TestWishes = Wishes.TestCase
