"""Exchanges to test against: they speak the real wire formats, play recorded or generated trades, and fail on
demand. `README.md` has the commands; this is the quick start for tests.

The package imports nothing else of the project. It defines the wire formats a second time, so that one
misunderstanding of a format cannot be on both sides and go unnoticed.

Everything runs in the test's own Trio loop, on a free port of the loopback:

    from simulators import Trade, open_binance, open_blockchain, playing, recorded, shipped

    async with open_blockchain(symbols=["BTC-USD"]) as exchange:    # or open_binance()
        exchange.url                                  # ws://127.0.0.1:PORT/mercury-gateway/v1/ws, or /stream
        await exchange.wait_subscribed(["BTC-USD"])   # returns when the client under test is subscribed
        trade = Trade(
            id=7, symbol="BTC-USD", side="buy", price="8501.1", qty="0.0005892", timestamp_us=1589135616696315
        )
        await exchange.publish(trade)
        await exchange.drained()                      # everything published is written to the socket
        await exchange.disconnect("abrupt")           # graceful, drop (seconds=), refuse, accept, restart
        exchange.stall()                              # the open connections are silent, but stay open
        exchange.fault("duplicate", times=1)          # the next trade; also drop, reorder, delay (seconds=),
                                                      # stall, mute, skip, truncate, garbage, and
                                                      # refuse: a subscription
        exchange.tape("BTC-USD")                      # all published trades, to compare with
        assert not exchange.failures                  # errors of its own handlers are kept here

Binance calls the symbol ``BTCUSDT``. Blockchain.com requires the header ``Origin:
https://exchange.blockchain.com`` unless opened with ``require_origin=False``. For tests that a reconnect
loses and repeats no trade, ``open_binance(absent="held", replay_last=5000)`` holds trades while nobody is
subscribed, and sends the last 5000 again to a client that comes back.

A recording at full speed, from the moment when every symbol has a subscriber:

    feed = recorded(shipped("binance_btcusdt_trades_20240808.jsonl.gz").ticks)
    async with open_binance() as exchange:
        async with playing(exchange, feed, speed=math.inf, start="all_subscribed") as player:
            await player.finished.wait()

Trouble between any client and any server (`proxy.py` has more):

    async with open_proxy(exchange.host, exchange.port) as proxy:   # connect to proxy.host, proxy.port
        proxy.delay(0.2, jitter=0.1, way="down")
        proxy.hold("down")                            # half open, until proxy.release()
        await proxy.reset()                           # also cut, refuse, accept; heal withdraws all
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from . import exchanges
from .client import Client, run_client
from .definition import Definition
from .exchange import Exchange, open_exchange
from .exchanges.binance import binance_dialect, binance_feed
from .exchanges.blockchain import SYMBOLS, blockchain_dialect, blockchain_feed
from .faults import Fault, Faults
from .feed import Feed, Tick, merge, recorded, relabel
from .market import BINANCE_MARKET, BLOCKCHAIN_MARKET, Instrument, generated, market
from .player import Pace, Player, playing
from .proxy import Proxy, open_proxy
from .recordings import Recording, RecordingError, read, shipped
from .serving import (
    CONTROLS_ABOVE,
    Demo,
    Served,
    file_feed,
    replay,
    serve_demo,
    serve_exchange,
    simulate,
)
from .ticks import push_ticks
from .trade import Item, StreamMessage, Trade

__all__ = [
    "BINANCE_MARKET",
    "BLOCKCHAIN_MARKET",
    "CONTROLS_ABOVE",
    "Client",
    "Definition",
    "Demo",
    "Exchange",
    "Fault",
    "Faults",
    "Feed",
    "Instrument",
    "Item",
    "Pace",
    "Player",
    "Proxy",
    "Recording",
    "RecordingError",
    "Served",
    "StreamMessage",
    "Tick",
    "Trade",
    "binance_dialect",
    "binance_feed",
    "blockchain_dialect",
    "blockchain_feed",
    "exchanges",
    "file_feed",
    "generated",
    "market",
    "merge",
    "open_binance",
    "open_blockchain",
    "open_exchange",
    "open_proxy",
    "playing",
    "push_ticks",
    "read",
    "recorded",
    "relabel",
    "replay",
    "run_client",
    "serve_demo",
    "serve_exchange",
    "shipped",
    "simulate",
]


def open_blockchain(
    *,
    symbols: Iterable[str] = SYMBOLS,
    require_origin: bool = True,
    heartbeat: float | None = 5.0,
    **options: Any,
) -> AbstractAsyncContextManager[Exchange]:
    """Serve a simulated Blockchain.com inside an ``async with``.

    `symbols` are those that it knows; others are rejected. `heartbeat` is the seconds between two heartbeats.
    `options` are `host`, `port` and those of `Exchange`. May raise OSError.
    """
    dialect = blockchain_dialect(symbols=symbols, require_origin=require_origin, heartbeat=heartbeat)
    return open_exchange(dialect, **options)


def open_binance(
    *, ping: float | None = 20.0, lifetime: float | None = 86_400.0, **options: Any
) -> AbstractAsyncContextManager[Exchange]:
    """Serve a simulated Binance inside an ``async with``.

    `ping` is the seconds between two pings, `lifetime` the seconds until it closes a connection. `options`
    are `host`, `port` and those of `Exchange`. May raise OSError.
    """
    return open_exchange(binance_dialect(ping=ping, lifetime=lifetime), **options)
