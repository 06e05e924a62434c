"""Bars that can still change: exact whatever is late, closed by time, revised for a while, honest about gaps."""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.domain import Gap, Trade
from dataflow.domain.candle import DAY, HOUR, MINUTE, SECOND, CandleRules, interval
from dataflow.topics.candles import DIGITS, Bar, pack, unpack
from dataflow.topics.coverage import MOST, NEVER
from dataflow.topics.series import KEPT, Chain, Level, Places, Series
from tests.dataflow.topics.test_candles import SPOT_TRADES, all_figures, full_bars

T0 = 20_000 * DAY
RULES = CandleRules()
EARLY, LATE = Gap(2, 3, "source_gap", source="a", sequence=2), Gap(6, 6, "resubscribed", exact=False)


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """The decimal context of the daemon; a rounded sum is an error."""
    with decimal.localcontext(decimal.Context(prec=DIGITS, traps=[decimal.Inexact])):
        yield


def trade(
    second: float, price: int = 1, *, source: str = "a", quantity: str = "1", side: str | None = None
) -> Trade:
    moment = T0 + int(second * SECOND)
    return Trade(source, "B-U", None, side, Decimal(price), Decimal(quantity), moment)  # type: ignore[arg-type]


class Scene:
    """A series with some intervals, which gets entries place by place."""

    def __init__(self, *names: str, rules: CandleRules = RULES) -> None:
        wanted = [interval(name) for name in names]
        self.series = Series(
            rules,
            levels={each.name: Level(each) for each in wanted if each.width},
            chains={each.name: Chain(each) for each in wanted if not each.width},
        )

    def read(self, *entries: Trade | Gap, until: int = NEVER) -> None:
        places = []
        last = self.series.position
        for entry in entries:
            last = entry.last if isinstance(entry, Gap) else last + 1
            places.append((last, entry))
        self.series.fold(places, until)

    def settle(self, watermark: float | None = None) -> None:
        self.series.settle(*([] if watermark is None else [T0 + int(watermark * SECOND)]))

    def bars(self, name: str) -> dict[float, Bar]:
        """By their starts, in seconds."""
        return {(start - T0) / SECOND: bar for start, bar in self.series.levels[name].bars.items()}

    def told(self, name: str) -> list[tuple[float, int, bool, int]]:
        """The changes since it was asked: start, count, closed, rev."""
        self.settle()
        bars = self.series.levels[name].take()
        return [((bar.start - T0) / SECOND, bar.count, bar.closed, bar.rev) for bar in bars]

    def gaps(self, name: str) -> dict[float, tuple[Gap, ...]]:
        self.settle()
        return {start: bar.gaps for start, bar in sorted(self.bars(name).items())}


def test_a_window_closes_when_the_lateness_has_passed() -> None:
    """By the time of the trades: not a nanosecond earlier, once, and only itself."""
    s = Scene("1s", "5s")
    s.read(trade(0.5), trade(1.5))
    assert s.told("1s") == [(0, 1, False, 1), (1, 1, False, 1)]
    s.read(trade(3 - 1e-9))
    assert s.told("1s") == [(2, 1, False, 1)]
    s.read(trade(3))
    assert s.told("1s") == [(0, 1, True, 2), (3, 1, False, 1)]
    assert s.told("1s") == []
    assert s.told("5s") == [(0, 4, False, 4)]


def test_a_watermark_from_outside_closes_a_quiet_market() -> None:
    """And no later trade takes it back."""
    s = Scene("1s")
    s.read(trade(0.5))
    s.settle(1 - 1e-9)
    assert not s.bars("1s")[0].closed
    s.settle(1)
    assert s.bars("1s")[0].closed
    s.settle()
    assert s.series.watermark == T0 + SECOND


def test_a_late_trade_changes_every_level_that_it_is_not_too_late_for() -> None:
    """A closed bar is told again, with a higher `rev`, as long as its window ended within `revise_within`."""
    s = Scene("1s", "1m", rules=evolve(RULES, revise_within=10 * SECOND))
    s.read(trade(0.5, 5), trade(11, 5))
    assert s.told("1s") == [(0, 1, True, 2), (11, 1, False, 1)]
    s.read(trade(0.6, 9))
    assert s.told("1s") == [(0, 2, True, 3)], "ten seconds to the end of its window"
    s.read(trade(11.000000001, 5), trade(0.7, 99))
    assert s.told("1s") == [(11, 2, False, 2)]
    assert s.series.too_late == {"1s": 1}
    assert s.bars("1s")[0].high == 9
    assert s.bars("1m")[0].high == 99, "its window is open"


