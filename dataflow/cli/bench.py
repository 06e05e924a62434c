"""`bench`: the measurements live with the tests, in a checkout, and run in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .ends import Mistake

CHECKOUT = Path(__file__).parents[2]


def bench(
    *names: str, quick: bool = False, only: list[str] | None = None, write: bool = False, render: bool = False
) -> int:
    """This daemon and its peers, side by side; from a checkout, best on a machine that does nothing else.

    Parameters
    ----------
    names
        Which measurements; without a name, all.
    quick
        One round, in a few minutes.
    only
        Only this server; may be repeated.
    write
        Write the README also when it is not a full run.
    render
        Measure nothing; write the README from what is kept.
    """
    if not (CHECKOUT / "tests" / "bench" / "__main__.py").exists():
        raise Mistake("the measurements are not part of the installed package; in a checkout: make bench")
    flags = {"--quick": quick, "--write": write, "--render": render}
    words = [*names, *(flag for flag, given in flags.items() if given)]
    words += [word for server in only or () for word in ("--only", server)]
    return _run([sys.executable, "-m", "tests.bench", *words])


def _run(command: list[str]) -> int:
    """Its exit code. Ctrl-C reaches it, too, and it then ends what it has started."""
    child = subprocess.Popen(command, cwd=CHECKOUT)
    try:
        return child.wait()
    except KeyboardInterrupt:
        return child.wait(60)
