"""Ticks by TCP, from a producer's socket to a subscriber: exact, in order, at the pace of the shards, and nobody else's
trouble."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import wait_all_tasks_blocked

import simulators
from dataflow.app import SHARD_MAILBOX
from dataflow.connectors import ticks_protobuf
from dataflow.domain import Gap, Trade
from dataflow.protobuf.marketdata_pb2 import Tick
from dataflow.settings.schema import Cache, Chaos, Limits
from dataflow.sources import Unusable
from supervisors import ActorGone, Node, Point
from tests.support.ports import own_port
from tests.support.waiting import until, until_delivered
from tests.system.daemon import Client, Daemon, client, daemon, from_binance, http_client

NOW = 1_735_201_234_567_890_123


def from_producers(**keys: Any) -> dict[str, Any]:
    return {"ticks": ticks_protobuf.Settings(connector="ticks_protobuf", port=0, **keys)}


def tick(symbol: str = "AAPL", price: float = 100.25, volume: int = 10, at: int = NOW) -> Tick:
    return Tick(symbol=symbol, price=price, volume=volume, exchange_timestamp=at, ingest_timestamp=1)


def frame(message: Tick | bytes) -> bytes:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return struct.pack(">I", len(data)) + data


def frames(ticks: Iterable[Tick]) -> bytes:
    return b"".join(map(frame, ticks))


@asynccontextmanager
async def producer(d: Daemon) -> AsyncIterator[trio.SocketStream]:
    async with await connected(d) as stream:
        yield stream


async def connected(d: Daemon) -> trio.SocketStream:
    await until(lambda: d.core.sources["ticks"].link.value == "connected")
    host, _, port = d.root.find("sources/ticks/listener").value.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


def admitted(d: Daemon, symbol: str = "AAPL") -> list[Any]:
    return [entry for _, entry in d.core.history(symbol).places(0, 1_000_000)]


async def until_admitted(d: Daemon, count: int, symbol: str = "AAPL") -> list[Any]:
    await until(lambda: d.core.history(symbol).last >= count)
    return admitted(d, symbol)


async def until_counted(d: Daemon, **problems: int) -> None:
    await until(lambda: d.core.sources["ticks"].problems == problems)


def connections(d: Daemon) -> list[Node]:
    return list(d.root.supervisor("sources/ticks/connections").tree().children)


def crashed(d: Daemon) -> list[str]:
    """The actors that crashed. A connection that ends at once, before the hook for faults has let it be ready, has not."""
    return [event.path for event in d.events if event.kind == "crash"]


async def following(c: Client, symbol: str) -> None:
    await c.call("subscribe", symbol=symbol)


async def test_a_subscriber_gets_what_the_producer_said() -> None:
    """Exact values and types, in order; two equal frames are two trades; no id and no side are made up."""
    async with daemon(sources=from_producers()) as d, producer(d) as p, client(d.url) as c:
        await p.send_all(frame(tick(" aApL ")))
        await until_admitted(d, 1)
        await following(c, "AAPL")
        ticks = [tick(price=0.1, volume=2**53 + 1, at=NOW + 1), tick(price=152.0), tick(price=152.0)]
        await p.send_all(frames(ticks))
        await c.until(lambda: len(c.trades()) == 3)
        common = {"channel": "trades", "event": "updated", "symbol": "AAPL", "source": "ticks"}
        common |= {"side": None, "tradeId": None}
        assert [evolved(t, "seqnum") for t in c.trades()] == [
            {
                **common,
                "timestamp": "2024-12-26T08:20:34.567890Z",
                "price": Decimal(price),
                "qty": qty,
                "offset": n,
            }
            for n, (price, qty) in enumerate([("0.1", 2**53 + 1), ("152", 10), ("152", 10)], 2)
        ]
        assert [trade.timestamp for trade in admitted(d)] == [NOW, NOW + 1, NOW, NOW]


def evolved(trade: dict[str, Any], *without: str) -> dict[str, Any]:
    return {key: value for key, value in trade.items() if key not in without}


async def test_the_bar_of_the_day_is_made_of_ticks() -> None:
    """What a face tells of a ticked symbol is the day's bar of these trades."""
    async with daemon(sources=from_producers()) as d, producer(d) as p:
        prices = (150.25, 152.1, 149.8, 151.5)
        await p.send_all(frames(tick("GOOG", price, 5, NOW + n) for n, price in enumerate(prices)))
        await until_admitted(d, 4, "GOOG")
        bar = d.hall.desk.aggregate("GOOG")
        assert bar is not None
        assert (bar.open, bar.high, bar.low, bar.close) == tuple(
            Decimal(str(p)) for p in (150.25, 152.1, 149.8, 151.5)
        )
        assert (bar.volume, bar.count, bar.timestamp) == (20, 4, NOW + 3)


