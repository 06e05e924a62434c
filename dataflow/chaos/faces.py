"""Checking clients of the protocols beside JSON-RPC: one of each rehearses with the others.

Rules of this file: words of protocols, written anew from what their clients know. Nothing of the daemon's own
faces is used: a mistake in them would be made twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final

import h11
import trio
from attrs import define
from trio_websocket import WebSocketConnection

from .check import Admitted, State
from .client import Client, OverWebSocket, States, Trades
from .speakers import JsonRpc

END: Final = "\x1e"  # of a record of SignalR
RECEIVE_BYTES: Final = 65_536
PING_EVERY: Final = 5.0  # seconds
_NUMBERS: Final = ("open", "high", "low", "close", "volume", "timestamp")  # of a day


def _read(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def _day(said: Mapping[str, Any]) -> State:
    """The numbers of a day, whether they are written as numbers or as texts."""
    return tuple(Decimal(said[name]) for name in _NUMBERS)


@define(eq=False)
class Events(Trades):
    """Server-Sent Events of the first symbol. After a break it goes on behind the last event."""

    def __attrs_post_init__(self) -> None:
        self.symbols = list(self.symbols)[:1]
        Trades.__attrs_post_init__(self)

    async def converse(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        [(symbol, told)] = self.streams.items()
        since = f"{told.epoch or 1}-{told.position or 0}"  # of epoch 1 nothing is known: all there is comes
        http = h11.Connection(h11.CLIENT)
        target = f"/api/v1/stream/{symbol}?since={since}"
        request = h11.Request(method="GET", target=target, headers=[("Host", f"{self.host}:{self.port}")])
        await stream.send_all(http.send(request) or b"")
        self.waits_for, unread = "an answer", b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                await self.reading.passed()
                if not (data := await stream.receive_some(RECEIVE_BYTES)):
                    raise trio.BrokenResourceError  # cut, perhaps in the middle of an event
                http.receive_data(data)
            elif isinstance(event, h11.Response):
                if event.status_code != 200:
                    self.refused[event.status_code] += 1
                    raise trio.BrokenResourceError
                told.follow()
            elif isinstance(event, h11.Data):
                *events, unread = (unread + bytes(event.data)).split(b"\n\n")
                for each in events:
                    self._hear(each.decode())
            else:
                raise trio.BrokenResourceError  # the end of the stream

    def _hear(self, event: str) -> None:
        [(_, told)] = self.streams.items()
        fields = dict(line.split(": ", 1) for line in event.split("\n") if ": " in line)
        if fields.get("event") == "filled":
            told.filled(json.loads(fields["data"], parse_float=Decimal))
        elif "id" in fields:
            first, epoch = told.epoch is None, int(fields["id"].partition("-")[0])
            told.of(epoch)
            data = json.loads(fields["data"], parse_float=Decimal)
            if fields["event"] == "trade":
                self.received += 1
                told.trade(data)
            elif fields["event"] == "rewind":
                told.rewind(data["offset"])
            elif data["from"] or first:
                told.gap(data)
            else:
                told.findings["unrecovered"] += 1


class PriceHub(States, OverWebSocket):
    """The prices of all symbols, from now on."""

    path = "/pricehub"

    @staticmethod
    def truth(admitted: Admitted) -> list[State]:
        return admitted.prices

    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        """There is nothing to say."""

    def hear(self, text: str) -> None:
        if not self.listening:  # the first one shows that all are followed
            for shown in self.shown.values():
                shown.begin()
        said = json.loads(text)
        [symbol] = [each for each in self.symbols if each.replace("-", "") == said["Instrument"]]
        self.show(symbol, (Decimal(said["Price"]),))


class Days(States):
    """A client that is shown days."""

    counts_fills: ClassVar = True

    @staticmethod
    def truth(admitted: Admitted) -> list[State]:
        return admitted.days


@define(eq=False)
class MarketData(Days, OverWebSocket):
    """The day of the first symbol."""

    path = "/ws/marketdata"

    def __attrs_post_init__(self) -> None:
        self.symbols = list(self.symbols)[:1]
        Days.__attrs_post_init__(self)

    def target(self) -> str:
        [symbol] = self.symbols
        return f"{self.path}?symbol={symbol}"

    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        """There is nothing to say."""

    def hear(self, text: str) -> None:
        said = _read(text)
        self.show(said["symbol"], _day(said))


class Stomp(Days, OverWebSocket):
    """STOMP 1.2 over a plain WebSocket: the days of all symbols."""

    path = "/ws/websocket"
    subprotocols = ("v12.stomp",)

    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        await socket.send_message("CONNECT\naccept-version:1.2\nhost:rehearsal\n\n\0")
        for symbol in self.symbols:
            destination = f"/topic/market-data/{symbol}"
            await socket.send_message(f"SUBSCRIBE\nid:{symbol}\ndestination:{destination}\n\n\0")

    def hear(self, text: str) -> None:
        if text == "\n":
            return
        head, _, body = text.partition("\n\n")
        command, *lines = head.split("\n")
        headers = dict(line.split(":", 1) for line in lines)
        match command:
            case "MESSAGE":
                symbol = headers["destination"].rpartition("/")[2]
                self.show(symbol, _day(_read(body.removesuffix("\0"))))
            case "ERROR":
                self.refused[1] += 1
                raise trio.BrokenResourceError


class GraphQl(Days, OverWebSocket):
    """Subscriptions over graphql-transport-ws: the days of all symbols."""

    path = "/graphql"
    subprotocols = ("graphql-transport-ws",)

    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        await socket.send_message('{"type":"connection_init"}')
        for symbol in self.symbols:
            query = f'subscription {{ marketData(symbol: "{symbol}") {{ {" ".join(_NUMBERS)} }} }}'
            asked = {"type": "subscribe", "id": symbol, "payload": {"query": query}}
            await socket.send_message(json.dumps(asked))

    def hear(self, text: str) -> None:
        match _read(text):
            case {"type": "next", "id": symbol, "payload": {"data": {"marketData": said}}}:
                self.show(symbol, _day(said))
            case {"type": "error" | "complete"}:
                self.refused[1] += 1
                raise trio.BrokenResourceError


class Hub(JsonRpc):
    """JSON-RPC in the records of a SignalR hub: every trade."""

    path = "/blockchain"

    async def begin(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        await socket.send_message(_record(protocol="json", version=1))
        nursery.start_soon(self._give_signs, socket)
        await JsonRpc.begin(self, socket, nursery)

    async def say(self, socket: WebSocketConnection, text: str) -> None:
        await socket.send_message(_record(type=1, target="SendMessage", arguments=[text]))

    async def _give_signs(self, socket: WebSocketConnection) -> None:
        while True:
            await trio.sleep(PING_EVERY)
            await socket.send_message(_record(type=6))

    def hear(self, text: str) -> None:
        for record in text.removesuffix(END).split(END):
            match json.loads(record):
                case {"type": 1, "arguments": [said]}:
                    JsonRpc.hear(self, said)
                case {"type": 7} | {"error": _}:
                    self.refused[7] += 1
                    raise trio.BrokenResourceError


def _record(**told: Any) -> str:
    return json.dumps(told) + END


CLIENTS: Final[Mapping[str, type[Client]]] = {
    "sse": Events,
    "pricehub": PriceHub,
    "marketdata": MarketData,
    "stomp": Stomp,
    "graphql": GraphQl,
    "signalr": Hub,
}  # by the name of the face
