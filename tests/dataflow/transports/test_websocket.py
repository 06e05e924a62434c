"""Promises of transports.websocket, kept against real sockets on this machine."""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from socket import EAI_NONAME, gaierror
from typing import Any, ClassVar

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage
from wsproto.utilities import generate_accept_token

from actors.connector import LinkLost, Received
from dataflow.domain import Item, Missed
from dataflow.sources.port import SourceSettings
from dataflow.transports.websocket import WebSocketLink, WebSocketSource
from tests.support.certificates import make_certificate
from tests.support.waiting import until, until_deadline_within, until_delivered

Handler = Callable[[WebSocketRequest], Awaitable[None]]


@pytest.fixture
def still_clock() -> MockClock:
    """Time stands still."""
    return MockClock()


class Echo:
    """A codec: every message is an item, and requests are single words."""

    def headers(self) -> Collection[tuple[str, str]]:
        return [("Origin", "https://here")]

    def opening(self) -> Sequence[str]:
        return ["hello"]

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        return [f"+{symbol}" for symbol in symbols]

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        return [f"-{symbol}" for symbol in symbols]

    def probe(self) -> Sequence[str]:
        return ["?"]

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        into.items.append(Missed("echo", str(message), "said"))

    def missed(self, symbol: str) -> Missed | None:
        return None


@define
class Exchange:
    """The record of the server side."""

    port: int = 0
    heard: list[str | bytes] = field(factory=list)
    paths: list[str] = field(factory=list)
    origins: list[bytes | None] = field(factory=list)

    def source(self, *, scheme: str = "ws", path: str = "/ws?x=1", **settings: Any) -> WebSocketSource:
        url = f"{scheme}://127.0.0.1:{self.port}{path}"
        return WebSocketSource("echo", SourceSettings(connector="echo", url=url, **settings), Echo)

    async def accept(self, request: WebSocketRequest) -> WebSocketConnection:
        self.paths.append(request.path)
        self.origins.append(dict(request.headers).get(b"origin"))
        return await request.accept()


