"""The proxy passes everything on, and makes exactly the requested trouble, until it is withdrawn."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from simulators import Proxy, open_proxy
from simulators.connection import reset
from simulators.proxy import CHUNK, HELD
from tests.support.waiting import until_delivered

WAYS = pytest.mark.parametrize("way", ["up", "down"])


@define
class Ends:
    """Both ends of a connection through a proxy, in memory."""

    proxy: Proxy
    near: Any  # the client's
    far: Any  # the server's
    arrived: list[tuple[float, bytes]] = field(factory=list)

    def stream(self, way: str) -> tuple[Any, Any]:
        """The sender and the receiver of this direction."""
        return (self.near, self.far) if way == "up" else (self.far, self.near)

    async def collect(self, listener: Any) -> None:
        while data := await listener.receive_some(HELD):
            self.arrived.append((trio.current_time(), bytes(data)))

    @property
    def text(self) -> bytes:
        return b"".join(data for _at, data in self.arrived)


@asynccontextmanager
async def ends(seed: int = 0) -> AsyncIterator[Ends]:
    near, client_side = memory_stream_pair()
    server_side, far = memory_stream_pair()

    async def dial() -> Any:
        await trio.lowlevel.checkpoint()
        return server_side

    proxy = Proxy(dial, seed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.handle, client_side)
        await wait_all_tasks_blocked()
        yield Ends(proxy, near, far)
        nursery.cancel_scope.cancel()


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """Jumps when all tasks wait."""
    mock_clock.autojump_threshold = 0.0
    return mock_clock


class TestInMemory:
    @WAYS
    async def test_without_trouble_it_changes_nothing(self, way: str, clock: MockClock) -> None:
        """Every byte arrives at once, in order, and is counted."""
        data = os.urandom(300_000)
        async with ends() as e, trio.open_nursery() as nursery:
            speaker, listener = e.stream(way)
            nursery.start_soon(e.collect, listener)
            await speaker.send_all(data)
            await speaker.send_eof()
            await wait_all_tasks_blocked()
            assert e.text == data
            assert {at for at, _data in e.arrived} == {trio.current_time()}
            assert e.proxy.status()[way]["passed"] == len(data)
            assert e.proxy.status()["accepted"] == e.proxy.open == 1

    @WAYS
    async def test_latency_delays_one_way_and_can_be_withdrawn(self, way: Any, clock: MockClock) -> None:
        """Bytes come late; when the latency is withdrawn, waiting bytes come at once."""
        async with ends() as e, trio.open_nursery() as nursery:
            speaker, listener = e.stream(way)
            nursery.start_soon(e.collect, listener)
            e.proxy.delay(2.0, way=way)
            begin = trio.current_time()
            await speaker.send_all(b"late")
            await trio.sleep(3)
            assert e.text == b"late"
            assert e.arrived[0][0] - begin == pytest.approx(2.0)
            await speaker.send_all(b" freed")
            await trio.sleep(0.5)
            e.proxy.delay(0, way=way)
            await wait_all_tasks_blocked()
            assert e.text == b"late freed"
            await listener.send_all(b"back")
            assert await speaker.receive_some() == b"back"
            assert trio.current_time() - begin == pytest.approx(3.5)
            nursery.cancel_scope.cancel()

    async def test_latency_costs_no_throughput(self, clock: MockClock) -> None:
        """Ten writes in a row are delayed together, not one after the other."""
        async with ends() as e, trio.open_nursery() as nursery:
            nursery.start_soon(e.collect, e.far)
            e.proxy.delay(1.0)
            begin = trio.current_time()
            for _ in range(10):
                await e.near.send_all(b"x" * 100)
                await trio.sleep(0.05)
            await trio.sleep(1.0)
            assert len(e.text) == 1000
            assert e.arrived[-1][0] - begin == pytest.approx(1.45)
            nursery.cancel_scope.cancel()

    async def test_jitter_is_seeded_and_keeps_the_order(self, clock: MockClock) -> None:
        """A seed always gives the same delays, another seed gives others, and bytes keep their order."""

        async def delays(seed: int) -> list[float]:
            async with ends(seed) as e, trio.open_nursery() as nursery:
                nursery.start_soon(e.collect, e.far)
                e.proxy.delay(0.1, jitter=5.0)
                begin = trio.current_time()
                for n in range(20):
                    await e.near.send_all(bytes([n]))
                    await trio.sleep(0.3)
                await trio.sleep(10)
                assert e.text == bytes(range(20))
                nursery.cancel_scope.cancel()
            return [round(at - begin, 6) for at, data in e.arrived for _byte in data]

        first = await delays(1)
        assert first == await delays(1)
        assert first != await delays(2)
        assert len(set(first)) > 3
        assert all(0.1 <= at <= 0.3 * 19 + 5.1 for at in first)

    async def test_a_limit_is_exact_and_can_be_withdrawn(self, clock: MockClock) -> None:
        """1,000 bytes per second arrive; when the limit is withdrawn, the rest comes at once."""
        async with ends() as e, trio.open_nursery() as nursery:
            nursery.start_soon(e.collect, e.far)
            e.proxy.limit(1000)
            await e.near.send_all(b"x" * 10_000)
            await trio.sleep(3)
            assert len(e.text) == pytest.approx(3000, abs=60)
            e.proxy.limit(None)
            await wait_all_tasks_blocked()
            assert len(e.text) == 10_000
            nursery.cancel_scope.cancel()

    @WAYS
    async def test_half_open_stops_one_way_only(self, way: Any, clock: MockClock) -> None:
        """One way is silent, the other works, and both sockets stay open; after `release` nothing is missing."""
        async with ends() as e, trio.open_nursery() as nursery:
            speaker, listener = e.stream(way)
            nursery.start_soon(e.collect, listener)
            e.proxy.hold(way)
            await speaker.send_all(b"held")
            await trio.sleep(3600)
            assert (e.text, e.proxy.open) == (b"", 1)
            await listener.send_all(b"other way")
            assert await speaker.receive_some() == b"other way"
            e.proxy.release(way)
            await wait_all_tasks_blocked()
            assert e.text == b"held"
            nursery.cancel_scope.cancel()

    async def test_a_way_that_is_full_slows_the_sender_down(self, clock: MockClock) -> None:
        """Memory is bounded: the proxy reads `HELD` bytes and no more."""
        taken = 0

        class Endless(trio.abc.ReceiveStream):
            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                nonlocal taken
                await trio.lowlevel.checkpoint()
                taken += max_bytes or 0
                return b"x" * (max_bytes or 0)

            async def aclose(self) -> None:
                await trio.lowlevel.checkpoint()

        async def dial() -> Any:
            await trio.lowlevel.checkpoint()
            return memory_stream_pair()[0]

        proxy = Proxy(dial)
        proxy.hold("up")
        with trio.move_on_after(10):
            await proxy.handle(trio.StapledStream(memory_stream_pair()[0], Endless()))
        assert HELD <= taken < HELD + CHUNK

    async def test_corruption_is_seeded_and_counted(self, clock: MockClock) -> None:
        """The right number of chunks have one wrong byte each; the rest is intact; a seed repeats it."""

        async def heard(seed: int) -> list[bytes]:
            async with ends(seed) as e, trio.open_nursery() as nursery:
                nursery.start_soon(e.collect, e.far)
                e.proxy.corrupt(2, "up")
                for _ in range(4):
                    await e.near.send_all(b"0123456789")
                    await wait_all_tasks_blocked()
                assert e.proxy.up.corrupted == 2
                nursery.cancel_scope.cancel()
            return [data for _at, data in e.arrived]

        pieces = await heard(5)
        wrong = [sum(a != b for a, b in zip(piece, b"0123456789", strict=True)) for piece in pieces]
        assert wrong == [1, 1, 0, 0]
        assert await heard(5) == pieces
        assert await heard(6) != pieces

    async def test_an_end_is_passed_on_late(self, clock: MockClock) -> None:
        """The other side gets the end late; bytes are not delayed."""
        async with ends() as e, trio.open_nursery() as nursery:
            begin = trio.current_time()
            e.proxy.close_slowly(7.0)
            await e.near.send_all(b"bye")
            await e.near.send_eof()
            assert await e.far.receive_some() == b"bye"
            assert trio.current_time() == begin
            assert await e.far.receive_some() == b""
            assert trio.current_time() - begin == pytest.approx(7.0)
            await e.far.send_all(b"still here")
            assert await e.near.receive_some() == b"still here"
            nursery.cancel_scope.cancel()

    async def test_heal_withdraws_everything(self, clock: MockClock) -> None:
        """After it the proxy is like a new one."""
        async with ends() as e:
            untouched = e.proxy.status()
            e.proxy.delay(1, 1)
            e.proxy.limit(10)
            e.proxy.hold()
            e.proxy.corrupt(9)
            e.proxy.close_slowly(3)
            await e.proxy.refuse()
            assert e.proxy.status() != untouched
            await e.proxy.heal()
            assert e.proxy.status() == untouched

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("delay", [-1]),
            ("delay", [1, -1]),
            ("limit", [0]),
            ("corrupt", [-1]),
            ("close_slowly", [-1]),
            ("hold", ["in"]),
        ],
    )
    async def test_nonsense_is_refused_and_changes_nothing(self, name: str, arguments: list[Any]) -> None:
        """ValueError, and no setting changes."""
        async with ends() as e:
            before = e.proxy.status()
            with pytest.raises(ValueError, match=r"must be|is 'up'"):
                getattr(e.proxy, name)(*arguments)
            assert e.proxy.status() == before


@asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[str, int]]:
    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                while data := await stream.receive_some():
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        listeners: list[Any] = await nursery.start(trio.serve_tcp, echo, 0)
        yield "127.0.0.1", listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def echoed() -> AsyncIterator[Proxy]:
    async with echo_server() as (host, port), open_proxy(host, port) as proxy:
        yield proxy


async def said(stream: trio.SocketStream, text: bytes) -> bytes:
    await stream.send_all(text)
    answer = b""
    while len(answer) < len(text) and (data := await stream.receive_some()):
        answer += data
    return answer


class TestOnTheLoopback:
    async def test_many_connections_at_once(self) -> None:
        """Each gets its own bytes; at the end none is open."""
        async with echoed() as proxy:

            async def one(number: int) -> None:
                async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
                    text = bytes([number]) * 50_000
                    assert await said(stream, text) == text

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(one, number)
            while proxy.open:
                await trio.lowlevel.checkpoint()
            assert (proxy.accepted, proxy.up.passed, proxy.down.passed) == (20, 1_000_000, 1_000_000)

    async def test_cut_is_an_end_and_reset_is_an_error(self) -> None:
        """After `cut` a side reads an end, after `reset` an error; new connections work."""
        async with echoed() as proxy:
            async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
                assert await said(stream, b"hello") == b"hello"
                assert await proxy.cut() == 1
                assert await stream.receive_some() == b""
            async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
                assert await said(stream, b"again") == b"again"
                assert await proxy.reset() == 1
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            assert proxy.open == 0

    async def test_a_reset_of_the_server_reaches_the_client(self) -> None:
        """As a reset, because a FIN would look like a normal end."""

        async def slam(stream: trio.SocketStream) -> None:
            await stream.receive_some(1)
            await reset(stream)

        async with trio.open_nursery() as nursery:
            listeners: list[Any] = await nursery.start(trio.serve_tcp, slam, 0)
            port = listeners[0].socket.getsockname()[1]
            async with (
                open_proxy("127.0.0.1", port) as proxy,
                await trio.open_tcp_stream(proxy.host, proxy.port) as stream,
            ):
                await stream.send_all(b"x")
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            nursery.cancel_scope.cancel()

    async def test_refused_clients_are_refused_by_the_system_and_open_connections_stay(self) -> None:
        """An open connection works on; after `accept` the port is the same."""
        async with echoed() as proxy, await trio.open_tcp_stream(proxy.host, proxy.port) as inside:
            assert await said(inside, b"in") == b"in"
            await proxy.refuse()
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream(proxy.host, proxy.port)
            assert await said(inside, b"still in") == b"still in"
            await proxy.accept()
            async with await trio.open_tcp_stream(proxy.host, proxy.port) as late:
                assert await said(late, b"late") == b"late"

    async def test_a_missing_server_is_a_reset_and_counted(self) -> None:
        """The client does not wait for an answer."""
        with trio.socket.socket() as unused:
            await unused.bind(("127.0.0.1", 0))
            async with open_proxy("127.0.0.1", unused.getsockname()[1]) as proxy:
                with pytest.raises((OSError, trio.BrokenResourceError)):  # OSError: while it connects
                    async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
                        await stream.receive_some()
                assert (proxy.unreachable, proxy.accepted, proxy.open) == (1, 0, 0)

    async def test_it_leaves_nothing_behind(self) -> None:
        """It is stopped while it holds bytes, and closes both sides of every connection."""
        before = trio.lowlevel.current_statistics().tasks_living
        async with echo_server() as (host, port):
            async with open_proxy(host, port) as proxy:
                stream = await trio.open_tcp_stream(proxy.host, proxy.port)
                assert await said(stream, b"hello") == b"hello"
                proxy.hold()
                await stream.send_all(b"never heard")
                await until_delivered(stream.socket)  # what it had not read would make the end a reset
            async with stream:
                assert await stream.receive_some() == b""
        assert trio.lowlevel.current_statistics().tasks_living == before
