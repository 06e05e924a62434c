"""The tables: how they are made, and how a day is added and removed.

Rules of this file: SQL that defines, and no data. All names are found by the `search_path` of the connection,
so whoever gives the address of the database says in which of its schemas the history is. The trades of a day
of admission are a partition, or chunks of a hypertable where TimescaleDB is: dropping a day costs nothing.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from psycopg import Connection

FORMAT: Final = 1
OLDEST_SERVER: Final = 130000  # PostgreSQL 13 has FETCH FIRST ... WITH TIES

_TABLES: Final = """
CREATE TABLE meta(
    format int NOT NULL, epoch bigint NOT NULL, clean boolean NOT NULL, hypertable boolean NOT NULL);
CREATE TABLE days(day date PRIMARY KEY);
CREATE TABLE streams(symbol text PRIMARY KEY, last bigint NOT NULL);
CREATE TABLE epochs(symbol text, epoch bigint, first bigint NOT NULL, PRIMARY KEY(symbol, epoch));
CREATE TABLE trades(
    symbol text NOT NULL, place bigint NOT NULL, time timestamptz NOT NULL, side text,
    price numeric NOT NULL, quantity numeric NOT NULL, trade_id text, source text NOT NULL,
    sequence bigint, ns bigint NOT NULL, day date NOT NULL, exact bytea,
    PRIMARY KEY(symbol, place, day)) {partitions};
CREATE INDEX trades_by_time ON trades(symbol, time, place);
CREATE TABLE gaps(
    symbol text NOT NULL, first bigint NOT NULL, last bigint NOT NULL, reason text NOT NULL,
    counted boolean NOT NULL, source text, sequence bigint, day date NOT NULL, PRIMARY KEY(symbol, last));
CREATE TABLE bars(
    symbol text, width bigint, start bigint, rev int NOT NULL, data bytea NOT NULL, day date NOT NULL,
    PRIMARY KEY(symbol, width, start));
CREATE TABLE checkpoints(
    name text, symbol text, position bigint NOT NULL, data bytea NOT NULL, PRIMARY KEY(name, symbol));
COMMENT ON TABLE trades IS 'a row a trade; place: its number in the stream of the symbol';
COMMENT ON COLUMN trades.time IS 'the exchange''s time of the trade, to the microsecond; ns has the rest';
COMMENT ON COLUMN trades.day IS 'UTC day of admission';
COMMENT ON COLUMN trades.exact IS 'the whole trade, where a column cannot hold its digits or characters';
COMMENT ON TABLE gaps IS 'places without a trade';
COMMENT ON COLUMN gaps.counted IS 'a trade is missing at each place; else nobody knows how many';
"""


def create(connection: Connection[Any]) -> None:
    """Make the tables, empty, in the transaction in hand."""
    ((timescale,),) = connection.execute(
        "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"
    ).fetchall()
    for statement in _TABLES.split(";\n")[:-1]:
        connection.execute(statement.format(partitions="" if timescale else "PARTITION BY RANGE (day)"))
    if timescale:
        connection.execute("SELECT create_hypertable('trades', by_range('day', INTERVAL '1 day'))")
    connection.execute("INSERT INTO meta VALUES (%s, 0, true, %s)", (FORMAT, bool(timescale)))


def add_day(connection: Connection[Any], day: str, hypertable: bool) -> None:
    """Make room for the trades of this UTC day, in the transaction in hand."""
    if not hypertable:
        behind = date.fromisoformat(day) + timedelta(days=1)
        connection.execute(
            f"CREATE TABLE {partition(day)} PARTITION OF trades FOR VALUES FROM ('{day}') TO ('{behind}')"
        )
    connection.execute("INSERT INTO days VALUES (%s)", (day,))


def remove_day(connection: Connection[Any], day: str, hypertable: bool) -> None:
    """Remove the oldest day and all that was admitted on it, in the transaction in hand."""
    if hypertable:
        behind = date.fromisoformat(day) + timedelta(days=1)
        connection.execute("SELECT drop_chunks('trades', older_than => %s::date)", (behind.isoformat(),))
    else:
        connection.execute(f"DROP TABLE {partition(day)}")
    for table in ("gaps", "bars", "days"):
        connection.execute(f"DELETE FROM {table} WHERE day = %s", (day,))


def partition(day: str) -> str:
    """The name of the table with the trades of a day."""
    return f"trades_{day.replace('-', '')}"
