"""The server survives every client, ends when it is told, and negotiates nothing costly."""

from __future__ import annotations

import logging
from typing import Any

import h11
import pytest
import trio
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.ws_stream import WSStream
from quart import websocket
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from dataflow.server import connection as server_connection
from dataflow.server import hypercorn as seam
from dataflow.server.serve import ServerSeamError, serve
from tests.dataflow.server.wires_client import (
    Client,
    connect,
    get,
    read_head,
    read_to_end,
    serving,
    upgrade_request,
    websocket_app,
)
from tests.support.waiting import until_deadline_within

logging.getLogger("quart").setLevel(logging.CRITICAL)


async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


def masked(text: str) -> bytes:
    return bytes(Connection(ConnectionType.CLIENT).send(TextMessage(data=text)))


async def test_frame_in_the_packet_of_the_handshake_is_answered_and_hurts_nobody() -> None:
    """Defect 1: a client that does not wait for the 101 is served, and the server goes on."""
    with trio.fail_after(120):
        async with serving(websocket_app(echo)) as running:
            for _ in range(5):
                client = await running.client(early=masked("hello"))
                assert await client.text() == "hello"
                await client.say("again")
                assert await client.text() == "again"
                client.vanish()
            assert await get(running.port) == b"here"


async def test_frame_before_a_refusal_hurts_nobody() -> None:
    """Defect 1, the other branch: early bytes to a path that does not exist get its 404."""
    with trio.fail_after(120):
        async with serving(websocket_app(echo)) as running:
            async with await connect(running.port) as stream:
                await stream.send_all(upgrade_request("/nowhere") + masked("hello"))
                head, _ = await read_head(stream)
            assert head.startswith(b"HTTP/1.1 404")
            assert await get(running.port) == b"here"


async def test_malformed_chunks_hurt_nobody() -> None:
    """Defect 1, by HTTP: a body that breaks the rules ends its own connection only, each time."""
    with trio.fail_after(120):
        async with serving(websocket_app(echo)) as running:
            for _ in range(20):
                async with await connect(running.port) as stream:
                    await stream.send_all(
                        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"
                    )
                    await read_to_end(stream)
            assert await get(running.port) == b"here"


async def test_errors_of_a_connection_are_counted_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception from Hypercorn's protocols is counted by its name, handed to the report, and contained."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    with trio.fail_after(120):
        async with serving(websocket_app(echo)) as running:
            with monkeypatch.context() as patch:
                patch.setattr(ProtocolWrapper, "handle", fail)
                async with await connect(running.port) as stream:
                    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                    assert await read_to_end(stream) == b""
            assert running.stats.faults["ZeroDivisionError"] >= 1
            assert any(isinstance(error, ZeroDivisionError) for error in running.reports)
            assert await get(running.port) == b"here"


async def send_without_end() -> None:
    while True:
        await websocket.send("x" * 65536)


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
async def test_stalled_client_delays_the_end_by_no_more_than_the_bound(
    how: str, mock_clock: MockClock
) -> None:
    """Defect 2: a client that takes nothing holds a stopping server for `send_seconds`, and not longer."""
    async with serving(websocket_app(send_without_end), graceful_seconds=1, send_seconds=5) as running:
        client = await running.client(receive_buffer=4096)
        await until_deadline_within(5)
        if how == "shutdown":
            running.shutdown.set()
        else:
            running.stop()
        await wait_all_tasks_blocked()
        assert not running.ended.is_set()
        mock_clock.jump(5.1)
        await running.ended.wait()
        client.vanish()
    assert running.stats.faults["StalledError"] == 1


async def test_handler_that_cannot_be_told_is_cancelled_after_its_peer_left(mock_clock: MockClock) -> None:
    """A handler that sends and never reads fills the queues that would tell it: it has `send_seconds` more."""
    go, left = trio.Event(), trio.Event()

    async def only_send() -> None:
        try:
            await websocket.accept()
            await go.wait()
            while True:
                await websocket.send("x")
        finally:
            left.set()

    async with serving(websocket_app(only_send), send_seconds=5) as running:
        client = await running.client()
        for number in range(50):  # more than the queues on the way to the handler hold
            await client.say(str(number))
            await wait_all_tasks_blocked()
        client.vanish()
        go.set()
        await until_deadline_within(5)
        assert not left.is_set()
        mock_clock.jump(5.1)
        await left.wait()


