"""`chaos`: the rehearsal. The daemon under random faults, or killed again and again, and a verdict on its
clients' streams.

Rules of this file: drawing is pure. The exit code is the verdict: 0 every invariant held, 1 one broke.
"""

from __future__ import annotations

import json as json_
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataflow import logs, plugs
from dataflow.chaos.check import Account, Figures, Refill, SourceAccount, quantiles
from dataflow.chaos.lives import Lives
from dataflow.chaos.plan import Deaths, Rehearsal

from .common import Json, until_interrupted
from .daemon import LogLevel
from .ends import Interrupted, Mistake
from .words import several

if TYPE_CHECKING:
    from dataflow.chaos.deaths import Passed
    from dataflow.chaos.run import Progress

LARGEST_SEED = 1_000_000
MOST = 8  # entries in one line


def chaos(
    *,
    seed: Annotated[int | None, Parameter(help="Seed of the plan. [default: random]")] = None,
    minutes: float = 1.0,
    clients: int = 3,
    faults_per_minute: float = 30.0,
    deaths: int | None = None,
    seconds: float = 2.0,
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

    With --deaths the daemon is a process of its own with a history on disk,
    killed (SIGKILL) at random moments and started again at once. Exit code
    0: nothing that was on disk was lost, and every client has what the
    daemon has, place by place.

    Parameters
    ----------
    minutes
        Duration of the faults.
    clients
        Number of checking clients that speak JSON-RPC. Each other face that
        streams has one besides.
    faults_per_minute
        Number of faults per minute.
    deaths
        Kill the daemon so often, instead of all other faults.
    seconds
        The longest life between two deaths.
    """
    seed = random.randrange(LARGEST_SEED) if seed is None else seed
    rehearsal: Rehearsal | Deaths
    try:
        if deaths is None:
            rehearsal = Rehearsal(seed, minutes, faults_per_minute, clients)
        else:
            rehearsal = Deaths(seed, deaths, seconds, clients)
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


def _rehearse(rehearsal: Rehearsal | Deaths) -> Figures | Lives:
    plugs.library("google.protobuf", "protobuf", "dataflow chaos")
    from dataflow.chaos.deaths import outlive
    from dataflow.chaos.run import rehearse

    found: list[Figures | Lives] = []
    console = Console(stderr=True)

    async def main(tell: Callable[[Progress | Passed], None]) -> None:
        if isinstance(rehearsal, Deaths):
            found.append(await outlive(rehearsal, tell))
        else:
            found.append(await rehearse(rehearsal, tell))

    print(f"{plan(rehearsal)}; Ctrl-C ends it without a verdict", file=sys.stderr)
    if console.is_terminal:
        with console.status(f"seed {rehearsal.seed}") as status:
            until_interrupted(main, lambda told: status.update(f"seed {rehearsal.seed}: {told}"))
    else:
        until_interrupted(main, lambda _told: None)
    if not found:
        raise Interrupted(f"there was a verdict; {repeat(rehearsal)}")
    return found[0]


def plan(rehearsal: Rehearsal | Deaths) -> str:
    """What will happen, in one line."""
    clients = several(rehearsal.clients, "client")
    if isinstance(rehearsal, Deaths):
        often = several(rehearsal.deaths, "death")
        return f"seed {rehearsal.seed}: {often}, at most {rehearsal.seconds:g} s apart, {clients}"
    often = f"{rehearsal.minutes:g} min with {rehearsal.faults_per_minute:g} faults a minute"
    return f"seed {rehearsal.seed}: {often}, {clients}"


def _log(level: LogLevel | None) -> None:
    if level is None:
        from loguru import logger

        logger.remove()  # thousands of lines about failures on purpose
    else:
        logs.configure("human", level)


def _plainly(error: ValueError) -> str:
    """The option instead of the attribute, in the text of an error of attrs' validators."""
    name, _, rest = str(error.args[0]).removeprefix("'").partition("' ")
    must, _, found = rest.rpartition(": ")
    return f"--{name.replace('_', '-')}: found {found}; {must}"


def repeat(rehearsal: Rehearsal | Deaths) -> str:
    """The command that repeats the rehearsal with the same plan."""
    words = [f"dataflow chaos --seed {rehearsal.seed}"]
    usual: Rehearsal | Deaths
    if isinstance(rehearsal, Deaths):
        usual = Deaths(rehearsal.seed)
        words.append(f"--deaths {rehearsal.deaths}")
        if rehearsal.seconds != usual.seconds:
            words.append(f"--seconds {rehearsal.seconds:g}")
    else:
        usual = Rehearsal(rehearsal.seed)
        words.append(f"--minutes {rehearsal.minutes:g}")
        if rehearsal.faults_per_minute != usual.faults_per_minute:
            words.append(f"--faults-per-minute {rehearsal.faults_per_minute:g}")
    if rehearsal.clients != usual.clients:
        words.append(f"--clients {rehearsal.clients}")
    return " ".join(words)


# -- drawing -------------------------------------------------------------------------------------------


def _show(figures: Figures | Lives, rehearsal: Rehearsal | Deaths) -> None:
    console = Console()
    shown = list(rows_of_lives(figures) if isinstance(figures, Lives) else rows(figures))
    if console.is_terminal:
        table = Table(title=repeat(rehearsal), show_header=False)
        for name, told in shown:
            table.add_row(Text(name, style="dim"), Text(told))
        console.print(table)
        console.print(Text(verdict(figures), style="bold green" if figures.held else "bold red"))
    else:
        width = max(len(name) for name, _told in shown)
        for name, told in shown:
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
    told = _times([seconds for _who, seconds in figures.recovery])
    yield "back after", f"{told} ({figures.slowest})" if figures.recovery else "none"
    yield from _accounts(figures)
    yield "closed with", _counts(figures.closed)
    yield "mailboxes", f"looked at {figures.balances} times, {len(figures.unbalanced)} did not balance"
    yield "left behind", "; ".join(figures.left_behind) or "nothing"


def rows_of_lives(lives: Lives) -> Iterator[tuple[str, str]]:
    """The results of a rehearsal of deaths, as names and values."""
    yield "lives ended by", f"{_counts(lives.ends)}; {lives.early} before all clients were served"
    yield "all served after", _times(lives.starts) or "never"
    yield from _accounts(lives)
    yield "told to go back", _counts(+lives.rewinds)
    yield "filled", _counts(+lives.filled)
    yield "on disk", f"{lives.on_disk} trades seen there after deaths, {len(lives.lost)} complaints"


def _accounts(figures: Figures | Lives) -> Iterator[tuple[str, str]]:
    yield "gaps", _counts(figures.gaps)
    for name, source in figures.sources.items():
        yield name, _source(source)
    for name, refill in getattr(figures, "refills", {}).items():
        yield f"{name} refilled", _refill(refill, figures.sources[name])
    for name, client in figures.clients.items():
        made = f"; {figures.made[name]}" if name in figures.made else ""
        yield name, f"{_client(client)}; {figures.connections[name]} connections{made}"


def _times(seconds: Sequence[float]) -> str:
    return ", ".join(f"{name} {value:g} s" for name, value in quantiles(seconds).items() if name != "count")


def verdict(figures: Figures | Lives) -> str:
    """The result in one line."""
    if figures.held:
        return "every invariant held"
    return f"BROKEN: {_counts(figures.violations)}"


def _source(source: SourceAccount) -> str:
    return (
        f"{source.sent} sent, {source.admitted} admitted, {source.announced} in announced gaps, "
        f"{source.unaccounted} unaccounted for"
    )


def _refill(refill: Refill, source: SourceAccount) -> str:
    times = ", ".join(f"p{percent} <= {refill.within(percent / 100):g} s" for percent in (50, 99))
    return (
        f"{refill.missed} missed, {refill.refilled} refilled ({refill.share:.1%}; {times}), "
        f"{refill.left} left in named gaps ({refill.anew} at a new numbering), "
        f"{source.unaccounted} unexplained; {refill.asked} questions, "
        f"{refill.refused.total()} answers not believed"
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
