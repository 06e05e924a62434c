"""A daemon with a history on disk: its lives, as its clients see them."""

from __future__ import annotations

import csv
import gzip
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trio

from dataflow.app import hall, store, tree
from dataflow.cache import recorder
from dataflow.cache.archive import Batch
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import Gateway, History, Send, Settings
from simulators import Exchange, Trade, open_binance
from tests.support.memory_archive import MemoryArchive
from tests.support.ports import own_port
from tests.support.waiting import until

from .daemon import Daemon, client, daemon, from_binance
from .process import Home, Life

SYMBOL, THEIRS = "BTC-USDT", "BTCUSDT"


async def publish(exchange: Exchange, d: Daemon, *ids: int) -> None:
    """These trades are admitted when this returns."""
    await d.until_carried(SYMBOL)  # the exchange may still know the life before
    for n in ids:
        await exchange.publish(Trade(n, THEIRS, "buy", f"{n}.10", "1", 1_700_000_000_000_000 + n))
    log = d.core.history(SYMBOL)
    await until(lambda: log.newest_trade is not None and log.newest_trade.trade_id == str(ids[-1]))


async def recorded(d: Daemon) -> None:
    await until(lambda: d.core.recording.is_complete)


def ids(trades: list[dict[str, Any]]) -> list[str]:
    return [trade["tradeId"] for trade in trades]


async def test_after_a_clean_stop_a_client_goes_on_where_it_was() -> None:
    """The same epoch, the next place, nothing missing and nothing twice; what was missed meanwhile is an exact gap."""
    archive = MemoryArchive()
    async with open_binance() as exchange:
        sources = from_binance(exchange.url, SYMBOL, eager=True)
        gateway = Gateway(port=own_port())
        async with daemon(sources=sources, archive=archive, gateway=gateway) as d, client(d.url) as listener:
            first = await listener.call("subscribe", symbol=SYMBOL)
            await publish(exchange, d, 1, 2, 3)
            await listener.until(lambda: listener.traded.total() == 3)
        await exchange.wait_disconnected()
        await exchange.publish(Trade(4, THEIRS, "buy", "4", "1", 1_700_000_000_000_004))
        async with daemon(sources=sources, archive=archive, gateway=gateway) as d, client(d.url) as listener:
            await publish(exchange, d, 6, 7)
            position = {"epoch": first["epoch"], "offset": 2}
            again = await listener.call("subscribe", symbol=SYMBOL, since=position)
            assert again["epoch"] == first["epoch"]
            assert again["recovered"] is True
            assert ids(again["trades"]) == ["3", "6", "7"]
            assert [trade["offset"] for trade in again["trades"]] == [3, 6, 7]
            assert [(gap["from"], gap["to"]) for gap in again["gaps"]] == [(4, 5)]


async def test_after_a_death_there_is_a_new_epoch_that_goes_on() -> None:
    """What was on disk is still good under its old position; what was not is told as missing."""
    archive = MemoryArchive()
    async with open_binance() as exchange:
        sources = from_binance(exchange.url, SYMBOL, eager=True)
        async with daemon(sources=sources, archive=archive) as d, client(d.url) as listener:
            first = await listener.call("subscribe", symbol=SYMBOL)
            await publish(exchange, d, 1, 2, 3)
            await recorded(d)
            d.die()
            await publish(exchange, d, 4)
        async with daemon(sources=sources, archive=archive) as d, client(d.url) as listener:
            await publish(exchange, d, 5)
            old = first["epoch"]
            good = await listener.call("subscribe", symbol=SYMBOL, since={"epoch": old, "offset": 3})
            assert good["epoch"] > old
            assert good["recovered"] is True
            assert ids(good["trades"]) == ["5"]
            assert [(gap["from"], gap["to"]) for gap in good["gaps"]] == [(4, 4)]
            await listener.call("unsubscribe", symbol=SYMBOL)
            lost = await listener.call("subscribe", symbol=SYMBOL, since={"epoch": old, "offset": 4})
            assert lost["recovered"] is False


async def test_an_upstream_that_repeats_its_last_trades_is_recognised() -> None:
    """They were admitted in an earlier life. Nothing is admitted twice, and there is no gap."""
    archive = MemoryArchive()
    async with open_binance() as exchange:
        sources = from_binance(exchange.url, SYMBOL, eager=True)
        async with daemon(sources=sources, archive=archive) as d:
            await publish(exchange, d, 1, 2, 3)
        async with daemon(sources=sources, archive=archive) as d:
            await publish(exchange, d, 1, 2, 3, 4)
            places = d.core.history(SYMBOL).places(0, 100)
            assert [(last, entry.trade_id) for last, entry in places] == [(n, str(n)) for n in range(1, 5)]  # type: ignore[union-attr]