async def test_bad_frames_are_counted_and_the_connection_stays() -> None:
    """Each reason in /metrics; the good ticks between them are in."""
    bad = {
        "malformed_protobuf": [b"\x0a", b"\x0a\x02\xff\xfe"],
        "bad_symbol": [tick(""), tick("   "), tick("A/B")],
        "bad_price": [tick(price=p) for p in (0.0, -1.0, float("nan"), float("inf"))],
        "bad_quantity": [tick(volume=0), tick(volume=-5)],
        "bad_timestamp": [tick(at=0), tick(at=-1)],
        "too_many_symbols": [tick("THIRD")],
        "symbol_taken": [],
    }
    async with daemon(sources=from_producers(max_symbols=2)) as d, producer(d) as p:
        await p.send_all(frames([tick("AAPL"), tick("MSFT")]))
        for n, messages in enumerate(bad.values()):
            await p.send_all(b"".join(map(frame, messages)) + frame(tick(at=NOW + n)))
        told = await until_admitted(d, 1 + len(bad))
        assert [trade.timestamp for trade in told] == [NOW, *(NOW + n for n in range(len(bad)))]
        counts = {reason: len(messages) for reason, messages in bad.items() if messages}
        await until_counted(d, **counts)
        async with http_client(d.http) as http:
            metrics = (await http.get("/metrics")).text
            for reason, count in counts.items():
                assert (
                    f'dataflow_source_problems_total{{source="ticks",reason="{reason}"}} {count}.0'
                    in metrics.replace(
                        f'reason="{reason}",source="ticks"', f'source="ticks",reason="{reason}"'
                    )
                )
            source = (await http.get("/api/v1/sources")).json()["ticks"]
            assert source["problems"] == counts
            assert source["symbols"] == ["AAPL", "MSFT"]
        assert len(connections(d)) == 1


async def test_an_exchanges_symbol_cannot_be_ticked() -> None:
    """By its canonical name, nor by its compact one, nor by another with the same compact name."""
    sources = {**from_producers(), **from_binance("ws://127.0.0.1:9/", "BTC-USDT")}
    async with daemon(sources=sources) as d, producer(d) as p:
        await p.send_all(frames(tick(each) for each in ("BTC-USDT", "btcusdt", "BT-CUSDT", "BTC")))
        await until_admitted(d, 1, "BTC")
        assert d.core.sources["ticks"].problems == {"symbol_taken": 3}
        assert d.core.history("BTC-USDT").last == 0


async def test_a_frame_may_come_in_any_pieces() -> None:
    """Byte by byte, or a hundred in one packet."""
    async with daemon(sources=from_producers()) as d, producer(d) as p:
        for byte in frame(tick()):
            await p.send_all(bytes([byte]))
            await until_delivered(p.socket)
        await p.send_all(frames(tick(at=NOW + n) for n in range(1, 101)))
        assert [trade.timestamp for trade in await until_admitted(d, 101)] == [NOW + n for n in range(101)]


