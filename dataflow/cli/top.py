"""`top`: the busiest sources, topics or clients of a running daemon, live.

Rules of this file: `VIEWS` alone says which columns there are. Rows are made and drawn without I/O. What a
client is sent in a second is the difference between two looks, so the first look does not know it. Text from
the daemon is shown as text, never as markup or an escape code.
"""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Annotated, Any, Final, Literal

from attrs import define, field, frozen
from cyclopts import Parameter
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dataflow.domain.secrets import concealed
from dataflow.logs.terminal import disarmed

from .common import Json, Token, Url, call, daemon_url
from .ends import wrong
from .keys import single_keys, without_keys
from .picture import LINK_COLOURS, can_redraw
from .progress import waiting
from .watching import Said, Watched
from .words import UNKNOWN, age, lag, rate, several, share, size

Row = dict[str, Any]
By = Literal["source", "topic", "client"]

MOST: Final = 1_000  # clients: of more the daemon names those that have most of what is sorted by
WIDE: Final = 1_000  # columns: no row of a pipe is cut
PAGE: Final = 200  # clients, and topics, in one answer
_MOST: Final = {  # title of a column -> what the daemon calls it
    "sent/s": "rate",
    "waiting": "waiting",
    "oldest": "oldest",
    "dropped": "dropped",
    "sent": "sent",
}
_WORST: Final = ("rejected", "lost", "stalled", "gapped", "refilling", "quiet", "live", "standby", "idle")


@frozen
class Column:
    """`key`: of the row. `shown`: the text of a value. `order`: what sorts it, if it `falls` downwards."""

    title: str
    key: str
    shown: Callable[[Any], str]
    falls: bool = True
    right: bool = True
    order: Callable[[Any], Any] = lambda value: value


@frozen
class View:
    """One of the tables. A narrow terminal shows only the first of its columns.

    `sort`: the title of the column that sorts, unless the user wants another one.
    """

    columns: Sequence[Column]
    sort: str


def _text(title: str, key: str, *, falls: bool = False) -> Column:
    return Column(title, key, lambda value: disarmed(str(value or "")), falls, right=False)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else UNKNOWN


def _states(value: Mapping[str, int]) -> str:
    return ", ".join(f"{value[state]:,} {disarmed(state)}" for state in sorted(value, key=_urgency))


def _urgency(state: str) -> int:
    """A state that this command does not know comes first."""
    return _WORST.index(state) if state in _WORST else -1


def _worst(states: Mapping[str, int]) -> int:
    return min(map(_urgency, states), default=len(_WORST))


VIEWS: Final[Mapping[str, View]] = {
    "source": View(
        (
            _text("source", "name"),
            _text("state", "state", falls=True),  # by luck of the alphabet, the lost ones first
            Column("trades/s", "rate", rate),
            Column("lag", "lag", lag),
            Column("symbols", "symbols", _states, falls=False, right=False, order=_worst),
            Column("last", "lastAge", lag),
            Column("for", "age", age),
            Column("trades", "trades", _count),
            Column("score", "score", _count, falls=False),
            Column("used", "used", share),
            _text("why", "reason"),
        ),
        "trades/s",
    ),
    "topic": View(
        (
            _text("topic", "topic"),
            Column("entries/s", "rate", rate),
            Column("subscribers", "subscribers", _count),
            Column("offset", "offset", _count),
        ),
        "entries/s",
    ),
    "client": View(
        (
            Column("id", "id", _count, falls=False),
            _text("address", "address"),
            Column("sent/s", "rate", rate),
            Column("waiting", "waiting", size),
            Column("oldest", "oldest", lag),
            Column("dropped", "dropped", _count),
            _text("protocol", "protocol"),
            Column("follows", "follows", _count),
            Column("for", "age", age),
            Column("sent", "sent", _count),
            _text("program", "userAgent"),
        ),
        "sent/s",
    ),
}
_KEYS: Final = {name[0]: name for name in VIEWS}
HELP: Final = "keys: " + "  ".join(f"{key} {name}s" for key, name in _KEYS.items()) + "  q quit"


