"""The verdict: what is whole is found whole, and whatever is missing, double, out of order or altered is found."""

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
    Seen,
    SourceAccount,
    Stream,
    account,
    quantiles,
    source_account,
    unbalanced,
)

EPOCH = 1


def seen(number: int) -> Seen:
    return Seen("x", str(number), "buy", Decimal("1.5"), Decimal(2))


def update(offset: int, number: int | None = None, **other: Any) -> dict[str, Any]:
    """As a client gets it: trade `number` (the offset, unless told otherwise) at `offset`."""
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
    """Trades by their offsets, and gaps as pairs."""
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


class TestClient:
    def test_a_whole_stream_is_whole(self) -> None:
        """Every place once and in order, gaps where the stream has gaps: nothing is wrong."""
        made = stream(1, 2)
        made.gap(gap(3, 5))
        made.trade(update(6))
        found = account("A-B", made, log(1, 2, (3, 5), 6))
        assert found.violations == Counter()
        assert (found.delivered, found.gaps, found.announced, found.examples) == (3, 1, 0, [])

    def test_what_was_before_the_subscription_is_not_owed(self) -> None:
        """A client that begins at 2 is owed what comes behind."""
        assert wrong(stream(3, begin=2), log(1, 2, 3)) == {}

    def test_a_hole_is_missing(self) -> None:
        """In the middle, and at the end; with the offsets in words."""
        found = account("A-B", stream(1, 3), log(1, 2, 3, 4))
        assert found.violations == {"missing": 2}
        assert found.examples == ["A-B: missing at 2, 4"]

    def test_a_gap_of_the_stream_that_was_not_told(self) -> None:
        """A hole that the daemon knew of and kept quiet about."""
        assert wrong(stream(1, 3), log(1, (2, 2), 3)) == {"untold": 1}

    def test_a_trade_in_an_announced_gap_is_not_missing(self) -> None:
        """It is counted as announced: the client knows."""
        made = stream(1)
        made.gap(gap(2, 3, "slow_client"))
        made.trade(update(4))
        found = account("A-B", made, log(1, 2, 3, 4))
        assert (found.violations, found.announced) == (Counter(), 2)

    def test_a_gap_of_unknown_size_is_one_place(self) -> None:
        """`to` is null: one place stands for them."""
        made = stream(1)
        made.gap(gap(2, None))
        made.trade(update(4))
        assert wrong(made, log(1, (2, 2), 3, 4)) == {"missing": 1}

    def test_the_same_place_twice_is_a_duplicate(self) -> None:
        """Also directly after."""
        assert wrong(stream(1, 2, 2, 3), log(1, 2, 3)) == {"duplicated": 1}

    def test_the_same_trade_at_another_place_is_a_duplicate(self) -> None:
        """What counts is the source's id, not the offset."""
        made = stream(1)
        made.trade(update(2, number=1))
        admitted = log(1)
        admitted.trade(2, seen(1))
        assert wrong(made, admitted) == {"duplicated": 1}

    def test_a_trade_behind_a_later_one_is_reordered(self) -> None:
        """It came, but not in its order."""
        assert wrong(stream(1, 3, 2), log(1, 2, 3)) == {"reordered": 1}

    def test_a_gap_for_what_had_passed_is_reordered(self) -> None:
        """A gap stands in its place, or it tells nothing."""
        made = stream(1, 2)
        made.gap(gap(2, 2))
        assert wrong(made, log(1, 2)) == {"reordered": 1}

    @pytest.mark.parametrize(
        "other",
        [{"side": "sell"}, {"price": Decimal("1.51")}, {"qty": 3}, {"source": "y"}, {"tradeId": "9"}],
    )
    def test_an_altered_trade_is_found(self, other: dict[str, Any]) -> None:
        """A flipped side, another price, quantity, source or id."""
        made = stream(1)
        made.trade(update(2, **other))
        assert wrong(made, log(1, 2)) == {"altered": 1}

    def test_a_return_with_since_makes_it_whole(self) -> None:
        """What came in the answer counts as delivered, gaps in it as announced."""
        made = stream(1, 2)
        made.lost()
        assert made.since == {"epoch": EPOCH, "offset": 2}
        made.subscribed(answer(5, recovered=True, trades=[update(3), update(5)], gaps=[gap(4, None)]))
        made.trade(update(6))
        found = account("A-B", made, log(1, 2, 3, (4, 4), 5, 6))
        assert (found.violations, found.delivered, found.recovered) == (Counter(), 5, 2)

    def test_an_answer_that_leaves_something_out_is_found(self) -> None:
        """`recovered` is a claim: the places behind it are checked like all others."""
        made = stream(1)
        made.lost()
        made.subscribed(answer(3, recovered=True, trades=[update(3)]))
        assert wrong(made, log(1, 2, 3)) == {"missing": 1}

    def test_a_return_that_is_not_recovered_is_found(self) -> None:
        """The daemon of a rehearsal forgets nothing: it could have."""
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
        """Nothing comes of what is not subscribed."""
        made = stream(1)
        made.lost()
        made.trade(update(2))
        assert wrong(made, log(1, 2)) == {"unasked": 1}

    @given(length=st.integers(2, 30), data=st.data())
    def test_any_single_fault_is_found(self, length: int, data: st.DataObject) -> None:
        """One trade left out, doubled or exchanged with its neighbour, anywhere: never a clean verdict."""
        offsets = list(range(1, length + 1))
        at = data.draw(st.integers(0, length - 2))
        what = data.draw(st.sampled_from(["leave out", "double", "exchange"]))
        if what == "leave out":
            del offsets[at]
        elif what == "double":
            offsets.insert(data.draw(st.integers(at + 1, length)), offsets[at])
        else:
            offsets[at : at + 2] = reversed(offsets[at : at + 2])
        assert wrong(stream(*offsets), log(*range(1, length + 1))) != {}


