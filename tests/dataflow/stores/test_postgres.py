"""PostgreSQL as a store: what a person with psql finds, who may write, and what a dying server costs."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dataflow.stores
from dataflow.cache.archive import ArchiveFailed, Batch, Keep, Run
from dataflow.domain import Gap, Trade
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import History
from dataflow.stores import postgres
from tests.support.memory_archive import MemoryArchive
from tests.support.postgres import schema, with_path

from .shelf import DAY, US, Shelf, entries, gap, run, trade

SYMBOL = "BTC-USD"
EVER = 1 << 60


@pytest.fixture
def dsn(server: Any) -> str:
    return schema(server)


def opened(dsn: str, epoch: int = 7) -> Shelf:
    shelf = Shelf(lambda shelf: postgres.Store(History(store="postgres", dsn=dsn), lambda: shelf.now))
    shelf.archive.begin(epoch)
    return shelf


@pytest.fixture
def shelf(dsn: str) -> Iterator[Shelf]:
    made = opened(dsn)
    yield made
    made.archive.close(False)


# Many examples have one shelf, each with a symbol of its own. Not one for all tests: others cut all connections.
of_all_examples = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

_numbers = itertools.count(1)


def sql(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a statement; none for one without."""
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        cursor = connection.execute(query)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


# -- rows ----------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=9)
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=None)


@given(
    values=st.lists(
        st.tuples(TEXTS, st.none() | TEXTS, st.sampled_from(["buy", "sell", None]), NUMBERS, NUMBERS),
        min_size=1,
        max_size=5,
    ),
    times=st.lists(st.integers(-(10**18), 4 * 10**18), min_size=5, max_size=5),
    sequence=st.none() | st.integers(0, (1 << 64) - 1),
)
@settings(of_all_examples, max_examples=40)
def test_everything_comes_back_exactly(
    shelf: Shelf, values: list[Any], times: list[int], sequence: int | None
) -> None:
    """Any text, any digits, any time: also those that a column cannot hold."""
    symbol = f"X-{next(_numbers)}"
    trades = [
        Trade(source, symbol, name, side, price, quantity, time, sequence)
        for (source, name, side, price, quantity), time in zip(values, times, strict=False)
    ]
    shelf.archive.append(Batch([Run.of(symbol, [*enumerate(trades, 1)])]))
    found = [entry for _, entry in shelf.archive.behind(symbol, 0, 9)]
    assert found == trades
    assert [str(each.price) for each in found] == [str(each.price) for each in trades]  # type: ignore[union-attr]


def test_a_person_finds_rows(shelf: Shelf, dsn: str) -> None:
    """A row a trade, with numbers that can be added and times that can be compared."""
    poor = Trade("b", SYMBOL, None, None, Decimal("1E+2"), Decimal("0.10"), 5_999)
    shelf.archive.append(Batch([Run.of(SYMBOL, [(1, trade(1)), (4, gap(2, 4)), (5, poor)])]))
    rows = sql(dsn, "SELECT place, price::text, quantity::text, side, trade_id FROM trades ORDER BY place")
    assert rows == [(1, "60000.11", "0.50", "buy", "1"), (5, "100", "0.10", None, None)]
    assert sql(dsn, "SELECT first, last, reason, counted FROM gaps") == [(2, 4, "source_gap", True)]
    ((_, found),) = shelf.archive.behind(SYMBOL, 4, 1)
    assert (found, str(found.price)) == (poor, "1E+2")  # type: ignore[union-attr]
    assert sql(dsn, "SELECT extract(microseconds FROM time)::int FROM trades WHERE place = 5") == [(5,)]


def test_the_queries_of_the_readme_run(shelf: Shelf, dsn: str) -> None:
    """All of them, on a history with trades of the last hour and a gap."""
    now = sql(dsn, "SELECT (extract(epoch FROM now()) * 1000000)::bigint")[0][0]
    places = [(1, trade(1, now - 61_000_000)), (3, gap(2, 3)), (4, trade(4, now - 1_000_000))]
    shelf.now = now / 10**6
    shelf.archive.append(Batch([Run.of(SYMBOL, places)]))
    readme = (Path(dataflow.stores.__file__).parent / "README.md").read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", readme, re.DOTALL)
    queries = [query.strip() for query in block.split(";") if query.strip()]
    assert len(queries) == 5
    for query in queries:
        assert sql(dsn, query), query


