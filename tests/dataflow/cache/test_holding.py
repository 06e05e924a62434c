"""Trades that wait for missing ones: none passes one that it must follow, and each comes out in the end."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field

from dataflow.cache.feed import ANEW, LONG
from dataflow.cache.history import History
from dataflow.cache.holding import BELT, Holds
from dataflow.cache.store import Store
from dataflow.cache.verdict import JUMP, Verdict
from dataflow.domain import Gap, Item, Missed, Missing, Refilled, Trade

from .items import US, missed, sequenced, trade

HOLD = 2.0


@define
class Desk:
    """The memory of a shard whose source "a" can be asked, and what it was asked for. "b" cannot."""

    seconds: float = HOLD
    max_trades: int = 1000
    told: list[Missing] = field(factory=list)
    refused: list[tuple[str, Verdict]] = field(factory=list)
    store: Store = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = Store(
            1,
            self.max_trades,
            1e9,
            lambda trade, verdict: self.refused.append((str(trade.trade_id), verdict)),
            holds=Holds(lambda source: self.seconds if source == "a" else 0.0, self.told.append),
        )

    @property
    def log(self) -> History:
        return self.store.history("BTC-USD")

    def admit(self, *items: Item | int, now: float = 0.0) -> bool:
        """A batch; a number is the trade with that sequence. Returns whether the log has news."""
        made = [sequenced(item) if isinstance(item, int) else item for item in items]
        return bool(self.store.admit(made, now))

    def answer(self, *items: Trade | int, now: float = 0.0, **more: Any) -> bool:
        """An answer with these trades; by default not the last, and to the newest question."""
        made = tuple(sequenced(item) if isinstance(item, int) else item for item in items)
        more.setdefault("before", self.told[-1].before if self.told else None)
        return self.admit(Refilled("a", "BTC-USD", made, **{"is_last": False, **more}), now=now)

    def shown(self) -> str:
        """Each place: the id of its trade, "-" for each place of an exact gap, "?" for one of unknown size."""
        places: list[str] = []
        for entry in self.log.read(0, 100_000):
            if isinstance(entry, Gap):
                places += ["-"] * (entry.last - entry.first + 1) if entry.exact else ["?"]
            else:
                places.append(str(entry.trade.trade_id))
        return " ".join(places)

    def ranges(self) -> list[tuple[int | None, int | None]]:
        return [(each.first, each.last) for each in self.told]

    def count(self, verdict: Verdict) -> int:
        return self.store.counts["a", verdict.value]


def plain(name: str, at: int, **other: Any) -> Trade:
    """A trade without a sequence."""
    return trade(name, at * US, **other)


def test_a_trade_behind_missing_ones_waits_until_they_come() -> None:
    """No reader sees it, one question is asked, and nobody ever hears of a gap."""
    desk = Desk()
    desk.admit(10)
    assert not desk.admit(13, 14)
    assert (desk.shown(), desk.log.last, desk.log.waiting) == ("10", 1, 2)
    assert desk.told == [Missing("a", "BTC-USD", sequenced(10), sequenced(13), 11, 12)]
    assert desk.answer(11)
    assert desk.shown() == "10 11"
    assert desk.answer(12)
    assert (desk.shown(), desk.log.waiting) == ("10 11 12 13 14", 0)
    desk.admit(15)
    assert desk.shown() == "10 11 12 13 14 15"
    assert len(desk.told) == 1
    assert desk.store.counts == {("a", "held"): 2, ("a", "admitted"): 6}
    assert desk.store.holds.ended == {("a", "whole"): 1}


def test_the_last_answer_lets_all_go_on_behind_what_is_still_missing() -> None:
    """The gaps are exact, several if need be, and what comes later fills them in place."""
    desk = Desk()
    desk.admit(10, 15, 16)
    desk.answer(12, is_last=True)
    assert desk.shown() == "10 - 12 - - 15 16"
    assert desk.answer(11, 13, 14)
    assert desk.shown() == "10 11 12 13 14 15 16"
    assert desk.count(Verdict.FILLED) == 3
    assert desk.store.holds.ended == {("a", "unanswered"): 2}


def test_a_source_that_may_not_be_waited_for_has_its_gap_at_once() -> None:
    """And who can ask for the trades is told all the same, for the gap can be filled."""
    desk = Desk(seconds=0.0)
    desk.admit(10, 13)
    assert desk.shown() == "10 - - 13"
    assert desk.ranges() == [(11, 12)]
    desk.answer(11, 12)
    assert desk.shown() == "10 11 12 13"


def test_another_line_of_the_source_brings_what_one_has_lost() -> None:
    """Each trade once, in order, and without any answer; what both bring is a duplicate."""
    desk = Desk()
    desk.admit(1, 2, 4, 5, 8)
    assert desk.shown() == "1 2"
    desk.admit(1, 2, 3, 4, 5)
    assert desk.shown() == "1 2 3 4 5"
    desk.admit(6, 7, 8, 9)
    assert desk.shown() == "1 2 3 4 5 6 7 8 9"
    assert desk.ranges() == [(3, 3), (6, 7)]
    assert desk.refused == []


def test_what_a_line_brings_in_the_midst_waits_at_its_place() -> None:
    """Both lines have lost something else: the order is that of the sequences."""
    desk = Desk()
    desk.admit(1, 9, 10)
    for each in (6, 4, 5, 7, 2):
        desk.admit(each)
    assert desk.shown() == "1 2"
    desk.admit(8)
    assert desk.shown() == "1 2"
    desk.admit(3)
    assert desk.shown() == "1 2 3 4 5 6 7 8 9 10"
    assert desk.ranges() == [(2, 8)]


def test_a_second_loss_while_others_wait_is_one_question_more() -> None:
    """An answer that names its question lets go on what that concerns, and nothing later."""
    desk = Desk()
    desk.admit(1, 4, 7, 8)
    assert desk.ranges() == [(2, 3), (5, 6)]
    desk.answer(is_last=True, before=sequenced(4))
    assert desk.shown() == "1 - - 4"
    desk.answer(5, 6, is_last=True, before=sequenced(7))
    assert desk.shown() == "1 - - 4 5 6 7 8"
    assert desk.store.holds.ended == {("a", "unanswered"): 1, ("a", "whole"): 1}


def test_other_sources_of_the_symbol_go_on() -> None:
    """Only the feed with the loss waits."""
    desk = Desk()
    desk.admit(1, 3)
    assert desk.admit(*(sequenced(each, source="b", trade_id=f"b{each}") for each in range(20, 30)))
    assert desk.shown() == "1 " + " ".join(f"b{each}" for each in range(20, 30))
    desk.answer(2)
    assert desk.shown().endswith("b29 2 3")


def test_who_has_waited_too_long_goes_on_by_the_next_trade() -> None:
    """If nobody answers, not even with an end: the belt."""
    desk = Desk()
    desk.admit(1, 3)
    desk.admit(4, now=HOLD + BELT)
    assert desk.shown() == "1"
    desk.admit(5, now=HOLD + BELT + 0.1)
    assert desk.shown() == "1 - 3 4 5"
    assert desk.store.holds.ended == {("a", "overdue"): 1}


def test_only_what_is_overdue_goes_on() -> None:
    """A later loss has its own time."""
    desk = Desk()
    desk.admit(1, 3)
    desk.admit(5, now=2.0)
    desk.admit(6, now=3.5)
    assert desk.shown() == "1 - 3"
    desk.answer(4)
    assert desk.shown() == "1 - 3 4 5 6"


def test_what_waits_is_bounded() -> None:
    """By half of the log. With one more all go on behind the gap, in order, counted; a refill fills it later."""
    desk = Desk(max_trades=10)
    desk.admit(1, 3, 4, 5, 6, 7)
    assert desk.shown() == "1"
    desk.admit(8)
    assert desk.shown() == "1 - 3 4 5 6 7 8"
    assert desk.store.holds.ended == {("a", "full"): 1}
    desk.answer(2)
    assert desk.shown() == "1 2 3 4 5 6 7 8"


@pytest.mark.parametrize("first", [1, 200])
def test_a_new_numbering_lets_all_go_on_first(first: int) -> None:
    """In their old order, and an inexact gap stands before the new numbers, lower ones or higher."""
    desk = Desk()
    desk.admit(100, 105, 106)
    begin = first if first < 100 else 106 + 2 * JUMP
    anew = [sequenced(begin + at, trade_id=f"n{at}", timestamp=10**9 + at) for at in range(30)]
    desk.admit(*anew)
    assert desk.shown().startswith("100 - - - - 105 106 ? n")
    assert desk.shown().endswith("n28 n29")
    desk.answer(101, 102, is_last=True)
    assert desk.log.waiting == 0
    assert "101" not in desk.shown(), "nothing of the old numbering fills anything any more"


def test_a_new_numbering_among_the_numbers_that_wait_is_found_out() -> None:
    """Other trades with their sequences are refused, and believed when `LONG` of them have come."""
    desk = Desk()
    desk.admit(100, *range(110, 150))
    other = [sequenced(each, trade_id=f"n{each}", timestamp=10**9 + each) for each in range(110, 140)]
    desk.admit(*other)
    shown = desk.shown().split()
    assert shown[:51] == ["100", *"-" * 9, *map(str, range(110, 150)), "?"]
    assert shown[51:] == [f"n{each}" for each in range(110 + LONG - 1, 140)]


def test_two_lines_that_repeat_each_other_are_no_hindrance_to_a_new_numbering() -> None:
    """A line that lags brings each refused number again."""
    desk = Desk()
    desk.admit(*range(1000, 1010))
    anew = [sequenced(each, timestamp=10**9 + each, trade_id=f"n{each}") for each in range(1, 60)]
    for at, each in enumerate(anew):
        desk.admit(each)
        if at >= 5:
            desk.admit(anew[at - 5])
    shown = desk.shown().split()
    assert shown[10] == "?"
    assert shown[11:] == [f"n{each}" for each in range(ANEW, 60)]


def test_an_answer_is_believed_for_what_is_missing_and_nothing_else() -> None:
    """Beyond what waits, another time, another symbol, another source, another value: refused and counted."""
    desk = Desk()
    desk.admit(10, 14)
    lies = [
        sequenced(15),
        sequenced(12, timestamp=99 * US),
        sequenced(12, symbol="ETH-USD"),
        sequenced(12, source="b"),
        sequenced(12, trade_id="10", timestamp=11 * US),
        plain("12", 12),
        sequenced(9),
    ]
    desk.answer(*lies)
    assert desk.shown() == "10"
    assert desk.log.waiting == 1
    assert [verdict for _, verdict in desk.refused] == [
        Verdict.UNASKED,
        Verdict.LATE,
        Verdict.UNASKED,
        Verdict.UNASKED,
        Verdict.UNASKED,
        Verdict.UNASKED,
        Verdict.LATE,
    ]
    desk.answer(10, 11, 12, 13, 14)
    assert desk.shown() == "10 11 12 13 14"


def test_the_end_of_a_quiet_stream_is_completed() -> None:
    """Nothing waits, and an answer brings the next trades: they connect. Others do not."""
    desk = Desk()
    desk.admit(10)
    assert desk.answer(11, 12, 14)
    assert desk.shown() == "10 11 12"
    assert desk.refused == [("14", Verdict.UNASKED)]
    desk.admit(11, 12, 13)
    assert desk.shown() == "10 11 12 13"


def test_behind_a_mark_trades_wait_for_the_splice() -> None:
    """Without sequences: the answer has what is between, by id, and tells that this is all."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(resubscribed=True), plain("d", 4), plain("e", 5))
    assert desk.shown() == "a"
    assert desk.told == [Missing("a", "BTC-USD", plain("a", 1), plain("d", 4))]
    answer = (plain("a", 1), plain("b", 2), plain("c", 3), plain("d", 4))
    desk.answer(*answer, is_whole=True, is_last=True, before=plain("d", 4))
    assert desk.shown() == "a b c d e"
    assert desk.count(Verdict.DUPLICATE) == 2
    desk.admit(plain("f", 6))
    assert desk.shown() == "a b c d e f"


