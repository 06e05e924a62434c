"""Calls of gRPC over a real connection, with a service whose methods are the test's."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from attrs import define, field
from trio.testing import MockClock

from dataflow.app import hall
from dataflow.faces.grpc.call import LARGE_AT_ONCE, LARGE_BYTES, Call
from dataflow.faces.grpc.calls import TAKEN_SECONDS, Calls
from dataflow.faces.grpc.protocol import MAX_MESSAGE_BYTES, CallFailed, Status, prefixed
from dataflow.gateway.problems import InvalidValue
from dataflow.protobuf import marketdata_pb2 as pb
from dataflow.server.http2 import Http2
from dataflow.settings.schema import Limits, Settings
from tests.dataflow.server.wires_client import serving
from tests.support.grpc_client import SERVICE, Raw, raw
from tests.support.waiting import until, until_delivered

ASK = prefixed(pb.AggregateRequest(symbol="AAPL").SerializeToString())
TICK = prefixed(pb.Tick(symbol="AAPL", price=1.5, volume=2, exchange_timestamp=3).SerializeToString())


class Pretender:
    """The service, with methods that do as they are told."""

    descriptors = (pb.DESCRIPTOR.services_by_name["MarketDataService"],)

    def __init__(self) -> None:
        self.gone = 0
        self.sizes: list[int] = []
        self.goes = trio.Event()

    async def GetAggregate(self, call: Call) -> None:  # noqa: N802
        request = await call.request()
        match request.symbol:
            case "WRONG":
                raise InvalidValue("symbol", "WRONG", "is not right")
            case "MISSING":
                raise CallFailed(Status.NOT_FOUND, "Symbol not found: 100% \u00fc")
            case "BROKEN":
                raise RuntimeError("sabotage")
            case "SLOW":
                await trio.sleep(60)
        await call.say(pb.Aggregate(symbol=request.symbol))

    async def StreamAggregates(self, call: Call) -> None:  # noqa: N802
        await call.request()
        await call.say(pb.Aggregate(symbol="A"), pb.Aggregate(symbol="B"))
        with call.lasting():
            try:
                await call.until_gone()
            finally:
                self.gone += 1

    async def StreamTicks(self, call: Call) -> None:  # noqa: N802
        count = 0
        while messages := await call.some():
            self.sizes.append(len(messages))
            count += len(messages)
            call.told = f"{count} came"
            if call.client.header("waits"):
                await self.goes.wait()
        call.told = ""
        await call.say(pb.Ack(success=True, message=str(count)))


@define
class Stage:
    calls: Calls
    service: Pretender
    client: Raw
    address: str
    running: Any = field(default=None)

    async def status(self, number: int) -> tuple[int, str]:
        reply = await self.client.reply(number)
        assert reply.headers[":status"] == "200"
        return reply.status


@asynccontextmanager
async def stage(limits: Limits = Limits(), **rules: Any) -> AsyncIterator[Stage]:  # noqa: B008
    service = Pretender()
    calls = Calls(hall(Settings(limits=limits)), (service,))
    async with serving(calls, http2=Http2(**{"least_data": 1, **rules})) as running:
        address = f"127.0.0.1:{running.port}"
        async with raw(address) as client:
            yield Stage(calls, service, client, address, running)


async def test_an_answer_and_its_status() -> None:
    """Head, message and trailers, in the words of the specification."""
    async with stage() as s:
        reply = await s.client.reply(await s.client.call(f"{SERVICE}/GetAggregate", ASK))
        assert reply.headers == {
            ":status": "200",
            "content-type": "application/grpc",
            "grpc-accept-encoding": "identity",
        } | {name: value for name, value in reply.headers.items() if name == "date"}
        assert reply.messages(pb.Aggregate) == [pb.Aggregate(symbol="AAPL")]
        assert reply.trailers == {"grpc-status": "0"}
        assert reply.reset is None


@pytest.mark.parametrize(
    ("symbol", "status"),
    [
        ("WRONG", (3, "symbol: is not right")),
        ("MISSING", (5, "Symbol not found: 100% \u00fc")),
        ("BROKEN", (13, "a failure inside; the log has it")),
    ],
)
async def test_failures_have_their_statuses(symbol: str, status: tuple[int, str], caplog: Any) -> None:
    """A refusal of the hall, one of the service, and a failure of ours: each ends its call alone."""
    async with stage() as s:
        ask = prefixed(pb.AggregateRequest(symbol=symbol).SerializeToString())
        assert await s.status(await s.client.call(f"{SERVICE}/GetAggregate", ask)) == status
        assert await s.status(await s.client.call(f"{SERVICE}/GetAggregate", ASK)) == (0, "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{SERVICE}/Get", (12, "unknown method Get of marketdata.MarketDataService")),
        (f"{SERVICE}/getaggregate", (12, "unknown method getaggregate of marketdata.MarketDataService")),
        ("/marketdata.Other/GetAggregate", (12, "unknown service marketdata.Other")),
        ("/", (12, "unknown service /")),
    ],
)
async def test_what_does_not_exist_is_unimplemented(path: str, status: tuple[int, str]) -> None:
    """Names are exact."""
    async with stage() as s:
        assert await s.status(await s.client.call(path, ASK)) == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", (13, "this method takes exactly one message")),
        (ASK + ASK, (13, "this method takes exactly one message")),
        (ASK[:-1], (13, "the request ends in the middle of a message")),
        (b"\0\0\0\0\2\xff\xff", (13, "a message is no marketdata.AggregateRequest")),
        (b"\0\0\0\0\3\x0a\x01\xff", (13, "a message is no marketdata.AggregateRequest")),  # not UTF-8
        (b"\1\0\0\0\1x", (12, "compressed messages are not understood here: grpc-accept-encoding")),
        (b"\7\0\0\0\1x", (13, "a message begins with 7: it must be 0")),
        (
            b"\0\x00\x40\x00\x01",
            (8, f"a message of {MAX_MESSAGE_BYTES + 1} bytes: {MAX_MESSAGE_BYTES} bytes are the most"),
        ),
    ],
)
async def test_requests_without_sense(body: bytes, status: tuple[int, str]) -> None:
    """Each ends with its status, and the connection goes on."""
    async with stage() as s:
        number = await s.client.call(f"{SERVICE}/GetAggregate", body, end=True)
        assert await s.status(number) == status
        assert await s.status(await s.client.call(f"{SERVICE}/GetAggregate", ASK)) == (0, "")


async def test_what_is_no_grpc_is_refused_by_http() -> None:
    """415, 405, 400 over HTTP/2; 505 over HTTP/1.1, for a person with a browser or curl."""
    async with stage() as s:
        for headers, status in (
            ({"content_type": "application/json"}, "415"),
            ({"content_type": None}, "415"),
            ({"_method": "GET"}, "405"),
            ({"te": None}, "400"),
        ):
            reply = await s.client.reply(await s.client.call(f"{SERVICE}/GetAggregate", ASK, **headers))
            assert reply.headers[":status"] == status
            assert reply.data.startswith(b"this is gRPC: ")
            assert not reply.trailers
        async with httpx.AsyncClient(base_url=f"http://{s.address}", verify=False, timeout=None) as browser:
            answer = await browser.get("/")
            assert (answer.status_code, answer.text) == (
                505,
                "this is gRPC: it needs HTTP/2, and a client of gRPC\n",
            )


async def test_messages_come_together_and_in_order() -> None:
    """Many in one frame, one in many frames, and the number of them is exact."""
    async with stage() as s:
        number = await s.client.call(f"{SERVICE}/StreamTicks", TICK * 700, end=False)
        for byte in TICK:
            await s.client.send(number, bytes([byte]))
        await s.client.send(number, TICK, end=True)
        reply = await s.client.reply(number)
        assert reply.messages(pb.Ack) == [pb.Ack(success=True, message="702")]
        assert max(s.service.sizes) <= 256  # others have their turn


async def test_a_failure_in_a_stream_says_what_came_before() -> None:
    """The client knows how much of its stream was taken."""
    async with stage() as s:
        number = await s.client.call(f"{SERVICE}/StreamTicks", TICK * 3 + b"\1\0\0\0\0")
        assert await s.status(number) == (
            12,
            "compressed messages are not understood here: grpc-accept-encoding; 3 came",
        )


async def test_a_deadline_is_kept(mock_clock: MockClock) -> None:
    """The server ends the call by itself; a deadline without sense is refused before the call begins."""
    async with stage() as s:
        slow = prefixed(pb.AggregateRequest(symbol="SLOW").SerializeToString())
        number = await s.client.call(f"{SERVICE}/GetAggregate", slow, grpc_timeout="250m")
        await until_in_hand(s)
        mock_clock.jump(0.24)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(s.calls) == 1
        mock_clock.jump(0.02)
        assert await s.status(number) == (4, "not done within 0.25 s")
        number = await s.client.call(f"{SERVICE}/GetAggregate", slow, grpc_timeout="soon")
        assert await s.status(number) == (13, "grpc-timeout: 'soon' is not 1 to 8 digits and one of HMSmun")


async def until_in_hand(s: Stage) -> None:
    await until_delivered(s.client._stream.socket)
    await until(lambda: len(s.calls) > 0)
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_request_that_does_not_end_is_given_up(mock_clock: MockClock) -> None:
    """The only message of a request, and one in the middle of a stream; between two messages there is time."""
    async with stage() as s:
        half = await s.client.call(f"{SERVICE}/GetAggregate", ASK[:-1], end=False)
        whole = await s.client.call(f"{SERVICE}/GetAggregate", ASK, end=False)
        stream = await s.client.call(f"{SERVICE}/StreamTicks", TICK + TICK[:9], end=False)
        idle = await s.client.call(f"{SERVICE}/StreamTicks", TICK, end=False)
        await until_in_hand(s)
        mock_clock.jump(10.1)
        assert await s.status(half) == (4, "no whole request within 10 s")
        assert await s.status(whole) == (4, "no whole request within 10 s")
        assert await s.status(stream) == (4, "a message that begins must end within 10 s; 1 came")
        await s.client.send(idle, TICK, end=True)
        assert (await s.client.reply(idle)).messages(pb.Ack)[0].message == "2"


async def test_an_answer_that_nobody_takes_is_given_up(mock_clock: MockClock) -> None:
    """Also of a client that keeps its connection alive, and shuts its window: it could have any number."""
    async with stage(stall_seconds=math.inf) as s, raw(s.address, window=0) as shut:
        number = await shut.call(f"{SERVICE}/GetAggregate", ASK)
        await shut.until(lambda: shut.replies[number].headers)
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(TAKEN_SECONDS - 0.1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(s.calls) == 1
        mock_clock.jump(0.2)
        assert (await shut.reply(number)).reset is not None
        await until(lambda: len(s.calls) == 0)


async def test_large_messages_are_few_at_a_time() -> None:
    """Half of a large one costs memory: of all clients together so many may be here; then others are refused."""
    async with stage(window=1 << 24) as s:
        begun = b"\0" + MAX_MESSAGE_BYTES.to_bytes(4, "big") + bytes(LARGE_BYTES)
        numbers = [
            await s.client.call(f"{SERVICE}/StreamTicks", begun, end=False) for _ in range(LARGE_AT_ONCE)
        ]
        await until(lambda: s.calls.room.large == LARGE_AT_ONCE)
        more = await s.client.call(f"{SERVICE}/StreamTicks", begun, end=False)
        assert await s.status(more) == (8, "too many large messages at once")
        assert s.client.replies[more].trailers["grpc-retry-pushback-ms"] == "1000"
        for number in numbers:
            await s.client.cancel(number)
        await until(lambda: s.calls.room.large == 0)


async def test_a_stream_that_is_not_taken_holds_its_client_only_there() -> None:
    """The window of that stream shuts; the others of the connection are answered."""
    async with stage(window=1 << 20) as s:
        number = await s.client.call(f"{SERVICE}/StreamTicks", TICK, end=False, waits="yes")
        await until(lambda: s.service.sizes == [1])
        left = s.client.http.local_flow_control_window(number)
        sent = TICK * (left // len(TICK))
        await s.client.send(number, sent)
        assert await s.status(await s.client.call(f"{SERVICE}/GetAggregate", ASK)) == (0, "")
        assert s.client.http.local_flow_control_window(number) < len(TICK)
        assert s.service.sizes == [1]
        s.service.goes.set()
        await s.client.send(number, TICK, end=True)
        reply = await s.client.reply(number)
        assert reply.messages(pb.Ack)[0].message == str(2 + left // len(TICK))


async def test_a_hundred_cancelled_streams_leave_nothing() -> None:
    """Neither calls, nor places, nor tasks, nor entries of their connection."""
    async with stage(streams=200) as s:
        tasks = len(trio.lowlevel.current_root_task().child_nurseries)
        numbers = [await s.client.call(f"{SERVICE}/StreamAggregates", ASK) for _ in range(100)]
        for number in numbers:
            await s.client.until(lambda: len(s.client.replies[number].data) > 0)  # noqa: B023
            assert s.client.replies[number].messages(pb.Aggregate) == [
                pb.Aggregate(symbol="A"),
                pb.Aggregate(symbol="B"),
            ]
        assert s.calls.room.lasting == 100
        for number in numbers:
            await s.client.cancel(number)
        await until(lambda: s.service.gone == 100 and len(s.calls) == 0)
        assert s.calls.room.lasting == 0
        assert len(trio.lowlevel.current_root_task().child_nurseries) == tasks
        assert await s.status(await s.client.call(f"{SERVICE}/GetAggregate", ASK)) == (0, "")
        assert not s.running.reports


async def test_a_stop_ends_all_calls() -> None:
    """UNAVAILABLE, so that clients go elsewhere, with what was taken so far."""
    async with stage() as s:
        stream = await s.client.call(f"{SERVICE}/StreamAggregates", ASK)
        ticks = await s.client.call(f"{SERVICE}/StreamTicks", TICK * 2, end=False)
        await s.client.until(lambda: len(s.client.replies[stream].data) > 0)
        await until(lambda: s.service.sizes == [2])
        s.calls.stop()
        assert await s.status(stream) == (14, "server going away")
        assert await s.status(ticks) == (14, "server going away; 2 came")


async def test_quotas_hold(mock_clock: MockClock) -> None:
    """Calls beyond the quota of an address are refused, with the time to wait; lasting ones are places."""
    async with stage(Limits(loopback=True, calls_per_second=0.3, sessions=1)) as s:  # three at once
        first = await s.client.call(f"{SERVICE}/StreamAggregates", ASK)
        await s.client.until(lambda: len(s.client.replies[first].data) > 0)
        second = await s.client.call(f"{SERVICE}/StreamAggregates", ASK)
        assert await s.status(second) == (8, "too many sessions of one address or name")
        assert await s.status(await s.client.call(f"{SERVICE}/GetAggregate", ASK)) == (0, "")
        refused = await s.client.call(f"{SERVICE}/GetAggregate", ASK)
        assert await s.status(refused) == (8, "too many calls")
        assert int(s.client.replies[refused].trailers["grpc-retry-pushback-ms"]) > 0
