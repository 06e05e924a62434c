"""Promises of dataflow.history, by example."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from dataflow.domain import Entry, Gap, Item, Missed, Recorded, Trade
from dataflow.history import History, Store, Verdict

US = 1000  # nanoseconds


def trade(trade_id: str, timestamp: int = 0, **other: Any) -> Trade:
    fields: dict[str, Any] = {"source": "a", "symbol": "BTC-USD", "side": "sell", **other}
    return Trade(
        trade_id=trade_id, price=Decimal("8501.1"), quantity=Decimal("0.5"), timestamp=timestamp, **fields
    )


def sequenced(sequence: int, **other: Any) -> Trade:
    return trade(str(sequence), sequence * US, sequence=sequence, **other)


def missed(source: str = "a", reason: str = "source_gap") -> Missed:
    return Missed(source, "BTC-USD", reason)


def history(*items: Item, max_trades: int = 100, max_age: float = 1e9, now: float = 0.0) -> History:
    made = History(7, max_trades, max_age)
    for item in items:
        made.admit(item, now)
    return made


def everything(log: History) -> list[Entry]:
    return log.read(log.first - 1, 10**9)


def ids(page: list[Recorded]) -> list[str]:
    return [recorded.trade.trade_id for recorded in page]


def test_offsets_start_at_one_and_grow_by_one() -> None:
    """The first place is 1, an empty log stands at 0, and the entry holds the very trade that was offered."""
    log = history()
    assert (log.last, log.first) == (0, 1)
    first, second = trade("x", 5), trade("y", 6, side="buy")
    assert log.admit(first, 0) is Verdict.ADMITTED
    assert log.admit(second, 0) is Verdict.ADMITTED
    assert everything(log) == [Recorded(1, first), Recorded(2, second)]
    assert log.last == 2


def test_a_trade_is_admitted_once() -> None:
    """The same id of the same source is a duplicate, of another source it is another trade."""
    log = history(trade("x"))
    assert log.admit(trade("x", 99), 0) is Verdict.DUPLICATE
    assert log.admit(trade("x", source="b"), 0) is Verdict.ADMITTED
    assert log.last == 2


def test_an_id_outlives_its_trade() -> None:
    """A trade forgotten for its age is still known when it comes again."""
    log = history(trade("x"), max_age=10.0)
    assert log.admit(trade("x"), 1000.0) is Verdict.DUPLICATE
    assert everything(log) == []


def test_an_unknown_trade_below_the_floor_is_refused() -> None:
    """When ids are forgotten, what is as old as the newest forgotten one is refused unjudged."""
    log = history(*(trade(str(n), n * US) for n in range(1, 6)), max_trades=2)  # remembers 2, 3, 4 and 5
    assert log.admit(trade("1", 1 * US), 0) is Verdict.TOO_OLD
    assert log.admit(trade("unknown", 1 * US), 0) is Verdict.TOO_OLD
    assert log.admit(trade("young", 1 * US + 1), 0) is Verdict.ADMITTED
    assert log.admit(trade("other source", 0, source="b"), 0) is Verdict.ADMITTED


def test_the_floor_is_the_highest_timestamp_forgotten() -> None:
    """A floor never sinks when an older trade is forgotten after a younger one."""
    young_first = [
        trade("young", 50 * US),
        trade("old", 1 * US),
        *(trade(str(n), n * US) for n in range(60, 64)),
    ]
    log = history(*young_first, max_trades=2)
    assert log.admit(trade("between", 50 * US), 0) is Verdict.TOO_OLD


def test_a_sequence_proves_a_trade_new_below_the_floor() -> None:
    """Trades of one instant exceed the memory of ids: their sequence still tells that they are new."""
    log = history(*(trade(str(n), 5, sequence=n) for n in range(1, 100)), max_trades=1)
    assert log.last == 99


def test_a_skipped_sequence_leaves_as_many_places_as_trades_are_missing() -> None:
    """The gap is exact and stands right before the trade that showed it."""
    log = history(sequenced(10), sequenced(14))
    assert everything(log) == [
        Recorded(1, sequenced(10)),
        Gap(2, 4, "source_gap", exact=True),
        Recorded(5, sequenced(14)),
    ]


def test_a_trade_that_comes_after_its_gap_is_late_or_a_duplicate() -> None:
    """A place that was announced as missing is not filled later; what was seen is a duplicate."""
    log = history(sequenced(10), sequenced(14))
    assert log.admit(sequenced(12), 0) is Verdict.LATE
    assert log.admit(sequenced(10), 0) is Verdict.DUPLICATE
    assert log.admit(sequenced(14), 0) is Verdict.DUPLICATE
    assert log.admit(trade("other id", 99 * US, sequence=14), 0) is Verdict.LATE
    assert log.admit(sequenced(15), 0) is Verdict.ADMITTED
    assert log.last == 6


def test_sequences_of_two_sources_do_not_mix() -> None:
    """Each source's sequence is compared with its own."""
    log = history(sequenced(10), sequenced(1000, source="b"), sequenced(11), sequenced(1001, source="b"))
    assert log.last == 4