def top(
    *,
    by: Annotated[By, Parameter(help="What a row is.")] = "source",
    sort: str | None = None,
    limit: Annotated[int | None, Parameter(name=("--limit", "-n"))] = None,
    interval: float = 1.0,
    once: bool = False,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """The busiest sources, topics or clients of a running daemon, live.

    On a terminal the keys s, t and c switch between sources, topics and
    clients, and q ends it. Topics and clients are for the operator.

    Parameters
    ----------
    sort
        Title of the column that sorts, such as lag; the most urgent first.
        [default: the busiest first]
    limit
        Show so many rows. [default: as many as there is room for]
    interval
        Seconds between two looks.
    once
        One look, then end: for scripts.
    """
    if not interval > 0:
        raise wrong("--interval", f"{interval:g}", "more than 0 seconds")
    if limit is not None and limit < 1:
        raise wrong("--limit", limit, "at least 1")
    look = Look(daemon_url(url), token, by, sort, limit)
    look.check()
    if once:
        _write(look, once, json, interval)
        return
    with suppress(KeyboardInterrupt):  # the usual end
        if json:
            _write(look, once, json, interval)
        else:
            _watch(look, interval)


@frozen
class Seen:
    """The result of one look: the sorted rows, how many there are in all, and the state of the daemon."""

    by: str
    rows: Sequence[Row]
    total: int
    daemon: Row


@define
class Look:
    """The question that is asked at each look."""

    base: str
    token: str | None
    by: str
    sort: str | None = None
    limit: int | None = None
    _before: dict[str, tuple[float, int]] = field(factory=dict)  # client -> when it had been sent so many

    def check(self) -> None:
        """Raises Mistake if the view has no such column."""
        titles = [column.title for column in VIEWS[self.by].columns]
        if self.sort is not None and self.sort not in titles:
            raise wrong("--sort", self.sort, f"one of {', '.join(titles)}")

    def ask(self) -> Seen:
        """One look. Raises Mistake or Failure."""
        by, sort = self.by, self.sort  # a key may change them meanwhile
        daemon = call("GET", f"{self.base}/api/v1/status")
        if by == "source":
            found = [source_row(name, told) for name, told in daemon["sources"].items()]
            total = len(found)
        elif by == "topic":
            answer = call("GET", f"{self.base}/api/v1/topics?limit={PAGE}", self.token)
            found, total = [topic_row(told) for told in answer["topics"]], answer["total"]
        else:
            found, total = self._clients(sort)
        return Seen(by, in_order(found, by, sort)[: self.limit], total, daemon)

    def _clients(self, sort: str | None) -> tuple[list[Row], int]:
        most = _MOST.get(sort or VIEWS["client"].sort)
        page = self._page("after=0")
        if page["total"] > MOST and most is not None:
            page = self._page(f"most={most}") | {"next": None}
        found = [client_row(told) for told in page["clients"]]
        while page["next"] is not None and len(found) < MOST:
            page = self._page(f"after={page['next']}")
            found += [client_row(told) for told in page["clients"]]
        total = page["total"]
        now, before = monotonic(), self._before
        for row in found:
            at, sent = before.get(str(row["id"]), (None, 0))
            if at is not None and now > at:
                row["rate"] = (row["sent"] - sent) / (now - at)
        self._before = {str(row["id"]): (now, row["sent"]) for row in found}
        return found, total

    def _page(self, which: str) -> Row:
        page: Row = call("GET", f"{self.base}/api/v1/clients?limit={PAGE}&{which}", self.token)
        return page


# -- rows ---------------------------------------------------------------------------------------------


def source_row(name: str, told: Row) -> Row:
    """From one source of GET /api/v1/status. `used`: the share of the fullest bound of its upstream."""
    delivered, quality = told.get("delivered") or {}, told.get("quality") or {}
    used = [each["used"] / each["limit"] for each in told.get("bounds") or () if each.get("limit")]
    producers = told.get("producers")
    return {
        "name": name,
        "state": told["state"],
        "age": told.get("age"),
        "reason": told.get("reason") or (None if producers is None else several(producers, "producer")),
        "producers": producers,
        "rate": delivered.get("rate"),
        "trades": delivered.get("trades"),
        "lastAge": delivered.get("age"),
        "lag": quality.get("lag"),
        "score": (told.get("score") or {}).get("score"),
        "used": max(used, default=None),
        "symbols": quality.get("states") or {},
    }


def topic_row(told: Row) -> Row:
    """From one topic of GET /api/v1/topics."""
    names = (told["channel"], told["symbol"], told.get("variant"))
    numbers = {key: told.get(key) for key in ("rate", "subscribers", "offset")}
    return {"topic": ":".join(str(name) for name in names if name is not None), **numbers}


def client_row(told: Row) -> Row:
    """From one client of GET /api/v1/clients. `rate`: not known from one look."""
    outbox = told.get("outbox") or {}
    same = ("id", "address", "protocol", "userAgent", "age", "sent", "dropped")
    return {key: told.get(key) for key in same} | {
        "rate": None,
        "follows": len(told.get("follows") or ()),
        "waiting": outbox.get("bytes"),
        "oldest": outbox.get("age"),
    }


def in_order(rows: Sequence[Row], by: str, sort: str | None) -> list[Row]:
    """Sorted by one column. What is not known comes last."""
    view = VIEWS[by]
    chosen = next(column for column in view.columns if column.title == (sort or view.sort))
    known = sorted(
        (row for row in rows if row[chosen.key] is not None),
        key=lambda row: chosen.order(row[chosen.key]),
        reverse=chosen.falls,
    )
    return [*known, *(row for row in rows if row[chosen.key] is None)]


# -- pictures -----------------------------------------------------------------------------------------


def table(rows: Sequence[Row], by: str, width: int | None = None) -> Table:
    """The rows as a table without a frame. `width`: of the terminal; columns beyond it are left out."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    made: list[list[Text]] = []
    for column in VIEWS[by].columns:
        cells = [_cell(column, row[column.key]) for row in rows]
        need = max(cell_len(column.title), *(cell.cell_len for cell in cells), 0)
        if width is not None and made and need > width:
            break
        width = None if width is None else width - need - 2
        made.append(cells)
        drawn.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    for each in zip(*made, strict=True):
        drawn.add_row(*each)
    return drawn


def _cell(column: Column, value: Any) -> Text:
    shown = UNKNOWN if value is None and column.right else column.shown(value)
    return Text(shown, LINK_COLOURS.get(shown, "") if column.key == "state" else "")


def headline(told: Row, base: str) -> Text:
    """The daemon, and what all of it does. `told`: its status."""
    text = Text.assemble("dataflow ", (concealed(base), "dim"))
    text.append(f"  {rate(told.get('rate'))} trades/s in, {rate(told.get('sentRate'))} entries/s out, ")
    text.append(f"{several(told['sessions'], 'session')}, CPU {share(told.get('cpu'))}, ")
    text.append(f"memory {size(told.get('memory'))}, loop lag {lag(told['loopLag'])}")
    return text


def picture(
    seen: Seen, base: str, console: Console, *, live: bool = False, keys: bool = False, old: str = ""
) -> Group:
    """One look. A `live` one gets no more rows than the terminal has. `keys`: the last row explains them.
    `old`: why it is not of now."""
    width = console.width if console.is_terminal else None
    note = Text(old, "red")
    taken = 4 + keys + (0 if width is None else len(note.wrap(console, width)) - 1)
    room = max(0, console.height - taken) if live else len(seen.rows)
    above, rows = [headline(seen.daemon, base)], seen.rows[:room]
    below: list[Text] = []
    if (hidden := seen.total - len(rows)) > 0:
        below.append(Text(f"and {several(hidden, f'more {seen.by}')}", "dim"))
    elif not rows:
        below.append(Text(f"no {seen.by}s", "dim"))
    if keys:
        below.append(Text(HELP, "dim"))
    for part in (*above, *below):
        part.no_wrap, part.overflow = True, "ellipsis"
    return Group(*above, note, table(rows, seen.by, width), *below)


def _write(look: Look, once: bool, json: bool, interval: float) -> None:
    """For scripts: one look after the other, without keys. A pipe gets whole rows, however long they are."""
    console = _console()
    while True:
        seen = look.ask()
        if json:
            told = {"by": seen.by, "total": seen.total, f"{seen.by}s": seen.rows}
            print(json_.dumps(told, ensure_ascii=False), flush=True)
        else:
            console.print(picture(seen, look.base, console))
        if once:
            return
        without_keys(interval)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def _watch(look: Look, interval: float) -> None:
    with waiting(f"waiting for {concealed(look.base)}"):
        watched = Watched(look.ask, Said(look.ask()))
    console = _console()
    if not can_redraw(console):
        return _go_on(watched, look.base, console, interval)
    with single_keys() as (pressed, has_keys), Live(console=console, auto_refresh=False, screen=True) as live:
        said = watched.said
        while True:
            live.update(
                picture(said.answer, look.base, console, live=True, keys=has_keys, old=said.old), refresh=True
            )
            key = pressed(interval)
            if key == "q":
                return None
            if key in _KEYS and _KEYS[key] != look.by:
                look.by, look.sort = _KEYS[key], None
            said = watched.look()


def _go_on(watched: Watched[Seen], base: str, console: Console, interval: float) -> None:
    """One look after the other, for ever. The last answer stands above the trouble already."""
    for said in watched.looks(partial(without_keys, interval)):
        console.print(picture(said.answer, base, console) if said.trouble is None else Text(said.trouble))
