"""Promises of cache.history, by example."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.cache.feed import ANEW, LONG, OFF, Refused
from dataflow.cache.history import AHEAD, History
from dataflow.cache.holding import Holds
from dataflow.cache.store import Store
from dataflow.cache.verdict import JUMP, Verdict
from dataflow.domain import Entry, Gap, Item, Missed, Recorded, Trade
from tests.dataflow.cache.items import US, Exploding, ids, missed, sequenced, trade

RESUBSCRIBED = missed(resubscribed=True)


def history(*items: Item, max_trades: int = 100, max_age: float = 1e9, now: float = 0.0) -> History:
    made = History(7, max_trades, max_age)
    for item in items:
        made.admit(item, now)
    return made


def everything(log: History) -> list[Entry]:
    return log.read(log.first - 1, 10**9)


def test_offsets_start_at_one_and_grow_by_one() -> None:
    """The first place is 1, an empty log stands at 0, and the entry holds the very trade that was offered."""
    log = history()
    assert (log.last, log.first) == (0, 1)
    first, second = trade("x", 5), trade("y", 6, side="buy")
    assert log.admit(first, 0) is Verdict.ADMITTED
    assert log.admit(second, 0) is Verdict.ADMITTED
    assert everything(log) == [Recorded(1, first), Recorded(2, second)]
    assert log.last == 2


def test_the_repr_of_a_store_does_not_write_out_its_trades() -> None:
    """Whoever shows a shard's memory in an error or a log does not wait for thousands of trades."""
    store = Store(7, 100, 1e9)
    store.admit([trade("x")], 0.0)
    [log] = [store.history(symbol) for symbol in store.symbols()]
    assert log.last == 1
    assert "Trade" not in f"{store!r} {log!r}"


def test_a_trade_is_admitted_once() -> None:
    """The same id of the same source is a duplicate, of another source it is another trade."""
    log = history(trade("x"))
    assert log.admit(trade("x"), 0) is Verdict.DUPLICATE
    assert log.admit(trade("x", source="b"), 0) is Verdict.ADMITTED
    assert log.last == 2


def test_an_id_outlives_its_trade() -> None:
    """A trade forgotten for its age is still known when it comes again."""
    log = history(trade("x"), max_age=10.0)
    assert log.admit(trade("x"), 1000.0) is Verdict.DUPLICATE
    assert everything(log) == []


def test_an_unknown_trade_below_the_floor_is_refused() -> None:
    """When ids are forgotten, a trade as old as the newest forgotten one is refused unjudged."""
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
        Gap(2, 4, "source_gap", True, "a", 11),
        Recorded(5, sequenced(14)),
    ]


def test_a_trade_that_comes_after_its_gap_fills_it_or_is_late_or_a_duplicate() -> None:
    """A missing trade gets its place once. A trade of before the log is late, an admitted one a duplicate."""
    log = history(sequenced(10), sequenced(14))
    assert log.admit(sequenced(9), 0) is Verdict.LATE
    assert log.admit(sequenced(12), 0) is Verdict.FILLED
    assert log.admit(sequenced(12), 0) is Verdict.DUPLICATE
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


@pytest.mark.parametrize("replayed", [("y",), ("x", "y")])
def test_a_replay_that_passes_the_newest_trade_proves_that_nothing_is_missing(
    replayed: tuple[str, ...],
) -> None:
    """After a resubscription an overlap with the end of the log clears the mark."""
    log = history(trade("x"), trade("y"), RESUBSCRIBED, *map(trade, replayed), trade("z", 1))
    assert everything(log)[2:] == [Recorded(3, trade("z", 1))]


def test_an_older_duplicate_proves_nothing() -> None:
    """Trades between it and the newest trade may still be missing."""
    log = history(trade("x"), trade("y"), RESUBSCRIBED, trade("x"), trade("z"))
    assert everything(log)[2:] == [Gap(3, 3, "source_gap", exact=False), Recorded(4, trade("z"))]


@pytest.mark.parametrize("again", ["x", "y"])
@pytest.mark.parametrize("marks", [[missed()], [RESUBSCRIBED, missed()]])
def test_no_duplicate_brings_back_what_the_connection_lost(marks: list[Missed], again: str) -> None:
    """An unreadable message or a skipped number came after the newest trade, repeated or not."""
    log = history(trade("x"), trade("y"), *marks, trade(again), trade("z"))
    assert everything(log)[2:] == [Gap(3, 3, "source_gap", exact=False), Recorded(4, trade("z"))]


