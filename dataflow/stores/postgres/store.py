"""The store: what is written, read and removed.

Rules of this file. One thread at a time writes. A batch is one transaction; what the writer knows changes
when COMMIT has returned. After an error the connection is made anew, the lock is taken again, and the server
is asked how far the streams are: so a COMMIT with an unknown end is written once. A statement sees one state,
so a reader never waits for the writer, nor meets half a batch. A fill puts trades in the place of a gap: the
rows of a stream never overlap. If the server lost what it had promised, the streams go on behind the same
places, and what is lost is a hole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from dataflow.cache.archive import (
    ArchiveFailed,
    BarRow,
    Batch,
    Checkpoint,
    Contents,
    Keep,
    Places,
    Run,
    StoredDay,
    StoredStream,
    Stream,
    Usage,
)
from dataflow.domain import Gap, Recorded, Trade
from dataflow.domain.errors import ConfigError
from dataflow.domain.timestamps import to_rfc3339
from dataflow.settings.schema import History

from . import schema
from .rows import GAP, GAP_COLUMNS, TRADE, TRADE_COLUMNS, gap_row, places, recorded, trade_row
from .server import Server

if TYPE_CHECKING:
    from .server import Connection

_AT_ONCE: Final = 500_000  # rows that are deleted in one transaction
_SPAN: Final = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9  # the years 1 to 9999, in ns

_BETWEEN: Final = f"""
(SELECT {TRADE} FROM trades WHERE symbol = %(symbol)s AND place > %(after)s AND place < %(below)s
 ORDER BY place LIMIT %(limit)s)
UNION ALL
(SELECT {GAP} FROM gaps WHERE symbol = %(symbol)s AND last > %(after)s AND last < %(below)s
 ORDER BY last LIMIT %(limit)s)
ORDER BY 1 LIMIT %(limit)s"""
_NEWEST: Final = f"""
WITH newest AS (SELECT {TRADE} FROM trades WHERE symbol = %(symbol)s AND place < %(below)s
 ORDER BY place DESC LIMIT %(count)s)
SELECT * FROM newest
UNION ALL
SELECT {GAP} FROM gaps WHERE symbol = %(symbol)s AND last < %(below)s
 AND last > (SELECT min(place) FROM newest)