@asynccontextmanager
async def exchange(
    talk: Callable[[Exchange, WebSocketConnection], Awaitable[None]],
) -> AsyncIterator[Exchange]:
    """A WebSocket server that runs `talk` with every client."""
    seen = Exchange()

    async def handle(request: WebSocketRequest) -> None:
        with suppress(ConnectionClosed):
            await talk(seen, await seen.accept(request))

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, handle, "127.0.0.1", 0, None)
        seen.port = server.port
        yield seen
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tcp(talk: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[Exchange]:
    """A TCP server without WebSocket, for misbehaviour."""

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await talk(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield Exchange(port=listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def said(received: Received[Item]) -> list[str]:
    return [item.symbol for item in received.items]


async def hear(link: WebSocketLink, count: int) -> list[str]:
    """The next `count` messages, in any number of reads."""
    heard: list[str] = []
    while len(heard) < count:
        heard += said(await link.receive())
    return heard


async def listen(seen: Exchange, connection: WebSocketConnection) -> None:
    while True:
        seen.heard.append(await connection.get_message())


async def echo(seen: Exchange, connection: WebSocketConnection) -> None:
    while True:
        message = await connection.get_message()
        seen.heard.append(message)
        await connection.send_message(message)


async def read_on(link: WebSocketLink) -> None:
    while True:
        await link.receive()


async def why_lost(source: WebSocketSource, use: Callable[[WebSocketLink], Awaitable[None]] = read_on) -> str:
    """The reason why a connection cannot be had, or is lost in use."""
    try:
        async with source.connect() as link:
            await use(link)
    except LinkLost as lost:
        return str(lost)
    raise AssertionError("nothing was lost")


async def test_a_turn_tells_how_many_symbols_a_request_may_name() -> None:
    """The actor divides the wanted symbols, and no codec does so again: the bound is that of the settings."""

    class Narrow(SourceSettings):
        symbols_a_request: ClassVar[int] = 3

    async with exchange(echo) as upstream:
        settings = Narrow(connector="echo", url=f"ws://127.0.0.1:{upstream.port}")
        async with WebSocketSource("echo", settings, Echo).connect() as link:
            assert await link.turn() == 3


async def test_messages_of_the_codec_are_sent_and_messages_of_the_upstream_decoded() -> None:
    """The path, the headers, the opening, the requests and the probe arrive as the codec wrote them, in order."""
    async with exchange(echo) as upstream, upstream.source().connect() as link:
        await link.subscribe(["A-B", "C-D"])
        await link.unsubscribe(["A-B"])
        await link.probe()
        assert await hear(link, 5) == ["hello", "+A-B", "+C-D", "-A-B", "?"]
        assert upstream.heard == ["hello", "+A-B", "+C-D", "-A-B", "?"]
        assert upstream.paths == ["/ws?x=1"]
        assert upstream.origins == [b"https://here"]


async def test_every_connection_has_its_own_codec() -> None:
    """The counters of a codec start at nothing."""
    made: list[Echo] = []

    def make() -> Echo:
        made.append(Echo())
        return made[-1]

    async with exchange(echo) as upstream:
        settings = SourceSettings(connector="echo", url=f"ws://127.0.0.1:{upstream.port}")
        source = WebSocketSource("echo", settings, make)
        for _ in range(2):
            async with source.connect() as link:
                assert await hear(link, 1) == ["hello"]
        assert upstream.paths == ["/", "/"]
    assert len(made) == 2


async def test_everything_that_is_waiting_comes_in_one_read_and_in_order() -> None:
    """A burst costs one read, not one a message; and a read is bounded."""
    numbers = [str(number) for number in range(1000)]

    async def talk(stream: trio.SocketStream) -> None:
        server = WSConnection(ConnectionType.SERVER)
        server.receive_data(await stream.receive_some())
        await stream.send_all(server.send(AcceptConnection()))
        await stream.receive_some()  # the client has read the handshake, and nothing else can be read with it
        await stream.send_all(b"".join(server.send(TextMessage(number)) for number in numbers))  # one segment
        await stream.receive_some()

    async with tcp(talk) as upstream, upstream.source().connect() as link:
        batches = [said(await link.receive()) for _ in range(2)]
        assert batches == [numbers[:512], numbers[512:]]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_an_upstream_that_writes_every_message_by_itself_is_read_in_batches(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages in any number of segments and TLS records: one read, and in order.

    A kernel holds some 280 segments so small.
    """
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    arrived = trio.Event()

    async def talk(raw: trio.SocketStream) -> None:
        stream: trio.abc.Stream = raw
        if scheme == "wss":
            stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        server = WSConnection(ConnectionType.SERVER)
        server.receive_data(await stream.receive_some())
        await stream.send_all(server.send(AcceptConnection()))
        await stream.receive_some()  # the client has read the handshake, and nothing else can be read with it
        for number in range(100):
            await stream.send_all(server.send(TextMessage(str(number))))
        await until_delivered(raw.socket)
        arrived.set()
        while await stream.receive_some():
            pass

    async with tcp(talk) as upstream, upstream.source(scheme=scheme).connect() as link:
        await arrived.wait()
        assert said(await link.receive()) == [str(number) for number in range(100)]


async def test_messages_that_cannot_be_used_come_in_small_batches() -> None:
    """Each of them is told, which takes time: an upstream of nothing else must not hold the others up."""

    class Puzzled(Echo):
        def decode(self, message: str | bytes, into: Received[Item]) -> None:
            into.problems.append(("puzzling", str(message)))

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        for number in range(1000):
            await connection.send_message(str(number))
        await trio.sleep_forever()

    async with exchange(talk) as upstream:
        source = upstream.source()
        source._make_codec = Puzzled
        async with source.connect() as link:
            told = list[str]()
            while len(told) < 1000:
                received = await link.receive()
                assert len(received.problems) <= 64
                told += [excerpt for _, excerpt in received.problems]
        assert told == [str(number) for number in range(1000)]


async def test_an_upstream_that_floods_is_lost() -> None:
    """With a plain reason, so that its backoff applies, and it is told 1008."""
    codes = list[int]()

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection._stream.send_all(b"\x89\0" * 2000)
        with suppress(ConnectionClosed):
            await connection.get_message()
            await connection.get_message()
        assert connection.closed is not None
        codes.append(connection.closed.code)

    async with exchange(talk) as upstream:
        assert (await why_lost(upstream.source())).startswith("too many control frames and small fragments")
        while not codes:
            await trio.lowlevel.checkpoint()
        assert codes == [1008]


async def test_a_cancelled_read_loses_nothing() -> None:
    """Wherever it is cancelled: before something came, or with something waiting."""
    async with exchange(echo) as upstream, upstream.source().connect() as link:
        heard: list[str] = []
        for number in range(50):
            await link.subscribe([str(number)])
            with trio.CancelScope() as scope:
                if number % 2:
                    scope.cancel()
                heard += said(await link.receive())
        heard += await hear(link, 51 - len(heard))
        assert heard == ["hello", *(f"+{number}" for number in range(50))]


async def test_an_upstream_that_is_not_read_is_slowed_down_and_nothing_is_dropped() -> None:
    """The sender feels our bound: backpressure, not memory."""
    sent = [0]
    text = "x" * 60_000

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        for number in range(1000):
            await connection.send_message(f"{number}{text}")
            sent[0] = number + 1
        await connection.get_message()
        await connection.get_message()

    async with exchange(talk) as upstream, upstream.source().connect() as link:
        before = -1
        while before < sent[0]:
            before = sent[0]
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert sent[0] < 1000
        heard = await hear(link, 1000)
        assert [message.removesuffix(text) for message in heard] == [str(number) for number in range(1000)]


async def test_messages_before_the_end_are_received_before_the_loss() -> None:
    """A close does not discard waiting messages, and its reason is told."""

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.send_message("last words")
        await connection.aclose(1001, "maintenance")

    async def use(link: WebSocketLink) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert said(await link.receive()) == ["last words"]
        await link.receive()

    async with exchange(talk) as upstream:
        assert await why_lost(upstream.source(), use) == "closed with 1001: maintenance"


async def test_a_close_without_words_is_named() -> None:
    """By the name of its code."""

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.aclose(1011)

    async with exchange(talk) as upstream:
        assert await why_lost(upstream.source()) == "closed with 1011: internal error"


async def test_a_message_right_behind_the_handshake_is_not_lost() -> None:
    """Even when it comes in the same packet."""

    async def talk(stream: trio.SocketStream) -> None:
        server = WSConnection(ConnectionType.SERVER)
        while not (events := list(server.events())):
            server.receive_data(await stream.receive_some())
        assert isinstance(events[0], Request)
        await stream.send_all(server.send(AcceptConnection()) + server.send(TextMessage("first")))
        await stream.receive_some()

    async with tcp(talk) as upstream, upstream.source().connect() as link:
        assert await hear(link, 1) == ["first"]


async def test_a_ping_is_answered() -> None:
    """An upstream that checks on us finds us alive, and the messages around its ping are all there."""
    answered = trio.Event()

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.send_message("before")
        await connection.ping(b"there?")
        answered.set()
        await connection.send_message("after")
        await connection.get_message()

    async with exchange(talk) as upstream, upstream.source().connect() as link:
        assert await hear(link, 2) == ["before", "after"]
        assert answered.is_set()


async def test_no_more_is_said_in_a_second_than_the_upstream_takes(still_clock: MockClock) -> None:
    """Whatever the cause: the opening, requests and probes wait for their turn, and pongs find a place."""
    pinged = trio.Event()

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, seen, connection)
            await until(lambda: len(seen.heard) >= 4)
            await connection.ping()
            pinged.set()

    async with (
        exchange(talk) as upstream,
        trio.open_nursery() as nursery,
        upstream.source(requests_per_second=5).connect() as link,
    ):
        nursery.start_soon(read_on, link)
        nursery.start_soon(link.subscribe, [f"s{n}" for n in range(7)])
        await pinged.wait()
        await until_deadline_within(1.25)
        assert upstream.heard == ["hello", "+s0", "+s1", "+s2"]
        still_clock.jump(1.0)
        await wait_all_tasks_blocked()
        assert len(upstream.heard) == 4
        still_clock.jump(0.25)
        await until(lambda: len(upstream.heard) == 8)
        nursery.start_soon(link.probe)
        await until_deadline_within(1.25)
        assert upstream.heard[4:] == ["+s3", "+s4", "+s5", "+s6"]
        still_clock.jump(1.25)
        await until(lambda: upstream.heard[-1] == "?")
        nursery.cancel_scope.cancel()


async def test_a_pong_that_waits_does_not_stop_the_reading(still_clock: MockClock) -> None:
    """It leaves in its turn, although nothing more is read, and answers the newest of several pings."""
    answered = trio.Event()

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.get_message()
        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(connection.ping, bytes([n]))
            await wait_all_tasks_blocked()
            await connection.send_message("behind")
        answered.set()
        await connection.get_message()

    async with (
        exchange(talk) as upstream,
        trio.open_nursery() as nursery,
        upstream.source(requests_per_second=1).connect() as link,
    ):
        assert await hear(link, 1) == ["behind"]
        nursery.start_soon(read_on, link)
        await until_deadline_within(1.25)
        assert not answered.is_set()
        still_clock.jump(1.25)
        await answered.wait()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_hangs_up_is_lost() -> None:
    """No closing handshake: the connection was cut."""

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.get_message()
        await trio.aclose_forcefully(connection._stream)

    async with exchange(talk) as upstream:
        assert await why_lost(upstream.source()) == "the upstream hung up"


async def test_speaking_on_a_lost_connection_says_so() -> None:
    """Not another error, and not silence."""

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.aclose(1001, "bye")

    async def use(link: WebSocketLink) -> None:
        with suppress(LinkLost):
            await read_on(link)
        await link.subscribe(["A-B"])

    async with exchange(talk) as upstream:
        assert await why_lost(upstream.source(), use) == "closed with 1001: bye"


async def test_a_message_that_is_too_big_ends_the_connection() -> None:
    """The limit is the setting's; a message of exactly that size is welcome."""

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.send_message("x" * 100)
        await connection.send_message("x" * 101)
        await connection.get_message()
        await connection.get_message()

    async def use(link: WebSocketLink) -> None:
        assert said(await link.receive()) == ["x" * 100]
        await link.receive()

    async with exchange(talk) as upstream:
        reason = await why_lost(upstream.source(max_message_bytes=100), use)
        assert reason == "a message of more than 100 bytes"


async def test_a_refused_handshake_tells_the_status(still_clock: MockClock) -> None:
    """The exchange's HTTP answer is the reason, with or without a body."""

    async def reject(request: WebSocketRequest) -> None:
        await request.reject(403, body=b"go away" if request.path == "/body" else None)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, reject, "127.0.0.1", 0, None)
        upstream = Exchange(port=server.port)
        for path in ("/body", "/"):
            reason = await why_lost(upstream.source(path=path))
            said = ": 'go away'" if path == "/body" else ""
            assert reason == f"the handshake was refused with HTTP status 403{said}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "reason", "wait"),
    [
        (
            b"429 No\r\nRetry-After: 60\r\nContent-Length: 12\r\n\r\nslow\ndown \xc3\xa9",
            "429; to be tried again after 60 s: 'slow\\ndown \\xe9'",
            60,
        ),
        (
            b"503 No\r\nRetry-After: 99999\r\nContent-Length: 0\r\n\r\n",
            "503; to be tried again after 3600 s",
            3600,
        ),
        (b"500 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n", "500", 0),
        (
            b"301 Moved\r\nLocation: wss://u:pw@new/stream\r\nContent-Length: 0\r\n\r\n",
            "301; the new address is 'wss://u:***@new/stream'",
            0,
        ),
        (b"403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "403: 'no'", 0),
    ],
)
async def test_what_an_upstream_says_when_it_refuses_is_heard(
    answer: bytes, reason: str, wait: float, still_clock: MockClock
) -> None:
    """The wait that it asks for, its new address, and the beginning of its words, printable."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head, _, body = (b"HTTP/1.1 " + answer).partition(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        await stream.send_all(body)
        await stream.receive_some()

    async with tcp(talk) as upstream:
        with pytest.raises(LinkLost) as lost:
            async with upstream.source().connect():
                pass
        assert str(lost.value) == f"the handshake was refused with HTTP status {reason}"
        assert lost.value.at_least == wait


@pytest.mark.parametrize("body", [b"x" * 100_000, b"never complete"])
async def test_the_words_of_a_refusal_are_bounded(body: bytes, still_clock: MockClock) -> None:
    """In length, and in the time that they may take."""
    reasons: list[str] = []

    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 403 No\r\nContent-Length: 1000000\r\n\r\n" + body)
        await stream.receive_some()

    async def ask(upstream: Exchange) -> None:
        reasons.append(await why_lost(upstream.source()))

    async with tcp(talk) as upstream, trio.open_nursery() as nursery:
        nursery.start_soon(ask, upstream)
        if len(body) < 1000:
            await until_deadline_within(1.0)
            still_clock.jump(1.0)
        await until(lambda: reasons)
        assert body[:14].decode() in reasons[0]
        assert len(reasons[0]) < 200


async def test_credentials_of_an_address_are_sent_and_not_shown() -> None:
    """Percent-decoded and in the header for them; no text of ours repeats them."""
    heads: list[bytes] = []

    async def talk(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some()))
        await stream.send_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    async with tcp(talk) as upstream:
        url = f"ws://user:p%40ss@127.0.0.1:{upstream.port}/stream?streams=\u5e01usdt@trade"
        source = WebSocketSource("echo", SourceSettings(connector="echo", url=url), Echo)
        reason = await why_lost(source)
        assert reason == "the handshake was refused with HTTP status 401"
        assert b"\r\nAuthorization: Basic dXNlcjpwQHNz\r\n" in heads[0]
        assert heads[0].startswith(b"GET /stream?streams=%E5%B8%81usdt@trade HTTP/1.1\r\n")
        assert b"\r\nHost: 127.0.0.1:%d\r\n" % upstream.port in heads[0]


async def test_a_closed_port_is_told_at_once() -> None:
    """Its reason comes before any timeout."""
    with trio.socket.socket() as silent:  # bound, so that no other process gets the port, and not listening
        await silent.bind(("127.0.0.1", 0))
        upstream = Exchange(port=silent.getsockname()[1])
        assert await why_lost(upstream.source()) == (
            f"cannot connect to 127.0.0.1:{upstream.port}: Connection refused"
        )


class NoNames(trio.abc.HostnameResolver):
    """A resolver that knows no host."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise gaierror(EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def test_a_name_that_is_unknown_is_told() -> None:
    """The reason names the host."""
    trio.socket.set_custom_hostname_resolver(NoNames())
    source = WebSocketSource("echo", SourceSettings(connector="echo", url="wss://nowhere.test/ws"), Echo)
    assert await why_lost(source) == "cannot find nowhere.test: Name or service not known"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switch", b"HTTP/1.1 403 Forbidden\r\nContent"])
async def test_a_peer_that_hangs_up_in_the_handshake_is_lost_at_once(
    answer: bytes, still_clock: MockClock
) -> None:
    """Without waiting for the deadline, wherever it stopped: the deadline never comes here."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if answer:
            await stream.send_all(answer)

    async with tcp(talk) as upstream:
        assert await why_lost(upstream.source()) == "the upstream hung up during the handshake"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x00\x01 this is no HTTP", "the upstream does not speak HTTP"),
        (
            b"HTTP/1.1 101 Switching\r\n\xff: x\r\n\r\n",
            "the upstream does not speak WebSocket: Bad HTTP message",
        ),
        (b"HTTP/1.1 101 Switching\r\nConnection: \xff\r\n\r\n", "the upstream does not speak WebSocket: "),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", "does not speak WebSocket: Missing header"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nend", "refused with HTTP status 403"),
        (b"HTTP/1.1 101 " + b"x" * 70_000, "the upstream does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "refused with HTTP status 200"),
    ],
)
async def test_a_peer_that_does_not_speak_websocket_is_lost(
    answer: bytes, reason: str, still_clock: MockClock
) -> None:
    """An HTTP server, or any other bytes: the many errors of the library become one."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.receive_some()

    async with tcp(talk) as upstream:
        assert reason in await why_lost(upstream.source())


WELCOME = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: %b"]


def welcome(request: bytes, lines: Sequence[bytes] = WELCOME) -> bytes:
    """The answer to a handshake; "%b" stands for the right key."""
    key = re.search(rb"Sec-WebSocket-Key: (.*)\r\n", request)
    assert key is not None
    accept = generate_accept_token(key[1])
    told = [line.replace(b"%b", accept) for line in lines]
    return b"\r\n".join((b"HTTP/1.1 101 Switching Protocols", *told)) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (WELCOME[1:], "Upgrade: websocket"),
        ([b"Upgrade: h2c", *WELCOME[1:]], "Upgrade: websocket"),
        ([WELCOME[0], WELCOME[2]], "Connection: Upgrade"),
        ([WELCOME[0], b"Connection: close", WELCOME[2]], "Connection: Upgrade"),
        (WELCOME[:2], "Bad accept token"),
        ([*WELCOME[:2], b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], "Bad accept token"),
        ([*WELCOME, b"Sec-WebSocket-Protocol: not-asked-for"], "unrecognized subprotocol"),
        ([*WELCOME, b"Sec-WebSocket-Extensions: permessage-deflate"], "unrecognized extension"),
    ],
)
async def test_an_answer_that_does_not_fit_our_handshake_ends_the_connection(
    lines: list[bytes], words: str
) -> None:
    """RFC 6455, section 4.1: every check that a client must make."""
    ended = trio.Event()

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(welcome(await stream.receive_some(), lines))
        assert await stream.receive_some() == b""
        ended.set()

    async with tcp(talk) as upstream:
        reason = await why_lost(upstream.source())
        assert reason.startswith("the upstream does not speak WebSocket: ")
        assert words in reason
        await ended.wait()


@pytest.mark.parametrize("split", [True, False])
async def test_other_heads_may_come_before_the_answer(split: bool) -> None:
    """RFC 9110, section 15.2: a client understands any number of them, though it does not expect them."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"

    async def talk(stream: trio.SocketStream) -> None:
        request = bytes(await stream.receive_some())
        answer = interim + welcome(request) + b"\x81\x05first"
        for piece in (answer[:30], answer[30:90], answer[90:]) if split else (answer,):
            await stream.send_all(piece)
            await until_delivered(stream.socket)
        await stream.receive_some()

    async with tcp(talk) as upstream, upstream.source().connect() as link:
        assert await hear(link, 1) == ["first"]


async def test_keys_and_masks_are_new_each_time() -> None:
    """RFC 6455, sections 4.1 and 5.3: 16 random bytes a handshake, an unpredictable mask a frame."""
    keys, masks = list[bytes](), list[bytes]()

    async def talk(stream: trio.SocketStream) -> None:
        request = bytes(await stream.receive_some())
        found = re.search(rb"\r\nSec-WebSocket-Key: (.*)\r\n", request)
        assert found is not None
        keys.append(b64decode(found[1], validate=True))
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in request
        await stream.send_all(welcome(request))
        frame = await stream.receive_some()  # "hello"
        assert frame[1] == 0x80 | 5
        masks.append(bytes(frame[2:6]))
        await stream.receive_some()

    async with tcp(talk) as upstream:
        for number in range(1, 5):
            async with upstream.source().connect():
                await until(lambda number=number: len(masks) == number)  # type: ignore[misc]
    assert [len(key) for key in keys] == [16] * 4
    assert len(set(keys)) == len(set(masks)) == 4


async def test_a_peer_that_breaks_the_protocol_is_lost() -> None:
    """Bytes that are no frame end the connection with a reason."""

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        await connection.get_message()
        await connection._stream.send_all(b"\x83\x01x")
        await connection.get_message()

    async with exchange(talk) as upstream:
        assert await why_lost(upstream.source()) == "the protocol was broken: unknown opcode 0x3"


async def test_a_peer_without_tls_is_told() -> None:
    """wss:// to a plain port."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with tcp(talk) as upstream:
        assert (await why_lost(upstream.source(scheme="wss"))).startswith(
            f"no TLS with 127.0.0.1:{upstream.port}: "
        )


@pytest.fixture
def mock_clock() -> MockClock:
    """Jumps to the next deadline once nothing has moved for a moment."""
    return MockClock(autojump_threshold=0.05)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_peer_that_never_answers_is_given_up_in_time(mock_clock: MockClock, scheme: str) -> None:
    """Connected but silent: `connect_within` covers the whole handshake."""

    async def talk(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with tcp(talk) as upstream:
        started = trio.current_time()
        reason = await why_lost(upstream.source(scheme=scheme, connect_within=7.0))
        assert reason == f"no connection to 127.0.0.1:{upstream.port} within 7 s"
        assert trio.current_time() - started == pytest.approx(7.0)


@pytest.mark.parametrize("flood", [False, True])
async def test_leaving_is_bounded_when_the_peer_is_stalled(mock_clock: MockClock, flood: bool) -> None:
    """It neither answers the close nor reads. The socket is closed all the same, half a second later."""
    stalled, closed = trio.Event(), trio.Event()

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        stream = connection._stream
        connection._reader_running = False
        await connection._stream_lock.acquire()
        stalled.set()
        await trio.sleep(100)
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        closed.set()

    async with exchange(talk) as upstream:
        started = trio.current_time()
        async with upstream.source(subscribe_within=3.0).connect() as link:
            await stalled.wait()
            if flood:
                with pytest.raises(LinkLost, match=r"^the upstream took no message for 3 s$"):
                    await link.subscribe(["x" * 1_000_000] * 50)
                with pytest.raises(LinkLost, match="cut off on its way"):
                    await link.probe()
        assert trio.current_time() - started <= (3.6 if flood else 0.6)
        await closed.wait()


async def test_leaving_says_goodbye() -> None:
    """A peer that answers sees a normal closing handshake."""
    farewell: list[Any] = []
    done = trio.Event()

    async def talk(seen: Exchange, connection: WebSocketConnection) -> None:
        with suppress(ConnectionClosed):
            await listen(seen, connection)
        farewell.append(connection.closed)
        done.set()

    async with exchange(talk) as upstream:
        async with upstream.source().connect():
            pass
        await done.wait()
    assert [reason.code for reason in farewell] == [1000]


async def test_an_error_of_the_user_comes_out_as_it_is() -> None:
    """Neither wrapped in a group nor taken for a lost connection."""
    async with exchange(echo) as upstream:
        error = KeyError("mine")
        with pytest.raises(KeyError) as caught:
            async with upstream.source().connect():
                raise error
        assert caught.value is error
        assert caught.value.__context__ is None


async def test_cancelling_leaves_at_once_and_is_no_loss() -> None:
    """In the middle of a read, with the peer still there."""
    async with exchange(echo) as upstream:
        with trio.CancelScope() as scope:
            async with upstream.source().connect() as link:
                await link.receive()
                scope.cancel()
                await link.receive()
        assert scope.cancelled_caught


async def test_cancelling_the_handshake_is_no_loss() -> None:
    """An actor that is stopped while it connects does not report a lost connection."""

    async def talk(stream: trio.SocketStream) -> None:
        scope.cancel()
        await trio.sleep_forever()

    async with tcp(talk) as upstream:
        with trio.CancelScope() as scope:
            async with upstream.source().connect():
                raise AssertionError("connected to nobody")
        assert scope.cancelled_caught


async def test_an_address_that_is_no_websocket_is_refused() -> None:
    """The user's mistake, before anything is dialled."""
    with pytest.raises(ValueError, match="must begin with ws:// or wss://"):
        WebSocketSource("echo", SourceSettings(connector="echo", url="http://x"), Echo)


async def test_a_defect_of_a_codec_is_not_taken_for_a_lost_connection() -> None:
    """A new connection would not help: the error stays the same, from any method of the codec."""

    class Broken(Echo):
        def decode(self, message: str | bytes, into: Received[Item]) -> None:
            raise ZeroDivisionError

    class Mute(Echo):
        def opening(self) -> Sequence[str]:
            raise ZeroDivisionError

    async with exchange(echo) as upstream:
        settings = SourceSettings(connector="echo", url=f"ws://127.0.0.1:{upstream.port}")
        for codec in (Broken, Mute):
            with pytest.raises(ZeroDivisionError):
                await why_lost(WebSocketSource("echo", settings, codec))
