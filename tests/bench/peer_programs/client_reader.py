"""Readers of trades, as users write them: with the feed of dataflow, and with bare `websockets` and `json.loads`.

Prints one line of JSON: the trades, and the seconds and CPU seconds from the first one to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

SYMBOL = "BTC-USDT"


class Clock:
    """Counts trades. It runs from the first one to the last."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._begun = self._ended = (0.0, 0.0)

    def tick(self) -> bool:
        """A trade came. Whether it was the last one."""
        if not self._seen:
            self._begun = time.monotonic(), time.process_time()
        self._seen += 1
        if self._seen < self._count:
            return False
        self._ended = time.monotonic(), time.process_time()  # the goodbye does not count
        return True

    def tell(self) -> None:
        seconds, cpu = (end - begin for begin, end in zip(self._begun, self._ended, strict=True))
        print(json.dumps({"count": self._seen, "seconds": seconds, "cpu": cpu}), flush=True)


async def with_feed(port: int, clock: Clock) -> None:
    from dataflow.client import Trade, connect

    async with connect(f"http://127.0.0.1:{port}") as feed:
        async for event in feed.trades(SYMBOL):
            if isinstance(event, Trade) and event.price and clock.tick():
                break


async def with_websockets(port: int, clock: Clock, *, batch: bool, loads: Callable[[Any], Any]) -> None:
    from websockets.asyncio.client import connect

    params = {"symbol": SYMBOL} | ({"batch": True} if batch else {})
    call = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": params}
    async with connect(f"ws://127.0.0.1:{port}/ws", compression=None, max_size=None) as socket:
        await socket.send(json.dumps(call))
        async for text in socket:
            message = loads(text)
            for each in message if isinstance(message, list) else (message,):
                if each.get("method") == "trades.update" and each["params"]["price"] and clock.tick():
                    return


def exact(text: Any) -> Any:
    return json.loads(text, parse_float=Decimal)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--with", dest="way", required=True)
    options = parser.parse_args()
    clock = Clock(options.count)
    match options.way:
        case "feed-asyncio" | "feed-trio":
            import anyio

            anyio.run(with_feed, options.port, clock, backend=options.way.removeprefix("feed-"))
        case "websockets" | "websockets-batch" | "websockets-exact" | "websockets-batch-exact":
            batch, loads = "batch" in options.way, exact if "exact" in options.way else json.loads
            asyncio.run(with_websockets(options.port, clock, batch=batch, loads=loads))
    clock.tell()


if __name__ == "__main__":
    main()