# -- beside the simplest store -------------------------------------------------------------------------


@given(data=st.data())
@settings(of_all_examples, max_examples=12)
def test_it_answers_like_the_simplest_store(shelf: Shelf, data: st.DataObject) -> None:
    """Whatever is appended, filled and asked, over days and openings."""
    model, symbol = MemoryArchive(), f"Y-{next(_numbers)}"
    model.begin(7)
    last = 0
    for _ in range(data.draw(st.integers(1, 4))):
        places = data.draw(entries(last + 1, symbol))
        last = places[-1][0]
        batch = Batch([Run.of(symbol, places)])
        gaps = [entry for _, entry in model.behind(symbol, 0, EVER) if isinstance(entry, Gap)]
        if gaps and data.draw(st.booleans()):
            hole = data.draw(st.sampled_from(gaps))
            first = data.draw(st.integers(hole.first, hole.last))
            until = data.draw(st.integers(first, hole.last))
            filling = [(place, trade(place, 990 + place % 20, symbol)) for place in range(first, until + 1)]
            batch = Batch([*batch.runs, Run.of(symbol, filling, is_fill=True)])
        for archive in (shelf.archive, model):
            archive.append(batch)
        shelf.now += data.draw(st.sampled_from([0, DAY]))
        if data.draw(st.booleans()):
            shelf.reopen()
            shelf.archive.begin(7)
    assert list(shelf.archive.behind(symbol, 0, EVER)) == list(model.behind(symbol, 0, EVER))
    for _ in range(6):
        after, below = data.draw(st.integers(0, last)), data.draw(st.integers(1, last + 1))
        count, time = data.draw(st.integers(1, 9)), data.draw(st.integers(985, 1_000 + last)) * US
        for real, known in (
            (shelf.archive.behind(symbol, after, count), model.behind(symbol, after, count)),
            (shelf.archive.newest(symbol, count, below), model.newest(symbol, count, below)),
            (
                shelf.archive.ascending(symbol, time, count, below),
                model.ascending(symbol, time, count, below),
            ),
            (
                shelf.archive.descending(symbol, time, count, below),
                model.descending(symbol, time, count, below),
            ),
        ):
            assert list(real) == list(known)
        assert shelf.archive.latest(symbol, below) == model.latest(symbol, below)
        to = shelf.archive.skip(symbol, after, time, time + 9 * US)
        assert after <= to <= max(after, last)
        for place, entry in model.behind(symbol, after, EVER):
            if isinstance(entry, Trade) and place <= to:
                assert not time <= entry.timestamp < time + 9 * US


# -- days ----------------------------------------------------------------------------------------------


def test_old_days_go_with_their_tables(shelf: Shelf, dsn: str) -> None:
    """With their gaps, and with the trades that came later for these. The newest day stays."""
    shelf.archive.append(Batch([Run.of(SYMBOL, [(1, trade(1)), (4, gap(2, 4))])]))
    shelf.now += DAY
    shelf.archive.append(Batch([run(5, 6), run(2, 2, is_fill=True)]))
    assert len(sql(dsn, "SELECT 1 FROM pg_class WHERE relname ~ '^trades_2' AND relkind = 'r'")) >= 2
    assert shelf.archive.retain(Keep(1, 0, 0), "2024-10-05") == {SYMBOL: 5}
    assert list(shelf.archive.behind(SYMBOL, 0, 9)) == list(run(5, 6).places)
    assert shelf.archive.retain(Keep(1, 0, 0), "2024-10-09") == {}
    assert shelf.archive.usage().oldest == "2024-10-05"
    assert sql(dsn, "SELECT count(*) FROM gaps") == [(0,)]


