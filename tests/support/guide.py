"""The guide: where its texts are, and how it is built: once for all tests that read it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "dataflow" / "faces" / "guide"
BUILDING = GUIDE / "building"


def built(folder: Path) -> Path:
    """A guide, built as `make docs` does it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        [*command, "-f", str(BUILDING / "mkdocs.yml")],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def shared(factory: pytest.TempPathFactory) -> Path:
    """A guide that all workers of a run read. The first one that asks builds it."""
    own = factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with open(folder / "guide.lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        site = folder / "guide"
        if not site.exists():
            built(folder / "guide.begun").rename(site)
    return site
