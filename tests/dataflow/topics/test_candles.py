"""Bars are exact, and the same in whatever order and in whatever runs the trades of a source come."""

from __future__ import annotations

import csv
import decimal
import gzip
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.domain import Trade
from dataflow.topics.candles import DAY, DIGITS, SECOND, Bar, bars_of

DATA = Path(__file__).parents[2] / "data"
MINUTE = 60 * SECOND
SIDES: Final = ("buy", "sell", None)


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """The decimal context of the daemon; a rounded sum is an error."""
    with decimal.localcontext(decimal.Context(prec=DIGITS, traps=[decimal.Inexact])):
        yield


def trades_of(file: Path) -> dict[str, list[Trade]]:
    """The trades of a list in CSV, by symbol, in the order of their ids."""
    found: defaultdict[str, list[Trade]] = defaultdict(list)
    with gzip.open(file, "rt") as lines:
        for row in csv.DictReader(lines):
            number, moment = int(row["trade_id"]), int(row["timestamp_us"]) * 1000
            price, quantity = Decimal(row["price"]), Decimal(row["qty"])
            side = "buy" if row["side"] == "buy" else "sell"
            found[row["symbol"]].append(
                Trade("x", row["symbol"], str(number), side, price, quantity, moment, number)  # type: ignore[arg-type]
            )
    return found


def bars(trades: Sequence[Trade], width: int) -> dict[int, Bar]:
    """The bars of all windows, by their starts."""
    found: dict[int, Bar] = {}
    at = 0
    while at < len(trades):
        start = trades[at].timestamp // width * width
        if start in found:
            at = found[start].fold(trades, at)
        else:
            found[start] = Bar.at(trades[at], 1, width)
            at += 1
    return found


Figures = tuple[Decimal, Decimal, Decimal, Decimal, Decimal, int]


def figures(bar: Bar) -> Figures:
    return bar.first.price, bar.high, bar.low, bar.last.price, bar.volume, bar.count


def plainly(trades: Sequence[Trade], width: int) -> dict[int, Figures]:
    """The same in the most naive way: sorted, grouped, and added as fractions."""
    windows: defaultdict[int, list[Trade]] = defaultdict(list)
    for trade in sorted(trades, key=lambda trade: (trade.timestamp, trade.sequence)):
        windows[trade.timestamp - trade.timestamp % width].append(trade)
    made = {}
    for start, inside in windows.items():
        prices = [trade.price for trade in inside]
        volume = sum((Fraction(trade.quantity) for trade in inside), Fraction(0))
        total = Decimal(volume.numerator) / Decimal(volume.denominator)
        made[start] = (prices[0], max(prices), min(prices), prices[-1], total, len(inside))
    return made


@pytest.mark.parametrize("width", [SECOND, MINUTE, DAY])
def test_bars_of_real_trades(width: int) -> None:
    """Six minutes of two symbols, to the last digit. The midnight between two UTC days lies among them."""
    for trades in trades_of(DATA / "binance_spot_20240808_oracle.csv.gz").values():
        made = bars(trades, width)
        assert {start: figures(bar) for start, bar in made.items()} == plainly(trades, width)
        assert all(bar.start == start and bar.end == start + width for start, bar in made.items())


@pytest.mark.parametrize("seed", range(3))
def test_late_trades_change_nothing(seed: int) -> None:
    """Real trades, each late by up to three seconds: the bars are equal, ties included."""
    dice = random.Random(seed)
    for trades in trades_of(DATA / "binance_spot_20240808_oracle.csv.gz").values():
        shuffled = sorted(trades, key=lambda trade: trade.timestamp + dice.uniform(0, 3 * SECOND))
        assert shuffled != trades
        for width in (SECOND, MINUTE):
            assert {start: figures(bar) for start, bar in bars(shuffled, width).items()} == {
                start: figures(bar) for start, bar in bars(trades, width).items()
            }


