"""`dataflow history`: the history on disk, looked at, copied and moved.

Rules of this file: options and texts. `list`, `verify`, `export` and `backup` only read, also beside a daemon
that writes. `prune` and `import` write, and are refused while a daemon runs. What they say goes to standard
error, so that standard output has the result alone; `list`, `verify` and `prune` have nothing else to say.
"""

from __future__ import annotations

import json as json_
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from cyclopts import App, Parameter
from rich.prompt import Confirm

from dataflow.cache.archive import Keep

from .. import examples
from ..common import Json
from ..daemon import Config
from ..ends import Mistake, wrong
from ..progress import progress, waiting
from . import exporting, importing
from .listing import as_json, counted, told
from .places import copies, in_files, lines, named, reading, writing

Directory: TypeAlias = Annotated[
    Path | None,
    Parameter(
        name=("--directory", "-d"), help="The folder of the history. [default: as the configuration says]"
    ),
]
Dsn: TypeAlias = Annotated[
    str | None,
    Parameter(
        help="The PostgreSQL database of the history. A password belongs into the file of PGPASSFILE.",
        show_default=False,
    ),
]
Moment: TypeAlias = Annotated[str | None, Parameter(show_default=False)]


def list_(*, directory: Directory = None, dsn: Dsn = None, config: Config = None, json: Json = False) -> None:
    """What there is: of each day and symbol the places, trades, gaps, bytes and times.

    A gap counts once, however many trades are missing in it, and also
    when it was filled later.
    """
    with reading(named(config, directory, dsn)) as (store, contents):
        days = store.days()
        size = store.usage().size
        if json:
            print(json_.dumps(as_json(days, contents, size), ensure_ascii=False))
        else:
            print(told(days, contents, size))


def verify(*, directory: Directory = None, dsn: Dsn = None, config: Config = None) -> int:
    """Read every block of every day, and name what is damaged.

    Exit code 1 if anything is. A damaged part is a gap for clients; all
    else is served.
    """
    with reading(named(config, directory, dsn)) as (store, contents):
        with waiting("reading everything"):
            damage = [*contents.damage, *store.verify()]
        days = store.days()
    trades = sum(stream.trades for day in days for stream in day.streams.values())
    read = ", ".join(
        (counted(len(days), "day"), counted(len(contents.streams), "symbol"), counted(trades, "trade"))
    )
    print("\n".join([*damage, f"DAMAGED: {len(damage)} parts of {read}"]) if damage else f"fine: {read}")
    return 1 if damage else 0


def export(
    *symbols: str,
    from_: Annotated[Moment, Parameter(name="--from")] = None,
    to: Moment = None,
    format: exporting.Format | None = None,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    directory: Directory = None,
    dsn: Dsn = None,
    config: Config = None,
) -> None:
    """Trades and gaps as a table, every digit kept, in constant memory.

    The columns are those of REST: the names of the JSON fields. A gap
    is a row of its own. Times are to the microsecond. For Parquet:
    pip install "dataflow[parquet]".

    Parameters
    ----------
    symbols
        Symbols to export, one after another. [default: all]
    from_
        Trades from this time on: 2026-11-27 or 2026-11-27T12:00:00Z.
    to
        Trades before this time.
    format
        csv, jsonl or parquet. [default: by the name of the output, else csv]
    output
        The file to write. [default: standard output]
    """
    start, end = exporting.moment("--from", from_), exporting.moment("--to", to)
    if start is not None and end is not None and start > end:
        raise Mistake("--to must not be before --from")
    wanted = format or exporting.format_of(output)
    with reading(named(config, directory, dsn)) as (store, contents):
        found = exporting.find(symbols, contents)
        exporting.export(store, contents, found, (start, end), wanted, output)


def prune(
    *,
    before: Annotated[str | None, Parameter(show_default=False)] = None,
    keep_days: int | None = None,
    keep_trades: int | None = None,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False,
    directory: Directory = None,
    dsn: Dsn = None,
    config: Config = None,
) -> int:
    """Remove what is old. Refused while a daemon runs: that one has [history] keep_days and keep_trades.

    The newest day always stays: it knows where the streams go on.

    Parameters
    ----------
    before
        Remove the days before this one, such as 2026-11-27 (UTC).
    keep_days
        Keep so many days, today included.
    keep_trades
        Keep so many trades of each symbol, and a few more.
    yes
        Do not ask.
    """
    today = datetime.now(UTC).date()
    oldest = _oldest(today, before, keep_days)
    if oldest is None and keep_trades is None:
        raise Mistake("prune needs --before, --keep-days or --keep-trades")
    if keep_trades is not None and keep_trades < 1:
        raise wrong("--keep-trades", keep_trades, "at least 1")
    with writing(named(config, directory, dsn)) as (store, _contents):
        old = [day for day in store.days()[:-1] if oldest is not None and day.name < oldest.isoformat()]
        parts = [f"{day.name} ({day.size:,} bytes)" for day in old]
        if keep_trades is not None:
            parts.append(f"of each symbol all trades but the newest {keep_trades:,}")
        if not parts:
            print("nothing is that old")
            return 0
        if not (yes or _agreed(f"remove {', '.join(parts)}?")):
            return 1
        size = store.usage().size
        days = (today - oldest).days + 1 if oldest is not None else _FOREVER
        with waiting("removing"):
            store.retain(Keep(days, keep_trades or 0, 0), today.isoformat())
        print(f"removed {', '.join(parts)}: {size - store.usage().size:,} bytes are free again")
    return 0


