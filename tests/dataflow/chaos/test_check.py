"""The verdict: a whole stream passes; a missing, duplicated, reordered or altered trade is found."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dataflow.chaos.check import (
    Account,
    Admitted,
    Figures,
    Push,
    Refill,
    Seen,
    Shown,
    SourceAccount,
    State,
    Stream,
    account,
    missed_anew,
    pushed_account,
    quantiles,
    shown_account,
    source_account,
    unbalanced,
)

EPOCH = 1


def seen(number: int) -> Seen:
    return Seen("x", str(number), "buy", Decimal("1.5"), Decimal(2))


def update(offset: int, number: int | None = None, **other: Any) -> dict[str, Any]:
    """The update of a client: trade `number` (default: the offset) at `offset`."""
    told = {
        "symbol": "A-B",
        "source": "x",
        "tradeId": str(offset if number is None else number),
        "side": "buy",
    }
    return {**told, "price": Decimal("1.50"), "qty": 2, "offset": offset, **other}


def gap(first: int, last: int | None, reason: str = "source_gap") -> dict[str, Any]:
    return {"symbol": "A-B", "epoch": EPOCH, "from": first, "to": last, "reason": reason}


def answer(offset: int, **more: Any) -> dict[str, Any]:
    return {"symbol": "A-B", "epoch": EPOCH, "offset": offset, **more}


def log(*entries: int | tuple[int, int]) -> Admitted:
    """The admitted stream: an int is a trade at this offset, a pair is a gap."""
    made = Admitted()
    for entry in entries:
        if isinstance(entry, int):
            made.trade(entry, seen(entry))
        else:
            made.gap(*entry, "source_gap")
    return made


def stream(*offsets: int, begin: int = 0) -> Stream:
    made = Stream()
    made.subscribed(answer(begin))
    for offset in offsets:
        made.trade(update(offset))
    return made


def wrong(made: Stream, admitted: Admitted) -> dict[str, int]:
    return dict(account("A-B", made, admitted).violations)


def shown(*states: int) -> Shown:
    """What a client saw on one connection."""
    made = Shown()
    made.begin()
    for state in states:
        made.show((Decimal(state),))
    return made


def truth(*states: int) -> list[State]:
    return [(Decimal(state),) for state in states]


class TestStates:
    def test_some_of_the_states_are_enough(self) -> None:
        """In their order, with the last one."""
        assert not shown_account("A-B", shown(1, 3, 5), truth(1, 2, 3, 4, 5)).violations
        assert not shown_account("A-B", shown(1, 1, 2), truth(1, 1, 2)).violations

    @pytest.mark.parametrize(
        ("states", "violations"),
        [
            ((1, 3, 2, 4), {"untrue": 1}),  # it went back
            ((1, 2, 2, 4), {"untrue": 1}),  # twice
            ((1, 7, 4), {"untrue": 1}),  # never
            ((1, 2, 3), {"stale": 1}),
            ((), {"stale": 1}),
        ],
    )
    def test_what_is_not_true_or_old_is_found(self, states: tuple[int, ...], violations: Any) -> None:
        """Each in its own words."""
        made = shown_account("A-B", shown(*states), truth(1, 2, 3, 4))
        assert made.violations == violations
        assert len(made.examples) == 1

    def test_a_connection_may_begin_with_the_last_state(self) -> None:
        """Once: the state of now is what a client gets first."""
        made = shown(1, 2)
        made.lost()
        assert not made.live
        made.begin()
        made.show((Decimal(2),))
        assert made.live
        assert not shown_account("A-B", made, truth(1, 2)).violations
        made.show((Decimal(2),))
        assert shown_account("A-B", made, truth(1, 2)).violations == {"untrue": 1}

    def test_a_day_is_folded_in_time(self) -> None:
        """Of equal times the places decide; a trade of a day that is over does not count."""
        made, day = Admitted(), 86_400 * 10**9
        for offset, (price, moment) in enumerate(
            [(5, 20), (7, 10), (6, 20), (4, 15), (9, day + 1), (1, 30), (8, day + 1)], start=1
        ):
            made.trade(offset, Seen("x", str(offset), "buy", Decimal(price), Decimal(2)), moment)
        told = [tuple(map(int, state)) for state in made.days]
        next_day = day // 10**6
        assert told == [
            (5, 5, 5, 5, 2, 0),
            (7, 7, 5, 5, 4, 0),
            (7, 7, 5, 6, 6, 0),
            (7, 7, 4, 6, 8, 0),
            (9, 9, 9, 9, 2, next_day),
            (9, 9, 8, 8, 4, next_day),
        ]
        assert [int(price) for [price] in made.prices] == [5, 7, 6, 4, 9, 1, 8]

    def test_a_fill_has_its_price_at_its_place_and_counts_in_the_day_when_it_comes(self) -> None:
        """Once, also if its place was read as a trade. Of the days only the last one is sure then."""
        made = Admitted()
        made.trade(1, Seen("x", "1", "buy", Decimal(5), Decimal(2)), 10)
        made.gap(2, 2, "source_gap")
        made.trade(3, Seen("x", "3", "buy", Decimal(6), Decimal(2)), 30)
        late = Seen("x", "2", "buy", Decimal(7), Decimal(2))
        made.fill(2, late, 20)
        made.fill(2, late, 20)
        assert [int(price) for [price] in made.prices] == [5, 7, 6]
        assert [tuple(map(int, state)) for state in made.days] == [
            (5, 5, 5, 5, 2, 0),
            (5, 6, 5, 6, 4, 0),
            (5, 7, 5, 6, 6, 0),
        ]
        assert not shown_account("A-B", shown(1, 9, 4), truth(1, 2, 4), only_last=True).violations
        made_stale = shown_account("A-B", shown(1, 4, 2), truth(1, 2, 4), only_last=True)
        assert made_stale.violations == {"stale": 1}


class TestClient:
    def test_a_whole_stream_is_whole(self) -> None:
        """No violation if every place comes once, in order, with gaps where the stream has gaps."""
        made = stream(1, 2)
        made.gap(gap(3, 5))
        made.trade(update(6))
        found = account("A-B", made, log(1, 2, (3, 5), 6))
        assert found.violations == Counter()
        assert (found.delivered, found.gaps, found.announced, found.examples) == (3, 1, 0, [])

    def test_places_before_the_subscription_do_not_count(self) -> None:
        """A client that begins at 2 must get only the later places."""
        assert wrong(stream(3, begin=2), log(1, 2, 3)) == {}

    def test_a_hole_is_missing(self) -> None:
        """A missing trade is found in the middle and at the end. The example names the offsets."""
        found = account("A-B", stream(1, 3), log(1, 2, 3, 4))
        assert found.violations == {"missing": 2}
        assert found.examples == ["A-B: missing at 2, 4"]

    def test_a_gap_of_the_stream_that_was_not_told(self) -> None:
        """The daemon knew of the gap and did not announce it."""
        assert wrong(stream(1, 3), log(1, (2, 2), 3)) == {"untold": 1}

    def test_a_trade_in_an_announced_gap_is_not_missing(self) -> None:
        """It counts as announced, because the client knows of it."""
        made = stream(1)
        made.gap(gap(2, 3, "slow_client"))
        made.trade(update(4))
        found = account("A-B", made, log(1, 2, 3, 4))
        assert (found.violations, found.announced) == (Counter(), 2)

    def test_a_gap_of_unknown_size_is_one_place(self) -> None:
        """If `to` is null, one place stands for all missing trades."""
        made = stream(1)
        made.gap(gap(2, None))
        made.trade(update(4))
        assert wrong(made, log(1, (2, 2), 3, 4)) == {"missing": 1}

    def test_the_same_place_twice_is_a_duplicate(self) -> None:
        """Also if the second one comes directly after the first."""
        assert wrong(stream(1, 2, 2, 3), log(1, 2, 3)) == {"duplicated": 1}

    def test_the_same_trade_at_another_place_is_a_duplicate(self) -> None:
        """The trade id of the source decides, not the offset."""
        made = stream(1)
        made.trade(update(2, number=1))
        admitted = log(1)
        admitted.trade(2, seen(1))
        assert wrong(made, admitted) == {"duplicated": 1}

    def test_a_trade_behind_a_later_one_is_reordered(self) -> None:
        """The trade came, but too late."""
        assert wrong(stream(1, 3, 2), log(1, 2, 3)) == {"reordered": 1}

    def test_a_gap_for_a_past_place_is_reordered(self) -> None:
        """A gap is worth nothing outside its place in the stream."""
        made = stream(1, 2)
        made.gap(gap(2, 2))
        assert wrong(made, log(1, 2)) == {"reordered": 1}

    @pytest.mark.parametrize(
        "other",
        [{"side": "sell"}, {"price": Decimal("1.51")}, {"qty": 3}, {"source": "y"}, {"tradeId": "9"}],
    )
    def test_an_altered_trade_is_found(self, other: dict[str, Any]) -> None:
        """Another side, price, quantity, source or id is found."""
        made = stream(1)
        made.trade(update(2, **other))
        assert wrong(made, log(1, 2)) == {"altered": 1}

    def test_a_return_with_since_makes_it_whole(self) -> None:
        """Trades in the answer count as delivered, gaps in it as announced."""
        made = stream(1, 2)
        made.lost()
        assert made.since == {"epoch": EPOCH, "offset": 2}
        made.subscribed(answer(5, recovered=True, trades=[update(3), update(5)], gaps=[gap(4, None)]))
        made.trade(update(6))
        found = account("A-B", made, log(1, 2, 3, (4, 4), 5, 6))
        assert (found.violations, found.delivered, found.recovered) == (Counter(), 5, 2)

    def test_an_answer_that_leaves_something_out_is_found(self) -> None:
        """`recovered` is only a claim: its places are checked like all others."""
        made = stream(1)
        made.lost()
        made.subscribed(answer(3, recovered=True, trades=[update(3)]))
        assert wrong(made, log(1, 2, 3)) == {"missing": 1}

    def test_a_return_that_is_not_recovered_is_found(self) -> None:
        """The daemon of a rehearsal forgets nothing, so it can always recover."""
        made = stream(1)
        made.lost()
        made.subscribed(answer(2, recovered=False))
        assert wrong(made, log(1, 2)) == {"missing": 1, "unrecovered": 1}

    def test_another_epoch_is_found(self) -> None:
        """One daemon has one epoch."""
        made = stream(1)
        made.lost()
        made.subscribed({**answer(1, recovered=True), "epoch": 2})
        assert wrong(made, log(1)) == {"new_epoch": 1}

    def test_a_trade_before_the_answer_is_found(self) -> None:
        """Before the answer to `subscribe` no trade may come."""
        made = stream(1)
        made.lost()
        made.trade(update(2))
        assert wrong(made, log(1, 2)) == {"unasked": 1}

    @given(length=st.integers(2, 30), data=st.data())
    def test_any_single_fault_is_found(self, length: int, data: st.DataObject) -> None:
        """One trade left out, duplicated or exchanged with its neighbour, at any place, is always found."""
        offsets = list(range(1, length + 1))
        at = data.draw(st.integers(0, length - 2))
        damage = data.draw(st.sampled_from(["leave out", "duplicate", "exchange"]))
        if damage == "leave out":
            del offsets[at]
        elif damage == "duplicate":
            offsets.insert(data.draw(st.integers(at + 1, length)), offsets[at])
        else:
            offsets[at : at + 2] = reversed(offsets[at : at + 2])
        assert wrong(stream(*offsets), log(*range(1, length + 1))) != {}


class TestSource:
    def sent(self, *numbers: int) -> list[Seen]:
        return [seen(number) for number in numbers]

    def admitted(self, *entries: int | None) -> Admitted:
        """The admitted stream: numbers of trades in the order of their places, None is a gap of one place."""
        made = Admitted()
        for place, entry in enumerate(entries, start=1):
            if entry is None:
                made.gap(place, place, "source_gap")
            else:
                made.trade(place, seen(entry))
        return made

    def found(self, sent: list[Seen], admitted: Admitted) -> dict[str, int]:
        return dict(source_account("A-B", sent, admitted).violations)

    def test_everything_admitted_is_everything_accounted_for(self) -> None:
        """Trades may be admitted in another order than they were sent."""
        assert self.found(self.sent(1, 2, 3), self.admitted(1, 3, 2)) == {}

    def test_a_loss_without_a_gap_is_found(self) -> None:
        """A loss is found in the middle and at the end. The example names the ids."""
        made = source_account("A-B", self.sent(1, 2, 3, 4), self.admitted(1, 3))
        assert made.violations == {"unaccounted": 2}
        assert made.examples == ["A-B: never admitted, no gap: 2, 4"]

    def test_a_gap_tells_of_the_loss_in_its_place(self) -> None:
        """One gap announces a whole run of losses, but no loss elsewhere."""
        made = source_account("A-B", self.sent(1, 2, 3, 4, 5, 6), self.admitted(1, None, 4, 6))
        assert (made.announced, made.unaccounted) == (2, 1)

    def test_a_late_trade_does_not_hide_the_gap_of_its_neighbour(self) -> None:
        """2 and 3 were garbled. 2 came again much later, 3 never did: the gap still announces 3."""
        assert self.found(self.sent(1, 2, 3, 4, 5), self.admitted(1, None, 4, 5, 2)) == {}

    def test_trades_before_the_first_admitted_one_do_not_count(self) -> None:
        """The daemon had not subscribed yet."""
        made = source_account("A-B", self.sent(1, 2, 3), self.admitted(2, 3))
        assert (made.sent, made.violations) == (2, Counter())

    def test_twice_invented_or_altered_is_found(self) -> None:
        """Each difference from the trades that the exchange sent is a violation of its own sort."""
        assert self.found(self.sent(1, 2), self.admitted(1, 2, 1)) == {"twice": 1}
        assert self.found(self.sent(1, 2), self.admitted(1, 2, 7)) == {"invented": 1}
        flipped = [seen(1), evolve(seen(2), side="sell")]
        assert self.found(flipped, self.admitted(1, 2)) == {"altered": 1}

    @given(lost=st.sets(st.integers(2, 19)))
    def test_gaps_in_every_right_place_are_enough_and_one_less_is_not(self, lost: set[int]) -> None:
        """Every run of losses needs a gap of its own."""
        entries: list[int | None] = []
        for number in range(1, 21):
            if number not in lost:
                entries.append(number)
            elif number - 1 not in lost:
                entries.append(None)
        everything = self.sent(*range(1, 21))
        assert self.found(everything, self.admitted(*entries)) == {}
        for place in [n for n, entry in enumerate(entries) if entry is None]:
            without = entries[:place] + entries[place + 1 :]
            assert "unaccounted" in self.found(everything, self.admitted(*without))


class TestVerdict:
    def node(self, **counters: int) -> dict[str, Any]:
        box: dict[str, Any] = {
            "size": 9,
            "accepted": 0,
            "handled": 0,
            "queued": 0,
            "dropped": {},
            "lost_in_flight": 0,
        }
        return {"path": "a", "mailbox": {**box, **counters}, "children": ()}

    def test_a_mailbox_that_does_not_balance_is_found(self) -> None:
        """It is found anywhere in the tree."""
        even = self.node(accepted=10, handled=4, queued=3, dropped={"full": 2}, lost_in_flight=1)  # type: ignore[arg-type]
        odd = self.node(accepted=10, handled=9)
        assert list(unbalanced({"path": "", "mailbox": None, "children": [even, even]})) == []
        (told,) = unbalanced({"path": "", "mailbox": None, "children": [even, odd]})
        assert told.startswith("a: accepted 10, but 9 accounted for")

    def test_without_violations_everything_held(self) -> None:
        """The figures also turn into JSON."""
        figures = Figures(
            clients={"c": Account(delivered=3)}, sources={"s": SourceAccount(sent=3, admitted=3)}
        )
        assert figures.held
        assert figures.to_dict()["held"] is True
        assert figures.to_dict()["clients"]["c"]["delivered"] == 3

    @pytest.mark.parametrize("name", ["unbalanced", "unsettled", "left_behind", "broken"])
    def test_each_sort_of_trouble_breaks_it(self, name: str) -> None:
        """One line is enough for a violation, and the evidence shows it."""
        figures = Figures()
        getattr(figures, name).append("this happened")
        assert not figures.held
        assert figures.violations == {name: 1}
        assert figures.evidence == [f"{name}: this happened"]

    def test_one_client_or_source_breaks_it(self) -> None:
        """The evidence names the client."""
        figures = Figures(clients={"c": Account(missing=2, examples=["A-B: missing at 1, 2"])})
        assert (figures.violations, figures.evidence) == ({"missing": 2}, ["c A-B: missing at 1, 2"])
        assert not Figures(sources={"s": SourceAccount(unaccounted=1)}).held

    def test_the_slowest_recovery_is_named(self) -> None:
        """The path with the longest recovery stands beside the quantiles."""
        figures = Figures(recovery=[("a", 1.0), ("b", 3.0), ("c", 2.0)])
        assert figures.to_dict()["recovery"] == {
            "count": 3,
            "p50": 2.0,
            "p99": 3.0,
            "max": 3.0,
            "slowest": "b",
        }

    def test_quantiles(self) -> None:
        """Median, 99th percentile and maximum."""
        assert quantiles([]) == {"count": 0}
        assert quantiles([0.1 * n for n in range(1, 201)]) == {
            "count": 200,
            "p50": 10.1,
            "p99": 19.9,
            "max": 20.0,
        }


def test_equal_trades_without_ids_are_two() -> None:
    """Only their places tell them apart."""
    stream = Stream()
    stream.subscribed(answer(0))
    for offset in (1, 2):
        stream.trade(update(offset, tradeId=None, side=None))
    assert not stream.findings
    stream.trade(update(2, tradeId=None, side=None))
    assert stream.findings == {"duplicated": 1}


def tick(number: int) -> Seen:
    """The volume is its number."""
    return Seen("ticks", None, None, Decimal("1.5"), Decimal(number))


def ticked(*entries: int | tuple[int, int]) -> Admitted:
    """The admitted stream: an int is the tick with this number at the next place, a pair is a gap."""
    made = Admitted()
    for entry in entries:
        if isinstance(entry, int):
            made.trade(made.last + 1, tick(entry))
        else:
            made.gap(*entry, "shard_restart")
    return made


def push(first: int, last: int, *, over: bool = True, taken: int | None = None) -> Push:
    return Push([tick(number) for number in range(first, last + 1)], over, taken)


@pytest.mark.parametrize(
    ("pushes", "admitted"),
    [
        ([push(1, 3), push(4, 5, over=False)], ticked(1, 2, 3, 4, 5)),
        ([push(1, 3), push(4, 5, over=False)], ticked(1, 4, 5)),  # cut behind 1: nobody knows of 2 and 3
        ([push(1, 3)], ticked()),
        ([push(1, 3, taken=1), push(4, 5, taken=2)], ticked(1, 4, 5)),
        ([push(1, 4, over=False)], ticked(1, (2, 2), 4)),  # announced
        ([push(1, 3, taken=3), push(4, 4, over=False)], ticked(1, 2, (3, 3), 4)),
        ([push(1, 2), push(3, 4, over=False)], ticked(1, 3, 2, 4)),  # the old connection was slower
    ],
)
def test_what_producers_pushed_is_found(pushes: list[Push], admitted: Admitted) -> None:
    """All that the daemon took, in the order of each connection. Behind a cut nobody knows."""
    assert pushed_account("A", pushes, admitted).violations == {}


@pytest.mark.parametrize(
    ("pushes", "admitted", "wrong"),
    [
        ([push(1, 3)], ticked(1, 3), {"unaccounted": 1}),
        ([push(1, 3, over=False)], ticked(1, 2), {"unaccounted": 1}),
        ([push(1, 3, taken=3)], ticked(1, 2), {"unaccounted": 1}),
        ([push(1, 3), push(4, 5, over=False)], ticked((1, 1), 1, 2, 3, 5), {"unaccounted": 1}),
        ([push(1, 3, taken=2)], ticked(1, 2, 3), {"denied": 1}),
        ([push(1, 3)], ticked(1, 3, 2), {"disordered": 1}),
        ([push(1, 3)], ticked(1, 2, 2, 3), {"twice": 1}),
        ([push(1, 3)], ticked(1, 2, 3, 4), {"invented": 1}),
        ([Push([evolve(tick(1), price=Decimal(2))])], ticked(1), {"altered": 1}),
    ],
)
def test_what_became_of_ticks_and_must_not(
    pushes: list[Push], admitted: Admitted, wrong: dict[str, int]
) -> None:
    """Lost inside a connection, taken against the daemon's own word, out of order, twice, never sent."""
    found = pushed_account("A", pushes, admitted)
    assert found.violations == wrong


