"""The feed at a real daemon, on asyncio and on Trio: whatever fails, each place comes once, in order, or as a gap."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from attrs import evolve

from dataflow.client import (
    CallError,
    Candle,
    Connection,
    Filled,
    Gap,
    Notice,
    Quality,
    Rewound,
    Trade,
    Unreachable,
    connect,
)
from dataflow.settings.schema import Admission, Gateway
from dataflow.sources.lookout import Lookout
from simulators import Exchange, open_binance
from simulators import Trade as Sent
from tests.support.ports import own_port
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client, look_away
from tests.system.following import BACKENDS, following, replayed
from tests.system.process import Home

SYMBOL, THEIRS = "BTC-USDT", "BTCUSDT"
backends = pytest.mark.parametrize("backend", BACKENDS)


def sent(number: int) -> Sent:
    at = 1_700_000_000_000_000 + number
    return Sent(id=number, symbol=THEIRS, side="buy", price=f"{number}.50", qty="0.125", timestamp_us=at)


async def publish(exchange: Exchange, *numbers: int) -> None:
    for number in numbers:
        await exchange.publish(sent(number))


def ids(first: int, last: int) -> dict[int, str | None]:
    """Each place has the trade of its number."""
    return {number: str(number) for number in range(first, last + 1)}


@backends
async def test_gaps_fills_and_a_cut_source(backend: str) -> None:
    """A gap is told, filled when its trades come late, and a source that is cut and comes back loses no place."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, SYMBOL)) as d,
        following(d.http, backend) as program,
    ):
        await exchange.wait_subscribed([THEIRS])
        await publish(exchange, 1, 2, 5)
        await program.until_place(5)
        await publish(exchange, 4)
        await program.until(lambda: isinstance(program.events[-1], Filled))
        assert program.positions == {SYMBOL: {"epoch": d.core.epoch, "offset": 5, "gaps": [[3, 3]]}}
        await exchange.disconnect("abrupt")
        await exchange.wait_subscribed([THEIRS])
        await publish(exchange, 6, 7)
        await program.until_place(7)
        assert replayed(program.events) == ids(1, 7) | {3: None}
        assert program.states == [], "the connection of the daemon to its source is none of ours"


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[tuple[Exchange, Daemon]]:
    """A daemon that has the trades 1 to 3."""
    async with open_binance() as exchange:
        sources = from_binance(exchange.url, SYMBOL, eager=True)
        async with daemon(sources=sources, **tables) as d:
            await exchange.wait_subscribed([THEIRS])
            await publish(exchange, 1, 2, 3)
            await until(lambda: d.core.history(SYMBOL).last == 3)
            yield exchange, d


async def show_out(d: Daemon) -> None:
    """End the connections of all clients."""
    async with http_client(d.http) as http:
        for each in (await http.get("/api/v1/clients")).json()["clients"]:
            assert (await http.delete(f"/api/v1/clients/{each['id']}")).is_success


@backends
async def test_a_lost_connection_is_told_and_what_was_missed_comes(backend: str) -> None:
    """Also the fill of a gap that was told before."""
    async with stage() as (exchange, d), following(d.http, backend, snapshot=10) as program:
        await program.until_place(3)
        await publish(exchange, 5)
        await program.until_place(5)
        await show_out(d)
        await publish(exchange, 4, 6)
        await program.until_place(6)
        assert replayed(program.events) == ids(1, 6)
        assert program.states == ["refused", "lost", "connecting", "connected"]
        (refused,), (lost,) = program.of("refused"), program.of("lost")
        assert refused.reason == "ended by the operator"
        assert lost.retry_in == refused.retry_in, "the daemon says when it wants to see it again"


@backends
async def test_who_is_refused_comes_back(backend: str) -> None:
    """The daemon has no room, says when to come back, and the feed does."""
    tables: dict[str, Any] = {
        "gateway": Gateway(port=0, max_sessions=1),
        "admission": Admission(retry_after=0.1),
    }
    async with stage(**tables) as (exchange, d), client(d.url) as other:
        await other.call("ping")
        async with following(d.http, backend, snapshot=10) as program:
            await program.until(lambda: "refused" in program.states)
            await other.socket.aclose()
            await program.until_place(3)
            await publish(exchange, 4)
            await program.until_place(4)
            assert replayed(program.events) == ids(1, 4)
            refused = program.of("refused")[0]
            lost = program.events[program.events.index(refused) + 1]
            assert 0.1 <= refused.retry_in <= 0.2
            assert (lost.state, lost.code, lost.retry_in) == ("lost", 1013, refused.retry_in)