def test_a_mark_before_a_new_trade_becomes_a_gap_of_unknown_size() -> None:
    """After a resubscription the first trade, when it is new, may have left others behind."""
    log = history(trade("x"))
    assert log.admit(missed(), 0) is Verdict.NOTED
    assert log.last == 1, "the mark alone takes no place"
    log.admit(trade("y", 1), 0)
    log.admit(trade("z", 2), 0)
    assert everything(log) == [
        Recorded(1, trade("x")),
        Gap(2, 2, "source_gap", exact=False),
        Recorded(3, trade("y", 1)),
        Recorded(4, trade("z", 2)),
    ]


def test_a_duplicate_after_a_mark_proves_that_nothing_is_missing() -> None:
    """An overlap with what was there before clears the mark."""
    log = history(trade("x"), missed(), trade("x"), trade("y", 1))
    assert everything(log) == [Recorded(1, trade("x")), Recorded(2, trade("y", 1))]


def test_a_trade_that_cannot_be_judged_neither_clears_nor_fills_a_mark() -> None:
    """A replay from before the memory proves nothing yet."""
    log = history(*(trade(str(n), n * US) for n in range(1, 6)), max_trades=2)
    log.admit(missed(), 0)
    assert log.admit(trade("1", 1 * US), 0) is Verdict.TOO_OLD
    log.admit(trade("6", 6 * US), 0)
    assert Gap(6, 6, "source_gap", exact=False) in log.read(5, 10)


def test_a_mark_of_a_source_that_never_gave_a_trade_is_ignored() -> None:
    """Before the first trade nothing was promised; another source's trades change nothing in that."""
    log = history(trade("x", source="b"), missed(), trade("y"))
    assert log.last == 2


def test_a_mark_waits_for_its_own_source() -> None:
    """Another source's trade does not resolve it, and the first of two reasons is the one that is told."""
    log = history(trade("x"), trade("v", source="b"), missed(reason="first"), missed(reason="second"))
    log.admit(trade("w", source="b"), 0)
    log.admit(trade("y"), 0)
    assert everything(log)[2:] == [
        Recorded(3, trade("w", source="b")),
        Gap(4, 4, "first", exact=False),
        Recorded(5, trade("y")),
    ]


def test_a_mark_adds_nothing_to_a_sequence() -> None:
    """Where a sequence tells exactly what is missing, a mark is not needed."""
    log = history(sequenced(1), missed(), sequenced(2), missed(), sequenced(4))
    assert everything(log)[1:] == [
        Recorded(2, sequenced(2)),
        Gap(3, 3, "source_gap", exact=True),
        Recorded(4, sequenced(4)),
    ]


