"""`bench`: runs the measurements in their own process. They are part of the tests and need a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .ends import Mistake

CHECKOUT = Path(__file__).parents[2]


def bench(
    *names: str, quick: bool = False, only: list[str] | None = None, write: bool = False, render: bool = False
) -> int:
    """Measure this daemon and its peers in one run.

    Needs a checkout, and if possible an idle machine.

    Parameters
    ----------
    names
        Measurements to run. [default: all]
    quick
        One round, in a few minutes.
    only
        Only this server; may be repeated.
    write
        Write tests/bench/README.md also after a partial run.
    render
        Measure nothing; write tests/bench/README.md from the stored figures.
    """
    if not (CHECKOUT / "tests" / "bench" / "__main__.py").exists():
        raise Mistake("the measurements are not part of the installed package; in a checkout: make bench")
    flags = {"--quick": quick, "--write": write, "--render": render}
    words = [*names, *(flag for flag, given in flags.items() if given)]
    words += [word for server in only or () for word in ("--only", server)]
    return _run([sys.executable, "-m", "tests.bench", *words])


def _run(command: list[str]) -> int:
    """The exit code of the command. Ctrl-C reaches the command too, and it then ends all its programs."""
    child = subprocess.Popen(command, cwd=CHECKOUT)
    try:
        return child.wait()
    except KeyboardInterrupt:
        return child.wait(60)