def test_a_splice_may_come_in_pieces() -> None:
    """They stand aside until all is there: where they are whole, nobody knows before."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(resubscribed=True), plain("d", 4))
    desk.answer(plain("b", 2), before=plain("d", 4))
    assert desk.shown() == "a"
    desk.answer(plain("c", 3), is_whole=True, before=plain("d", 4))
    assert desk.shown() == "a b c d"


@pytest.mark.parametrize(
    "pieces",
    [
        ["abc", "cde", "efg"],
        ["cde", "abc", "efg"],
        ["efg", "cde", "abc"],
        ["abcd", "bcdefg"],
        ["ag", "abcdefg"],
    ],
)
def test_trades_of_one_moment_keep_their_order_however_they_come(pieces: list[str]) -> None:
    """The REST of some upstreams tells whole seconds: there the answers alone show the order."""
    desk = Desk()
    desk.admit(plain("x", 1), missed(resubscribed=True), plain("z", 3))
    for piece in pieces:
        desk.answer(*(plain(name, 2) for name in piece), before=plain("z", 3))
    desk.answer(is_whole=True, before=plain("z", 3))
    assert desk.shown() == "x a b c d e f g z"


def test_what_is_not_whole_has_a_gap_on_both_sides() -> None:
    """Nobody knows on which side the rest is missing. Without any answer there is one gap, as ever."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(resubscribed=True), plain("d", 4), plain("e", 5))
    desk.answer(plain("b", 2), is_last=True, before=plain("d", 4))
    assert desk.shown() == "a ? b ? d e"
    desk.admit(missed(resubscribed=True), plain("g", 7))
    desk.answer(is_last=True)
    assert desk.shown() == "a ? b ? d e ? g"


