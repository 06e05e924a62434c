"""The machine of the measurement: its cores, and its description for the readers of the figures."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from attrs import frozen


@frozen
class Cores:
    """The cores of server, load client and feed. With one core all share it, and the figures are of little use."""

    server: set[int]
    client: set[int]
    feed: set[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        return cls({cores[0]}, {cores[min(1, len(cores) - 1)]}, {cores[min(2, len(cores) - 1)]})


def description() -> dict[str, Any]:
    """Model, cores, memory, kernel, Python, and the load before the bench began."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release().partition("-")[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit(checkout: Path) -> str:
    """The commit of a checkout; `-dirty` follows when files were changed since."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "of unknown commit"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
