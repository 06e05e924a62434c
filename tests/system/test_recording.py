"""A daemon with a history on disk: its lives, as its clients see them."""

from __future__ import annotations

from typing import Any

from simulators import Exchange, Trade, open_binance
from tests.support.memory_archive import MemoryArchive
from tests.support.waiting import until

from .daemon import Daemon, client, daemon, from_binance

SYMBOL, THEIRS = "BTC-USDT", "BTCUSDT"


async def publish(exchange: Exchange, d: Daemon, *ids: int) -> None:
    """These trades are admitted when this returns."""
    await exchange.wait_subscribed([THEIRS])
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
        async with daemon(sources=sources, archive=archive) as d, client(d.url) as listener:
            first = await listener.call("subscribe", symbol=SYMBOL)
            await publish(exchange, d, 1, 2, 3)
            await listener.until(lambda: listener.traded.total() == 3)
            gateway = d.again
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


# With real processes and a real disk.


@pytest.fixture(scope="module")
def real_trades() -> list[Trade]:
    """Ten minutes of BTCUSDT, as the exchange's archive has them: the first thousand."""
    with gzip.open(DATA / "binance_spot_20240808_09.csv.gz", "rt") as file:
        rows = (row for row in csv.DictReader(file) if row["symbol"] == THEIRS)
        return [
            Trade(
                int(row["trade_id"]),
                THEIRS,
                row["side"],  # type: ignore[arg-type]
                row["price"],
                row["quantity"],
                int(row["timestamp_us"]),
            )
            for row in islice(rows, 1000)
        ]