async def test_an_end_in_the_middle_of_a_frame_is_counted() -> None:
    """An end between two frames is none of our business."""
    async with daemon(sources=from_producers()) as d:
        async with producer(d) as p:
            await p.send_all(frame(tick()))
        async with producer(d) as p:
            await p.send_all(frame(tick()) + frame(tick())[:-1])
        await until_admitted(d, 2)
        await until(lambda: not connections(d))
        await until_counted(d, cut_off=1)


@pytest.mark.parametrize("length", [0, 1_000_001])
async def test_a_wrong_length_closes_this_connection_only(length: int) -> None:
    """The producer sees the end. What it said before is in, and others go on."""
    async with daemon(sources=from_producers()) as d, producer(d) as good, producer(d) as bad:
        await bad.send_all(frame(tick()) + struct.pack(">I", length))
        assert await bad.receive_some() == b""
        await good.send_all(frame(tick()))
        await until_admitted(d, 2)
        await until(lambda: len(connections(d)) == 1)
        assert d.core.sources["ticks"].problems == {"bad_length": 1}


async def test_the_longest_frame() -> None:
    """1,000,000 bytes exactly are a tick like any other."""
    message = tick().SerializeToString()
    length = 1_000_000 - len(message) - 5
    filler = b"\xba\x06" + bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
    whole = message + filler + bytes(length)
    assert len(whole) == 1_000_000
    async with daemon(sources=from_producers()) as d, producer(d) as p:
        await p.send_all(frame(whole) + frame(tick(at=NOW + 1)))
        assert [trade.timestamp for trade in await until_admitted(d, 2)] == [NOW, NOW + 1]


async def test_slow_shards_slow_the_producer() -> None:
    """Nothing is read ahead of them, nothing is lost, and an exchange has room all the time."""
    sources = {**from_producers(), **from_binance("ws://127.0.0.1:9/", "BTC-USDT", "ETH-USDT")}
    memory = Cache(trades_per_symbol=1_000_000)
    async with daemon(sources=sources, chaos=Chaos(enabled=True), cache=memory) as d, producer(d) as p:
        assert d.core.faults is not None
        hangs = [
            d.core.faults.inject(f"cache/shard-{n}", "hang", point="receive", seconds=60) for n in range(2)
        ]
        p.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sent, chunk = [0], 1000

        async def push() -> None:
            while True:
                await p.send_all(frames(tick(at=NOW + sent[0] + n) for n in range(chunk)))
                sent[0] += chunk

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            await until_stuck(sent)
            read = d.core.sources["ticks"].delivered.trades
            places = SHARD_MAILBOX.size - SHARD_MAILBOX.reserved
            assert 0 < read < sent[0]
            boxes = [node.mailbox for node in d.root.supervisor("cache").tree().children]
            assert places < 20
            assert max(box.queued for box in boxes if box) <= places + 1, "the reserve, and the one in hand"
            assert not d.core.delivery.overflowed
            d.core.delivery([exchange_trade(n) for n in range(10)])
            assert not d.core.delivery.overflowed, "an exchange's trades found room"
            nursery.cancel_scope.cancel()
        for hang in hangs:
            d.core.faults.withdraw(hang.id)
        whole = sent[0]
        told = await until_admitted(d, whole)
        assert [trade.timestamp for trade in told[:whole]] == [NOW + n for n in range(whole)]
        assert not d.core.delivery.overflowed


async def until_stuck(sent: list[int]) -> None:
    """Returns once the producer has not got on for many turns of an idle loop."""
    before, same = -1, 0
    while same < 20:
        await wait_all_tasks_blocked(0.005)
        same = same + 1 if sent[0] == before else 0
        before = sent[0]


def exchange_trade(number: int) -> Any:
    return Trade("binance", "BTC-USDT", str(number), "buy", Decimal(1), Decimal(1), NOW, number)