def test_an_answer_to_another_question_is_not_the_proof() -> None:
    """It is about trades that have gone on long ago: the ones that wait now are not spliced by it."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(resubscribed=True), plain("d", 4))
    desk.answer(is_last=True)
    desk.admit(missed(resubscribed=True), plain("g", 7))
    desk.answer(plain("b", 2), plain("c", 3), is_whole=True, is_last=True, before=plain("d", 4))
    assert desk.shown() == "a ? d"
    assert desk.refused == [("b", Verdict.UNASKED), ("c", Verdict.UNASKED)]
    desk.answer(is_whole=True, is_last=True, before=None)
    assert desk.shown() == "a ? d", "nothing waits for the answer to a question without an end"


def test_a_replay_that_passes_the_newest_trade_still_needs_no_answer() -> None:
    """Nor does one that passes the newest of those that wait."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(resubscribed=True), plain("a", 1), plain("b", 2))
    assert desk.shown() == "a b"
    assert desk.told == []
    desk.admit(
        missed(resubscribed=True), plain("d", 4), missed(resubscribed=True), plain("d", 4), plain("e", 5)
    )
    desk.answer(is_whole=True, before=plain("d", 4))
    assert desk.shown() == "a b d e"
    assert len(desk.told) == 1


def test_a_second_mark_while_others_wait_is_one_question_more() -> None:
    """A connection that flaps: each splice has its own answer."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(), plain("c", 3), missed(), plain("e", 5))
    assert [(each.after, each.before) for each in desk.told] == [
        (plain("a", 1), plain("c", 3)),
        (plain("c", 3), plain("e", 5)),
    ]
    desk.answer(plain("b", 2), is_whole=True, is_last=True, before=plain("c", 3))
    assert desk.shown() == "a b c"
    desk.answer(plain("d", 4), is_whole=True, is_last=True, before=plain("e", 5))
    assert desk.shown() == "a b c d e"


def test_a_mark_behind_those_that_wait_outlives_them() -> None:
    """They go on, and the next trade is behind the mark."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(), plain("c", 3), missed())
    desk.answer(is_whole=True, before=plain("c", 3))
    desk.admit(plain("e", 5))
    assert desk.shown() == "a c"
    desk.answer(is_last=True)
    assert desk.shown() == "a c ? e"