def test_how_late_a_trade_is_depends_on_those_before_it_alone() -> None:
    """Also within one run: a recording that is read at once makes the bars of the live market."""
    entries = [trade(0.5), trade(8, 7), trade(0.6), trade(20), trade(0.7), trade(8.5, 3), trade(40)]
    rules = evolve(RULES, revise_within=8 * SECOND)
    at_once, each = Scene("1s", rules=rules), Scene("1s", rules=rules)
    at_once.read(*entries)
    at_once.settle()
    for entry in entries:
        each.read(entry)
        each.settle()
    assert at_once.series.too_late == each.series.too_late == {"1s": 2}
    told = [
        {start: (bar.count, bar.rev, bar.high) for start, bar in scene.bars("1s").items()}
        for scene in (at_once, each)
    ]
    assert told[0] == told[1]
    assert told[0][0] == (2, 3, 1)


def test_no_bar_for_a_window_without_trades() -> None:
    """A late trade makes one all the same, which is closed at once."""
    s = Scene("1s")
    s.read(trade(0.5), trade(9.5))
    s.told("1s")
    s.read(trade(5.5))
    assert s.told("1s") == [(5, 1, True, 2)]


def test_a_time_that_is_not_credible_moves_nothing() -> None:
    """It is counted."""
    s = Scene("1s", "2t")
    s.read(trade(0.5), trade(10_000), trade(0.6), until=T0 + HOUR)
    assert s.told("1s") == [(0, 2, False, 2)]
    assert s.series.in_future == 1
    assert s.series.chains["2t"].closed[0].count == 2
    s.read(trade(10_000), until=T0 + HOUR)
    assert s.series.position == 4


def test_windows_between_the_trade_before_a_gap_and_the_one_behind_it() -> None:
    """Both their windows are incomplete, and all between; no other."""
    s = Scene("1s", "1m")
    s.read(trade(0.5), trade(1.5), Gap(3, 4, "source_gap"))
    gap = Gap(3, 4, "source_gap")
    assert s.gaps("1s") == {0: (), 1: (gap,)}
    s.read(trade(3.5), trade(4.5))
    assert s.gaps("1s") == {0: (), 1: (gap,), 3: (gap,), 4: ()}
    assert s.gaps("1m") == {0: (gap,)}
    s.read(trade(2.5))
    assert s.gaps("1s")[2] == (gap,), "a late trade between the two"


def test_a_gap_touches_the_windows_of_the_trades_at_its_ends_alone() -> None:
    """A missing trade may have the time of either: a trade at the start of a window belongs to that window."""
    s = Scene("1s")
    gap = Gap(3, 3, "source_gap")
    s.read(trade(0.5), trade(1), gap, trade(3), trade(4))
    assert s.gaps("1s") == {0: (), 1: (gap,), 3: (gap,), 4: ()}


def test_a_gap_of_one_source_lies_between_its_own_trades() -> None:
    """Other sources that go on meanwhile hide nothing: the source was away for all that time."""
    s = Scene("1s")
    s.read(*(trade(n + 0.5, source=source) for n in range(2) for source in "ab"))
    s.read(*(trade(n + 0.5, source="b") for n in range(2, 6)))
    unknown = Gap(9, 9, "resubscribed", exact=False)  # it names no source
    s.read(unknown, trade(6.5, source="a"), trade(7.5, source="b"))
    assert s.gaps("1s") == {0: (), **dict.fromkeys(range(1, 7), (unknown,)), 7: ()}
    exact = Gap(12, 12, "source_gap", source="a")
    s.read(exact, trade(8.5, source="b"))
    assert s.gaps("1s")[8] == (exact,)
    s.read(trade(9.5, source="a"), trade(10.5, source="b"))
    assert [start for start, gaps in s.gaps("1s").items() if exact in gaps] == [6, 7, 8, 9]


def test_a_source_that_is_away_leaves_the_windows_open() -> None:
    """Until it gives a trade again. Without a gap before that, nothing was missing after all."""
    s = Scene("1s")
    s.read(trade(0.5), trade(0.6, source="b"))
    s.series.coverage.away("a", 3)
    s.series.coverage.away("a", 4)
    s.series.coverage.away("never seen", 3)
    open_ = (Gap(3, 3, "source_gap", exact=False),)
    s.read(trade(1.5, source="b"), trade(9.5, source="b"))
    assert s.gaps("1s") == {0: open_, 1: open_, 9: open_}
    closed = s.bars("1s")[0].rev
    s.read(trade(9.6))
    assert s.gaps("1s") == {0: (), 1: (), 9: ()}
    assert s.bars("1s")[0].rev == closed + 1
    s.series.coverage.away("a", 6)
    gap = Gap(6, 6, "source_gap", source="a")
    s.read(gap, trade(10.5, source="b"), trade(11.5))
    assert s.gaps("1s") == {0: (), 1: (), 9: (gap,), 10: (gap,), 11: (gap,)}


