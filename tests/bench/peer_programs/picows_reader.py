"""A reader of the same feed with picows, as a careful user would write it: msgspec, attrs, decimals, compared ids.

It does less than the daemon: it has one symbol, no offsets, no gaps and no clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from decimal import Decimal

import msgspec
from attrs import frozen
from counting import answer, port
from orders import run
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class Data(msgspec.Struct, gc=False):
    a: int
    s: str
    p: Decimal
    q: Decimal
    T: int
    m: bool


class Message(msgspec.Struct, gc=False):
    data: Data


@frozen
class Trade:
    symbol: str
    trade_id: int
    side: str
    price: Decimal
    quantity: Decimal
    timestamp: int


decode = msgspec.json.Decoder(Message).decode


class Reader(WSListener):
    def __init__(self) -> None:
        self.taken = 0
        self._last = 0
        self._trades: deque[Trade] = deque(maxlen=10_000)

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        data = decode(frame.get_payload_as_memoryview()).data
        if data.a > self._last:
            self._last = data.a
            side = "sell" if data.m else "buy"
            self._trades.append(Trade(data.s, data.a, side, data.p, data.q, data.T))
            self.taken += 1


async def main() -> None:
    reader = Reader()
    url = f"ws://127.0.0.1:{port()}/stream?streams=btcusdt@aggTrade"
    transport, _listener = await ws_connect(lambda: reader, url)
    answer(lambda: reader.taken)
    await transport.wait_disconnected()
    await asyncio.sleep(0)


run(main)
