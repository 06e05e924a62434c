"""Several connections of one source: one that dies, one that is renewed, one that is not enough."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar

import pytest
import trio
from attrs import frozen

from dataflow.connectors import binance
from dataflow.sources.state import SourceState
from simulators import Exchange, Trade
from supervisors import Point, StartFailed
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon, http_client
from tests.system.test_trouble import BOTH, OPEN, SYMBOL, World, sources


@asynccontextmanager
async def world(kind: str, **source: Any) -> AsyncIterator[World]:
    """A line may be ahead of another: where trades are numbered, what it brings too early waits for the rest."""
    async with AsyncExitStack() as stack:
        exchange = await stack.enter_async_context(OPEN[kind]())
        keys = {"refill_url": exchange.rest_url, "hold": 60.0, **source}
        d = await stack.enter_async_context(daemon(sources=sources(kind, exchange.url, **keys)))
        listener = await stack.enter_async_context(client(d.url))
        made = World(kind, exchange, d, listener)
        await listener.call("subscribe", symbol=made.symbol)
        await made.subscribed()
        yield made


def source_of(w: World) -> SourceState:
    return w.daemon.core.sources[w.kind]


def lines(w: World) -> list[int]:
    return sorted(source_of(w).lines)


async def renew(w: World) -> None:
    """All lines of the source are old now. Returns when others have taken their places."""
    old = set(source_of(w).lines.values())
    for line in old:
        line.rotate_at = 0.0
    source_of(w).look_at_lines()
    while old & set(source_of(w).lines.values()):
        await w.publish()  # a new line is proven when it has delivered
        await trio.lowlevel.checkpoint()


def assert_nothing_was_missed(w: World, published: int) -> None:
    assert [trade["tradeId"] for trade in w.listener.trades()] == w.ids(*range(1, published + 1))
    assert w.listener.of("stream.gap") == []
    assert w.listener.of("connection.lost") == []
    assert w.daemon.crashes() == []


@BOTH
async def test_a_planned_reconnection_has_no_hole(kind: str) -> None:
    """Trades never pause. Each comes once, in order; neither a gap nor a loss is told, also without numbers, and
    nothing needs to be asked for."""
    async with world(kind, refill=False) as w:
        await w.publish(10)
        await w.heard(10)
        for _ in range(5):
            await renew(w)
        await w.publish(10)
        await w.heard(w._published)
        assert_nothing_was_missed(w, w._published)
        assert w.exchange.accepted == 6
        await until(lambda: len(w.exchange.connections) == 1)
        assert len(lines(w)) == 1


async def test_an_announced_end_has_no_hole() -> None:
    """The exchange says that it will hang up. Long before that, another line delivers."""
    async with world("binance", refill=False) as w:
        await w.publish(10)
        await w.heard(10)
        first = source_of(w).lines[1]
        first._turned_at -= 10  # it is no newcomer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.exchange.disconnect, "announce", 60)
            while first in source_of(w).lines.values():
                await w.publish()
            nursery.cancel_scope.cancel()
        await w.publish(10)
        await w.heard(w._published)
        assert_nothing_was_missed(w, w._published)
        assert source_of(w).problems.total() == 0
        assert w.exchange.accepted == 2


@BOTH
async def test_one_of_two_lines_that_dies_costs_nothing(kind: str) -> None:
    """Whichever it is, while trades go on. It comes back by itself."""
    async with world(kind, lines=2) as w:
        while lines(w) != [1, 2] or not all(line.is_proven for line in source_of(w).lines.values()):
            await w.publish()  # else only a probe proves a line, after seconds of silence
            await trio.lowlevel.checkpoint()
        await w.publish(5)
        await w.heard(w._published)
        for victim in (0, 1, 0):
            accepted = w.exchange.accepted
            await w.exchange.connections[victim].cut()
            while w.exchange.accepted == accepted or not all(  # until then the other one must not die
                line.is_proven for line in source_of(w).lines.values()
            ):
                await w.publish()
                await trio.lowlevel.checkpoint()
        await w.publish(5)
        await w.heard(w._published)
        # Where trades are not numbered, a line that is ahead brings them first.
        came = [trade["tradeId"] for trade in w.listener.trades()]
        in_order = came if kind == "binance" else sorted(came, key=int)
        assert in_order == w.ids(*range(1, w._published + 1))
        assert w.listener.of("stream.gap") == w.listener.of("connection.lost") == []
        assert set(w.daemon.crashes()) == {f"sources/{kind}/lines/1", f"sources/{kind}/lines/2"}


@BOTH
async def test_two_lines_that_are_lost_together_are_one_loss(kind: str) -> None:
    """It is told once, and what was missed is a gap."""
    async with world(kind, lines=2, refill=False) as w:
        await w.publish(3)
        await w.heard(3)
        await until(lambda: len(w.exchange.connections) == 2)
        await w.exchange.disconnect("refuse")
        await w.publish(2)
        await w.listener.until(lambda: w.listener.of("connection.lost"))
        await w.exchange.disconnect("accept")
        await w.listener.until(lambda: w.listener.of("connection.restored"))
        await until(lambda: len(w.exchange.connections) == 2)
        await w.publish(2)
        await w.heard(5)
        w.assert_told_once()
        assert len(w.listener.of("stream.gap")) == 1


Codec = binance.Codec  # beside the settings, as in a connector


@frozen(kw_only=True)
class Small(binance.Settings):
    """A Binance that takes two streams on a connection."""

    symbols_a_connection: ClassVar[int] = 2


@asynccontextmanager
async def many(*symbols: str, **more: Any) -> AsyncIterator[tuple[Exchange, Daemon, Client]]:
    async with OPEN["binance"]() as exchange:
        names = tuple(f"{symbol}-USDT" for symbol in symbols)
        settings = Small(connector="binance", url=exchange.url, symbols=names, refill=False, **more)
        async with daemon(sources={"binance": settings}) as d, client(d.url) as listener:
            yield exchange, d, listener


def trade(symbol: str, number: int) -> Trade:
    return Trade(number, f"{symbol}USDT", "buy", "1.5", "2", 1_700_000_000_000_000 + number)


async def test_more_symbols_than_a_connection_takes() -> None:
    """They are divided. Of a connection that is lost, only its own symbols are told, and nobody else notices."""
    async with many(*"ABCDE", eager=True) as (exchange, d, listener):
        source = d.core.sources["binance"]
        await exchange.wait_subscribed(f"{symbol}USDT" for symbol in "ABCDE")
        await until(lambda: len(source.subscribed_symbols) == 5)
        await until(lambda: [line.link.value for line in source.lines.values()] == ["connected"] * 3)
        assert sorted(len(each.session.symbols) for each in exchange.connections) == [1, 2, 2]
        await listener.call("subscribe", symbol="C-USDT")
        victim = next(each for each in exchange.connections if "CUSDT" in each.session.symbols)
        await victim.cut()
        await listener.until(lambda: listener.of("connection.restored"))
        [lost], [restored] = listener.of("connection.lost"), listener.of("connection.restored")
        assert lost["symbols"] == restored["symbols"] == ["C-USDT", "D-USDT"]
        assert exchange.accepted == 4
        for symbol in "ABCDE":
            await exchange.publish(trade(symbol, 1))
        await listener.until(lambda: listener.trades("C-USDT"))


async def test_a_connection_for_what_somebody_wants() -> None:
    """A symbol without room gets another connection, which is closed with its last symbol."""
    async with many(*"ABC", linger=0.0) as (exchange, d, listener):
        for symbol in "ABC":
            await listener.call("subscribe", symbol=f"{symbol}-USDT")
        await exchange.wait_subscribed(f"{symbol}USDT" for symbol in "ABC")
        assert exchange.accepted == 2
        await exchange.publish(trade("C", 1))
        await listener.until(lambda: listener.trades("C-USDT"))
        await listener.call("unsubscribe", symbol="C-USDT")
        await until(lambda: len(exchange.connections) == 1 and exchange.subscribed == {"AUSDT", "BUSDT"})
        assert listener.of("connection.lost") == []
        await until(lambda: list(d.core.sources["binance"].lines) == [1])


@pytest.mark.parametrize("path", ["lines", "lines/1", "lines/2", "keeper", ""])
async def test_a_restart_by_hand_of_any_part_brings_all_lines_back(path: str) -> None:
    """Of the whole source, of its lines, of one, of who keeps them."""
    async with world("binance", lines=2) as w:
        await until(lambda: len(w.exchange.connections) == 2)
        whole = f"sources/binance/{path}".rstrip("/")
        async with http_client(w.daemon.http) as http:
            assert (await http.post(f"/actors/{whole}/restart")).status_code == 202
        connected = 4 if path in ("", "lines") else 3 if path != "keeper" else 2
        await until(lambda: w.exchange.accepted == connected)
        await until(lambda: len(w.exchange.connections) == 2)
        await until(lambda: [each.link.value for each in source_of(w).lines.values()] == ["connected"] * 2)
        await w.publish(3)
        await w.heard(3)
        assert w.daemon.crashes() == []


async def test_a_keeper_that_crashes_leaves_the_lines_alone() -> None:
    """The next one goes on where it was: the old line of a renewal is gone in the end."""
    async with world("binance") as w:
        await w.publish()
        await w.heard(1)
        w.daemon.sabotage.arm(Point.START, "sources/binance/keeper")
        with pytest.raises(StartFailed):
            await w.daemon.root.supervisor("sources/binance").restart("keeper")
        await renew(w)
        await w.heard(w._published)
        assert set(w.daemon.crashes()) == {"sources/binance/keeper"}
        assert w.exchange.accepted == 2
        assert SYMBOL["binance"] in source_of(w).subscribed_symbols
