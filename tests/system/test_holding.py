"""Trades that wait for missing ones, in the whole daemon: at a stop, at a crash, and when nobody asks any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import evolve
from trio.testing import wait_all_tasks_blocked

from dataflow import paths
from dataflow.domain import Gap, Recorded
from dataflow.settings.schema import Cache, History, Send
from dataflow.stores import sqlite
from simulators import open_binance
from supervisors import Point
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, http_client
from tests.system.test_refill import SYMBOL, Stage, stage

LONG = 60.0  # seconds of a hold that never ends in a test


def waiting(d: Daemon) -> int:
    return sum(store.waiting for store in d.core.stores)


async def with_one_missing(s: Stage) -> None:
    """Trade 1 is there, 2 was lost, and 3 and 4 wait for it, because nobody answers."""
    s.exchange.fault("rest_error", times=None)
    await s.publish(1)
    await s.lose(2)
    await s.publish(3, 4)
    await until(lambda: waiting(s.daemon) == 2)


async def test_a_stop_leaves_nothing_behind_that_waits(tmp_path: Path) -> None:
    """It is recorded behind its gap. The next daemon asks for the gap at once, and fills it in its place."""
    keys = History(directory=str(tmp_path))
    async with open_binance() as exchange:
        async with stage(exchange, hold=LONG, history=keys) as s:
            await with_one_missing(s)
            assert s.places() == [1]
        await exchange.wait_disconnected()
        exchange.faults.withdraw()
        store = sqlite.Store(keys)
        store.open()
        stored = [entry for _, entry in store.behind(SYMBOL, 0, 9)]
        store.close(True)
        assert [entry.sequence for entry in stored] == [1, 2, 3, 4]
        assert [isinstance(entry, Gap) for entry in stored] == [False, True, False, False]
        async with stage(exchange, hold=LONG, history=keys) as s:
            await until(lambda: s.places() == [1, 2, 3, 4])
            await s.publish(5)
            await s.follower.until(lambda: s.heard() == [5])
            assert s.follower.of("stream.gap") == []


async def test_a_crash_with_waiting_trades_costs_nothing() -> None:
    """They outlive the shard. What it had in its hand is missing too, and comes with the rest."""
    async with stage(hold=LONG, cache=Cache(shards=1)) as s:
        await with_one_missing(s)
        s.daemon.sabotage.arm(Point.RECEIVE, paths.shard(0))
        await s.publish(5)
        await s.daemon.until(lambda: s.daemon.crashes(paths.shard(0)))
        assert waiting(s.daemon) >= 2
        s.exchange.faults.withdraw()
        await s.publish(6, 7)
        await s.follower.until(lambda: len(s.heard()) == 7)
        assert s.heard() == [1, 2, 3, 4, 5, 6, 7]
        assert s.follower.of("stream.gap") == []


async def test_nothing_waits_when_nobody_asks_any_more() -> None:
    """A reload switches the refill off: what waits goes on at once, and every later gap is told at once."""
    async with stage(hold=LONG) as s:
        await with_one_missing(s)
        source: Any = s.daemon.hall.settings.sources["binance"]
        sources = {"binance": evolve(source, refill=False)}
        await s.daemon.reload(evolve(s.daemon.hall.settings, sources=sources))
        await s.follower.until(lambda: len(s.heard()) == 3)
        assert [(each["from"], each["to"]) for each in s.follower.of("stream.gap")] == [(2, 2)]
        await s.exchange.wait_subscribed(["BTCUSDT"])
        await s.publish(7)
        await s.follower.until(lambda: len(s.heard()) == 4)
        assert waiting(s.daemon) == 0
        assert s.places() == [1, None, 3, 4, None, None, 7]


async def test_who_comes_while_trades_wait_gets_them_live_in_their_order() -> None:
    """What waits has no place yet: no answer has it, no position lies behind it, and nobody is told of a gap."""
    path = f"/api/v1/trades/{SYMBOL}"
    async with (
        stage(hold=LONG) as s,
        client(s.daemon.url) as new,
        client(s.daemon.url) as back,
        http_client(s.daemon.http) as http,
    ):
        await with_one_missing(s)
        epoch = s.daemon.core.epoch
        answer = await new.call("subscribe", symbol=SYMBOL, snapshot=9, format="compact")
        assert ([each[1] for each in answer["trades"]], answer["offset"]) == ([1], 1)
        answer = await back.call("subscribe", symbol=SYMBOL, since={"epoch": epoch, "offset": 1})
        assert (answer["recovered"], answer["trades"], answer["offset"]) == (True, [], 1)
        page = await back.call("getTrades", symbol=SYMBOL)
        assert [each["offset"] for each in page["trades"]] == [1]
        held = await http.get(path)
        assert [each["tradeId"] for each in (await back.call("getRecentTrades", symbol=SYMBOL))] == ["1"]
        lines = (await http.get(path, headers={"Accept": "application/x-ndjson"})).text.splitlines()
        assert len(lines) == 1
        s.exchange.faults.withdraw()
        await back.until(lambda: len(back.trades()) == 3)
        assert [(each["offset"], each["tradeId"]) for each in back.trades()] == [(2, "2"), (3, "3"), (4, "4")]
        assert not back.of("stream.gap")
        assert not new.of("stream.gap")
        whole = await http.get(path, headers={"If-None-Match": held.headers["etag"]})
        assert [each["tradeId"] for each in whole.json()["trades"]] == ["1", "2", "3", "4"]


async def test_readers_that_wait_for_the_disk_get_the_same_stream(tmp_path: Path) -> None:
    """With send = "after_commit", too, nobody hears of a gap that was refilled in time."""
    keys = History(directory=str(tmp_path), send=Send.AFTER_COMMIT)
    async with stage(hold=LONG, history=keys) as s:
        await with_one_missing(s)
        await s.follower.until(s.heard)  # the disk takes its time
        await wait_all_tasks_blocked()
        assert s.heard() == [1]
        s.exchange.faults.withdraw()
        await s.follower.until(lambda: len(s.heard()) == 4)
        assert s.heard() == [1, 2, 3, 4]
        assert s.follower.of("stream.gap") == []
        log = s.daemon.core.history(SYMBOL).read(0, 9)
        assert [entry.offset for entry in log if isinstance(entry, Recorded)] == [1, 2, 3, 4]
