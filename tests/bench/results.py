"""The measured figures: their medians and ratios, and their file, JSON beside the pictures.

Rules of this file: a ratio is the median of the ratios of single rounds, never the ratio of two medians from
different moments. A figure that was not measured is None; nothing replaces it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, frozen

from .plan import Row


@frozen
class Spread:
    """Median, least and most of some rounds."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None without values."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1], len(found)) if found else None


@define
class Results:
    """All rows. `runs`: for each scenario the date, machine and versions of its measurement. Ratios have no unit."""

    rows: list[Row] = field(factory=list)
    runs: dict[str, dict[str, Any]] = field(factory=dict)
    missing: dict[str, str] = field(factory=dict)

    def spread(self, scenario: str, work: str, server: str, figure: str) -> Spread | None:
        """A figure over the rounds; None when it was not measured."""
        return Spread.of(self._by_round(scenario, work, server, figure).values())

    def median(self, scenario: str, work: str, server: str, figure: str) -> float | None:
        found = self.spread(scenario, work, server, figure)
        return None if found is None else found.median

    def ratio(
        self, scenario: str, figure: str, this: tuple[str, str], other: tuple[str, str]
    ) -> float | None:
        """Median of `this` divided by `other` over the rounds that have both. Each of the two is a work and a server."""
        found = Spread.of(self.ratios(scenario, figure, this, other))
        return None if found is None else found.median

    def ratios(
        self, scenario: str, figure: str, this: tuple[str, str], other: tuple[str, str]
    ) -> list[float]:
        """The ratio of each round that has both."""
        ours, theirs = (self._by_round(scenario, *which, figure) for which in (this, other))
        return [ours[n] / theirs[n] for n in sorted(ours.keys() & theirs.keys()) if theirs[n]]

    def servers(self, scenario: str, work: str) -> list[str]:
        """The servers that did a work, in the order of the first round."""
        return list(
            dict.fromkeys(row.server for row in self.rows if (row.scenario, row.work) == (scenario, work))
        )

    def works(self, scenario: str) -> list[str]:
        return list(dict.fromkeys(row.work for row in self.rows if row.scenario == scenario))

    def _by_round(self, scenario: str, work: str, server: str, figure: str) -> dict[int, float]:
        return {
            row.round: row.figures[figure]
            for row in self.rows
            if (row.scenario, row.work, row.server) == (scenario, work, server) and figure in row.figures
        }

    def replace(self, other: Results) -> None:
        """Replace every scenario that `other` has by the one of `other`, whole."""
        self.rows = [row for row in self.rows if row.scenario not in other.runs] + other.rows
        self.runs |= other.runs
        kept = {what: why for what, why in self.missing.items() if what.partition(":")[0] not in other.runs}
        self.missing = kept | other.missing

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "runs": self.runs,
            "missing": self.missing,
            "rows": [_rounded(asdict(row)) for row in self.rows],
        }
        file.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Results:
        """Empty when there is no file."""
        if not file.exists():
            return cls()
        content = json.loads(file.read_text())
        return cls([Row(**row) for row in content["rows"]], content["runs"], content["missing"])


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    figures = {name: float(f"{value:.6g}") for name, value in row["figures"].items()}
    return {**row, "figures": figures}
