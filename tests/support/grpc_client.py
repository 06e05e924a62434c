"""Clients of gRPC for tests: grpcio in threads, and a raw one, with the messages that the project ships."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
import trio
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from dataflow.protobuf import marketdata_pb2 as pb
from dataflow.protobuf.grpc.health.v1 import health_pb2 as health

SERVICE = "/marketdata.MarketDataService"
_ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))  # no connection is shared


@define
class Stub:
    """One connection and the methods of the service on it."""

    channel: grpc.Channel

    @property
    def get_aggregate(self) -> Any:
        return self.channel.unary_unary(
            f"{SERVICE}/GetAggregate", pb.AggregateRequest.SerializeToString, pb.Aggregate.FromString
        )

    @property
    def stream_aggregates(self) -> Any:
        return self.channel.unary_stream(
            f"{SERVICE}/StreamAggregates", pb.AggregateRequest.SerializeToString, pb.Aggregate.FromString
        )

    @property
    def stream_ticks(self) -> Any:
        return self.channel.stream_unary(
            f"{SERVICE}/StreamTicks", pb.Tick.SerializeToString, pb.Ack.FromString
        )

    @property
    def check(self) -> Any:
        return self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health.HealthCheckRequest.SerializeToString,
            health.HealthCheckResponse.FromString,
        )

    @property
    def list(self) -> Any:
        return self.channel.unary_unary(
            "/grpc.health.v1.Health/List",
            health.HealthListRequest.SerializeToString,
            health.HealthListResponse.FromString,
        )

    @property
    def watch(self) -> Any:
        return self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            health.HealthCheckRequest.SerializeToString,
            health.HealthCheckResponse.FromString,
        )

    async def aggregate(self, symbol: str, **options: Any) -> pb.Aggregate:
        """Raises grpc.RpcError."""
        return await in_thread(self.get_aggregate, pb.AggregateRequest(symbol=symbol), **options)

    async def ticks(self, ticks: Iterable[pb.Tick], **options: Any) -> pb.Ack:
        """Raises grpc.RpcError."""
        return await in_thread(self.stream_ticks, iter(ticks), **options)

    @asynccontextmanager
    async def aggregates(self, symbol: str, **options: Any) -> AsyncIterator[Following]:
        """A stream that is read by a thread of its own until the block ends."""
        call = await in_thread(self.stream_aggregates, pb.AggregateRequest(symbol=symbol), **options)
        async with following(call) as made:
            yield made


@define
class Following:
    """A stream of messages and what came over it."""

    call: Any
    messages: list[Any] = field(factory=list)
    failure: grpc.RpcError | None = None
    ended: bool = False
    _news: trio.Event = field(factory=trio.Event)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Returns when `condition()` holds, looked at after every message."""
        while not condition():
            await self._news.wait()

    async def listen(self) -> None:
        def read() -> None:
            try:
                for message in self.call:
                    trio.from_thread.run_sync(self.messages.append, message)
                    trio.from_thread.run_sync(self._tell)
            except grpc.RpcError as error:
                self.failure = error

        await in_thread(read)
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def following(call: Any) -> AsyncIterator[Following]:
    """Read the messages of `call`, which has begun, until the block ends: then it is cancelled."""
    made = Following(call)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.listen)
        try:
            yield made
        finally:
            call.cancel()