class TestSource:
    def sent(self, *numbers: int) -> list[Seen]:
        return [seen(number) for number in numbers]

    def admitted(self, *entries: int | None) -> Admitted:
        """Trades by number, in the order of their places; None is a gap of one place."""
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
        """Also what was admitted in another order than it was sent."""
        assert self.found(self.sent(1, 2, 3), self.admitted(1, 3, 2)) == {}

    def test_a_loss_without_a_gap_is_found(self) -> None:
        """In the middle and at the end; with the ids in words."""
        made = source_account("A-B", self.sent(1, 2, 3, 4), self.admitted(1, 3))
        assert made.violations == {"unaccounted": 2}
        assert made.examples == ["A-B: never admitted, no gap: 2, 4"]

    def test_a_gap_tells_of_the_loss_in_its_place(self) -> None:
        """Of a whole run, but not of a loss elsewhere."""
        made = source_account("A-B", self.sent(1, 2, 3, 4, 5, 6), self.admitted(1, None, 4, 6))
        assert (made.announced, made.unaccounted) == (2, 1)

    def test_a_late_trade_does_not_hide_the_gap_of_its_neighbour(self) -> None:
        """2 and 3 were garbled; 2 came again much later, 3 never did: the gap still tells of it."""
        assert self.found(self.sent(1, 2, 3, 4, 5), self.admitted(1, None, 4, 5, 2)) == {}

    def test_what_was_sent_before_the_first_was_admitted_is_not_owed(self) -> None:
        """Nobody had listened yet."""
        made = source_account("A-B", self.sent(1, 2, 3), self.admitted(2, 3))
        assert (made.sent, made.violations) == (2, Counter())

    def test_twice_invented_or_altered_is_found(self) -> None:
        """What the daemon made of it, the exchange did not say."""
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
        """Wherever it stands in the tree."""
        even = self.node(accepted=10, handled=4, queued=3, dropped={"full": 2}, lost_in_flight=1)  # type: ignore[arg-type]
        odd = self.node(accepted=10, handled=9)
        assert list(unbalanced({"path": "", "mailbox": None, "children": [even, even]})) == []
        (told,) = unbalanced({"path": "", "mailbox": None, "children": [even, odd]})
        assert told.startswith("a: accepted 10, but 9 accounted for")

    def test_without_violations_everything_held(self) -> None:
        """And the figures are ready for JSON."""
        figures = Figures(
            clients={"c": Account(delivered=3)}, sources={"s": SourceAccount(sent=3, admitted=3)}
        )
        assert figures.held
        assert figures.to_dict()["held"] is True
        assert figures.to_dict()["clients"]["c"]["delivered"] == 3

    @pytest.mark.parametrize("name", ["unbalanced", "unsettled", "left_behind", "broken"])
    def test_each_sort_of_trouble_breaks_it(self, name: str) -> None:
        """One line is enough, and is shown."""
        figures = Figures()
        getattr(figures, name).append("this happened")
        assert not figures.held
        assert figures.violations == {name: 1}
        assert figures.evidence == [f"{name}: this happened"]

    def test_one_client_or_source_breaks_it(self) -> None:
        """And says which."""
        figures = Figures(clients={"c": Account(missing=2, examples=["A-B: missing at 1, 2"])})
        assert (figures.violations, figures.evidence) == ({"missing": 2}, ["c A-B: missing at 1, 2"])
        assert not Figures(sources={"s": SourceAccount(unaccounted=1)}).held

    def test_who_was_away_for_longest_is_told(self) -> None:
        """Beside the quantiles, for whoever wonders."""
        figures = Figures(recovery=[("a", 1.0), ("b", 3.0), ("c", 2.0)])
        assert figures.to_dict()["recovery"] == {
            "count": 3,
            "p50": 2.0,
            "p99": 3.0,
            "max": 3.0,
            "slowest": "b",
        }

    def test_quantiles(self) -> None:
        """The median, the 99th percentile and the worst."""
        assert quantiles([]) == {"count": 0}
        assert quantiles([0.1 * n for n in range(1, 201)]) == {
            "count": 200,
            "p50": 10.1,
            "p99": 19.9,
            "max": 20.0,
        }
