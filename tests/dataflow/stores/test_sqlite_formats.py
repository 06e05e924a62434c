"""Histories that earlier versions have written: this one reads them, and goes on in them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from dataflow.cache.archive import BarRow, Batch, Checkpoint, Contents, Run
from dataflow.domain import Gap, Trade
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store
from dataflow.stores.sqlite.day import FORMAT

from .shelf import SECOND

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(params=[1])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Contents]]:
    """A copy of the history of a format: two days, two epochs, a gap that was filled in part."""
    folder = tmp_path / "data"
    shutil.copytree(DATA / f"history_format_{request.param}", folder)
    store = Store(History(directory=str(folder)))
    yield store, store.open()
    store.close(False)


@pytest.fixture(scope="module")
def trades() -> dict[str, list[Trade]]:
    """What it was made of."""
    found: dict[str, list[Trade]] = {"BTC-USDT": [], "ETH-USDT": []}
    with (DATA / "binance_spot_20240808.csv").open() as file:
        for row in csv.DictReader(file):
            symbol, side = row["symbol"].replace("USDT", "-USDT"), row["side"]
            numbers = Decimal(row["price"]), Decimal(row["qty"]), int(row["timestamp_us"]) * 1000
            trade = Trade("binance", symbol, row["trade_id"], side, *numbers, int(row["trade_id"]))  # type: ignore[arg-type]
            found[symbol].append(trade)
    return found


def test_every_format_so_far_has_a_history(opened: tuple[Store, Contents]) -> None:
    """Who raises the number adds a directory, written by the version before."""
    assert (DATA / f"history_format_{FORMAT}").is_dir()


def test_an_older_history_is_read(opened: tuple[Store, Contents], trades: dict[str, list[Trade]]) -> None:
    """Every entry, digit by digit; epochs, bars and checkpoints."""
    store, contents = opened
    assert (contents.epoch, contents.is_clean, list(contents.damage), list(store.verify())) == (
        9,
        True,
        [],
        [],
    )
    stream = contents.streams["BTC-USDT"]
    assert (stream.first, stream.last, list(stream.epochs)) == (1, 200, [(7, 1), (9, 101)])
    btc, eth = trades["BTC-USDT"], trades["ETH-USDT"]
    numbered = list(enumerate(btc, 1))
    hole = Gap(56, 60, "source_gap", True, "binance", btc[55].sequence)
    assert list(store.behind("BTC-USDT", 0, 999)) == [*numbered[:55], (60, hole), *numbered[60:]]
    last = len(eth) + 1
    expected = [*enumerate(eth, 1), (last, Gap(last, last, "shard_restart", False))]
    assert list(store.behind("ETH-USDT", 0, 999)) == expected
    bar = BarRow("BTC-USDT", 60 * SECOND, 1_723_161_240 * SECOND, 2, b"a bar")
    assert store.bars("BTC-USDT", 60 * SECOND, 0, 1 << 62, 9) == [bar]
    assert store.checkpoints("days") == {"BTC-USDT": Checkpoint("days", "BTC-USDT", 100, b"a state")}


def test_an_older_history_goes_on(opened: tuple[Store, Contents], trades: dict[str, list[Trade]]) -> None:
    """In its epoch, behind its last place."""
    store, _ = opened
    store.begin(9)
    store.append(Batch([Run.of("BTC-USDT", [(201, trades["BTC-USDT"][0])])]))
    assert list(store.behind("BTC-USDT", 199, 9)) == [
        (200, trades["BTC-USDT"][199]),
        (201, trades["BTC-USDT"][0]),
    ]
