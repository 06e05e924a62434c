"""`bench`: the measurements live with the tests, in a checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .ends import Mistake


def bench(*arguments: str) -> int:
    """The measurements, from a checkout.

    Parameters
    ----------
    arguments
        Passed on to tests/bench.
    """
    checkout = Path(__file__).parents[2]
    if not (checkout / "tests" / "bench" / "__main__.py").exists():
        raise Mistake("the measurements are not part of the installed package; in a checkout: make bench")
    os.chdir(checkout)
    os.execv(sys.executable, [sys.executable, "-m", "tests.bench", *arguments])
