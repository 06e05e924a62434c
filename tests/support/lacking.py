"""The command line on a machine without a library."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = "import sys; sys.modules[{!r}] = None; from dataflow.cli import main; sys.exit(main())"


def without(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`dataflow WORDS` where `module` cannot be imported."""
    command = [sys.executable, "-c", _PROGRAM.format(module), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