async def test_a_shard_that_restarts_costs_nothing_but_what_it_had_in_hand() -> None:
    """Producers wait for it. What was lost in its hand is a gap, and nothing else is missing."""
    async with daemon(sources=from_producers(), cache=Cache(shards=1)) as d, producer(d) as p:
        await p.send_all(frame(tick()))
        await until_admitted(d, 1)
        d.sabotage.arm(Point.RECEIVE, "cache/shard-0")
        await p.send_all(frame(tick(at=NOW + 1)))
        await d.until(lambda: "cache/shard-0" in d.crashes())
        await p.send_all(frames(tick(at=NOW + n) for n in range(2, 100)))
        told = await until_admitted(d, 100)
        assert told[1] == Gap(2, 2, "shard_restart", exact=False)
        assert [trade.timestamp for trade in (told[0], *told[2:])] == [NOW, *(NOW + n for n in range(2, 100))]


async def test_a_connection_that_crashes_dies_alone() -> None:
    """Its producer sees the end and can come again. Others notice nothing."""
    async with daemon(sources=from_producers(), chaos=Chaos(enabled=True)) as d, producer(d) as good:
        async with producer(d) as bad:
            await good.send_all(frame(tick()))
            await until_admitted(d, 1)
            assert d.core.faults is not None
            d.core.faults.inject("sources/ticks", "crash")
            await bad.send_all(frame(tick()))
            assert await bad.receive_some() == b""
        await d.until(d.crashes)
        assert d.crashes() == ["sources/ticks/connections/2"]
        async with producer(d) as again:
            for n, stream in enumerate((good, again), 1):
                await stream.send_all(frame(tick(at=NOW + n)))
                await until_admitted(d, 1 + n)
        assert d.core.sources["ticks"].link.value == "connected"


async def test_a_connection_that_does_not_start_dies_alone() -> None:
    """Whoever listens goes on listening."""
    async with daemon(sources=from_producers()) as d:
        d.sabotage.arm(Point.START, "sources/ticks/connections/1")
        async with producer(d) as p:
            assert await p.receive_some() == b""
        async with producer(d) as p:
            await p.send_all(frame(tick()))
            await until_admitted(d, 1)
        assert d.crashes("sources/") == ["sources/ticks/connections/1"]


@pytest.mark.parametrize("kind", ["drop", "disconnect", "delay"])
async def test_faults_strike_a_producer(kind: str) -> None:
    """A rehearsal can lose a tick, cut the connection, or make it wait; the next producer is well."""
    async with daemon(sources=from_producers(), chaos=Chaos(enabled=True)) as d, producer(d) as p:
        assert d.core.faults is not None
        seconds = {"seconds": 0.001} if kind == "delay" else {}
        d.core.faults.inject("sources/ticks", kind, **seconds)
        await p.send_all(frames([tick(), tick(at=NOW + 1)]))
        if kind == "disconnect":
            assert await p.receive_some() == b""
        else:
            told = await until_admitted(d, 1 if kind == "drop" else 2)
            assert [trade.timestamp for trade in told] == [NOW, NOW + 1][kind == "drop" :]
        await until(lambda: not d.core.faults.active())
        assert not crashed(d)


async def test_the_listener_comes_back_and_its_producers_stay() -> None:
    """A crash of the listener closes no connection. Clients of a ticked symbol hear of its end and its return."""
    port = own_port()
    sources = {"ticks": evolve(from_producers()["ticks"], port=port)}
    async with daemon(sources=sources) as d, producer(d) as p, client(d.url) as c:
        await p.send_all(frame(tick()))
        await until_admitted(d, 1)
        await following(c, "AAPL")
        await d.root.supervisor("sources/ticks").restart("listener")
        await c.until(lambda: c.of("connection.restored"))
        assert [each["symbols"] for each in c.of("connection.lost")] == [["AAPL"]]
        async with producer(d) as again:
            for n, stream in enumerate((p, again), 1):
                await stream.send_all(frame(tick(at=NOW + n)))
                await until_admitted(d, 1 + n)
        await c.until(lambda: len(c.trades()) == 2)


