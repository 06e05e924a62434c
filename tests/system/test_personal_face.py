"""A probe of the cut: a face where each message carries the client's own id, and many clients still share the bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from actors.outbox import SlowClient
from dataflow import app
from dataflow.domain import Gap, Topic, Trade
from dataflow.gateway import face
from dataflow.gateway.answers import Position
from dataflow.gateway.face import Conversation, Entrance
from dataflow.gateway.format import Format
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import Problem
from dataflow.server.handshake import Handshake, Socket
from dataflow.settings.schema import Session, Settings
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, how_it_ended
from tests.system.test_sse import SYMBOL, TOPIC, Stage, stage

PROTOCOL = "operations.v1"


class Bodies(Format):
    """A trade as "offset price", a gap as "from..to"; counts the entries that were encoded."""

    name = "bodies"

    def __init__(self) -> None:
        self.encoded = 0

    def item(self, topic: Topic, epoch: int, offset: int, value: Trade) -> bytes:
        self.encoded += 1
        return f'"{offset} {value.price:.2f}"'.encode()

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        return f'"{gap.first}..{gap.last}"'.encode()


BODIES = Bodies()


class Operations(Conversation):
    """One client: "subscribe ID [SINCE]" begins an operation, and all its messages carry the id."""

    __slots__ = ("_client",)

    format = BODIES

    def __init__(self, session: Any, hall: Hall, client: Handshake) -> None:
        super().__init__(session, hall)
        self._client = client

    async def answer(self, text: str) -> None:
        _, id_, *since = text.split()
        kind = self.personal((f'{{"id":"{id_}","from":"{self._client.query}","payload":'.encode(), b"}"))
        topic = self.hall.desk.topic("trades", SYMBOL)
        position = Position(self.hall.core.epoch, int(since[0])) if since else None
        joined = await self.subscriptions.subscribe(topic, kind, since=position)
        for body in (f'"subscribed {joined.offset}"'.encode(), *(joined.past.texts if joined.past else ())):
            ((head, tail),) = kind.heads
            self.session.say(head + body + tail)

    def refusal(self, problem: Problem) -> bytes:
        return str(problem).encode()


class Face(face.Face):
    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        def converse(session: Any, client: Handshake) -> Operations:
            return Operations(session, hall, client)

        return (Entrance(Socket("/operations", (PROTOCOL,)), converse),)


@pytest.fixture(autouse=True)
def _plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the faces of the daemon, as if it were a file among theirs."""
    others = app.faces
    monkeypatch.setattr(app, "faces", lambda settings: [*others(settings), Face(None)])


@define
class Operator:
    """A client of the face."""

    socket: WebSocketConnection
    heard: list[Any] = field(factory=list)
    closed: int | None = None

    async def listen(self) -> None:
        try:
            while True:
                self.heard.append(json.loads(await self.socket.get_message()))
        except ConnectionClosed as error:
            self.closed, _ = how_it_ended(error)

    @property
    def payloads(self) -> list[str]:
        return [
            message["payload"] for message in self.heard if not message["payload"].startswith("subscribed")
        ]


@asynccontextmanager
async def operator(d: Daemon, query: str = "") -> AsyncIterator[Operator]:
    host, _, port = d.http.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(
            nursery, stream, f"{host}:{port}", f"/operations?{query}", subprotocols=[PROTOCOL]
        )
        assert socket.subprotocol == PROTOCOL
        made = Operator(socket)
        nursery.start_soon(made.listen)
        yield made
        nursery.cancel_scope.cancel()


async def listened(s: Stage, count: int) -> None:
    await until(lambda: s.daemon.core.topics.subscribers.get(TOPIC, 0) == count)