@asynccontextmanager
async def connected(address: str, *options: tuple[str, Any]) -> AsyncIterator[Stub]:
    """A connection of its own to "127.0.0.1:50051"."""
    channel = grpc.insecure_channel(address, options=(*_ALONE, *options))
    try:
        await in_thread(grpc.channel_ready_future(channel).result, 60)
        yield Stub(channel)
    finally:
        with trio.CancelScope(shield=True):
            await in_thread(channel.close)


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a blocking call in a thread. Threads are many here: a stream that is read has one."""
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=_THREADS)


_THREADS = trio.CapacityLimiter(256)


@define
class Reply:
    """What came on one stream of HTTP/2."""

    headers: dict[str, str] = field(factory=dict)
    data: bytes = b""
    trailers: dict[str, str] = field(factory=dict)
    reset: int | None = None
    over: bool = False
    _messages: list[Any] = field(factory=list)
    _parsed: int = 0  # bytes

    @property
    def status(self) -> tuple[int, str]:
        """The status of the call and its message, decoded."""
        return int(self.trailers["grpc-status"]), unquote(self.trailers.get("grpc-message", ""))

    def messages(self, kind: Any) -> list[Any]:
        """The messages that came whole, so far."""
        data, at = self.data, self._parsed
        while len(data) - at >= 5 + (size := int.from_bytes(data[at + 1 : at + 5], "big")):
            self._messages.append(kind.FromString(data[at + 5 : at + 5 + size]))
            at += 5 + size
        self._parsed = at
        return self._messages


class Raw:
    """One connection of HTTP/2 that does nothing by itself: for what no library sends."""

    def __init__(self, stream: trio.SocketStream, window: int | None) -> None:
        self.replies: dict[int, Reply] = defaultdict(Reply)
        self.farewells: list[int] = []  # the codes of GOAWAY
        self.http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._stream = stream
        self._window = window  # of each stream, if it is not opened again by itself
        self._number = -1
        # h2 would say no more behind a farewell, but the streams that are open go on.
        self.http._frame_dispatch_table[GoAwayFrame] = self._hear_farewell
        self.http.initiate_connection()
        if window is not None:
            self.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})

    async def call(self, path: str, body: bytes = b"", *, end: bool = True, **headers: str | None) -> int:
        """Begin a call; returns the number of its stream. `None` leaves a header out, "_" stands for ":" and "-"."""
        self._number += 2
        sent = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        sent |= {"content-type": "application/grpc", "te": "trailers"}
        for name, value in headers.items():
            name = ":" + name[1:] if name.startswith("_") else name.replace("_", "-")
            sent.pop(name, None)
            if value is not None:
                sent[name] = value
        ordered = sorted(sent.items(), key=lambda header: not header[0].startswith(":"))
        self.http.send_headers(self._number, ordered, end_stream=end and not body)
        if body:
            await self.send(self._number, body, end=end)
        await self.flush()
        return self._number

    async def send(self, number: int, body: bytes, *, end: bool = False) -> None:
        """Send data, as the windows allow."""
        while body:
            await self.until(lambda: self.http.local_flow_control_window(number) > 0)
            size = min(len(body), self.http.local_flow_control_window(number), 16384)
            self.http.send_data(number, body[:size], end_stream=end and size == len(body))
            body = body[size:]
            await self.flush()

    async def reply(self, number: int) -> Reply:
        """The whole answer."""
        await self.until(lambda: self.replies[number].over)
        return self.replies[number]

    async def cancel(self, number: int) -> None:
        """As a client that has lost interest."""
        self.http.reset_stream(number, ErrorCodes.CANCEL)
        await self.flush()

    async def open_window(self, number: int, size: int) -> None:
        """Let the server send more."""
        self.http.increment_flow_control_window(size, number)
        await self.flush()

    async def until(self, true: Callable[[], Any]) -> None:
        while not true():
            await self.flush()
            data = await self._stream.receive_some(65536)
            assert data, "the connection has ended"
            for event in self.http.receive_data(bytes(data)):
                self._take(event)

    async def flush(self) -> None:
        if data := self.http.data_to_send():
            await self._stream.send_all(data)

    def _hear_farewell(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        self.farewells.append(int(frame.error_code))
        return [], []

    def _take(self, event: Any) -> None:
        reply = self.replies[getattr(event, "stream_id", 0)]
        if isinstance(event, ResponseReceived):
            reply.headers = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, DataReceived):
            reply.data += event.data
            if self._window is None:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                self.http.increment_flow_control_window(event.flow_controlled_length or 1)
        elif isinstance(event, TrailersReceived):
            reply.trailers = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, StreamReset):
            reply.reset, reply.over = int(event.error_code), True
        elif isinstance(event, StreamEnded):
            reply.over = True


@asynccontextmanager
async def raw(address: str, window: int | None = None) -> AsyncIterator[Raw]:
    """`window`: bytes that each stream may bring before `open_window`; None: the streams are read at once."""
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    try:
        made = Raw(stream, window)
        await made.flush()
        yield made
    finally:
        await trio.aclose_forcefully(stream)
