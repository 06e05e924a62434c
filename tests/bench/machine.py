"""The machine that is measured on: its cores, and what a reader of the figures must know about it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from attrs import frozen


@frozen
class Cores:
    """Who runs where. With one core all share it, and the figures are of little use."""

    server: set[int]
    client: set[int]
    feed: set[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        return cls({cores[0]}, {cores[min(1, len(cores) - 1)]}, {cores[min(2, len(cores) - 1)]})


def description() -> dict[str, Any]:
    """Model, cores, memory, kernel, Python, and how busy it was before the bench began."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release().partition("-")[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
