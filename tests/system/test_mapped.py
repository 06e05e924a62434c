"""An exchange that only the configuration knows: subscribed, followed, refused and reconnected like any other."""

from __future__ import annotations

from typing import Any

import attrs

from simulators import Exchange, Trade, open_exchange
from tests.dataflow.connectors.mappings import acme, settings
from tests.support.acme import acme_dialect
from tests.support.waiting import until
from tests.system.daemon import client, daemon


def deal(number: int, symbol: str = "BTC/USD") -> Trade:
    side: Any = ("buy", "sell")[number % 2]
    return Trade(number, symbol, side, f"61837.{number}0", "0.050", 1_723_161_274_123_000 + number)


def from_acme(exchange: Exchange, **keys: Any) -> dict[str, Any]:
    return {"acme": attrs.evolve(settings(acme()), url=exchange.url, **keys)}


async def test_the_example_of_the_readme_brings_its_trades() -> None:
    """With all digits; what is skipped is an exact gap, across a lost connection too."""
    async with (
        open_exchange(acme_dialect()) as exchange,
        daemon(sources=from_acme(exchange)) as d,
        client(d.url) as c,
    ):
        await c.call("subscribe", symbol="BTC-USD")
        await exchange.wait_subscribed(["BTC/USD"])
        for number in (1, 2):
            await exchange.publish(deal(number))
        await c.until(lambda: len(c.trades()) == 2)
        assert [(t["tradeId"], t["side"], str(t["price"]), str(t["qty"])) for t in c.trades()] == [
            ("1", "sell", "61837.10", "0.050"),
            ("2", "buy", "61837.20", "0.050"),
        ]
        await exchange.disconnect("abrupt")
        await until(lambda: not exchange.subscribed)
        await exchange.publish(deal(3))
        await exchange.wait_subscribed(["BTC/USD"])
        await exchange.publish(deal(4))
        await c.until(lambda: len(c.trades()) == 3)
        assert [(gap["from"], gap["to"]) for gap in c.of("stream.gap")] == [(3, 3)]
        assert not d.core.sources["acme"].problems


async def test_a_refused_symbol_is_told_with_the_words_of_the_upstream() -> None:
    """And costs the others nothing, though they were asked for together."""
    async with open_exchange(acme_dialect()) as exchange:
        exchange.fault("refuse", symbol="ETH/USD", times=None)
        async with daemon(sources=from_acme(exchange, eager=True)) as d:
            source = d.core.sources["acme"]
            await until(lambda: source.subscribed_symbols == {"BTC-USD"} and source.refused_symbols)
            assert source.refused_symbols == {"ETH-USD": "no such market: ETH/USD"}
