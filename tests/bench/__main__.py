"""`python -m tests.bench [--quick] [NAME]...`: measures this daemon and its peers in one run, in turn."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from . import compiled, peers, report
from .aims import OURS
from .compiled import BUILD, Missing
from .machine import Cores, commit, description
from .plan import Bench, Scenario, carry_out
from .processes import raise_file_limit
from .results import Results
from .scenarios import ALL
from .servers import CHECKOUT

FOLDER = Path(__file__).parent
FIGURES = FOLDER / "results" / "figures.json"
_FILES = 12_000  # ten thousand clients, and some more
_MICRO = {path.stem.removeprefix("bench_"): path for path in sorted(FOLDER.glob("bench_*.py"))}


def main(words: Sequence[str]) -> int:
    """Exit code 0: all measurements ran (aims may be missed). 1: wrong arguments, or a machine that cannot measure. 2: a failure."""
    options = _options(words)
    if unknown := [name for name in options.names if name not in {*_names(), *_MICRO}]:
        print(f"no measurement {', '.join(unknown)}; known are {', '.join(_names())}", file=sys.stderr)
        print(f"and, for single parts, {', '.join(_MICRO)}", file=sys.stderr)
        return 1
    servers = {*peers.PEERS, *peers.READERS, peers.JOINING, peers.STRAWBERRY, peers.CACHING, OURS}
    if strangers := set(options.only) - servers:
        print(
            f"no server {', '.join(strangers)}; known are {', '.join(sorted(servers))}",
            file=sys.stderr,
        )
        return 1
    if options.render:
        return _render()
    if options.names and all(name in _MICRO for name in options.names):
        return max(_micro(name) for name in options.names)
    return _measure(options)


def _measure(options: argparse.Namespace) -> int:
    if sys.platform != "linux":
        print(
            "nothing can be measured: the load client needs Linux (epoll, /proc, pinning to cores)",
            file=sys.stderr,
        )
        return 1
    if raise_file_limit() < _FILES:
        print(f"storms need {_FILES:,} open files in a process: ulimit -n {_FILES}", file=sys.stderr)
    try:
        compiled.program("wsload")
    except Missing as why:
        print(f"nothing can be measured: {why}", file=sys.stderr)
        return 1
    bench = Bench(Cores.of_this_machine(), options.checkout, options.quick, frozenset(options.only))
    chosen = [scenario for scenario in ALL if not options.names or scenario.name in options.names]
    machine, begun = description(), time.monotonic()
    _announce(bench, chosen, machine["cores"])
    peers.prepare(bench)
    carry_out(bench, chosen)
    results = _results(bench, chosen, machine)
    print(f"\n{report.aims(results)}\n\n{time.monotonic() - begun:.0f} s in all")
    for what, reason in results.missing.items():
        print(f"missing: {what}: {reason}")
    for line in bench.failed:
        print(f"FAILED: {line}", file=sys.stderr)
    _keep(results, options, failed=bool(bench.failed))
    micro = [_micro(name) for name in options.names if name in _MICRO]
    return 2 if bench.failed else max(micro, default=0)


def _announce(bench: Bench, chosen: Sequence[Scenario], cores: int) -> None:
    rounds = 1 if bench.quick else max(scenario.rounds[0] for scenario in chosen)
    print(f"{', '.join(scenario.name for scenario in chosen)}; {rounds} round(s)", flush=True)
    if cores < 2:
        print("only one core: server and clients share it, so the figures are not those of real use")
    if os.getloadavg()[0] > 0.5:
        print(
            f"this machine is busy (load {os.getloadavg()[0]:.2f}): the figures will be lower and less stable"
        )


def _results(bench: Bench, chosen: Sequence[Scenario], machine: dict[str, object]) -> Results:
    run = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "versions": peers.versions(),
        "dataflow": commit(bench.checkout),
        "quick": bench.quick,
    }
    return Results(bench.rows, {scenario.name: run for scenario in chosen}, bench.missing)


def _keep(results: Results, options: argparse.Namespace, *, failed: bool) -> None:
    """Full runs of this checkout go into the README. Other runs stay in the build folder: they are not for publication."""
    whole = not (options.names or options.only or options.quick or failed) and options.checkout == CHECKOUT
    if not (whole or options.write):
        results.save(BUILD / "figures.json")
        print(
            f"kept in {BUILD / 'figures.json'}; {report.README.relative_to(CHECKOUT)} stays as it is (--write changes it)"
        )
        return
    kept = Results.load(FIGURES)
    kept.replace(results)
    kept.save(FIGURES)
    _render()


def _render() -> int:
    """Write the README of this folder and its pictures from the kept figures."""
    results = Results.load(FIGURES)
    report.into(report.README, results)
    command = [peers.python(), "-m", "tests.bench.pictures", FIGURES, FIGURES.parent]
    beside = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}  # the scenarios import the daemon
    drawn = subprocess.run([str(word) for word in command], cwd=CHECKOUT, check=False, env=beside)
    print(
        f"{report.README.relative_to(CHECKOUT)} and its pictures are written"
        if drawn.returncode == 0
        else "the pictures could not be drawn"
    )
    return 2 if drawn.returncode else 0


def _micro(name: str) -> int:
    print(f"== {name}", flush=True)
    return (
        2 if subprocess.run([sys.executable, str(_MICRO[name])], cwd=CHECKOUT, check=False).returncode else 0
    )


def _names() -> list[str]:
    return [scenario.name for scenario in ALL]


def _options(words: Sequence[str]) -> argparse.Namespace:
    about = "\n".join(f"  {scenario.name:11} {scenario.about}" for scenario in ALL)
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"measurements:\n{about}\nof single parts, run only by name: {', '.join(_MICRO)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which measurements; without a name, all")
    parser.add_argument("--quick", action="store_true", help="one round, in a few minutes")
    parser.add_argument(
        "--only", action="append", default=[], metavar="SERVER", help="only this server; may be repeated"
    )
    parser.add_argument(
        "--write", action="store_true", help="write tests/bench/README.md also after a run that is not full"
    )
    parser.add_argument(
        "--render",
        action="store_true",
        help="measure nothing; write tests/bench/README.md from the kept figures",
    )
    parser.add_argument("--checkout", type=Path, default=CHECKOUT, help="the checkout of the measured daemon")
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is ended", file=sys.stderr)
        sys.exit(130)
