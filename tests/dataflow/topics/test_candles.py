"""Bars are exact, and the same in whatever order and in whatever runs the trades of a source come."""

from __future__ import annotations

import csv
import decimal
import gzip
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.domain import Trade
from dataflow.topics.candles import DAY, DIGITS, SECOND, Bar

DATA = Path(__file__).parents[2] / "data"
MINUTE = 60 * SECOND


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
            found[start] = Bar.of(trades[at], width)
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


def test_bars_of_an_exchange(recordings: Path) -> None:
    """Many trades against bars that other code made of them."""
    folder = recordings / "trades"
    for name, widths in (
        ("binance_spot_20240808_09", {"1s": SECOND, "1m": MINUTE}),
        ("binance_xrpeth_aggtrades_20191011", {"1m": MINUTE}),
    ):
        trades = trades_of(folder / f"{name}.csv.gz")
        for suffix, width in widths.items():
            (file,) = folder.glob(f"{name}_{suffix}.csv*")
            packed = file.read_bytes()
            text = (gzip.decompress(packed) if file.suffix == ".gz" else packed).decode()
            rows = list(csv.DictReader(text.splitlines()))
            made = {symbol: bars(each, width) for symbol, each in trades.items()}
            assert len(rows) == sum(map(len, made.values())) > 20
            for row in rows:
                bar = made[row["symbol"]][int(row["bucket_start_us"]) * 1000]
                told = [Decimal(row[key]) for key in ("open", "high", "low", "close", "volume")]
                assert figures(bar) == (*told, int(row["count"]))


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
                    in_runs[start] = Bar.of(run[at], width)
                    at += 1
        assert {start: figures(bar) for start, bar in in_runs.items()} == expected


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
    bar = Bar.of(first, SECOND)
    assert bar.fold([second]) == 1
    assert (bar.first.price, bar.last.price) == (opening, closing)


def test_a_window_begins_with_its_start_and_ends_before_its_end() -> None:
    """To the nanosecond, also before 1970."""
    for start in (0, 7 * SECOND, -SECOND):
        bar = Bar.of(trade(start + 1, 1), SECOND)
        assert (bar.start, bar.end) == (start, start + SECOND)
        assert bar.fold([trade(start, 2), trade(start + SECOND - 1, 3), trade(start + SECOND, 4)]) == 2
        assert bar.fold([trade(start - 1, 5)]) == 0
        assert figures(bar) == (2, 3, 1, 3, 3, 3)


def test_a_bound_below_the_end_of_the_window() -> None:
    """What is dated later is not taken."""
    bar = Bar.of(trade(1, 1), SECOND)
    assert bar.fold([trade(2, 2), trade(5, 9), trade(3, 3)], 0, 5) == 1
    assert bar.fold([trade(5, 9), trade(3, 3)], 1, 5) == 2
    assert figures(bar) == (1, 3, 1, 3, 3, 3)


def test_no_sum_of_what_connectors_accept_is_rounded() -> None:
    """The greatest quantity and the least one that they take, added up many times."""
    greatest, least = Decimal("9" * 40 + "." + "9" * 40 + "e99"), Decimal("0." + "0" * 39 + "1e-99")
    trades = [
        Trade("a", "B-U", None, None, Decimal(1), quantity, 1, None) for quantity in (greatest, least) * 5_000
    ]
    bar = Bar.of(trades[0], SECOND)
    bar.fold(trades, 1)
    assert Fraction(bar.volume) == 5_000 * (Fraction(greatest) + Fraction(least))
