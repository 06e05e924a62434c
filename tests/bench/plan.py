"""The steps of a run, their order, and the progress.

Rules of this file: a ratio is taken within one round only. So all servers do one piece of work in turn before the next
piece begins, round after round. A failed step is reported and does not stop the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from .compiled import Missing
from .machine import Cores
from .processes import ProgramFailed

Figures = dict[str, float]


@frozen
class Row:
    """The figures of one server in one round of one piece of work."""

    scenario: str
    work: str
    server: str
    round: int
    figures: Mapping[str, float]


@frozen
class Step:
    """One server and one piece of work. `seconds` is a rough duration, for the progress."""

    work: str
    server: str
    seconds: float
    run: Callable[[], Figures]


@define
class Bench:
    """The means of the scenarios, and the results so far. `missing`: scenario and server -> the reason."""

    cores: Cores
    checkout: Path  # of the measured daemon
    quick: bool = False
    only: frozenset[str] = frozenset()
    rows: list[Row] = field(factory=list)
    missing: dict[str, str] = field(factory=dict)
    failed: list[str] = field(factory=list)

    def wanted(self, server: str) -> bool:
        return not self.only or server in self.only

    def last(self, scenario: str, work: str, server: str, figure: str) -> float | None:
        """The newest figure of a server; None without one."""
        for row in reversed(self.rows):
            if (row.scenario, row.work, row.server) == (scenario, work, server):
                return row.figures.get(figure)
        return None


@frozen
class Scenario:
    """A kind of work. `steps` gives the steps of one round; `rounds`: how many in a full and in a quick run."""

    name: str
    about: str
    rounds: tuple[int, int]
    steps: Callable[[Bench], Iterable[Step]]
    told: Callable[[Figures], str]


class Progress:
    """One line a step: its result, and an estimate of the time that is left."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self._left = list(seconds)
        self._expected = self._taken = 0.0
        self._number, self._of = 0, len(self._left)

    def begin(self, label: str) -> None:
        self._number += 1
        print(f"[{self._number}/{self._of}] {label}", end=" ... ", flush=True)

    def end(self, told: str, taken: float) -> None:
        self._expected += self._left.pop(0)
        self._taken += taken
        left = sum(self._left) * self._taken / self._expected
        print(told + (f"  ({duration(left)} to go)" if self._left else ""), flush=True)


def duration(seconds: float) -> str:
    """In seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def carry_out(bench: Bench, scenarios: Sequence[Scenario]) -> None:
    """All steps of all rounds of all scenarios. Failures go to `bench.failed`."""
    todo = [
        (scenario, round_, step)
        for scenario in scenarios
        for round_ in range(scenario.rounds[bench.quick])
        for step in scenario.steps(bench)
    ]
    progress = Progress([step.seconds for _scenario, _round, step in todo])
    for scenario, round_, step in todo:
        progress.begin(f"{scenario.name}, {step.work}: {step.server}")
        begun = time.monotonic()
        told = _carry_out(bench, scenario, round_, step)
        progress.end(told, time.monotonic() - begun)


def _carry_out(bench: Bench, scenario: Scenario, round_: int, step: Step) -> str:
    try:
        figures = step.run()
    except Missing as why:
        bench.missing[f"{scenario.name}: {step.server}"] = str(why)
        return f"skipped: {why}"
    except (ProgramFailed, OSError, KeyError, ValueError) as error:
        bench.failed.append(f"{scenario.name}, {step.work}, {step.server}: {type(error).__name__}: {error}")
        return f"FAILED: {error}"
    bench.rows.append(Row(scenario.name, step.work, step.server, round_, figures))
    return scenario.told(figures)


def troubles(figures: Mapping[str, float]) -> str:
    """The faults in a window, as text that follows other text; empty without any."""
    words = {
        "gaps": "{:.0f} gaps",
        "skipped": "{:.0f} SKIPPED WITHOUT A GAP",
        "dead": "{:.0f} DISCONNECTED",
        "blocked": "the event loop was BLOCKED {:.0f} times",
    }
    return "".join(f", {text.format(figures[name])}" for name, text in words.items() if figures.get(name))
