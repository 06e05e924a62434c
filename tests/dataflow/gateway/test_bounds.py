"""What a source may be asked is shown as it is kept to; a bound that does not exist is not shown."""

from __future__ import annotations

from typing import ClassVar

import trio
from attrs import frozen
from trio.testing import MockClock

from dataflow.connectors import binance, blockchain, push
from dataflow.core import Core
from dataflow.gateway.bounds import bounds
from dataflow.net.budget import Priority
from dataflow.net.pace import Kind, Pace
from dataflow.settings.schema import Settings
from dataflow.sources.port import AnySourceSettings, SourceSettings


@frozen(kw_only=True)
class Narrow(SourceSettings):
    """Two symbols on a connection, five connections a minute."""

    symbols_a_connection: ClassVar[int] = 2
    connections_in: ClassVar[tuple[int, float]] = (5, 60.0)


def told(settings: AnySourceSettings, core: Core | None = None) -> dict[str, tuple[int, int, float | None]]:
    core = core or Core(Settings(sources={"a": settings}))
    return {each.name: (each.used, each.limit, each.per) for each in bounds(core, core.sources["a"])}


async def test_each_bound_and_how_much_of_it_is_used(mock_clock: MockClock) -> None:
    """Weight of the last minute, attempts of the last minute, symbols and requests of the fullest line."""
    settings = Narrow(
        connector="a", url="ws://x/", symbols=("A", "B", "C"), eager=True, requests_per_second=4
    )
    core = Core(Settings(sources={"a": settings}), steady=trio.current_time)
    source = core.sources["a"]
    line, pace = source.lines[1], Pace(4)
    line.paced(pace)
    assert core.attempt(source, settings) == 0
    line.up([])
    for symbol in "AB":
        line.subscribed(symbol)
        pace.left(Kind.REQUEST, trio.current_time())
    assert told(settings, core) == {
        "connections": (1, 5, 60.0),
        "symbols": (2, 2, None),
        "requests": (2, 4, 1.0),
    }
    mock_clock.jump(70)
    assert told(settings, core) == {
        "connections": (0, 5, 60.0),
        "symbols": (2, 2, None),
        "requests": (0, 4, 1.0),
    }


async def test_weight_is_that_of_the_questions(mock_clock: MockClock) -> None:
    """As the budget counts it, which all questions to the source share."""
    settings = binance.Settings(connector="binance", url="ws://x/", symbols=("BTC-USDT",), refill_weight=100)
    core = Core(Settings(sources={"a": settings}))
    async with core.budget("a").turn(25, Priority.FILL):
        assert told(settings, core)["weight"] == (25, 100, 60.0)
    mock_clock.jump(62)
    assert told(settings, core)["weight"] == (0, 100, 60.0)


async def test_what_does_not_exist_is_not_shown() -> None:
    """Of an exchange without such rules, and of producers that push to us."""
    assert told(blockchain.Settings(connector="blockchain", url="ws://x/", symbols=("BTC-USD",))) == {}
    assert told(push.Settings(connector="push", symbols=("*",))) == {}
