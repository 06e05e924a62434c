"""Every kind of disconnect looks to a client like the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from simulators import Exchange, Trade, blockchain_dialect, open_binance, open_blockchain
from tests.support.waiting import until_deadline_within

Connect = Callable[..., Any]
Make = Callable[..., Trade]
Ids = Callable[[list[str]], list[int]]


async def test_graceful_sends_what_is_queued_and_a_close_frame(
    connect: Connect, make: Make, ids: Ids
) -> None:
    """1001 after the last trade; the exchange still accepts clients."""
    async with open_blockchain() as exchange:
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.publish_all([make(i) for i in range(500)])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.disconnect, "graceful")
                texts, code = await raw.until_closed()
            assert (ids(texts), code) == (list(range(500)), 1001)
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
        assert exchange.failed == 0


async def test_abrupt_sends_no_close_frame(connect: Connect) -> None:
    """The client sees 1006, which means that no close frame came; the exchange still accepts clients."""
    async with open_binance() as exchange:
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTCUSDT")
            await exchange.disconnect("abrupt")
            assert exchange.connections == ()
            assert (await raw.until_closed())[1] == 1006
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTCUSDT")


async def test_abrupt_is_a_tcp_reset() -> None:
    """It is not a FIN: reading the socket gives an error, not an end."""
    async with open_binance() as exchange:
        stream = await trio.open_tcp_stream(exchange.host, exchange.port)
        async with stream:
            await stream.send_all(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await exchange.wait_connected()
            await stream.receive_some()
            await exchange.disconnect("abrupt")
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_refuse_lasts_until_accept(connect: Connect) -> None:
    """Connections are cut and new ones refused until `accept`; the port stays the same."""
    async with open_blockchain() as exchange:
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.disconnect("refuse")
            assert (await raw.until_closed())[1] == 1006
        await assert_refused(connect, exchange)
        await assert_refused(connect, exchange)
        await exchange.disconnect("accept")
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")


async def assert_refused(connect: Connect, exchange: Exchange) -> None:
    with pytest.raises(OSError, match="connect"):
        async with connect(exchange.url):
            raise AssertionError("the connection was not refused")


async def test_a_temporary_drop_ends_after_its_time(attach: Connect, autojump_clock: MockClock) -> None:
    """Clients are refused until exactly that time, and accepted from then on."""
    exchange = Exchange(blockchain_dialect(heartbeat=None))
    async with attach(exchange) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        await exchange.disconnect("drop", 30.0)
        assert (await raw.until_closed())[1] == 1006
    await trio.sleep(29.9)
    assert exchange.refusing
    await trio.sleep(0.1)
    assert not exchange.refusing
    async with attach(exchange) as raw:
        await raw.subscribe(exchange, "BTC-USD")
    assert (exchange.accepted, exchange.refused) == (2, 0)


async def test_a_temporary_drop_shuts_the_port_for_its_time(connect: Connect, mock_clock: MockClock) -> None:
    """Meanwhile the operating system refuses clients; afterwards the same port answers."""
    async with open_blockchain() as exchange:
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.disconnect("drop", 30.0)
            assert (await raw.until_closed())[1] == 1006
        await assert_refused(connect, exchange)
        mock_clock.jump(30.0)
        await exchange.wait_accepting()
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")


async def test_a_restart_closes_with_1012_and_forgets(connect: Connect, make: Make, ids: Ids) -> None:
    """A restarted exchange replays no trade from before."""
    async with open_blockchain(absent="replayed", replay_last=10) as exchange:
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.publish(make(1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.disconnect, "restart")
                assert (await raw.until_closed())[1] == 1012
        assert exchange.tape("BTC-USD") == ()
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.publish(make(2))
            assert ids([await raw.text()]) == [2]


async def test_a_client_that_ignores_the_close_frame_is_cut(
    attach: Connect, autojump_clock: MockClock
) -> None:
    """A graceful disconnect ends within its time limit even if the client never answers."""
    exchange = Exchange(blockchain_dialect(heartbeat=None, ping=None))
    async with attach(exchange) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        deaf: Any = raw.websocket._stream
        wait_for_ever = trio.Event()

        async def send_nothing(data: bytes) -> None:
            await wait_for_ever.wait()

        deaf.send_all = send_nothing
        begin = trio.current_time()
        await exchange.disconnect("graceful")
        assert exchange.connections == ()
        assert trio.current_time() - begin == pytest.approx(5.0)
        wait_for_ever.set()


@pytest.mark.parametrize(("mode", "told"), [("nope", "graceful, abrupt"), ("drop", "needs `seconds`")])
async def test_a_wrong_mode_is_refused(mode: Any, told: str, connect: Connect) -> None:
    """The error says what would be right, and no client is disconnected."""
    async with open_binance() as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTCUSDT")
        with pytest.raises(ValueError, match=told):
            await exchange.disconnect(mode)
        assert len(exchange.connections) == 1


async def test_an_announced_end_comes_later(connect: Connect, mock_clock: MockClock) -> None:
    """The exchange says it, goes on for so long, and takes new connections meanwhile."""
    async with open_binance() as exchange, connect(exchange.url) as old, trio.open_nursery() as nursery:
        await old.subscribe(exchange, "BTCUSDT")
        nursery.start_soon(exchange.disconnect, "announce", 5.0)
        assert (await old.get())["e"] == "serverShutdown"
        await exchange.publish(Trade(1, "BTCUSDT", "buy", "1", "1", 1))
        assert (await old.get())["data"]["t"] == 1
        async with connect(exchange.url):
            await exchange.wait_connected(2)
            await until_deadline_within(5.0)
            mock_clock.jump(5.0)
            assert await old.until_closed() == ([], 1001)
            assert len(exchange.connections) == 1


async def test_another_numbering() -> None:
    """Ids go on elsewhere, and questions by HTTP know the new ones alone; the exchange remembers all."""
    async with (
        open_binance() as exchange,
        httpx.AsyncClient(base_url=exchange.rest_url, timeout=None) as http,
    ):
        await exchange.publish(Trade(1_000, "BTCUSDT", "buy", "1", "1", 1))
        exchange.renumber(-900)
        await exchange.publish(Trade(1_001, "BTCUSDT", "buy", "1", "1", 2))
        answer = await http.get("/api/v3/historicalTrades", params={"symbol": "BTCUSDT", "fromId": 0})
        assert [trade["id"] for trade in answer.json()] == [101]
        assert [trade.id for trade in exchange.tape("BTCUSDT")] == [1_000, 101]
