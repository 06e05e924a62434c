"""What a trade costs that is folded into candles: CPU time, in this process, of real trades in runs."""

from __future__ import annotations

import decimal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

from dataflow.domain import Trade
from dataflow.domain.candle import SECOND, CandleRules, interval
from dataflow.topics.candles import DIGITS, Bar
from dataflow.topics.coverage import NEVER
from dataflow.topics.series import Level, Series
from tests.support.real_trades import admitted, rows

from ..plan import Bench, Figures, Scenario, Step

SIZES = (1, 8, 64, 512)  # trades of one run
FOLD = "the fold of bars of a second alone"
ALL_FIELDS = "all fields, of a second"
RECORDED = "all fields, of a minute and an hour"
REPEATED = 5  # the median of so many passes


def work(what: str, size: int) -> str:
    return f"{what}, runs of {size}"


def steps(bench: Bench) -> Iterator[Step]:
    if not bench.wanted("dataflow"):
        return
    for size in SIZES:
        for what, passed in (
            (FOLD, _fold),
            (ALL_FIELDS, partial(_series, ("1s",))),
            (RECORDED, partial(_series, ("1m", "1h"))),
        ):
            yield Step(work(what, size), "dataflow", 1.0, partial(measure, passed, size))


def measure(fold: Callable[[Sequence[Sequence[tuple[int, Trade]]]], None], size: int) -> Figures:
    """Microseconds of CPU time a trade."""
    found = [trade for trade in trades() if trade.symbol == "BTCUSDT"]
    places = list(enumerate(found, 1))
    runs = [places[at : at + size] for at in range(0, len(places), size)]
    passes = []
    with decimal.localcontext(decimal.Context(prec=DIGITS)):
        for _ in range(REPEATED):
            begun = time.thread_time()
            fold(runs)
            passes.append((time.thread_time() - begun) / len(found) * 1e6)
    return {"us": sorted(passes)[REPEATED // 2]}


def _fold(runs: Sequence[Sequence[tuple[int, Trade]]]) -> None:
    bars: dict[int, Bar] = {}
    for run in runs:
        trades = [trade for _, trade in run]
        at = 0
        while at < len(trades):
            start = trades[at].timestamp // SECOND * SECOND
            if start in bars:
                at = bars[start].fold(trades, at)
            else:
                bars[start] = Bar.at(trades[at], at, SECOND)
                at += 1


def _series(names: Sequence[str], runs: Sequence[Sequence[tuple[int, Trade]]]) -> None:
    series = Series(CandleRules(), levels={name: Level(interval(name)) for name in names})
    for run in runs:
        series.fold(run, NEVER)
    series.settle()


@cache
def trades() -> Sequence[Trade]:
    """Ten minutes of two symbols."""
    return [admitted(row, row["symbol"]) for row in rows()]


def told(figures: Figures) -> str:
    return f"{figures['us']:.2f} us a trade"


SCENARIO = Scenario("candles", "CPU time of a trade that is folded into candles", (3, 1), steps, told)
