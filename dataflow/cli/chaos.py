"""`chaos`: the rehearsal. The daemon under random faults, and a verdict on its clients' streams.

Rules of this file: drawing is pure. The exit code is the verdict: 0 every invariant held, 1 one broke.
"""

from __future__ import annotations

import json as json_
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataflow import logs, plugs
from dataflow.chaos.check import Account, Figures, SourceAccount, quantiles
from dataflow.chaos.plan import Rehearsal

from .common import Json, until_interrupted
from .daemon import LogLevel
from .ends import Failure, Mistake

if TYPE_CHECKING:
    from dataflow.chaos.run import Progress

LARGEST_SEED = 1_000_000
MOST = 8  # entries in one line


def chaos(
    *,
    seed: Annotated[int | None, Parameter(help="Seed of the plan. [default: random]")] = None,
    minutes: float = 1.0,
    clients: int = 3,
    faults_per_minute: float = 30.0,
    json: Json = False,
    log_level: Annotated[
        LogLevel | None, Parameter(help="Show the daemon's log from this level on. [default: no log]")
    ] = None,
) -> int:
    """Rehearse random failures, and check that no client silently lost a trade.

    Exchanges, daemon and checking clients run in one process, offline. The
    same seed makes the same plan. Exit code 0: no trade was silently lost,
    duplicated or sent out of order, every mailbox balanced, and no task or
    socket was left behind. Exit code 1: an invariant broke.

    Parameters
    ----------
    minutes
        Duration of the faults.
    clients
        Number of checking clients that speak JSON-RPC. Each other face that
        streams has one besides.
    faults_per_minute
        Number of faults per minute.
    """
    try:
        rehearsal = Rehearsal(
            random.randrange(LARGEST_SEED) if seed is None else seed, minutes, faults_per_minute, clients
        )
    except ValueError as error:
        raise Mistake(_plainly(error)) from None
    logs.unhinder("stderr")
    _log(log_level)
    figures = _rehearse(rehearsal)
    if json:
        print(json_.dumps({**figures.to_dict(), "repeat": repeat(rehearsal)}, ensure_ascii=False))
    else:
        _show(figures, rehearsal)
    return 0 if figures.held else 1


def _rehearse(rehearsal: Rehearsal) -> Figures:
    plugs.library("google.protobuf", "protobuf", "dataflow chaos")
    from dataflow.chaos.run import rehearse

    found: list[Figures] = []
    console = Console(stderr=True)

    async def main(tell: Callable[[Progress], None]) -> None:
        found.append(await rehearse(rehearsal, tell))

    if console.is_terminal:
        with console.status(f"seed {rehearsal.seed}") as status:
            until_interrupted(main, lambda progress: status.update(_line(progress, rehearsal)))
    else:
        until_interrupted(main, lambda _progress: None)
    if not found:
        raise Failure(f"interrupted before there was a verdict; {repeat(rehearsal)}")
    return found[0]


def _line(progress: Progress, rehearsal: Rehearsal) -> str:
    return (
        f"seed {rehearsal.seed}: {progress.phase}, {progress.seconds_left:.0f} s left, "
        f"{progress.faults} faults, {progress.trades} trades"
    )


def _log(level: LogLevel | None) -> None:
    if level is None:
        from loguru import logger

        logger.remove()  # thousands of lines about failures on purpose
    else:
        logs.configure("human", level)


def _plainly(error: ValueError) -> str:
    """The text of an error of attrs' validators, without the attribute that comes with it."""
    return str(error.args[0])


def repeat(rehearsal: Rehearsal) -> str:
    """The command that repeats the rehearsal with the same plan."""
    usual = Rehearsal(rehearsal.seed)
    words = [f"dataflow chaos --seed {rehearsal.seed} --minutes {rehearsal.minutes:g}"]
    if rehearsal.clients != usual.clients:
        words.append(f"--clients {rehearsal.clients}")
    if rehearsal.faults_per_minute != usual.faults_per_minute:
        words.append(f"--faults-per-minute {rehearsal.faults_per_minute:g}")
    return " ".join(words)


# -- drawing -------------------------------------------------------------------------------------------


def _show(figures: Figures, rehearsal: Rehearsal) -> None:
    console = Console()
    if console.is_terminal:
        table = Table(title=f"dataflow chaos --seed {rehearsal.seed}", show_header=False)
        for name, told in rows(figures):
            table.add_row(Text(name, style="dim"), Text(told))
        console.print(table)
        console.print(Text(verdict(figures), style="bold green" if figures.held else "bold red"))
    else:
        width = max(len(name) for name, _told in rows(figures))
        for name, told in rows(figures):
            print(f"{name:{width}}  {told}")
        print(verdict(figures))
    for line in figures.evidence:
        print(f"  {line}")
    print(f"repeat with: {repeat(rehearsal)}", file=sys.stdout)


def rows(figures: Figures) -> Iterator[tuple[str, str]]:
    """The results, as names and values."""
    yield "troubles", _counts(figures.faults)
    if figures.impossible:
        yield "without effect", _counts(figures.impossible)
    yield "crashes", _counts(figures.crashes)
    yield "restarts", _counts(figures.restarts)
    times = quantiles([seconds for _who, seconds in figures.recovery])
    told = ", ".join(f"{name} {value:g} s" for name, value in times.items() if name != "count")
    yield "back after", f"{told} ({figures.slowest})" if figures.recovery else "none"
    yield "gaps", _counts(figures.gaps)
    for name, source in figures.sources.items():
        yield name, _source(source)
    for name, client in figures.clients.items():
        yield name, f"{_client(client)}; {figures.connections[name]} connections"
    yield "closed with", _counts(figures.closed)
    yield "mailboxes", f"looked at {figures.balances} times, {len(figures.unbalanced)} did not balance"
    yield "left behind", "; ".join(figures.left_behind) or "nothing"


def verdict(figures: Figures) -> str:
    """The result in one line."""
    if figures.held:
        return "every invariant held"
    return f"BROKEN: {_counts(figures.violations)}"


def _source(source: SourceAccount) -> str:
    return (
        f"{source.sent} sent, {source.admitted} admitted, {source.announced} in announced gaps, "
        f"{source.unaccounted} unaccounted for"
    )


def _client(client: Account) -> str:
    wrong = client.wrong
    return (
        f"{client.delivered} delivered ({client.recovered} by since), {client.announced} in announced gaps, "
        f"{client.missing} missing, {wrong['duplicated']} duplicated, {wrong['reordered']} reordered"
    )


def _counts(counts: Counter[str] | Counter[int]) -> str:
    shown = [f"{name} {count}" for name, count in counts.most_common(MOST)]
    rest = counts.total() - sum(count for _name, count in counts.most_common(MOST))
    return ", ".join([*shown, *([f"others {rest}"] if rest else [])]) or "none"
