"""The files of SQLite: what is on disk, and what happens when the disk fails."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest

from dataflow.cache.archive import ArchiveFailed, Batch, Keep, Run
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store, day
from dataflow.stores.sqlite.folder import Folder

from .shelf import DAY, NOON, Shelf, gap, run, trade

CHECKOUT = Path(__file__).parents[3]
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


def test_the_journal_stays_short_when_the_clock_is_set_back(shelf: Shelf, folder: Path) -> None:
    """A quiet symbol that was seen in the future does not hold it for so long."""
    shelf.now += DAY * 365
    shelf.archive.append(Batch([Run.of("QUIET", [(1, trade(1))])]))
    shelf.now -= DAY * 365
    for place in range(1, 101):
        put(shelf, place, place)
        shelf.now += 10
    file = max(folder.glob("*.db"))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM journal").fetchone()[0] < 40


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


@pytest.mark.parametrize("reader", ["beside", "apart"])
def test_readers_never_miss_a_place(shelf: Shelf, folder: Path, reader: str) -> None:
    """While blocks are sealed, small ones joined, and days change: no hole, nothing twice."""
    done = Event()
    told = [0]

    def read() -> int:
        store = shelf.archive
        if reader == "apart":
            store = Store.reading(History(directory=str(folder)))
            store.open()
        rounds = 0
        while not done.is_set():
            known = told[0] if store is shelf.archive else 1
            for found in (
                [last for last, _ in store.behind(SYMBOL, 0, EVER)],
                [last for last, _ in store.newest(SYMBOL, 1 << 30, EVER)],
                [each.offset for each in store.ascending(SYMBOL, 0, 1 << 30, EVER)],
            ):
                assert found == [*range(1, len(found) + 1)]
                assert len(found) >= known
            rounds += 1
        if store is not shelf.archive:
            store.close(False)
        return rounds

    put(shelf, 1, 10)
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for at in range(120):
                put(shelf, 11 + at * 37, 47 + at * 37)
                told[0] = 47 + at * 37
                shelf.now += DAY / 40
        finally:
            done.set()
        assert all(each.result() for each in readers)


# -- deaths ------------------------------------------------------------------------------------------


def test_nothing_is_lost_whose_append_has_returned(folder: Path) -> None:
    """Whenever the process is killed. The next one finds it, is told that the stop was not clean, and goes on."""
    dice = random.Random(3)
    last = 0
    for life in range(1, 5):
        told = _killed_after(folder, dice.randrange(1, 60))
        shelf = Shelf(lambda shelf: store(folder, shelf), now=NOON + 999 * DAY)
        stream = shelf.contents.streams[SYMBOL]
        assert (shelf.contents.epoch, shelf.contents.is_clean, shelf.contents.damage) == (life, False, [])
        assert stream.last >= told > last
        last = stream.last
        assert list(shelf.archive.behind(SYMBOL, 0, EVER)) == list(run(1, last).places)
        assert shelf.archive.checkpoints("days")[SYMBOL].position == last
        assert [epoch for epoch, _ in stream.epochs] == [*range(1, life + 1)]
        assert shelf.archive.verify() == []
        shelf.archive.close(False)


def _killed_after(folder: Path, batches: int) -> int:
    """The last place that a writer has told before it was killed."""
    command = [sys.executable, "-m", "tests.dataflow.stores.writing", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(batches)]
        writer.kill()
        told += writer.stdout.readlines()
        return int([line for line in told if line.endswith("\n")][-1])


# -- failures at the start -----------------------------------------------------------------------------


def test_a_second_daemon_is_told_who_is_there(shelf: Shelf, folder: Path) -> None:
    """One line, and nothing is touched. When the first one has gone, it may come."""
    put(shelf, 1, 10)
    with pytest.raises(ConfigError) as error:
        store(folder, shelf).open()
    text = f"[history] directory: {folder} is in use by another daemon (process {os.getpid()}): stop it, or choose another"
    assert error.value.problems == [text]
    assert shelf.reopen().streams[SYMBOL].last == 10


def test_a_second_daemon_is_kept_out_by_no_file_that_can_be_removed(shelf: Shelf, folder: Path) -> None:
    """Two writers in one directory would lose what each other has written."""
    put(shelf, 1, 10)
    for path in folder.glob("[!0-9]*"):
        path.unlink()
    with pytest.raises(ConfigError, match="is in use by another daemon: stop it"):
        store(folder, shelf).open()
    put(shelf, 11, 20)
    assert shelf.reopen().streams[SYMBOL].last == 20


def test_a_format_of_another_version_is_told(shelf: Shelf, folder: Path) -> None:
    """It is not damaged, so it stays where it is."""
    put(shelf, 1, 10)
    shelf.archive.close(True)
    with closing(sqlite3.connect(folder / "2024-10-04.db")) as connection:
        day.put_meta(connection, "format", 9)
        connection.commit()
    with pytest.raises(ConfigError) as error:
        shelf.open()
    assert error.value.problems == [
        "[history] directory: 2024-10-04.db has format 9, and this version reads 1: use the version that wrote it"
    ]
    assert names(folder) == ["2024-10-04.db"]


def test_a_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    """One line."""
    (tmp_path / "data").write_text("mine")
    with pytest.raises(ConfigError) as error:
        Store(History(directory=str(tmp_path / "data"))).open()
    told = f"[history] directory: {tmp_path / 'data'} is a file, and must be a folder"
    assert error.value.problems == [told]


def test_messages_say_where_a_relative_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data` is there in many working folders, and not in the one where somebody looks."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        Store.reading(History(directory="data")).open()
    assert error.value.problems == [f"[history] directory: there is no history in {tmp_path / 'data'}"]


def test_a_directory_of_somebody_else_is_told() -> None:
    """Also one that is read-only. The line names the owner."""
    with TemporaryDirectory() as folder:  # which others may enter
        Path(folder).chmod(0o755)
        _survives("forbidden", folder)


def _survives(name: str, folder: str, *isolated: str) -> None:
    command = [*isolated, sys.executable, "-m", "tests.dataflow.stores.failing_disk", name, folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- failures of the disk ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["full", "unmounted"])
def test_a_disk_that_fails(name: str, tmp_path: Path) -> None:
    """Full, gone, or read-only: a clear error, nothing wrong, and it goes on when the cause has gone."""
    isolated = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if subprocess.run([*isolated, "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    _survives(name, str(tmp_path), *isolated)


def test_a_directory_that_vanishes_and_comes_back(shelf: Shelf, folder: Path) -> None:
    """The error names it. It is not made anew. When it is back, the same batch is written."""
    put(shelf, 1, 10)
    away = folder.with_name("away")
    folder.rename(away)
    for _ in range(2):
        with pytest.raises(ArchiveFailed) as error:
            put(shelf, 11, 20)
        assert str(error.value) == f"the directory of the history has vanished: {folder}"
    assert not folder.exists()
    away.rename(folder)
    put(shelf, 11, 20)
    assert places(shelf) == [*range(1, 21)]
    assert shelf.reopen().streams[SYMBOL].last == 20


@pytest.mark.parametrize("what", ["*", "2024*", "2024-10-04.db"])
def test_files_that_somebody_removes_are_lost_and_no_more(shelf: Shelf, folder: Path, what: str) -> None:
    """The stream goes on in new files, behind the same place and with the same epochs."""
    shelf.archive.begin(8)
    put(shelf, 1, 10)
    for path in list(folder.glob(what)):  # alone it leaves a WAL behind, which belongs to no other file
        path.unlink()
    if what == "*":
        folder.rmdir()
        folder.mkdir()
    put(shelf, 11, 20)
    assert shelf.archive.lost == ["2024-10-04.db was removed, and what it held is lost"]  # type: ignore[attr-defined]
    for _ in range(2):
        assert places(shelf) == [*range(11, 21)]
        shelf.reopen()
    stream = shelf.contents.streams[SYMBOL]
    assert (stream.first, stream.last, list(stream.epochs)) == (11, 20, [(8, 1)])


def test_an_earlier_file_goes_on_in_the_present_epoch(shelf: Shelf, folder: Path) -> None:
    """When the one that knew the epoch is gone: on another day, and when the clock has gone back."""
    put(shelf, 1, 10)
    for back in (1, 0):
        shelf.now = NOON + DAY
        shelf.archive.begin(9 - back)
        first = 101 - 90 * back
        put(shelf, first, first + 9)
        for path in list(folder.glob("2024-10-05.db*")):
            path.unlink()
        shelf.now -= DAY * (1 - back)
        put(shelf, first + 10, first + 19)
    assert places(shelf) == [*range(1, 11), *range(111, 121)]
    stream = shelf.reopen().streams[SYMBOL]
    assert (stream.last, [epoch for epoch, _ in stream.epochs]) == (120, [7, 8, 9])


def test_another_history_is_not_mixed_in(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    """A directory that has come back with other files is not written to."""
    put(shelf, 1, 10)
    other = Shelf(lambda shelf: store(tmp_path / "other", shelf))
    other.archive.begin(5)
    other.archive.append(Batch([run(1, 3)]))
    other.archive.close(True)
    folder.rename(tmp_path / "away")
    (tmp_path / "other").rename(folder)
    with pytest.raises(ArchiveFailed, match="another history is in the directory"):
        put(shelf, 11, 20)
    shutil.rmtree(folder)
    (tmp_path / "away").rename(folder)
    put(shelf, 11, 20)
    assert places(shelf) == [*range(1, 21)]


# -- damage ------------------------------------------------------------------------------------------


def test_a_damaged_file_is_set_aside(shelf: Shelf, folder: Path) -> None:
    """Never removed. What it held is named, and the rest is read around it."""
    for first in (1, 101, 201):
        put(shelf, first, first + 99)
        shelf.now += DAY
    shelf.archive.close(True)
    held = b"no file of SQLite" + bytes(100)
    (folder / "2024-10-05.db").write_bytes(held)
    contents = shelf.open()
    assert list(contents.damage) == [
        "2024-10-05.db is damaged (file is not a database), and what it held is lost: places BTC-USD 101 to 200. "
        "It is 2024-10-05.db.damaged now"
    ]
    assert (folder / "2024-10-05.db.damaged").read_bytes() == held
    assert places(shelf) == [*range(1, 101), *range(201, 301)]
    assert contents.is_clean
    assert not shelf.reopen().damage


def test_a_damaged_newest_file_ends_the_epoch(shelf: Shelf, folder: Path) -> None:
    """The stream goes on where the file before it ends, and the stop was not clean."""
    put(shelf, 1, 100)
    shelf.now += DAY
    put(shelf, 101, 200)
    shelf.archive.close(True)
    (folder / "2024-10-05.db").write_bytes(b"x" * 9_000)
    contents = shelf.open()
    assert (contents.is_clean, contents.streams[SYMBOL].last) == (False, 100)
    assert "lost: places BTC-USD from 101 on. It is 2024-10-05.db.damaged now" in contents.damage[0]
    shelf.archive.begin(8)
    put(shelf, 101, 110)
    assert list(shelf.reopen().streams[SYMBOL].epochs) == [(7, 1), (8, 101)]
    assert names(folder) == ["2024-10-04.db", "2024-10-05.db", "2024-10-05.db.damaged"]


def test_a_damaged_block_is_left_out_and_counted_once(shelf: Shelf, folder: Path) -> None:
    """By place and by time. A page by time has as many trades as it can without it."""
    put(shelf, 1, 4_096, 1_024)
    with closing(sqlite3.connect(folder / "2024-10-04.db")) as connection:
        query = "UPDATE blocks SET frame=substr(frame, 1, 500)||x'00'||substr(frame, 502) WHERE first=1025"
        assert connection.execute(query).rowcount == 1
        connection.commit()
    archive = shelf.archive
    whole = [*range(1, 1_025), *range(2_049, 4_097)]
    for _ in range(2):
        assert places(shelf) == whole
        assert [each.offset for each in archive.ascending(SYMBOL, 0, 2_000, EVER)] == whole[:2_000]
        assert [each.offset for each in archive.descending(SYMBOL, None, 2_100, EVER)] == whole[::-1][:2_100]
        assert archive.damaged == 1  # type: ignore[attr-defined]
    (line,) = archive.verify()
    assert re.fullmatch(r"2024-10-04\.db: BTC-USD: block of the places 1025 to 2048: .+", line)


def test_a_file_that_cannot_be_written_any_more_is_set_aside(shelf: Shelf, folder: Path) -> None:
    """The batch fails. The next one goes to a new file: a broken one must not stop the recording."""
    put(shelf, 1, 100)
    for name in ("", "-wal"):
        path = folder / f"2024-10-04.db{name}"
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
    first = 101
    with suppress(ArchiveFailed):
        for first in range(101, 10_000, 100):
            put(shelf, first, first + 99)
    assert first < 9_901
    put(shelf, first, first + 99)
    assert "2024-10-04.db.damaged" in names(folder)
    assert places(shelf)[-100:] == [*range(first, first + 100)]


# -- retention -----------------------------------------------------------------------------------------


@pytest.fixture
def week(shelf: Shelf) -> Shelf:
    """A hundred trades on each of seven days, the last of which is today."""
    for first in range(1, 701, 100):
        put(shelf, first, first + 99)
        shelf.now += DAY
    shelf.now -= DAY
    return shelf


def test_old_days_are_unlinked(week: Shelf, folder: Path) -> None:
    """As many days stay as are to be kept, today included. Readers that are at it are not disturbed."""
    assert week.archive.retain(Keep(7, 0, 0), "2024-10-10") == {}
    assert week.archive.retain(Keep(3, 0, 0), "2024-10-10") == {SYMBOL: 401}
    assert names(folder) == ["2024-10-08.db", "2024-10-09.db", "2024-10-10.db"]
    assert places(week) == [*range(401, 701)]
    assert week.reopen().streams[SYMBOL].first == 401


def test_the_newest_file_stays_however_old(week: Shelf, folder: Path) -> None:
    """It has the places and epochs from which the stream goes on."""
    week.archive.retain(Keep(1, 0, 0), "2031-01-01")
    assert names(folder) == ["2024-10-10.db"]
    for _ in range(9):
        assert week.archive.make_room("2031-01-01") == {}
    stream = week.reopen().streams[SYMBOL]
    assert (stream.first, stream.last) == (601, 700)


def test_today_is_never_unlinked(week: Shelf, folder: Path) -> None:
    """Neither for room nor for a clock that was wrong."""
    for _ in range(9):
        week.archive.make_room("2024-10-07")
    assert names(folder)[0] == "2024-10-07.db"
    assert week.archive.retain(Keep(7, 0, EVER), "2024-10-10") == {SYMBOL: 601}
    assert names(folder) == ["2024-10-10.db"]


def test_the_oldest_days_make_room(week: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are needed until so much is free, and none where it is; 0 switches that off."""
    monkeypatch.setattr(Folder, "free", lambda _: 100 - 10 * len(names(folder)))  # a day takes 10 bytes
    for least, first in ((0, 1), (30, 1), (31, 101), (55, 301)):
        week.archive.retain(Keep(7, 0, least), "2024-10-10")
        assert places(week) == [*range(first, 701)]