def test_ticks_that_were_dropped_on_purpose_are_no_loss() -> None:
    """As many as faults took, and no more."""
    admitted = ticked(1, 4)
    assert pushed_account("A", [push(1, 4)], admitted, dropped=2).violations == {}
    assert pushed_account("A", [push(1, 4)], admitted, dropped=1).violations == {"unaccounted": 1}


class TestRewindsAndFills:
    def test_what_a_crash_took_back_is_judged_no_more(self) -> None:
        """The client drops what lies behind the place; the same trades may come at other places then."""
        made = stream(1, 2, 3)
        made.lost()
        made.subscribed(
            answer(
                3, recovered=False, rewound={"epoch": EPOCH, "offset": 1}, trades=[update(2, 3), update(3, 2)]
            )
        )
        admitted = Admitted()
        for offset, number in ((1, 1), (2, 3), (3, 2)):
            admitted.trade(offset, seen(number))
        assert wrong(made, admitted) == {}
        assert made.rewinds == [1]

    def test_a_rewind_that_is_not_told_is_found(self) -> None:
        """The client goes on, and holds trades that are no part of the stream."""
        made = stream(1, 2)
        made.lost()
        made.subscribed(answer(3, recovered=True, trades=[update(3, 2)]))
        admitted = Admitted()
        for offset, number in ((1, 1), (2, 3), (3, 2)):
            admitted.trade(offset, seen(number))
        assert wrong(made, admitted) == {"altered": 1, "duplicated": 1}

    def test_a_filled_gap_holds_its_trades(self) -> None:
        """All or some of its places; another trade at a place that holds one already is found."""
        made = stream(1)
        made.gap(gap(2, 4))
        made.filled(gap(2, 3) | {"trades": [update(2), update(3)]})
        made.trade(update(5))
        assert wrong(made, log(1, 2, 3, (4, 4), 5)) == {}
        made.filled(gap(3, 3) | {"trades": [update(3, 7)]})
        assert made.findings["changed"] == 1

    def test_a_fill_of_the_daemon_is_a_trade_of_the_stream(self) -> None:
        """At the place of its gap."""
        admitted = log(1, (2, 3), 4)
        admitted.fill(2, seen(2))
        assert (set(admitted.trades), admitted.gap_places) == ({1, 2, 4}, {3})


@pytest.mark.parametrize(
    ("ids", "admitted", "missed"),
    [
        ([5, 6, 7], {5, 7}, 0),  # missed, but not at a new numbering
        ([5, 6, 7, 1, 2, 3], {5, 6, 3}, 3),
        ([5, 6, 1, 2], {5, 6, 1, 2}, 0),
        ([50, 51, 20, 21, 1, 2], {50, 21, 2}, 3),
    ],
)
def test_what_is_missed_at_a_new_numbering_is_counted_apart(
    ids: list[int], admitted: set[int], missed: int
) -> None:
    """Nobody can ask for it: the last trades of the old numbers, and the first ones of the new."""
    assert missed_anew(ids, admitted) == missed


def test_the_share_of_what_was_refilled() -> None:
    """Of the trades that could be asked for; and the time within which that was done."""
    refill = Refill(90, 15, [(0.1, 5), (1.0, 9), (float("inf"), 10)], 3, Counter(), anew=5)
    assert (refill.missed, refill.share) == (105, 0.9)
    assert (refill.within(0.5), refill.within(0.9), refill.within(0.99)) == (0.1, 1.0, float("inf"))
    assert Refill(0, 0, [], 0, Counter()).share == 1.0
