"""Mistakes that only a wire on its own socket can make: partial writes, and frames inside of frames."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import CloseConnection, Event, Message, Ping, Pong, TextMessage

from actors.session import WireClosed
from dataflow.gateway.certificates import certified_context
from dataflow.net.tls import shake_hands, wrap
from dataflow.server.socket_wire import SLICE_BYTES, SocketWire
from tests.dataflow.server.wires_client import Client
from tests.support.certificates import Certificate
from tests.support.waiting import until_delivered

BUFFER = 4096  # bytes of the send and of the receive buffer: the kernel doubles both


@define
class Pairs:
    """`pairs(...)` is a wire and its client, over TLS when there is a certificate."""

    certificate: Certificate | None

    @asynccontextmanager
    async def __call__(
        self, buffer: int = BUFFER, close_within: float = 60.0
    ) -> AsyncIterator[tuple[SocketWire, Client]]:
        """With next to no room between them."""
        with socket.socket() as listener, socket.socket() as ours:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            ours.connect(listener.getsockname())
            theirs, _ = listener.accept()
            theirs.setblocking(False)
            ours.setblocking(False)
            raw = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            theirs, stream = await self._encrypt(theirs, raw)
            wire = SocketWire(theirs, peer="test", close_within=close_within)
            client = Client(stream, b"", raw)
            try:
                yield wire, client
            finally:
                wire.abort()
                client.vanish()

    async def _encrypt(
        self, theirs: socket.socket, raw: trio.SocketStream
    ) -> tuple[socket.socket, trio.abc.Stream]:
        if self.certificate is None:
            return theirs, raw
        context = certified_context(self.certificate.certificate, self.certificate.key)
        trusting = self.certificate.client_context()
        stream = trio.SSLStream(raw, trusting, server_hostname="localhost", https_compatible=True)
        sock = wrap(context, theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, sock)
            await stream.do_handshake()
        return sock, stream


@pytest.fixture(scope="module", params=["plain", "tls"])
def pair(request: pytest.FixtureRequest) -> Pairs:
    return Pairs(request.getfixturevalue("certificate") if request.param == "tls" else None)


def fill(wire: SocketWire, payload: bytes) -> tuple[int, bytes]:
    """Write `payload` until it is not taken whole. Returns how often it was, and the rest."""
    count = 0
    while (rest := wire.write_nowait(payload)) is None:
        count += 1
    return count, rest


async def stuff(wire: SocketWire, client: Client) -> int:
    """Write the smallest of messages until no more is taken, and stand between two; how many are unread."""
    payload, unread, refusals = wire.pack([b"x"]), 0, 0
    while refusals < 3:
        count, rest = fill(wire, payload)
        unread, refusals = unread + count, 0 if count else refusals + 1
        if rest is not payload:  # the kernel cuts even these, at times: make room, and finish it
            unread += 1
            while (left := wire.write_nowait(rest)) is not None:
                if left is rest:
                    assert await client.text() == "x"
                    unread -= 1
                rest = left
        await wait_all_tasks_blocked(0.005)
    while wire._cut is not None:  # OpenSSL has begun with the last one: there is room again before it is out
        assert await client.text() == "x"
        unread += (wire.write_nowait(payload) is None) - 1
    return unread


async def texts(client: Client, count: int) -> list[str]:
    return [await client.text() for _ in range(count)]


async def test_rest_of_a_cut_payload_goes_first_and_alone(pair: Pairs) -> None:
    """Until the rest of a payload is written, nothing else is taken; then everything arrives, in order."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            long, other = wire.pack([b"a" * 100_000]), wire.pack([b"b"])
            count, rest = fill(wire, long)
            assert 0 < len(rest) <= len(long)  # whole, where OpenSSL has begun and keeps the count to itself
            assert wire.write_nowait(other) is other
            with pytest.raises(ValueError, match="must be written first"):
                await wire.write([other])
            again = wire.write_nowait(rest)
            assert again is not None
            nursery.start_soon(wire.write, [again, other, other])
            assert await texts(client, count + 3) == ["a" * 100_000] * (count + 1) + ["b", "b"]


