"""A thousand restarts of each kind of actor leave nothing behind: no task, no socket, no file, no memory."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dataflow import events
from dataflow.connectors import binance
from dataflow.gateway import load
from simulators import Exchange, open_binance
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, connection, daemon, from_binance, http_client

KEPT_EACH = 0.5  # blocks of memory: less than the smallest object of an incarnation
SLACK = 400  # blocks of caches that are still filling: bounded, whatever the number of restarts


@pytest.fixture(autouse=True)
def _short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What remembers a number of events or seconds is full after the warm-up, however fast the machine is."""
    monkeypatch.setattr(events, "KEPT", 10)
    monkeypatch.setattr(load, "KEPT", 1)


def tasks_and_files() -> tuple[int, int]:
    """How many Trio tasks live, and how many files are open."""
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))


async def blocks() -> int:
    """How many blocks of memory are in use, of any size: to count them costs the restarts nothing."""
    await forget_deadlines()
    gc.collect()
    return sys.getallocatedblocks()


async def forget_deadlines() -> None:
    """Trio forgets deadlines that are void when their time comes, or when they are many: make them many.

    How many there are is otherwise a matter of how fast the machine is.
    """
    for _ in range(10_000):
        with trio.CancelScope(deadline=trio.current_time() + 3600):  # noqa: ASYNC100
            pass
    await trio.lowlevel.checkpoint()


async def assert_nothing_left(restart: Callable[[], Awaitable[None]], warm_up: int, times: int) -> None:
    """After the warm-up `times` more add no task and no file, and next to no memory.

    The last connection may take a moment to end, so this waits for the number of tasks and files. It waits until the
    test's timeout when one of them stays.
    """
    for _ in range(warm_up):
        await restart()
    await wait_all_tasks_blocked()
    tasks, files = tasks_and_files()
    before = await blocks()
    for _ in range(times):
        await restart()
    await until(lambda: tasks_and_files()[0] <= tasks and tasks_and_files()[1] <= files)
    assert await blocks() - before < SLACK + times * KEPT_EACH


Restart = Callable[[Daemon, Exchange], Awaitable[None]]


async def shard(d: Daemon, _exchange: Exchange) -> None:
    await d.root.supervisor("cache").restart("shard-0")


async def subscription(d: Daemon, _exchange: Exchange) -> None:
    await d.root.supervisor("topics").restart("BTC-USDT")


async def connector(d: Daemon, exchange: Exchange) -> None:
    await d.root.supervisor("sources").restart("binance")
    await exchange.wait_subscribed(["BTCUSDT"])


async def session(d: Daemon, _exchange: Exchange) -> None:
    async with connection(d.url) as socket:
        await socket.send_message('{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
        await socket.get_message()


@pytest.mark.parametrize("restart", [shard, subscription, connector, session])
async def test_a_thousand_restarts_leave_nothing_behind(
    restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actors that hold data, an upstream connection or a client."""
    monkeypatch.setattr(binance.Settings, "connections_in", (0, 1.0))  # it takes 300 in five minutes, no more
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        client(d.url) as listener,
    ):
        await listener.call("subscribe", symbol="BTC-USDT")
        await exchange.wait_subscribed(["BTCUSDT"])
        d.keep_events = listener.keep_notices = False
        await assert_nothing_left(lambda: restart(d, exchange), 100, 1000)


async def test_restarts_of_the_server_leave_nothing_behind() -> None:
    """The gateway's server, its listening socket and its connections."""
    async with open_binance() as exchange, daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d:
        d.keep_events = False

        async def restart() -> None:
            await d.root.supervisor("gateway").restart("http")
            async with http_client(d.http) as http:
                assert (await http.get("/health")).status_code == 200

        await assert_nothing_left(restart, 100, 100)