def test_what_was_lost_inside_is_a_gap() -> None:
    """One place for any number lost in a row; a known trade was not lost; a sequence needs no place."""
    log = history(trade("x"))
    assert not log.lost(trade("x"), 0)
    assert not log.lost(sequenced(1, source="b"), 0)
    assert log.lost(trade("y"), 0)
    assert not log.lost(trade("z"), 0)
    log.admit(trade("w"), 0)
    assert log.lost(trade("v"), 0)
    assert everything(log)[1:] == [
        Gap(2, 2, "shard_restart", exact=False),
        Recorded(3, trade("w")),
        Gap(4, 4, "shard_restart", exact=False),
    ]


def test_a_lost_trade_is_welcome_when_it_comes_again() -> None:
    """It was never admitted, so its redelivery is no duplicate."""
    log = history()
    log.lost(trade("x"), 0)
    assert log.admit(trade("x"), 0) is Verdict.ADMITTED


def test_losing_the_first_trades_of_a_sequence_shows_in_the_next_one() -> None:
    """Also when nothing of the source was admitted before."""
    log = history()
    for sequence in (5, 6):
        assert not log.lost(sequenced(sequence), 0)
    log.admit(sequenced(7), 0)
    assert everything(log) == [Gap(1, 2, "source_gap", exact=True), Recorded(3, sequenced(7))]


def test_a_lost_mark_is_still_a_mark() -> None:
    """What says that trades may be missing is not itself lost."""
    log = history(trade("x"))
    assert not log.lost(missed(), 0)
    log.admit(trade("y"), 0)
    assert everything(log)[1:] == [Gap(2, 2, "source_gap", exact=False), Recorded(3, trade("y"))]


class Exploding:
    """A trade whose timestamp cannot be used."""

    source, symbol, trade_id, sequence, timestamp = "a", "BTC-USD", "bad", None, "not a number"


def test_admission_is_atomic() -> None:
    """A trade that makes admission fail leaves the log, the ids and the marks as they were."""
    log = history(trade("x"), missed())
    bad: Any = Exploding()
    with pytest.raises(TypeError):
        log.admit(bad, 0)
    assert log.last == 1
    assert log.admit(trade("bad"), 0) is Verdict.ADMITTED
    assert everything(log)[1:] == [Gap(2, 2, "source_gap", exact=False), Recorded(3, trade("bad"))]


def test_only_so_many_trades_are_kept() -> None:
    """The oldest go first, and whoever reads from before them is told which places they were."""
    log = history(*(trade(str(n), n) for n in range(1, 11)), max_trades=3)
    assert log.first == 8
    assert log.read(0, 2) == [Gap(1, 7, "overrun", exact=True), Recorded(8, trade("8", 8))]
    assert log.read(7, 2) == [Recorded(8, trade("8", 8)), Recorded(9, trade("9", 9))]
    assert ids(log.latest(10)) == ["10", "9", "8"]


def test_nothing_is_kept_longer_than_its_age() -> None:
    """Age counts from admission, by the `now` that is given, for reading by place and by time."""
    log = History(1, 100, max_age=10.0)
    log.admit(trade("x"), 100.0)
    log.admit(trade("y"), 105.0)
    log.expire(110.0)
    assert ids(log.latest(10)) == ["x", "y"][::-1]
    log.expire(110.5)
    assert ids(log.latest(10)) == ["y"]
    assert log.admit(trade("z"), 200.0) is Verdict.ADMITTED
    assert everything(log) == [Recorded(3, trade("z"))]


def test_places_lost_before_anybody_read_them_are_told_also_when_nothing_is_left() -> None:
    """An empty log still knows how far it came."""
    log = history(trade("x"), trade("y"), max_age=10.0)
    log.expire(1000.0)
    assert log.read(0, 5) == [Gap(1, 2, "overrun", exact=True)]
    assert log.read(2, 5) == []
    assert log.first == 3


def test_a_reader_inside_a_gap_gets_the_rest_of_it() -> None:
    """Places already told are not told again."""
    log = history(sequenced(1), sequenced(10))
    assert log.read(4, 1) == [Gap(5, 9, "source_gap", exact=True)]


