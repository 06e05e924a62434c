"""gRPC as its clients speak it: calls over one HTTP/2 connection, and a checking client for aggregates.

Rules of this file: as in `faces`. The messages alone are those of the `.proto` that clients get from us.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from decimal import Decimal
from typing import Any, Final

import trio
from attrs import define
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamReset, TrailersReceived
from hyperframe.frame import GoAwayFrame

from dataflow.protobuf import marketdata_pb2 as pb

from .faces import RECEIVE_BYTES, Days

SERVICE: Final = f"/{pb.DESCRIPTOR.services_by_name['MarketDataService'].full_name}"
CANCELLED: Final = 1
_PREFIX: Final = struct.Struct(">BI")


class Calls:
    """The client's end of a connection, and its calls by their numbers.

    `ended`: the status of each call that is over, and the words with it.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.ended: dict[int, tuple[int, str]] = {}
        self._stream = stream
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        # h2 takes a farewell for the end, but the calls that are open get their status behind it.
        self._http._frame_dispatch_table[GoAwayFrame] = lambda _frame: ([], [])
        self._http.initiate_connection()
        self._unread: defaultdict[int, bytes] = defaultdict(bytes)
        self._writing = trio.Lock()
        self._heard = trio.Event()

    async def call(self, method: str, *messages: bytes, last: bool = False) -> int:
        """Begin a call, and say `messages`; with `last` there are no more. Returns its number."""
        number = self._http.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "http", ":path": f"{SERVICE}/{method}"}
        headers |= {":authority": "rehearsal", "te": "trailers", "content-type": "application/grpc"}
        self._http.send_headers(number, list(headers.items()))
        await self._flush()
        for message in messages:
            await self.say(number, message)
        if last:
            await self.finish(number)
        return number

    async def say(self, number: int, message: bytes) -> None:
        """Send a small message as soon as there is room, unless the call is over."""
        data = _PREFIX.pack(0, len(message)) + message
        while number not in self.ended:
            if self._http.local_flow_control_window(number) >= len(data):
                self._http.send_data(number, data)
                await self._flush()
                return
            await self._heard.wait()

    async def finish(self, number: int) -> None:
        """There are no more messages."""
        if number not in self.ended:
            self._http.end_stream(number)
            await self._flush()

    async def hear(self) -> list[tuple[int, bytes]]:
        """The messages that come next, each with the number of its call: some, or none."""
        data = await self._stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise trio.BrokenResourceError
        said: list[tuple[int, bytes]] = []
        for event in self._http.receive_data(bytes(data)):
            self._take(event, said)
        await self._flush()
        self._heard.set()
        self._heard = trio.Event()
        return said

    def _take(self, event: Event, said: list[tuple[int, bytes]]) -> None:
        match event:
            case DataReceived(stream_id=number, data=data, flow_controlled_length=size):
                assert number is not None
                self._http.acknowledge_received_data(size or 0, number)
                whole = self._unread[number] + (data or b"")
                while len(whole) >= (begin := _PREFIX.size):
                    end = begin + _PREFIX.unpack_from(whole)[1]
                    if len(whole) < end:
                        break
                    said.append((number, whole[begin:end]))
                    whole = whole[end:]
                self._unread[number] = whole
            case TrailersReceived(stream_id=number, headers=headers):
                told: dict[Any, Any] = dict(headers or ())
                self.ended[number or 0] = int(told["grpc-status"]), told.get("grpc-message", "")
            case StreamReset(stream_id=number):
                self.ended.setdefault(number or 0, (CANCELLED, ""))

    async def _flush(self) -> None:
        async with self._writing:
            if data := self._http.data_to_send():
                await self._stream.send_all(data)


@define(eq=False)
class Aggregates(Days):
    """StreamAggregates: the days of all symbols, each a call of one connection."""

    async def converse(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        calls, asked = Calls(stream), dict[int, str]()
        self.waits_for = "an answer"
        for symbol in self.symbols:
            wish = pb.AggregateRequest(symbol=symbol).SerializeToString()
            asked[await calls.call("StreamAggregates", wish, last=True)] = symbol
        while not calls.ended:
            await self.reading.passed()
            for number, message in await calls.hear():
                said = pb.Aggregate.FromString(message)
                prices = (Decimal(repr(price)) for price in (said.open, said.high, said.low, said.close))
                moment = Decimal(said.timestamp // 1_000_000)
                self.show(asked[number], (*prices, Decimal(said.volume_exact), moment))
        self.refused.update(status for status, _words in calls.ended.values())
        raise trio.BrokenResourceError
