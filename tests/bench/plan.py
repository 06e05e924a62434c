"""What is to be done: steps, in an order that lets figures be compared, and how far it has come.

Rules of this file: a ratio is only taken within one run, so all servers take their turn at one piece of work before the
next piece begins, round after round. A step that fails is told and does not stop the others.
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
    """What one server did in one round of one piece of work."""

    scenario: str
    work: str
    server: str
    round: int
    figures: Mapping[str, float]


@frozen
class Step:
    """One server doing one piece of work. `seconds` is about how long that takes."""

    work: str
    server: str
    seconds: float
    run: Callable[[], Figures]


@define
class Bench:
    """What the scenarios may use, and what came out so far. `missing`: server or scenario -> why it was not run."""

    cores: Cores
    checkout: Path  # of the daemon that is measured
    quick: bool = False
    only: frozenset[str] = frozenset()
    rows: list[Row] = field(factory=list)
    missing: dict[str, str] = field(factory=dict)
    failed: list[str] = field(factory=list)

    def wanted(self, server: str) -> bool:
        return not self.only or server in self.only

    def last(self, scenario: str, work: str, server: str, figure: str) -> float | None:
        """The newest figure of a server."""
        for row in reversed(self.rows):
            if (row.scenario, row.work, row.server) == (scenario, work, server):
                return row.figures.get(figure)
        return None


@frozen
class Scenario:
    """A kind of work. `steps` are one round; `rounds` are those of a full and of a quick run."""

    name: str
    about: str
    rounds: tuple[int, int]
    steps: Callable[[Bench], Iterable[Step]]
    told: Callable[[Figures], str]


class Progress:
    """One line a step, with what came out and about how long the rest takes."""

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
    """As a person would say it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def carry_out(bench: Bench, scenarios: Sequence[Scenario]) -> None:
    """All steps of all rounds of all scenarios. What fails is in `bench.failed`."""
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
    """What should not have happened in a window, or nothing."""
    words = {
        "gaps": "{:.0f} gaps",
        "skipped": "{:.0f} SKIPPED WITHOUT A GAP",
        "dead": "{:.0f} DISCONNECTED",
        "blocked": "the event loop was BLOCKED {:.0f} times",
    }
    return "".join(f", {text.format(figures[name])}" for name, text in words.items() if figures.get(name))
