"""`status`: draws the supervision tree of a running daemon.

Rules of this file: drawing is pure. Text from the daemon is shown as text, never as markup or an escape code.
"""

from __future__ import annotations

import json as json_
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from dataflow.domain.secrets import concealed
from dataflow.logs.terminal import disarmed

from .common import Json, Token, Url, call, daemon_url
from .ends import Failure, Mistake

COLOURS = {
    "running": "green",
    "starting": "cyan",
    "backoff": "yellow",
    "stopping": "magenta",
    "done": "dim",
    "idle": "dim",
}
READY_COLOURS = {"ready": "green", "degraded": "yellow", "not ready": "red"}
UNWELL = ("refilling", "gapped", "stalled")  # states of symbols
BAD = ("lost", "rejected")
NOT_FOR_ME = (401, 403)  # only the operator sees the clients
PATIENT = 5.0  # seconds for which a client may take nothing before that is worth a word
LATE = 0.25  # seconds of the event loop's lag, likewise
_FULL = {"connection": 30, "quality": 30, "lag": 20, "errors": 20}  # points: what a part can earn
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
        raise Mistake(f"--interval must be more than 0 seconds, not {interval:g}")
    base = daemon_url(url)
    if json:
        for answer in _answers(base, token, interval if watch else None):
            print(json_.dumps(answer, ensure_ascii=False), flush=True)
    elif watch:
        _watch(base, token, interval, everything)
    else:
        Console().print(_look(base, token, everything))


def _answers(base: str, token: str | None, interval: float | None) -> Iterator[Any]:
    yield call("GET", f"{base}/actors", token)
    while interval is not None:
        time.sleep(interval)
        yield call("GET", f"{base}/actors", token)


def _look(base: str, token: str | None, everything: bool) -> Tree:
    ready = call("GET", f"{base}/ready", ok=(503,))
    status = call("GET", f"{base}/api/v1/status")
    clients = call("GET", f"{base}/api/v1/clients?limit=1", token, ok=NOT_FOR_ME)
    return draw(call("GET", f"{base}/actors", token), ready, base, status | clients, everything)


def _watch(base: str, token: str | None, interval: float, everything: bool) -> None:
    first, console = _look(base, token, everything), Console()
    if not console.is_terminal:  # a pipe gets one tree after the other
        for picture in _pictures(first, base, token, interval, everything):
            console.print(picture)
        return
    with Live(first, console=console, auto_refresh=False, screen=True) as live:
        for picture in _pictures(first, base, token, interval, everything):
            live.update(picture, refresh=True)


def _pictures(
    first: Tree, base: str, token: str | None, interval: float, everything: bool
) -> Iterator[Tree | Text]:
    yield first
    while True:
        time.sleep(interval)
        try:
            yield _look(base, token, everything)
        except (Failure, Mistake) as error:  # perhaps it restarts: keep watching
            yield Text(disarmed(concealed(str(error))), style="red")


def draw(
    node: dict[str, Any],
    ready: dict[str, Any],
    base: str,
    daemon: dict[str, Any],
    everything: bool = False,
) -> Tree:
    """The tree below `node` (an answer of GET /actors) under a headline from `ready` (of GET /ready).

    `daemon`: the answers of GET /api/v1/status and, for an operator, /api/v1/clients in one.
    """
    state = str(ready.get("status"))
    head = Text.assemble(
        "dataflow ", (concealed(base), "dim"), "  ", (state, READY_COLOURS.get(state, "red"))
    )
    for name in ("not_ready", "degraded"):
        if paths := ready.get(name):
            head.append(f"  {name.replace('_', ' ')}: {', '.join(map(disarmed, paths))}", "dim")
    head.append_text(_daemon(daemon))
    for symbol, told in (daemon.get("failover") or {}).items():
        head.append_text(_failover(symbol, told))
    tree = Tree(head, guide_style="dim")
    _grow(tree, node, everything)
    return tree


def _daemon(told: dict[str, Any]) -> Text:
    """Uptime and sessions; the lag of the event loop and clients that do not read stand out."""
    text = Text()
    text.append(f"\nup{age(told['uptime'])}, {told['sessions']:,} sessions", "dim")
    text.append(f", loop lag {1000 * told['loopLag']:.0f} ms", "yellow" if told["loopLag"] > LATE else "dim")
    outbox = told.get("outbox") or {}
    if (oldest := outbox.get("age")) is not None:
        waiting = f", clients have not taken {outbox['bytes']:,} bytes for{age(oldest)}"
        text.append(waiting, "red" if oldest > PATIENT else "dim")
    return text