_FOREVER = 200_000  # days


def _oldest(today: date, before: str | None, keep_days: int | None) -> date | None:
    """The first day that stays."""
    if before is not None and keep_days is not None:
        raise Mistake("--before and --keep-days say the same in two ways: give one of them")
    if keep_days is not None:
        if not 1 <= keep_days <= _FOREVER:
            raise wrong("--keep-days", keep_days, f"1 to {_FOREVER}")
        return today - timedelta(days=keep_days - 1)
    if before is None:
        return None
    try:
        oldest = date.fromisoformat(before)
    except ValueError:
        raise wrong("--before", before, "a day such as 2026-11-27") from None
    if oldest > today:
        raise wrong("--before", before, "today or a day before")
    return oldest


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Mistake(f"would {question.rstrip('?')}: say --yes, there is nobody to ask")
    return Confirm.ask(question, default=False)


def backup(target: Path, /, *, directory: Directory = None, dsn: Dsn = None, config: Config = None) -> None:
    """Copy the history into a new directory, also while a daemon writes it.

    The copy is the history up to one moment, and can be used like the
    original. Of a history in PostgreSQL `pg_dump` makes copies.

    Parameters
    ----------
    target
        A directory that is new or empty.
    """
    with reading(named(config, directory, dsn)) as (store, _contents):
        copy = copies(store, "backup", "pg_dump")
        with progress("copying", sum(day.size for day in store.days())) as tell:
            copy(target, tell)
        print(f"copied {counted(len(store.days()), 'day')} to {target}", file=sys.stderr)


def restore(source: Path, /, *, directory: Directory = None, dsn: Dsn = None, config: Config = None) -> None:
    """Put a backup into the directory of the history, which must be empty.

    Everything in the backup is read and checked before. The daemon
    takes a new epoch behind it: whoever has seen later trades is told
    to drop them.

    Parameters
    ----------
    source
        A directory that `dataflow history backup` has made.
    """
    place = named(config, directory, dsn)
    if place.keys.store != "sqlite":
        raise Mistake("only a history in files can be restored: use pg_restore for PostgreSQL")
    with reading(in_files(source, str(source))) as (store, contents):
        with waiting("checking the backup"):
            damage = [*contents.damage, *store.verify()]
        if damage:
            raise Mistake("\n".join([*damage, f"{source} is damaged: nothing was restored"]))
        with progress("copying", sum(day.size for day in store.days())) as tell, lines():
            copies(store, "restore", "pg_restore")(Path(place.keys.directory), tell)
        print(f"restored {counted(len(store.days()), 'day')} in {place.keys.directory}", file=sys.stderr)


def import_(
    *files: str | Path,  # a text always: that it may be a path is for the completion of shells
    source: Annotated[str | None, Parameter(show_default=False)] = None,
    symbol: Annotated[str | None, Parameter(show_default=False)] = None,
    names: importing.Names = None,
    directory: Directory = None,
    dsn: Dsn = None,
    config: Config = None,
) -> None:
    """Append trades and gaps from files, or from another history, in their order.

    Files have the columns of `dataflow history export` (CSV or JSON
    lines), or trade_id,timestamp_us,symbol,side,price,qty; also with
    .gz. They are checked to the end before anything is written. A trade
    whose source and id are there already is left out, so an import that
    was interrupted can be repeated. The places go on behind those that
    are stored, in a new epoch. Refused while a daemon runs.

    Parameters
    ----------
    files
        Files; or the directory or the postgresql:// address of a history.
    source
        The source of trades without one.
    symbol
        The symbol of rows without one.
    """
    if not files:
        raise Mistake("import needs a file, such as `dataflow history import trades.csv`")
    place = named(config, directory, dsn)
    origins = importing.origins([str(file) for file in files], source, symbol, names or {}, place.keys)
    with lines(), writing(place) as (store, contents):
        print(importing.run(origins, store, contents), file=sys.stderr)


# name, function, one line of help, examples
HISTORY: tuple[tuple[Any, ...], ...] = (
    (
        "list",
        list_,
        "What there is, by day and symbol.",
        "dataflow history list",
        "dataflow history list --json | jq .days",
    ),
    ("verify", verify, "Read everything, and name what is damaged.", "dataflow history verify"),
    (
        "export",
        export,
        "Trades and gaps as CSV, JSON lines or Parquet.",
        "dataflow history export BTC-USD --from 2026-11-27 | gzip > trades.csv.gz",
        "dataflow history export --format parquet --output trades.parquet",
    ),
    (
        "prune",
        prune,
        "Remove what is old.",
        "dataflow history prune --before 2026-11-01",
        "dataflow history prune --keep-trades 1000000 --yes",
    ),
    (
        "backup",
        backup,
        "Copy the history, also while a daemon writes it.",
        "dataflow history backup /backups/monday",
    ),
    (
        "restore",
        restore,
        "Put a backup into an empty directory.",
        "dataflow history restore /backups/monday --directory data",
    ),
    (
        "import",
        import_,
        "Append trades from files or from another history.",
        "dataflow history import trades.csv --source binance --names.BTCUSDT BTC-USDT",
        "dataflow history import old/data --directory data",
    ),
)
app = App(name="history", help_epilogue=examples(*(each for _, _, _, *shown in HISTORY for each in shown)))
for _name, _function, _help, *_shown in HISTORY:
    app.command(_function, name=_name, help_epilogue=examples(*_shown))