@backends
async def test_a_slow_reader_stops_the_feed_and_loses_nothing(backend: str) -> None:
    """No more events wait than there is room for. That is counted, and all of them come when it reads again."""
    async with stage() as (exchange, d), following(d.http, backend, snapshot=10, room=4) as program:
        await program.until_place(3)
        program.paused = True
        await publish(exchange, *range(4, 200))
        await program.until(lambda: program.is_held)
        await until(lambda: d.core.history(SYMBOL).last == 199)
        await until(lambda: program.feed and program.feed.waited)
        program.resume()
        await program.until_place(199)
        assert replayed(program.events) == ids(1, 199)


@backends
async def test_over_deaths_stops_and_rewinds(tmp_path: Path, backend: str) -> None:
    """A stop in order, a kill with trades that are on no disk, and a start: the program hears of the rewind, and in
    the end has what the daemon has."""
    async with open_binance() as exchange:
        home = Home(tmp_path, exchange.url)
        async with home.living() as life:
            await exchange.wait_subscribed([THEIRS])
            async with following(life.http, backend, snapshot=10) as program:
                await publish(exchange, 1, 2, 3)
                await program.until_place(3)
                assert await life.stop() == 0
                await program.until(lambda: program.of("lost"))
                assert program.of("lost")[0].code == 1001
                assert program.states[0] == "draining"
                async with slow_disk(home).living() as second:
                    await exchange.wait_subscribed([THEIRS])
                    await publish(exchange, 4)
                    await second.until_recorded(1)
                    await publish(exchange, 5, 6)
                    await program.until_place(6)
                    await second.kill()
                async with home.living() as third:
                    await program.until(lambda: any(isinstance(each, Rewound) for each in program.events))
                    await exchange.wait_subscribed([THEIRS])
                    await publish(exchange, 7, 8)
                    await program.until(lambda: "8" in replayed(program.events).values())
                    async with connect(third.http) as feed:
                        pages = [page async for page in feed.history(SYMBOL, limit=2)]
                    entries = [entry for page in pages for entry in page.entries]
                    assert replayed(entries) == replayed(program.events)
                    assert [each for each in replayed(program.events).values() if each][:3] == ["1", "2", "3"]


def slow_disk(home: Home) -> Home:
    """The same home. The first trades of a life are written at once, further ones at its end."""
    return evolve(home, more="interval = 60.0\n")


async def test_positions_go_on_in_a_later_process(tmp_path: Path) -> None:
    """Through JSON: the open gap is asked for again, and nothing comes twice."""
    async with stage() as (exchange, d):
        async with connect(d.http) as feed:
            trades = feed.trades(SYMBOL, snapshot=2)
            assert [(await anext(trades)).offset for _ in range(2)] == [2, 3]
            await publish(exchange, 5)
            assert isinstance(await anext(trades), Gap)
            saved = json.dumps(feed.positions)
        await publish(exchange, 4, 6)
        await until(lambda: d.core.history(SYMBOL).last == 6)
        async with connect(d.http) as feed:
            events = feed.trades(SYMBOL, since=json.loads(saved))
            assert feed.positions == json.loads(saved), "until something was taken"
            fill, *trades_ = [await anext(events) for _ in range(3)]
            assert isinstance(fill, Filled)
            assert [each.trade_id for each in [*fill.trades, *trades_]] == ["4", "5", "6"]
            assert feed.positions == {SYMBOL: {"epoch": d.core.epoch, "offset": 6}}


async def test_an_iterator_that_is_left_is_no_subscription_any_more() -> None:
    """By `break`, by `aclose`, by a cancelled task. What is on its way then is no fault, and it can be followed anew."""
    async with stage() as (exchange, d), connect(d.http) as feed:

        async def subscriptions() -> int:
            async with http_client(d.http) as http:
                (one,) = (await http.get("/api/v1/clients")).json()["clients"]
            return len(one["follows"])

        async def until_left() -> None:
            while await subscriptions():
                await trio.lowlevel.checkpoint()

        async for event in feed.trades(SYMBOL, snapshot=1):
            assert isinstance(event, Trade)
            break
        await until_left()
        trades = feed.trades(SYMBOL, snapshot=1)
        assert isinstance(await anext(trades), Trade)
        await trades.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(trades)
        await until_left()
        with trio.CancelScope() as scope:
            async for event in feed.trades(SYMBOL, snapshot=1):
                assert isinstance(event, Trade)
                scope.cancel()
        await until_left()
        for _ in range(5):  # in one breath: the answers to these calls meet later ones
            feed.trades(SYMBOL, snapshot=3)
        trades = feed.trades(SYMBOL, snapshot=3)
        assert [(await anext(trades)).offset for _ in range(3)] == [1, 2, 3]
        await publish(exchange, 4)
        assert (await anext(trades)).offset == 4
        assert feed.connection.state == "connected"
        assert feed._link.made == 1, "no fault of the server was seen"


