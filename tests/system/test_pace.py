"""The bounds of an upstream, kept by the whole daemon against an exchange that enforces them."""

from __future__ import annotations

from dataflow.sources.state import LinkState
from simulators import open_binance
from tests.support.waiting import until
from tests.system.daemon import daemon, from_binance


async def test_many_symbols_are_subscribed_on_one_connection() -> None:
    """Three hundred symbols are six requests, more than Binance takes within a second: it cuts off nobody."""
    names = [f"A{n}" for n in range(300)]
    symbols = [f"{name}-USDT" for name in names]
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *symbols, eager=True)) as running,
    ):
        await exchange.wait_subscribed(f"{name}USDT" for name in names)
        await until(lambda: running.core.sources["binance"].link is LinkState.CONNECTED)
        assert exchange.accepted == 1
        assert not running.crashes("sources")


async def test_wishes_that_come_and_go_never_cut_the_source_off() -> None:
    """However often symbols are wanted and released: one connection, and in the end what is wanted then."""
    symbols = [f"A{n}-USDT" for n in range(40)]
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *symbols, linger=0.0)) as running,
    ):
        interest = running.core.sources["binance"].interest
        for n, symbol in enumerate(symbols):
            interest.want(symbol, "client")
            await until(lambda: exchange.accepted == 1)
            if n % 2:
                interest.release(symbol, "client")
        wanted = {f"A{n}USDT" for n in range(0, 40, 2)}
        await until(lambda: exchange.subscribed == wanted)
        assert exchange.accepted == 1
        assert not running.crashes("sources")
