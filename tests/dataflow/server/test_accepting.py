"""Every connection is accepted at once; those without a request have a clock, and go first when room is needed."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow.server.accepting import GRACE, NO_ROOM, SAME_ADDRESS, Doorway, WaitingRoom
from dataflow.server.connection import HEAD_SECONDS
from dataflow.server.handshake import Handshake, Socket
from dataflow.server.serve import NoRoomError
from dataflow.server.socket_wire import SocketWire
from tests.dataflow.server.wires_client import connect, get, read_head, read_to_end, serving, websocket_app
from tests.support.descriptors import free_descriptors
from tests.support.waiting import until, until_deadline_within

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_silent_connections_keep_nobody_out(mock_clock: MockClock) -> None:
    """However many connections say nothing, the next client is served at once: the clock stands still."""
    async with serving(websocket_app(_never), is_exempt=_everybody) as running:
        silent = [await connect(running.port) for _ in range(300)]
        assert await get(running.port) == b"here"
        await silent[0].send_all(REQUEST)
        assert (await silent[0].receive_some()).startswith(b"HTTP/1.1 200")
        for stream in silent:
            stream.socket.close()


async def test_first_head_has_to_come_in_time(mock_clock: MockClock) -> None:
    """After five seconds a silent client is let go without a word, and half a head is told 408; not before."""
    async with serving(websocket_app(_never)) as running:
        silent, slow = await connect(running.port), await connect(running.port)
        await slow.send_all(b"GET / HTTP/1.1\r\nHo")
        await until(lambda: running.stats.accepted == 2)
        await until_deadline_within(HEAD_SECONDS)
        mock_clock.jump(HEAD_SECONDS - 0.1)
        await wait_all_tasks_blocked()
        await slow.send_all(b"st: x\r\n")  # progress is no head
        assert await get(running.port) == b"here"
        mock_clock.jump(0.2)
        assert await _end_of(silent) == b""
        assert (await _end_of(slow)).startswith(b"HTTP/1.1 408")


async def test_head_in_pieces_is_served(mock_clock: MockClock) -> None:
    """A head that comes byte by byte within its time is as good as any other."""
    async with serving(websocket_app(_never)) as running, await connect(running.port) as stream:
        for each in range(len(REQUEST)):
            await stream.send_all(REQUEST[each : each + 1])
            await wait_all_tasks_blocked()
        assert (await read_head(stream))[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"\x00", b"NO \x01 REQUEST\r\n\r\n"])
async def test_garbage_is_refused_at_once(garbage: bytes, mock_clock: MockClock) -> None:
    """What can never be a head does not wait for its end."""
    async with serving(websocket_app(_never)) as running, await connect(running.port) as stream:
        await stream.send_all(garbage)
        assert (await read_head(stream))[0].startswith(b"HTTP/1.1 400")


async def test_address_with_too_many_waiting_loses_its_own_oldest() -> None:
    """One address fills its own share only, and a connection with a request is never dismissed."""
    with trio.fail_after(120):
        async with serving(_slow_app(go := trio.Event()), waiting_per_address=lambda: 2) as running:
            busy = await connect(running.port)
            await busy.send_all(REQUEST)
            await until(lambda: go.statistics().tasks_waiting == 1)
            first, *others = [await connect(running.port) for _ in range(3)]
            assert await _end_of(first) == b""
            elsewhere = await _connect_from("127.0.0.2", running.port)
            go.set()
            for stream in (*others, elsewhere):
                await stream.send_all(REQUEST)
            for stream in (busy, *others, elsewhere):
                assert (await read_head(stream))[0].startswith(b"HTTP/1.1 200")
                await stream.aclose()


async def test_longest_waiting_goes_when_room_is_needed() -> None:
    """Beyond `most` connections a newcomer takes the place of the connection without a request that waits longest."""
    with trio.fail_after(120):
        async with serving(websocket_app(_never), most=2) as running:
            served = await connect(running.port)
            await served.send_all(REQUEST)
            await _read_answer(served)  # its request is over: from here on it waits, like a new one
            silent = await connect(running.port)
            assert await get(running.port) == b"here"
            assert await _end_of(served) == b""
            await silent.send_all(REQUEST)
            assert (await read_head(silent))[0].startswith(b"HTTP/1.1 200")
            await silent.aclose()


async def test_without_any_room_a_newcomer_is_sent_away() -> None:
    """When every connection has a request, a newcomer is told so at once, and that is counted and reported."""
    with trio.fail_after(120):
        async with serving(_slow_app(go := trio.Event()), most=2) as running:
            busy = [await connect(running.port) for _ in range(2)]
            for count, stream in enumerate(busy, 1):
                await stream.send_all(REQUEST)
                await until(lambda count=count: go.statistics().tasks_waiting == count)
            answer = await _end_of(await connect(running.port))
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"Retry-After" in answer
            assert running.stats.sent_away == 1
            assert [type(each) for each in running.reports] == [NoRoomError]
            go.set()
            for stream in busy:
                assert (await read_head(stream))[0].startswith(b"HTTP/1.1 200")
                await stream.aclose()


async def test_descriptors_above_the_ceiling_are_for_others() -> None:
    """A client whose descriptor is too high is as good as one too many; an exempt one has a few more."""
    with trio.fail_after(120), free_descriptors() as lowest:
        ceiling = lowest + 12  # of client and server
        async with serving(_slow_app(go := trio.Event()), ceiling=ceiling) as running:
            busy, answer = list[trio.SocketStream](), b""
            while not answer:
                busy.append(await connect(running.port))
                await busy[-1].send_all(REQUEST)
                seen = len(busy)
                await until(lambda seen=seen: go.statistics().tasks_waiting + running.stats.sent_away == seen)
                if running.stats.sent_away:
                    answer = await _end_of(busy.pop())
            assert answer.startswith(b"HTTP/1.1 503")
            assert 1 <= len(busy) <= 6
            go.set()
            for stream in busy:
                await _read_answer(stream)
                await stream.aclose()


async def test_last_places_are_for_exempt_addresses() -> None:
    """Strangers with a request in hand can never keep an exempt address out: the operator gets in."""
    with trio.fail_after(120):
        is_home = "127.0.0.1".__eq__
        async with serving(_slow_app(go := trio.Event()), most=2, has_reserve=is_home) as running:
            strangers = [await _connect_from("127.0.0.2", running.port) for _ in range(2)]
            for count, stream in enumerate(strangers, 1):
                await stream.send_all(REQUEST)
                await until(lambda count=count: go.statistics().tasks_waiting == count)
            refused = await _connect_from("127.0.0.2", running.port)
            assert (await _end_of(refused)).startswith(b"HTTP/1.1 503")
            operator = await connect(running.port)
            await operator.send_all(REQUEST)
            await until(lambda: go.statistics().tasks_waiting == 3)
            go.set()
            for stream in (*strangers, operator):
                assert (await read_head(stream))[0].startswith(b"HTTP/1.1 200")
                await stream.aclose()


async def test_sessions_do_not_count_as_connections() -> None:
    """A client that has detached leaves its place to the next."""
    wires: list[SocketWire] = []

    async def keep(wire: SocketWire, client: Handshake) -> None:
        wires.append(wire)

    with trio.fail_after(120):
        async with serving(websocket_app(_never), most=1, sockets={Socket("/ws"): keep}) as running:
            for _ in range(3):
                await running.client()
                assert await get(running.port) == b"here"
            for wire in wires:
                wire.abort()


async def test_lack_of_descriptors_passes(monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock) -> None:
    """A process without descriptors reports it, takes one from a waiting connection, and does not spin."""
    accept, failures = socket.socket.accept, [errno.EMFILE] * 3

    def poor(self: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise OSError(failures.pop(), "too many open files")
        return accept(self)

    async with serving(websocket_app(_never)) as running:
        silent = await connect(running.port)
        await until(lambda: running.stats.accepted == 1)
        mock_clock.jump(GRACE)
        monkeypatch.setattr(socket.socket, "accept", poor)
        stream = await connect(running.port)
        await stream.send_all(REQUEST)
        assert await _end_of(silent) == b""
        for left in (1, 0):
            await until(lambda left=left: len(failures) <= left)
            assert len(failures) == left
            await until_deadline_within(0.11)
            mock_clock.jump(0.11)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert len(running.reports) == 3
        await stream.aclose()


async def test_descriptor_that_is_taken_again_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """A thread may take the descriptor that was given back: the newcomer keeps its own, and is served."""

    def taken_again(self: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    async with serving(websocket_app(_never), most=1) as running:
        silent = await connect(running.port)
        await until(lambda: running.stats.accepted == 1)
        mock_clock.jump(GRACE)
        monkeypatch.setattr(socket.socket, "dup", taken_again)
        assert await get(running.port) == b"here"
        assert await _end_of(silent) == b""


async def test_who_finds_no_room_after_all_is_told(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """A place was made, and was not enough: the newcomer is answered on the descriptor that it has now."""
    with free_descriptors() as lowest:
        ceiling = lowest + 3  # the first connection's server end fits, and no other
        async with serving(websocket_app(_never), ceiling=ceiling) as running:
            silent = await connect(running.port)
            await until(lambda: running.stats.accepted == 1)
            dup = socket.socket.dup
            others = list[socket.socket]()

            def higher(self: socket.socket) -> socket.socket:
                others.append(socket.socket())
                return dup(self)

            monkeypatch.setattr(socket.socket, "dup", higher)
            mock_clock.jump(GRACE)
            newcomer = await connect(running.port)
            assert (await _end_of(newcomer)).startswith(b"HTTP/1.1 503")
            assert await _end_of(silent) == b""
            for each in others:
                each.close()


class _Waiter:
    def __init__(self, address: str) -> None:
        self.address = address
        self.dismissed = False

    def dismiss(self) -> None:
        assert not self.dismissed
        self.dismissed = True


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "make room"]), st.integers(0, 11)), max_size=60))
def test_waiting_room_keeps_order_and_bounds(steps: list[tuple[str, int]]) -> None:
    """The longest-waiting goes first, of all or of its address; the exempt have no share to exceed."""
    waiters = [_Waiter(f"10.0.0.{number % 3}") for number in range(12)]
    now, since = [0.0], dict[_Waiter, float]()
    room, here = WaitingRoom(lambda: 2, "10.0.0.0".__eq__, clock=lambda: now[0]), list[_Waiter]()
    for step, number in steps:
        waiter = waiters[number]
        if step == "enter" and not waiter.dismissed:
            room.enter(waiter)
            if waiter not in here:
                here.append(waiter)
                since[waiter] = now[0]
            same = [each for each in here if each.address == waiter.address]
            if len(same) > 2 and waiter.address != "10.0.0.0":
                here.remove(same[0])
                assert same[0].dismissed
        elif step == "leave":
            room.leave(waiter)
            here = [each for each in here if each is not waiter]
        elif step == "make room":
            if here and since[here[0]] == now[0]:
                assert not room.make_room()  # it has only just come
            now[0] += GRACE
            assert room.make_room() is bool(here)
            if here:
                assert here.pop(0).dismissed
        assert len(room) == len(here)
        assert all(each in room for each in here)
    assert room.dismissed[NO_ROOM] + room.dismissed[SAME_ADDRESS] == sum(w.dismissed for w in waiters)


def test_a_network_of_ipv6_has_one_share() -> None:
    """Whoever has one address of it has all of them. Others, and every address of IPv4, have their own."""
    room = WaitingRoom(lambda: 1, lambda _address: False, clock=lambda: 0.0)
    first, same, other = (_Waiter(each) for each in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"))
    for waiter in (first, other, _Waiter("192.0.2.1"), _Waiter("192.0.2.2"), same):
        room.enter(waiter)
    assert (first.dismissed, same.dismissed, other.dismissed) == (True, False, False)
    assert len(room) == 4
    room.leave(same)
    room.enter(again := _Waiter("2001:db8::3"))
    assert not again.dismissed


def _slow_app(go: trio.Event) -> QuartTrio:
    app = QuartTrio(__name__, static_folder=None)

    @app.get("/")
    async def slow() -> str:
        await go.wait()
        return "here"

    return app


async def _read_answer(stream: trio.SocketStream) -> None:
    head, body = await read_head(stream)
    assert head.startswith(b"HTTP/1.1 200")
    while body != b"here":
        body += await stream.receive_some()
    await wait_all_tasks_blocked()


async def _end_of(stream: trio.SocketStream) -> bytes:
    async with stream:
        return await read_to_end(stream)


async def _connect_from(address: str, port: int) -> trio.SocketStream:
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    await sock.bind((address, 0))
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


def _everybody(address: str) -> bool:
    return True


async def _never() -> None:
    raise AssertionError


async def test_doorway_lets_few_in_at_once_and_in_order() -> None:
    """A storm of whole requests costs each turn of the loop a bounded share, and nobody is overtaken."""
    doorway, passed, turn = Doorway(4), list[tuple[int, int]](), 0

    async def pass_through(number: int) -> None:
        await doorway.pass_through()
        passed.append((turn, number))

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(pass_through, number)
        await wait_all_tasks_blocked()
    assert sorted(number for _, number in passed) == list(range(40))

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await trio.lowlevel.checkpoint()
            turn += 1

    passed.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        async with trio.open_nursery() as storm:
            for number in range(40):
                storm.start_soon(pass_through, number)
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert max(Counter(at for at, _ in passed).values()) <= 4
    assert not doorway.is_crowded


async def test_crowd_at_the_doorway_waits_in_the_kernel() -> None:
    """While more requests are here than can be let in soon, no further connection is accepted."""
    doorway, seen = Doorway(2), set[bool]()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(doorway.pass_through)
        while nursery.child_tasks:
            await trio.lowlevel.checkpoint()
            seen.add(doorway.is_crowded)
    assert seen == {True, False}