async def test_a_port_that_is_taken_is_tried_again() -> None:
    """The daemon starts without it, says whose fault it is, and listens once the port is free."""
    with socket.create_server(("127.0.0.1", own_port())) as other:
        port = other.getsockname()[1]
        sources = {"ticks": evolve(from_producers()["ticks"], port=port)}
        async with daemon(sources=sources) as d, http_client(d.http) as http:
            await until(lambda: d.core.sources["ticks"].link.value == "lost")
            ready = (await http.get("/ready")).json()
            assert (ready["status"], "sources/ticks" in ready["degraded"]) == ("degraded", True)
            told = (await http.get("/api/v1/sources")).json()["ticks"]
            assert told["state"] == "lost"
            assert told["reason"] == (
                f"cannot listen on 127.0.0.1:{port}: something else listens there already;"
                " choose another with [sources.ticks] port"
            )
            other.close()
            await until(lambda: d.core.sources["ticks"].link.value == "connected")
            async with producer(d) as p:
                await p.send_all(frame(tick()))
                await until_admitted(d, 1)
            assert (await http.get("/ready")).json()["status"] == "ready"


async def test_one_producer_too_many() -> None:
    """It is closed and counted; when another goes, there is room again."""
    async with daemon(sources=from_producers(max_connections=2)) as d, producer(d) as first:
        async with producer(d):
            await until(lambda: len(connections(d)) == 2)
            async with producer(d) as third:
                assert await third.receive_some() == b""
            await until_counted(d, too_many_connections=1)
        await until(lambda: len(connections(d)) == 1)
        async with producer(d) as again:
            for n, stream in enumerate((first, again)):
                await stream.send_all(frame(tick(at=NOW + n)))
                await until_admitted(d, 1 + n)


async def test_one_address_has_its_share() -> None:
    """Producers and clients of one address count together."""
    limits = Limits(sessions=2, loopback=True)
    async with daemon(sources=from_producers(), limits=limits) as d, producer(d), client(d.url):
        await until(lambda: len(connections(d)) == 1)
        async with producer(d) as p:
            assert await p.receive_some() == b""
        await until_counted(d, too_many_of_one=1)


async def test_a_source_that_waits_for_producers_says_how_many_are_there() -> None:
    """It listens, and its symbols are quiet while nobody is there: in the status, and for who follows the quality."""
    async with daemon(sources=from_producers(symbols=("AAPL",))) as d, client(d.url) as c:

        async def told() -> tuple[str, int, str]:
            source = (await c.call("getStatus"))["sources"]["ticks"]
            [symbol] = await c.call("getSymbols")
            return source["state"], source["producers"], symbol["quality"]["state"]

        await until(lambda: d.core.sources["ticks"].link.value == "connected")
        answer = await c.call("subscribe", symbol="AAPL", channel="quality")
        assert answer["quality"]["sources"]["ticks"]["reason"] == "no producer is there"
        assert await told() == ("listening", 0, "quiet")
        async with producer(d), producer(d):
            await until(lambda: d.core.sources["ticks"].producers == 2)
            assert await told() == ("listening", 2, "live")
        await until(lambda: d.core.sources["ticks"].producers == 0)
        assert await told() == ("listening", 0, "quiet")
        await c.until(lambda: [each["state"] for each in c.of("quality.update")] == ["live", "quiet"])


async def test_a_hundred_producers_leave_nothing() -> None:
    """However they go: in order, in the middle of a frame, or by a reset."""
    async with daemon(sources=from_producers(), limits=Limits(loopback=True)) as d:
        await (await connected(d)).aclose()
        await until(lambda: not connections(d))
        tasks = trio.lowlevel.current_statistics().tasks_living
        for n in range(100):
            stream = await connected(d)
            await stream.send_all(frame(tick(at=NOW + n)) + b"\x00" * (n % 3))
            if n % 3 == 2:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await until_delivered(stream.socket)
            await stream.aclose()
        await until(lambda: not connections(d))
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
        [account] = d.hall.quotas._accounts.values()
        assert account.sessions == 0
        assert not crashed(d)


