"""`python -m tests.bench.compare --before DIR --after DIR [NAME]...`: two checkouts of the daemon, measured in turn.

Rules of this file: the machine drifts, so a ratio is taken within a pair of runs that follow each other, and every
second pair runs in the opposite order. Of the two daemons only the command line, the configuration and the wire are
used: their modules may differ. Load clients and scenarios are those of this checkout.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from . import compiled, servers
from .aims import OURS, shown
from .compiled import BUILD, Missing
from .machine import Cores, commit, description
from .plan import Bench, Figures, Progress, Row, troubles
from .processes import ProgramFailed, raise_file_limit
from .results import Results, Spread
from .scenarios import ingest, memory, rates, saturation

BEFORE, AFTER = "before", "after"
KEPT = BUILD / "compare.json"
LEVEL = 0.95  # of the intervals
_PAIRS, _WINDOW = 10, 3.0  # seconds
_BACKLOG = 1_000_000  # deliveries a second that are due at saturation; one core sends far fewer, one by one
_SESSIONS = 2_000


@frozen
class Compared:
    """A figure to compare. `more`: a larger figure is better."""

    name: str
    about: str
    more: bool = False


@frozen
class Measure:
    """A piece of work. `run` gets the window in seconds. `unfit` says why a run did not serve its purpose, or nothing."""

    name: str
    seconds: float  # of a run, besides its window
    run: Callable[[Bench, float], Figures]
    figures: tuple[Compared, ...]
    unfit: Callable[[Figures], str] = lambda _figures: ""


def _saturation(clients: int) -> Measure:
    def run(bench: Bench, seconds: float) -> Figures:
        return saturation.dataflow(bench, clients, seconds, _BACKLOG / clients)

    def unfit(figures: Figures) -> str:
        return "no backlog" if figures["share"] > rates.IN_TIME else ""

    figures = Compared("per_second", "deliveries/s", more=True), Compared("cpu", "CPU s a million deliveries")
    return Measure(f"saturation-{clients}", 4 + clients / 2_000, run, figures, unfit)


def _rates(bench: Bench, seconds: float) -> Figures:
    return rates.measure(bench, OURS, rates.CLIENTS, 5_000, seconds)


def _overloaded(figures: Figures) -> str:
    return "overloaded" if figures["share"] < rates.IN_TIME else ""


def _ingest(bench: Bench, seconds: float) -> Figures:
    return ingest.dataflow(bench, 1, seconds, "binance")


def _memory(bench: Bench, _seconds: float) -> Figures:
    return memory.measure(bench, OURS, _SESSIONS, "")


MEASURES = (
    _saturation(1_000),
    _saturation(5_000),
    Measure(
        "rates",
        4,
        _rates,
        (
            Compared("p50_ms", "p50, ms"),
            Compared("p99_ms", "p99, ms"),
            Compared("cpu", "CPU s a million deliveries"),
        ),
        _overloaded,
    ),
    Measure(
        "ingest",
        4,
        _ingest,
        (Compared("per_second", "trades/s", more=True), Compared("cpu", "CPU s a million trades")),
    ),
    Measure(
        "memory",
        5,
        _memory,
        (
            Compared("kib", "KiB a session"),
            Compared("connect_seconds", f"s until {_SESSIONS:,} more are connected"),
            Compared("connect_cpu", "CPU s of it"),
        ),
    ),
)


# -- order, ratios and intervals ----------------------------------------------------------------------


def order(pair: int) -> tuple[str, str]:
    """ABBA: drift that is linear over two pairs cancels out."""
    return (BEFORE, AFTER) if pair % 2 == 0 else (AFTER, BEFORE)


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """The confidence interval of the median, between two of the values.

    It follows from ranks alone, so no distribution is assumed. None when there are too few values for the level: 95 %
    needs six.
    """
    found, outside, reached = sorted(values), 0.0, None
    for rank in range(len(found) // 2):
        outside += math.comb(len(found), rank) / 2 ** len(found)  # on one side
        if 1 - 2 * outside < level:
            break
        reached = found[rank], found[-1 - rank]
    return reached


def verdict(figure: Compared, bounds: tuple[float, float] | None) -> str:
    """`better` or `worse` when the interval of the ratio leaves out 1."""
    if bounds is None:
        return "too few pairs"
    if bounds[0] <= 1 <= bounds[1]:
        return "no difference shown"
    return "better" if (bounds[0] > 1) is figure.more else "worse"


def table(results: Results, measures: Sequence[Measure]) -> str:
    """Columns for the terminal: the medians of both, the median of the ratios, its interval, the verdict."""
    rows = [("", "before", "after", "after/before", f"{LEVEL:.0%} interval", "")]
    for measure in measures:
        for figure in measure.figures:
            rows += _line(results, measure, figure)
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(_padded(row, widths) for row in rows)


def _line(results: Results, measure: Measure, figure: Compared) -> Iterator[tuple[str, ...]]:
    name = measure.name
    ratios = results.ratios(name, figure.name, (name, AFTER), (name, BEFORE))
    middle = Spread.of(ratios)
    before, after = (results.median(name, name, side, figure.name) for side in (BEFORE, AFTER))
    if middle is None or before is None or after is None:
        return
    bounds = interval(ratios)
    told = "-" if bounds is None else f"{bounds[0]:.3f} … {bounds[1]:.3f}"
    about = f"{name}: {figure.about}"
    yield about, shown(before), shown(after), f"{middle.median:.3f}", told, verdict(figure, bounds)


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (f"{cell:{'<' if n == 0 else '>'}{widths[n]}}" for n, cell in enumerate(row[:-1]))
    return "  ".join((first, *rest, row[-1])).rstrip()


def prepared(figures: Figures, seconds: float) -> Figures:
    """With CPU seconds a million updates, and the wall time of the whole run."""
    more = {"run_seconds": seconds}
    if figures.get("per_cpu_second"):
        more["cpu"] = 1e6 / figures["per_cpu_second"]
    return {**figures, **more}


# -- running ------------------------------------------------------------------------------------------


class Comparison:
    """Runs the pairs. Keeps the rows, the failures, and the number of runs that did not serve their purpose."""

    def __init__(
        self, benches: dict[str, Bench], measures: Sequence[Measure], pairs: int, window: float
    ) -> None:
        self._benches, self._measures, self._pairs, self._window = benches, measures, pairs, window
        self.results = Results()
        self.failed: list[str] = []
        self.unfit: dict[str, int] = {}

    def carry_out(self) -> None:
        """All pairs. A pair whose run fails is left out of the ratios."""
        todo = [
            (pair, measure, side)
            for pair in range(self._pairs)
            for measure in self._measures
            for side in order(pair)
        ]
        progress = Progress([measure.seconds + self._window for _pair, measure, _side in todo])
        for pair, measure, side in todo:
            progress.begin(f"pair {pair + 1}, {measure.name}: {side}")
            begun = time.monotonic()
            told = self._run(pair, measure, side)
            progress.end(told, time.monotonic() - begun)

    def _run(self, pair: int, measure: Measure, side: str) -> str:
        begun = time.monotonic()
        try:
            figures = measure.run(self._benches[side], self._window)
        except (ProgramFailed, OSError, KeyError, ValueError) as error:
            self.failed.append(f"pair {pair + 1}, {measure.name}, {side}: {type(error).__name__}: {error}")
            return f"FAILED: {error}"
        figures = prepared(figures, time.monotonic() - begun)
        self.results.rows.append(Row(measure.name, measure.name, side, pair, figures))
        unfit = measure.unfit(figures)
        if unfit:
            what = f"{measure.name}, {side}: {unfit}"
            self.unfit[what] = self.unfit.get(what, 0) + 1
        told = ", ".join(f"{shown(figures[each.name])} {each.about}" for each in measure.figures)
        return told + (f", {unfit.upper()}" if unfit else "") + troubles(figures)

    def told(self) -> str:
        """The table, and everything that a reader of the table must know."""
        lines = [table(self.results, self._measures), ""]
        for measure in self._measures:
            before, after = (
                self.results.median(measure.name, measure.name, side, "run_seconds")
                for side in (BEFORE, AFTER)
            )
            if before is not None and after is not None:
                lines.append(f"{measure.name}: wall time of a run {before:.1f} s before, {after:.1f} s after")
        lines += [f"{what} in {times} of {self._pairs} runs" for what, times in self.unfit.items()]
        return "\n".join(lines)


def origin(checkout: Path) -> Path:
    """The package that `python -m dataflow` runs in a checkout. Raises Missing when it is not the checkout's own."""
    if not checkout.is_dir():
        raise Missing(f"{checkout} is not a folder")
    if servers.interpreter(checkout) == Path(sys.executable) and checkout != servers.CHECKOUT:
        raise Missing(f"{checkout} has no environment (make -C {checkout} test ARGS='--co -q' makes one)")
    script = "import importlib.util as u; print(u.find_spec('dataflow').origin)"
    command = [str(servers.interpreter(checkout)), "-c", script]
    told = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    found = Path(told.stdout.strip() or ".").resolve()
    if told.returncode or not found.is_relative_to(checkout):
        raise Missing(
            f"{checkout} does not run its own package, but {found if told.stdout.strip() else 'none'}"
        )
    return found


