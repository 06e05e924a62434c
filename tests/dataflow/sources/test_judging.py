"""Promises of dataflow.sources.judging: an answer is believed as far as it was asked for, and no further."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Missing, Trade
from dataflow.sources.judging import SLACK, judge
from dataflow.sources.reading import Unusable

SECOND = 10**9


def trade(number: int, **changed: Any) -> Trade:
    made = Trade("x", "BTC-USD", str(number), "buy", Decimal(number), Decimal(1), number * SECOND, number)
    return msgspec.structs.replace(made, **changed)


def nameless(number: int, **changed: Any) -> Trade:
    return trade(number, sequence=None, **changed)


def asked(first: int, last: int | None) -> Missing:
    before = None if last is None else trade(last + 1)
    return Missing("x", "BTC-USD", trade(first - 1), before, first, last)


def asked_by_id(after: int, before: int | None) -> Missing:
    return Missing("x", "BTC-USD", nameless(after), None if before is None else nameless(before))


def numbers(trades: Sequence[Trade]) -> list[int]:
    return [int(each.trade_id or 0) for each in trades]


@given(st.data(), st.integers(5, 20), st.integers(0, 20), st.booleans())
def test_an_honest_answer_gives_the_missing_trades_once_and_in_order(
    data: st.DataObject, first: int, more: int, open_end: bool
) -> None:
    """In whatever order, however often, with or without the trades around them."""
    last = first + more
    missing = asked(first, None if open_end else last)
    told = [trade(number) for number in range(first, last + 1)]
    told += data.draw(st.lists(st.sampled_from([trade(first - 1), *told]), max_size=5))
    told.append(trade(first - 1) if open_end else trade(last + 1))
    judged = judge(missing, data.draw(st.permutations(told)))
    assert numbers(judged.trades) == list(range(first, last + 1))
    assert judged.is_whole


def test_what_is_not_in_the_answer_is_missing_still() -> None:
    """It is no lie: the upstream's own books may be late."""
    judged = judge(asked(5, 9), [trade(4), trade(6), trade(9)])
    assert (numbers(judged.trades), judged.is_whole) == ([6, 9], False)
    assert judge(asked(5, 9), []) == judge(asked(5, 9), [trade(10)])


def test_up_to_now_only_what_goes_on_is_of_use() -> None:
    """Behind a hole nobody knows what follows."""
    judged = judge(asked(5, None), [trade(4), trade(5), trade(7)])
    assert (numbers(judged.trades), judged.is_whole) == ([5], False)
    assert judge(asked(5, None), [trade(4)]).is_whole
    assert not judge(asked(5, None), []).is_whole


LIES = [
    ("refill_symbol", trade(6, symbol="ETH-USD")),
    ("refill_symbol", trade(6, source="y")),
    ("refill_id", trade(6, trade_id=None)),
    ("refill_conflict", trade(7, price=Decimal(99))),
    ("refill_conflict", trade(7, side="sell")),
    ("refill_conflict", trade(7, timestamp=7 * SECOND + 1)),
    ("refill_conflict", trade(7, trade_id="70")),
    ("refill_outside", trade(3, timestamp=5 * SECOND)),
    ("refill_outside", trade(11, timestamp=9 * SECOND)),
    ("refill_outside", trade(6, sequence=None)),
    ("refill_time", trade(6, timestamp=4 * SECOND - SLACK - 1)),
    ("refill_time", trade(6, timestamp=10 * SECOND + SLACK + 1)),
    ("refill_known", trade(4, price=Decimal(99))),
    ("refill_known", trade(4, quantity=Decimal(99))),
    ("refill_known", trade(4, side="sell")),
    ("refill_known", trade(4, timestamp=4 * SECOND + SLACK + 1)),
    ("refill_known", trade(4, trade_id="other")),
    ("refill_known", trade(10, price=Decimal(99))),
    ("refill_known", trade(10, sequence=9)),
    ("refill_known", trade(10, trade_id="other")),
]


@pytest.mark.parametrize(("reason", "lie"), LIES)
@given(data=st.data())
def test_one_lie_refuses_the_whole_answer(reason: str, lie: Trade, data: st.DataObject) -> None:
    """Wherever it stands among true trades."""
    honest = [trade(number) for number in (5, 7, 8, 9)]
    with pytest.raises(Unusable, match=f"^{reason}$"):
        judge(asked(5, 9), data.draw(st.permutations([*honest, lie])))


@pytest.mark.parametrize("last", [9, None])
def test_an_answer_without_the_known_trades_is_not_believed(last: int | None) -> None:
    """Its values could be those of any trades. In the midst of a large loss none is known."""
    told = [trade(number) for number in (5, 6, 7)]
    with pytest.raises(Unusable, match="refill_unproven"):
        judge(asked(5, last), told)
    assert numbers(judge(asked(5, last), [trade(4), *told]).trades) == [5, 6, 7]
    in_the_midst = evolve(asked(5, last), after=trade(2))
    assert numbers(judge(in_the_midst, told).trades) == [5, 6, 7]


def test_times_may_be_rounded_on_the_way_by_http() -> None:
    """Some upstreams tell whole seconds there, and parts of them in the stream."""
    missing = Missing("x", "BTC-USD", trade(4, timestamp=4 * SECOND + 900), trade(6), 5, 5)
    judged = judge(missing, [trade(4), trade(5), trade(6, side=None)])
    assert judged.is_whole


# -- without sequences


@given(st.data(), st.integers(1, 8), st.booleans())
def test_trades_without_sequences_are_spliced_by_id(data: st.DataObject, count: int, open_end: bool) -> None:
    """What stands between the two known ones; other trades around them do not matter."""
    end = 10 + count
    told = [nameless(number) for number in range(9, end + (0 if open_end else 2))]
    told += data.draw(st.lists(st.sampled_from(told), max_size=4))
    judged = judge(asked_by_id(10, None if open_end else end), sorted(told, key=lambda each: each.timestamp))
    assert numbers(judged.trades) == list(range(11, end))
    assert judged.is_whole


def test_trades_of_one_moment_keep_their_order() -> None:
    """As the answer has it: nothing else tells."""
    told = [nameless(number, timestamp=10 * SECOND) for number in (10, 13, 11, 12)]
    judged = judge(Missing("x", "BTC-USD", told[0], told[-1]), told)
    assert numbers(judged.trades) == [13, 11]


def test_what_does_not_reach_the_known_trades_proves_nothing() -> None:
    """Behind the first known one it is of use; without that one it is not."""
    told = [nameless(number) for number in range(10, 14)]
    assert numbers(judge(asked_by_id(10, 20), told).trades) == [11, 12, 13]
    assert not judge(asked_by_id(10, 20), told).is_whole
    assert judge(asked_by_id(9, 14), told) == judge(asked_by_id(9, 14), [])
    assert not judge(asked_by_id(9, 14), [*told, nameless(14)]).is_whole


def test_known_trades_in_the_other_order_prove_nothing() -> None:
    """The trade before the loss is the later one: one of two lines was ahead. What lies between them in the answer may
    not be what is missing, and nothing is whole."""
    judged = judge(asked_by_id(9, 5), [nameless(number) for number in range(5, 10)])
    assert (judged.trades, judged.is_whole) == ((), False)


def test_a_sequence_where_there_are_none_refuses_the_answer() -> None:
    """The two cannot be put into one order."""
    with pytest.raises(Unusable, match="refill_outside"):
        judge(asked_by_id(10, 14), [nameless(10), trade(11), nameless(14)])
