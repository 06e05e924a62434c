"""The promises of `Archive`, over every store: what is appended survives, and is read exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataflow.cache.archive import Archive, BarRow, Batch, Checkpoint, Keep, Run
from dataflow.domain import Gap, Trade
from dataflow.settings.schema import History
from dataflow.stores import postgres, sqlite
from tests.support.memory_archive import MemoryArchive
from tests.support.postgres import schema

from .shelf import DAY, NOON, US, Shelf, gap, run, trade

SYMBOL = "BTC-USD"
EVER = 1 << 60


def _memory(_request: pytest.FixtureRequest) -> Callable[[Shelf], Archive]:
    archive = MemoryArchive()
    return lambda _shelf: archive


def _sqlite(request: pytest.FixtureRequest) -> Callable[[Shelf], Archive]:
    folder: Path = request.getfixturevalue("tmp_path")
    return lambda shelf: sqlite.Store(History(directory=str(folder / "data")), lambda: shelf.now)


def _postgres(request: pytest.FixtureRequest) -> Callable[[Shelf], Archive]:
    dsn = schema(request.getfixturevalue("server"))
    return lambda shelf: postgres.Store(History(store="postgres", dsn=dsn), lambda: shelf.now)


KINDS = (_memory, _sqlite, _postgres)


@pytest.fixture(params=KINDS, ids=["memory", "sqlite", "postgres"])
def shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    """A new store of each kind, in epoch 7."""
    made = Shelf(request.param(request))
    made.archive.begin(7)
    yield made
    made.archive.close(False)


def test_a_new_store_is_empty(request: pytest.FixtureRequest) -> None:
    """Clean, in epoch 0, without a stream."""
    for kind in KINDS:
        shelf = Shelf(kind(request))
        assert (shelf.contents.epoch, shelf.contents.is_clean, dict(shelf.contents.streams)) == (0, True, {})
        assert shelf.archive.behind(SYMBOL, 0, 9) == []
        assert shelf.archive.latest(SYMBOL, EVER) is None
        shelf.archive.close(True)


def test_gaps_that_can_be_filled_are_found(shelf: Shelf) -> None:
    """The newest first, as they are after fills, in blocks and at the open end. No others."""
    places: list[tuple[int, Trade | Gap]] = []
    for first in range(1, 4000, 10):
        places += [(place, trade(place)) for place in range(first, first + 8)]
        places.append((first + 9, gap(first + 8, first + 9)))
    unknown = Gap(4001, 4001, "source_gap", exact=False)
    forgotten = Gap(4002, 4003, "not_recorded")
    places += [
        (4001, unknown),
        (4003, forgotten),
        (4004, trade(4004)),
        (4006, gap(4005, 4006)),
        (4007, trade(4007)),
    ]
    for start in range(0, len(places), 500):
        shelf.archive.append(Batch([Run.of(SYMBOL, places[start : start + 500])]))
    assert list(shelf.archive.gaps(SYMBOL, EVER, 3)) == [gap(4005, 4006), gap(3999, 4000), gap(3989, 3990)]
    for place in (4005, 3989, 3990, 10):
        shelf.archive.append(Batch([run(place, place, is_fill=True)]))
    for _ in range(2):
        found = list(shelf.archive.gaps(SYMBOL, EVER, 1000))
        assert found[:3] == [gap(4006, 4006), gap(3999, 4000), gap(3979, 3980)]
        assert found[-2:] == [gap(19, 20), gap(9, 9)]
        assert len(found) == 400
        assert list(shelf.archive.gaps(SYMBOL, 20, 9)) == [gap(9, 9)]
        assert list(shelf.archive.gaps("ETH-USD", EVER, 9)) == []
        shelf.reopen()
        shelf.archive.begin(7)


def test_what_is_appended_is_read(shelf: Shelf) -> None:
    """At once, and after the store is opened again, every digit."""
    shelf.archive.append(Batch([run(1, 3), run(1, 2, "ETH-USD")]))
    shelf.archive.append(Batch([Run.of(SYMBOL, [(6, gap(4, 6)), (7, trade(7))])]))
    expected = [*run(1, 3).places, (6, gap(4, 6)), (7, trade(7))]
    for _ in range(2):
        found = shelf.archive.behind(SYMBOL, 0, 99)
        assert list(found) == expected
        assert str(found[0][1].price) == "60000.11"  # type: ignore[union-attr]
        assert list(shelf.archive.behind(SYMBOL, 4, 2)) == expected[3:5], "a gap is never cut"
        assert list(shelf.archive.behind("ETH-USD", 1, 9)) == list(run(2, 2, "ETH-USD").places)
        shelf.reopen()
    stream = shelf.contents.streams[SYMBOL]
    assert (stream.first, stream.last, list(stream.epochs)) == (1, 7, [(7, 1)])


def test_a_repeated_batch_changes_nothing(shelf: Shelf) -> None:
    """Whoever does not know whether a batch was written may write it again, also as a part of a larger run."""
    for batch in (Batch([run(1, 5)]), Batch([run(1, 5)]), Batch([run(3, 8)])):
        shelf.archive.append(batch)
    assert list(shelf.archive.behind(SYMBOL, 0, 99)) == list(run(1, 8).places)


def test_only_a_clean_stop_is_clean(shelf: Shelf) -> None:
    """A store that was not closed in order says so, and so does one in use."""
    shelf.archive.append(Batch([run(1, 2)]))
    assert not shelf.reopen(clean=False).is_clean
    shelf.archive.begin(7)
    assert shelf.reopen().is_clean
    shelf.archive.begin(7)
    assert not shelf.reopen(clean=False).is_clean


def test_epochs_are_a_chain(shelf: Shelf) -> None:
    """A new epoch begins behind what is stored. A symbol that comes later has no older one."""
    shelf.archive.append(Batch([run(1, 5)]))
    shelf.reopen(clean=False)
    shelf.archive.begin(9)
    shelf.archive.append(Batch([run(6, 7), run(1, 1, "ETH-USD")]))
    contents = shelf.reopen()
    assert contents.epoch == 9
    assert {name: list(stream.epochs) for name, stream in contents.streams.items()} == {
        SYMBOL: [(7, 1), (9, 6)],
        "ETH-USD": [(9, 1)],
    }
    shelf.now += DAY
    shelf.archive.append(Batch([run(8, 9)]))
    assert list(shelf.reopen().streams[SYMBOL].epochs) == [(7, 1), (9, 6)], "a new day knows the old ones"


def test_runs_of_any_length(shelf: Shelf) -> None:
    """Longer than a block, and many short ones: one stream."""
    shelf.archive.append(Batch([run(1, 5_000)]))
    for first in range(5_001, 6_501, 50):
        shelf.archive.append(Batch([run(first, first + 49)]))
    for _ in range(2):
        assert list(shelf.archive.behind(SYMBOL, 0, 10_000)) == list(run(1, 6_500).places)
        assert list(shelf.archive.behind(SYMBOL, 4_998, 3)) == list(run(4_999, 5_001).places)
        assert list(shelf.archive.newest(SYMBOL, 3, 5_003)) == list(run(5_000, 5_002).places)
        shelf.reopen(clean=False)


def test_what_waits_for_more_survives(shelf: Shelf) -> None:
    """Many small batches of several symbols, which no store keeps one by one for ever."""
    for place in range(1, 101):
        shelf.archive.append(Batch([run(place, place), run(place, place, "ETH-USD")]))
        shelf.now += 1
        if place % 30 == 0:
            shelf.reopen(clean=False)
    for symbol in (SYMBOL, "ETH-USD"):
        assert list(shelf.archive.behind(symbol, 0, 999)) == list(run(1, 100, symbol).places)


def test_days_are_one_stream(shelf: Shelf) -> None:
    """Nobody can see where a day ends: neither by place nor by time, nor in the chain of epochs."""
    for day in range(4):
        shelf.archive.append(Batch([run(day * 10 + 1, day * 10 + 10)], checkpoints=[_point(day)]))
        shelf.now += DAY
    for _ in range(2):
        assert list(shelf.archive.behind(SYMBOL, 0, 99)) == list(run(1, 40).places)
        assert list(shelf.archive.newest(SYMBOL, 25, 38)) == list(run(13, 37).places)
        assert [each.offset for each in shelf.archive.ascending(SYMBOL, 0, 15, EVER)] == [*range(1, 16)]
        assert [each.offset for each in shelf.archive.descending(SYMBOL, None, 15, EVER)] == [
            *range(40, 25, -1)
        ]
        assert shelf.archive.checkpoints("days") == {SYMBOL: _point(3)}
        shelf.reopen()
    stream = shelf.contents.streams[SYMBOL]
    assert (stream.first, stream.last, list(stream.epochs)) == (1, 40, [(7, 1)])


def _point(day: int) -> Checkpoint:
    return Checkpoint("days", SYMBOL, day * 10, b"%d" % day)


def test_a_clock_that_goes_back_costs_nothing(shelf: Shelf) -> None:
    """The stream goes on where it is."""
    for now, first in ((NOON, 1), (NOON + DAY, 11), (NOON - DAY, 21), (NOON + 2 * DAY, 31)):
        shelf.now = now
        shelf.archive.append(Batch([run(first, first + 9)]))
    shelf.reopen()
    assert list(shelf.archive.behind(SYMBOL, 0, 99)) == list(run(1, 40).places)


def test_late_trades_are_in_their_order(shelf: Shelf) -> None:
    """A page by time is exact, however late its trades came, and never ends inside a microsecond."""
    times = [100, 300, 50, 300, 200, 70, 300, 10]
    for place, time in enumerate(times, 1):
        shelf.archive.append(Batch([Run.of(SYMBOL, [(place, trade(place, time))])]))
        shelf.now += DAY // 4
    ascending, descending = shelf.archive.ascending, shelf.archive.descending
    assert [each.offset for each in ascending(SYMBOL, 10 * US, 3, EVER)] == [3, 6, 1]
    assert [each.offset for each in ascending(SYMBOL, 200 * US, 1, EVER)] == [2, 4, 7]
    assert [each.offset for each in ascending(SYMBOL, 200 * US, 9, 7)] == [2, 4]
    assert [each.offset for each in descending(SYMBOL, None, 1, EVER)] == [7, 4, 2]
    assert [each.offset for each in descending(SYMBOL, 300 * US, 2, EVER)] == [5, 1]
    assert shelf.archive.latest(SYMBOL, 2) == trade(1, 100).timestamp
    assert shelf.archive.latest(SYMBOL, 7) == trade(4, 300).timestamp


def test_one_late_trade_is_not_passed_over(shelf: Shelf) -> None:
    """However far it is from the trades that came with it, and wherever a page is cut."""
    for first, times in ((1, [500, 10, 900]), (4, [20, 30, 40]), (7, [600, 700, 800])):
        places = [(first + at, trade(first + at, time)) for at, time in enumerate(times)]
        shelf.archive.append(Batch([Run.of(SYMBOL, places)]))
        shelf.now += DAY
    assert [each.offset for each in shelf.archive.ascending(SYMBOL, 0, 2, EVER)] == [2, 4]
    assert [each.offset for each in shelf.archive.ascending(SYMBOL, 0, 9, 6)] == [2, 4, 5, 1, 3]
    assert [each.offset for each in shelf.archive.descending(SYMBOL, None, 2, EVER)] == [3, 9]
    assert [each.offset for each in shelf.archive.descending(SYMBOL, None, 9, 3)] == [1, 2]


def test_a_fill_takes_the_place_of_a_gap(shelf: Shelf) -> None:
    """Of a part of it, in the open end, in old blocks and on an earlier day; twice is once."""
    shelf.archive.append(Batch([Run.of(SYMBOL, [(1, trade(1)), (9, gap(2, 9)), (10, trade(10))])]))
    for _ in range(2):
        shelf.archive.append(Batch([run(4, 5, is_fill=True)]))
    expected = [(1, trade(1)), (3, gap(2, 3)), (4, trade(4)), (5, trade(5)), (9, gap(6, 9)), (10, trade(10))]
    assert list(shelf.archive.behind(SYMBOL, 0, 99)) == expected
    shelf.now += DAY
    shelf.archive.append(Batch([run(11, 12)]))
    shelf.archive.append(Batch([run(2, 3, is_fill=True), run(7, 8, is_fill=True)]))
    expected = [*run(1, 5).places, (6, gap(6, 6)), *run(7, 8).places, (9, gap(9, 9)), *run(10, 12).places]
    for _ in range(2):
        assert list(shelf.archive.behind(SYMBOL, 0, 99)) == expected
        assert list(shelf.archive.newest(SYMBOL, 4, EVER)) == expected[-5:]
        found = shelf.archive.ascending(SYMBOL, 1 * US, 5, EVER)
        assert [each.offset for each in found] == [2, 3, 4, 5, 7]
        assert shelf.archive.skip(SYMBOL, 2, 8 * US, 9 * US) < 8
        shelf.reopen()


def test_a_fill_may_span_two_gaps(shelf: Shelf) -> None:
    """That stand side by side, in the open end or in a block. Each of its trades is there once."""
    shelf.archive.append(
        Batch([Run.of(SYMBOL, [(1, trade(1)), (3, gap(2, 3)), (6, gap(4, 6)), (7, trade(7))])])
    )
    shelf.archive.append(Batch([run(3, 4, is_fill=True)]))
    shelf.now += DAY
    shelf.archive.append(Batch([run(8, 8)]))
    between = [(2, gap(2, 2)), *run(3, 4).places, (6, gap(5, 6))]
    for _ in range(2):
        assert list(shelf.archive.behind(SYMBOL, 0, 99)) == [(1, trade(1)), *between, *run(7, 8).places]
        shelf.reopen()
    shelf.archive.append(Batch([run(2, 6, is_fill=True)]))
    assert list(shelf.archive.behind(SYMBOL, 0, 99)) == [*run(1, 8).places]


def test_a_fill_that_comes_again_with_more_counts_once(shelf: Shelf) -> None:
    """Nobody heard that it was written, and more trades have come for the gap. Pages by time are not shorter."""
    shelf.archive.append(Batch([Run.of(SYMBOL, [(1, trade(1)), (9, gap(2, 9)), *run(10, 20).places])]))
    shelf.now += DAY
    shelf.archive.append(Batch([run(21, 22)]))
    for last in (4, 6, 9):
        shelf.archive.append(Batch([run(2, last, is_fill=True)]))
    for _ in range(2):
        assert list(shelf.archive.behind(SYMBOL, 0, 99)) == list(run(1, 22).places)
        for count in range(1, 23):
            found = shelf.archive.ascending(SYMBOL, 0, count, EVER)
            assert [each.offset for each in found] == [*range(1, count + 1)]
            found = shelf.archive.descending(SYMBOL, 10 * US, count, EVER)
            assert [each.offset for each in found] == [*range(9, max(0, 9 - count), -1)]
        shelf.reopen()


def test_a_filled_place_never_changes(shelf: Shelf) -> None:
    """Another trade for it is no fill."""
    shelf.archive.append(Batch([Run.of(SYMBOL, [(1, trade(1)), (3, gap(2, 3))])]))
    other = [(place, trade(99, place)) for place in (1, 2)]
    shelf.archive.append(Batch([run(2, 2, is_fill=True)]))
    shelf.archive.append(Batch([Run.of(SYMBOL, other, is_fill=True)]))
    for _ in range(2):
        assert list(shelf.archive.behind(SYMBOL, 0, 9)) == [(1, trade(1)), (2, trade(2)), (3, gap(3, 3))]
        shelf.reopen()


def test_a_jump_to_a_time_passes_no_trade_of_it(shelf: Shelf) -> None:
    """And goes to the end when there is none."""
    shelf.archive.append(Batch([run(1, 3_000)]))
    to = shelf.archive.skip(SYMBOL, 0, 2_500 * US, 2_600 * US)
    assert to < 2_500
    assert shelf.archive.skip(SYMBOL, 10, 5_000 * US, 6_000 * US) == 3_000
    assert shelf.archive.skip(SYMBOL, 2_550, 2_500 * US, 2_600 * US) == 2_550


def test_bars_are_replaced_by_newer_revisions(shelf: Shelf) -> None:
    """Never by older ones, also when a revision comes on another day. Widths are apart."""

    def bar(start: int, rev: int, width: int = 60) -> BarRow:
        return BarRow(SYMBOL, width, start, rev, b"%d" % rev)

    shelf.archive.append(Batch(bars=[bar(0, 2)]))
    shelf.archive.append(Batch(bars=[bar(0, 1)]))
    for bars in ([bar(60, 1)], [bar(0, 1), bar(60, 3)], [bar(120, 1), bar(0, 9, 3600)]):
        shelf.archive.append(Batch(bars=bars))
        shelf.now += DAY
    for _ in range(2):
        assert shelf.archive.bars(SYMBOL, 60, 0, 999, 9) == [bar(0, 2), bar(60, 3), bar(120, 1)]
        assert shelf.archive.bars(SYMBOL, 60, 1, 120, 9) == [bar(60, 3)]
        assert shelf.archive.bars(SYMBOL, 60, 0, 999, 2) == [bar(0, 2), bar(60, 3)]
        assert shelf.archive.bars(SYMBOL, 3600, 0, 1, 9) == [bar(0, 9, 3600)]
        shelf.reopen()


def test_checkpoints_are_the_newest_ones(shelf: Shelf) -> None:
    """Of each follower and symbol."""
    first, second = Checkpoint("days", SYMBOL, 1, b"a"), Checkpoint("days", SYMBOL, 2, b"b")
    other = Checkpoint("candles", "ETH-USD", 5, b"")
    shelf.archive.append(Batch(checkpoints=[first, other]))
    shelf.archive.append(Batch(checkpoints=[second]))
    for _ in range(2):
        assert shelf.archive.checkpoints("days") == {SYMBOL: second}
        assert shelf.archive.checkpoints("candles") == {"ETH-USD": other}
        assert shelf.archive.checkpoints("nobody") == {}
        shelf.reopen()


def test_the_newest_trades_stay(shelf: Shelf) -> None:
    """At least as many as are to be kept. What goes is told, and the rest is whole."""
    shelf.archive.append(Batch([run(1, 5_000), run(1, 10, "ETH-USD")]))
    changed = shelf.archive.retain(Keep(7, 2_000, 0), "2024-10-04")
    first = changed[SYMBOL]
    assert list(changed) == [SYMBOL]
    assert 1 < first <= 3_001
    for _ in range(2):
        assert list(shelf.archive.behind(SYMBOL, 0, 9_999)) == list(run(first, 5_000).places)
        shelf.reopen()
    assert (shelf.contents.streams[SYMBOL].first, shelf.contents.streams[SYMBOL].last) == (first, 5_000)
    assert shelf.archive.retain(Keep(7, 2_000, 0), "2024-10-04") == {}


def test_a_whole_store_has_no_damage(shelf: Shelf) -> None:
    """And knows its size."""
    shelf.archive.append(Batch([run(1, 3_000)], [BarRow(SYMBOL, 60, 0, 1, b"")], [_point(0)]))
    shelf.archive.append(Batch([Run.of(SYMBOL, [(3_005, Gap(3_001, 3_005, "x"))])]))
    assert list(shelf.archive.verify()) == []
    assert shelf.archive.usage().size > 0


def test_nothing_goes_to_a_store_of_another_symbol(shelf: Shelf) -> None:
    """Streams do not know each other."""
    shelf.archive.append(Batch([run(1, 4), run(1, 9, "ETH-USD")]))
    for symbol, last in ((SYMBOL, 4), ("ETH-USD", 9)):
        found = [entry for _, entry in shelf.archive.behind(symbol, 0, 99)]
        assert [entry.symbol for entry in found if isinstance(entry, Trade)] == [symbol] * last