def full_bars(
    trades: Sequence[Trade], widths: Sequence[int], run: Callable[[], int]
) -> dict[int, dict[int, Bar]]:
    """The full bars of trades that come in runs of so many, by width and start: widths together, by merging."""
    found: dict[int, dict[int, Bar]] = {width: {} for width in widths}
    at = high = 0
    while at < len(trades):
        some = trades[at : at + run()]
        places = range(at + 1, at + 1 + len(some))
        parts, high = bars_of(some, places, widths[0], high, 2 * SECOND, float("inf"))
        for bar, _ in parts:
            for width, made in found.items():
                start = bar.start // width * width
                if start in made:
                    made[start].merge(bar)
                else:
                    made[start] = bar.in_window(width)
        at += len(some)
    assert high == max(trade.timestamp for trade in trades)
    return found


def rows_of(file: Path) -> dict[str, dict[int, tuple[object, ...]]]:
    """All fields of the bars in a list that other code made, by symbol and start."""
    found: defaultdict[str, dict[int, tuple[object, ...]]] = defaultdict(dict)
    keys = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume")
    text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    for row in csv.DictReader(text.decode().splitlines()):
        start = int(row["bucket_start_us"]) * 1000
        found[row["symbol"]][start] = (*(Decimal(row[key]) for key in keys), int(row["count"]))
    return found


def all_figures(bars: Mapping[int, Bar]) -> dict[int, tuple[object, ...]]:
    return {
        start: (*figures(bar)[:5], bar.quote_volume, bar.buy_volume, bar.count) for start, bar in bars.items()
    }


SPOT = "binance_spot_20240808_09"
ORACLES = {SECOND: rows_of(DATA / f"{SPOT}_1s.csv.gz"), MINUTE: rows_of(DATA / f"{SPOT}_1m.csv")}
SPOT_TRADES = trades_of(DATA / f"{SPOT}.csv.gz")


@pytest.mark.parametrize("size", [1, 64, 10_000])
def test_every_field_of_every_bar_of_an_exchange(size: int) -> None:
    """Ten minutes of two symbols against bars that other code made of them, whatever the runs are."""
    for symbol, trades in SPOT_TRADES.items():
        made = full_bars(trades, [SECOND, MINUTE], lambda: size)
        for width, oracle in ORACLES.items():
            assert all_figures(made[width]) == oracle[symbol]
            inside: defaultdict[int, list[int]] = defaultdict(list)
            for place, trade in enumerate(trades, 1):
                inside[trade.timestamp // width * width].append(place)
            assert {start: (bar.first_offset, bar.last_offset) for start, bar in made[width].items()} == {
                start: (places[0], places[-1]) for start, places in inside.items()
            }
    assert sum(map(len, ORACLES[SECOND].values())) > 1_000


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32))
def test_trades_that_are_late_change_no_field(seed: int) -> None:
    """The same of trades in another order, each late by up to two seconds, in runs of any length."""
    dice = random.Random(seed)
    with decimal.localcontext(decimal.Context(prec=DIGITS, traps=[decimal.Inexact])):
        for symbol, trades in SPOT_TRADES.items():
            shuffled = sorted(trades, key=lambda trade: trade.timestamp + dice.uniform(0, 2 * SECOND))
            made = full_bars(shuffled, [SECOND, MINUTE], lambda: dice.choice((1, 7, 64, 500)))
            for width, oracle in ORACLES.items():
                assert all_figures(made[width]) == oracle[symbol]


def test_bars_of_another_exchange(recordings: Path) -> None:
    """Two days of another symbol, with quiet stretches."""
    name = "trades/binance_xrpeth_aggtrades_20191011"
    ((symbol, trades),) = trades_of(recordings / f"{name}.csv.gz").items()
    made = full_bars(trades, [MINUTE], lambda: 100)[MINUTE]
    assert all_figures(made) == rows_of(recordings / f"{name}_1m.csv")[symbol]


