"""New connections are bounded: without a slot they wait in the kernel, and silence keeps a slot only so long."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio
from quart import websocket
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.dataflow.server.wires_client import connect, get, serving, websocket_app
from tests.support.waiting import until, until_deadline_within


async def test_silent_connections_hold_others_up_only_so_long(mock_clock: MockClock) -> None:
    """With every slot taken by clients that say nothing, the next waits for `handshake_seconds`, and is served."""
    served = list[bytes]()

    async def ask(port: int) -> None:
        served.append(await get(port))

    async with serving(websocket_app(_never), handshakes_at_once=2, handshake_seconds=3) as running:
        silent = [await connect(running.port) for _ in range(2)]
        await until(lambda: running.stats.accepted == 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, running.port)
            await wait_all_tasks_blocked()
            assert running.stats.accepted == 2
            mock_clock.jump(2.9)
            await wait_all_tasks_blocked()
            assert not served
            mock_clock.jump(0.2)
        assert served == [b"here"]
        assert running.stats.accepted == 3
        await silent[0].send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # they have lost their slot, not more
        assert (await silent[0].receive_some()).startswith(b"HTTP/1.1 200")
        for stream in silent:
            await stream.aclose()


async def test_served_clients_hold_no_slot() -> None:
    """Sessions, and clients that leave, however many, do not keep the next one waiting."""
    with trio.fail_after(120):
        async with serving(websocket_app(_stay), handshakes_at_once=1, handshake_seconds=1000) as running:
            for _ in range(3):
                await (await running.client()).say("hello")
                (await connect(running.port)).socket.close()
                assert await get(running.port) == b"here"


async def test_no_more_handshakes_at_once_than_allowed() -> None:
    """A handshake keeps its slot until the application, however slow, has answered."""
    go = trio.Event()

    async def dawdle() -> None:
        await go.wait()
        await websocket.accept()

    with trio.fail_after(120):
        async with serving(websocket_app(dawdle), handshakes_at_once=2, handshake_seconds=1000) as running:
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(running.client)
                await until(lambda: running.stats.accepted >= 2)
                assert running.stats.accepted == 2
                go.set()
            assert running.stats.accepted == 4


async def test_lack_of_descriptors_passes(monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock) -> None:
    """A process without descriptors reports it, turns nobody away, and does not spin."""
    accept, failures = socket.socket.accept, [errno.EMFILE] * 3

    def poor(self: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise OSError(failures.pop(), "too many open files")
        return accept(self)

    async with serving(websocket_app(_never), handshakes_at_once=1) as running:
        monkeypatch.setattr(socket.socket, "accept", poor)
        stream = await connect(running.port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for left in (2, 1, 0):
            await until(lambda left=left: len(failures) <= left)
            assert len(failures) == left
            await until_deadline_within(0.11)
            mock_clock.jump(0.11)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert len(running.reports) == 3
        await stream.aclose()


async def _never() -> None:
    raise AssertionError


async def _stay() -> None:
    while True:
        await websocket.receive()
