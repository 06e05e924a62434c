"""`dataflow history`: what is on disk, looked at, copied and moved without a digit lost."""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dataflow.cache.archive import Batch, Run
from dataflow.cli import main
from dataflow.domain import Gap, Trade
from dataflow.domain.timestamps import from_rfc3339
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store
from tests.dataflow.stores.shelf import DAY, NOON, Shelf, gap, run, trade
from tests.support.postgres import schema

DATA = Path(__file__).parents[2] / "data"
REAL = DATA / "binance_spot_20240808_09.csv.gz"  # ten minutes, two symbols, 34,419 trades
NAMES = ("--names.BTCUSDT", "BTC-USDT", "--names.ETHUSDT", "ETH-USDT")

Said = tuple[int, str, str]
Call = Callable[..., Said]


@pytest.fixture
def history(capfd: pytest.CaptureFixture[str]) -> Call:
    """Calls a command: the exit code, standard output and standard error."""

    def call(name: str, *words: object) -> Said:
        code = main(["history", name, *map(str, words)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history with the real trades."""
    folder = tmp_path_factory.mktemp("real") / "data"
    assert main(["history", "import", str(REAL), "--source", "binance", *NAMES, "-d", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def rows() -> dict[str, list[tuple[str, ...]]]:
    """The real trades as they stand in the file: (id, side, price, qty, time in us), by symbol."""
    found: dict[str, list[tuple[str, ...]]] = {"BTC-USDT": [], "ETH-USDT": []}
    with gzip.open(REAL, "rt") as file:
        for row in csv.DictReader(file):
            symbol = row["symbol"].replace("USDT", "-USDT")
            values = row["trade_id"], row["side"], row["price"], row["qty"], row["timestamp_us"]
            found[symbol].append(values)
    return found


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two days of two symbols, with gaps of all kinds and a source that tells nothing but the price."""
    folder = tmp_path / "small"
    shelf = Shelf(lambda shelf: Store(History(directory=str(folder)), lambda: shelf.now))
    shelf.archive.begin(7)
    poor = Trade('b,"é', "BTC-USD", None, None, Decimal("1E+2"), Decimal("0.10"), 9_000)
    shelf.archive.append(Batch([run(1, 5), run(1, 3, "ETH-USD")]))
    places = [(8, gap(6, 8)), (9, Gap(9, 9, "shard_restart", False)), (10, poor), (11, trade(11))]
    shelf.archive.append(Batch([Run.of("BTC-USD", places)]))
    shelf.now = NOON + DAY
    shelf.archive.append(Batch([run(12, 14), Run.of("ETH-USD", [(5, gap(4, 5))])]))
    shelf.archive.close(True)
    return folder


def stored(folder: Path, symbol: str = "BTC-USD") -> list[Any]:
    store = Store.reading(History(directory=str(folder)))
    store.open()
    try:
        return list(store.behind(symbol, 0, 100_000))
    finally:
        store.close(False)


# -- real trades ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_real_trades_go_in_and_come_out(
    history: Call, real: Path, rows: dict[str, list[tuple[str, ...]]], tmp_path: Path, format: str
) -> None:
    """Id by id and digit by digit; and what came out goes in again, and is the same file."""
    out = tmp_path / f"out.{format}"
    assert history("export", "-o", out, "-d", real) == (0, "", "")
    found: dict[str, list[tuple[str, ...]]] = {"BTC-USDT": [], "ETH-USDT": []}
    with out.open(newline="") as file:
        lines: Any = csv.DictReader(file)
        if format == "jsonl":
            lines = (json.loads(line, parse_float=str, parse_int=str) for line in file)
        for row in lines:
            time = str(from_rfc3339(row["timestamp"]) // 1000)
            values = row["tradeId"], row["side"], row["price"], row["qty"], time
            found[row["symbol"]].append(values)
    assert found == rows
    assert history("import", out, "-d", tmp_path / "again")[0] == 0
    again = tmp_path / f"again.{format}"
    assert history("export", "-o", again, "-d", tmp_path / "again") == (0, "", "")
    assert again.read_bytes() == out.read_bytes()


def test_real_trades_as_parquet(
    history: Call, real: Path, rows: dict[str, list[tuple[str, ...]]], tmp_path: Path
) -> None:
    """Every digit, times as times."""
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    assert history("export", "-o", out, "-d", real) == (0, "", "")
    table = parquet.read_table(out)
    columns = [table[name].to_pylist() for name in ("symbol", "tradeId", "side", "price", "qty")]
    times = table["timestamp"].cast("int64").to_pylist()
    found: dict[str, list[tuple[str, ...]]] = {"BTC-USDT": [], "ETH-USDT": []}
    for symbol, *values, time in zip(*columns, times, strict=True):
        found[symbol].append((*values, str(time)))
    assert found == rows


def test_a_repeated_import_changes_nothing(history: Call, real: Path, tmp_path: Path) -> None:
    """A trade is known by its source and id. Without news there is no new epoch either."""
    before = history("list", "--json", "-d", real)[1]
    code, _, err = history("import", REAL, "--source", "binance", *NAMES, "-d", real)
    assert (code, err) == (0, "imported 0 trades and 0 gaps; 34,419 trades were there already\n")
    assert history("list", "--json", "-d", real)[1] == before


def test_real_trades_in_postgres(history: Call, server: Any, real: Path, tmp_path: Path) -> None:
    """The same rows as from files; and whole histories move between both."""
    dsn = schema(server)
    assert history("import", REAL, "--source", "binance", *NAMES, "--dsn", dsn)[0] == 0
    for format in ("csv", "jsonl"):
        assert history("export", "-o", tmp_path / f"a.{format}", "-d", real) == (0, "", "")
        assert history("export", "-o", tmp_path / f"b.{format}", "--dsn", dsn) == (0, "", "")
        assert (tmp_path / f"a.{format}").read_bytes() == (tmp_path / f"b.{format}").read_bytes()
    assert history("verify", "--dsn", dsn) == (0, "fine: 1 day, 2 symbols, 34,419 trades\n", "")
    told = history("import", dsn, "-d", tmp_path / "back")[2]
    assert told == "imported 34,419 trades and 0 gaps\n"
    assert stored(tmp_path / "back", "ETH-USDT") == stored(real, "ETH-USDT")


def test_a_history_in_postgres(history: Call, server: Any, small: Path, tmp_path: Path) -> None:
    """Every command that makes sense; for copies there is pg_dump."""
    dsn = schema(server)
    assert history("import", small, "--dsn", dsn)[0] == 0
    assert history("export", "--dsn", dsn)[1] == history("export", "-d", small)[1]
    days = json.loads(history("list", "--json", "--dsn", dsn)[1])["days"]
    assert [
        (each["first"], each["last"], each["trades"], each["gaps"]) for each in days[0]["symbols"].values()
    ] == [
        (1, 14, 10, 2),
        (1, 5, 3, 1),
    ]
    assert history("prune", "--keep-trades", 3, "--yes", "--dsn", dsn)[0] == 0
    assert history("import", dsn, "-d", tmp_path / "back")[2].startswith("imported 6 trades and 1 gaps")
    code, _, err = history("backup", tmp_path / "copy", "--dsn", dsn)
    assert (code, err) == (1, "dataflow: only a history in files can be copied like this: use pg_dump\n")
    secret = "postgresql://u:hunter2secret@127.0.0.1:1/x"
    code, _, err = history("list", "--dsn", secret)
    assert (code, err.count("\n"), "hunter2" in err) == (1, 1, False)


# -- export --------------------------------------------------------------------------------------------


def test_gaps_are_rows_with_their_symbol(history: Call, small: Path) -> None:
    """So that a table of several symbols can be read, and imported."""
    _, out, _ = history("export", "-d", small)
    lines = out.splitlines()
    assert lines[0] == (
        "seqnum,event,channel,symbol,timestamp,side,qty,price,tradeId,source,offset,from,to,reason"
    )
    assert lines[6:9] == [
        ",,,BTC-USD,,,,,,,,6,8,source_gap",
        ",,,BTC-USD,,,,,,,,9,,shard_restart",
        '10,updated,trades,BTC-USD,1970-01-01T00:00:00.000009Z,,0.10,1E+2,,"b,""é",10,,,',
    ]
    assert lines[-1] == ",,,ETH-USD,,,,,,,,4,5,source_gap"


def test_a_range_of_time_has_its_trades_and_gaps(history: Call, small: Path) -> None:
    """`from` is inclusive, `to` is not. A gap that its trades may be missing in is told."""
    until = "1970-01-01T00:00:00.000012Z"
    _, out, _ = history(
        "export", "btcusd", "--from", "1970-01-01T00:00:00.000009Z", "--to", until, "-d", small
    )
    assert [row["offset"] or row["from"] for row in csv.DictReader(out.splitlines())] == [
        "6",
        "9",
        "10",
        "11",
    ]
    _, out, _ = history("export", "BTC-USD", "--from", "2030-01-01", "-d", small)
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_an_export_is_an_import(history: Call, small: Path, tmp_path: Path, format: str) -> None:
    """Trades and gaps at the same places; what a table does not tell, the counters of sources, is left out."""
    out = tmp_path / f"all.{format}"
    history("export", "-o", out, "-d", small)
    history("import", out, "-d", tmp_path / "new")
    for symbol in ("BTC-USD", "ETH-USD"):
        told = [(place, _told(entry)) for place, entry in stored(small, symbol)]
        assert [(place, _told(entry)) for place, entry in stored(tmp_path / "new", symbol)] == told


def _told(entry: Trade | Gap) -> object:
    if isinstance(entry, Gap):
        return entry.first, entry.last, entry.reason, entry.exact
    values = entry.source, entry.trade_id, entry.side, str(entry.price), str(entry.quantity)
    return (*values, entry.timestamp // 1000)


def test_a_file_appears_when_it_is_complete(history: Call, small: Path, tmp_path: Path) -> None:
    """A mistake leaves nothing behind."""
    code, _, err = history("export", "ETC-USD", "-o", tmp_path / "x.csv", "-d", small)
    assert (code, err) == (1, "dataflow: the history has no ETC-USD; the nearest are ETH-USD, BTC-USD\n")
    code, _, err = history("export", "-o", tmp_path / "no" / "x.csv", "-d", small)
    assert (code, "cannot write" in err) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


# -- import --------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_refused_with_its_line(history: Call, tmp_path: Path) -> None:
    """All of it is checked before anything is written."""
    (tmp_path / "a.csv").write_text(
        "trade_id,timestamp_us,symbol,side,price,qty\n"
        "1,1,BTC-USD,buy,1.0,2\n"
        "2,soon,BTC-USD,buy,1.0,2\n"
        "3,3,BTC-USD,long,1.0,2\n"
        "4,4,BTC-USD,buy,1.0\n"
        "5,5,btc usd,buy,1.0,2\n"
        "6,6,BTC-USD,buy,NaN,2\n"
    )
    (tmp_path / "b.jsonl").write_text('{"symbol": "A-B", "price": 1}\n{"from": 3, "to": 1, "reason": "x"}\n{')
    code, out, err = history(
        "import", tmp_path / "a.csv", tmp_path / "b.jsonl", "--source", "s", "-d", tmp_path / "new"
    )
    assert (code, out) == (1, "")
    lines = err.replace(str(tmp_path), "").splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        "dataflow",
        *[f"/a.csv:{n}" for n in (4, 5, 6, 7)],
        *[f"/b.jsonl:{n}" for n in (1, 2, 3)],
    ]
    assert "/a.csv:3: timestamp_us is 'soon', not a whole number of microseconds" in lines[0]
    assert lines[-1] == "8 of 9 rows are wrong: nothing was imported"
    assert not list((tmp_path / "new").glob("*.db"))


def test_an_import_goes_on_behind_what_is_stored(history: Call, small: Path, tmp_path: Path) -> None:
    """In a new epoch, without what is there already, and with the gaps beside what is new."""
    (tmp_path / "more.csv").write_text(
        "seqnum,event,channel,symbol,timestamp,side,qty,price,tradeId,source,offset,from,to,reason\n"
        ",,,BTC-USD,2026-01-01T00:00:00Z,buy,1,2,3,a,,,,\n"
        ",,,BTC-USD,,,,,,,,6,8,source_gap\n"
        ",,,BTC-USD,2026-01-01T00:00:00Z,buy,1,2,4,a,,,,\n"
        ",,,BTC-USD,,,,,,,,9,9,source_gap\n"
        ",,,BTC-USD,2026-01-01T00:00:01.000001Z,buy,1,2.50,900,a,,,,\n"
    )
    code, _, err = history("import", tmp_path / "more.csv", "-d", small)
    assert (code, err) == (0, "imported 1 trades and 1 gaps; 2 trades were there already\n")
    (_, hole), (last, new) = stored(small)[-2:]
    assert (hole.first, hole.last, hole.reason) == (15, 15, "source_gap")
    assert (last, str(new.price), new.timestamp) == (16, "2.50", 1_767_225_601_000_001_000)
    told = json.loads(history("list", "--json", "-d", small)[1])
    assert told["clean"]
    (old, first), (_, second) = told["symbols"]["BTC-USD"]["epochs"]
    assert (old, first, second) == (7, 1, 15)


def test_another_history_is_imported_exactly(history: Call, small: Path, tmp_path: Path) -> None:
    """With everything that a table cannot tell."""
    assert history("import", small, "-d", tmp_path / "new")[0] == 0
    for symbol in ("BTC-USD", "ETH-USD"):
        assert stored(tmp_path / "new", symbol) == stored(small, symbol)
    assert (
        history("import", small, "-d", small)[2] == f"dataflow: {small} is the history that is written to\n"
    )


# -- beside a daemon -----------------------------------------------------------------------------------


def test_reading_and_copying_beside_a_daemon(history: Call, small: Path, tmp_path: Path) -> None:
    """What the daemon has written by then, all of it. A copy has not been closed in order: its epoch ends."""
    daemon = Store(History(directory=str(small)), lambda: NOON + DAY)
    daemon.open()
    daemon.begin(7)
    daemon.append(Batch([run(15, 2_000)]))
    try:
        assert history("backup", tmp_path / "copy", "-d", small)[0] == 0
        assert len(history("export", "BTC-USD", "-d", small)[1].splitlines()) == 1 + 14 - 2 + 1_986
        assert history("verify", "-d", small)[:2] == (0, "fine: 2 days, 2 symbols, 1,999 trades\n")
        daemon.append(Batch([run(2_001, 2_001)]))
        for words in (("prune", "--keep-days", 1, "--yes"), ("import", REAL, "--source", "x")):
            code, _, err = history(*words, "-d", small)
            assert (code, "in use by another daemon" in err, err.count("\n")) == (1, True, 1)
    finally:
        daemon.close(True)
    copy = Store(History(directory=str(tmp_path / "copy")))
    contents = copy.open()
    assert (contents.epoch, contents.is_clean, contents.streams["BTC-USD"].last) == (7, False, 2_000)
    assert list(copy.behind("BTC-USD", 14, 9_999)) == list(run(15, 2_000).places)
    copy.close(False)


def test_a_full_disk_is_named(
    history: Call, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That which is written to, and not that of the history. No half of a table stays."""
    (tmp_path / "a.csv.new").symlink_to("/dev/full")
    code, _, err = history("export", "-o", tmp_path / "a.csv", "-d", small)
    assert (code, err) == (1, f"dataflow: cannot write {tmp_path / 'a.csv'}: No space left on device\n")
    assert not list(tmp_path.glob("a.csv*"))

    def full(*_arguments: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr("dataflow.stores.sqlite.backup._copy", full)
    code, _, err = history("backup", tmp_path / "copy", "-d", small)
    assert (code, err) == (2, f"dataflow: no room: the disk of {tmp_path / 'copy'} is full\n")


def test_a_backup_is_restored_where_nothing_is(history: Call, small: Path, tmp_path: Path) -> None:
    """And only there. A damaged one is not."""
    before = stored(small)
    history("backup", tmp_path / "copy", "-d", small)
    code, _, err = history("backup", tmp_path / "copy", "-d", small)
    assert (code, "is not empty" in err) == (1, True)
    code, _, err = history("restore", tmp_path / "copy", "-d", small)
    assert (code, "is not empty" in err) == (1, True)
    assert history("restore", tmp_path / "copy", "-d", tmp_path / "new")[0] == 0
    assert stored(tmp_path / "new") == before
    told = [json.loads(history("list", "--json", "-d", folder)[1]) for folder in (small, tmp_path / "new")]
    assert [each["clean"] for each in told] == [True, False], (
        "the original goes on in its epoch, the copy must not"
    )
    newest = max((tmp_path / "copy").glob("*.db"))
    content = bytearray(newest.read_bytes())
    at = content.rindex(b"\x28\xb5\x2f\xfd")  # of a frame of zstd
    content[at + 12] ^= 1
    newest.write_bytes(content)
    code, _, err = history("restore", tmp_path / "copy", "-d", tmp_path / "other")
    assert (code, "is damaged: nothing was restored" in err) == (1, True)
    assert not list(tmp_path.glob("other/*.db"))
    assert history("verify", "-d", tmp_path / "copy")[0] == 1


# -- prune, list and where -----------------------------------------------------------------------------


def test_old_days_are_removed(history: Call, small: Path) -> None:
    """Nobody is asked in a pipe, so --yes is needed. The newest day stays."""
    code, _, err = history("prune", "--before", "2024-10-05", "-d", small)
    assert (code, "say --yes" in err) == (1, True)
    assert len(stored(small)) == 12
    code, out, _ = history("prune", "--before", "2024-10-05", "--yes", "-d", small)
    assert (code, out.startswith("removed 2024-10-04 (")) == (0, True)
    assert [place for place, _ in stored(small)] == [12, 13, 14]
    assert history("prune", "--keep-days", "1", "-d", small) == (0, "nothing is that old\n", "")
    assert json.loads(history("list", "--json", "-d", small)[1])["clean"], "as it was before"


def test_a_list_tells_what_there_is(history: Call, small: Path) -> None:
    """For people a table, for programs JSON."""
    _, out, _ = history("list", "-d", small)
    head, first, *_ = out.splitlines()
    assert head.split() == ["day", "symbol", "first", "last", "trades", "gaps", "bytes", "earliest", "latest"]
    assert first.split()[:6] == ["2024-10-04", "BTC-USD", "1", "11", "7", "2"]
    days = json.loads(history("list", "--json", "-d", small)[1])["days"]
    assert [(day["day"], sorted(day["symbols"])) for day in days] == [
        ("2024-10-04", ["BTC-USD", "ETH-USD"]),
        ("2024-10-05", ["BTC-USD", "ETH-USD"]),
    ]


def test_the_history_is_found_like_the_daemon_finds_it(
    history: Call, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the configuration and the environment, unless an option says where."""
    (tmp_path / "mine.toml").write_text(f'[history]\ndirectory = "{small}"\n')
    assert history("list", "--config", tmp_path / "mine.toml")[0] == 0
    monkeypatch.setenv("DATAFLOW__HISTORY__DIRECTORY", str(small))
    assert history("list")[0] == 0
    monkeypatch.setenv("DATAFLOW__HISTORY__DIRECTORY", "")
    code, _, err = history("list")
    assert (code, err.count("\n"), "see --directory" in err) == (1, 1, True)
    code, _, err = history("list", "-d", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (1, 1)


def test_a_mistake_names_what_the_user_wrote(
    history: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option, the folder, the file or the variable; and the key only where it stands in one of these."""
    gone, into = tmp_path / "gone", tmp_path / "into"
    gone.mkdir()
    told = f"there is no history in {gone}\n"
    assert history("list", "-d", gone)[2] == f"--directory: {told}"
    assert history("restore", gone, "-d", into)[2] == f"{gone}: {told}"
    assert history("import", gone, "-d", into)[2] == f"{gone}: {told}"
    (tmp_path / "file").touch()
    text = f"--directory: {tmp_path / 'file'} is a file, and must be a folder\n"
    assert history("import", REAL, "--source", "x", *NAMES, "-d", tmp_path / "file")[2] == text
    assert history("list", "--dsn", "no address")[2].startswith("--dsn: this is no address of a database")
    (tmp_path / "mine.toml").write_text(f'[history]\ndirectory = "{gone}"\n')
    said = history("list", "--config", tmp_path / "mine.toml")[2]
    assert said == f"{tmp_path / 'mine.toml'}: [history] directory: {told}"
    monkeypatch.setenv("DATAFLOW__HISTORY__DIRECTORY", str(gone))
    assert history("list")[2] == f"DATAFLOW__HISTORY__DIRECTORY: [history] directory: {told}"
