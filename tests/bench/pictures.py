"""The results as pictures: `python -m tests.bench.pictures FIGURES.json FOLDER`, in the environment that has matplotlib.

Rules of this file: text stays text, the background is transparent, and every colour is readable on white and on black.
The daemon has one colour, its peers have another, the limits a third.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from .aims import OURS
from .peers import JOINING, LIMIT
from .results import Results, Spread
from .scenarios import rates, saturation

INK = "#7d8590"  # text and axes: 4 to 1 and better on white and on GitHub's black
OURS_COLOUR, OTHERS, LIMIT_COLOUR = "#2f81f7", "#8b949e", "#b08800"
Bar = tuple[str, Spread, str]  # name, length, the text behind it


def main(figures: Path, folder: Path) -> None:
    plt.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "dataflow",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
            "font.size": 10,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "figure.constrained_layout.use": True,
        }
    )
    results = Results.load(figures)
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in (
        ("throughput", throughput(results)),
        ("latency", latency(results)),
        ("memory", memory(results)),
        ("ingest", ingest(results)),
    ):
        if drawn is not None:
            drawn.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
            plt.close(drawn)


def throughput(results: Results) -> Any:
    """Deliveries a second: one panel for 1,000 subscribers, one for 5,000."""
    if "saturation" not in results.runs:
        return None
    picture, panels = plt.subplots(1, 2, figsize=(9, 2.9), sharex=True)
    for panel, clients in zip(panels, (1_000, 5_000), strict=True):
        work = saturation.work(clients)
        bars = []
        for server in results.servers("saturation", work):
            spread = results.spread("saturation", work, server, "per_second")
            share = results.ratio("saturation", "per_second", (work, server), (work, LIMIT))
            if spread:
                told = f"{spread.median / 1e3:.0f} k" + ("" if share is None else f" · {share:.2f}")
                bars.append((server, spread, told))
        _bars(panel, sorted(bars, key=lambda bar: bar[1].median))
        panel.set_title(f"{clients:,} subscribers: deliveries/s · share of the limit", color=INK, fontsize=10)
    return picture


def memory(results: Results) -> Any:
    """KiB a session."""
    if "memory" not in results.runs:
        return None
    bars = [
        (server if work == "connected" else f"{server}, {work}", spread, f"{spread.median:.1f}")
        for work, server, spread in _measured(results, "memory", "kib")
    ]
    bars.sort(key=lambda bar: -bar[1].median)
    return _one_panel(bars, "memory of an idle session, KiB: less is better")


def ingest(results: Results) -> Any:
    """Trades a second."""
    if "ingest" not in results.runs:
        return None
    bars = [
        (f"{server}: {work}" if server == OURS else server, spread, f"{spread.median / 1e3:.0f} k")
        for work, server, spread in _measured(results, "ingest", "per_second")
    ]
    bars.sort(key=lambda bar: bar[1].median)
    return _one_panel(bars, "trades a second from one source, on one core")


def _measured(results: Results, scenario: str, figure: str) -> Iterator[tuple[str, str, Spread]]:
    """Work, server and figure of all rows of a scenario with that figure."""
    for work in results.works(scenario):
        for server in results.servers(scenario, work):
            if spread := results.spread(scenario, work, server, figure):
                yield work, server, spread


def _one_panel(bars: list[Bar], title: str) -> Any:
    picture, panel = plt.subplots(figsize=(9, 2.6))
    _bars(panel, bars)
    panel.set_title(title, color=INK, fontsize=10)
    return picture


def _bars(panel: Any, bars: list[Bar]) -> None:
    longest = max(spread.most for _name, spread, _told in bars)
    for row, (name, spread, told) in enumerate(bars):
        off = [[spread.median - spread.least], [spread.most - spread.median]] if spread.rounds > 1 else None
        panel.barh(row, spread.median, height=0.62, color=_colour(name), xerr=off, ecolor=INK, capsize=2)
        panel.text(spread.most + longest * 0.02, row, told, va="center")
    panel.set_yticks(range(len(bars)), [name for name, _spread, _told in bars])
    panel.set_xlim(0, max(panel.get_xlim()[1], longest * 1.32))
    panel.set_xticks([])
    panel.tick_params(left=False)
    for side in ("top", "right", "bottom"):
        panel.spines[side].set_visible(False)


def latency(results: Results) -> Any:
    """Lines from p50 to p99, one a server; one panel a rate."""
    if not rates.measured(results):
        return None
    tried = rates.measured(results)
    works = [rates.work(rate, rates.CLIENTS) for rate in tried]
    servers = list(dict.fromkeys(server for work in works for server in results.servers("rates", work)))[::-1]
    picture, panels = plt.subplots(1, len(works), figsize=(9, 2.9), sharey=True, sharex=True, squeeze=False)
    panels = panels[0]
    for panel, rate, work in zip(panels, tried, works, strict=True):
        for row, server in enumerate(servers):
            _range(panel, row, results, work, server)
        panel.set_xscale("log")
        panel.set_xlim(0.5, max(200.0, 1.2 * _slowest(results, works)))
        panel.set_xticks([1, 10, 100], ["1 ms", "10", "100"])
        panel.set_xticks([], minor=True)
        panel.set_title(f"{rate:,} trades/s", color=INK, fontsize=10)
        panel.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
        panel.tick_params(left=False)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(servers)), servers)
    panels[0].set_ylim(-0.6, len(servers) - 0.4)
    picture.supxlabel(
        "age on arrival, 1,000 clients: p50 (filled) to p99 (open), log scale", fontsize=10, color=INK
    )
    return picture


def _slowest(results: Results, works: list[str]) -> float:
    """The largest p99 of the servers that were not overloaded, ms."""
    found = [
        row.figures.get("p99_ms", 0.0)
        for row in results.rows
        if row.scenario == "rates" and row.work in works and row.figures["share"] >= rates.IN_TIME
    ]
    return max(found, default=0.0)


def _range(panel: Any, row: int, results: Results, work: str, server: str) -> None:
    share, p50, p99 = (results.median("rates", work, server, name) for name in ("share", "p50_ms", "p99_ms"))
    if share is None:
        return
    colour = _colour(server)
    if share < rates.IN_TIME or p50 is None or p99 is None:
        panel.text(10, row, "overloaded", va="center", ha="center", fontsize=9, style="italic")
        return
    panel.plot([p50, p99], [row, row], color=colour, linewidth=2, solid_capstyle="round")
    panel.plot(p50, row, "o", color=colour, markersize=6)
    panel.plot(p99, row, "o", color=colour, markersize=6, fillstyle="none")


def _colour(name: str) -> str:
    return OURS_COLOUR if name.startswith(OURS) else LIMIT_COLOUR if name in (LIMIT, JOINING) else OTHERS


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
