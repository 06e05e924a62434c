"""`bench`: the measurements live with the tests, in a checkout; each is a script of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .ends import Failure, Mistake

SCRIPTS = Path(__file__).parents[2] / "tests" / "bench"


def bench(*names: str) -> None:
    """The measurements, from a checkout, one after the other; best on a machine that does nothing else.

    Parameters
    ----------
    names
        Which ones; without a name, all.
    """
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(SCRIPTS.glob("bench_*.py"))}
    if not scripts:
        raise Mistake("the measurements are not part of the installed package; in a checkout: make bench")
    for name in names:
        if name not in scripts:
            raise Mistake(f"there is no measurement {name!r}; there are {', '.join(scripts)}")
    for name in names or scripts:
        print(f"== {name}", flush=True)
        if code := subprocess.run([sys.executable, scripts[name]], cwd=SCRIPTS.parents[1]).returncode:
            raise Failure(f"the measurement {name!r} ended with exit code {code}")
