"""Promises of dataflow.sources.wanted: nothing that is missing is forgotten without being counted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from dataflow.domain import Missing, Trade
from dataflow.sources.wanted import ASKS, NEAR, Ask, Refills

SYMBOLS = ("BTC-USD", "ETH-USD")


def trade(number: int, symbol: str = "BTC-USD", **more: Any) -> Trade:
    fields: dict[str, Any] = {"timestamp": number, "sequence": number, **more}
    return Trade("x", symbol, str(number), "buy", Decimal(1), Decimal(1), **fields)


def lost(first: int, last: int | None, symbol: str = "BTC-USD") -> Missing:
    before = None if last is None else trade(last + 1, symbol)
    return Missing("x", symbol, trade(first - 1, symbol), before, first, last)


def nameless(after: int, before: int | None) -> Missing:
    return Missing(
        "x",
        "BTC-USD",
        trade(after, sequence=None),
        None if before is None else trade(before, sequence=None),
    )


async def test_near_losses_are_one_question_and_keep_their_own_holds() -> None:
    """Each is let go when its own time is over, and only what is missing is left."""
    refills = Refills()
    refills.add(lost(5, 6), 2.0, now=0.0)
    refills.add(lost(9, 9), 2.0, now=1.0)
    ask = refills.take(1.0)
    assert ask is not None
    assert (ask.missing.first, ask.missing.last, ask.left, ask.count) == (5, 9, [(5, 6), (9, 9)], 3)
    assert refills.released(2.0) == [lost(5, 6)]
    assert refills.released(2.5) == []
    assert refills.released(3.0) == [lost(9, 9)]
    assert (refills.open, refills.told) == (1, 2)


async def test_what_is_asked_already_is_not_made_longer() -> None:
    """The answer on its way would not have it: another question stands beside it."""
    refills = Refills()
    refills.add(lost(5, 6), now=0.0)
    assert refills.take(0.0) is not None
    refills.add(lost(9, 9), now=0.0)
    assert refills.open == 2
    refills.add(lost(9 + NEAR + 2, 9 + NEAR + 2), now=0.0)
    assert refills.open == 3


@pytest.mark.parametrize("is_in_hand", [False, True])
@pytest.mark.parametrize("is_numbered", [True, False])
async def test_a_question_up_to_a_switch_keeps_its_end_when_another_one_is_open(
    is_in_hand: bool, is_numbered: bool
) -> None:
    """A stalled symbol is asked for, and another source takes over meanwhile: its trades wait for an answer
    that says that it is the last one."""
    refills = Refills()
    look = lost(5, None) if is_numbered else nameless(4, None)
    refills.add(look, 2.0, now=0.0)
    if is_in_hand:
        assert refills.take(0.0) is not None
    refills.add(evolve(look, until=7), 2.0, now=0.0)
    ask = refills.take(1.0)
    assert ask is not None
    assert ask.missing.until == 7


async def test_the_same_loss_told_twice_is_one_question() -> None:
    """Also while it is asked for: then it is asked again, for the first answer may have been lost."""
    refills = Refills()
    refills.add(lost(5, 8), now=0.0)
    refills.add(lost(7, 9), now=0.0)
    refills.add(lost(6, None), now=0.0)
    assert (refills.open, refills.missing("BTC-USD")) == (1, 5)
    ask = refills.take(0.0)
    assert ask is not None
    refills.add(lost(5, 9), now=1.0)
    refills.came(ask, [trade(number) for number in range(5, 10)])
    refills.done(ask, 1.0)
    assert (refills.open, refills.missing("BTC-USD")) == (1, 5)


async def test_all_symbols_of_a_large_source_may_lose_at_once() -> None:
    """None is pushed out by the others: each has its question, and each is told when its hold is over."""
    refills, symbols = Refills(), [f"A{number}-USD" for number in range(3000)]
    for symbol in symbols:
        missing = nameless(1, 5)
        refills.add(evolve(missing, symbol=symbol), 2.0, now=0.0)
    assert (refills.open, refills.pushed_out) == (3000, 0)
    for _ in range(100):
        ask = refills.take(0.0)
        assert ask is not None
        refills.done(ask, 0.0)
    assert len({missing.symbol for missing in refills.released(2.0)}) == 2900
    assert refills.open == 0


async def test_a_question_waits_for_others_when_weight_is_scarce() -> None:
    """At most half of the time for which trades wait for it."""
    refills = Refills()
    refills.add(lost(5, 6), 2.0, now=0.0)
    assert (refills.next_try(0.5), refills.next_try(1.0), refills.next_try()) == (0.5, 1.0, 0.0)
    assert refills.take(0.4, used=0.5) is None
    assert refills.take(0.5, used=0.5) is not None


async def test_one_question_too_many_pushes_out_the_least_urgent() -> None:
    """Counted, known as a gap, and let go if trades waited for it."""
    refills = Refills()
    for number in range(ASKS):
        refills.add(lost(5, 5, f"A{number}-USD"), 60.0, now=float(number))
    assert refills.open == ASKS
    refills.add(lost(10**9, 10**9), 0.0, now=ASKS + 1.0)
    assert (refills.open, refills.pushed_out) == (ASKS, 1)
    refills.add(lost(2 * 10**9, 2 * 10**9), 60.0, now=ASKS + 1.0)
    assert (refills.open, refills.pushed_out) == (ASKS, 2)
    assert refills.released(0.0) == [lost(5, 5, "A0-USD")]
    assert set(refills.gapped) == {"BTC-USD", "A0-USD"}


async def test_without_sequences_nothing_is_asked_for_when_nobody_waits() -> None:
    """An inexact gap cannot be filled. The end of the stream can be completed."""
    refills = Refills()
    refills.add(nameless(5, 9), 2.0, now=0.0)
    assert refills.released(2.0) == [nameless(5, 9)]
    assert (refills.open, refills.given_up) == (0, 1)
    refills.add(nameless(9, None), 2.0, now=3.0)
    assert refills.released(10.0) == []
    assert refills.open == 1


async def test_trades_without_sequences_are_asked_for_in_their_order() -> None:
    """What waits goes on in order: a later question would let go of the earlier one."""
    refills = Refills()
    refills.add(nameless(5, 9), 2.0, now=0.0)
    refills.add(nameless(12, 15), 2.0, now=1.0)
    first = refills.take(1.0)
    assert first is not None
    assert refills.take(1.0) is None
    refills.done(first, 1.0)
    second = refills.take(1.0)
    assert second is not None
    assert second.missing == nameless(12, 15)


@given(st.integers(1, 12))
def test_questions_are_tried_less_and_less_often(tries: int) -> None:
    """Twice as long after each, and at most a minute."""

    async def main() -> None:
        refills, now, waits = Refills(), 0.0, list[float]()
        refills.add(lost(5, 6), now=now)
        for _ in range(tries):
            ask = refills.take(now)
            assert ask is not None
            refills.put_back(ask)
            waits.append(refills.next_try() - now)
            assert refills.take(refills.next_try() - 0.01) is None
            now = refills.next_try()
        assert waits == [min(0.25 * 2**number, 60.0) for number in range(tries)]

    trio.run(main)


def test_a_new_numbering_ends_the_questions_of_its_symbol() -> None:
    """Nobody could answer them, and whoever waits goes on. Those of other symbols stay."""

    async def main() -> None:
        refills = Refills()
        refills.add(lost(5, 6), hold=2.0, now=0.0)
        refills.add(lost(8, 9, symbol="ETH-USD"), now=0.0)
        refills.forget("BTC-USD", 1.0)
        assert set(refills.symbols) == {"ETH-USD"}
        assert (refills.given_up, refills.lapsed) == (1, 2)
        assert [each.first for each in refills.released(1.0)] == [5]

    trio.run(main)


class Walk(RuleBasedStateMachine):
    """Beside a model: the sequences of each symbol that were told missing, and have neither come nor been given up."""

    def __init__(self) -> None:
        super().__init__()
        self.refills, self.now = Refills(), 0.0
        self.open: dict[str, set[int]] = {symbol: set() for symbol in SYMBOLS}
        self.hand: list[Ask] = []

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        first=st.integers(1, 3000),
        size=st.integers(1, 40),
        hold=st.sampled_from([0.0, 2.0]),
    )
    def lose(self, symbol: str, first: int, size: int, hold: float) -> None:
        missing = lost(first, first + size - 1, symbol)
        self.refills.add(missing, hold, now=self.now)
        self.open[symbol] |= set(range(first, first + size))
        self.hand = [ask for ask in self.hand if ask in self.refills._asks]

    @rule(used=st.floats(0, 1))
    def take(self, used: float) -> None:
        ask = self.refills.take(self.now, used)
        if ask is not None:
            assert ask.left
            self.hand.append(ask)

    @rule(data=st.data())
    def come(self, data: st.DataObject) -> None:
        if not self.hand:
            return
        ask = self.hand.pop(data.draw(st.integers(0, len(self.hand) - 1)))
        numbers = [number for first, last in ask.left for number in range(first, last + 1)]
        some = data.draw(st.lists(st.sampled_from(numbers), unique=True)) if numbers else []
        self.refills.came(ask, [trade(number, ask.missing.symbol) for number in sorted(some)])
        self.open[ask.missing.symbol] -= set(some)
        if ask.left:
            self.refills.put_back(ask)
        else:
            self.refills.done(ask, self.now)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.hand:
            ask = self.hand.pop()
            self.refills.release(ask, self.now)
            self.refills.give_up(ask, self.now)
            gone = {number for first, last in ask.left for number in range(first, last + 1)}
            self.open[ask.missing.symbol] -= gone

    @rule(seconds=st.floats(0.1, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for missing in self.refills.released(self.now):
            assert missing.before is not None
        held = [until for ask in self.refills._asks for until, _ in ask.holds]
        assert all(until > self.now for until in held)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        for symbol in SYMBOLS:
            asked = {
                number
                for ask in self.refills._asks
                if ask.missing.symbol == symbol
                for first, last in ask.left
                for number in range(first, last + 1)
            }
            assert self.open[symbol] <= asked
            assert self.refills.missing(symbol) >= len(asked)


def test_whatever_happens_nothing_that_is_missing_is_forgotten() -> None:
    """Losses, near and far, told twice, half answers, ends of holds, in any order."""
    bounds = settings(max_examples=60, stateful_step_count=30, deadline=None)

    async def main() -> None:
        run_state_machine_as_test(Walk, settings=bounds)

    trio.run(main)
