"""A simulated exchange sends the right messages in the right order, and survives every client."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionRejected

from simulators import (
    Exchange,
    Trade,
    binance_dialect,
    blockchain_dialect,
    open_binance,
    open_blockchain,
    open_exchange,
    playing,
    recorded,
    shipped,
)
from simulators.connection import AT_ONCE, OUTBOX

Connect = Callable[..., Any]
Make = Callable[..., Trade]
Ids = Callable[[list[str]], list[int]]
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
ETH = "binance_ethusdt_trades_20240808.jsonl.gz"


async def test_a_subscriber_gets_what_is_published_after_its_subscription(
    connect: Connect, make: Make, ids: Ids
) -> None:
    """No earlier trades, all later ones in order, and none of other symbols."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        await exchange.publish(make(1))
        await raw.subscribe(exchange, "BTC-USD")
        await exchange.publish_all([make(2), make(3, "ETH-USD"), make(4)])
        texts = await raw.texts(2)
        assert ids(texts) == [2, 4]
        assert [json.loads(text)["seqnum"] for text in texts] == [1, 2]
        assert exchange.tape("BTC-USD") == (make(1), make(2), make(4))


async def test_unsubscribing_ends_the_trades(connect: Connect, make: Make, ids: Ids) -> None:
    """After `unsubscribed` no more trades come."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        answer = await raw.ask(action="unsubscribe", channel="trades", symbol="BTC-USD")
        assert answer == {"seqnum": 1, "event": "unsubscribed", "channel": "trades", "symbol": "BTC-USD"}
        await exchange.publish(make(1))
        await raw.subscribe(exchange, "ETH-USD")
        await exchange.publish(make(2, "ETH-USD"))
        assert ids([await raw.text()]) == [2]


async def test_sequence_numbers_count_per_connection(connect: Connect, make: Make) -> None:
    """Two clients get the same trade with different numbers."""
    async with open_blockchain() as exchange, connect(exchange.url) as one, connect(exchange.url) as two:
        await one.ask(action="subscribe", channel="heartbeat")
        await one.subscribe(exchange, "BTC-USD")
        await two.subscribe(exchange, "BTC-USD")
        await exchange.publish(make(1))
        assert ((await one.get())["seqnum"], (await two.get())["seqnum"]) == (2, 1)


async def test_a_recording_is_replayed_byte_for_byte_at_full_speed(connect: Connect) -> None:
    """It begins when every symbol has a subscriber, and all messages arrive in order."""
    packed = (resources.files("simulators") / "data" / ETH).read_bytes()
    expected = [json.loads(line)["msg"] for line in gzip.decompress(packed).splitlines()]
    feed = recorded(shipped(ETH).ticks)
    async with (
        open_binance() as exchange,
        playing(exchange, feed, speed=math.inf, start="all_subscribed") as player,
        connect(exchange.url) as raw,
    ):
        await raw.subscribe(exchange, "ETHUSDT")
        assert await raw.texts(len(expected)) == expected
        await player.finished.wait()


async def test_bare_and_wrapped_clients_get_the_same_payload(connect: Connect, make: Make) -> None:
    """`/stream` wraps the payload of `/ws`."""
    async with (
        open_binance() as exchange,
        connect(f"{exchange.url}?streams=btcusdt@trade") as wrapped,
        connect(exchange.url.replace("/stream", "/ws/btcusdt@trade")) as bare,
    ):
        await exchange.wait_connected(2)
        await exchange.publish(make(1, "BTCUSDT"))
        assert await wrapped.get() == {"stream": "btcusdt@trade", "data": await bare.get()}


@pytest.mark.parametrize("dialect", [blockchain_dialect(), binance_dialect()])
async def test_wrong_handshakes_are_refused_and_counted(dialect: Any, connect: Connect) -> None:
    """A wrong path gets an HTTP error; on Blockchain.com a missing Origin does too."""
    async with open_exchange(dialect) as exchange:
        await assert_rejected(connect(exchange.url.replace(dialect.path, "/nope")), 404)
        if dialect.name == "blockchain":
            await assert_rejected(connect(exchange.url, headers=[]), 400)
            assert exchange.refused == 2
        assert exchange.accepted == exchange.failed == 0


async def assert_rejected(opening: Any, status: int) -> None:
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True, allow_unwrapped=True) as rejected:
        async with opening:
            pass
    error: Any = rejected.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert error.status_code == status


# Rule 2: containment


async def test_a_handler_that_fails_ends_only_its_connection(connect: Connect, make: Make, ids: Ids) -> None:
    """The error is kept; other and new clients are served."""
    async with open_blockchain() as exchange, connect(exchange.url) as good, connect(exchange.url) as bad:
        await good.subscribe(exchange, "BTC-USD")
        await bad.subscribe(exchange, "ETH-USD")

        def fail(message: object) -> list[str]:
            raise RuntimeError("a bug in the simulator")

        victim: Any = exchange.connections[1]
        victim.session = Failing(victim.session, fail)
        await bad.send(action="subscribe")
        assert (await bad.until_closed())[1] == 1006
        assert exchange.failed == 1
        assert "a bug in the simulator" in repr(exchange.failures[0])
        await exchange.publish(make(1))
        assert ids([await good.text()]) == [1]
        async with connect(exchange.url) as late:
            await late.subscribe(exchange, "BTC-USD")


class Failing:
    """A session with a bug."""

    def __init__(self, session: Any, receive: Any) -> None:
        self.session, self.receive = session, receive

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


async def test_a_dialect_that_fails_does_not_stop_the_server(connect: Connect) -> None:
    """An error during the handshake ends only its own connection."""
    dialect = blockchain_dialect()
    calls: list[str] = []

    def open_session(path: str, headers: dict[str, str], refuse: Any) -> Any:
        calls.append(path)
        if len(calls) == 1:
            raise ZeroDivisionError
        return dialect.open(path, headers, refuse)

    async with open_exchange(evolve(dialect, open=open_session)) as exchange:
        async with await trio.open_tcp_stream(exchange.host, exchange.port) as stream:
            await stream.send_all(HANDSHAKE)
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        assert exchange.failed == 1
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")


async def test_other_traffic_does_not_stop_the_server(connect: Connect) -> None:
    """Noise, a plain GET, and a client that leaves at once."""
    async with open_blockchain() as exchange:
        for noise in (b"\x00\xff" * 50 + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""):
            stream = await trio.open_tcp_stream(exchange.host, exchange.port)
            async with stream:
                await stream.send_all(noise)
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")


# Rule 3: the exchange itself loses nothing


async def test_a_full_outbox_makes_the_publisher_wait(
    attach: Connect, make: Make, ids: Ids, autojump_clock: MockClock
) -> None:
    """A client that does not read slows the feed down; when it reads again, it gets everything."""
    async with attached(Exchange(binance_dialect()), attach) as (exchange, raw):
        count = 2 * OUTBOX
        async with trio.open_nursery() as nursery:
            blocked = await block_writer(exchange)
            nursery.start_soon(exchange.publish_all, [make(i, "BTCUSDT") for i in range(count)])
            await trio.testing.wait_all_tasks_blocked()
            assert exchange.published == OUTBOX
            blocked.set()
            assert ids(await raw.texts(count + 1)) == list(range(count))


async def test_a_request_is_heard_while_the_publisher_fills_the_outbox(
    attach: Connect, make: Make, autojump_clock: MockClock
) -> None:
    """A feed that is behind takes every place at once; the requests of the client have places of their own."""
    async with (
        attached(Exchange(binance_dialect()), attach) as (exchange, raw),
        trio.open_nursery() as nursery,
    ):
        await block_writer(exchange)
        nursery.start_soon(exchange.publish_all, [make(i, "BTCUSDT") for i in range(2 * OUTBOX)])
        await trio.testing.wait_all_tasks_blocked()
        await raw.send(method="SUBSCRIBE", params=["ethusdt@trade"], id=9)
        with trio.fail_after(1):
            await exchange.wait_subscribed(["ETHUSDT"])
        nursery.cancel_scope.cancel()


async def test_a_client_that_stays_full_is_cut_and_counted(
    attach: Connect, make: Make, autojump_clock: MockClock
) -> None:
    """After `patience` the feed continues without it."""
    async with attached(Exchange(binance_dialect(), patience=3.0), attach) as (exchange, _):
        await block_writer(exchange)
        begin = trio.current_time()
        await exchange.publish_all([make(i, "BTCUSDT") for i in range(OUTBOX + 1)])
        assert trio.current_time() - begin == pytest.approx(3.0)
        assert exchange.slow_clients_cut == 1
        assert exchange.connections == ()
        assert exchange.published == OUTBOX + 1


async def test_what_waits_is_written_in_large_pieces(
    attach: Connect, make: Make, ids: Ids, autojump_clock: MockClock
) -> None:
    """A long replay takes few writes, each of bounded size, and comes before what is published behind it."""
    exchange, count = Exchange(binance_dialect(), absent="replayed"), 2_000
    async with attached(exchange, attach):
        await exchange.disconnect("abrupt")
    await exchange.publish_all([make(i, "BTCUSDT") for i in range(count)])
    async with attach(exchange) as raw:
        await exchange.wait_connected()
        sizes = sizes_written(exchange)
        await raw.subscribe(exchange, "BTCUSDT")
        await exchange.publish(make(count, "BTCUSDT"))
        texts = await raw.texts(count + 1)
        assert ids(texts) == list(range(count + 1))
        assert max(sizes) < AT_ONCE + len(texts[-1]) + 4  # the frame that has filled it
        assert len(sizes) <= sum(sizes) // AT_ONCE + 2  # the rest, and the trade behind the replay
        assert (exchange.connections[0].sent, exchange.connections[0].queued) == (count + 2, 0)


def sizes_written(exchange: Exchange) -> list[int]:
    """The bytes of each write to the only connection from now on."""
    sizes: list[int] = []
    stream: Any = exchange.connections[0].stream
    send_all = stream.send_all

    async def send(data: bytes) -> None:
        sizes.append(len(data))
        await send_all(data)

    stream.send_all = send
    return sizes


async def test_a_pong_waits_for_its_turn(
    attach: Connect, make: Make, ids: Ids, autojump_clock: MockClock
) -> None:
    """A ping of the client is answered behind the write that goes on, and nothing is torn."""
    async with (
        attached(Exchange(binance_dialect()), attach) as (exchange, raw),
        trio.open_nursery() as nursery,
    ):
        blocked = await block_writer(exchange)
        sizes = sizes_written(exchange)
        await exchange.publish_all([make(1, "BTCUSDT"), make(2, "BTCUSDT")])
        nursery.start_soon(raw.websocket.ping)
        await trio.testing.wait_all_tasks_blocked()
        assert sizes == []
        blocked.set()
        assert ids(await raw.texts(3)) == [1, 2]
    assert exchange.failed == 0


async def block_writer(exchange: Exchange) -> trio.Event:
    """Make the only connection write nothing until the event is set."""
    blocked = trio.Event()
    stream: Any = exchange.connections[0].stream
    send_all = stream.send_all

    async def send(data: bytes) -> None:
        await blocked.wait()
        await send_all(data)

    stream.send_all = send
    # The writer takes the first message out of the outbox and waits. So send one that is not counted.
    exchange.connections[0].say(["{}"])
    await trio.testing.wait_all_tasks_blocked()
    return blocked


def attached(exchange: Exchange, attach: Connect) -> Any:
    @asynccontextmanager
    async def both() -> Any:
        async with attach(exchange, "/ws/btcusdt@trade") as raw:
            await exchange.wait_subscribed()
            yield exchange, raw

    return both()


# absent, replay_last


async def test_lost_trades_are_lost(connect: Connect, make: Make, ids: Ids) -> None:
    """By default nobody gets a trade while nobody is subscribed; `tape` has it."""
    async with open_blockchain() as exchange:
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.publish(make(1))
            await exchange.disconnect("graceful")
        await exchange.publish(make(2))
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.publish(make(3))
            assert ids([await raw.text()]) == [3]
        assert ids([f'{{"t":{trade.id}}}' for trade in exchange.tape("BTC-USD")]) == [1, 2, 3]


async def test_missed_trades_are_replayed_with_an_overlap(connect: Connect, make: Make, ids: Ids) -> None:
    """In order: the last trades that were sent, the missed ones, the new ones."""
    async with open_blockchain(absent="replayed", replay_last=2) as exchange:
        await exchange.publish(make(0))
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.publish_all([make(1), make(2), make(3)])
            assert ids(await raw.texts(3)) == [1, 2, 3]
            await exchange.disconnect("abrupt")
        await exchange.publish_all([make(4), make(5)])
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await exchange.publish(make(6))
            assert ids(await raw.texts(5)) == [2, 3, 4, 5, 6]
            await exchange.disconnect("abrupt")
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            assert ids(await raw.texts(2)) == [5, 6]


async def test_trades_after_an_unsubscribe_are_not_replayed(connect: Connect, make: Make, ids: Ids) -> None:
    """The client did not want them, so they are not missed."""
    options: dict[str, Any] = {"absent": "replayed", "replay_last": 2}
    async with open_blockchain(**options) as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        await exchange.publish(make(1))
        await raw.text()
        await raw.ask(action="unsubscribe", channel="trades", symbol="BTC-USD")
        await exchange.publish(make(2))
        await raw.subscribe(exchange, "BTC-USD")
        await exchange.publish(make(3))
        assert ids([await raw.text()]) == [3]


async def test_held_trades_wait_for_a_subscriber(connect: Connect, make: Make, ids: Ids) -> None:
    """Nothing is published while nobody is subscribed; a symbol without any subscriber so far holds nothing up."""
    async with open_blockchain(absent="held") as exchange, trio.open_nursery() as nursery:
        nursery.start_soon(exchange.publish_all, [make(1), make(2, "LTC-USD"), make(3)])
        await trio.testing.wait_all_tasks_blocked()
        assert exchange.published == 0
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            assert ids(await raw.texts(2)) == [1, 3]


async def test_held_trades_resume_where_they_stopped(connect: Connect, make: Make, ids: Ids) -> None:
    """A trade between a cut and the next subscription waits, and is not lost."""
    async with open_blockchain(absent="held") as exchange, trio.open_nursery() as nursery:
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            await raw.subscribe(exchange, "ETH-USD")
            await exchange.publish(make(1))
            assert ids([await raw.text()]) == [1]
            await exchange.disconnect("graceful")
        nursery.start_soon(exchange.publish_all, [make(2, "ETH-USD"), make(3)])
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "BTC-USD")
            assert exchange.published == 1
            await raw.subscribe(exchange, "ETH-USD")
            assert ids(await raw.texts(2)) == [2, 3]


# Heartbeats, pings, lifetime


async def test_subscribed_heartbeats_come_every_five_seconds(
    attach: Connect, autojump_clock: MockClock
) -> None:
    """On time, numbered like every message, with the time of the exchange's clock."""
    exchange = Exchange(blockchain_dialect(), now_us=lambda: 1589135620673134)
    async with attach(exchange) as raw:
        begin = trio.current_time()
        await raw.ask(action="subscribe", channel="heartbeat")
        beats = await raw.texts(2)
        assert trio.current_time() - begin == pytest.approx(10.0)
        assert beats == [
            f'{{"seqnum":{n},"event":"updated","channel":"heartbeat","timestamp":"2020-05-10T18:33:40.673134Z"}}'
            for n in (1, 2)
        ]


