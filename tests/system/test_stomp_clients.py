"""The clients that exist: stomp.py, @stomp/stompjs plain and over sockjs-client, a browser's page, and WebRTC peers."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aioice
import pytest
import stomp
import trio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp
from attrs import define, field

from dataflow.settings.schema import Gateway
from tests.support.browser import Heard, browse
from tests.support.node import Program, bundle, program
from tests.support.waiting import until
from tests.system.stomping import MARKET_DATA, Client, Stage, client, settled, stage

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
        await until(lambda: listener.of("connected"))  # the library tells it a moment later
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


# A page of another site, in a real browser.


async def test_a_page_of_an_invited_site_works_by_every_transport() -> None:
    """SockJS asks for credentials, so the answers must allow them; state, trade and signals come by each transport."""
    script = await trio.to_thread.run_sync(bundle, "stomp_page.mjs")
    site = "http://localhost:1"
    async with stage(gateway=Gateway(port=0, origins=(site,))) as s, client(s.daemon) as one:
        await s.publish(("100", "1"))
        await one.connect()
        await one.subscribe("0", "/topic/signaling/demo")

        def visit(page: Any, heard: Heard) -> tuple[list[Any], list[str]]:
            page.route(
                f"{site}/**", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html")
            )
            page.goto(f"{site}/")
            page.add_script_tag(content=script)
            meet = "([url, transport]) => window.meet(url, transport, 'demo')"
            met = [page.evaluate(meet, [s.daemon.http + "/ws", transport]) for transport in TRANSPORTS[1:]]
            return met, heard.complaints

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trade_on_go, s, one)
            met, complaints = await browse(visit, permissions=["local-network-access"])
            nursery.cancel_scope.cancel()
        for number, told in enumerate(met):
            assert told["version"] == "1.2"
            assert told["prices"] == [100 + number, 101 + number]
            assert [signal["type"] for signal in told["signals"]] == ["GO"] + ["ICE"] * 10
            assert [s["candidate"] for s in told["signals"][1:]] == [f"é {n}" for n in range(10)]
        assert complaints == []


async def trade_on_go(s: Stage, one: Client) -> None:
    """One trade for each GO in the room."""
    for number in itertools.count(1):
        await until(lambda n=number: len([m for m in one.of("MESSAGE") if m.json["type"] == "GO"]) == n)
        await s.publish((str(100 + number), "1"))


# Two real peers.


async def test_two_peers_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer, answer and every candidate go through the room; then the peers talk without us."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    async with stage() as s, stomp_py(s) as one, stomp_py(s) as two:
        signals = [Signals(*one, me="a"), Signals(*two, me="b")]
        for each in signals:
            each.connection.subscribe("/topic/signaling/call", id="1", receipt="r")
        await until(lambda: all(each.listener.of("receipt") for each in signals))
        heard = await trio.to_thread.run_sync(asyncio.run, call(*signals))
        assert heard == ["hello from a", "hello from b"]
        said = [signal["type"] for signal in one[1].of("message")]
        assert said[0] == "OFFER"
        assert set(said) == {"OFFER", "ANSWER", "ICE"}


@define
class Signals:
    """How one peer reaches the other. Candidates travel apart from the descriptions."""

    connection: stomp.WSConnection
    listener: Listener
    me: str
    read: int = 0

    async def describe(self, peer: RTCPeerConnection, kind: str) -> None:
        """Tell the local description, and then its candidates."""
        sdp = peer.localDescription.sdp
        found = re.findall(r"a=candidate:(.*)\r\n", sdp)
        assert found
        self.say(kind, sdp=re.sub(r"a=candidate:.*\r\n|a=end-of-candidates\r\n", "", sdp))
        for candidate in found:
            self.say("ICE", candidate=candidate)

    def say(self, kind: str, **more: str) -> None:
        body = {"type": kind, "senderId": self.me, **more}
        self.connection.send("/app/signal/call", json.dumps(body))

    async def follow(self, peer: RTCPeerConnection) -> None:
        """Do what the other peer says, until cancelled."""
        while True:
            signals = self.listener.of("message")
            for signal in signals[self.read :]:
                self.read += 1
                if signal["senderId"] != self.me:
                    await self._obey(peer, signal)
            await asyncio.sleep(0.01)

    async def _obey(self, peer: RTCPeerConnection, signal: dict[str, Any]) -> None:
        if signal["type"] == "ICE":
            candidate = candidate_from_sdp(signal["candidate"])
            candidate.sdpMid = "0"
            await peer.addIceCandidate(candidate)
            return
        await peer.setRemoteDescription(RTCSessionDescription(signal["sdp"], signal["type"].lower()))
        if signal["type"] == "OFFER":
            await peer.setLocalDescription(await peer.createAnswer())
            await self.describe(peer, "ANSWER")


async def call(one: Signals, two: Signals) -> list[str]:
    """One calls two; each says hello. What both heard, in alphabetical order."""
    nowhere = RTCConfiguration(iceServers=[])
    peers = RTCPeerConnection(nowhere), RTCPeerConnection(nowhere)
    heard: asyncio.Queue[str] = asyncio.Queue()
    channel = peers[0].createDataChannel("talk")
    channel.on("open", lambda: channel.send("hello from a"))
    channel.on("message", heard.put_nowait)

    @peers[1].on("datachannel")  # type: ignore[untyped-decorator]
    def opened(theirs: Any) -> None:
        theirs.on("message", heard.put_nowait)
        theirs.send("hello from b")

    followers = [asyncio.create_task(s.follow(p)) for s, p in zip((one, two), peers, strict=True)]
    await peers[0].setLocalDescription(await peers[0].createOffer())
    await one.describe(peers[0], "OFFER")
    try:
        return sorted([await asyncio.wait_for(heard.get(), 60) for _ in range(2)])
    finally:
        for follower in followers:
            follower.cancel()
        for peer in peers:
            await peer.close()
