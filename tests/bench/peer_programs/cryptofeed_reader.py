"""cryptofeed's Binance feed with a callback that counts trades, and with its defaults.

Two changes: the symbols are given, so that it does not ask the exchange for them; and the connection has no TLS, which
cryptofeed otherwise enforces.
"""

from __future__ import annotations

import asyncio
from typing import Any

from counting import answer, port
from cryptofeed import FeedHandler
from cryptofeed.connection import WebsocketEndpoint, WSAsyncConn
from cryptofeed.defines import BINANCE, TRADES
from cryptofeed.exchanges import Binance
from cryptofeed.symbols import Symbols
from orders import run

SYMBOL = "BTC-USDT"
taken = 0


async def count(_trade: Any, _receipt: float) -> None:
    global taken
    taken += 1


def without_tls(original: Any) -> Any:
    def init(self: WSAsyncConn, address: str, *arguments: Any, **options: Any) -> None:
        original(self, address, *arguments, **options)
        self.address = address.replace("wss://", "ws://")

    return init


async def main() -> None:
    WSAsyncConn.__init__ = without_tls(WSAsyncConn.__init__)
    Symbols.set(
        BINANCE, {SYMBOL: "BTCUSDT"}, {"tick_size": {SYMBOL: "0.01"}, "instrument_type": {SYMBOL: "spot"}}
    )
    Binance.websocket_endpoints = [WebsocketEndpoint(f"wss://127.0.0.1:{port()}")]
    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": False})  # this loop is uvloop already
    handler.add_feed(Binance(symbols=[SYMBOL], channels=[TRADES], callbacks={TRADES: count}))
    handler.run(start_loop=False, install_signal_handlers=False)
    answer(lambda: taken)
    await asyncio.Event().wait()


run(main)