async def test_each_client_has_its_own_head_and_all_share_the_bodies() -> None:
    """Three clients and one of another protocol on a topic: an entry is encoded once a format, framed once a client."""
    async with (
        stage() as s,
        operator(s.daemon, "one") as one,
        operator(s.daemon, "two") as two,
        client(s.daemon.url) as rpc,
    ):
        await one.socket.send_message("subscribe a")
        await two.socket.send_message("subscribe b")
        await rpc.call("subscribe", symbol=SYMBOL)
        await until(lambda: one.heard and two.heard)
        await listened(s, 3)
        before = BODIES.encoded
        await s.publish(20)
        await until(lambda: len(one.payloads) == len(two.payloads) == len(rpc.trades()) == 20)
        assert BODIES.encoded == before + 20
        assert one.payloads == two.payloads == [f"{n} 2.50" for n in range(1, 21)]
        assert {(m["id"], m["from"]) for m in one.heard} == {("a", "one")}
        assert {(m["id"], m["from"]) for m in two.heard} == {("b", "two")}


async def test_past_and_live_meet_without_a_hole() -> None:
    """The one hard algorithm is not the face's: however it resumes, each place comes once, in order."""
    async with stage() as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.publish, 300)
        await until(lambda: s.daemon.core.history(SYMBOL).last >= 20)
        for start in (0, 7, 15):
            async with operator(s.daemon) as one:
                await one.socket.send_message(f"subscribe x {start}")
                await until(lambda one=one: len(one.payloads) >= 100)
                offsets = [int(payload.split()[0]) for payload in one.payloads]
                assert offsets == list(range(start + 1, start + 1 + len(offsets)))


async def test_a_slow_client_gets_its_gap_under_its_own_head() -> None:
    """Its losses are announced in the face's own words; another client of the kind gets everything."""
    settings = Session(outbox=20, slow_client=SlowClient.DROP_OLDEST)
    async with stage(session=settings) as s, operator(s.daemon) as quick:
        await quick.socket.send_message("subscribe quick")
        await listened(s, 1)
        host, _, port = s.daemon.http.removeprefix("http://").partition(":")
        raw = trio.socket.socket()
        raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        await raw.connect((host, int(port)))
        async with trio.SocketStream(raw) as stream, trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, host, "/operations", subprotocols=[PROTOCOL])
            await socket.send_message("subscribe slow")
            await listened(s, 2)
            slow = list(s.daemon.lobby.clients)[-1]
            # Else the kernel takes megabytes, a message of fifty bytes at a time, before anything waits here.
            slow._wire._sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
            # It reads nothing but what the kernel takes: trio-websocket's reader stops at one message.
            while not slow.dropped:
                await s.publish(100)
                await until(lambda: len(quick.payloads) == s.published)
            deaf = Operator(socket)
            nursery.start_soon(deaf.listen)
            await until(lambda: slow.waiting == 0)
            await s.publish(1)
            await until(lambda: deaf.payloads and deaf.payloads[-1] == f"{s.published} 2.50")
            await until(lambda: len(quick.payloads) == s.published)
            nursery.cancel_scope.cancel()
    assert {message["id"] for message in deaf.heard} == {"slow"}
    place = 0
    for payload in deaf.payloads:
        first, _, last = payload.split()[0].partition("..")
        assert int(first) == place + 1
        place = int(last or first)
    assert place == s.published
    assert any(".." in payload for payload in deaf.payloads)
    assert quick.payloads == [f"{n} 2.50" for n in range(1, s.published + 1)]


async def test_a_protocol_without_a_word_for_a_notice_says_nothing() -> None:
    """An outage is told to clients of other protocols; here the stream just goes on."""
    async with stage() as s, operator(s.daemon) as one, client(s.daemon.url) as rpc:
        await one.socket.send_message("subscribe a")
        await listened(s, 1)
        await s.exchange.disconnect("graceful")
        await rpc.until(lambda: rpc.of("connection.restored"))
        await s.publish(1)
        await until(lambda: one.payloads)
        assert one.payloads == ["1 2.50"]
        await s.daemon.root.supervisor("gateway").restart("sessions")
        await until(lambda: one.closed)
        assert one.closed == 1001


def test_the_daemons_own_faces_are_found_by_their_files() -> None:
    """Each file or folder is one, and each can be switched off."""
    found = {type(face).__module__.rpartition(".")[2] for face in app.faces(Settings())[:-1]}
    assert found >= {"admin", "jsonrpc", "page", "sse"}
