"""Missing trades that come late: an exact gap is filled in place, once, and never with anything else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataflow.cache.feed import HOLES, LONG
from dataflow.cache.history import TOGETHER, History
from dataflow.cache.store import Store
from dataflow.cache.verdict import Verdict
from dataflow.domain import Gap, Recorded, Trade

from .items import US, ids, sequenced, trade


def history(*sequences: int, **other: Any) -> History:
    log = History(1, other.pop("max_trades", 1000), other.pop("max_age", 1e9))
    for each in sequences:
        assert log.admit(sequenced(each), 0.0) is Verdict.ADMITTED
    return log


def shown(log: History) -> list[str]:
    """Each place: the id of its trade, or "-" in a gap."""
    places: list[str] = []
    for entry in log.read(0, 10_000):
        if isinstance(entry, Gap):
            places += ["-"] * (entry.last - entry.first + 1)
        else:
            places.append(str(entry.trade.trade_id))
    return places


def test_a_missing_trade_gets_its_place_in_both_orders() -> None:
    """By place and by time; smaller exact gaps stay on both sides, and can be filled, too."""
    log = history(10, 14)
    assert ids(log.latest(9)) == ["14", "10"], "the order by time is made before the fill, too"
    assert log.admit(sequenced(12), 1.0) is Verdict.FILLED
    log.settle()
    assert log.read(0, 9) == [
        Recorded(1, sequenced(10)),
        Gap(2, 2, "source_gap", True, "a", 11),
        Recorded(3, sequenced(12)),
        Gap(4, 4, "source_gap", True, "a", 13),
        Recorded(5, sequenced(14)),
    ]
    assert ids(log.latest(9)) == ["14", "12", "10"]
    assert [log.admit(sequenced(each), 1.0) for each in (13, 11, 12)] == [
        Verdict.FILLED,
        Verdict.FILLED,
        Verdict.DUPLICATE,
    ]
    log.settle()
    assert shown(log) == ["10", "11", "12", "13", "14"]
    assert (log.last, log.filled) == (5, 3)


def test_nobody_sees_a_fill_before_it_is_settled() -> None:
    """It must be on disk before anybody is told: until then its places are a gap for all readers."""
    log = history(10, 14)
    log.admit(sequenced(12), 0.0)
    assert shown(log) == ["10", "-", "-", "-", "14"]
    assert ids(log.latest(9)) == ["14", "10"]
    assert log.fills_behind(0) == []
    assert log.unsettled(upto=2) == [], "its place is not on disk yet"
    assert log.unsettled(upto=3) == [[(3, sequenced(12))]]
    log.settle(1)
    assert log.unsettled(upto=9) == []
    assert [(each.number, each.places) for each in log.fills_behind(0)] == [(1, [(3, sequenced(12))])]
    assert log.fills_behind(1) == []


def test_what_comes_together_is_one_fill() -> None:
    """A source that repeats its last thousand trades costs a message for some hundreds of them."""
    store = Store(1, 1000, 1e9)
    store.admit([sequenced(1), sequenced(502)], 0.0)
    assert store.admit([sequenced(each) for each in range(1, 503)], 0.0) == {"BTC-USD"}
    log = store.history("BTC-USD")
    assert [len(each.places) for each in log.fills_behind(0)] == [TOGETHER, TOGETHER, 500 - 2 * TOGETHER]
    assert shown(log) == [str(each) for each in range(1, 503)]
    assert store.counts == {("a", "admitted"): 2, ("a", "duplicate"): 2, ("a", "filled"): 500}


def test_with_a_disk_the_store_leaves_fills_to_be_settled() -> None:
    """And says so, to whoever writes them."""
    told: list[str] = []
    store = Store(1, 1000, 1e9, staged=told.append)
    store.admit([sequenced(1), sequenced(3)], 0.0)
    assert told == []
    assert store.admit([sequenced(2)], 0.0) == {"BTC-USD"}
    assert told == ["BTC-USD"]
    assert shown(store.history("BTC-USD")) == ["1", "-", "3"]
    assert store.history("BTC-USD").unsettled(upto=3) == [[(2, sequenced(2))]]


def test_a_run_fills_as_a_whole_or_not_at_all() -> None:
    """One place off, one trade of another source, another sequence, another time, a known id: nothing."""
    run = [sequenced(11), sequenced(12)]
    bad: list[tuple[int, list[Trade]]] = [
        (3, run),
        (1, run),
        (2, [sequenced(11), sequenced(13)]),
        (2, [sequenced(11), sequenced(12, source="b")]),
        (2, [sequenced(11), sequenced(12, symbol="ETH-USD")]),
        (2, [sequenced(11), sequenced(12, timestamp=99 * US)]),
        (2, [sequenced(11), sequenced(12, trade_id="10")]),
        (2, [sequenced(11), sequenced(12, trade_id="11")]),
        (2, [sequenced(each) for each in (11, 12, 13, 14)]),
        (2, [trade("11", 11 * US)]),
        (2, [sequenced(11, source="b")]),
    ]
    log = history(10, 14)
    for first, trades in bad:
        assert not log.fill(first, trades), trades
        assert log.unsettled(upto=99) == []
    assert log.fill(2, run)
    assert not log.fill(2, run), "a filled place never changes again"
    log.settle()
    assert shown(log) == ["10", "11", "12", "-", "14"]


def test_a_new_numbering_fills_nothing_and_is_believed() -> None:
    """Its numbers lie in an old gap, its times do not: `LONG` of them are a new stream, as ever."""
    log = history(1, 60)
    found = [
        log.admit(sequenced(each, trade_id=f"n{each}", timestamp=10**9 + each), 0.0) for each in range(2, 42)
    ]
    assert found == [Verdict.LATE] * (LONG - 1) + [Verdict.ADMITTED] * (41 - LONG)
    assert log.unsettled(99) == []


def test_fills_are_no_new_numbering() -> None:
    """However many come in a row, growing."""
    log = history(1, 100)
    assert {log.admit(sequenced(each), 0.0) for each in range(2, 100)} == {Verdict.FILLED}
    assert log.admit(sequenced(101), 0.0) is Verdict.ADMITTED
    log.settle()
    assert shown(log) == [str(each) for each in range(1, 102)]


def test_fills_between_late_trades_end_their_row() -> None:
    """Stragglers are a new numbering only if nothing of the old one comes between them."""
    log = history(*range(50, 60), 70)
    strays = [sequenced(each, timestamp=0) for each in range(1, 1 + 2 * LONG)]
    for at, stray in enumerate(strays):
        if at == LONG - 1:
            assert log.admit(sequenced(65), 0.0) is Verdict.FILLED
        if at < 2 * LONG - 2:
            assert log.admit(stray, 0.0) is Verdict.LATE


def test_a_place_that_memory_has_forgotten_is_filled_on_disk_and_told_alike() -> None:
    """The fill goes to the disk and to the readers of fills. Memory stays as it is."""
    log = history(1, 4, 5, 6, max_trades=2)
    assert log.first == 5
    assert log.admit(sequenced(3), 0.0) is Verdict.FILLED
    assert log.unsettled(upto=6) == [[(3, sequenced(3))]]
    log.settle(1)
    assert [entry.last for entry in log.read(4, 9)] == [5, 6]
    assert log.first == 5
    assert [each.places for each in log.fills_behind(0)] == [[(3, sequenced(3))]]


def test_filled_trades_count_among_those_that_are_kept() -> None:
    """The oldest ones make room."""
    log = history(1, 5, 6, max_trades=3)
    for each in (2, 3, 4):
        log.admit(sequenced(each), 0.0)
    log.settle()
    assert log.read(log.first - 1, 9) == [Recorded(each, sequenced(each)) for each in (4, 5, 6)]


def test_filled_trades_grow_old_with_their_gap() -> None:
    """So that places are forgotten in their order."""
    log = History(1, 100, 10.0)
    log.admit(sequenced(1), 0.0)
    log.admit(sequenced(3), 5.0)
    log.admit(sequenced(2), 9.0)
    log.settle()
    log.expire(12.0)
    assert [entry.last for entry in log.read(log.first - 1, 9)] == [2, 3]
    log.expire(16.0)
    assert log.first == 4


def test_the_number_of_open_gaps_and_of_remembered_fills_is_bounded() -> None:
    """The oldest gaps can be filled no more; a reader sees by the numbers that it missed fills."""
    log = history(*range(1, 4 * HOLES, 2), max_trades=TOGETHER)
    assert log.admit(sequenced(2), 0.0) in (Verdict.LATE, Verdict.TOO_OLD)
    wanted = range(4 * HOLES - 2 * TOGETHER, 4 * HOLES - 1, 2)
    for each in wanted:
        assert log.admit(sequenced(each), 0.0) is Verdict.FILLED
        log.settle()
    for each in range(4 * HOLES - 4 * TOGETHER, 4 * HOLES - 2 * TOGETHER, 2):
        assert log.admit(sequenced(each), 0.0) is Verdict.FILLED
        log.settle()
    assert log.filled == 2 * TOGETHER
    assert [each.number for each in log.fills_behind(0)] == list(range(TOGETHER + 1, 2 * TOGETHER + 1))


def test_a_gap_that_comes_from_a_disk_can_be_filled() -> None:
    """After a restart, too: with the same proof, of sequence and of time."""
    before = history(10, 14, 15, 18)
    log = History.going_on(2, 1000, 1e9, before.last, [(1, 1), (2, before.last + 1)])
    log.restore(before.places(1, 99), 0.0)  # the trade before the first gap was not loaded
    assert log.admit(sequenced(16, timestamp=99 * US), 0.0) is Verdict.LATE
    assert log.admit(sequenced(16), 0.0) is Verdict.FILLED
    assert log.admit(sequenced(12), 0.0) is Verdict.FILLED
    assert [run[0][0] for run in log.unsettled(99)] == [7, 3]


@given(st.sets(st.integers(2, 29)), st.permutations(list(range(1, 31))), st.integers(1, 5))
def test_whatever_comes_late_the_log_is_that_of_all_in_time(
    lost: set[int], replay: list[int], settled_every: int
) -> None:
    """Trades are lost, then repeated in any order: in the end nothing is missing, and nothing has moved."""
    log = history(*[each for each in range(1, 31) if each not in lost])
    before = shown(log)
    for at, each in enumerate(replay):
        verdict = log.admit(sequenced(each), 0.0)
        assert verdict in (Verdict.FILLED, Verdict.DUPLICATE, Verdict.LATE)
        if at % settled_every == 0:
            log.settle()
        now = shown(log)
        assert all(old in ("-", new) for old, new in zip(before, now, strict=True))
        before = now
    for each in range(1, 31):  # out of order, the times around a hole grow narrower, never wrong
        log.admit(sequenced(each), 0.0)
    log.settle()
    assert shown(log) == [str(each) for each in range(1, 31)]
    assert ids(log.latest(99)) == [str(each) for each in range(30, 0, -1)]
