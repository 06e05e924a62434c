"""A stream that goes over from one source to another: what is left out, what is a gap, and what is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataflow.cache.delivery import Delivery
from dataflow.cache.holding import BELT, Holds
from dataflow.cache.store import Store
from dataflow.cache.verdict import Verdict
from dataflow.domain import Gap, Item, Missed, Missing, Recorded, Refilled, Switched, Trade
from supervisors import Put
from tests.dataflow.cache.items import US, missed, sequenced, trade

BTC = "BTC-USD"


def switched(source: str = "b", before: str | None = "a", **other: Any) -> Switched:
    fields: dict[str, Any] = {"reason": "a is lost", "at": 0, "is_whole": False, **other}
    return Switched(source, BTC, before, **fields)


def of_b(number: int, **other: Any) -> Trade:
    return sequenced(number, source="b", **other)


def log(store: Store) -> list[str]:
    """Each place: source and id of its trade, or how many are missing."""
    return [
        f"{entry.trade.source} {entry.trade.trade_id}"
        if isinstance(entry, Recorded)
        else f"gap of {entry.last - entry.first + 1 if entry.exact else '?'}"
        for entry in store.history(BTC).read(0, 999)
    ]


class TestHistory:
    def test_what_may_be_missing_of_the_old_source_is_a_gap(self) -> None:
        """Nobody knows how many, so it is inexact. It stands before the first trade of the new one."""
        store = Store(1, 99, 100.0)
        store.admit([sequenced(1), switched(), of_b(501)], 0.0)
        assert log(store) == ["a 1", "gap of ?", "b 501"]
        assert store.history(BTC).read(1, 1) == [Gap(2, 2, "source_gap", exact=False, source="a")]

    def test_the_gap_is_not_that_of_the_new_source(self) -> None:
        """It has lost nothing, so nobody must think less of it."""
        store = Store(1, 99, 100.0)
        store.admit([sequenced(1), switched(), of_b(501)], 0.0)
        missing = {source: store.history(BTC).missing_of(source)[0] for source in "ab"}
        assert missing == {"a": 1, "b": 0}

    def test_a_source_that_is_left_in_good_health_leaves_no_gap(self) -> None:
        """All that it sent up to the switch is there."""
        store = Store(1, 99, 100.0)
        store.admit([sequenced(1), switched(is_whole=True), of_b(501)], 0.0)
        assert log(store) == ["a 1", "b 501"]

    def test_unless_a_mark_says_that_it_lost_some(self) -> None:
        """For example because a shard had no room for them just before."""
        store = Store(1, 99, 100.0)
        store.admit([sequenced(1), missed(), switched(is_whole=True), of_b(501)], 0.0)
        assert log(store) == ["a 1", "gap of ?", "b 501"]

    def test_what_the_new_source_sent_before_is_not_missing(self) -> None:
        """Neither the trades that were left out, nor those since the last time that the stream was its."""
        store = Store(1, 99, 100.0)
        store.admit([of_b(1), switched("a", "b", is_whole=True), sequenced(7)], 0.0)
        store.admit([switched("b", "a", is_whole=True, sequence=90), of_b(91)], 0.0)
        assert log(store) == ["b 1", "a 7", "b 91"]

    def test_what_it_loses_afterwards_is_missing(self) -> None:
        """Also before its first trade in the stream: its last one that was left out tells how many."""
        store = Store(1, 99, 100.0)
        store.admit([sequenced(7), switched(is_whole=True, sequence=90), of_b(93)], 0.0)
        assert log(store) == ["a 7", "gap of 2", "b 93"]

    def test_a_mark_of_the_new_source_counts_from_the_switch_on(self) -> None:
        """Without sequences a lost connection leaves a gap, though no trade of that source has come before."""
        store = Store(1, 99, 100.0)
        mark = Missed("b", BTC, "source_gap")
        store.admit([trade("x"), switched(is_whole=True), mark, trade("y", source="b")], 0.0)
        assert log(store) == ["a x", "gap of ?", "b y"]

    def test_a_switch_before_the_first_trade_is_not_told(self) -> None:
        """Nobody has anything that could go on."""
        told: list[Any] = []
        store = Store(1, 99, 100.0, holds=Holds(switched=lambda mark, place: told.append(place)))
        store.admit([switched(), of_b(5)], 0.0)
        assert (log(store), told) == (["b 5"], [])

    def test_a_switch_is_told_with_its_place(self) -> None:
        """Up to there the stream is that of the old source, its gap included."""
        told: list[Any] = []
        store = Store(
            1, 99, 100.0, holds=Holds(switched=lambda mark, place: told.append((mark.source, place)))
        )
        news = store.admit([sequenced(1), switched(), of_b(5), switched("a", "b", is_whole=True)], 0.0)
        assert told == [("b", 2), ("a", 3)]
        assert news == {BTC}
        assert store.counts["b", Verdict.NOTED.value] == 1

    def test_a_mark_that_a_crash_repeats_changes_nothing(self) -> None:
        """The batch in hand is offered again: whatever part of it was admitted, the switch comes once."""
        for count in range(4):
            told: list[int] = []
            store = Store(1, 99, 100.0, holds=Holds(switched=lambda mark, place: told.append(place)))  # noqa: B023
            batch: list[Item] = [sequenced(1), switched(), of_b(5)]
            store.admit([sequenced(0)], 0.0)
            store.admit(batch[:count], 1.0)
            store.lost(batch)
            store.admit([of_b(6)], 2.0)
            assert len(told) == 1, count
            assert log(store)[-1] == "b 6"
            assert store.history(BTC).active == "b"

    def test_others_may_join_again(self) -> None:
        """When the mode is another one, nothing that was left out counts as missing."""
        store = Store(1, 99, 100.0)
        store.admit([sequenced(1), switched(is_whole=True), of_b(5)], 0.0)
        store.admit([switched("a", None, is_whole=True, sequence=40), sequenced(41), of_b(6)], 0.0)
        assert log(store) == ["a 1", "b 5", "a 41", "b 6"]
        assert store.history(BTC).active is None


class Asked:
    """A store whose sources can be asked for missing trades, and everything that it tells."""

    def __init__(self) -> None:
        self.asked: list[Missing] = []
        self.told: list[int] = []
        self.store = Store(
            1,
            99,
            100.0,
            holds=Holds(lambda _source: 2.0, self.asked.append, lambda _mark, place: self.told.append(place)),
        )

    def admit(self, *items: Item, now: float = 0.0) -> list[str]:
        self.store.admit(items, now)
        return log(self.store)


class TestTheLastTradesOfTheOldSource:
    def test_they_are_asked_for_and_come_before_the_new_one(self) -> None:
        """The question names the last known one, and has no end but the switch. Then there is no gap."""
        it = Asked()
        assert it.admit(sequenced(7), switched(at=9 * US, sequence=90), of_b(91), of_b(92)) == ["a 7"]
        assert it.asked == [Missing("a", BTC, sequenced(7), None, 8, until=9 * US)]
        assert it.told == []
        answer = Refilled("a", BTC, (sequenced(8), sequenced(9)), is_last=False)
        assert it.admit(answer) == ["a 7", "a 8", "a 9"]
        end = Refilled("a", BTC, (), is_whole=True)
        assert it.admit(end, of_b(93)) == ["a 7", "a 8", "a 9", "b 91", "b 92", "b 93"]
        assert it.told == [3]
        assert it.store.counts["b", "admitted"] == 3

    def test_what_is_later_than_the_switch_is_not_of_the_stream(self) -> None:
        """And it shows that nothing is missing before."""
        it = Asked()
        it.admit(sequenced(7), switched(at=8 * US), of_b(91))
        answer = Refilled("a", BTC, (sequenced(8), sequenced(9)), is_last=False)
        assert it.admit(answer) == ["a 7", "a 8", "b 91"]
        assert it.admit(Refilled("a", BTC, (sequenced(9), sequenced(10))), of_b(92))[3:] == ["b 92"]

    def test_without_an_answer_there_is_a_gap(self) -> None:
        """Whoever asks says that nothing more comes in time."""
        it = Asked()
        it.admit(sequenced(7), switched(), of_b(91))
        assert it.admit(Refilled("a", BTC)) == ["a 7", "gap of ?", "b 91"]
        assert it.told == [2]

    def test_nothing_waits_for_ever(self) -> None:
        """If nobody answers at all, a later trade of the new source ends it."""
        it = Asked()
        it.admit(sequenced(7), switched(), of_b(91))
        assert it.admit(of_b(92), now=2.0 + BELT) == ["a 7"]
        assert it.admit(of_b(93), now=2.1 + BELT) == ["a 7", "gap of ?", "b 91", "b 92", "b 93"]

    def test_no_more_waits_than_half_of_the_memory(self) -> None:
        """With one more all go on, behind the gap."""
        it = Asked()
        it.admit(sequenced(7), switched(), *(of_b(n) for n in range(49)))
        assert log(it.store) == ["a 7"]
        assert it.admit(of_b(49)) == ["a 7", "gap of ?", *(f"b {n}" for n in range(50))]

    def test_a_whole_run_of_the_new_source_waits_too(self) -> None:
        """However many come at once, and though each of them follows the one before it."""
        it = Asked()
        it.admit(sequenced(7), switched(at=9 * US, sequence=90))
        assert it.admit(*(of_b(n) for n in range(91, 131))) == ["a 7"]
        end = Refilled("a", BTC, (sequenced(8),), is_whole=True)
        assert it.admit(end) == ["a 7", "a 8", *(f"b {n}" for n in range(91, 131))]

    def test_trades_without_sequences_connect_by_their_ids(self) -> None:
        """The answer begins with the newest known one."""
        it = Asked()
        it.admit(trade("x"), switched(), trade("p", source="b"))
        answer = Refilled("a", BTC, (trade("x"), trade("y")), is_last=False)
        assert it.admit(answer, Refilled("a", BTC, (), is_whole=True)) == ["a x", "a y", "b p"]

    def test_what_waits_in_front_of_a_switch_goes_on_behind_its_gap(self) -> None:
        """The old source had lost some already: that gap is exact, and can still be filled."""
        it = Asked()
        it.admit(sequenced(7), sequenced(9), switched(at=9 * US), of_b(91), Refilled("a", BTC, (), True))
        assert log(it.store) == ["a 7", "gap of 1", "a 9", "b 91"]
        assert it.admit(Refilled("a", BTC, (sequenced(8),))) == ["a 7", "a 8", "a 9", "b 91"]

    def test_a_second_switch_ends_the_first(self) -> None:
        """What waited goes on in its order, and both are told."""
        it = Asked()
        it.admit(sequenced(7), switched(), of_b(91), switched("a", "b", is_whole=True, sequence=20))
        assert it.admit(sequenced(21)) == ["a 7", "gap of ?", "b 91", "a 21"]
        assert it.told == [2, 3]

    def test_what_waits_when_the_daemon_ends_is_not_lost(self) -> None:
        """It gets its places before the history is closed."""
        it = Asked()
        it.admit(sequenced(7), switched(), of_b(91))
        assert it.store.waiting == 1
        assert it.store.release() == {BTC}
        assert log(it.store) == ["a 7", "gap of ?", "b 91"]

    def test_what_a_source_is_asked_for_while_it_stands_by_fills_gaps_only(self) -> None:
        """Its stream has ended; what it traded since is not of it, whoever asks."""
        it = Asked()
        it.admit(sequenced(7), switched(is_whole=True), of_b(91))
        assert it.admit(Refilled("a", BTC, (sequenced(8), sequenced(9)), is_whole=True)) == ["a 7", "b 91"]


class Box:
    """A shard's mailbox that can be full."""

    def __init__(self) -> None:
        self.store = Store(1, 999, 100.0)
        self.full = False

    def put(self, batch: Any) -> Put:
        if self.full:
            return Put.DROPPED
        self.store.admit(batch, 0.0)
        return Put.OK


