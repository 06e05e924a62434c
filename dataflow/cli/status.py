"""`status`: draws the supervision tree of a running daemon, and how its sources fare.

Rules of this file: drawing is pure. Text from the daemon is shown as text, never as markup or an escape code.
An error stands beside the time of it, and only until the daemon has forgiven it. A colour that warns is for
what is wrong now; what once was wrong is only counted.
"""

from __future__ import annotations

import json as json_
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Annotated, Any, TypeAlias

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dataflow.domain.secrets import concealed
from dataflow.logs.terminal import disarmed

from .common import Json, Token, Url, call, daemon_url
from .ends import Mistake, NotThere, wrong
from .picture import LINK_COLOURS, Line, Picture, can_redraw
from .progress import waiting
from .watching import Said, Watched
from .words import UNKNOWN, age, lag, rate, several, share, size

COLOURS = {
    "running": "green",
    "starting": "cyan",
    "backoff": "yellow",
    "stopping": "magenta",
    "done": "dim",
    "idle": "dim",
}
OPEN = ("connected", "listening")
READY_COLOURS = {"ready": "green", "degraded": "yellow", "not ready": "red"}
UNWELL = ("refilling", "gapped", "stalled")  # states of symbols
BAD = ("lost", "rejected")
NOT_FOR_ME = (401, 403)  # only the operator sees the clients
PATIENT = 5.0  # seconds for which a client may take nothing before that is worth a word
LATE = 0.25  # seconds of the event loop's lag, likewise
BUSY = 0.9  # of one core, likewise
WELL = ("running", "idle", "done")  # states of actors
_FULL = {"connection": 30, "quality": 30, "lag": 20, "errors": 20}  # points: what a part can earn
URGENT, TELLING, ORDINARY = range(3)  # in this order lines find room on a small screen
FEW = 8  # children of a pool that are drawn; the others are only counted