async def test_candles_quality_and_what_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the other ways to get something out of a daemon, with all digits."""
    monkeypatch.setattr(Lookout, "_look", look_away)
    async with stage() as (exchange, d), connect(d.url) as feed:
        candle = await anext(feed.candles(SYMBOL, "1m", snapshot=1))
        assert isinstance(candle, Candle)
        assert (candle.count, str(candle.close)) == (3, "3.50000000")
        state = await anext(feed.quality(SYMBOL))
        assert isinstance(state, Quality)
        assert (state.source, state.state) == ("binance", "quiet")
        assert [str(each.price) for each in await feed.recent(SYMBOL, 2)] == ["3.50000000", "2.50000000"]
        (symbol,) = await feed.symbols()
        assert (symbol["symbol"], str(symbol["lastPrice"])) == (SYMBOL, "3.50000000")
        assert "binance" in (await feed.status())["sources"]
        pages = [page async for page in feed.history(SYMBOL, limit=2)]
        assert [[each.offset for each in page.trades] for page in pages] == [[1, 2], [3]]
        day = "2023-11-14T00:00:00Z"
        assert [each async for each in feed.candle_history(SYMBOL, "1m", start=day)] == [[candle]]
        assert await feed.call("ping") == "pong"
        events = feed.events()
        assert await anext(events) == Connection(state="connected")
        await exchange.disconnect("abrupt")
        notice = await anext(events)
        assert isinstance(notice, Notice)
        assert (notice.method, notice.params["source"]) == ("connection.lost", "binance")


async def test_refusals_say_what_would_be_right() -> None:
    """In the iterator that asked, or in the call; the feed goes on."""
    async with stage() as (_exchange, d), connect(d.http) as feed:
        with pytest.raises(CallError, match=r"^BTC-USX: unknown symbol; did you mean BTC-USDT\?$"):
            await anext(feed.trades("BTC-USX"))
        with pytest.raises(CallError, match=r"^interval 7m: unknown interval; valid: 1s, 5s, ") as refused:
            await anext(feed.candles(SYMBOL, "7m"))
        assert refused.value.code == -32602
        with pytest.raises(CallError, match=r"^BTC-USX: unknown symbol; did you mean BTC-USDT\?$"):
            await feed.recent("BTC-USX")
        with pytest.raises(CallError, match=r"^getTrade: Method not found; did you mean getTrades or "):
            await feed.call("getTrade")
        with pytest.raises(CallError, match=r"^interval: is missing$"):
            await feed.call("getCandles", symbol=SYMBOL)
        trades = feed.trades(SYMBOL)
        with pytest.raises(ValueError, match=r"^trades:BTC-USDT is followed by another iterator already: "):
            feed.trades("*")
        del trades
        assert isinstance(await anext(feed.trades("*", snapshot=1)), Trade)


@backends
async def test_a_wrong_address_raises_at_once_and_a_daemon_that_comes_is_waited_for(backend: str) -> None:
    """Unless told to wait, a feed does not try for ever what has never answered."""

    async def wrong(url: str) -> None:
        async with connect(url):
            pass

    async def waits(url: str) -> list[str]:
        async with connect(url, wait=True) as feed:
            events = feed.events()
            return [(await anext(events)).state for _ in range(3)]

    port = own_port()
    url = f"http://127.0.0.1:{port}"
    run = partial(anyio.run, backend=backend)
    for address in (url, url.replace("http", "ws") + "/ws"):
        with pytest.raises(Unreachable, match=f"no daemon answers at {address} .connection refused."):
            await trio.to_thread.run_sync(run, wrong, address)
    assert await trio.to_thread.run_sync(run, waits, url) == ["connecting", "lost", "connecting"]
    with pytest.raises(ValueError, match="is no address of a daemon"):
        connect("127.0.0.1:8080")