async def test_the_end_of_the_daemon_comes_after_the_last_whole_frame() -> None:
    """What a producer has sent is in. It sees the end; a frame that it has begun is nobody's fault."""
    async with daemon(sources=from_producers()) as d, trio.open_nursery() as nursery:
        stream = await connected(d)
        await stream.send_all(frame(tick()))
        await until_admitted(d, 1)
        ended = trio.Event()

        async def watch() -> None:
            assert await stream.receive_some() == b""
            ended.set()

        nursery.start_soon(watch)
        await stream.send_all(frames(tick(at=NOW + n) for n in range(1, 2_000)) + frame(tick())[:-1])
        await until_delivered(stream.socket)
        await d.root.stop("sources")
        await ended.wait()
        assert [trade.timestamp for trade in await until_admitted(d, 2_000)] == [
            NOW + n for n in range(2_000)
        ]
        assert not d.core.sources["ticks"].problems
        await stream.aclose()


async def test_a_reload_moves_the_listener_and_changes_what_may_come() -> None:
    """Another port, another list of symbols; then none at all. Histories stay, nothing is lost."""
    async with daemon(sources=from_producers()) as d:
        async with producer(d) as p:
            await p.send_all(frames([tick("AAPL"), tick("MSFT")]))
            await until_admitted(d, 1, "MSFT")
            port = own_port()
            now = evolve(d.core.sources["ticks"].settings, port=port, symbols=("MSFT", "GOOG"))
            kept_trade = admitted(d, "MSFT")[0]
            await d.reload(evolve(d.hall.settings, sources={"ticks": now}))
            assert await p.receive_some() == b"", "it has to come again"
        async with producer(d) as p:
            assert p.socket.getpeername()[1] == port
            await p.send_all(frames(tick(each, at=NOW + 1) for each in ("AAPL", "MSFT", "GOOG")))
            await until_admitted(d, 1, "GOOG")
            assert [len(admitted(d, each)) for each in ("AAPL", "MSFT", "GOOG")] == [1, 2, 1]
            assert d.core.sources["ticks"].problems == {"symbol_not_allowed": 1}
            kept = d.hall.intake("ticks")
            assert kept is not None
            await d.reload(evolve(d.hall.settings, sources={}))
            assert await p.receive_some() == b""
        with pytest.raises(ActorGone):
            await kept.put([kept_trade], 1)
        with pytest.raises(Unusable, match="symbol_not_allowed"):
            kept.judge(tick("MSFT"))
        assert d.hall.intake("ticks") is None
        await d.reload(evolve(d.hall.settings, sources=from_producers()))
        async with producer(d) as p:
            await p.send_all(frame(tick(at=NOW + 2)))
            await until_admitted(d, 2)


async def test_an_exchange_takes_a_symbol_over() -> None:
    """After a reload that gives a ticked symbol to an exchange, it cannot be ticked any more."""
    async with daemon(sources=from_producers()) as d, producer(d) as p:
        await p.send_all(frame(tick("BTCUSDT")))
        await until_admitted(d, 1, "BTCUSDT")
        sources = {**d.hall.settings.sources, **from_binance("ws://127.0.0.1:9/", "BTC-USDT")}
        await d.reload(evolve(d.hall.settings, sources=sources))
        assert d.core.symbols == ["BTC-USDT"]
        assert d.hall.desk.find("BTCUSDT") == "BTC-USDT", (
            "nobody gets the old trades for those of the exchange"
        )
        assert d.core.sources["ticks"].status("BTCUSDT") == "idle"
        await p.send_all(frame(tick("BTCUSDT", at=NOW + 1)))
        await until_counted(d, symbol_taken=1)
        await d.reload(evolve(d.hall.settings, sources={"ticks": sources["ticks"]}))
        await p.send_all(frame(tick("BTCUSDT", at=NOW + 2)))
        await until_admitted(d, 2, "BTCUSDT")
        assert d.core.symbols == ["BTCUSDT"]


