"""The history on disk: bytes and CPU time of real trades, and questions over a hundred million.

In this process, without a daemon. The hundred million are blocks of a few runs, so that they are made in minutes.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import evolve

from dataflow.cache.archive import BarRow, Batch, Run
from dataflow.domain import Trade
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store

from ..plan import Bench, Figures, Scenario, Step
from .candles import trades

RECORDED = "ten minutes of real trades, a commit each 50 ms"
QUESTIONS = "questions"
INTERVAL = 50_000_000  # ns
BLOCK = 1_024  # entries
SYMBOLS = 100
BARS = 1_440
ASKED = 200  # times each
START = 1_732_665_600  # 2024-11-27
EVER = 1 << 60


def steps(bench: Bench) -> Iterator[Step]:
    if bench.wanted("dataflow"):
        yield Step(RECORDED, "dataflow", 4, _record)
        yield Step(
            QUESTIONS, "dataflow", 30 if bench.quick else 130, partial(_ask, 100 if bench.quick else 1_000)
        )


def _record() -> Figures:
    """Bytes a trade of the files at rest; microseconds of CPU time a trade, in the loop and in the thread."""
    with TemporaryDirectory() as folder:
        moment = START * 10**9
        store = Store(History(directory=folder), lambda: moment / 1e9)
        store.open()
        store.begin(1)
        lasts: dict[str, int] = defaultdict(int)
        loop = thread = 0.0
        every = sorted(trades(), key=lambda trade: trade.timestamp)
        at = 0
        while at < len(every):
            border = every[at].timestamp + INTERVAL
            places: dict[str, list[tuple[int, Trade]]] = defaultdict(list)
            while at < len(every) and every[at].timestamp < border:
                lasts[every[at].symbol] += 1
                places[every[at].symbol].append((lasts[every[at].symbol], every[at]))
                at += 1
            moment += INTERVAL
            begun = time.thread_time()
            batch = Batch([Run.of(symbol, run) for symbol, run in places.items()])
            packed = time.thread_time()
            store.append(batch)
            loop, thread = loop + packed - begun, thread + time.thread_time() - packed
        store.close(True)
        size = sum([path.stat().st_size for path in Path(folder).iterdir()])
    return {"bytes": size / at, "loop_us": loop / at * 1e6, "thread_us": thread / at * 1e6}


def _ask(blocks: int) -> Figures:
    """p50 and p99 of each question, ms; seconds of a warm start. 100 symbols of so many blocks each."""
    with TemporaryDirectory() as folder:
        store = Store(History(directory=folder), lambda: START + 3_600.0)
        store.open()
        store.begin(1)
        _fill(store, blocks)
        figures: Figures = {"rows": SYMBOLS * blocks * BLOCK}
        for name, ask in _questions(store, blocks).items():
            taken = sorted([_seconds(ask) * 1_000 for _ in range(ASKED)])
            figures[f"{name}_p50_ms"], figures[f"{name}_p99_ms"] = taken[ASKED // 2], taken[ASKED * 99 // 100]
        store.close(False)
        figures["warm_start_seconds"] = _seconds(lambda: _warm(store))
        store.close(False)
    return figures


def _questions(store: Store, blocks: int) -> dict[str, Callable[[], object]]:
    dice = random.Random(1)

    def place() -> int:
        return dice.randrange(blocks - 2) * BLOCK + dice.randrange(BLOCK)

    def bars() -> object:
        start = dice.randrange(BARS - 60)
        return store.bars(_name(dice.randrange(SYMBOLS)), 60, start, start + 60, 60)

    return {
        "latest_50": lambda: store.descending(_name(dice.randrange(SYMBOLS)), None, 50, EVER),
        "behind_1000": lambda: store.behind(_name(0), place(), 1_000),
        "after_1000": lambda: store.ascending(_name(0), _time(place()), 1_001, EVER),
        "bars_60": bars,
    }


def _fill(store: Store, blocks: int) -> None:
    """Real entries in what is asked for: all of the first symbol, and the newest blocks of the others."""
    template = _run(_name(1), 1)
    for block in range(blocks):
        first = block * BLOCK + 1
        moved = evolve(
            template,
            first=first,
            last=first + BLOCK - 1,
            earliest=_time(first),
            latest=_time(first + BLOCK - 1),
        )
        runs = [evolve(moved, symbol=_name(symbol)) for symbol in range(SYMBOLS)]
        runs[0] = _run(_name(0), first)
        if block >= blocks - 2:
            runs = [_run(_name(symbol), first) for symbol in range(SYMBOLS)]
        store.append(Batch(runs))
    for start in range(BARS):
        store.append(
            Batch(bars=[BarRow(_name(symbol), 60, start, 1, bytes(120)) for symbol in range(SYMBOLS)])
        )


def _run(symbol: str, first: int) -> Run:
    price, size = Decimal("61837.63"), Decimal("0.00017")
    return Run.of(
        symbol,
        [
            (place, Trade("a", symbol, str(place), "buy", price + place * 7 % 500, size, _time(place), place))
            for place in range(first, first + BLOCK)
        ],
    )


def _name(symbol: int) -> str:
    return f"S{symbol}-USD"


def _time(place: int) -> int:
    return START * 10**9 + place * 80_000_000


def _warm(store: Store) -> None:
    for symbol, stream in store.open().streams.items():
        store.newest(symbol, 1_000, stream.last + 1)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def told(figures: Figures) -> str:
    if "bytes" in figures:
        return (
            f"{figures['bytes']:.1f} bytes a trade, {figures['loop_us']:.1f} us in the loop, "
            f"{figures['thread_us']:.1f} us in the thread"
        )
    p99 = max([value for name, value in figures.items() if name.endswith("p99_ms")])
    return f"p99 at most {p99:.1f} ms, warm start {figures['warm_start_seconds']:.2f} s"


SCENARIO = Scenario("history", "the history on disk: bytes, CPU time, questions", (1, 1), steps, told)