def test_recovery_gives_everything_or_says_that_it_cannot() -> None:
    """Another epoch, a forgotten or a future position, or too many entries: not recovered."""
    log = history(*(trade(str(n), n) for n in range(1, 11)), max_trades=5)
    recovered, entries = log.since(7, 8, 10)
    assert recovered
    assert [entry.first for entry in entries] == [9, 10]
    assert log.since(7, 10, 1) == (True, [])
    assert log.since(7, 5, 5)[0]
    assert log.since(6, 8, 10) == (False, [])
    assert log.since(7, 4, 10) == (False, [])
    assert log.since(7, 11, 10) == (False, [])
    assert log.since(7, 5, 4) == (False, [])
    assert log.position_known(7, 5)
    assert not log.position_known(7, 4)
    assert not log.position_known(8, 5)


def test_queries_are_ordered_by_time_and_ties_by_offset() -> None:
    """Trades of one microsecond stand in the order of admission, whatever their nanoseconds."""
    log = history(trade("c", 3000), trade("a", 1999), trade("b", 1000), trade("d", 3001))
    assert ids(log.latest(10)) == ["d", "c", "b", "a"]
    assert ids(log.after(0, 10)) == ["a", "b", "c", "d"]
    assert ids(log.before(3500, 10)) == ["b", "a"]
    assert ids(log.after(1000, 10)) == ["c", "d"], "both of the same microsecond are excluded"
    assert ids(log.after(0, 10, before=3000)) == ["a", "b"]


def test_a_page_never_ends_inside_a_microsecond() -> None:
    """It is shortened to complete groups, or extended when one group alone is larger than the page."""
    log = history(trade("a", 1000), *(trade(f"b{n}", 2000) for n in range(3)), trade("c", 3000))
    assert ids(log.after(0, 2)) == ["a"]
    assert ids(log.after(1000, 2)) == ["b0", "b1", "b2"]
    assert ids(log.after(0, 4)) == ["a", "b0", "b1", "b2"]
    assert ids(log.before(4000, 2)) == ["c"]
    assert ids(log.before(3000, 1)) == ["b2", "b1", "b0"]
    assert ids(log.latest(2)) == ["c", "b2"], "a glance, not a page: exactly as many as were asked for"


def test_a_store_keeps_symbols_apart_and_counts_what_it_did() -> None:
    """Symbols with news are named, and every verdict is counted by source."""
    store = Store(3, 10, 100.0)
    eth = trade("x", symbol="ETH-USD", source="b")
    assert store.admit([trade("x"), trade("x"), eth, missed()], 0.0) == {"BTC-USD", "ETH-USD"}
    assert store.admit([trade("x"), missed()], 0.0) == set()
    assert store.history("ETH-USD").read(0, 9) == [Recorded(1, eth)]
    assert store.history("ETH-USD").epoch == 3
    assert store.counts == {
        ("a", "admitted"): 1,
        ("a", "duplicate"): 2,
        ("a", "noted"): 2,
        ("b", "admitted"): 1,
    }
    assert store.symbols() == ["BTC-USD", "ETH-USD"]


def test_a_store_forgets_on_query() -> None:
    """A symbol that went quiet does not serve trades beyond their age."""
    store = Store(3, 10, 100.0)
    store.admit([trade("x")], 0.0)
    assert ids(store.history("BTC-USD", now=100.0).latest(9)) == ["x"]
    assert store.history("BTC-USD", now=100.5).latest(9) == []


def test_a_batch_lost_half_way_names_all_it_may_have_touched() -> None:
    """The admitted part was told to nobody yet, the rest becomes a gap that keeps its reason."""
    store = Store(3, 10, 100.0)
    bad: Any = Exploding()
    batch = [trade("x"), bad, trade("y", symbol="ETH-USD")]
    with pytest.raises(TypeError):
        store.admit(batch, 5000.0)
    assert store.lost([batch[0], batch[2]]) == {"BTC-USD", "ETH-USD"}
    store.admit([trade("z", symbol="ETH-USD")], 5050.0)
    assert store.history("BTC-USD").read(0, 9) == [Recorded(1, trade("x"))]
    assert store.history("ETH-USD").read(0, 9)[0] == Gap(1, 1, "shard_restart", exact=False)