async def test_two_tickers_never_have_one_name_without_dashes() -> None:
    """Clients that leave the dashes out could not tell them apart: the one that came first stays, also after a reload, and
    its subscribers with it."""
    async with daemon(sources=from_producers()) as d, producer(d) as p, client(d.url) as c:
        await p.send_all(frames([tick("BRK-B"), tick("BRKB"), tick("B-RKB"), tick("brk-b")]))
        await until_admitted(d, 2, "BRK-B")
        await until_counted(d, symbol_taken=2)
        await following(c, "BRK-B")
        await d.reload(evolve(d.hall.settings, limits=Limits(sessions=7)))
        assert d.core.sources["ticks"].interest.topics == {"BRK-B"}
        await p.send_all(frames([tick("BRKB"), tick("BRK-B")]))
        await until_admitted(d, 3, "BRK-B")
        assert d.core.symbols == ["BRK-B"]
        assert d.hall.desk.find("brkb") == "BRK-B"
        await c.until(lambda: len(c.trades("BRK-B")) == 1)


async def test_garbage_costs_others_nothing() -> None:
    """A producer that sends no frames at all, or thousands of bad ones, is counted, and a client has its answers."""
    async with daemon(sources=from_producers()) as d, client(d.url) as c:
        async with producer(d) as p:
            await p.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await p.receive_some() == b""
        async with producer(d) as p, trio.open_nursery() as nursery:
            nursery.start_soon(p.send_all, frame(b"\x0a") * 20_000)
            await c.call("getSymbols")
            await until_counted(d, bad_length=1, malformed_protobuf=20_000)
        assert not crashed(d)


async def test_hall_intake_takes_what_comes_by_other_ways() -> None:
    """Judged alike, counted alike, in the same stream; waiting for the same shards."""
    async with daemon(sources=from_producers()) as d, producer(d) as p:
        intake = d.hall.intake("ticks")
        assert intake is not None
        assert d.hall.intake("binance") is None
        await intake.put([intake.judge(tick(" aapl "))])
        await p.send_all(frame(tick(at=NOW + 1)))
        assert [trade.timestamp for trade in await until_admitted(d, 2)] == [NOW, NOW + 1]
        assert d.core.sources["ticks"].delivered.trades == 2


async def test_the_simulated_producer() -> None:
    """`dataflow simulate ticks` sends what the old clients send: its own bytes, understood here."""
    async with daemon(sources=from_producers()) as d:
        await until(lambda: d.core.sources["ticks"].link.value == "connected")
        port = int(d.root.find("sources/ticks/listener").value.rpartition(":")[2])
        lines: list[str] = []
        await simulators.push_ticks(port=port, every=0, count=20, say=lines.append)
        told = await until_admitted(d, 20)
        assert {(t.symbol, str(t.price), t.quantity, t.trade_id, t.side) for t in told} == {
            ("AAPL", "100.25", 10, None, None)
        }
        stamps = [trade.timestamp for trade in told]
        assert stamps == sorted(stamps)
        assert lines == [f"connected to 127.0.0.1:{port}", "20 ticks sent"]
        assert not d.core.sources["ticks"].problems


async def test_the_simulated_producer_comes_again() -> None:
    """When it is sent away it connects again, and goes on."""
    port = own_port()
    sources = {"ticks": evolve(from_producers()["ticks"], port=port)}
    lines: list[str] = []
    push = partial(simulators.push_ticks, port=port, every=0.02, say=lines.append)
    async with daemon(sources=sources) as d, trio.open_nursery() as nursery:
        nursery.start_soon(push)
        await until_admitted(d, 1)
        await d.root.supervisor("sources/ticks").restart("connections")
        await until(lambda: lines.count(f"connected to 127.0.0.1:{port}") >= 2)
        before = d.core.history("AAPL").last
        await until_admitted(d, before + 1)
        nursery.cancel_scope.cancel()
    assert "the server has closed the connection" in lines