def test_a_hypertable_where_timescale_is(server: Any, dsn: str) -> None:
    """What is asked of TimescaleDB: one hypertable by day, and to drop chunks. The server of the tests has no
    TimescaleDB, so its catalogue and functions are those of the test."""
    sql(dsn, "CREATE TABLE pg_extension(extname) AS SELECT 'timescaledb'")
    sql(dsn, "CREATE TABLE asked(what text)")
    sql(
        dsn,
        "CREATE FUNCTION by_range(text, interval) RETURNS text AS $$ SELECT $1 || ' ' || $2 $$ LANGUAGE sql",
    )
    sql(
        dsn,
        "CREATE FUNCTION create_hypertable(text, text) RETURNS void AS "
        "$$ INSERT INTO asked VALUES ('hypertable ' || $1 || ' ' || $2) $$ LANGUAGE sql",
    )
    name = re.findall("search_path%3D(\\w+)", dsn)[0]
    shelf = opened(with_path(server.get_uri(), name, "pg_catalog"))
    shelf.archive.append(Batch([run(1, 2)]))
    shelf.now += DAY
    shelf.archive.append(Batch([run(3, 4)]))
    sql(
        dsn,
        "CREATE FUNCTION drop_chunks(text, older_than date) RETURNS void AS "
        "$$ INSERT INTO asked VALUES ('drop ' || $1 || ' before ' || older_than); "
        "DELETE FROM trades WHERE day < older_than $$ LANGUAGE sql",
    )
    assert shelf.archive.retain(Keep(1, 0, 0), "2024-10-05") == {SYMBOL: 3}
    assert sql(dsn, "SELECT what FROM asked") == [
        ("hypertable trades day 1 day",),
        ("drop trades before 2024-10-05",),
    ]
    shelf.archive.close(True)


# -- who may write -------------------------------------------------------------------------------------


def test_a_second_daemon_is_refused(shelf: Shelf, dsn: str) -> None:
    """As long as the first one lives; a command may read beside it."""
    keys = History(store="postgres", dsn=dsn)
    shelf.archive.append(Batch([run(1, 3)]))
    with pytest.raises(ConfigError, match=r"in use by another daemon \(the server's process \d+\)"):
        postgres.Store(keys).open()
    reader = postgres.Store.reading(keys)
    assert reader.open().streams[SYMBOL].last == 3
    assert list(reader.behind(SYMBOL, 0, 9)) == list(run(1, 3).places)
    with pytest.raises(ArchiveFailed, match="only to be read"):
        reader.append(Batch([run(4, 4)]))
    reader.close(False)
    assert not shelf.reopen(clean=False).is_clean


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:hunter2secret@127.0.0.1:1/x",
        "host=127.0.0.1 port=1 password=hunter2secret",
        "hunter2secret is no address",
        "postgresql://u:hunter2secret@/x?host=/nowhere",
    ],
)
def test_no_password_in_any_text(dsn: str) -> None:
    """A database that cannot be reached at the start is one line, which does not tell the password."""
    with pytest.raises(ConfigError) as caught:
        postgres.Store(History(store="postgres", dsn=dsn)).open()
    (line,) = caught.value.problems
    assert line.startswith("[history] dsn: ")
    assert "hunter2" not in line
    assert "\n" not in line
    assert caught.value.__cause__ is None


def test_tables_of_others_are_left_alone(dsn: str) -> None:
    """A schema with a table `trades` of somebody else, or with a history of another version."""
    sql(dsn, "CREATE TABLE trades(mine text)")
    keys = History(store="postgres", dsn=dsn)
    with pytest.raises(ConfigError, match='relation "trades" already exists'):
        postgres.Store(keys).open()
    assert sql(dsn, "SELECT to_regclass('meta')") == [(None,)]
    sql(dsn, "DROP TABLE trades")
    with pytest.raises(ConfigError, match="there is no history in the database"):
        postgres.Store.reading(keys).open()
    opened(dsn).archive.close(True)
    sql(dsn, "UPDATE meta SET format = 9")
    with pytest.raises(ConfigError, match="has format 9, and this version reads 1"):
        postgres.Store(keys).open()