def main(words: Sequence[str]) -> int:
    """Exit code 0: all pairs ran. 1: wrong arguments, or a machine that cannot measure. 2: a run failed."""
    options = _options(words)
    measures = _chosen(options.names)
    if unknown := [name for name in options.names if not any(_named(measure, name) for measure in MEASURES)]:
        known = ", ".join(measure.name for measure in MEASURES)
        print(f"no measure {', '.join(unknown)}; known are {known}", file=sys.stderr)
        return 1
    checkouts = {BEFORE: options.before.resolve(), AFTER: options.after.resolve()}
    raise_file_limit()
    try:
        compiled.program("wsload")
        for checkout in checkouts.values():
            origin(checkout)
    except (Missing, OSError) as why:
        print(f"nothing can be measured: {why}", file=sys.stderr)
        return 1
    cores, machine = Cores.of_this_machine(), description()
    benches = {side: Bench(cores, checkout) for side, checkout in checkouts.items()}
    for side, checkout in checkouts.items():
        print(f"{side}: {checkout}, {commit(checkout)}")
    print(f"{options.pairs} pairs; load {machine['load_before']} before", flush=True)
    comparison = Comparison(benches, measures, options.pairs, options.seconds)
    try:
        comparison.carry_out()
    finally:  # also after an interruption: the pairs so far are worth something
        run = {"machine": machine, **{side: commit(checkout) for side, checkout in checkouts.items()}}
        comparison.results.runs = {measure.name: run for measure in measures}
        comparison.results.save(KEPT)
        print(f"\n{comparison.told()}\nall figures: {KEPT}")
    for line in comparison.failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 2 if comparison.failed else 0


def _named(measure: Measure, name: str) -> bool:
    return measure.name == name or measure.name.startswith(f"{name}-")


def _chosen(names: Sequence[str]) -> list[Measure]:
    return [measure for measure in MEASURES if not names or any(_named(measure, name) for name in names)]


def _options(words: Sequence[str]) -> argparse.Namespace:
    def count(text: str) -> int:
        if int(text) < 1:
            raise ValueError
        return int(text)

    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare")
    known = ", ".join(measure.name for measure in MEASURES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{known}; without a name, all")
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="a checkout with a .venv")
    parser.add_argument("--after", type=Path, default=servers.CHECKOUT, metavar="DIR", help="another one")
    parser.add_argument(
        "--pairs", type=count, default=_PAIRS, help=f"{_PAIRS} by default; at least 6 for an interval"
    )
    parser.add_argument(
        "--seconds", type=float, default=_WINDOW, help="length of the measured window of a run"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is ended", file=sys.stderr)
        sys.exit(130)
