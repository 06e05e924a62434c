"""The control port does over HTTP what the methods do, and refuses all other requests."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from attrs import define

from simulators import Exchange, Trade, binance_dialect, open_blockchain, playing, recorded
from simulators.control_port import MAX_BODY, ControlPort, answer
from simulators.controls import Controls, speed_of
from simulators.feed import Tick

Connect = Callable[..., Any]
Make = Callable[..., Trade]
Ids = Callable[[list[str]], list[int]]


@define
class Served:
    exchange: Exchange
    port: ControlPort

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request on a connection of its own."""
        stream = await trio.open_tcp_stream(self.port.host, self.port.port)
        async with stream:
            client = h11.Connection(h11.CLIENT)
            data = b"" if body is None else json.dumps(body).encode()
            headers = [("host", "x"), ("content-length", str(len(data)))]
            await stream.send_all(
                client.send(h11.Request(method=method, target=path, headers=headers)) or b""
            )
            await stream.send_all(client.send(h11.Data(data=data)) or b"")
            status, text = 0, b""
            while True:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    text += event.data
                else:
                    return status, json.loads(text)


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    feed = recorded([Tick(0, Trade(1, "BTC-USD", "buy", "1", "1", 1))])
    async with (
        open_blockchain() as exchange,
        playing(exchange, feed, start="told") as player,
        trio.open_nursery() as nursery,
    ):
        port = ControlPort(Controls(exchange, player))
        await nursery.start(port.serve)
        yield Served(exchange, port)
        nursery.cancel_scope.cancel()


async def test_the_status_is_complete(connect: Connect) -> None:
    """Connections, subscriptions, counters, the faults in force, and the state of the feed."""
    async with served() as it, connect(it.exchange.url) as raw:
        await raw.subscribe(it.exchange, "BTC-USD")
        it.exchange.fault("drop", times=3)
        status, body = await it.ask("GET", "/status")
        assert status == 200
        assert body["subscribed"] == ["BTC-USD"]
        assert [each["subscribed"] for each in body["connections"]] == [["BTC-USD"]]
        assert (body["published"], body["refusing"]) == (0, False)
        assert body["faults"][0]["kind"] == "drop"
        assert body["feed"] == {"played": 0, "speed": 1.0, "paused": False, "finished": False}


async def test_disconnects_and_faults_work_over_http(connect: Connect, make: Make, ids: Ids) -> None:
    """A fault strikes, a stall silences, a disconnect disconnects, and `accept` ends `refuse`."""
    async with served() as it:
        async with connect(it.exchange.url) as raw:
            await raw.subscribe(it.exchange, "BTC-USD")
            assert (await it.ask("POST", "/faults", {"kind": "duplicate"}))[1]["id"] == 1
            await it.exchange.publish(make(1))
            assert ids(await raw.texts(2)) == [1, 1]
            await it.ask("POST", "/stall", {})
            assert it.exchange.connections[0].silent
            status, body = await it.ask("POST", "/disconnect", {"mode": "refuse"})
            assert (status, body["connections"], body["refusing"]) == (200, [], True)
            assert (await raw.until_closed())[1] == 1006
        assert (await it.ask("POST", "/disconnect", {"mode": "accept"}))[1]["refusing"] is False
        await it.ask("POST", "/faults", {"kind": "drop", "times": None})
        assert (await it.ask("DELETE", "/faults"))[1] == {"withdrawn": 1}
        assert (await it.ask("GET", "/faults"))[1] == []


async def test_the_feed_is_controlled_over_http(connect: Connect, ids: Ids) -> None:
    """Begin, pause, resume and speed reach the player."""
    async with served() as it, connect(it.exchange.url) as raw:
        await raw.subscribe(it.exchange, "BTC-USD")
        assert (await it.ask("POST", "/pause"))[1]["feed"]["paused"] is True
        assert (await it.ask("POST", "/speed", {"speed": 2.5}))[1]["feed"]["speed"] == 2.5
        assert (await it.ask("POST", "/speed", {"speed": "max"}))[1]["feed"]["speed"] == "max"
        assert (await it.ask("POST", "/begin"))[1]["feed"]["played"] == 0
        await it.ask("POST", "/resume")
        assert ids([await raw.text()]) == [1]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("GET", "/nope", None, 404, "/disconnect"),
        ("PUT", "/faults", None, 405, "DELETE"),
        ("POST", "/disconnect", {"mode": "softly"}, 400, "graceful"),
        ("POST", "/disconnect", {"mode": "drop"}, 400, "seconds"),
        ("POST", "/disconnect", {"mode": "abrupt", "second": 1}, 400, "second"),
        ("POST", "/disconnect", {"mode": "drop", "seconds": "5"}, 400, "seconds"),
        ("POST", "/disconnect", None, 400, "graceful"),
        ("POST", "/faults", {"kind": "explode"}, 400, "truncate"),
        ("POST", "/faults", {"kind": "delay"}, 400, "seconds"),
        ("POST", "/faults", {"kind": "drop", "probability": 2}, 400, "probability"),
        ("POST", "/speed", {"speed": 0}, 400, "greater than 0"),
        ("POST", "/speed", {"speed": "fast"}, 400, "'max'"),
    ],
)
async def test_a_request_that_makes_no_sense_changes_nothing(
    method: str, path: str, body: Any, status: int, told: str
) -> None:
    """The answer says what would be right, and the state is the same as before."""
    async with served() as it:
        before = await it.ask("GET", "/status")
        code, problem = await it.ask(method, path, body)
        assert (code, problem["status"]) == (status, status)
        assert told in problem["detail"]
        assert await it.ask("GET", "/status") == before


async def test_without_a_feed_there_is_nothing_to_pause() -> None:
    """The answer says so."""
    reply = await answer(Controls(Exchange(binance_dialect())), "POST", "/pause", b"")
    assert reply.status == 400
    assert "no feed" in reply.body["detail"]


async def test_broken_requests_do_not_stop_the_port() -> None:
    """Noise, half a request, an endless body: each ends only its own connection."""
    async with served() as it:
        huge = f"POST /faults HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode()
        for noise in (b"\x00\x01\r\n\r\n", b"GET /status HT", huge + b" " * (MAX_BODY + 1), b""):
            stream = await trio.open_tcp_stream(it.port.host, it.port.port)
            async with stream:
                await stream.send_all(noise)
                await stream.send_eof()
                reply = b"".join([bytes(part) async for part in stream])
                assert reply == b"" or reply.startswith(b"HTTP/1.1 400")
                assert (b"more than 65536 bytes" in reply) is noise.startswith(b"POST")
        assert (await it.ask("GET", "/status"))[0] == 200
        assert it.port.failed == 0


async def test_one_connection_may_ask_again_and_again() -> None:
    """Two requests in one packet get two answers."""
    async with served() as it:
        stream = await trio.open_tcp_stream(it.port.host, it.port.port)
        async with stream:
            await stream.send_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            seen = b""
            while seen.count(b"HTTP/1.1 200") < 2 or not seen.endswith(b"}"):
                seen += await stream.receive_some()


@pytest.mark.parametrize(("text", "speed"), [("max", math.inf), ("2.5", 2.5), (4, 4.0)])
def test_a_speed_is_a_number_or_max(text: Any, speed: float) -> None:
    """From a command line or a request."""
    assert speed_of(text) == speed