ORDER BY 1"""
_FIRSTS: Final = """
SELECT symbol, least((SELECT min(place) FROM trades WHERE trades.symbol = streams.symbol),
 (SELECT min(first) FROM gaps WHERE gaps.symbol = streams.symbol)) FROM streams"""


class Store:
    """The history in the database of `[history]`. `clock`: seconds since the epoch."""

    damaged = 0  # the server answers for what it returns ...
    lost: Sequence[str] = ()  # ... and what it lost is a hole

    def __init__(self, settings: History, clock: Callable[[], float] = time.time) -> None:
        if not settings.dsn:
            raise ConfigError(['[history] dsn: store = "postgres" needs the address of a database'])
        self._server = Server(settings.dsn)
        self._clock = clock
        self._lock = Lock()
        self._connection: Connection | None = None
        self._is_open = False
        self._is_reading = False
        self._epoch = 0
        self._hypertable = False
        self._days: list[str] = []
        self._lasts: dict[str, int] = {}

    # -- open and close ----------------------------------------------------------------------------

    @classmethod
    def reading(cls, settings: History) -> Store:
        """One that only reads, also beside a daemon that writes: without a lock or a change.

        Its `open` raises ConfigError if there is nothing.
        """
        made = cls(settings)
        made._is_reading = made._server.is_patient = True
        return made

    def open(self) -> Contents:
        """As in `Archive`, like all methods here."""
        with self._lock:
            try:
                with self._server.failing():
                    self._server.open()
                    contents = self._look() if self._is_reading else self._take()
            except ArchiveFailed as error:
                self._close()
                raise ConfigError([f"[history] dsn: {error}"]) from None
            except BaseException:
                self._close()
                raise
            self._is_open = True
            return contents

    def _take(self) -> Contents:
        connection = self._connection = self._server.writer()
        if connection.info.server_version < schema.OLDEST_SERVER:
            raise ConfigError(["[history] dsn: the server is older than PostgreSQL 13"])
        if not _has_meta(connection):
            with connection.transaction():
                schema.create(connection)
        return self._contents(connection)

    def _look(self) -> Contents:
        with self._server.reading() as connection:
            if not _has_meta(connection):
                raise ConfigError([f"[history] dsn: there is no history in {self._server.name}"])
            return self._contents(connection)

    def _contents(self, connection: Connection) -> Contents:
        """Know how far everything is, and tell it."""
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            ((format, self._epoch, is_clean, self._hypertable),) = connection.execute(
                "SELECT format, epoch, clean, hypertable FROM meta"
            ).fetchall()
            if format != schema.FORMAT:
                found = f"{self._server.name} has format {format}, and this version reads {schema.FORMAT}"
                raise ConfigError([f"[history] dsn: {found}: use the version that wrote it"])
            self._load(connection)
            chains: dict[str, list[tuple[int, int]]] = {}
            for symbol, *link in connection.execute(
                "SELECT symbol, epoch, first FROM epochs ORDER BY symbol, epoch"
            ):
                chains.setdefault(symbol, []).append((link[0], link[1]))
            firsts = self._firsts(connection)
        streams = {
            symbol: Stream(firsts[symbol], last, tuple(chains[symbol]))
            for symbol, last in self._lasts.items()
        }
        return Contents(self._epoch, is_clean, streams)

    def _load(self, connection: Connection) -> None:
        days = connection.execute("SELECT day::text FROM days ORDER BY day").fetchall()
        self._days = [day for (day,) in days]
        for symbol, last in connection.execute("SELECT symbol, last FROM streams ORDER BY symbol"):
            self._lasts[symbol] = max(last, self._lasts.get(symbol, 0))

    def close(self, clean: bool) -> None:
        with self._lock:
            if self._is_open and clean and self._connection is not None:
                try:
                    with self._server.failing():
                        self._connection.execute("UPDATE meta SET clean = true")
                except ArchiveFailed:
                    pass  # it stays unclean, which is the truth
            self._close()

    def _close(self) -> None:
        self._is_open = False
        self._drop()
        self._server.close()
        self._lasts = {}

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- write -------------------------------------------------------------------------------------

    def begin(self, epoch: int) -> None:
        self._epoch = max(epoch, self._epoch)  # at once: if the end of COMMIT is unknown, it may be there
        with self._writing() as connection:
            ((stored,),) = connection.execute("SELECT epoch FROM meta").fetchall()
            connection.execute("UPDATE meta SET epoch = %s, clean = false", (epoch,))
            if epoch > stored:
                rows = [(symbol, epoch, last + 1) for symbol, last in self._lasts.items()]
                connection.cursor().executemany("INSERT INTO epochs VALUES (%s, %s, %s)", rows)

    def append(self, batch: Batch) -> None:
        lasts: dict[str, int] = {}
        day = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")
        with self._writing() as connection:
            if is_new := not self._days or self._days[-1] < day:
                schema.add_day(connection, day, self._hypertable)
            else:
                day = self._days[-1]  # also when the clock goes back
            self._put_runs(connection, batch.runs, lasts, day)
            self._put_rest(connection, batch, day)
        self._lasts.update(lasts)
        if is_new:
            self._days.append(day)

    def _put_runs(self, connection: Connection, runs: Sequence[Run], lasts: dict[str, int], day: str) -> None:
        trades: list[str] = []
        gaps: list[str] = []
        for run in runs:
            if run.is_fill:
                _copy(connection, trades, gaps)
                self._fill(connection, run)
                continue
            known = lasts.get(run.symbol, self._lasts.get(run.symbol))
            if known is None:
                connection.execute("INSERT INTO epochs VALUES (%s, %s, %s)", (run.symbol, self._epoch, 1))
            at = known or 0
            for last, entry in run.places:
                if last <= at:
                    continue
                if isinstance(entry, Gap):
                    gap = entry if entry.first > at else entry.part(at + 1, last)
                    gaps.append(gap_row(run.symbol, gap, day))
                else:
                    trades.append(trade_row(last, entry, day))
            lasts[run.symbol] = max(at, run.last)
        _copy(connection, trades, gaps)
        if lasts:
            connection.cursor().executemany(
                "INSERT INTO streams VALUES (%s, %s) ON CONFLICT (symbol) DO UPDATE SET last = excluded.last",
                list(lasts.items()),
            )

    def _fill(self, connection: Connection, run: Run) -> None:
        """Put trades where gaps are. They belong to the day of their gap, and go with it."""
        found = connection.execute(
            "SELECT first, last, reason, counted, source, sequence, day::text FROM gaps "
            "WHERE symbol = %s AND last >= %s AND first <= %s ORDER BY last",
            (run.symbol, run.first, run.last),
        ).fetchall()
        for *values, day in found:
            gap = Gap(*values)
            inside = [
                (place, entry)
                for place, entry in run.places
                if gap.first <= place <= gap.last and isinstance(entry, Trade)
            ]
            if not inside:
                continue
            connection.execute("DELETE FROM gaps WHERE symbol = %s AND last = %s", (run.symbol, gap.last))
            rest, at = list[str](), gap.first
            for place, _ in [*inside, (gap.last + 1, None)]:
                if place > at:
                    rest.append(gap_row(run.symbol, gap.part(at, place - 1), day))
                at = place + 1
            _copy(connection, [trade_row(place, entry, day) for place, entry in inside], rest)

    def _put_rest(self, connection: Connection, batch: Batch, day: str) -> None:
        cursor = connection.cursor()
        if batch.bars:
            cursor.executemany(
                "INSERT INTO bars VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (symbol, width, start) "
                "DO UPDATE SET rev = excluded.rev, data = excluded.data, day = excluded.day "
                "WHERE bars.rev < excluded.rev",
                [(bar.symbol, bar.width, bar.start, bar.rev, bar.data, day) for bar in batch.bars],
            )
        if batch.checkpoints:
            cursor.executemany(
                "INSERT INTO checkpoints VALUES (%s, %s, %s, %s) ON CONFLICT (name, symbol) "
                "DO UPDATE SET position = excluded.position, data = excluded.data",
                [(each.name, each.symbol, each.position, each.data) for each in batch.checkpoints],
            )

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction of the writer: when the block ends, it is on disk."""
        with self._lock, self._working():
            if self._is_reading:
                raise ArchiveFailed("this history was opened only to be read")
            try:
                if self._connection is None:
                    self._connection = self._again()
                with self._connection.transaction():
                    yield self._connection
            except BaseException:
                self._drop()
                raise

    def _again(self) -> Connection:
        """Connect after a failure, and find out what of the last batch is there."""
        try:
            connection = self._server.writer()
        except ConfigError as error:  # perhaps our own last connection, which the server still believes in
            raise ArchiveFailed("; ".join(error.problems)) from None
        try:
            if not _has_meta(connection):
                raise ArchiveFailed(f"the history has vanished from {self._server.name}")
            ((epoch,),) = connection.execute("SELECT epoch FROM meta").fetchall()
            if epoch > self._epoch:
                raise ArchiveFailed(
                    f"another daemon has written in {self._server.name}: start this one again"
                )
            self._load(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _working(self) -> Iterator[None]:
        if not self._is_open:
            raise ArchiveFailed("the history is closed")
        with self._server.failing():
            yield

    # -- read --------------------------------------------------------------------------------------

    def _ask(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        with self._working(), self._server.reading() as connection:
            return connection.execute(query, values, binary=True).fetchall()

    def behind(self, symbol: str, after: int, limit: int) -> Places:
        values = {"symbol": symbol, "after": _bounded(after), "below": _bounded(1 << 63)}
        return places(self._ask(_BETWEEN, **values, limit=_bounded(limit)))

    def newest(self, symbol: str, count: int, below: int) -> Places:
        return places(self._ask(_NEWEST, symbol=symbol, count=count, below=_bounded(below)))

    def gaps(self, symbol: str, below: int, limit: int) -> list[Gap]:
        query = (
            "SELECT first, last, reason, counted, source, sequence FROM gaps WHERE symbol = %(symbol)s "
            "AND last < %(below)s AND counted AND sequence IS NOT NULL ORDER BY last DESC LIMIT %(limit)s"
        )
        return [Gap(*row) for row in self._ask(query, symbol=symbol, below=_bounded(below), limit=limit)]

    def skip(self, symbol: str, after: int, start: int, end: int) -> int:
        query = (
            "SELECT coalesce((SELECT place - 1 FROM trades WHERE symbol = %(symbol)s AND place > %(after)s "
            "AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz ORDER BY place LIMIT 1), "
            "(SELECT last FROM streams WHERE symbol = %(symbol)s))"
        )
        ((to,),) = self._ask(
            query, symbol=symbol, after=_bounded(after), start=_moment(start), end=_moment(end)
        )
        return max(after, to or 0)

    def ascending(self, symbol: str, after: int, count: int, below: int) -> list[Recorded]:
        query = (
            f"SELECT {TRADE} FROM trades WHERE symbol = %(symbol)s AND time > %(after)s::timestamptz "
            "AND place < %(below)s ORDER BY time FETCH FIRST %(count)s ROWS WITH TIES"
        )
        return recorded(
            self._ask(query, symbol=symbol, after=_moment(after), below=_bounded(below), count=count)
        )

    def descending(self, symbol: str, before: int | None, count: int, below: int) -> list[Recorded]:
        bound = "" if before is None else "AND time < %(before)s::timestamptz "
        query = (
            f"SELECT {TRADE} FROM trades WHERE symbol = %(symbol)s {bound}"
            "AND place < %(below)s ORDER BY time DESC FETCH FIRST %(count)s ROWS WITH TIES"
        )
        moment = None if before is None else _moment(before)
        rows = self._ask(query, symbol=symbol, before=moment, below=_bounded(below), count=count)
        return recorded(rows)[::-1]

    def latest(self, symbol: str, below: int) -> int | None:
        query = (
            "SELECT ns FROM trades WHERE symbol = %(symbol)s AND place < %(below)s "
            "ORDER BY time DESC, ns DESC LIMIT 1"
        )
        rows = self._ask(query, symbol=symbol, below=_bounded(below))
        return rows[0][0] if rows else None

    def bars(self, symbol: str, width: int, start: int, end: int, limit: int) -> list[BarRow]:
        query = (
            "SELECT symbol, width, start, rev, data FROM bars "
            "WHERE symbol = %(symbol)s AND width = %(width)s AND start >= %(start)s AND start < %(end)s "
            "ORDER BY start LIMIT %(limit)s"
        )
        bounds = {"start": _bounded(start), "end": _bounded(end), "limit": limit}
        return [BarRow(*row) for row in self._ask(query, symbol=symbol, width=width, **bounds)]

    def checkpoints(self, name: str) -> dict[str, Checkpoint]:
        query = "SELECT name, symbol, position, data FROM checkpoints WHERE name = %(name)s"
        return {row[1]: Checkpoint(*row) for row in self._ask(query, name=name)}

    # -- keep --------------------------------------------------------------------------------------

    def retain(self, keep: Keep, today: str) -> Mapping[str, int]:
        oldest = (date.fromisoformat(today) - timedelta(days=keep.days - 1)).isoformat()
        with self._removing() as (connection, changed):
            while len(self._days) > 1 and self._days[0] < oldest:
                self._remove_oldest(connection)
            if keep.trades:
                _keep_trades(connection, self._lasts, keep.trades)
        return changed

    def make_room(self, today: str) -> Mapping[str, int] | None:
        with self._removing() as (connection, changed):
            if len(self._days) < 2 or self._days[0] >= today:
                return None
            self._remove_oldest(connection)
        return changed

    def _remove_oldest(self, connection: Connection) -> None:
        schema.remove_day(connection, self._days[0], self._hypertable)
        self._days = self._days[1:]

    @contextmanager
    def _removing(self) -> Iterator[tuple[Connection, dict[str, int]]]:
        changed: dict[str, int] = {}
        with self._writing() as connection:
            before = self._firsts(connection)
            yield connection, changed
            after = self._firsts(connection)
            changed.update({symbol: first for symbol, first in after.items() if first != before[symbol]})

    def _firsts(self, connection: Connection) -> dict[str, int]:
        """The oldest place of each symbol; behind its last one without any."""
        return {
            symbol: self._lasts[symbol] + 1 if first is None else first
            for symbol, first in connection.execute(_FIRSTS)
        }

    def usage(self) -> Usage:
        rows = self._ask(
            "SELECT (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relkind = 'r')::bigint, "
            "(SELECT min(day)::text FROM days)"
        )
        ((size, oldest),) = rows
        return Usage(size or 0, None, oldest)

    def days(self) -> list[StoredDay]:
        """What there is of each day, the oldest first. Reads all rows."""
        streams: dict[str, dict[str, StoredStream]] = {day: {} for day in self._days}
        for day, symbol, first, *values in self._ask(
            "SELECT day::text, symbol, min(first), max(last), count(*), count(ns), min(ns), max(ns), 0 FROM ("
            "SELECT day, symbol, place AS first, place AS last, ns FROM trades UNION ALL "
            "SELECT day, symbol, first, last, NULL FROM gaps) AS entries GROUP BY day, symbol ORDER BY 1, 2"
        ):
            streams.setdefault(day, {})[symbol] = StoredStream(first, *values)
        return [StoredDay(day, self._size(day), streams[day]) for day in sorted(streams)]

    def _size(self, day: str) -> int:
        """Bytes of the trades of a day, where they are a table."""
        ((size,),) = self._ask(
            "SELECT coalesce(pg_total_relation_size(to_regclass(%(name)s)), 0)", name=schema.partition(day)
        )
        return int(size)

    def verify(self) -> Sequence[str]:
        damage: list[str] = []
        for told, query in _CHECKS.items():
            try:
                rows = self._ask(query)
            except ArchiveFailed as error:
                damage.append(str(error))
                continue
            damage += [told.format(*row) for row in rows]
        return damage


# What must not be there: a line for people, and the rows that it tells of.
_CHECKS: Final = {
    "{0}: {1} rows lie behind its last place": (
        "SELECT symbol, count(*) FROM ("
        "SELECT symbol, place FROM trades UNION ALL SELECT symbol, last FROM gaps) AS entries "
        "LEFT JOIN streams USING (symbol) WHERE place > coalesce(last, 0) GROUP BY symbol"
    ),
    "{0}: place {1} is a trade and a gap": (
        "SELECT symbol, place FROM gaps JOIN trades USING (symbol) WHERE place BETWEEN first AND last "
        "LIMIT 10"
    ),
    "{0}: two gaps hold place {1}": (
        "SELECT symbol, first FROM (SELECT symbol, first, lag(last) OVER (PARTITION BY symbol ORDER BY last)"
        " AS before FROM gaps) AS pairs WHERE first <= before LIMIT 10"
    ),
    "{0}: place {1} holds two trades": (
        "SELECT symbol, place FROM trades GROUP BY symbol, place HAVING count(*) > 1 LIMIT 10"
    ),
    "{0}: the time of place {1} is not that of its nanoseconds": (
        "SELECT symbol, place FROM trades WHERE time <> 'epoch'::timestamptz + "
        "floor(ns / 1000.0) * INTERVAL '1 microsecond' LIMIT 10"
    ),
}


def _has_meta(connection: Connection) -> bool:
    ((name,),) = connection.execute("SELECT to_regclass('meta')::text").fetchall()
    return name is not None


def _copy(connection: Connection, trades: list[str], gaps: list[str]) -> None:
    """Write these rows, and empty the lists."""
    for table, columns, rows in (("trades", TRADE_COLUMNS, trades), ("gaps", GAP_COLUMNS, gaps)):
        if rows:
            with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                copy.write("".join(rows).encode())
            rows.clear()


def _keep_trades(connection: Connection, symbols: Mapping[str, int], count: int) -> None:
    for symbol in symbols:
        found = connection.execute(
            "SELECT place FROM trades WHERE symbol = %s ORDER BY place DESC OFFSET %s LIMIT 1",
            (symbol, count - 1),
        ).fetchone()
        oldest = connection.execute("SELECT min(place) FROM trades WHERE symbol = %s", (symbol,)).fetchone()
        if found is None or oldest is None or oldest[0] is None:
            continue
        first = min(found[0], oldest[0] + _AT_ONCE)
        connection.execute("DELETE FROM trades WHERE symbol = %s AND place < %s", (symbol, first))
        connection.execute("DELETE FROM gaps WHERE symbol = %s AND last < %s", (symbol, first))


def _bounded(value: int) -> int:
    """Within 64 bits."""
    return max(-(1 << 63), min(value, (1 << 63) - 1))


def _moment(ns: int) -> str:
    """A time as PostgreSQL reads it; those before and behind all times are the first and the last one."""
    return to_rfc3339(max(_SPAN[0], min(ns, _SPAN[1])))