# -- a server that fails -------------------------------------------------------------------------------


def test_a_cut_connection_is_made_anew(shelf: Shelf, dsn: str) -> None:
    """The batch that failed is written again, once, whether its COMMIT had arrived or not."""
    shelf.archive.append(Batch([run(1, 3)]))
    assert len(shelf.archive.behind(SYMBOL, 0, 9)) == 3
    sql(dsn, _CUT)
    with pytest.raises(ArchiveFailed, match=r"the history in the database postgres at .* fails: "):
        shelf.archive.append(Batch([run(4, 5)]))
    shelf.archive.append(Batch([run(2, 5)]))
    assert list(shelf.archive.behind(SYMBOL, 0, 9)) == list(run(1, 5).places)
    sql(dsn, "UPDATE meta SET epoch = 8")
    sql(dsn, _CUT)
    for _ in range(2):
        with pytest.raises(ArchiveFailed):
            shelf.archive.append(Batch([run(6, 6)]))
    with pytest.raises(ArchiveFailed, match="another daemon has written"):
        shelf.archive.append(Batch([run(6, 6)]))


def test_a_commit_with_an_unknown_end_is_written_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had arrived, but not the answer."""
    store: Any = shelf.archive
    shelf.archive.append(Batch([run(1, 3)]))
    arrived = store._connection.transaction

    @contextmanager
    def unanswered() -> Iterator[None]:
        with arrived():
            yield
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(store._connection, "transaction", unanswered)
    with pytest.raises(ArchiveFailed, match="the connection is lost"):
        shelf.archive.append(Batch([run(4, 5)]))
    shelf.archive.append(Batch([run(4, 6)]))
    assert list(shelf.archive.behind(SYMBOL, 0, 9)) == list(run(1, 6).places)


_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dataflow'"


def test_a_killed_server_loses_nothing_that_was_promised(shelf: Shelf, dsn: str) -> None:
    """The server restarts when one of its processes was killed. Until it is back every batch fails with a
    sentence; then it is written."""
    shelf.archive.append(Batch([run(1, 500)]))
    ((process,),) = sql(dsn, "SELECT pid FROM pg_locks WHERE locktype = 'advisory' ORDER BY pid DESC LIMIT 1")
    os.kill(process, signal.SIGKILL)
    failures = 0
    while True:
        try:
            shelf.archive.append(Batch([run(501, 600)]))
            break
        except ArchiveFailed:
            failures += 1
    assert failures
    assert list(shelf.archive.behind(SYMBOL, 0, 999)) == list(run(1, 600).places)
    assert shelf.reopen().is_clean


def test_a_server_that_forgot_leaves_a_hole(shelf: Shelf, dsn: str) -> None:
    """A place that was given away is not given away again, although its trade is lost."""
    shelf.archive.append(Batch([run(1, 5)]))
    sql(dsn, "DELETE FROM trades WHERE place > 3")
    sql(dsn, "UPDATE streams SET last = 3")
    sql(dsn, _CUT)
    with pytest.raises(ArchiveFailed):
        shelf.archive.append(Batch([run(6, 7)]))
    shelf.archive.append(Batch([run(6, 7)]))
    assert [place for place, _ in shelf.archive.behind(SYMBOL, 0, 9)] == [1, 2, 3, 6, 7]


def test_verify_names_what_does_not_fit(shelf: Shelf, dsn: str) -> None:
    """Rows that somebody has changed by hand."""
    shelf.archive.append(Batch([Run.of(SYMBOL, [(1, trade(1)), (4, gap(2, 4)), (5, trade(5))])]))
    assert not shelf.archive.verify()
    sql(dsn, "UPDATE trades SET place = 3, ns = ns + 1000 WHERE place = 5")
    sql(dsn, "UPDATE streams SET last = 3")
    assert sorted(shelf.archive.verify()) == [
        "BTC-USD: 1 rows lie behind its last place",
        "BTC-USD: place 3 is a trade and a gap",
        "BTC-USD: the time of place 3 is not that of its nanoseconds",
    ]