def test_a_source_that_is_removed_misses_nothing_any_more() -> None:
    """What it may have missed until then stays."""
    s = Scene("1s")
    s.read(trade(0.5), trade(1.5, source="b"))
    s.series.coverage.away("a", 3)
    s.series.coverage.gone("a", s.series.high)
    s.read(trade(2.5, source="b"))
    assert [bool(gaps) for gaps in s.gaps("1s").values()] == [True, True, False]


def test_a_fill_revises_the_bars() -> None:
    """They are complete again when nothing of a gap is left in them; a part of one is told as what it is."""
    s = Scene("1s", "1m")
    gap = Gap(2, 4, "source_gap", source="a", sequence=2)
    s.read(trade(0.5, 5), gap, trade(3.5, 5), trade(6, 5))
    s.told("1s")
    s.series.fill(3, [trade(1.5, 9, side="buy")], NEVER)
    left = (gap.part(2, 2), gap.part(4, 4))
    assert s.gaps("1s")[1] == left == s.gaps("1m")[0]
    assert [bar[:3] for bar in s.told("1s")] == [(0, 1, True), (1, 1, True), (3, 1, True)]
    s.series.fill(2, [trade(0.5, 4)], NEVER)
    s.series.fill(4, [trade(3.5, 6)], NEVER)
    assert set(s.gaps("1s").values()) == {()} == set(s.gaps("1m").values())
    first, last = s.bars("1s")[0], s.bars("1s")[3]
    assert (first.first.price, first.last.price, first.count) == (5, 4, 2), "the lower place stands before"
    assert (last.first.price, last.last.price) == (6, 5)
    assert s.bars("1m")[0].count == 6


def test_a_fill_of_places_that_were_read_as_trades_changes_nothing() -> None:
    """Who reads the places after they were filled is told of the fill as well."""
    s = Scene("1s")
    s.read(trade(0.5), Gap(2, 3, "source_gap", source="a", sequence=2), trade(1.5))
    before = s.told("1s")
    s.series.fill(1, [trade(0.5)], NEVER)
    s.series.fill(3, [trade(1.5), trade(1.5)], NEVER)
    s.series.coverage.away("a", 5)
    s.series.fill(5, [trade(1.5)], NEVER)
    assert [bar.count for bar in s.bars("1s").values()] == [bar[1] for bar in before] == [1, 1]


def test_gaps_are_bounded() -> None:
    """The oldest ones are told as one."""
    s = Scene("1m")
    for n in range(MOST + 50):
        s.read(trade(n / 100), Gap(2 * n + 2, 2 * n + 2, "source_gap"))
    assert len(s.gaps("1m")[0]) == MOST
    first = s.gaps("1m")[0][0]
    assert (first.first, first.exact) == (2, False)


def test_what_is_over_is_forgotten() -> None:
    """Bars that cannot change any more, and the gaps that only they have."""
    s = Scene("1s", "1m", rules=evolve(RULES, revise_within=MINUTE))
    s.read(trade(0.5), Gap(2, 2, "x"), trade(1.5), trade(70))
    s.settle()
    s.series.forget()
    assert set(s.bars("1s")) == {0, 1, 70}, "nobody has taken their changes"
    s.told("1s")
    s.series.forget()
    assert set(s.bars("1s")) == {70}
    assert s.series.coverage.holes, "the minute has it"
    s.told("1m")
    s.read(trade(200))
    s.told("1s"), s.told("1m")
    s.series.forget()
    assert s.series.coverage.holes == []
    s.read(trade(1.6))
    assert s.series.too_late == {"1s": 1, "1m": 1}


def test_bars_of_trades() -> None:
    """They follow the places: late trades change nothing, and a new UTC day begins anew."""
    s = Scene("3t")
    s.read(trade(5, 1), trade(1, 9), trade(6, 2), trade(7, 3), Gap(5, 5, "x"), trade(8, 4), Gap(7, 9, "y"))
    chain = s.series.chains["3t"]
    (closed,) = chain.closed
    assert (closed.start, closed.first.price, closed.high, closed.last.price) == (T0 + 5 * SECOND, 1, 9, 2)
    assert (closed.count, closed.closed, closed.gaps, closed.first_offset) == (3, True, (), 1)
    assert [bar.rev for bar in chain.take()] == [4, 4]
    assert chain.take() == []
    s.read(trade(86_399), trade(86_400), trade(86_398), trade(86_401), Gap(14, 14, "z"))
    some = [(bar.count, bar.gaps, bar.first_offset, bar.last_offset) for bar in chain.closed]
    assert some[1:] == [(3, (Gap(5, 5, "x"), Gap(7, 9, "y")), 4, 10), (3, (), 11, 13)]
    s.read(trade(86_402), trade(2 * 86_400))
    some = [(bar.count, bar.gaps, bar.closed) for bar in chain.closed]
    assert some[3:] == [(1, (Gap(14, 14, "z"),), True)], "the day is over before it was full"


