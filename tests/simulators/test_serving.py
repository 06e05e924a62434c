"""The commands serve the right feeds on the right ports, and refuse files that they cannot play."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trio

from simulators import (
    RecordingError,
    Served,
    Tick,
    Trade,
    exchanges,
    file_feed,
    recorded,
    replay,
    serve_demo,
    shipped,
    simulate,
)
from simulators.exchange import wall_clock_us
from simulators.serving import control_port_beside

Connect = Callable[..., Any]
Ids = Callable[[list[str]], list[int]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three trades in a file."""
    path = tmp_path / "trades.csv"
    rows = ["5,1000,BTCUSDT,buy,1.5,2", "6,2000,BTCUSDT,sell,1.6,3", "7,3000,BTCUSDT,buy,1.7,4"]
    path.write_text("\n".join(["trade_id,timestamp_us,symbol,side,price,qty", *rows]) + "\n")
    return path


@pytest.mark.parametrize(("exchange", "symbol"), [("binance", "BTCUSDT"), ("blockchain", "BTC-USD")])
async def test_a_file_is_replayed_in_either_format(
    exchange: Any, symbol: str, table: Path, connect: Connect, ids: Ids
) -> None:
    """Each exchange sends the same table in its own format; it begins with the first subscriber."""
    async with trio.open_nursery() as nursery:
        served = await nursery.start(partial(replay, table, exchange, port=0, speed="max"))
        async with connect(served.url) as raw:
            await raw.subscribe(served.controls.exchange, symbol)
            assert ids(await raw.texts(3)) == [5, 6, 7]
        nursery.cancel_scope.cancel()


async def test_the_demo_serves_both_exchanges_with_trades_of_now(connect: Connect) -> None:
    """Both ports answer, the recordings play at once, and the first trade happens now."""
    said: list[str] = []
    before_us = wall_clock_us()
    async with trio.open_nursery() as nursery:
        demo = await nursery.start(partial(serve_demo, blockchain_port=0, binance_port=0, say=said.append))
        for served, symbol in ((demo.blockchain, "BTC-USD"), (demo.binance, "BTCUSDT")):
            served.controls.speed("max")
            async with connect(served.url) as raw:
                await raw.subscribe(served.controls.exchange, symbol)
                assert await raw.text()
            assert before_us - 1000 <= first_timestamp(served) <= wall_clock_us()
        assert len([line for line in said if "simulator on ws://127.0.0.1:" in line]) == 2
        nursery.cancel_scope.cancel()


def first_timestamp(served: Served) -> int:
    """The time of the first trade published so far, in microseconds."""
    player = served.controls.player
    assert player is not None
    tapes = [served.controls.exchange.tape(each) for each in player.feed.symbols]
    return min(tape[0].timestamp_us for tape in tapes if tape)


async def test_a_given_feed_is_served(connect: Connect, ids: Ids) -> None:
    """The exchange knows all symbols of the feed."""
    feed = file_feed_of("NEW-USD")
    async with trio.open_nursery() as nursery:
        start = partial(simulate, "blockchain", feed=feed, port=0, speed=math.inf, start="all_subscribed")
        served = await nursery.start(start)
        async with connect(served.url) as raw:
            await raw.subscribe(served.controls.exchange, "NEW-USD")
            assert ids([await raw.text()]) == [1]
        nursery.cancel_scope.cancel()


def file_feed_of(symbol: str) -> Any:
    return recorded([Tick(0, Trade(1, symbol, "buy", "1", "1", 1))])


async def test_a_taken_port_is_an_error_at_the_start() -> None:
    """The start raises OSError; there is no simulator that nobody can reach."""
    async with trio.open_nursery() as nursery:
        served = await nursery.start(partial(simulate, "binance", port=0))
        port = served.controls.exchange.port
        with pytest.RaisesGroup(OSError, flatten_subgroups=True, allow_unwrapped=True):
            await nursery.start(partial(simulate, "binance", port=port))
        nursery.cancel_scope.cancel()


def test_a_control_port_is_a_hundred_higher() -> None:
    """The port 0, any free port, stays 0."""
    assert (control_port_beside(5001), control_port_beside(0)) == (5101, 0)


def test_names_are_never_guessed(table: Path) -> None:
    """A symbol without a name on the exchange is an error; a given name is used."""
    table.write_text(table.read_text().replace("BTCUSDT", "ODDCOIN"))
    with pytest.raises(RecordingError, match="ODDCOIN"):
        file_feed(table, "blockchain")
    assert file_feed(table, "blockchain", names={"ODDCOIN": "ODD-USD"}).symbols == {"ODD-USD"}


def test_a_recording_may_be_played_looped_and_moved(table: Path) -> None:
    """Ids continue, and the first trade happens now."""
    feed = file_feed(table, "binance", loop=True, rebase=True)
    items: list[Any] = [tick.item for tick in islice(feed.open(9_000_000), 5)]
    assert [item.id for item in items] == [5, 6, 7, 8, 9]
    assert items[0].timestamp_us == 9_000_000


def test_a_recording_with_nothing_to_play_is_refused(tmp_path: Path) -> None:
    """The error says what the file has instead."""
    (tmp_path / "a.jsonl").write_text(
        '{"t":1,"dir":"in","msg":"{\\"event\\":\\"subscribed\\",\\"channel\\":\\"l2\\"}"}\n'
    )
    with pytest.raises(RecordingError, match="l2 subscribed"):
        file_feed(tmp_path / "a.jsonl", "blockchain")


def test_other_streams_are_played_or_left_out(recordings: Path) -> None:
    """Binance plays all messages of a recording, or only its trades."""
    path = recordings / "recordings" / "spot_ethusdt_20240808.jsonl.gz"
    whole = list(file_feed(path, "binance").open(0))
    trades = list(file_feed(path, "binance", trades_only=True).open(0))
    assert len(whole) > len(trades) == len(shipped("binance_ethusdt_trades_20240808.jsonl.gz").trades)


@pytest.mark.parametrize("name", exchanges.names())
def test_an_exchange_is_one_file(name: str) -> None:
    """The name of the file is the name of the dialect; ports are its own; its feed has symbols it knows."""
    definition = exchanges.find(name)
    assert definition.dialect(frozenset()).name == name
    assert all(definition.symbol(symbol) == symbol for symbol in definition.feed().symbols)
    others = [exchanges.find(each) for each in exchanges.names() if each != name]
    taken = {port for each in others for port in (each.port, control_port_beside(each.port))}
    assert not taken & {definition.port, control_port_beside(definition.port)}


def test_an_exchange_that_does_not_exist_is_refused() -> None:
    """The error lists those that exist."""
    with pytest.raises(ValueError, match="no exchange 'nope': binance, "):
        exchanges.find("nope")