def gate() -> tuple[Delivery, Box]:
    delivery, box = Delivery(1), Box()
    delivery.attach(0, box)  # type: ignore[arg-type]
    return delivery, box


class TestGate:
    def test_only_what_stands_by_is_left_out(self) -> None:
        """Of one source, in one symbol; and counted."""
        delivery, box = gate()
        delivery.stand_by("b", BTC)
        delivery([of_b(1), of_b(2, symbol="ETH-USD"), Missed("b", BTC, "source_gap")])
        delivery([sequenced(7)])
        assert log(box.store) == ["a 7"]
        assert box.store.symbols() == ["ETH-USD", BTC]
        assert delivery.left_out == {"b": 1}

    def test_who_joins_says_where_it_is(self) -> None:
        """The last trade that was left out is the one before the first that counts."""
        delivery, box = gate()
        assert delivery.join("b", BTC) is None
        delivery.stand_by("b", BTC)
        delivery([of_b(1), of_b(2)])
        delivery.stand_by("b", BTC)
        assert delivery.join("b", BTC) == 2
        delivery([of_b(3)])
        assert log(box.store) == ["b 3"]

    def test_what_was_asked_for_passes(self) -> None:
        """An answer to a question about missing trades is no part of what a source sends in standby."""
        delivery, box = gate()
        delivery.stand_by("b", BTC)
        seen: list[Any] = []
        box.put = lambda batch: seen.extend(batch) or Put.OK  # type: ignore[method-assign, func-returns-value]
        delivery([Refilled("b", BTC)])
        assert [type(each) for each in seen] == [Refilled]

    async def test_it_holds_for_those_who_wait_for_room(self) -> None:
        """`put` leaves out the same as a call."""
        delivery, _ = gate()
        delivery.stand_by("b", BTC)
        await delivery.put([of_b(1)])
        assert delivery.left_out == {"b": 1}

    def test_a_mark_that_finds_no_room_comes_before_the_next_items(self) -> None:
        """A switch is never lost, and stands where it was made: behind the hole of the old source."""
        delivery, box = gate()
        delivery([sequenced(1)])
        box.full = True
        delivery([sequenced(2)])
        delivery([switched(is_whole=True)])
        box.full = False
        delivery([of_b(5)])
        assert log(box.store) == ["a 1", "gap of ?", "b 5"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("trade"), st.sampled_from("ab"), st.integers(1, 3)),
            st.tuples(st.just("switch"), st.booleans(), st.just(0)),
            st.tuples(st.just("full"), st.booleans(), st.just(0)),
        ),
        max_size=60,
    )
)
def test_the_stream_is_that_of_one_source_at_a_time(steps: list[tuple[str, Any, int]]) -> None:
    """However trades, switches and full shards mix: each trade of the active source is there once, in order, or there
    is a gap for it; none of the other one is; a gap of an unknown number stands where a switch was not whole."""
    delivery, box = gate()
    active, last = "a", {"a": 0, "b": 0}
    delivery.stand_by("b", BTC)
    box.store.history(BTC).active = "a"
    owed: list[
        tuple[str, int, bool]
    ] = []  # the trades of the stream: source, sequence, whether there was room
    for step, what, count in steps:
        if step == "full":
            box.full = what
        elif step == "switch":
            before, active = active, "b" if active == "a" else "a"
            delivery.stand_by(before, BTC)
            delivery([switched(active, before, is_whole=what, sequence=delivery.join(active, BTC))])
        else:
            numbers = range(last[what] + 1, last[what] + 1 + count)
            last[what] = numbers[-1]
            delivery([sequenced(n, source=what, timestamp=n * US) for n in numbers])
            owed += [(what, n, not box.full) for n in numbers if what == active]
    box.full = False
    delivery([sequenced(last[active] + 1, source=active)])
    owed.append((active, last[active] + 1, True))
    entries = box.store.history(BTC).read(0, 9999)
    got = [(e.trade.source, e.trade.sequence) for e in entries if isinstance(e, Recorded)]
    assert got == [(source, n) for source, n, had_room in owed if had_room]
    missing = sum(not had_room for *_, had_room in owed)
    exact = sum(e.last - e.first + 1 for e in entries if isinstance(e, Gap) and e.exact)
    inexact = any(isinstance(e, Gap) and not e.exact for e in entries)
    first = next((at for at, (*_, had_room) in enumerate(owed) if had_room), 0)
    missing_since = sum(not had_room for *_, had_room in owed[first:])
    assert exact <= missing or inexact
    assert exact >= missing_since or inexact
