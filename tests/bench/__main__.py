"""`python -m tests.bench [--quick] [--only SERVER]... [NAME]...`: measures this daemon and its peers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import compiled
from .machine import Cores
from .plan import Bench, carry_out
from .processes import raise_file_limit
from .scenarios import ALL
from .servers import CHECKOUT


def main(words: Sequence[str]) -> int:
    """0: everything that could run did, whatever came out; 1: a mistake of the user's; 2: something failed."""
    options = _options(words)
    known = {scenario.name: scenario for scenario in ALL}
    if unknown := [name for name in options.names if name not in known]:
        print(f"there is no measurement {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 1
    raise_file_limit()
    compiled.program("wsload")
    bench = Bench(Cores.of_this_machine(), options.checkout, options.quick, frozenset(options.only))
    carry_out(bench, [known[name] for name in options.names or known])
    for line in bench.failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 2 if bench.failed else 0


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which measurements; without a name, all")
    parser.add_argument("--quick", action="store_true", help="one round, in a few minutes")
    parser.add_argument("--only", action="append", default=[], metavar="SERVER", help="only this server")
    parser.add_argument("--checkout", type=Path, default=CHECKOUT, help="where the measured daemon is")
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