class Stuck(MemoryArchive):
    """A disk that writes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()

    def append(self, batch: Batch) -> None:
        self.may_write.wait()
        super().append(batch)


async def test_after_commit_clients_get_what_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a subscription, nor its answer, nor a page has a trade before that. A disk that is stuck makes nobody
    wait for long: then the places are told at once."""
    monkeypatch.setattr(recorder, "PATIENCE", 3600)
    archive = Stuck()
    history = History(interval=0.01, send=Send.AFTER_COMMIT)
    async with open_binance() as exchange:
        sources = from_binance(exchange.url, SYMBOL, eager=True)
        async with daemon(sources=sources, archive=archive, history=history) as d, client(d.url) as listener:
            await listener.call("subscribe", symbol=SYMBOL)
            await publish(exchange, d, 1, 2)
            assert not (await listener.call("getRecentTrades", symbol=SYMBOL))
            async with client(d.url) as other:
                answer = await other.call("subscribe", symbol=SYMBOL, snapshot=10)
                assert (answer["offset"], answer["trades"]) == (0, [])
                archive.may_write.set()
                await other.until(lambda: len(other.trades()) == 2)
            await listener.until(lambda: len(listener.trades()) == 2)
            assert len(await listener.call("getRecentTrades", symbol=SYMBOL)) == 2
            archive.may_write.clear()
            await publish(exchange, d, 3)
            assert len(listener.trades()) == 2
            d.core.recording.expose()
            await listener.until(lambda: len(listener.trades()) == 3)
            archive.may_write.set()


# With real processes and a real disk.


@pytest.fixture(scope="module")
def real_trades(checkout: Path) -> list[Trade]:
    """Those of BTCUSDT, as the exchange's archive has them: the first six hundred."""
    with gzip.open(checkout / "tests" / "data" / "binance_spot_20240808_09.csv.gz", "rt") as file:
        rows = (row for row in csv.DictReader(file) if row["symbol"] == THEIRS)
        return [
            Trade(
                int(row["trade_id"]),
                THEIRS,
                row["side"],  # type: ignore[arg-type]
                row["price"],
                row["qty"],
                int(row["timestamp_us"]),
            )
            for row in islice(rows, 600)
        ]


def as_published(trades: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return [(each["tradeId"], each["side"], str(each["price"]), str(each["qty"])) for each in trades]


async def test_real_trades_through_a_stop_and_a_kill(tmp_path: Path, real_trades: list[Trade]) -> None:
    """A client that comes back gets everything behind its position, digit by digit as the exchange has it: in the same
    epoch after SIGTERM, in a new one after SIGKILL. What is told of the log is where the files are."""
    async with open_binance() as exchange:
        home = Home(tmp_path, exchange.url)
        parts = real_trades[:200], real_trades[200:400], real_trades[400:]

        async def publish(life: Life, part: list[Trade]) -> None:
            await exchange.wait_subscribed([THEIRS])
            for each in part:
                await exchange.publish(each)
            await life.until_recorded(len(part))

        async with home.living() as life, client(life.url) as listener:
            first = await listener.call("subscribe", symbol=SYMBOL)
            await publish(life, parts[0])
            assert f"recording to {home.history}" in "".join(life.log)
            assert await life.stop() == 0
        await exchange.wait_disconnected()
        position = {"epoch": first["epoch"], "offset": 150}
        async with home.living() as life, client(life.url) as listener:
            assert "goes on" in "".join(life.log)
            await publish(life, parts[1])
            second = await listener.call("subscribe", symbol=SYMBOL, since=position)
            assert (second["epoch"], second["recovered"]) == (first["epoch"], True)
            await life.kill()
        await exchange.wait_disconnected()
        position = {"epoch": first["epoch"], "offset": 390}
        async with home.living() as life, client(life.url) as listener:
            assert "begins, because the history was not closed in order" in "".join(life.log)
            await publish(life, parts[2])
            third = await listener.call("subscribe", symbol=SYMBOL, since=position)
            assert third["epoch"] > first["epoch"]
            assert third["recovered"] is True
            whole = await listener.call("getRecentTrades", symbol=SYMBOL, count=1000)
            assert await life.stop() == 0

    def told(trades: list[Trade]) -> list[tuple[str, str, str, str]]:
        return [(str(each.id), str(each.side), each.price, each.qty) for each in trades]

    assert as_published(second["trades"]) == told(real_trades[150:400])
    assert as_published(third["trades"]) == told(real_trades[390:])
    assert [each["offset"] for each in third["trades"]] == list(range(391, 601))
    assert sorted(as_published(whole)) == sorted(told(real_trades))
    assert "gaps" not in second
    assert "gaps" not in third


async def test_a_second_daemon_on_the_directory_is_refused(tmp_path: Path) -> None:
    """One line, exit code 1."""
    home = Home(tmp_path, "ws://127.0.0.1:1/")
    first = store(Settings(history=History(directory=str(home.history))))
    assert first is not None
    first.open()
    command = [sys.executable, "-m", "dataflow", "run", "--config", str(home.write())]
    done = await trio.run_process(command, capture_stderr=True, check=False)
    first.close(clean=True)
    assert done.returncode == 1
    (line,) = done.stderr.decode().strip().splitlines()
    assert str(home.history) in line


def test_a_history_that_cannot_be_used_is_the_users_mistake(tmp_path: Path) -> None:
    """The words name the directory, or the stores that there are."""
    (tmp_path / "file").write_text("a file")
    settings = Settings(history=History(directory=str(tmp_path / "file")))
    with pytest.raises(ConfigError, match=str(tmp_path / "file")):
        hall(settings, archive=store(settings))
    with pytest.raises(ConfigError, match=r'\[history\] store: there is no "tape"; there is .*"sqlite"'):
        store(Settings(history=History(directory="x", store="tape")))


def test_without_a_directory_nothing_is_kept() -> None:
    """Neither a file nor an actor."""
    built = hall(Settings(), archive=store(Settings()))
    assert "history" not in [child.id for child in tree(built).children]
    assert built.core.recording.archive is None
