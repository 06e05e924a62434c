"""A program: a store on a disk of its own, which fails. It ends with 0 when every promise was kept.

`python -m tests.dataflow.stores.failing_disk NAME FOLDER`. The tests run it where it may mount a disk, or as
a user who may not write.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from dataflow.cache.archive import ArchiveFailed, ArchiveFull, Batch, Run
from dataflow.domain import Trade
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store

from .shelf import DAY, NOON

SYMBOL = "BTC-USD"
DICE = random.Random(5)


class Disk:
    """A store on a small disk. `last`: the last place whose batch was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = float(NOON)
        self.last = 0
        self.store = Store(History(directory=str(folder / "data")), lambda: self.now)

    def start(self) -> None:
        self.last = max([each.last for each in self.store.open().streams.values()], default=0)
        self.store.begin(7)

    def batch(self, size: int = 500) -> Batch:
        """Trades that cannot be compressed."""
        places = [(place, _trade(place)) for place in range(self.last + 1, self.last + size + 1)]
        return Batch([Run.of(SYMBOL, places)])

    def write(self, batch: Batch) -> None:
        self.store.append(batch)
        self.last = batch.runs[0].last

    def until_it_fails(self) -> tuple[Batch, ArchiveFailed]:
        while True:
            batch = self.batch()
            try:
                self.write(batch)
            except ArchiveFailed as error:
                return batch, error

    def is_whole(self, first: int = 1) -> None:
        """Everything that was written is there, and nothing else."""
        found = self.store.behind(SYMBOL, 0, 1 << 40)
        assert [last for last, _ in found] == [*range(first, self.last + 1)]
        assert self.store.verify() == []


def _trade(place: int) -> Trade:
    price = Decimal(DICE.randrange(10**15)) / 100
    return Trade("a", SYMBOL, DICE.randbytes(16).hex(), "buy", price, price, NOON * 10**9 + place, place)


def full(folder: Path) -> None:
    """A full disk fails a batch as a whole. It is written after the oldest day has gone."""
    disk = Disk(folder)
    disk.start()
    for _ in range(8):
        disk.write(disk.batch())
    border = disk.last
    disk.now += DAY
    batch, error = disk.until_it_fails()
    assert isinstance(error, ArchiveFull)
    assert str(error) == f"no room: the disk of {folder / 'data'} is full"
    for _ in range(3):
        with pytest.raises(ArchiveFull):
            disk.store.append(batch)
    disk.is_whole()
    changed = disk.store.make_room("2024-10-05")
    assert changed == {SYMBOL: border + 1}, (changed, border, disk.last)
    disk.write(batch)
    disk.is_whole(border + 1)
    _, error = disk.until_it_fails()
    assert isinstance(error, ArchiveFull)
    assert disk.store.make_room("2024-10-05") == {}
    disk.store.close(True)
    (folder / "ballast").unlink()
    disk.start()
    disk.write(disk.batch())
    disk.is_whole(border + 1)
    disk.store.close(True)


def unmounted(folder: Path) -> None:
    """Nothing is written below the mount point of a disk that is gone. With the disk the history is back.

    When it comes back so that it can only be read, nothing is written either.
    """
    mounted, other = folder / "data", folder / "other"
    for path in (mounted, other):
        path.mkdir()
    _mount(mounted, "size=3m")
    disk = Disk(folder)
    disk.start()
    disk.write(disk.batch())
    subprocess.run(["mount", "--move", mounted, other], check=True)
    for _ in range(2):
        with pytest.raises(ArchiveFailed, match=r"its disk is gone, and another one is in its place$"):
            disk.store.append(disk.batch())
    assert [path.name for path in mounted.iterdir()] == []
    _mount(other, "remount,ro")
    subprocess.run(["mount", "--move", other, mounted], check=True)
    for _ in range(2):
        with pytest.raises(ArchiveFailed, match=r"Read-only file system$"):
            disk.store.append(disk.batch())
    assert len(disk.store.behind(SYMBOL, 0, 9_999)) == disk.last
    _mount(mounted, "remount,rw")
    disk.write(disk.batch())
    disk.is_whole()
    disk.store.close(True)
    _mount(mounted, "remount,ro")
    with pytest.raises(
        ConfigError, match=r"^\[history\] directory: cannot write in .*: Read-only file system"
    ):
        disk.store.open()
    reading = Store.reading(History(directory=str(folder / "data")))
    assert not reading.open().damage
    assert len(reading.behind(SYMBOL, 0, 9_999)) == disk.last
    reading.close(False)


def forbidden(folder: Path) -> None:
    """A directory of somebody else, one line says whose. One in which nothing can be made, likewise."""
    theirs = folder / "theirs"
    theirs.mkdir(mode=0o755)
    (folder / "theirs" / "data").mkdir(mode=0o755)
    _become_nobody(theirs / "data")
    for name in ("theirs", "theirs/below"):
        with pytest.raises(ConfigError) as error:
            Store(History(directory=str(folder / name / "data"))).open()
        (line,) = error.value.problems
        assert line.startswith(
            f"[history] directory: cannot write in {folder / name / 'data'}: Permission denied"
        )
    print(line)


def _become_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    else:
        folder.chmod(0o555)
        folder.parent.chmod(0o555)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


if __name__ == "__main__":
    name, at = sys.argv[1], Path(sys.argv[2])
    if name == "full":
        _mount(at, "size=3m")
        (at / "ballast").write_bytes(bytes(1 << 20))
    {"full": full, "unmounted": unmounted, "forbidden": forbidden}[name](at)
