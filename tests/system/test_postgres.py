"""A daemon with its history in PostgreSQL: killed, cut off from its server, and started again."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import trio

from simulators import Exchange, Trade, open_binance
from tests.support.postgres import schema

from .daemon import client
from .process import Home, Life

SYMBOL, THEIRS = "BTC-USDT", "BTCUSDT"


async def publish(exchange: Exchange, *ids: int) -> None:
    await exchange.wait_subscribed([THEIRS])
    for n in ids:
        await exchange.publish(Trade(n, THEIRS, "buy", f"{n}.10", "1.000", 1_700_000_000_000_000 + n))


def sql(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


async def until_stored(life: Life, entries: int) -> None:
    with trio.fail_after(60):
        await life.until_recorded(entries)


async def test_a_life_a_crash_of_the_server_and_a_kill(server: Any, tmp_path: Path) -> None:
    """The recorder catches up when the server is back; a killed daemon has lost nothing that it had written; and a person
    finds all of it as rows. Meanwhile a second daemon is refused with one line."""
    dsn = schema(server)
    async with open_binance() as exchange:
        home = Home(tmp_path, exchange.url, more=f'store = "postgres"\ndsn = "{dsn}"')
        async with home.living() as life, client(life.url) as listener:
            first = await listener.call("subscribe", symbol=SYMBOL)
            await publish(exchange, 1, 2, 3)
            await until_stored(life, 3)
            command = [sys.executable, "-m", "dataflow", "run", "--port", "0", "--config", str(home.write())]
            done = await trio.run_process(command, capture_stderr=True, check=False)
            (line,) = done.stderr.decode().strip().splitlines()
            assert (done.returncode, "in use by another daemon" in line) == (1, True)
            ((process,),) = sql(
                dsn,
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'dataflow' "
                "AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory') ORDER BY backend_start DESC LIMIT 1",
            )
            os.kill(process, signal.SIGKILL)  # the whole server restarts then
            await publish(exchange, 4, 5, 6)
            await until_stored(life, 6)
            await life.kill()
        await exchange.wait_disconnected()
        async with home.living() as life, client(life.url) as listener:
            await publish(exchange, 7)
            await until_stored(life, 1)
            answer = await listener.call(
                "subscribe", symbol=SYMBOL, since={"epoch": first["epoch"], "offset": 2}
            )
            assert await life.stop() == 0
    assert [trade["tradeId"] for trade in answer["trades"]] == ["3", "4", "5", "6", "7"]
    assert answer["recovered"]
    assert answer["epoch"] > first["epoch"]
    rows = sql(dsn, "SELECT place, trade_id, price::text, quantity::text FROM trades ORDER BY place")
    assert rows == [(n, str(n), f"{n}.10000000", "1.00000000") for n in range(1, 8)]
    assert sql(dsn, "SELECT clean FROM meta") == [(True,)]