@pytest.mark.parametrize("name", ["1s", "4t", "40v"])
def test_a_trade_without_a_side_was_bought_by_nobody(name: str) -> None:
    """Nor is it counted as sold: `buyVolume` is what is known."""
    s = Scene(name)
    sides = {"1": "buy", "2": None, "4": "sell", "8": "buy"}
    s.read(*(trade(0.5, quantity=quantity, side=side) for quantity, side in sides.items()))
    bar = s.bars(name)[0] if name == "1s" else s.series.chains[name].bar or s.series.chains[name].closed[0]
    assert (bar.volume, bar.buy_volume) == (15, 9)
    s.read(trade(0.6, quantity="16"))
    last = s.bars(name)[0] if name == "1s" else s.series.chains[name].bar
    assert last is not None
    assert last.buy_volume == (0 if name == "4t" else 9)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_bars_of_a_volume(size: int) -> None:
    """The trade that reaches the limit belongs wholly to its bar, whatever the runs are."""
    s = Scene("10v")
    some = [trade(n, quantity=q) for n, q in enumerate(("4", "5.9", "0.1", "25", "9.99", "0.02", "1"))]
    for at in range(0, len(some), size):
        s.read(*some[at : at + size])
    chain = s.series.chains["10v"]
    assert [bar.volume for bar in chain.closed] == [Decimal("10.0"), 25, Decimal("10.01")]
    assert chain.bar is not None
    assert chain.bar.volume == 1


def test_closed_bars_of_a_chain_are_bounded() -> None:
    s = Scene("1t")
    s.read(*(trade(n / 100) for n in range(KEPT + 5)))
    assert len(s.series.chains["1t"].closed) == KEPT
    assert len(s.series.chains["1t"].take()) == KEPT


def test_a_bar_as_bytes() -> None:
    """Nothing is lost: digits, ties, gaps, and what it was told as."""
    bar = Bar.at(trade(1, side="buy", quantity="1.50"), 7, MINUTE)
    bar.gaps, bar.closed, bar.changes = (EARLY, LATE), True, 3
    read = unpack(pack(bar))
    assert read.candle("B-U", "1m") == bar.candle("B-U", "1m")
    assert str(read.volume) == "1.50"
    assert (read.first, read.last, read.rev) == (bar.first, bar.last, 5)
    for wrong in (b"", b"\x00", pack(bar)[:-1], pack(bar) + b"\x00"):
        with pytest.raises(ValueError, match="no bar"):
            unpack(wrong)


def test_all_levels_together_are_exact() -> None:
    """Ten minutes of real trades: each level is that of its trades alone."""
    for trades in SPOT_TRADES.values():
        names = {"1s": SECOND, "5s": 5 * SECOND, "1m": MINUTE, "15m": 15 * MINUTE, "1d": DAY}
        s = Scene(*names)
        for at in range(0, len(trades), 300):
            s.read(*trades[at : at + 300])
            s.settle()
        for name, width in names.items():
            expected = full_bars(trades, [width], lambda: 20_000)[width]
            assert all_figures(s.series.levels[name].bars) == all_figures(expected)
        assert not s.series.too_late


entries = st.lists(
    st.one_of(
        st.builds(
            trade, st.integers(0, 40).map(lambda n: n / 2), st.integers(1, 5), source=st.sampled_from("ab")
        ),
        st.just("gap"),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(entries, st.lists(st.integers(1, 9), max_size=30))
def test_runs_do_not_matter(items: Sequence[Trade | str], cuts: list[int]) -> None:
    """Whatever is read together: the same bars, gaps, revs and counts."""
    places: list[tuple[int, Trade | Gap]] = [
        (n, Gap(n, n, "source_gap") if item == "gap" else item)  # type: ignore[misc]
        for n, item in enumerate(items, 1)
    ]
    rules = evolve(RULES, revise_within=6 * SECOND)
    results = []
    for sizes in ([1] * len(places), cuts):
        s = Scene("1s", "5s", "3t", rules=rules)
        rest: Places = places
        while rest:
            size = sizes.pop() if sizes else len(rest)
            s.series.fold(rest[:size], NEVER)
            rest = rest[size:]
        s.settle()
        chain = s.series.chains["3t"]
        results.append(
            (
                {name: _values(level.bars) for name, level in s.series.levels.items()},
                [bar.candle("B-U", "3t") for bar in (*chain.closed, *([chain.bar] if chain.bar else []))],
                s.series.too_late,
            )
        )
    assert results[0] == results[1]


def _values(bars: Mapping[int, Bar]) -> dict[int, object]:
    return {start: bar.candle("B-U", "x") for start, bar in sorted(bars.items())}
