"""Promises of net.stream: every byte, in order, and no system call in vain."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.net.stream import SocketStream, connect
from dataflow.net.tls import CROSSED_SECONDS, server_context
from tests.support.certificates import Certificate
from tests.support.crossing import Crossed
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


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            yield near, far


async def test_what_was_sent_is_read_to_the_end(pair: Pair) -> None:
    """Short reads and full ones, then the end, again and again."""
    near, far = pair
    stream = SocketStream(near)
    far.sendall(b"abcdefgh")
    far.shutdown(socket.SHUT_WR)
    got = b""
    while data := await stream.receive_some(3):
        assert len(data) <= 3
        got += data
    assert got == b"abcdefgh"
    assert await stream.receive_some(3) == b""
    stream.close()


async def test_a_reader_that_took_everything_waits_instead_of_trying(pair: Pair) -> None:
    """After the first, one system call a message; none of them in vain."""
    near, far = pair
    counting: Any = Counting(near)
    stream, got = SocketStream(counting), list[bytes]()

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


async def test_a_cancelled_read_loses_nothing(pair: Pair) -> None:
    """The next reader gets what comes after the cancellation."""
    near, far = pair
    stream = SocketStream(near)
    for _ in range(2):
        with trio.move_on_after(0):
            await stream.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    far.sendall(b"here")
    assert await stream.receive_some() == b"here"
    stream.close()


async def test_more_than_the_peer_takes_is_sent_when_it_takes_it(pair: Pair) -> None:
    """Every byte of a long send arrives, in order."""
    near, far = pair
    stream, other, sent = SocketStream(near), SocketStream(far), bytes(range(256)) * 40_000
    got = bytearray()

    async def read() -> None:
        while len(got) < len(sent):
            got.extend(await other.receive_some(100_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, sent)
        await wait_all_tasks_blocked()
        nursery.start_soon(read)
    assert got == sent


async def test_a_send_that_was_cut_off_is_the_last_one(pair: Pair) -> None:
    """The peer could not tell the half of one message from the beginning of the next."""
    near, _ = pair
    stream = SocketStream(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(10_000_000))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.BrokenResourceError, match="cut off"):
        await stream.send_all(b"other")


async def test_a_send_that_was_cancelled_before_it_began_cut_nothing_off(pair: Pair) -> None:
    """The stream is as fit as before."""
    near, far = pair
    stream = SocketStream(near)
    with trio.move_on_after(0):
        await stream.send_all(b"never sent")
    await stream.send_all(b"hello")
    assert far.recv(16) == b"hello"


async def test_closing_ends_the_wait_of_a_reader(pair: Pair) -> None:
    """It gets ClosedResourceError; closing twice is harmless."""
    near, _ = pair
    stream = SocketStream(near)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        stream.close()
        stream.close()


async def test_a_closed_stream_is_a_broken_connection(pair: Pair) -> None:
    """Also for a reader that would wait, since it had taken everything."""
    near, far = pair
    stream = SocketStream(near)
    far.sendall(b"x")
    assert await stream.receive_some() == b"x"
    stream.close()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


async def test_a_reset_is_a_broken_connection(pair: Pair) -> None:
    """It is not the end of the stream: something may have been lost."""
    near, far = pair
    stream = SocketStream(near)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


async def test_a_crossed_socket_is_asked_again_and_not_without_pause(
    pair: Pair, autojump_clock: MockClock
) -> None:
    """The stream goes on once the crossing is over, and sleeps meanwhile instead of spinning."""
    near, far = pair
    far.sendall(b"x")

    async def receive(stream: SocketStream) -> None:
        assert await stream.receive_some(10) == b"x"

    async def send(stream: SocketStream) -> None:
        await stream.send_all(b"y")

    for use in (receive, send):
        crossed: Any = Crossed(near, 3)
        start = trio.current_time()
        await use(SocketStream(crossed))
        assert crossed.asked == 4
        assert trio.current_time() - start == pytest.approx(3 * CROSSED_SECONDS)
    assert far.recv(10) == b"y"


async def test_connect_reaches_a_host_and_says_when_there_is_none() -> None:
    """By name and by address. Without a listener: OSError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stream = await connect("localhost", port)
        far, _ = server.accept()
        with far:
            assert not stream.is_encrypted
            await stream.send_all(b"hello")
            assert far.recv(16) == b"hello"
            stream.close()
    with socket.socket() as silent:  # bound, so that nobody else gets the port, and not listening
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="connect"):
            await connect("127.0.0.1", silent.getsockname()[1])


async def test_both_ends_of_tls_speak_with_each_other(certificate: Certificate) -> None:
    """A client that connects with a context, and a server's stream that encrypts; they agree on a protocol."""
    serving, agreed = server_context(), list[str | None]()
    serving.load_cert_chain(certificate.certificate, certificate.key)
    sent = bytes(range(256)) * 10_000

    async def serve(server: socket.socket) -> None:
        await trio.lowlevel.wait_readable(server)
        stream = SocketStream(server.accept()[0])
        agreed.append(await stream.encrypt(serving))
        assert stream.is_encrypted
        got = b""
        while len(got) < len(sent):
            got += await stream.receive_some()
        await stream.send_all(got)
        stream.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, server)
            port, context = server.getsockname()[1], certificate.client_context("http/1.1")
            stream = await connect("127.0.0.1", port, context, "localhost")
            assert stream.is_encrypted
            nursery.start_soon(stream.send_all, sent)
            got = b""
            while more := await stream.receive_some():
                got += more
            assert got == sent
            stream.close()
    assert agreed == ["http/1.1"]


async def test_connect_leaves_no_socket_behind_when_there_is_no_tls() -> None:
    """BrokenResourceError with the reason; the peer sees the connection closed."""

    async def answer(server: socket.socket) -> None:
        await trio.lowlevel.wait_readable(server)
        far = SocketStream(server.accept()[0])
        await far.receive_some()
        await far.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while await far.receive_some():
            pass
        far.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, server)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await connect("127.0.0.1", server.getsockname()[1], ssl.create_default_context())
            assert isinstance(caught.value.__cause__, ssl.SSLError)