moments = st.integers(0, 5) | st.integers(0, 3 * SECOND)
decimals = st.builds(lambda n, e: Decimal(f"{n}E{e}"), st.integers(1, 10**18), st.integers(-99, 99))


@st.composite
def streams(draw: st.DrawFn) -> list[Trade]:
    """Trades of one source, in any order, with few different times and any digits."""
    count = draw(st.integers(1, 30))
    order = draw(st.permutations(range(count)))
    return [Trade("a", "B-U", str(n), "buy", draw(decimals), draw(decimals), draw(moments), n) for n in order]


@settings(max_examples=150, deadline=None)
@given(streams(), st.integers(1, 2 * SECOND), st.lists(st.integers(1, 9), max_size=9))
def test_neither_order_nor_runs_matter(trades: list[Trade], width: int, cuts: list[int]) -> None:
    """A bar is that of its trades, whatever came when and together with what."""
    with decimal.localcontext(decimal.Context(prec=DIGITS, traps=[decimal.Inexact])):
        expected = plainly(trades, width)
        assert {start: figures(bar) for start, bar in bars(trades, width).items()} == expected
        in_runs: dict[int, Bar] = {}
        rest = trades
        while rest:
            run, rest = rest[: (size := cuts.pop() if cuts else 2)], rest[size:]
            at = 0
            while at < len(run):
                start = run[at].timestamp // width * width
                if start in in_runs:
                    at = in_runs[start].fold(run, at)
                else:
                    in_runs[start] = Bar.at(run[at], 1, width)
                    at += 1
        assert {start: figures(bar) for start, bar in in_runs.items()} == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["1", "1.0", "3"]), st.sampled_from(["2", "0.5"]), st.sampled_from(SIDES)),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 7),
)
def test_sums_of_trades_of_one_price_in_a_row(
    items: Sequence[tuple[str, str, Literal["buy", "sell"] | None]], size: int
) -> None:
    """What is summed up together, and where a run is cut, changes no sum. Only trades that bought are bought."""
    some = [Trade("a", "B-U", None, side, Decimal(p), Decimal(q), 5, None) for p, q, side in items]
    with decimal.localcontext(decimal.Context(prec=DIGITS, traps=[decimal.Inexact])):
        bar = Bar.at(some[0], 1, SECOND)
        at = 1
        while at < len(some):
            run = some[: at + size]
            at = bar.fold_at(run, range(1, len(run) + 1), at, float("inf"))
        assert bar.count == len(some)
        assert bar.volume == sum(each.quantity for each in some)
        assert bar.quote_volume == sum(each.price * each.quantity for each in some)
        assert bar.buy_volume == sum(each.quantity for each in some if each.side == "buy")
        assert (bar.high, bar.low) == (max(e.price for e in some), min(e.price for e in some))
        assert (bar.first_place, bar.last_place, bar.last_offset) == (1, len(some), len(some))


def trade(moment: int, price: int, *, source: str = "a", sequence: int | None = None) -> Trade:
    return Trade(source, "B-U", None, None, Decimal(price), Decimal(1), moment, sequence)


@pytest.mark.parametrize(
    ("first", "second", "opening", "closing"),
    [
        (trade(5, 1, sequence=8), trade(5, 2, sequence=7), 2, 1),
        (trade(5, 1, sequence=7), trade(5, 2, sequence=8), 1, 2),
        (trade(5, 1), trade(5, 2), 1, 2),
        (trade(5, 1, sequence=8), trade(5, 2), 1, 2),
        (trade(5, 1, sequence=8), trade(5, 2, source="b", sequence=7), 1, 2),
    ],
)
def test_ties(first: Trade, second: Trade, opening: int, closing: int) -> None:
    """The sequence decides within a source that has one, else what came first."""
    bar = Bar.at(first, 1, SECOND)
    assert bar.fold([second]) == 1
    assert (bar.first.price, bar.last.price) == (opening, closing)


