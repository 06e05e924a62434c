"""The clients that exist: stomp.py, @stomp/stompjs plain and over sockjs-client, a browser's page, and WebRTC peers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import stomp
import trio
from attrs import define, field

from tests.support.node import Program, program
from tests.support.waiting import until
from tests.system.stomping import MARKET_DATA, Stage, settled, stage

FIRST = {"symbol": "BTC-USDT", "open": 100.5, "high": 100.5, "low": 99, "close": 99, "volume": "1.75"}
OFFER = {"type": "OFFER", "senderId": "a", "targetId": "b", "sdp": "v=0\r\ns=é😀\r\n", "candidate": None}


@define(eq=False)
class Listener(stomp.ConnectionListener):  # type: ignore[misc]
    """What stomp.py tells, from its own thread."""

    heard: list[tuple[str, Any]] = field(factory=list)

    def on_connected(self, frame: Any) -> None:
        self.heard.append(("connected", frame.headers))

    def on_message(self, frame: Any) -> None:
        self.heard.append(("message", json.loads(frame.body) | {"id": frame.headers["subscription"]}))

    def on_receipt(self, frame: Any) -> None:
        self.heard.append(("receipt", frame.headers["receipt-id"]))

    def on_error(self, frame: Any) -> None:
        self.heard.append(("error", frame.headers["message"]))

    def on_disconnected(self) -> None:
        self.heard.append(("disconnected", None))

    def of(self, kind: str) -> list[Any]:
        return [value for each, value in self.heard if each == kind]


@asynccontextmanager
async def stomp_py(s: Stage) -> AsyncIterator[tuple[stomp.WSConnection, Listener]]:
    """A connection of stomp.py; its calls may wait, and belong into a thread."""
    host, _, port = s.daemon.http.removeprefix("http://").partition(":")
    connection = stomp.WSConnection([(host, int(port))], ws_path="/ws/websocket", heartbeats=(1000, 1000))
    listener = Listener()
    connection.set_listener("", listener)
    await trio.to_thread.run_sync(partial(connection.connect, "user", "secret", wait=True))
    try:
        yield connection, listener
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(connection.disconnect)


async def test_stomp_py_gets_the_state_and_every_trade() -> None:
    """Connected with heart-beats; two subscriptions, one of them given up; receipts for all of it."""
    async with stage() as s:
        await s.publish(("100.50", "0.5"), ("99.00", "1.25"))
        async with stomp_py(s) as (connection, listener):
            assert listener.of("connected")[0]["version"] == "1.2"
            assert listener.of("connected")[0]["heart-beat"] == "10000,10000"
            connection.subscribe(MARKET_DATA, id="1", receipt="r1")
            connection.subscribe("/topic/market-data/btcusdt", id="2", receipt="r2")
            await until(lambda: len(listener.of("message")) == 2)
            assert listener.of("message") == [FIRST | {"timestamp": "1700006400002", "id": i} for i in "12"]
            await s.publish(("101.125", "0.25"))
            await until(lambda: len(listener.of("message")) == 4)
            assert listener.of("message")[-1] == {
                **FIRST,
                "high": 101.125,
                "close": 101.125,
                "volume": "2",
                "timestamp": "1700006400003",
                "id": "2",
            }
            connection.unsubscribe("2", receipt="r3")
            await until(lambda: "r3" in listener.of("receipt"))
            await s.publish(("102", "1"))
            await until(lambda: len(listener.of("message")) == 5)
            assert listener.of("message")[-1]["id"] == "1"
            assert listener.of("receipt") == ["r1", "r2", "r3"]
        await settled(s)


async def test_stomp_py_signals_and_is_told_of_its_mistake() -> None:
    """A signal comes back to its sender; what is none is an error, and the end."""
    async with stage() as s, stomp_py(s) as (connection, listener):
        connection.subscribe("/topic/signaling", id="1", receipt="r1")
        connection.send("/app/signal", json.dumps(OFFER))
        await until(lambda: listener.of("message"))
        assert listener.of("message") == [OFFER | {"id": "1"}]
        connection.send("/app/signal", "nonsense")
        await until(lambda: listener.of("disconnected"))
        [told] = listener.of("error")
        assert "JSON object" in told
        await settled(s)


TRANSPORTS = [None, "websocket", "xhr-streaming", "xhr-polling"]


@asynccontextmanager
async def stompjs(s: Stage, transport: str | None) -> AsyncIterator[Program]:
    """@stomp/stompjs, connected: over a WebSocket, or by a transport of SockJS."""
    url = s.daemon.http + "/ws" if transport else s.daemon.http.replace("http", "ws") + "/ws/websocket"
    async with program("stomp.mjs", url, *([transport] if transport else [])) as running:
        assert (await running.hear())["connected"]["version"] == "1.2"
        yield running


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_stompjs_works_by_every_transport(transport: str | None) -> None:
    """State, trades, signals in order, the end of a subscription, and a farewell when the server goes."""
    async with stage() as s:
        await s.publish(("100.50", "0.5"), ("99.00", "1.25"))
        async with stompjs(s, transport) as one:
            await one.tell({"subscribe": MARKET_DATA, "id": "m"})
            heard = await one.hear_until(lambda event: "message" in event)
            assert heard[0] == {"receipt": "m"}
            assert heard[-1]["message"] == FIRST | {"timestamp": "1700006400002"}
            assert heard[-1]["headers"]["destination"] == MARKET_DATA
            for number in range(5):
                await s.publish((f"{101 + number}", "1"))
                assert (await one.hear())["message"]["close"] == 101 + number
            await one.tell({"unsubscribe": "m"})
            assert await one.hear() == {"receipt": "left"}
            await one.tell({"subscribe": "/topic/signaling/room", "id": "s"})
            assert await one.hear() == {"receipt": "s"}
            long = OFFER | {"sdp": "x" * 20_000}
            for signal in (OFFER, long, *(OFFER | {"sdp": str(number)} for number in range(20))):
                await one.tell({"publish": "/app/signal/room", "body": json.dumps(signal)})
            told = [(await one.hear())["message"] for _ in range(22)]
            assert told == [OFFER, long, *(OFFER | {"sdp": str(number)} for number in range(20))]
            await s.daemon.root.supervisor("gateway").restart("sessions")
            assert (await one.hear())["error"]["message"] == "server going away"
            closed = await one.hear()
            assert closed["closed"] == (3000 if transport else 1001)
        await settled(s)


async def test_stompjs_takes_its_leave() -> None:
    """DISCONNECT with a receipt, as the library does it; nothing is left."""
    async with stage() as s, stompjs(s, "xhr-streaming") as one:
        await one.tell({"subscribe": "/topic/signaling", "id": "s"})
        await one.hear()
        await one.tell({"deactivate": True})
        assert (await one.hear())["closed"] in (1000, 3000)
        await settled(s)