def _failover(symbol: str, told: dict[str, Any]) -> Text:
    """A symbol with one source at a time: which one it is now, and the score of each with what it lacks."""
    names = list(told["sources"])
    is_away = bool(names) and told["active"] != names[0]
    text = Text(f"\n{disarmed(symbol)} from ", "dim")
    text.append(disarmed(told["active"]), "yellow" if is_away else "green")
    text.append(f" for{age(told['age'])}, {told['switches']:,} switches", "dim")
    for name, its in told["sources"].items():
        low = [f"{part} {points}" for part, points in its["parts"].items() if points < _FULL.get(part, 0)]
        words = f"{disarmed(its['state'])}{', '.join(['', *map(disarmed, low)])}"
        text.append(f"; {disarmed(name)} {its['score']} ({words})", "dim")
    return text


def _grow(tree: Tree, node: dict[str, Any], everything: bool) -> None:
    children = node.get("children") or []
    branch = tree if not node["path"] else tree.add(_label(node))
    shown = children if everything or node["kind"] != "pool" else children[:FEW]
    for child in shown:
        _grow(branch, child, everything)
    if hidden := children[len(shown) :]:
        states = Counter(child["state"] for child in hidden)
        more = ", ".join(f"{count} {state}" for state, count in states.items())
        branch.add(Text(f"and {more} more", style="dim"))


def _label(node: dict[str, Any]) -> Text:
    name = disarmed(str(node["path"]).rpartition("/")[2])
    label = Text.assemble((name, "bold"), "  ", (node["state"], COLOURS.get(node["state"], "")))
    label.append(age(node.get("age")), "dim")
    if node.get("restarts"):
        label.append(f"  {node['restarts']} restarts", "yellow")
    if node.get("delivered"):
        label.append(_delivered(node["delivered"]), "dim")
        label.append_text(_fare(node.get("quality") or {}))
    elif node.get("mailbox") and node["mailbox"]["accepted"]:  # many need none
        label.append_text(_mailbox(node["mailbox"]))
    if node.get("line"):
        label.append_text(_line(node["line"]))
    if node.get("last_error"):
        at = disarmed(str(node.get("last_error_at")))
        label.append(f"\n{at}: {disarmed(str(node['last_error']))}", "red")
    return label


def _line(told: dict[str, Any]) -> Text:
    """A connection to a source."""
    is_up = told["state"] == "connected"
    label = Text(f"  {disarmed(told['state'])}{age(told['age'])}", "dim" if is_up else "yellow")
    label.append(f", {told['symbols']:,} symbols", "dim")
    if told["replaces"] is not None:
        label.append(f", to take the place of line {told['replaces']}", "dim")
    return label


def _delivered(told: dict[str, Any]) -> str:
    ago = f", the last{age(told['age'])} ago" if told["age"] is not None else ""
    return f"  {told['trades']:,} trades{ago}"


def _fare(told: dict[str, Any]) -> Text:
    """How the symbols of a source fare; what is not well stands out."""
    text = Text()
    for state, count in (told.get("states") or {}).items():
        style = "yellow" if state in UNWELL else "red" if state in BAD else "dim"
        text.append(", " if text else "; symbols: ", "dim")
        text.append(f"{count:,} {disarmed(state)}", style)
    if told.get("missing"):
        text.append(f"; {told['missing']:,} places missing", "yellow")
    if told.get("lag") is not None:
        text.append(f"; lag {told['lag']:g} s", "dim")
    return text


def _mailbox(box: dict[str, Any]) -> Text:
    text = Text(f"  {box['handled']:,} handled", style="dim")
    if box["queued"] and box["overflow"] != "conflate":  # there one message stands for all that wait
        text.append(f", {box['queued']:,} of {box['size']:,} waiting", "yellow")
    dropped = dict(box["dropped"])
    if conflated := dropped.pop("conflated", 0):  # by design: one message stands for several
        text.append(f", {conflated:,} conflated")
    for reason, count in dropped.items():
        text.append(f", {count:,} dropped ({disarmed(reason)})", "red")
    if box["lost_in_flight"]:
        text.append(f", {box['lost_in_flight']:,} lost in a crash", "red")
    return text


def age(seconds: Any) -> str:
    """A duration in its two largest units, with a space before it; nothing for what is no number."""
    if not isinstance(seconds, int | float):
        return ""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    while len(units) > 1 and not units[0][0]:
        units.pop(0)
    return " " + " ".join(f"{count} {unit}" for count, unit in units[:2])
