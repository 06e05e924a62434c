"""The files of SQLite: what is on disk, and what happens when the disk fails."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dataflow.cache.archive import ArchiveFailed, Batch, Keep
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store

from .shelf import DAY, Shelf, run, trade

SYMBOL = "BTC-USD"
EVER = 1 << 60
TODAY = "2024-10-04"


def store(folder: Path, shelf: Shelf) -> Store:
    return Store(History(directory=str(folder)), lambda: shelf.now)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def shelf(folder: Path) -> Iterator[Shelf]:
    """A new store in epoch 7."""
    made = Shelf(lambda shelf: store(folder, shelf))
    made.archive.begin(7)
    yield made
    made.archive.close(False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".db" or "damaged" in path.name)


def put(shelf: Shelf, first: int, last: int, size: int = 100) -> None:
    """Trades in all of these places, in several batches."""
    for at in range(first, last + 1, size):
        shelf.archive.append(Batch([run(at, min(last, at + size - 1))]))


def places(shelf: Shelf) -> list[int]:
    """The last places of all entries."""
    return [last for last, _ in shelf.archive.behind(SYMBOL, 0, EVER)]


# -- what is on disk ---------------------------------------------------------------------------------


def test_a_file_a_day(shelf: Shelf, folder: Path) -> None:
    """Each has one range of places. A finished one is a single plain file."""
    put(shelf, 1, 2_500)
    shelf.now += DAY
    put(shelf, 2_501, 2_600)
    assert names(folder) == ["2024-10-04.db", "2024-10-05.db"]
    assert not (folder / "2024-10-04.db-wal").exists()
    first, second = shelf.archive.days()  # type: ignore[attr-defined]
    assert (first.streams[SYMBOL].first, first.streams[SYMBOL].last, first.streams[SYMBOL].trades) == (
        1,
        2_500,
        2_500,
    )
    assert (second.name, second.streams[SYMBOL].first, second.streams[SYMBOL].last) == (
        "2024-10-05",
        2_501,
        2_600,
    )
    assert second.streams[SYMBOL].earliest == trade(2_501).timestamp
    assert shelf.archive.usage().oldest == TODAY


def test_a_quiet_symbol_fills_its_blocks_too(shelf: Shelf, folder: Path) -> None:
    """A minute seals what waits, and joins it to the small block before. The journal stays short."""
    for place in range(1, 101):
        shelf.archive.append(Batch([run(place, place)]))
        shelf.now += 10
    with closing(sqlite3.connect(folder / "2024-10-04.db")) as connection:
        assert connection.execute("SELECT count(*) FROM blocks").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM journal").fetchone()[0] < 40
    assert places(shelf) == [*range(1, 101)]


def test_another_process_reads_beside_the_daemon(shelf: Shelf, folder: Path) -> None:
    """What was there when it was opened, without a lock or a change; nothing can be written."""
    put(shelf, 1, 1_500)
    reading = Store.reading(History(directory=str(folder)))
    contents = reading.open()
    assert (contents.epoch, contents.streams[SYMBOL].last) == (7, 1_500)
    put(shelf, 1_501, 4_000)
    assert [last for last, _ in reading.behind(SYMBOL, 0, 1_500)] == [*range(1, 1_501)]
    assert [each.trades for each in reading.days()[0].streams.values()] == [1_500]
    assert reading.verify() == []
    for change in (
        lambda: reading.append(Batch([run(4_001, 4_001)])),
        lambda: reading.begin(8),
        lambda: reading.retain(Keep(1, 0, 0), TODAY),
    ):
        with pytest.raises(ArchiveFailed, match="only to be read"):
            change()
    reading.close(True)
    assert not shelf.reopen(clean=False).is_clean


def test_a_reader_changes_nothing_after_a_crash(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    """It reads what a killed daemon has left in its WAL, and leaves it there."""
    put(shelf, 1, 50)
    left = tmp_path / "left"
    shutil.copytree(folder, left)
    before = {path.name: path.read_bytes() for path in left.iterdir() if not path.name.endswith("-shm")}
    reading = Store.reading(History(directory=str(left)))
    assert reading.open().streams[SYMBOL].last == 50
    assert len(reading.behind(SYMBOL, 0, 99)) == 50
    reading.close(False)
    assert {
        path.name: path.read_bytes() for path in left.iterdir() if not path.name.endswith("-shm")
    } == before


def test_a_reader_of_nothing_is_told(tmp_path: Path) -> None:
    """Nothing is made for it."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=f"there is no history in {folder}$"):
            Store.reading(History(directory=str(folder))).open()
    assert not (tmp_path / "none").exists()