def test_a_window_begins_with_its_start_and_ends_before_its_end() -> None:
    """To the nanosecond, also before 1970."""
    for start in (0, 7 * SECOND, -SECOND):
        bar = Bar.at(trade(start + 1, 1), 1, SECOND)
        assert (bar.start, bar.end) == (start, start + SECOND)
        assert bar.fold([trade(start, 2), trade(start + SECOND - 1, 3), trade(start + SECOND, 4)]) == 2
        assert bar.fold([trade(start - 1, 5)]) == 0
        assert figures(bar) == (2, 3, 1, 3, 3, 3)


def test_a_bound_below_the_end_of_the_window() -> None:
    """What is dated later is not taken."""
    bar = Bar.at(trade(1, 1), 1, SECOND)
    assert bar.fold([trade(2, 2), trade(5, 9), trade(3, 3)], 0, 5) == 1
    assert bar.fold([trade(5, 9), trade(3, 3)], 1, 5) == 2
    assert figures(bar) == (1, 3, 1, 3, 3, 3)


def test_no_sum_of_what_connectors_accept_is_rounded() -> None:
    """The greatest quantity and the least one that they take, added up many times."""
    greatest, least = Decimal("9" * 40 + "." + "9" * 40 + "e99"), Decimal("0." + "0" * 39 + "1e-99")
    trades = [
        Trade("a", "B-U", None, None, Decimal(1), quantity, 1, None) for quantity in (greatest, least) * 5_000
    ]
    bar = Bar.at(trades[0], 1, SECOND)
    bar.fold(trades, 1)
    assert Fraction(bar.volume) == 5_000 * (Fraction(greatest) + Fraction(least))


def test_no_product_of_what_connectors_accept_is_rounded() -> None:
    """The greatest price times the greatest quantity, and the least times the least, in one sum."""
    greatest, least = Decimal("9" * 40 + "." + "9" * 40 + "e99"), Decimal("0." + "0" * 39 + "1e-99")
    trades = [
        Trade("a", "B-U", None, "buy", price, price, 1, None)
        for price in (greatest, least)
        for _ in range(99)
    ]
    ((bar, _),) = bars_of(trades, range(1, 199), SECOND, 0, 0, float("inf"))[0]
    assert Fraction(bar.quote_volume) == 99 * (Fraction(greatest) ** 2 + Fraction(least) ** 2)
    assert Fraction(bar.buy_volume) == 99 * (Fraction(greatest) + Fraction(least))


def test_a_late_trade_has_a_bar_of_its_own() -> None:
    """With the highest time before it, so that it is known how late it was. Those dated too far have none."""
    some = [trade(1, 1), trade(9, 2), trade(8, 3), trade(2, 4), trade(3, 5), trade(99, 6)]
    parts, high = bars_of(some, range(1, 7), 2, 0, 3, 50)
    assert high == 9
    assert [(bar.start, bar.count, since) for bar, since in parts] == [
        (0, 1, 0),
        (8, 2, 1),
        (2, 2, 9),
    ]


@pytest.mark.parametrize("lower_place_first", [True, False])
def test_ties_between_bars(lower_place_first: bool) -> None:
    """Of two sources the lower place decides, whichever bar is merged into the other; of one the sequence."""
    one = Bar.at(trade(5, 1, source="a", sequence=9), 3, SECOND)
    other = Bar.at(trade(5, 2, source="b", sequence=1), 4, SECOND)
    into, what = (one, other) if lower_place_first else (other, one)
    into.merge(what)
    assert (into.first.price, into.last.price, into.count) == (1, 2, 2)
    assert (into.first_offset, into.last_offset) == (3, 4)
    late = Bar.at(trade(5, 3, source="a", sequence=8), 9, SECOND)
    late.merge(Bar.at(trade(5, 1, source="a", sequence=9), 3, SECOND))
    assert (late.first.price, late.last.price) == (3, 1)
