"""`conformance`: the checks that every connector must pass, over one connector.

Rules of this file: it shows, `dataflow.conformance` decides. Exit code 1 if a promise is broken.
"""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from dataflow.conformance.recording import BadRecording, Recording, load
from dataflow.conformance.report import Result, Verdict, run, summary
from dataflow.conformance.subject import BadSubject, Subject, subject

from .common import Json
from .ends import Mistake

_MARKS = {
    Verdict.KEPT: ("ok", "green"),
    Verdict.BROKEN: ("BROKEN", "bold red"),
    Verdict.NOT_SHOWN: ("not shown", "yellow"),
}


def conformance(
    connector: str,
    *,
    recording: Path | None = None,
    symbols: Annotated[list[str], Parameter(consume_multiple=True)] | None = None,
    url: str | None = None,
    accept: Annotated[list[str], Parameter(consume_multiple=True)] | None = None,
    json: Json = False,
) -> int:
    """Check a connector: it never guesses, never raises, and loses nothing in silence.

    Exit code 0: no promise is broken. Exit code 1: one is, and a sentence
    says where. "not shown": the recording has nothing of that kind.

    Parameters
    ----------
    connector
        A dotted module of yours, or a name in dataflow/connectors.
    recording
        What its upstream said: JSON lines with "dir" and "msg", also .gz.
    symbols
        Symbols to ask for; those that the recording is about.
    url
        Its address, for a connector that reads the market from it.
    accept
        Problems that this recording may have, by their names.
    """
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it: where the author's module is
    try:
        held = load(recording) if recording else Recording()
        about = subject(connector, symbols or [], held, accept or [], url=url)
    except (BadSubject, BadRecording) as error:
        raise Mistake(str(error)) from None
    console = Console(highlight=False, soft_wrap=True)
    results: list[Result] = []
    for result in run(about):
        results.append(result)
        if not json:
            _show(console, result)
    if json:
        print(json_.dumps([attrs.asdict(each) for each in results], default=str))
    else:
        _conclude(console, about, results)
    return int(any(each.verdict is Verdict.BROKEN for each in results))


def _show(console: Console, result: Result) -> None:
    mark, style = _MARKS[result.verdict]
    console.print(Text.assemble((f"{mark:>9}  ", style), (result.name, "bold"), f"  {result.promise}"))
    if result.reason:
        console.print(Text(f"{'':>11}{result.reason}", style=style))


def _conclude(console: Console, about: Subject, results: list[Result]) -> None:
    counts = {verdict: sum(each.verdict is verdict for each in results) for verdict in Verdict}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    try:
        held = summary(about)
    except Exception:  # it raises, which a check has told
        return
    problems = ", ".join(f"{n} {reason}" for reason, n in held.problems.items()) or "no problem"
    console.print(f"{held.messages} messages, {held.trades} trades, {problems}")