async def test_nothing_is_taken_while_another_task_writes(pair: Pairs) -> None:
    """A payload that is offered during a blocked write is left whole, and may be written behind it."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, [wire.pack([b"a" * 300_000])])
            await wait_all_tasks_blocked()
            other = wire.pack([b"b"])
            assert wire.write_nowait(other) is other
            with pytest.raises(trio.BusyResourceError):
                await wire.write([other])
            assert await client.text() == "a" * 300_000
            await wait_all_tasks_blocked()
            assert wire.write_nowait(other) is None
            assert await client.text() == "b"


async def test_backlog_larger_than_a_slice_arrives_whole(pair: Pairs) -> None:
    """A backlog leaves in slices, a payload longer than a slice in one; nothing is lost at their edges."""
    with trio.fail_after(120):
        async with pair(65536) as (wire, client), trio.open_nursery() as nursery:
            messages = [b"%d " % n * 2000 for n in range(100)] + [b"x" * (2 * SLICE_BYTES)] + [b"end"]
            nursery.start_soon(wire.write, [wire.pack([message]) for message in messages])
            assert await texts(client, len(messages)) == [message.decode() for message in messages]


async def test_only_the_last_of_many_pings_waits_for_room(pair: Pairs) -> None:
    """Pings without end from a client that reads nothing cost one pong, behind the payload in hand."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, [wire.pack([b"a" * 300_000]), wire.pack([b"b" * 300_000])])
            nursery.start_soon(_receive_quietly, wire)
            await wait_all_tasks_blocked()
            for number in range(200):
                await client.send(Ping(payload=b"%d" % number))
                await wait_all_tasks_blocked()
            await until_delivered(client.raw.socket)
            seen = [await _message_or_control(client) for _ in range(3)]
            assert seen[0] == "a" * 300_000
            assert Pong(payload=b"199") in seen
            wire.abort()


async def test_pong_without_a_writer_leaves_when_there_is_room(pair: Pairs) -> None:
    """A pong that found no room is sent by the task that receives, though nothing else is ever written."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            await client.send(Ping(payload=b"hello?"))  # first, because its acknowledgement makes room
            count = await stuff(wire, client)
            nursery.start_soon(_receive_quietly, wire)
            await wait_all_tasks_blocked()
            assert await texts(client, count) == ["x"] * count
            assert await client.event() == Pong(payload=b"hello?")
            await client.say("still understood")
            wire.abort()


async def test_writer_may_start_while_a_pong_waits_for_room(pair: Pairs) -> None:
    """A write that begins while the receiver waits to send a pong takes the pong with it."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            await client.send(Ping(payload=b"hello?"))  # first, because its acknowledgement makes room
            count = await stuff(wire, client)
            nursery.start_soon(_receive_quietly, wire)
            await wait_all_tasks_blocked()
            nursery.start_soon(wire.write, [wire.pack([b"y"])])
            await wait_all_tasks_blocked()
            assert await texts(client, count) == ["x"] * count
            rest = [await client.event(), await client.event()]
            assert Pong(payload=b"hello?") in rest
            assert TextMessage(data="y") in rest
            wire.abort()


async def test_abort_ends_a_receiver_that_waits_to_send_a_pong(pair: Pairs) -> None:
    """A receiver that waits for room as well as for bytes is ended by `abort` like any other: WireClosed."""
    ends = []

    async def receive(wire: SocketWire) -> None:
        with pytest.raises(WireClosed) as closed:
            await wire.receive()
        ends.append(closed.value.reason)

    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            await client.send(Ping(payload=b"hello?"))
            await stuff(wire, client)
            nursery.start_soon(receive, wire)
            await wait_all_tasks_blocked()
            wire.abort()
    assert ends == ["aborted"]