def test_the_end_of_a_quiet_stream_without_sequences_is_completed() -> None:
    """Behind its newest trade, which the answer repeats. The mark stays: the answer may lag."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(resubscribed=True))
    desk.answer(plain("z", 0), plain("a", 1), plain("b", 2))
    assert desk.shown() == "a b"
    assert desk.refused == [("z", Verdict.UNASKED)]
    desk.admit(plain("d", 4))
    assert desk.shown() == "a b"
    assert (desk.told[-1].after, desk.told[-1].before) == (plain("b", 2), plain("d", 4))


def test_before_the_first_trade_nothing_waits() -> None:
    """Nothing is promised there."""
    desk = Desk()
    desk.admit(missed(resubscribed=True), plain("a", 1))
    assert desk.shown() == "a"
    desk.answer(plain("b", 2, symbol="ETH-USD"))
    assert Desk().answer(7) is False


def test_a_loss_in_a_crash_is_asked_for_too() -> None:
    """Nothing shows what the shard had in its hand: the next trade waits, and the stream's end is asked for."""
    desk = Desk()
    desk.admit(plain("a", 1), plain("b", 2))
    desk.store.lost([plain("b", 2), plain("c", 3), plain("d", 4)])
    assert desk.told == [Missing("a", "BTC-USD", plain("b", 2), None)]
    desk.admit(plain("e", 5))
    desk.answer(plain("c", 3), plain("d", 4), is_whole=True, before=plain("e", 5))
    assert desk.shown() == "a b c d e"
    counted = Desk()
    counted.admit(1)
    counted.store.lost([sequenced(1), sequenced(2), sequenced(3)])
    assert counted.told == [Missing("a", "BTC-USD", sequenced(1), None, 2)]
    counted.admit(4)
    counted.answer(2, 3)
    assert counted.shown() == "1 2 3 4"


