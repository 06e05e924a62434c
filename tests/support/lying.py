"""A daemon that lies: it answers subscriptions as the protocol has it, and says between whatever a test wants.

A lie is a text, or a close code. `HONEST` is the right answer. The trades of each symbol begin behind place 5.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

Lie: TypeAlias = str | int

HONEST = "the answer"
PLACE = 5
COLUMNS = ["topic", "offset", "timestamp", "side", "price", "qty", "tradeId", "source"]


@define(eq=False)
class Liar:
    """`first` is what each call on the first connection is answered with; later ones are honest."""

    first: Sequence[Lie]
    asked: list[dict[str, Any]] = field(factory=list)
    connections: int = 0
    port: int = 0
    _news: trio.Event = field(factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until_asked(self, count: int) -> None:
        """Returns once so many subscriptions were asked for, on all connections."""
        while len(self.asked) < count:
            await self._news.wait()

    async def serve(self, request: WebSocketRequest) -> None:
        socket = await request.accept()
        self.connections += 1
        is_first = self.connections == 1
        try:
            while True:
                call = json.loads(await socket.get_message())
                self.asked.append(call)
                self._news.set()
                self._news = trio.Event()
                for lie in self.first if is_first and call["method"] == "subscribe" else [HONEST]:
                    if isinstance(lie, int):
                        await socket.aclose(lie)
                    else:
                        text = answer(call) if lie is HONEST else lie.replace("ID", json.dumps(call["id"]))
                        await socket.send_message(text)
        except ConnectionClosed:
            return


def answer(call: dict[str, Any]) -> str:
    """Nothing was missed."""
    params = call["params"]
    result = {
        "channel": params["channel"],
        "symbol": params["symbol"],
        "event": "subscribed",
        "epoch": 1,
        "offset": params.get("since", {}).get("offset", PLACE),
        "recovered": True,
    }
    if params.get("format") == "compact":
        result |= {"columns": COLUMNS, "topic": 0, "sources": ["acme"]}
    return json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result})


def told(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})


def refusal(code: int, **data: Any) -> str:
    """Of the call that was made last."""
    error = json.dumps({"code": code, "message": "later", "data": data})
    return f'{{"jsonrpc": "2.0", "id": ID, "error": {error}}}'


@asynccontextmanager
async def lying(*first: Lie) -> AsyncIterator[Liar]:
    """It listens until the end of the block."""
    liar = Liar(first)
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, liar.serve, "127.0.0.1", 0, ssl_context=None)
        server = await nursery.start(serve)
        liar.port = server.port
        yield liar
        nursery.cancel_scope.cancel()
