"""Whatever happens to the bytes of the files: what is read was written, and nobody meets an exception."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow.cache.archive import ArchiveFailed, BarRow, Batch, Checkpoint, Places, Run
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store

from .shelf import DAY, NOON, Shelf, gap, run, trade

SYMBOLS = ("BTC-USD", "ETH-USD")
EVER = 1 << 60


class Killed:
    """The files of a store that was killed, and what they hold."""

    def __init__(
        self, folder: Path, places: dict[str, Places], bars: list[BarRow], points: set[tuple[int, bytes]]
    ) -> None:
        self.folder, self.places, self.bars, self.points = folder, places, bars, points


def _store(folder: Path, shelf: Shelf) -> Store:
    return Store(History(directory=str(folder)), lambda: shelf.now)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """Three days with blocks, fills, bars and checkpoints; a journal that is still in its WAL."""
    folder = tmp_path_factory.mktemp("killed")
    shelf = Shelf(lambda shelf: _store(folder / "data", shelf))
    shelf.archive.begin(7)
    bars, last = [], 0
    for at in range(12):
        runs = [run(last + 1, last + 300, symbol) for symbol in SYMBOLS]
        runs += [Run.of(symbol, [(last + 303, gap(last + 301, last + 303))]) for symbol in SYMBOLS]
        if at > 6:
            runs += [run(last - 305, last - 304, symbol, is_fill=True) for symbol in SYMBOLS]
        last += 303
        bars.append(BarRow(SYMBOLS[at % 2], 60, at, 1, b"bar %d" % at))
        points = [Checkpoint("days", symbol, last, b"%d" % last) for symbol in SYMBOLS]
        shelf.archive.append(Batch(runs, bars[-1:], points))
        shelf.now += DAY / 4
    shutil.copytree(folder / "data", folder / "left")
    places = {symbol: shelf.archive.behind(symbol, 0, EVER) for symbol in SYMBOLS}
    yield Killed(
        folder / "left", places, bars, {(point, b"%d" % point) for point in range(303, last + 1, 303)}
    )
    shelf.archive.close(False)


class Harm:
    """Bytes that are changed, cut off or swapped, at places that are a share of the file."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.file = draw(st.integers(0, 9))
        self.kind = draw(st.sampled_from(["flip", "zero", "cut", "noise"]))
        self.at = draw(st.floats(0, 1, exclude_max=True))
        self.size = draw(st.sampled_from([1, 20, 600, 9_000]))
        self.bit = draw(st.integers(0, 7))

    def __repr__(self) -> str:
        return f"{self.kind} {self.size} at {self.at} of {self.file}, bit {self.bit}"

    def do(self, folder: Path, *without: str) -> None:
        """Harm one of the files, but none whose name ends like that."""
        files = sorted(path for path in folder.glob("*.db*") if path.stat().st_size)
        files = [path for path in files if not path.name.endswith(without)]
        path = files[self.file % len(files)]
        data = bytearray(path.read_bytes())
        at = int(self.at * len(data))
        size = min(self.size, len(data) - at)
        if self.kind == "flip":
            data[at] ^= 1 << self.bit
        elif self.kind == "zero":
            data[at : at + size] = bytes(size)
        elif self.kind == "cut":
            del data[at:]
        else:
            data[at : at + size] = bytes((7 * n + at) % 256 for n in range(size))
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()


@given(st.lists(st.composite(Harm)(), min_size=1, max_size=3))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_was_written(killed: Killed, harms: list[Harm]) -> None:
    """Before it is opened. It may refuse to start, with a line for people; else it can be written to."""
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        shutil.copytree(killed.folder, data)
        for harm in harms:
            harm.do(data)
        store = Store(History(directory=str(data)), lambda: NOON + 9 * DAY)
        with suppress(ConfigError):
            contents = store.open()
            _is_sound(store, killed)
            lasts = {symbol: stream.last for symbol, stream in contents.streams.items()}
            _at_last(lambda: store.begin(max(contents.epoch, 7) + 1))
            for symbol in SYMBOLS:
                last = lasts.get(symbol, 0)
                place = (last + 1, trade(last + 1, 0, symbol))
                _at_last(partial(store.append, Batch([Run.of(symbol, [place])])))
                assert store.behind(symbol, last, 9) == [place]
        store.close(True)


def _at_last(write: Callable[[], None]) -> None:
    """A broken file fails one write, and is set aside."""
    for _ in range(2):
        with suppress(ArchiveFailed):
            return write()
    return write()


@given(st.lists(st.composite(Harm)(), min_size=1, max_size=3))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_was_written_also_while_the_store_is_open(killed: Killed, harms: list[Harm]) -> None:
    """The disk changes below it. Nothing wrong comes out, and a batch that fails says why."""
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        shutil.copytree(killed.folder, data)
        store = Store(History(directory=str(data)), lambda: NOON + 2 * DAY)
        store.open()
        store.begin(7)
        _is_sound(store, killed)
        for harm in harms:
            harm.do(data, "-shm")  # it is mapped into memory: who cuts it kills the process
        with suppress(ArchiveFailed):
            _is_sound(store, killed)
            store.append(Batch())
        store.close(True)


def _is_sound(store: Store, killed: Killed) -> None:
    store.verify()
    for symbol, written in killed.places.items():
        known = set(map(repr, written))
        found = store.behind(symbol, 0, EVER)
        lasts = [last for last, _ in found]
        assert lasts == sorted(set(lasts))
        assert {repr(place) for place in found} <= known | {repr(place) for place in _unfilled(written)}
        for time in (0, 900_000):
            page = store.ascending(symbol, time, 500, EVER)
            assert {repr((each.offset, each.trade)) for each in page} <= known
        page = store.descending(symbol, None, 500, EVER)
        assert {repr((each.offset, each.trade)) for each in page} <= known
        store.newest(symbol, 100, EVER)
        store.latest(symbol, EVER)
        store.skip(symbol, 0, 0, 1)
        assert all(bar in killed.bars for bar in store.bars(symbol, 60, 0, 99, 99))
    for point in store.checkpoints("days").values():
        assert (point.position, point.data) in killed.points


def _unfilled(written: Places) -> Places:
    """A fill that is lost leaves its gap, or a part of it."""
    places = []
    for border in range(303, written[-1][0] + 1, 303):
        for first in range(border - 2, border + 1):
            places += [(last, gap(first, last)) for last in range(first, border + 1)]
    return places