def test_a_symbol_that_was_pruned_goes_on_at_its_place(week: Shelf) -> None:
    """Its last place and its epochs outlive its trades."""
    week.now += DAY
    week.archive.append(Batch([run(1, 1, "ETH-USD")]))
    assert week.archive.retain(Keep(1, 0, 0), "2024-10-11") == {SYMBOL: 701}
    stream = week.reopen().streams[SYMBOL]
    assert (stream.first, stream.last, list(stream.epochs)) == (701, 700, [(7, 1)])
    week.archive.begin(8)
    put(week, 701, 710)
    assert places(week) == [*range(701, 711)]
    assert list(week.reopen().streams[SYMBOL].epochs) == [(7, 1), (8, 701)]


def test_a_number_of_trades_is_kept_across_days(week: Shelf, folder: Path) -> None:
    """Blocks go, the oldest first, in old files and in the newest one. Space is given back."""
    before = (folder / "2024-10-04.db").stat().st_size
    assert week.archive.retain(Keep(7, 350, 0), "2024-10-10") == {SYMBOL: 301}
    assert (folder / "2024-10-04.db").stat().st_size <= before
    assert places(week) == [*range(301, 701)]
    put(week, 701, 4_000)
    (first,) = week.archive.retain(Keep(7, 350, 0), "2024-10-10").values()
    assert 701 < first <= 3_651
    assert places(week) == [*range(first, 4_001)]
    assert week.archive.verify() == []
    assert week.reopen().streams[SYMBOL].first == first


def test_fills_go_with_their_day(shelf: Shelf) -> None:
    """A fill of a removed gap shows nowhere, and a fill of a gap of an earlier day lies over it."""
    shelf.archive.append(Batch([Run.of(SYMBOL, [(1, trade(1)), (3, gap(2, 3))])]))
    shelf.now += DAY
    shelf.archive.append(Batch([run(4, 5), run(2, 3, is_fill=True)]))
    assert list(shelf.archive.behind(SYMBOL, 0, 9)) == list(run(1, 5).places)
    shelf.now += DAY
    put(shelf, 6, 7)
    assert shelf.archive.retain(Keep(2, 0, 0), "2024-10-06") == {SYMBOL: 4}
    for _ in range(2):
        assert [each.offset for each in shelf.archive.ascending(SYMBOL, 0, 9, EVER)] == [4, 5, 6, 7]
        assert shelf.archive.latest(SYMBOL, 4) is None
        shelf.reopen()
