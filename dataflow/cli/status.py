"""`status`: draws the supervision tree of a running daemon.

Rules of this file: drawing is pure. Text from the daemon is shown as text, never as markup or an escape code.
"""

from __future__ import annotations

import json as json_
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from dataflow.domain.secrets import concealed
from dataflow.logs.terminal import disarmed

from .common import Json, Url, call, daemon_url
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
FEW = 8  # children of a pool that are drawn; the others are only counted


def status(
    *,
    watch: Annotated[bool, Parameter(name=("--watch", "-w"))] = False,
    interval: float = 1.0,
    everything: Annotated[bool, Parameter(name=("--all", "-a"))] = False,
    url: Url = None,
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
        for answer in _answers(base, interval if watch else None):
            print(json_.dumps(answer, ensure_ascii=False), flush=True)
    elif watch:
        _watch(base, interval, everything)
    else:
        Console().print(_look(base, everything))


def _answers(base: str, interval: float | None) -> Iterator[Any]:
    yield call("GET", f"{base}/actors")
    while interval is not None:
        time.sleep(interval)
        yield call("GET", f"{base}/actors")


def _look(base: str, everything: bool) -> Tree:
    ready = call("GET", f"{base}/ready", ok=(503,))
    return draw(call("GET", f"{base}/actors"), ready, base, datetime.now(UTC), everything)


def _watch(base: str, interval: float, everything: bool) -> None:
    first, console = _look(base, everything), Console()
    if not console.is_terminal:  # a pipe gets one tree after the other
        for picture in _pictures(first, base, interval, everything):
            console.print(picture)
        return
    with Live(first, console=console, auto_refresh=False, screen=True) as live:
        for picture in _pictures(first, base, interval, everything):
            live.update(picture, refresh=True)


def _pictures(first: Tree, base: str, interval: float, everything: bool) -> Iterator[Tree | Text]:
    yield first
    while True:
        time.sleep(interval)
        try:
            yield _look(base, everything)
        except (Failure, Mistake) as error:  # perhaps it restarts: keep watching
            yield Text(disarmed(concealed(str(error))), style="red")


def draw(
    node: dict[str, Any], ready: dict[str, Any], base: str, now: datetime, everything: bool = False
) -> Tree:
    """The tree below `node` (an answer of GET /actors) under a headline from `ready` (of GET /ready)."""
    state = str(ready.get("status"))
    head = Text.assemble(
        "dataflow ", (concealed(base), "dim"), "  ", (state, READY_COLOURS.get(state, "red"))
    )
    for name in ("not_ready", "degraded"):
        if paths := ready.get(name):
            head.append(f"  {name.replace('_', ' ')}: {', '.join(map(disarmed, paths))}", "dim")
    tree = Tree(head, guide_style="dim")
    _grow(tree, node, now, everything)
    return tree


def _grow(tree: Tree, node: dict[str, Any], now: datetime, everything: bool) -> None:
    children = node.get("children") or []
    branch = tree if not node["path"] else tree.add(_label(node, now))
    shown = children if everything or node["kind"] != "pool" else children[:FEW]
    for child in shown:
        _grow(branch, child, now, everything)
    if hidden := children[len(shown) :]:
        states = Counter(child["state"] for child in hidden)
        more = ", ".join(f"{count} {state}" for state, count in states.items())
        branch.add(Text(f"and {more} more", style="dim"))


def _label(node: dict[str, Any], now: datetime) -> Text:
    name = disarmed(str(node["path"]).rpartition("/")[2])
    label = Text.assemble((name, "bold"), "  ", (node["state"], COLOURS.get(node["state"], "")))
    label.append(since(node.get("since"), now), "dim")
    if node.get("restarts"):
        label.append(f"  {node['restarts']} restarts", "yellow")
    if node.get("mailbox"):
        label.append_text(_mailbox(node["mailbox"]))
    if node.get("last_error"):
        label.append(f"\n{disarmed(str(node['last_error']))}", "red")
    return label


def _mailbox(box: dict[str, Any]) -> Text:
    text = Text(f"  {box['handled']:,} handled", style="dim")
    if box["queued"]:
        text.append(f", {box['queued']:,} of {box['size']:,} waiting", "yellow")
    dropped = dict(box["dropped"])
    if conflated := dropped.pop("conflated", 0):  # by design: one message stands for several
        text.append(f", {conflated:,} conflated")
    for reason, count in dropped.items():
        text.append(f", {count:,} dropped ({disarmed(reason)})", "red")
    if box["lost_in_flight"]:
        text.append(f", {box['lost_in_flight']:,} lost in a crash", "red")
    return text


def since(moment: Any, now: datetime) -> str:
    """The age of an RFC 3339 time, in its two largest units."""
    if not isinstance(moment, str):
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds % 60, "s")]
    while len(units) > 1 and not units[0][0]:
        units.pop(0)
    return " " + " ".join(f"{count} {unit}" for count, unit in units[:2])