async def _receive_quietly(wire: SocketWire) -> None:
    try:
        while True:
            await wire.receive()
    except WireClosed:
        pass


async def _message_or_control(client: Client) -> Event | str | None:
    parts = []
    while isinstance(event := await client.event(), TextMessage):
        parts.append(event.data)
        if event.message_finished:
            return "".join(parts)
    return event


async def test_close_after_a_cancelled_write_still_makes_sense_to_the_client(pair: Pairs) -> None:
    """A write cancelled in the middle of a frame: `close` ends that frame, and the client sees a close frame."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_idle, scope)
                await wire.write([wire.pack([b"a" * 100_000]), wire.pack([b"b" * 100_000])])
            assert scope.cancelled_caught
            with pytest.raises(ValueError, match="must be written first"):
                await wire.write([wire.pack([b"c"])])
            nursery.start_soon(wire.close_with, 1001, "server going away")
            assert await texts(client, 2) == ["a" * 100_000, "b" * 100_000]
            assert (await client.closed()).code == 1001


async def test_close_during_a_blocked_write_ends_the_frame_and_the_writer(pair: Pairs) -> None:
    """`close` from another task: the frame in hand is finished, the writer is told, nothing else is sent."""
    ends = []

    async def write(wire: SocketWire) -> None:
        with pytest.raises(WireClosed) as closed:
            await wire.write([wire.pack([b"%d" % n * 300_000]) for n in range(10)])
        ends.append(closed.value.code)

    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            nursery.start_soon(write, wire)
            nursery.start_soon(_receive_quietly, wire)
            await wait_all_tasks_blocked()
            nursery.start_soon(wire.close_with, 1008, "slow client")
            assert await client.text() == "0" * 300_000
            assert (await client.closed()).code == 1008
    assert ends == [1008]


async def test_fault_is_told_though_more_is_on_its_way(pair: Pairs) -> None:
    """A client that breaks a rule and goes on sending reads why, and no reset, which could take that from it."""
    with trio.fail_after(120):
        async with pair(65536) as (wire, client), trio.open_nursery() as nursery:
            await client.send_raw(b"\x83\x80aaaa" + bytes(60_000))
            nursery.start_soon(_receive_quietly, wire)
            close = await client.event()
            assert isinstance(close, CloseConnection)
            assert close.code == 1002
            assert await client.stream.receive_some() == b""
            await client.stream.aclose()


async def test_peers_close_during_a_blocked_write_is_answered_behind_the_frame(pair: Pairs) -> None:
    """A client that closes while it is being sent to gets the rest of that frame, then its close frame."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            nursery.start_soon(_write_quietly, wire, [wire.pack([b"%d" % n * 300_000]) for n in range(10)])
            nursery.start_soon(_receive_quietly, wire)
            await wait_all_tasks_blocked()
            await client.send(CloseConnection(code=1000))
            await until_delivered(client.raw.socket)
            parts = ""
            while isinstance(event := await client.event(), TextMessage):
                parts += event.data
            assert parts == "0" * 300_000
            assert isinstance(event, CloseConnection)
            assert await client.event() is None


async def _write_quietly(wire: SocketWire, payloads: list[bytes]) -> None:
    with suppress(WireClosed):
        await wire.write(payloads)