def status(
    *,
    watch: Annotated[bool, Parameter(name=("--watch", "-w"))] = False,
    interval: float = 1.0,
    everything: Annotated[bool, Parameter(name=("--all", "-a"))] = False,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """The supervision tree of a running daemon: states, restarts, mailboxes, last errors.

    A source shows its connection, trades a second, the quality of its
    symbols and its lag. --watch in a small terminal shows what is unwell
    first. `dataflow top` shows the same as tables.

    Parameters
    ----------
    watch
        Redraw until Ctrl-C.
    interval
        Seconds between two looks.
    everything
        Draw every session and topic instead of the first few.
    """
    if not interval > 0:
        raise wrong("--interval", f"{interval:g}", "more than 0 seconds")
    base = daemon_url(url)
    with waiting(f"waiting for {concealed(base)}"):
        first = _asked(base, token)
    with suppress(KeyboardInterrupt) if watch else nullcontext():  # the usual end of a watch
        if json:
            for answers in _all(first, base, token, interval if watch else None):
                print(json_.dumps(as_data(answers), ensure_ascii=False), flush=True)
        elif watch:
            _watch(first, base, token, interval, everything)
        else:
            _print(Console(), _drawn(first, base, everything))


Answer: TypeAlias = dict[str, Any]


@attrs.frozen
class Answers:
    """The answers of the daemon at its endpoints. `missing`: those that it does not have."""

    tree: Answer
    ready: Answer
    daemon: Answer
    missing: Sequence[str] = ()


def as_data(answers: Answers) -> Answer:
    """For programs: the tree as the daemon tells it, and beside its root what `status` shows besides."""
    besides = {"ready": answers.ready, "daemon": answers.daemon, "missing": list(answers.missing)}
    return answers.tree | besides


def _all(first: Answers, base: str, token: str | None, interval: float | None) -> Iterator[Answers]:
    yield first
    while interval is not None:
        time.sleep(interval)
        yield _asked(base, token)


def _asked(base: str, token: str | None) -> Answers:
    """The tree, whether the daemon is ready, and its state; for an operator with what waits for clients.

    A daemon of an older version may lack some of them.
    """
    missing: list[str] = []

    def part(path: str, query: str = "", token: str | None = None, ok: tuple[int, ...] = ()) -> Answer:
        try:
            answer: Answer = call("GET", f"{base}{path}{query}", token, ok=ok)
        except NotThere:
            missing.append(path)
            return {}
        return answer

    ready = part("/ready", ok=(503,))
    daemon = part("/api/v1/status")
    daemon["outbox"] = part("/api/v1/clients", "?limit=1", token, NOT_FOR_ME).get("outbox")
    tree = part("/actors", token=token)
    if not ready and not tree:
        raise Mistake(f"{base} answers, but is not a dataflow daemon")
    return Answers(tree, ready, daemon, missing)


def _drawn(answers: Answers, base: str, everything: bool, old: str = "") -> Picture:
    picture = draw(answers, base, everything)
    return attrs.evolve(picture, head=Text.assemble((f"{old}\n", "red"), picture.head)) if old else picture


def _print(console: Console, picture: Picture | Text) -> None:
    """A pipe gets whole rows, however long they are."""
    console.print(picture, soft_wrap=not console.is_terminal)


def _watch(first: Answers, base: str, token: str | None, interval: float, everything: bool) -> None:
    watched, pause = Watched(partial(_asked, base, token), Said(first)), partial(time.sleep, interval)
    console = Console()
    if not can_redraw(console):  # one tree after the other
        for said in watched.looks(pause):
            _print(console, Text(said.trouble) if said.trouble else _drawn(said.answer, base, everything))
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        for said in watched.looks(pause):
            picture = _drawn(said.answer, base, everything, said.old)
            live.update(attrs.evolve(picture, height=console.height), refresh=True)


def draw(answers: Answers, base: str, everything: bool = False) -> Picture:
    """The tree under a headline of whether the daemon is ready, and what all of it does."""
    daemon = answers.daemon
    head = Text.assemble("dataflow ", (concealed(base), "dim"), "  ", _ready(answers.ready))
    if answers.missing:
        head.append(f"\nan older version: it does not have {', '.join(answers.missing)}", "yellow")
    if "uptime" in daemon:
        head.append("\n").append_text(_daemon(daemon))
    for symbol, told in (daemon.get("failover") or {}).items():
        head.append_text(_failover(symbol, told))
    sources = {f"sources/{name}": told for name, told in (daemon.get("sources") or {}).items()}
    return Picture(head, tuple(_lines(answers.tree, sources, everything)))


def _ready(ready: dict[str, Any]) -> Text:
    """The verdict, and whose fault it is: "degraded: sources/binance"."""
    state = str(ready.get("status", UNKNOWN))
    text = Text()
    for name in ("not ready", "degraded"):
        if paths := ready.get(name.replace(" ", "_")):
            text.append("; " if text else "").append(name, READY_COLOURS[name])
            text.append(f": {', '.join(map(disarmed, paths))}")
    return text or Text(state, READY_COLOURS.get(state, "red"))


def _daemon(told: dict[str, Any]) -> Text:
    """What the whole daemon does, and what it takes; what is too much stands out."""
    text = Text().append(f"up {age(told['uptime'])}, {several(told['sessions'], 'session')}", "dim")
    text.append(f", {rate(told.get('rate'))} trades/s in, {rate(told.get('sentRate'))} entries/s out", "dim")
    cpu = told.get("cpu")
    text.append(", ", "dim").append(f"CPU {share(cpu)}", "yellow" if (cpu or 0) > BUSY else "dim")
    text.append(f", memory {size(told.get('memory'))}", "dim")
    text.append(f", loop lag {lag(told['loopLag'])}", "yellow" if told["loopLag"] > LATE else "dim")
    outbox = told.get("outbox") or {}
    if (oldest := outbox.get("age")) is not None:
        waiting = f", clients have not taken {outbox['bytes']:,} bytes for {age(oldest)}"
        text.append(waiting, "red" if oldest > PATIENT else "dim")
    return text


def _failover(symbol: str, told: dict[str, Any]) -> Text:
    """A symbol with one source at a time: which one it is now, and the score of each with what it lacks."""
    names = list(told["sources"])
    is_away = bool(names) and told["active"] != names[0]
    text = Text().append(f"\n{disarmed(symbol)} from ", "dim")
    text.append(disarmed(told["active"]), "yellow" if is_away else "green")
    text.append(f" for {age(told['age'])}, {several(told['switches'], 'switch', 'switches')}", "dim")
    for name, its in told["sources"].items():
        low = [f"{part} {points}" for part, points in its["parts"].items() if points < _FULL.get(part, 0)]
        words = f"{disarmed(its['state'])}{', '.join(['', *map(disarmed, low)])}"
        text.append(f"; {disarmed(name)} {its['score']} ({words})", "dim")
    return text


def _lines(
    node: dict[str, Any], sources: dict[str, Any], everything: bool, below: str = ""
) -> Iterator[Line]:
    """The lines of the children of `node`, and of theirs. `below`: the guides in front of them."""
    children = node.get("children") or []
    shown = children if everything or node.get("kind") != "pool" else sorted(children, key=_is_well)[:FEW]
    hidden = Counter(child["state"] for child in children)
    hidden.subtract(child["state"] for child in shown)
    more = ", ".join(f"{count:,} {state}" for state, count in (+hidden).items())
    for number, child in enumerate(shown, 1):
        last = number == len(shown) and not more
        guides, its = (below + "└── ", below + "    ") if last else (below + "├── ", below + "│   ")
        path = disarmed(str(child["path"]))
        source = sources.get(child["path"])
        name = path.rpartition("/")[2]
        yield Line(name, path, _about(child, source), _urgency(child, source), guides, its)
        yield from _lines(child, sources, everything, its)
    if more:
        rest = f"{disarmed(str(node['path']))}/"
        yield Line("", rest, Text(f"and {more} more", "dim"), ORDINARY, below + "└── ")


def _is_well(node: dict[str, Any]) -> bool:
    """Whether nothing needs to be done about an actor now."""
    box, line = node.get("mailbox") or {}, node.get("line") or {}
    is_full = box.get("overflow") != "conflate" and 2 * box.get("queued", 0) > box.get("size", 0)
    is_cut = line.get("state", "connected") != "connected"
    return node["state"] in WELL and not node.get("last_error") and not is_full and not is_cut


def _urgency(node: dict[str, Any], source: dict[str, Any] | None) -> int:
    if not _is_well(node) or _troubles(node, source):
        return URGENT
    return ORDINARY if source is None and not node.get("delivered") else TELLING


def _troubles(node: dict[str, Any], source: dict[str, Any] | None) -> bool:
    """Whether a source lacks its connection, or symbols of it lack trades."""
    states = (node.get("quality") or {}).get("states") or {}
    is_cut = source is not None and (source["state"] not in OPEN or source.get("circuit") == "open")
    return is_cut or any(states.get(state) for state in (*UNWELL, *BAD))


def _about(node: dict[str, Any], source: dict[str, Any] | None) -> Text:
    """What stands behind the name of an actor."""
    text = Text("  ")
    if source is None or node["state"] != "running":
        text.append(node["state"], COLOURS.get(node["state"], "")).append(_for(node.get("age")), "dim")
    if source is not None:
        text.append("" if node["state"] == "running" else ", ")
        text.append(disarmed(source["state"]), LINK_COLOURS.get(source["state"], ""))
        text.append(_for(source.get("age")), "dim")
        if (producers := source.get("producers")) is not None:
            text.append(f", {several(producers, 'producer')}", "dim" if producers else "yellow")
        if source.get("circuit", "closed") != "closed":
            text.append(f", circuit {disarmed(source['circuit'])}", "yellow")
    if node.get("restarts"):
        # how it fared once needs no colour: only a failure that is not forgiven does
        text.append(
            f"  {several(node['restarts'], 'restart')}", "yellow" if node.get("last_error") else "dim"
        )
    if node.get("delivered"):
        text.append(_delivered(node["delivered"], source), "dim").append_text(
            _fare(node.get("quality") or {})
        )
        text.append_text(_refill((source or {}).get("refill")))
        if problems := sum(((source or {}).get("problems") or {}).values()):
            text.append(f"; {several(problems, 'problem')}", "dim")
    elif node.get("mailbox") and node["mailbox"]["accepted"]:  # many need none
        text.append_text(_mailbox(node["mailbox"]))
    if node.get("line"):
        text.append_text(_line(node["line"]))
    for at, why in _errors(node, source):
        text.append(f"\n{disarmed(at)}: {disarmed(why)}", "red")
    return text


def _errors(node: dict[str, Any], source: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """What failed and is not mended or forgiven, with its time. A source lets its lines tell it."""
    if node.get("last_error"):
        yield _second(node.get("last_error_at")), str(node["last_error"])
    elif source and source.get("reason") and not any(map(_has_failed, node.get("children") or ())):
        yield _second(source.get("reasonAt")), str(source["reason"])


def _has_failed(node: dict[str, Any]) -> bool:
    return bool(node.get("last_error")) or any(map(_has_failed, node.get("children") or ()))


def _second(time: Any) -> str:
    """A time of the daemon without the parts of its second."""
    return re.sub(r"\.\d+", "", str(time))


def _for(seconds: Any) -> str:
    return f" {age(seconds)}" if age(seconds) else ""


def _line(told: dict[str, Any]) -> Text:
    """A connection to a source."""
    is_up = told["state"] == "connected"
    label = Text().append(f"  {disarmed(told['state'])}{_for(told['age'])}", "dim" if is_up else "yellow")
    label.append(f", {several(told['symbols'], 'symbol')}", "dim")
    if told["replaces"] is not None:
        label.append(f", to take the place of line {told['replaces']}", "dim")
    return label


def _delivered(told: dict[str, Any], source: dict[str, Any] | None) -> str:
    ago = f", the last {age(told['age'])} ago" if told["age"] is not None else ""
    now = (source or {}).get("delivered", told).get("rate")
    return f"  {rate(now)} trades/s, {told['trades']:,} in all{ago}"


def _fare(told: dict[str, Any]) -> Text:
    """How the symbols of a source fare; what is not well stands out."""
    text = Text()
    for state, count in (told.get("states") or {}).items():
        style = "yellow" if state in UNWELL else "red" if state in BAD else "dim"
        text.append(", " if text else "; symbols: ", "dim")
        text.append(f"{count:,} {disarmed(state)}", style)
    if told.get("missing"):
        text.append(f"; {several(told['missing'], 'place')} missing", "yellow")
    if told.get("lag") is not None:
        text.append(f"; lag {lag(told['lag'])}", "dim")
    return text


def _refill(told: dict[str, Any] | None) -> Text:
    """What a source was asked for, if it ever was."""
    if not told or not any(told.get(key) for key in ("missing", "questions", "filled", "givenUp")):
        return Text()
    text = Text().append(f"; refill: {told['filled']:,} filled", "dim")
    if told["missing"]:
        text.append(f", {told['missing']:,} asked for", "yellow")
    if told["givenUp"]:
        text.append(f", {told['givenUp']:,} given up", "dim")
    if told["circuit"] != "closed":
        text.append(f", circuit {disarmed(told['circuit'])}", "yellow")
    return text


def _mailbox(box: dict[str, Any]) -> Text:
    text = Text().append(f"  {box['handled']:,} handled", "dim")
    if box["queued"] and box["overflow"] != "conflate":  # there one message stands for all that wait
        text.append(f", {box['queued']:,} of {box['size']:,} waiting", "yellow")
    dropped = dict(box["dropped"])
    if conflated := dropped.pop("conflated", 0):  # by design: one message stands for several
        text.append(f", {conflated:,} conflated", "dim")
    for reason, count in dropped.items():
        text.append(f", {count:,} dropped ({disarmed(reason)})")
    if box["lost_in_flight"]:
        text.append(f", {box['lost_in_flight']:,} lost in a crash")
    return text
