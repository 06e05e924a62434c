"""Admission by whole runs: the same as one by one."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.cache.feed import ANEW
from dataflow.cache.history import AHEAD, History
from dataflow.cache.holding import Holds
from dataflow.cache.store import Store
from dataflow.cache.verdict import JUMP, Verdict
from dataflow.domain import Gap, Item, Missed, Trade

MAX_AGE = 6.0
SIZE = 12  # trades that the logs keep: some runs are longer, some shorter


@define
class Exchange:
    """Makes the trades of one source: mostly in order, at times not.

    "u" and "v" have no sequences, "m" has them mostly. "n" has no ids, "o" seldom one, "p" a sequence instead.
    """

    source: str
    number: int = 100
    moment: int = 1000
    said: list[Trade] = field(factory=list)

    def trade(self, step: int = 1, *, moment: int | None = None, **other: object) -> Trade:
        self.number += step
        self.moment += 1
        sequence = (
            self.number if self.source not in "uvno" and (self.source != "m" or self.number % 16) else None
        )
        name = None if self.source in "np" or (self.source == "o" and self.number % 9) else str(self.number)
        made = Trade(
            self.source,
            "B-U",
            name,
            "buy",
            Decimal(1),
            Decimal(1),
            self.moment * 500 if moment is None else moment,
            sequence,
        )
        made = msgspec.structs.replace(made, **other)
        self.said.append(made)
        return made

    def in_order(self, count: int) -> list[Item]:
        return [self.trade() for _ in range(count)]

    def again(self, count: int) -> list[Item]:
        """Trades from before, and the next ones."""
        return [*self.said[-count:], *self.in_order(4)]

    def with_one_twice(self, count: int) -> list[Item]:
        run = self.in_order(count)
        return [*run, run[count // 2], *self.in_order(count)]

    def after_a_hole(self, count: int) -> list[Item]:
        return [*self.in_order(count), self.trade(3), *self.in_order(count)]

    def with_a_wild_number(self, count: int) -> list[Item]:
        self.number += 2 * JUMP
        wild = self.trade()
        self.number -= 2 * JUMP + 1
        return [*self.in_order(count), wild, *self.in_order(count)]

    def anew(self, count: int) -> list[Item]:
        self.number = 90
        return self.in_order(ANEW + count)

    def behind_stragglers(self, count: int) -> list[Item]:
        """New trades with passed numbers."""
        self.number -= 50
        late = self.in_order(min(count, 9))
        self.number += 50 - len(late)
        return [*late, *self.in_order(count)]

    def of_the_past(self, count: int) -> list[Item]:
        """New ids with old timestamps, as a straggler has them."""
        return [self.trade(moment=5) for _ in range(count)]

    def of_the_future(self, count: int) -> list[Item]:
        return [
            *self.in_order(count),
            self.trade(moment=self.moment * 500 + 2 * AHEAD),
            *self.in_order(count),
        ]

    def with_an_id_used_again(self, count: int) -> list[Item]:
        run = self.in_order(count)
        used = self.said[-count].trade_id if count > 1 else "100"
        return [*run, self.trade(trade_id=used), *self.in_order(count)]

    def resubscribed(self, count: int) -> list[Item]:
        return [Missed(self.source, "B-U", "source_gap", resubscribed=True), *self.again(count)]

    def marked(self, count: int) -> list[Item]:
        return [Missed(self.source, "B-U", "other")]


UNUSUAL = [
    Exchange.again,
    Exchange.with_one_twice,
    Exchange.after_a_hole,
    Exchange.with_a_wild_number,
    Exchange.anew,
    Exchange.behind_stragglers,
    Exchange.of_the_past,
    Exchange.of_the_future,
    Exchange.with_an_id_used_again,
    Exchange.resubscribed,
    Exchange.marked,
]
speeches = st.sampled_from([Exchange.in_order] * 2 * len(UNUSUAL) + UNUSUAL)
batches = st.lists(
    st.tuples(
        st.sampled_from("usmnop"),
        speeches,
        st.integers(1, 2 * SIZE),
        st.sampled_from([0, 0, 0, 1, 3, 7]),
        st.sampled_from(["", "", "", "", "v", "s", "n"]),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(batches, st.integers(0, 9))
def test_a_batch_does_what_its_items_do_one_by_one(batches: list[Any], queries: int) -> None:
    """Admission by runs and by halves has the same places, verdicts and memory."""
    store, single = Store(1, SIZE, MAX_AGE), History(1, SIZE, MAX_AGE)
    verdicts: Counter[tuple[str, str]] = Counter()
    exchanges, now = {name: Exchange(name, 1000 * place) for place, name in enumerate("usmvnop", 1)}, 0.0
    for number, (name, speech, count, pause, other) in enumerate(batches):
        now += pause
        items = speech(exchanges[name], count)
        if other:
            items += exchanges[other].in_order(count)
        before = single.last
        for item in items:
            verdicts[item.source, single.admit(item, now).value] += 1
        assert store.admit(items, now) == ({"B-U"} if single.last > before else set())
        batched = store.history("B-U")
        if queries and number % queries == 0:
            assert batched.latest(5) == single.latest(5)
        assert (batched.first, batched.last) == (single.first, single.last)
        assert batched.read(batched.first - 1, 1000) == single.read(single.first - 1, 1000)
        assert batched._feeds == single._feeds
        assert batched._ids_by_age == single._ids_by_age
        assert store.counts == verdicts


def both_ways(*batches: list[Item]) -> History:
    """The log after these batches. It is the same when the items are offered one by one."""
    store, single = Store(1, SIZE, MAX_AGE), History(1, SIZE, MAX_AGE)
    for batch in batches:
        store.admit(batch, 0.0)
        for item in batch:
            single.admit(item, 0.0)
    assert store.history("B-U") == single
    return single


def test_a_run_that_forgets_the_newest_of_another_source_measures_it_as_it_would_one_by_one() -> None:
    """The next trade decides whether its timestamp counts, not the last one of the run."""
    quiet, loud = Exchange("s"), Exchange("u")
    before = [quiet.trade(moment=AHEAD * 2), *loud.in_order(2 * SIZE - 2)]
    run = [*loud.in_order(SIZE - 1), loud.trade(moment=AHEAD * 2)]
    log = both_ways(before, loud.in_order(1), run)
    assert log.admit(msgspec.structs.replace(quiet.trade(moment=5), sequence=None), 0.0) is Verdict.ADMITTED


def test_the_first_sequence_of_a_source_proves_nothing() -> None:
    """A mark before it is a gap, also when a whole run in order follows."""
    exchange = Exchange("m", number=111)
    log = both_ways(exchange.in_order(1), exchange.marked(1), exchange.in_order(SIZE))
    assert log.read(0, 2)[1] == Gap(2, 2, "other", exact=False)


def test_a_long_run_is_taken_as_a_whole() -> None:
    """No trade of it is judged: neither in a new log, nor when many trades are forgotten."""
    for name in "usnp":
        exchange, log = Exchange(name), History(1, 100, MAX_AGE)
        log.admit(exchange.trade(), 0.0)
        for _ in range(9):
            assert log.admit_run(exchange.in_order(50), 0.0)  # type: ignore[arg-type]
        assert log.last == 451
        assert [entry.first for entry in log.read(351, 1000)] == list(range(352, 452))


def test_what_another_line_has_brought_is_passed_over_as_a_whole() -> None:
    """However much of it is new: nothing of it is judged, and the log is as if it had been."""
    for name in "us":
        exchange, log = Exchange(name), History(1, 100, MAX_AGE)
        log.admit(exchange.trade(), 0.0)
        assert log.admit_run(exchange.in_order(50), 0.0)  # type: ignore[arg-type]
        assert log.repeated(exchange.again(30)) == 30  # type: ignore[arg-type]
    both_ways(*([*exchange.said[-count:], *exchange.in_order(count)] for count in range(1, SIZE)))


def test_a_repetition_that_shows_something_is_judged() -> None:
    """The newest trade after a resubscription, one that breaks a row of late ones, one that leads on."""
    exchange = Exchange("u")
    run = exchange.in_order(SIZE)
    log = both_ways(run, exchange.resubscribed(1)[:1], run[-6:], exchange.in_order(4))
    assert not log.holes
    exchange, late = Exchange("s"), Exchange("s", number=10)
    run = exchange.in_order(SIZE)
    log = both_ways(run, late.in_order(ANEW - 1), run[-6:], late.in_order(ANEW - 1))
    assert log.last == SIZE
    exchange, low = Exchange("s"), Exchange("s", number=100 - ANEW)
    run = exchange.in_order(SIZE)
    both_ways(run, [low.trade(moment=5 + n) for n in range(ANEW)], run, exchange.in_order(3))


def test_a_repetition_ends_a_wait_that_is_overdue() -> None:
    """As any trade of the source does."""
    store, exchange = Store(1, SIZE, 1e6, holds=Holds(lambda _source: 1.0)), Exchange("s")
    run = exchange.in_order(SIZE)
    for items, now in ((run, 0.0), ([exchange.trade(3)], 0.0), (run[-6:], 9.0)):
        store.admit(items, now)
    assert store.waiting == 0


def test_a_run_that_is_not_taken_leaves_the_log_as_it_was() -> None:
    """For any reason: it is offered again, in parts."""
    for speech in UNUSUAL[1:9]:
        exchange, log, untouched = Exchange("s"), History(1, SIZE, MAX_AGE), History(1, SIZE, MAX_AGE)
        for trade in exchange.in_order(3 * SIZE):
            log.admit(trade, 0.0)
            untouched.admit(trade, 0.0)
        run = speech(exchange, 4)
        if speech not in (Exchange.of_the_past, Exchange.of_the_future):  # a sequence proves these new
            assert not log.admit_run(run, 0.0)  # type: ignore[arg-type]
            assert log == untouched