async def test_close_to_a_client_that_reads_nothing_is_bounded(pair: Pairs, mock_clock: MockClock) -> None:
    """A frame in hand that the client does not take holds `close` for `close_within`, and not longer."""
    async with pair(close_within=3) as (wire, _):
        fill(wire, wire.pack([b"a" * 100_000]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.close_with, 1008, "slow client")
            await wait_all_tasks_blocked()
            mock_clock.jump(2.9)
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            mock_clock.jump(0.2)


async def _cancel_when_idle(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


steps = st.one_of(
    st.tuples(st.just("nowait"), st.integers(0, 40_000)),
    st.tuples(st.just("write"), st.integers(0, 40_000)),
    st.tuples(st.just("ping"), st.integers(0, 99)),
    st.tuples(st.just("read"), st.integers(1, 200_000)),
)


@settings(max_examples=60, deadline=None)
@given(script=st.lists(steps, max_size=40))
async def test_any_order_of_writes_pings_and_reads_gives_whole_messages_in_order(
    pair: Pairs,
    script: list[tuple[str, int]],
) -> None:
    """However a session writes and its client dawdles, messages arrive whole, once, in order; pongs between."""
    with trio.fail_after(120):
        async with pair() as (wire, client), trio.open_nursery() as nursery:
            nursery.start_soon(_receive_quietly, wire)
            session = Script(wire, client)
            for verb, amount in script:
                await session.do(nursery, verb, amount)
            await session.finish(nursery)
            wire.abort()
    assert session.got == session.said
    assert session.pongs == [ping for ping in session.pings if ping in session.pongs]
    assert session.pongs[-1:] == session.pings[-1:]


class Script:
    """A session with an outbox and one flusher, and a client that reads when it is told."""

    def __init__(self, wire: SocketWire, client: Client) -> None:
        self.said: list[str] = []
        self.got: list[str] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self._wire, self._client = wire, client
        self._outbox: list[bytes] = []
        self._flushing = False
        self._partial = ""

    async def do(self, nursery: trio.Nursery, verb: str, amount: int) -> None:
        if verb == "read":
            await self._read(amount)
        elif verb == "ping":
            self.pings.append(b"%d-%d" % (amount, len(self.pings)))
            await self._client.send(Ping(payload=self.pings[-1]))
        else:
            self._say(nursery, f"{len(self.said)}:" + "x" * amount, at_once=verb == "nowait")
        await wait_all_tasks_blocked()

    def _say(self, nursery: trio.Nursery, text: str, at_once: bool) -> None:
        self.said.append(text)
        rest: bytes | None = self._wire.pack([text.encode()])
        if at_once and not self._flushing:
            rest = self._wire.write_nowait(rest) if rest is not None else None
        if rest is not None:
            self._outbox.append(rest)
            if not self._flushing:
                self._flushing = True
                nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        while self._outbox:
            payloads, self._outbox = self._outbox, []
            await self._wire.write(payloads)
        self._flushing = False

    async def _read(self, amount: int) -> None:
        while amount > 0:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_when_idle, scope)
                    event = await self._client.event()
                    nursery.cancel_scope.cancel()
            if scope.cancelled_caught:
                return
            amount -= self._take(event)

    def _take(self, event: Event | None) -> int:
        if isinstance(event, Pong):
            self.pongs.append(bytes(event.payload))
            return 1
        assert isinstance(event, Message), event
        self._partial += event.data
        if event.message_finished:
            self.got.append(self._partial)
            self._partial = ""
        return len(event.data) + 1

    async def finish(self, nursery: trio.Nursery) -> None:
        """The client reads all there is."""
        while len(self.got) < len(self.said) or self.pongs[-1:] != self.pings[-1:]:
            self._take(await self._client.event())


class TightSocket:
    """Stands for a socket that takes as many bytes as it was given room for, down to a part of a frame."""

    def __init__(self, sock: socket.socket) -> None:
        self.room = 0
        self._sock = sock

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        sent = self._sock.send(data[: self.room])
        self.room -= sent
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def test_ping_that_was_cut_is_finished_before_a_payload(pair: Pairs) -> None:
    """A control frame that has gone out in part is followed by its rest, and only then by payloads."""
    with trio.fail_after(120):
        async with pair() as (wire, client):
            tight: Any = TightSocket(wire._sock)
            wire._sock = tight
            tight.room = 1
            await wire.ping()
            payload = wire.pack([b"first"])
            assert wire.write_nowait(payload) is payload
            tight.room = 1 << 20
            await wire.write([payload, wire.pack([b"second"])])
            seen = [await client.event() for _ in range(3)]
            assert seen == [Ping(), TextMessage(data="first"), TextMessage(data="second")]