def test_a_replay_brings_back_what_the_connection_before_lost() -> None:
    """A new subscription after the loss repeats the newest trade and sends all trades behind it."""
    log = history(trade("x"), missed(), RESUBSCRIBED, trade("x"), trade("y"))
    assert everything(log)[1:] == [Recorded(2, trade("y"))]


def test_the_newest_trade_of_another_source_proves_nothing() -> None:
    """Each source's stream is proven by its own overlap."""
    log = history(trade("x"), trade("y"), trade("v", source="b"), RESUBSCRIBED, trade("v", source="b"))
    log.admit(trade("x"), 0)
    log.admit(trade("z"), 0)
    assert Gap(4, 4, "source_gap", exact=False) in everything(log)


def test_an_id_used_again_for_another_moment_is_no_overlap() -> None:
    """Without a sequence the two trades cannot be told apart: refused, but neither silent nor a proof."""
    log = history(trade("x", 5), RESUBSCRIBED)
    assert log.admit(trade("x", 6), 0) is Verdict.REUSED
    log.admit(trade("y", 7), 0)
    assert everything(log)[1:] == [Gap(2, 2, "source_gap", exact=False), Recorded(3, trade("y", 7))]


def verdicts(log: History, *sequences: int, at: int = 10**9, **other: Any) -> list[Verdict]:
    """Offers trades of these sequences, all younger than what `sequenced` makes."""
    return [log.admit(trade(str(n), at + n, **{"sequence": n, **other}), 0) for n in sequences]


def test_a_sequence_that_begins_anew_is_followed_after_a_run() -> None:
    """The trades of the run are lost, and announced: the place before the first admitted one is a gap."""
    log = history(sequenced(1000), sequenced(1001))
    assert verdicts(log, *range(1, ANEW)) == [Verdict.LATE] * (ANEW - 1)
    assert verdicts(log, ANEW, ANEW + 1, ANEW + 4) == [Verdict.ADMITTED] * 3
    assert [(e.first, e.last, isinstance(e, Recorded) or e.exact) for e in everything(log)[2:]] == [
        (3, 3, False),
        (4, 4, True),
        (5, 5, True),
        (6, 7, True),
        (8, 8, True),
    ]


@pytest.mark.parametrize("behind", [1, 3, 50])
def test_two_connections_that_are_heard_in_turn_begin_anew_together(behind: int) -> None:
    """One is always some trades behind the other, and began before it. Soon all is admitted, each trade once."""
    log = history(sequenced(10_000))
    for n in range(1, 4 * ANEW + behind):
        verdicts(log, n + behind, n)
    admitted = [entry.trade.sequence for entry in everything(log)[1:] if isinstance(entry, Recorded)]
    assert admitted == list(range(admitted[0], 4 * ANEW + 2 * behind))
    assert admitted[0] is not None
    assert admitted[0] <= 2 * ANEW + behind


def test_who_asks_for_missing_trades_is_told_of_a_new_numbering() -> None:
    """What was missing before cannot be had any more."""
    told: list[tuple[str, str]] = []
    log = History(1, 1000, 1e9, holds=Holds(anew=lambda source, symbol: told.append((source, symbol))))
    for each in (sequenced(1000), sequenced(1005)):
        log.admit(each, 0)
    assert told == []
    verdicts(log, *range(1, ANEW + 1))
    assert told == [(sequenced(1).source, sequenced(1).symbol)]


def test_a_run_is_believed_once() -> None:
    """After it a single late trade is late, also when it repeats the number that completed the run."""
    log = history(sequenced(1000))
    assert verdicts(log, *range(1, ANEW + 1))[-1] is Verdict.ADMITTED
    assert log.admit(trade("other", 10**10, sequence=ANEW), 0) is Verdict.LATE


