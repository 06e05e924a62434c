"""The query of the GraphQL face on strawberry and uvicorn, each as in its documentation: no limits, no metrics.

With `caching` as an argument documents are kept when they are parsed and checked, as the daemon keeps them. It ends with its standard input.
"""

# Without `from __future__ import annotations`: strawberry reads the types of a schema when it is made.

import asyncio
import json
import os
import sys

import strawberry
import uvicorn
from orders import listen, run
from strawberry.asgi import GraphQL
from strawberry.extensions import ParserCache, ValidationCache


@strawberry.type
class Aggregate:
    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: str
    timestamp: str


BARS = {
    "BTC-USDT": Aggregate(
        symbol="BTC-USDT",
        open=61837.63,
        high=61840.5,
        low=61711.4,
        close=61712.95,
        volume="1763.25",
        timestamp="1767323045678",
    )
}


@strawberry.type
class Query:
    @strawberry.field
    def market_data(self, symbol: str) -> Aggregate | None:
        return BARS.get(symbol)


def on_input() -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        os._exit(0)


async def main() -> None:
    listener = listen()
    caches = [ParserCache(maxsize=100), ValidationCache(maxsize=100)] if "caching" in sys.argv else []
    schema = strawberry.Schema(Query, extensions=caches)
    server = uvicorn.Server(uvicorn.Config(GraphQL(schema), log_level="warning"))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), on_input)
    await server.serve(sockets=[listener])


run(main)
