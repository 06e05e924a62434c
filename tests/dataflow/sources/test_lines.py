"""The lines of a source: what they are together, and which there should be."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any, ClassVar

import pytest
from attrs import define, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Item, Missed
from dataflow.sources.lines import settle
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import KEPT, Audience, Line, SourceState


@frozen(kw_only=True)
class Small(SourceSettings):
    """Two symbols on a connection."""

    symbols_a_connection: ClassVar[int] = 2


class Diary(Audience):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        self.lines.append(f"lost {','.join(symbols)}: {reason}")

    def restored(self, source: str, symbols: Collection[str], away: float) -> None:
        self.lines.append(f"restored {','.join(symbols)}")

    def refused(self, source: str, symbol: str, reason: str) -> None:
        self.lines.append(f"refused {symbol}: {reason}")

    def accepted(self, source: str, symbol: str) -> None:
        self.lines.append(f"accepted {symbol}")


def mark(symbol: str) -> Missed:
    return Missed("a", symbol, "source_gap", resubscribed=True)


@define
class Stage:
    """A source at a time of its own. `look` does what the keeper does, without connections."""

    settings: SourceSettings
    source: SourceState = field(init=False)
    diary: Diary = field(factory=Diary)
    delivered: list[Item] = field(factory=list)
    now: float = 100.0
    look_at: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.source = SourceState(
            *("a", self.settings, self.diary, lambda: 0.0),
            steady=lambda: self.now,
            deliver=self.delivered.extend,
            dice=Random(1),
        )

    def look(self) -> list[int]:
        self.look_at = settle(self.source, self.now)
        return self.standing

    @property
    def standing(self) -> list[int]:
        return sorted(line.number for line in self.source.lines.values() if not line.is_over)

    @property
    def over(self) -> list[int]:
        return sorted(line.number for line in self.source.lines.values() if line.is_over)

    def up(self, number: int, *, proven: bool = True) -> Line:
        """As a connector tells it: attempt, answers, and what comes after them."""
        line = self.source.lines[number]
        line.connecting()
        wanted = sorted(self.source.interest.parts[line.share].topics)
        for symbol in wanted:
            if (found := line.mark(mark, symbol)) is not None:
                self.delivered.append(found)
            line.subscribed(symbol)
        line.up(wanted)
        line.received(0, 10)
        if proven:
            line.received(1, 10)
        return line

    def down(self, number: int, reason: str = "cut") -> None:
        self.source.lines[number].down(reason)


def stage(*symbols: str, kind: type[SourceSettings] = SourceSettings, **more: Any) -> Stage:
    return Stage(kind(connector="a", url="ws://x/", symbols=symbols, eager=True, **more))


class TestShares:
    def test_a_line_for_each_share(self) -> None:
        """Each carries its own symbols."""
        s = stage("A", "B", "C", "D", "E", kind=Small)
        assert s.look() == [1, 2, 3]
        assert [line.share for line in s.source.lines.values()] == [1, 2, 3]
        for number in (1, 2, 3):
            s.up(number)
        assert s.source.subscribed_symbols == {"A", "B", "C", "D", "E"}
        assert [sorted(line.symbols) for line in s.source.lines.values()] == [["A", "B"], ["C", "D"], ["E"]]

    def test_only_the_symbols_of_the_lost_share_are_lost(self) -> None:
        """Once, and restored once. The source is lost while one of its shares is."""
        s = stage("A", "B", "C", kind=Small)
        s.look()
        s.up(1)
        assert (s.source.link.value, s.source.status("A"), s.source.status("C")) == (
            *("connected", "live", "connecting"),
        )
        s.up(2)
        s.down(2)
        s.down(2, "refused")
        assert (s.source.link.value, s.source.reason) == ("lost", "refused")
        assert (s.source.status("A"), s.source.status("C")) == ("live", "lost")
        s.up(2)
        assert (s.source.link.value, s.source.reason, s.source.status("C")) == ("connected", None, "live")
        assert s.diary.lines == ["lost C: cut", "restored C"]

    def test_a_source_that_is_polled_has_one_share(self) -> None:
        """Its lines ask for one symbol after the other, and each share would ask at the pace of the source."""
        s = stage("A", "B", "C", kind=Small, transport="rest")
        assert (s.look(), list(s.source.interest.parts)) == ([1], [1])

    def test_a_share_that_nobody_wants_any_more_closes_its_line(self) -> None:
        """And the source is what the others are."""
        s = stage("A", "B", kind=Small)
        s.source.interest.want("C", "me")
        s.look()
        s.up(1)
        s.up(2)
        s.source.interest.release("C", "me")
        assert (s.look(), s.over) == ([1], [2])
        s.down(2, "stopped")
        s.source.forget(s.source.lines[2])
        assert (list(s.source.lines), s.source.link.value) == ([1], "connected")
        assert s.diary.lines == []

    def test_a_symbol_without_room_gets_a_line_of_its_own(self) -> None:
        """As soon as it is wanted."""
        s = stage("A", "B", kind=Small)
        assert s.look() == [1]
        news = s.source.news_of_lines()
        s.source.interest.want("C", "me")
        assert news.is_set()
        assert s.look() == [1, 2]


class TestSeveralLines:
    def test_the_second_line_comes_when_the_first_carries_its_symbols(self) -> None:
        """So that the second brings nothing from before the first."""
        s = stage("A", lines=3)
        assert s.look() == [1]
        s.up(1)
        assert s.look() == [1, 2, 3]

    def test_one_of_two_that_dies_costs_nothing(self) -> None:
        """No loss is told, nothing is marked, and the symbol is live all the time."""
        s = stage("A", lines=2)
        s.up(1)
        s.look()
        s.up(2)
        s.source.lines[1].received(1, 10)
        s.delivered.clear()
        for number in (1, 2, 1):
            s.down(number)
            assert s.source.status("A") == "live"
            s.up(number)
            s.source.lines[3 - number].received(1, 10)
        assert (s.diary.lines, s.delivered) == ([], [])

    def test_both_are_lost(self) -> None:
        """Then the symbols are lost, once, and the first that is back leaves a mark."""
        s = stage("A", lines=2)
        s.up(1)
        s.look()
        s.up(2)
        s.source.lines[1].received(1, 10)
        s.delivered.clear()
        s.down(1)
        s.down(2)
        s.up(2)
        s.up(1)
        assert s.diary.lines == ["lost A: cut", "restored A"]
        assert s.delivered == [mark("A")]

    def test_a_witness_that_is_dead_already_proves_nothing(self) -> None:
        """Line 1 comes back while line 2 seems to carry the symbol. But line 2 was silent, and is lost without
        another word: the mark is delivered after all, and no replay takes it back."""
        s = stage("A", lines=2)
        s.up(1)
        s.look()
        s.up(2)
        s.source.lines[1].received(1, 10)
        s.delivered.clear()
        s.down(1)
        s.up(1)
        assert s.delivered == []
        s.down(2, "stale")
        assert s.delivered == [Missed("a", "A", "source_gap", resubscribed=False)]
        assert s.diary.lines == []

    def test_a_refusal_by_one_line_is_none_while_another_carries_the_symbol(self) -> None:
        """And it is told once when all refuse."""
        s = stage("A", lines=2)
        s.up(1)
        s.look()
        s.source.lines[2].refused("A", "busy")
        assert (s.source.status("A"), s.source.refused_symbols, s.diary.lines) == ("live", {}, [])
        s.source.lines[1].refused("A", "busy")
        assert (s.source.status("A"), s.source.refused_symbols) == ("rejected", {"A": "busy"})
        assert s.diary.lines == ["refused A: busy"]


class TestRenewal:
    def renewing(self, **more: Any) -> Stage:
        s = stage("A", rotate_after=1000.0, **more)
        s.look()
        s.up(1)
        s.delivered.clear()
        assert (s.look(), 900 <= s.look_at - s.now <= 1100) == ([1], True)
        s.now = s.look_at
        assert s.look() == [1, 2]
        return s

    def test_the_new_line_has_delivered_before_the_old_one_is_over(self) -> None:
        """Connected is not enough, nor is an answer. Nothing is lost, told or marked."""
        s = self.renewing()
        new = s.up(2, proven=False)
        assert s.look() == [1, 2]
        new.received(1, 10)
        assert (s.look(), s.over) == ([2], [1])
        assert s.source.status("A") == "live"
        s.source.lines[1].parted()
        s.down(1, "stopped")
        s.source.forget(s.source.lines[1])
        assert (s.look(), s.delivered, s.diary.lines) == ([2], [], [])

    @pytest.mark.parametrize("end", ["parted", "lost"])
    def test_the_new_line_keeps_back_what_it_brings_until_the_old_one_has_ended(self, end: str) -> None:
        """In order. So it is never ahead of the old one. What it brings later is delivered at once."""
        s = self.renewing()
        first, second, third = mark("A"), mark("A"), mark("A")
        s.up(2).bring([first])
        s.look()
        s.source.lines[2].bring([second])
        assert s.delivered == []
        if end == "parted":
            s.source.lines[1].parted()
        else:
            s.source.lines[1].received(0, 10)
        s.down(1)
        assert s.delivered == [first, second]
        s.source.lines[2].bring([third])
        assert s.delivered == [first, second, third]

    def test_what_a_new_line_kept_back_is_forgotten_with_it(self) -> None:
        """If it is lost before the old one: that one brings the same. And it keeps back only so much."""
        s = self.renewing()
        s.up(2).bring([mark("A")])
        s.down(2)
        s.up(2).bring([mark("B")] * (KEPT + 1))
        assert len(s.delivered) == KEPT + 1
        assert {item.symbol for item in s.delivered} == {"B"}

    def test_an_old_line_that_is_cut_off_before_it_parted_proves_nothing(self) -> None:
        """It was not heard after the new one had subscribed: perhaps trades between them are missing."""
        s = self.renewing()
        s.up(2)
        s.look()
        s.down(1, "reset")
        assert [(type(item), item.symbol) for item in s.delivered] == [(Missed, "A")]

    def test_if_the_new_line_cannot_be_had_the_old_one_stays(self) -> None:
        """For however long it takes."""
        s = self.renewing()
        for _ in range(5):
            s.down(2, "refused")
            s.now += 100
            assert (s.look(), s.source.status("A"), s.diary.lines) == ([1, 2], "live", [])
        s.up(2)
        assert s.look() == [2]

    def test_an_old_line_that_is_lost_meanwhile_and_comes_back_needs_no_successor(self) -> None:
        """It is as new as the successor would be."""
        s = self.renewing()
        s.down(1)
        assert s.look() == [1, 2], "whoever is back first"
        s.up(1)
        assert (s.look(), s.over) == ([1], [2])
        assert s.diary.lines == ["lost A: cut", "restored A"]

    def test_one_at_a_time(self) -> None:
        """Of the lines of one source; they are made together, and do not all end together."""
        s = stage(*"ABCDEFGHIJ", kind=Small, rotate_after=1000.0)
        s.look()
        moments = [s.up(number).rotate_at - s.now for number in range(1, 6)]
        assert len(set(moments)) == 5
        assert all(900 <= moment <= 1100 for moment in moments)
        s.now += 1100
        for _ in range(5):
            [new] = [number for number in s.look() if s.source.lines[number].replaces]
            s.up(new)
            s.look()
            assert len(s.over) == 1
            s.source.forget(s.source.lines[s.over[0]])
        assert s.look_at > s.now
        assert len(s.look()) == 5

    @pytest.mark.parametrize("age", [0.5, 2.0])
    def test_an_announced_end(self, age: float) -> None:
        """A new line is made at once, unless the announcement came with the connection: that would be a storm.
        The old one may live until the upstream closes it."""
        s = stage("A", "B", "C", kind=Small, rotate_after=1000.0)
        s.look()
        s.up(1)
        s.up(2)
        s.now += age
        for line in list(s.source.lines.values()):
            line.leaving("bye")
        assert len(s.look()) == (4 if age > 1 else 2)
        if age > 1:
            s.up(3)
            s.look()
            assert s.over == [1]

    def test_an_announced_end_that_comes_before_the_new_line_is_there(self) -> None:
        """The symbols are lost, and the line whose end was announced does not come back beside the new one."""
        s = stage("A")
        s.up(1)
        s.now += 5
        s.source.lines[1].leaving("bye")
        s.look()
        s.down(1, "bye")
        assert (s.look(), s.over) == ([2], [1])
        s.source.forget(s.source.lines[1])
        s.up(2)
        assert s.diary.lines == ["lost A: bye", "restored A"]

    def test_the_end_of_a_line_that_is_forgotten_changes_nothing(self) -> None:
        """An actor that could not be stopped tells its end much later."""
        s = self.renewing()
        s.up(2)
        s.look()
        old = s.source.lines[1]
        s.source.forget(old)
        old.up(["A"])
        old.down("late")
        assert (s.source.status("A"), s.source.link.value, s.diary.lines) == ("live", "connected", [])


EVENTS = st.lists(
    st.tuples(st.sampled_from(["up", "down", "heard", "leaving", "old", "forget"]), st.integers(1, 4)),
    max_size=40,
)


@given(EVENTS, st.integers(1, 2))
def test_whatever_happens_each_share_has_its_lines(events: list[tuple[str, int]], lines: int) -> None:
    """At least one stands, a successor has a predecessor, and what is told alternates: lost, restored, lost."""
    s = stage("A", "B", "C", kind=Small, rotate_after=1000.0, lines=lines)
    s.look()
    for kind, number in events:
        line = s.source.lines.get(number)
        s.now += 2000 if kind == "old" else 1.5
        if line is None:
            pass
        elif kind == "up" and not line.is_over:
            s.up(number, proven=False)
        elif kind == "down":
            s.down(number)
        elif kind == "heard":
            line.received(1, 10)
        elif kind == "leaving":
            line.leaving("bye")
        elif kind == "forget" and line.is_over:
            s.source.forget(line)
        s.look()
        standing = [each for each in s.source.lines.values() if not each.is_over]
        for share in (1, 2):
            own = [each for each in standing if each.share == share]
            assert 1 <= sum(each.replaces is None for each in own) <= lines
            assert all(not each.replaces.is_over for each in own if each.replaces is not None)
        carried = {symbol for each in s.source.lines.values() for symbol in each.symbols}
        assert s.source.subscribed_symbols == carried
        for symbol in "AC":
            told = [words.split()[0] for words in s.diary.lines if symbol in words.split(":")[0]]
            assert told == ["lost", "restored"] * (len(told) // 2) + ["lost"] * (len(told) % 2)
            is_up = any(
                each.link.value == "connected"
                for each in s.source.lines.values()
                if each.share == s.source.interest.part_of(symbol)
            )
            assert (s.source.status(symbol) in ("live", "subscribing")) == is_up