async def test_a_connection_ends_when_its_lifetime_is_over(
    attach: Connect, autojump_clock: MockClock
) -> None:
    """Binance closes after 24 hours, with a close frame; until then pings are answered."""
    exchange = Exchange(binance_dialect(), now_us=lambda: 0)
    async with attach(exchange) as raw:
        begin = trio.current_time()
        assert (await raw.until_closed())[1] == 1001
        assert trio.current_time() - begin == pytest.approx(86_400.0)


async def test_a_client_that_answers_no_ping_is_cut(autojump_clock: MockClock) -> None:
    """The ping comes after 20 s, and the pong is missing for 60 s."""
    exchange = Exchange(binance_dialect())
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.handle, theirs)
        begin = trio.current_time()
        await ours.send_all(HANDSHAKE)
        await exchange.wait_connected()
        await exchange.wait_disconnected()
        assert trio.current_time() - begin == pytest.approx(80.0)
        nursery.cancel_scope.cancel()


async def test_nothing_is_lost_over_many_cuts_at_full_speed(connect: Connect, ids: Ids) -> None:
    """With held trades and a long overlap, a client that is reset again and again gets every trade."""
    feed = recorded(shipped(ETH).ticks)
    expected = {tick.item.id for tick in shipped(ETH).ticks if isinstance(tick.item, Trade)}
    seen: set[int] = set()
    async with (
        open_binance(absent="held", replay_last=10_000) as exchange,
        playing(exchange, feed, speed=math.inf) as player,
    ):
        for wanted in (500, 1500, 3000, 5000):
            async with connect(exchange.url) as raw:
                await raw.subscribe(exchange, "ETHUSDT")
                while len(seen) < wanted:
                    seen.update(ids([await raw.text()]))
                await exchange.disconnect("abrupt")
        async with connect(exchange.url) as raw:
            await raw.subscribe(exchange, "ETHUSDT")
            while seen != expected:
                seen.update(ids([await raw.text()]))
        await player.finished.wait()
        assert exchange.failed == 0


async def test_binance_cuts_off_who_sends_too_much(connect: Connect, mock_clock: MockClock) -> None:
    """Five messages within a second are allowed, at any time; the sixth ends the connection with 1008."""
    async with open_binance() as exchange, connect(exchange.url) as raw:
        for n in range(10):
            await raw.ask(method="LIST_SUBSCRIPTIONS", id=n)
            mock_clock.jump(0.25)
        mock_clock.jump(1)
        for n in range(5):
            await raw.ask(method="LIST_SUBSCRIPTIONS", id=n)
        await raw.send(method="LIST_SUBSCRIPTIONS", id=5)
        _texts, code = await raw.until_closed()
        assert code == 1008
