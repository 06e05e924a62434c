"""`top`: the busiest sources, topics or clients of a running daemon, live.

Rules of this file: `VIEWS` alone says which columns there are. Rows are made and drawn without I/O. What a
client is sent in a second is the difference between two looks, so the first look does not know it. Text from
the daemon is shown as text, never as markup or an escape code.
"""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from .ends import Failure, Mistake, wrong
from .keys import single_keys, without_keys
from .picture import LINK_COLOURS, can_redraw
from .progress import waiting
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


@define
class Look:
    """What is looked at, and what the last look has seen. `live`: on a screen, and cut to it."""

    base: str
    token: str | None
    by: str
    sort: str | None = None
    limit: int | None = None
    live: bool = False
    daemon: Row = field(factory=dict)
    _before: dict[str, tuple[float, int]] = field(factory=dict)  # client -> when it had been sent so many

    def check(self) -> None:
        """Raises Mistake if the view has no such column."""
        titles = [column.title for column in VIEWS[self.by].columns]
        if self.sort is not None and self.sort not in titles:
            raise wrong("--sort", self.sort, f"one of {', '.join(titles)}")

    def rows(self) -> tuple[list[Row], int]:
        """The sorted rows, and how many there are in all. Raises Mistake or Failure."""
        self.daemon = call("GET", f"{self.base}/api/v1/status")
        if self.by == "source":
            found = [source_row(name, told) for name, told in self.daemon["sources"].items()]
            total = len(found)
        elif self.by == "topic":
            answer = call("GET", f"{self.base}/api/v1/topics?limit={PAGE}", self.token)
            found, total = [topic_row(told) for told in answer["topics"]], answer["total"]
        else:
            found, total = self._clients()
        found = in_order(found, self.by, self.sort)
        return (found if self.limit is None else found[: self.limit]), total

    def _clients(self) -> tuple[list[Row], int]:
        most = _MOST.get(self.sort or VIEWS["client"].sort)
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


def headline(look: Look) -> Text:
    """The daemon, and what all of it does."""
    told = look.daemon
    text = Text.assemble("dataflow ", (concealed(look.base), "dim"))
    text.append(f"  {rate(told.get('rate'))} trades/s in, {rate(told.get('sentRate'))} entries/s out, ")
    text.append(f"{several(told['sessions'], 'session')}, CPU {share(told.get('cpu'))}, ")
    text.append(f"memory {size(told.get('memory'))}, loop lag {lag(told['loopLag'])}")
    return text


def picture(look: Look, console: Console, keys: bool = False) -> Group:
    """One look. A live one gets no more rows than the terminal has. `keys`: the last row explains them."""
    rows, total = look.rows()
    width = console.width if console.is_terminal else None
    room = max(0, console.height - 4 - keys) if keys or look.live else len(rows)
    parts: list[Table | Text] = [headline(look), Text(), table(rows[:room], look.by, width)]
    if (hidden := total - min(room, len(rows))) > 0:
        parts.append(Text(f"and {several(hidden, f'more {look.by}')}", "dim"))
    elif not rows:
        parts.append(Text(f"no {look.by}s", "dim"))
    if keys:
        parts.append(Text(HELP, "dim"))
    for part in parts:
        if isinstance(part, Text):
            part.no_wrap, part.overflow = True, "ellipsis"
    return Group(*parts)


def _write(look: Look, once: bool, json: bool, interval: float) -> None:
    """For scripts: one look after the other, without keys. A pipe gets whole rows, however long they are."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    for _ in _looks(once, interval):
        if json:
            rows, total = look.rows()
            told = {"by": look.by, "total": total, f"{look.by}s": rows}
            print(json_.dumps(told, ensure_ascii=False), flush=True)
        else:
            console.print(picture(look, console))


def _looks(once: bool, interval: float) -> Iterator[None]:
    yield
    while not once:
        without_keys(interval)
        yield


def _watch(look: Look, interval: float) -> None:
    console = Console()
    if not can_redraw(console):
        return _write(look, once=False, json=False, interval=interval)
    look.live = True
    with waiting(f"waiting for {concealed(look.base)}"):
        shown: Group | Text = picture(look, console)
    with single_keys() as (pressed, has_keys), Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(shown, refresh=True)
            key = pressed(interval)
            if key == "q":
                return None
            if key in _KEYS and _KEYS[key] != look.by:
                look.by, look.sort = _KEYS[key], None
            try:
                shown = picture(look, console, has_keys)
            except (Failure, Mistake) as error:  # perhaps it restarts, or the view is not for everybody
                shown = Text(f"{disarmed(concealed(str(error)))}\n\n{HELP if has_keys else ''}", "red")
