"""The connection to an upstream: every byte, in order, and no system call in vain."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dataflow.net import tcp
from dataflow.net.tcp import TcpStream
from tests.support.waiting import until


class Counting:
    """A socket that counts how often it was read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.reads = 0

    def recv(self, limit: int) -> bytes:
        self.reads += 1
        return self._sock.recv(limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            yield near, far


async def test_what_was_sent_is_read_to_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """Short reads and full ones, then the end, again and again."""
    near, far = pair
    stream = TcpStream(near)
    far.sendall(b"abcdefgh")
    far.shutdown(socket.SHUT_WR)
    got = b""
    while data := await stream.receive_some(3):
        assert len(data) <= 3
        got += data
    assert got == b"abcdefgh"
    assert await stream.receive_some(3) == b""
    await stream.aclose()


async def test_a_reader_who_took_all_waits_instead_of_trying(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """After the first, one system call a message; none of them in vain."""
    near, far = pair
    counting: Any = Counting(near)
    stream, got = TcpStream(counting), list[bytes]()

    async def read() -> None:
        while len(got) < 20:
            got.append(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        before = counting.reads
        for number in range(20):
            far.sendall(str(number).encode())
            await until(lambda number=number: len(got) > number)
    assert got == [str(number).encode() for number in range(20)]
    assert counting.reads - before == 20


async def test_a_cancelled_read_loses_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    """What comes behind the cancellation is there for the next reader."""
    near, far = pair
    stream = TcpStream(near)
    for _ in range(2):
        with trio.move_on_after(0):
            await stream.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    far.sendall(b"here")
    assert await stream.receive_some() == b"here"
    await stream.aclose()


async def test_more_than_the_peer_takes_is_sent_when_it_takes_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Every byte of a long send arrives, in order."""
    near, far = pair
    stream, other, sent = TcpStream(near), TcpStream(far), bytes(range(256)) * 40_000
    got = bytearray()

    async def read() -> None:
        while len(got) < len(sent):
            got.extend(await other.receive_some(100_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, sent)
        await wait_all_tasks_blocked()
        nursery.start_soon(read)
    assert got == sent
    await stream.wait_send_all_might_not_block()


async def test_closing_ends_the_wait_of_a_reader(pair: tuple[socket.socket, socket.socket]) -> None:
    """It gets ClosedResourceError; closing twice is harmless."""
    near, _ = pair
    stream = TcpStream(near)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await stream.aclose()
        await stream.aclose()


async def test_a_reset_is_a_broken_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    """Not the end of the stream: something may have been lost."""
    near, far = pair
    stream = TcpStream(near)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


async def test_connect_reaches_a_host_and_says_when_there_is_none() -> None:
    """By name as by address; nobody there is OSError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stream = await tcp.connect("localhost", port)
        far, _ = server.accept()
        with far:
            await stream.send_all(b"hello")
            assert far.recv(16) == b"hello"
            await stream.aclose()
    with socket.socket() as silent:  # bound, so that nobody else gets the port, and not listening
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="connect"):
            await tcp.connect("127.0.0.1", silent.getsockname()[1])