def test_a_loss_in_a_crash_while_others_wait_stands_behind_them() -> None:
    """Whether it was among those that wait already, or not."""
    desk = Desk()
    desk.admit(plain("a", 1), missed(), plain("c", 3))
    desk.store.lost([plain("c", 3), plain("d", 4)])
    desk.admit(plain("e", 5))
    desk.answer(plain("b", 2), is_whole=True, before=plain("c", 3))
    assert desk.shown() == "a b c"
    desk.answer(is_last=True)
    assert desk.shown() == "a b c ? e"
    assert desk.log.read(3, 1) == [Gap(4, 4, "shard_restart", exact=False)]


def test_an_answer_that_was_lost_in_a_crash_is_asked_for_again() -> None:
    """What waits goes on waiting."""
    desk = Desk()
    desk.admit(1, 4, 7)
    desk.store.lost([Refilled("a", "BTC-USD", (sequenced(2), sequenced(3)))])
    assert desk.ranges() == [(2, 3), (5, 6)] * 2
    desk.answer(2, 3, 5, 6)
    assert desk.shown() == "1 2 3 4 5 6 7"


def test_at_the_end_nothing_is_left_behind() -> None:
    """What waits goes on behind its gap; of the sources that are gone only."""
    desk = Desk()
    desk.admit(1, 3)
    assert desk.store.release(lambda source: source == "b") == set()
    assert desk.store.release() == {"BTC-USD"}
    assert desk.shown() == "1 - 3"
    assert desk.store.holds.ended == {("a", "ended"): 1}


def test_a_source_that_forgets_its_sequences_is_not_guessed_at() -> None:
    """Nobody can tell where a trade without one belongs: the others go on first."""
    desk = Desk()
    desk.admit(1, 3, plain("x", 4))
    assert desk.shown() == "1 - 3 x"
    desk.admit(missed(), plain("y", 5), sequenced(4, timestamp=6 * US))
    assert desk.shown() == "1 - 3 x ? y 4"


def test_a_mark_is_no_trade_and_a_wild_number_is_no_loss() -> None:
    """A number that is implausible does not wait, and is not asked for."""
    desk = Desk()
    desk.admit(1, 3, 3 + 2 * JUMP, Missed("a", "BTC-USD", "source_gap"))
    assert desk.ranges() == [(2, 2)]
    assert desk.log.waiting == 1
    desk.answer(2)
    assert desk.shown() == "1 2 3"