def test_a_run_may_have_holes_and_repetitions() -> None:
    """It has to grow, and each trade counts once. With holes it is as long as one of any age."""
    log = history(sequenced(1000))
    assert verdicts(log, *(n // 2 * 3 for n in range(2 * LONG - 2))) == [Verdict.LATE] * (2 * LONG - 2)
    assert verdicts(log, 3 * LONG) == [Verdict.ADMITTED]


@pytest.mark.parametrize(
    "between",
    [sequenced(1001), sequenced(1000), trade("other", 10**10), sequenced(3), trade("old", 0, sequence=5)],
    ids=["admitted", "duplicate", "unsequenced", "backwards", "too old"],
)
def test_anything_else_of_that_source_ends_a_run(between: Trade) -> None:
    """Stragglers between good trades stay late, in any number."""
    log = history(*(trade(f"past{n}", 1) for n in range(9)), sequenced(1000), max_trades=4)
    assert verdicts(log, *range(10, 9 + ANEW), at=2 * US) == [Verdict.LATE] * (ANEW - 1)
    log.admit(between, 0)
    assert verdicts(log, 9 + ANEW, at=2 * US) == [Verdict.LATE]


def test_another_source_does_not_end_a_run() -> None:
    """Each source has its own numbering."""
    log = history(sequenced(1000))
    verdicts(log, *range(1, ANEW))
    verdicts(log, 1, source="b")
    assert verdicts(log, ANEW) == [Verdict.ADMITTED]


def test_a_numbering_that_begins_anew_within_memory_is_not_taken_for_a_replay() -> None:
    """The same id at another time is another trade, if sequences prove it."""
    log = history(*map(sequenced, range(1, 101)))
    assert verdicts(log, *range(1, ANEW)) == [Verdict.LATE] * (ANEW - 1)
    assert verdicts(log, *range(ANEW, 200)) == [Verdict.ADMITTED] * (200 - ANEW)
    assert verdicts(log, *range(ANEW, 200)) == [Verdict.DUPLICATE] * (200 - ANEW)
    assert log.last == 100 + 1 + 200 - ANEW


def test_late_trades_that_may_be_missing_ones_are_no_short_row() -> None:
    """An exchange may date a trade a little later than the next one: no place of a gap is put twice."""
    log = history(sequenced(1), sequenced(10))
    assert verdicts(log, *range(2, 9)) == [Verdict.LATE] * 7
    waiting = History(7, 100, 1e9, holds=Holds(lambda _source: 1.0))
    for each in (sequenced(1), sequenced(10)):
        waiting.admit(each, 0)
    assert verdicts(waiting, *range(2, 9)) == [Verdict.LATE] * 7


NOON = 43_200  # seconds: the wall clock when a test begins
HOURS = 7200  # seconds: so far ahead is the clock of an exchange before it is set right


def ahead(sequences: bool = True) -> History:
    """A log of 40 trades that came at `NOON`, dated two hours later; the ids of half of them are forgotten."""
    made = History(7, 10, 1e9, holds=Holds(clock=lambda: NOON))
    for at in range(100, 140):
        made.admit(trade(str(at), (NOON + HOURS) * 10**9 + at, sequence=at if sequences else None), 0.0)
    return made


def at_the_time(
    log: History, second: float, number: int, *, sequences: bool = True, off: float = 0.0
) -> Verdict:
    """A trade comes `second` seconds after `NOON`, dated `off` seconds later."""
    log.holds.clock = lambda: NOON + second
    moment = round((NOON + second + off) * 10**9)
    return log.admit(trade(str(number), moment, sequence=number if sequences else None), second)


@pytest.mark.parametrize("sequences", [True, False])
def test_a_clock_that_is_set_back_with_the_numbers_silences_no_source(sequences: bool) -> None:
    """All that comes seems older than what was forgotten. It happened after that was here, so it is new: a row
    that is long enough, and lasts, proves it."""
    log = ahead(sequences)
    found = [at_the_time(log, OFF + 1 + at, at, sequences=sequences) for at in range(40)]
    assert found == [Verdict.TOO_OLD] * (LONG - 1) + [Verdict.ADMITTED] * (41 - LONG)
    gaps = [entry for entry in everything(log) if isinstance(entry, Gap)]
    assert [(gap.reason, gap.exact) for gap in gaps] in ([("source_gap", False)], [])


@pytest.mark.parametrize("sequences", [True, False])
def test_a_replay_in_one_go_is_no_new_numbering_whatever_its_times(sequences: bool) -> None:
    """It may be dated ahead as before. Then it is what was forgotten, and a duplicate."""
    log = ahead(sequences)
    found = [at_the_time(log, HOURS, at, sequences=sequences, off=at / 1e9) for at in range(100, 120)]
    assert found == [Verdict.TOO_OLD] * LONG


@pytest.mark.parametrize("off", [-HOURS, HOURS / 2])
def test_times_that_no_clock_confirms_prove_nothing(off: float) -> None:
    """Before the newest trade came here, or still ahead: they stay refused, however many come."""
    log = ahead()
    assert {at_the_time(log, 10.0 * at, at, off=off) for at in range(3 * LONG)} == {Verdict.TOO_OLD}


def test_a_source_that_nobody_remembers_proves_nothing() -> None:
    """Of a log that went on from disk: what it may have given before is not known."""
    log = History(7, 10, 1e9, holds=Holds(clock=lambda: NOON))
    log.restore([], 0.0, newest=[trade("x", 1)], forgotten=(NOON + HOURS) * 10**9, are_all=False)
    for at in range(3600, 3640):
        log.holds.clock = lambda at=at: NOON + at  # type: ignore[misc]
        strange = trade(f"y{at}", (NOON + at) * 10**9, source="b")
        assert log.admit(strange, float(at)) is Verdict.TOO_OLD


def test_ids_that_are_used_again_one_after_the_other_are_a_new_numbering() -> None:
    """Without a sequence. A lasting row proves it; then the old ids are forgotten, and none is reused."""
    log = history(*(trade(str(at), at) for at in range(60)))
    found = [log.admit(trade(str(at), 1000 + at), float(at)) for at in range(60)]
    assert found == [Verdict.REUSED] * (LONG - 1) + [Verdict.ADMITTED] * (61 - LONG)
    assert log.admit(trade("5", 5), 60.0) is Verdict.TOO_OLD
    assert log.admit(trade("30", 1030), 60.0) is Verdict.DUPLICATE
    assert [entry for entry in everything(log) if isinstance(entry, Gap)] == [
        Gap(61, 61, "source_gap", exact=False)
    ]


def test_what_is_refused_since_the_newest_trade_is_told() -> None:
    """How many, since when, and why; an admitted trade ends it, and a duplicate does not."""
    log = history(sequenced(1000), sequenced(1001))
    assert log.refused_of("a") is None
    log.admit(sequenced(3), 5.0)
    log.admit(sequenced(1001), 6.0)
    log.admit(sequenced(2), 7.0)
    assert log.refused_of(sequenced(1).source) == Refused(2, 5.0, 7.0, Verdict.LATE)
    assert log.refused_of("another") is None
    log.admit(sequenced(1002), 8.0)
    assert log.refused_of(sequenced(1).source) is None


def test_an_id_given_twice_is_remembered_as_long_as_the_younger_trade() -> None:
    """Forgetting the older one does not make room for a third."""
    log = history(*map(sequenced, range(1, 31)), max_trades=15)
    verdicts(log, *range(1, 45))
    assert verdicts(log, 25) == [Verdict.DUPLICATE]


def test_a_replay_taken_for_a_new_numbering_leads_back_to_the_old_one() -> None:
    """A long replay of trades from before the log costs one gap too many, and nothing else."""
    log = history(sequenced(60), sequenced(61))
    found = [log.admit(sequenced(n), 0) for n in range(11, 64)]
    late, new = LONG - 1, 50 - LONG
    assert found[:late] == [Verdict.LATE] * late
    assert found[late:] == [*[Verdict.ADMITTED] * new, *[Verdict.DUPLICATE] * 2, *[Verdict.ADMITTED] * 2]
    gaps = [entry for entry in everything(log) if isinstance(entry, Gap)]
    assert gaps == [Gap(3, 3, "source_gap", exact=False)]


def test_a_wild_sequence_is_refused_and_does_no_harm() -> None:
    """One number that is far too high neither makes a gap nor makes the rest late."""
    log = history(sequenced(100))
    assert verdicts(log, 2**53, 101, 2**52, 102) == [
        Verdict.IMPLAUSIBLE,
        Verdict.ADMITTED,
        Verdict.IMPLAUSIBLE,
        Verdict.ADMITTED,
    ]
    assert log.last == 3


def test_the_largest_plausible_jump_is_an_exact_gap() -> None:
    """At the bound itself the missing trades are still counted."""
    log = history(sequenced(1))
    assert verdicts(log, 1 + JUMP) == [Verdict.ADMITTED]
    assert everything(log)[1] == Gap(2, JUMP, "source_gap", True, "a", 2)
    assert verdicts(log, 2 + 2 * JUMP) == [Verdict.IMPLAUSIBLE]


def test_a_wild_sequence_that_goes_on_is_believed() -> None:
    """The next trade continues from it: one place stands for all that may be missing, not 9e15."""
    log = history(sequenced(100))
    assert verdicts(log, 2**52, 2**52 + 2, 2**52 + 1) == [Verdict.IMPLAUSIBLE] * 3
    assert verdicts(log, 2**52 + 2, 2**52 + 3) == [Verdict.ADMITTED] * 2
    assert everything(log)[1] == Gap(2, 2, "source_gap", exact=False)
    assert log.last == 4


def test_a_first_sequence_that_was_wild_is_outlived() -> None:
    """The next trades look like a new numbering, and they are one."""
    log = history(sequenced(2**53))
    assert verdicts(log, *range(1, ANEW + 3), at=10**19)[ANEW - 1 :] == [Verdict.ADMITTED] * 3


def test_one_timestamp_of_the_future_does_not_silence_a_source() -> None:
    """When its id is forgotten, the floor stays with the timestamps of the others."""
    log = history(trade("wild", 10**18), max_trades=2)
    for n in range(1, 20):
        assert log.admit(trade(str(n), n), 0) is Verdict.ADMITTED
    assert log.admit(trade("1", 1), 0) is Verdict.TOO_OLD


def test_one_timestamp_of_the_future_does_not_silence_a_quiet_source() -> None:
    """Also when only another source has sent trades since."""
    log = history(trade("wild", 10**18), *(trade(str(n), n, source="b") for n in range(9)), max_trades=2)
    assert log.admit(trade("1", 1), 0) is Verdict.ADMITTED


def test_a_source_whose_clock_is_always_ahead_has_a_floor() -> None:
    """Timestamps are compared within one source, also when another source is the last."""
    log = history(*(trade(str(n), 10**18 + n) for n in range(4)), trade("x", 1, source="b"), max_trades=2)
    assert log.admit(trade("0", 10**18), 0) is Verdict.TOO_OLD


def test_the_floor_follows_a_source_that_is_only_ahead() -> None:
    """Within the bound a timestamp counts, also if the others are much earlier."""
    log = history(trade("ahead", AHEAD + 9), *(trade(str(n), 9) for n in range(4)), max_trades=2)
    assert log.admit(trade("x", AHEAD + 9), 0) is Verdict.TOO_OLD
    log = history(trade("wild", AHEAD + 10), *(trade(str(n), 9) for n in range(4)), max_trades=2)
    assert log.admit(trade("x", AHEAD), 0) is Verdict.ADMITTED


def test_the_newest_places_hold_as_many_trades_as_were_asked_for() -> None:
    """A gap is not a trade: gaps between and behind the trades come along, gaps before them do not."""
    log = history(sequenced(1), sequenced(2), sequenced(50), sequenced(60), missed())
    log.lost(trade("x", source="b"), 0)
    assert [entry.first for entry in log.newest(2)] == [50, 51, 60, 61]
    assert [entry.first for entry in log.newest(1)] == [60, 61]
    assert [entry.first for entry in log.newest(9)] == [1, 2, 3, 50, 51, 60, 61]
    assert log.newest(0) == []


def test_the_newest_places_of_a_log_that_forgot_begin_with_a_trade() -> None:
    """The rest of a gap before it says nothing about the trades."""
    log = history(sequenced(1), sequenced(50), sequenced(51), max_trades=2)
    assert isinstance(log.read(1, 9)[0], Gap)
    assert [entry.first for entry in log.newest(9)] == [50, 51]


def test_a_trade_that_cannot_be_judged_neither_clears_nor_fills_a_mark() -> None:
    """A replay from before the memory proves nothing yet."""
    log = history(*(trade(str(n), n * US) for n in range(1, 6)), max_trades=2)
    log.admit(RESUBSCRIBED, 0)
    assert log.admit(trade("1", 1 * US), 0) is Verdict.TOO_OLD
    log.admit(trade("6", 6 * US), 0)
    assert Gap(6, 6, "source_gap", exact=False) in log.read(5, 10)


def test_a_mark_of_a_source_that_never_gave_a_trade_is_ignored() -> None:
    """Before the first trade nothing was promised; another source's trades change nothing in that."""
    log = history(trade("x", source="b"), missed(), trade("y"))
    assert log.last == 2


def test_a_mark_waits_for_its_own_source() -> None:
    """The trade of another source does not resolve it, and the first of two reasons is announced."""
    log = history(trade("x"), trade("v", source="b"), missed(reason="first"), missed(reason="second"))
    log.admit(trade("w", source="b"), 0)
    log.admit(trade("y"), 0)
    assert everything(log)[2:] == [
        Recorded(3, trade("w", source="b")),
        Gap(4, 4, "first", exact=False),
        Recorded(5, trade("y")),
    ]


def test_a_mark_adds_nothing_to_a_sequence() -> None:
    """A sequence tells exactly how many trades are missing, so a mark is not needed."""
    log = history(sequenced(1), missed(), sequenced(2), missed(), sequenced(4))
    assert everything(log)[1:] == [
        Recorded(2, sequenced(2)),
        Gap(3, 3, "source_gap", True, "a", 3),
        Recorded(4, sequenced(4)),
    ]


def test_a_trade_lost_inside_is_a_gap() -> None:
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
    assert everything(log) == [Gap(1, 2, "source_gap", True, "a", 5), Recorded(3, sequenced(7))]


def test_a_lost_mark_is_still_a_mark() -> None:
    """The mark that trades may be missing is not itself lost."""
    log = history(trade("x"))
    assert not log.lost(missed(), 0)
    log.admit(trade("y"), 0)
    assert everything(log)[1:] == [Gap(2, 2, "source_gap", exact=False), Recorded(3, trade("y"))]


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
    """The oldest go first. A reader before them is told their places."""
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
    """A reader does not get places again."""
    log = history(sequenced(1), sequenced(10))
    assert log.read(4, 1) == [Gap(5, 9, "source_gap", True, "a", 5)]


def test_a_reader_goes_on_where_it_was_or_begins_anew() -> None:
    """Another epoch, a forgotten or a future position, or too many entries: from the oldest entry that may be had."""
    log = history(*(trade(str(n), n) for n in range(1, 11)), max_trades=5)
    assert log.resume(7, 8, 10)[:2] == (True, 8)
    assert log.resume(7, 10, 1)[:2] == (True, 10)
    assert log.resume(7, 5, 5)[:2] == (True, 5)
    for unknown in ((6, 8), (7, 4), (7, 11)):
        assert log.resume(*unknown, 10)[:2] == (False, 5)
        assert log.resume(*unknown, 5)[:2] == (False, 5)
        assert log.resume(*unknown, 3)[:2] == (False, 7)
    assert log.resume(7, 5, 4)[:2] == (False, 6)
    assert history().resume(6, 8, 10)[:2] == (False, 0)


def test_queries_are_ordered_by_time_and_ties_by_offset() -> None:
    """Trades of one microsecond stand in the order of admission, with any nanoseconds."""
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


def test_a_trade_without_an_id_counts_each_time() -> None:
    """Two equal ones are two trades, in the order of their coming, however old they are."""
    log = History(1, 2, 100.0)
    twice = trade(None, 7 * US)
    verdicts = [log.admit(item, 0.0) for item in (twice, twice, trade(None, 5 * US), trade(None, 1))]
    assert verdicts == [Verdict.ADMITTED] * 4
    assert log.last == 4
    assert [entry.trade.timestamp for entry in log.read(2, 9) if isinstance(entry, Recorded)] == [5 * US, 1]


def test_a_floor_is_for_those_that_have_ids() -> None:
    """What is older than all remembered ids may have come before; without an id nobody asks."""
    log = History(1, 1, 100.0)
    for number in range(1, 5):
        log.admit(trade(str(number), number * US), 0.0)
    assert log.admit(trade("x", US), 0.0) is Verdict.TOO_OLD
    assert log.admit(trade(None, US), 0.0) is Verdict.ADMITTED


def test_a_sequence_alone_refuses_what_came_before() -> None:
    """It tells a passed trade, though not which one it is."""
    log = History(1, 9, 100.0)
    for sequence, verdict in ((5, "admitted"), (6, "admitted"), (6, "late"), (8, "admitted")):
        assert log.admit(sequenced(sequence, trade_id=None), 0.0).value == verdict
    assert log.read(0, 9)[2] == Gap(3, 3, "source_gap", True, "a", 7)


def test_no_id_is_remembered_of_a_trade_without_one() -> None:
    """They would fill the memory for nothing, and push out those that protect others."""
    log = History(1, 2, 100.0)
    log.admit(trade("first", US), 0.0)
    for number in range(100):
        log.admit(trade(None, number * US), 0.0)
    assert log.admit(trade("first", US), 0.0) is Verdict.DUPLICATE


def test_of_a_lost_batch_without_ids_only_what_was_not_admitted_is_a_gap() -> None:
    """The very trade is known by its object: an equal one from before is another trade."""
    store = Store(1, 9, 100.0)
    batch = [trade(None, US) for _ in range(4)]
    store.admit([trade(None, US)], 1.0)
    store.admit(batch[:2], 2.0)
    store.lost(batch[:2])
    assert store.history("BTC-USD").last == 3, "all of them are there"
    store.lost(batch)
    assert store.history("BTC-USD").read(3, 9) == [Gap(4, 4, "shard_restart", exact=False)]