async def test_application_that_ignores_its_peers_leaving_is_cancelled(mock_clock: MockClock) -> None:
    """An application that still runs for an ended connection has `send_seconds`, and no more."""
    entered, left = trio.Event(), trio.Event()

    async def ignore(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    async with serving(ignore, send_seconds=5) as running:
        async with await connect(running.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await entered.wait()
        await until_deadline_within(5)
        mock_clock.jump(4.9)
        await wait_all_tasks_blocked()
        assert not left.is_set()
        mock_clock.jump(0.2)
        await left.wait()


async def test_client_that_ignores_a_1009_is_cut_off(mock_clock: MockClock) -> None:
    """A client that does not answer the close frame is disconnected after `send_seconds`."""
    async with serving(websocket_app(echo), max_message_bytes=1000, send_seconds=5) as running:
        client = await running.client()
        await client.send(TextMessage(data="x" * 2000, message_finished=False))
        close = await client.event()
        assert isinstance(close, CloseConnection)
        assert close.code == 1009
        await until_deadline_within(5)
        mock_clock.jump(5.1)
        assert await client.event() is None


async def test_send_after_the_peer_left_lets_the_loop_turn() -> None:
    """Defect 3: a handler that only sends does not freeze the process when its client has gone."""
    beats, froze, left = 0, False, trio.Event()

    async def heartbeat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await trio.lowlevel.checkpoint()

    async def only_send() -> None:
        nonlocal froze
        try:
            await websocket.send("hello")
            seen, sends = beats, 0
            while not froze:
                await websocket.send("x")
                sends = sends + 1 if seen == beats else 0
                seen = beats
                froze = sends > 1000
        finally:
            left.set()

    with trio.fail_after(120):
        async with serving(websocket_app(only_send)) as running, trio.open_nursery() as nursery:
            nursery.start_soon(heartbeat)
            client = await running.client()
            assert await client.text() == "hello"
            client.vanish()
            await left.wait()
            nursery.cancel_scope.cancel()
    assert not froze


async def test_handler_failure_after_accept_closes_with_1011() -> None:
    """Defect 4: a client can tell our failure from an orderly end, and the failure is reported."""

    async def fail() -> None:
        await websocket.accept()
        raise ZeroDivisionError

    with trio.fail_after(120):
        async with serving(websocket_app(fail)) as running:
            client = await running.client()
            close = await client.closed()
            assert (close.code, close.reason) == (1011, "internal error")
            assert running.stats.faults == {"ZeroDivisionError": 1}
            assert len(running.reports) == 1


async def test_handler_that_returns_closes_with_1000() -> None:
    """An orderly end stays one: only failures are 1011."""

    async def finish() -> None:
        await websocket.accept()

    with trio.fail_after(120):
        async with serving(websocket_app(finish)) as running:
            assert (await (await running.client()).closed()).code == 1000
            assert not running.stats.faults


async def test_deflate_is_not_negotiated() -> None:
    """Defect 5: a client that offers compression, as browsers do, gets none, and is served."""
    with trio.fail_after(120):
        async with serving(websocket_app(echo)) as running, await connect(running.port) as stream:
            offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
            await stream.send_all(upgrade_request("/ws", offer))
            head, rest = await read_head(stream)
            assert head.startswith(b"HTTP/1.1 101")
            assert b"sec-websocket-extensions" not in head.lower()
            client = Client(stream, rest)
            await client.say("hello " * 100)
            assert await client.text() == "hello " * 100


async def test_endless_message_is_not_collected() -> None:
    """A message that is too long gets 1009 and its memory is given back while its bytes still come."""
    seats: list[server_connection.Seat] = []

    async def listen() -> None:
        seats.append(websocket.scope["state"][server_connection.SEAT])
        await websocket.receive()

    with trio.fail_after(120):
        async with serving(websocket_app(listen), max_message_bytes=1000) as running:
            client = await running.client()
            for _ in range(50):
                await client.send(TextMessage(data="x" * 10000, message_finished=False))
                joined = seats[0].frames._reader._joined
                assert joined is None or len(joined) <= 2 * server_connection.RECEIVE_BYTES
            assert (await client.closed()).code == 1009


class _Steps(trio.abc.Instrument):
    """Counts events in each step of a task: `most` of them came in one."""

    def __init__(self) -> None:
        self.most = self.total = self._now = 0

    def event(self) -> None:
        self._now += 1
        self.total += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most, self._now = max(self.most, self._now), 0


async def test_chunks_of_a_byte_leave_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants the body any more: its chunks are not read in one turn of the loop, and the connection ends."""
    steps, next_event = _Steps(), h11.Connection.next_event

    def counted(connection: h11.Connection) -> Any:
        event = next_event(connection)
        if isinstance(event, h11.Data):
            steps.event()
        return event

    monkeypatch.setattr(h11.Connection, "next_event", counted)
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    trio.lowlevel.add_instrument(steps)
    try:
        with trio.fail_after(120):
            async with serving(websocket_app(echo)) as running, await connect(running.port) as stream:
                await stream.send_all(head + b"1\r\nx\r\n" * 2000)
                answer, _ = await read_head(stream)
                assert answer.startswith(b"HTTP/1.1 404")
                await read_to_end(stream)
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert steps.total > 2
    assert steps.most <= 2


async def test_connection_is_kept_for_the_next_request() -> None:
    """HTTP/1.1 keep-alive: two requests on one connection."""
    with trio.fail_after(120):
        async with serving(websocket_app(echo)) as running, await connect(running.port) as stream:
            for _ in range(2):
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                head, body = await read_head(stream)
                assert head.startswith(b"HTTP/1.1 200")
                while body != b"here":
                    body += await stream.receive_some()
            assert running.stats.accepted == 1


async def test_idle_connection_is_closed_in_time(mock_clock: MockClock) -> None:
    """A connection without a request is closed after `keep_alive_seconds`, not before."""
    async with (
        serving(websocket_app(echo), keep_alive_seconds=30) as running,
        await connect(running.port) as stream,
    ):
        for seconds in (29, 31):
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            head, body = await read_head(stream)
            assert head.startswith(b"HTTP/1.1 200")
            while body != b"here":
                body += await stream.receive_some()
            await until_deadline_within(30)
            mock_clock.jump(seconds)
            await wait_all_tasks_blocked()
        await read_to_end(stream)


async def test_shutdown_lets_a_request_finish_and_ends_idle_connections() -> None:
    """Asked to stop, the server finishes its requests, drops idle connections, and returns."""
    entered, proceed = trio.Event(), trio.Event()
    app = QuartTrio(__name__)

    @app.route("/slow")
    async def slow() -> str:
        entered.set()
        await proceed.wait()
        return "done"

    bodies = []

    async def ask() -> None:
        bodies.append(await get(running.port, "/slow"))

    with trio.fail_after(120):
        async with (
            serving(app) as running,
            await connect(running.port) as idle,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(ask)
            await entered.wait()
            running.shutdown.set()
            assert await idle.receive_some() == b""
            assert not running.ended.is_set()
            proceed.set()
            await running.ended.wait()
    assert bodies == [b"done"]


async def test_request_that_hangs_is_cut_after_the_grace(mock_clock: MockClock) -> None:
    """A request that does not finish holds a stopping server for `graceful_seconds`, and not longer."""
    entered = trio.Event()
    app = QuartTrio(__name__)

    @app.route("/")
    async def hang() -> str:
        entered.set()
        await trio.sleep_forever()
        return ""

    async with serving(app, graceful_seconds=7) as running, await connect(running.port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await entered.wait()
        running.shutdown.set()
        await until_deadline_within(7)
        mock_clock.jump(6.9)
        await wait_all_tasks_blocked()
        assert not running.ended.is_set()
        mock_clock.jump(0.2)
        await running.ended.wait()


async def test_address_is_reported_and_taken_once() -> None:
    """The server reports its bound address; a second server on it is refused with OSError."""
    with trio.fail_after(120):
        async with serving(websocket_app(echo)) as running:
            assert running.address == f"http://127.0.0.1:{running.port}"
            with pytest.raises(OSError, match="in use"):
                await serve(websocket_app(echo), host="127.0.0.1", port=running.port)


async def test_another_hypercorn_is_refused_with_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an unknown Hypercorn nothing is served, and the error names every difference."""
    monkeypatch.setattr(seam, "HYPERCORN", "0.0.1")
    monkeypatch.delattr(WSStream, "app_send")
    with pytest.raises(ServerSeamError, match=r"0\.0\.1 is needed: version .* installed; WSStream.app_send"):
        await serve(websocket_app(echo), host="127.0.0.1", port=0)
