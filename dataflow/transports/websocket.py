"""A source over a WebSocket. It connects, and one read returns all waiting messages.

Rules of this file. It knows no exchange: the codec writes and reads the messages. Any failure to connect, and
any end of a connection, raises `LinkLost` with a reason for people. The source has no task and no queue of
its own. It reads the socket when the connector asks for more, so TCP slows down an upstream that is too fast,
and nothing is dropped. A cancelled read loses nothing. Leaving the connection closes the socket within half a
second, whatever the peer does.

trio-websocket is not used here: its tasks cost two switches per message. README.md has the figures.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from socket import gaierror
from typing import Final

import trio
from wsproto import ConnectionType
from wsproto.connection import Connection, ConnectionState
from wsproto.events import CloseConnection, RejectConnection, RejectData, Request, TextMessage
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from actors.connector import LinkLost, Received
from dataflow.domain import Item
from dataflow.domain.secrets import concealed
from dataflow.net.address import Address, parse, parse_proxy
from dataflow.net.pace import Kind, Pace
from dataflow.net.refusal import by_name, retry_after
from dataflow.net.stream import SocketStream, connect
from dataflow.net.tunnel import ProxyFailed, tunnel
from dataflow.net.websocket.inbound import UpstreamReader
from dataflow.sources.port import Codec, SourceSettings
from dataflow.sources.reading import excerpt
from supervisors import leaves

_BATCH: Final = 512  # messages decoded without a checkpoint: as many ordinary trades as one receive holds
_PROBLEMS: Final = 64  # and of messages that cannot be used: each is counted and told, which takes longer
_CLOSE_WITHIN: Final = 0.5  # seconds for a closing handshake
_RECEIVE_BYTES: Final = 1 << 16
_MAX_HEAD: Final = 1 << 16  # bytes of the HTTP answer to the handshake
_MAX_BODY: Final = 1 << 10  # bytes of the body of a refusal
_BODY_WITHIN: Final = 1.0  # seconds for them
_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_INTERIM: Final = re.compile(rb"HTTP/1\.[0-9] 1(?!01)[0-9][0-9][ \r]").match  # RFC 9110, section 15.2
_HUNG_UP: Final = "the upstream hung up"
_NO_WEBSOCKET: Final = "the upstream does not speak WebSocket"


class WebSocketSource:
    """An upstream at `settings.url`. `make_codec` makes a fresh codec for every connection.
    `paced` gets the pace of each.

    Raises ValueError for a URL that the check of a configuration refuses.
    """

    def __init__(
        self,
        name: str,
        settings: SourceSettings,
        make_codec: Callable[[], Codec],
        paced: Callable[[Pace], object] = lambda _pace: None,
    ) -> None:
        self.name = name
        self._paced = paced
        self._settings = settings
        self._make_codec = make_codec
        self._address = parse(settings.url)
        self._proxy = parse_proxy(settings.proxy) if settings.proxy else None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[WebSocketLink]:
        """A fresh connection. Entering raises LinkLost if there is none within `connect_within` seconds."""
        link = await self._open(self._make_codec())
        try:
            await link.say_opening()
            yield link
        finally:
            await link.close()

    async def _open(self, codec: Codec) -> WebSocketLink:
        within = self._settings.connect_within
        try:
            with trio.fail_after(within):
                stream = await _dial(self._address, self._proxy)
                try:
                    connection, rest = await _shake_hands(self._address, stream, codec.headers())
                except BaseException:
                    stream.close()
                    raise
        except trio.TooSlowError:
            by = f" through the proxy {self._proxy}" if self._proxy else ""
            raise LinkLost(f"no connection to {self._address}{by} within {within:g} s") from None
        inbound = UpstreamReader(connection, self._settings.max_message_bytes)
        inbound.feed(rest, trio.current_time())
        pace = Pace(self._settings.requests_per_second)
        self._paced(pace)
        return WebSocketLink(stream, connection, inbound, codec, self._settings, pace)


Source = WebSocketSource  # the name by which a transport is found


class WebSocketLink:
    """One live connection: `actors.connector.Link` for trades."""

    def __init__(
        self,
        stream: SocketStream,
        connection: Connection,
        inbound: UpstreamReader,
        codec: Codec,
        settings: SourceSettings,
        pace: Pace,
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._inbound = inbound
        self._codec = codec
        self._say_within = settings.subscribe_within
        self._symbols_a_request = settings.symbols_a_request
        self._pace = pace
        self._sending = trio.Lock()
        self._size = 0  # bytes read since the last Received
        self._has_parted = False  # and the answer had its time
        self._torn = False  # a send was cut off: the peer could not understand anything after it

    async def receive(self) -> Received[Item]:
        """All waiting messages, decoded; at least one. Cancelling it loses nothing.

        Raises LinkLost when the connection has ended and all messages before its end were received.
        """
        if self._inbound.messages:
            await trio.lowlevel.checkpoint()  # other tasks must run during a flood too
        while not self._inbound.messages:
            if self._inbound.ended is not None:
                raise LinkLost(self._inbound.ended)
            await self._read()
        messages, into, decoded = self._inbound.messages, Received[Item](size=self._size), 0
        self._size = 0
        decode, batch = self._codec.decode, min(_BATCH, len(messages))
        while decoded < batch and len(into.problems) < _PROBLEMS:
            for message in messages[decoded : decoded + _PROBLEMS]:
                decode(message, into)
            decoded += _PROBLEMS
        into.messages = min(decoded, len(messages))
        del messages[:decoded]
        return into

    async def turn(self) -> int:
        """Wait until the pace of the source allows one more request. Returns how many symbols it may name."""
        await trio.sleep_until(self._pace.free_at(Kind.REQUEST))
        return self._symbols_a_request

    async def subscribe(self, topics: Collection[str]) -> None:
        """Subscribe to the trades of symbols. Raises LinkLost."""
        await self._say(self._codec.subscribe(topics))

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """Unsubscribe from them. Raises LinkLost."""
        await self._say(self._codec.unsubscribe(topics))

    async def probe(self) -> None:
        """Provoke a sign of life. Raises LinkLost."""
        await self._say(self._codec.probe())

    async def part(self) -> None:
        """Send a close frame. What comes before the answer to it is still received. Raises LinkLost."""
        self._has_parted = True
        if self._connection.state is ConnectionState.OPEN:
            await self._send(self._connection.send(CloseConnection(1000)), None)

    async def say_opening(self) -> None:
        """Send the opening messages of the codec. Raises LinkLost."""
        await self._say(self._codec.opening())

    async def close(self) -> None:
        """Send a close frame, wait for the answer for a moment at most, and close the socket in any case."""
        try:
            with trio.move_on_after(_CLOSE_WITHIN), suppress(LinkLost):
                await self._answer()  # the end may have come with the answer to our handshake
                if self._connection.state is ConnectionState.OPEN:
                    await self._send(self._connection.send(CloseConnection(1000)), None)
                while self._inbound.ended is None and not self._has_parted:
                    await self._read()
                    self._inbound.messages.clear()
                if self._inbound.at_fault:
                    await self._discard()
        finally:
            self._stream.close()

    async def _discard(self) -> None:
        """Read on without a look: bytes that are left unread would take our last words back."""
        with suppress(*_BROKEN):
            while await self._stream.receive_some(_RECEIVE_BYTES):
                pass

    async def _read(self) -> None:
        """Read once, or send what is owed when its turn has come before anything could be read."""
        if self._inbound.owed:
            with trio.CancelScope(deadline=self._pace.free_at(Kind.ANSWER)):
                await self._hear()
        else:
            await self._hear()
        # The messages are kept before anything is sent: a cancelled answer must not lose one.
        if self._inbound.owed:
            await self._answer()

    async def _hear(self) -> None:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except _BROKEN:
            data = b""
        if data:
            self._size += len(data)
            self._inbound.feed(data, trio.current_time())
        elif self._inbound.ended is None:
            self._inbound.ended = _HUNG_UP

    async def _answer(self) -> None:
        """Send what is owed. A pong waits for its turn, while more is read, and answers the newest ping."""
        owed = self._inbound.owed
        pace = Kind.ANSWER if self._inbound.ended is None else None
        if pace:
            del owed[:-1]
        while owed:
            with suppress(LinkLost):
                if not await self._send(owed[0], pace):
                    return
            del owed[0]

    async def _say(self, messages: Sequence[str]) -> None:
        for message in messages:
            while not await self._say_now(message):
                await self.turn()

    async def _say_now(self, message: str) -> bool:
        """Send a request, if it is its turn."""
        try:
            with trio.fail_after(self._say_within):
                self._check_open()
                return await self._send(self._connection.send(TextMessage(message)), Kind.REQUEST)
        except trio.TooSlowError:
            raise LinkLost(f"the upstream took no message for {self._say_within:g} s") from None

    def _check_open(self) -> None:
        if self._inbound.ended is not None:
            raise LinkLost(self._inbound.ended)

    async def _send(self, frame: bytes, kind: Kind | None) -> bool:
        """Send a frame, if the pace allows its kind now. The end of a connection has no pace (None)."""
        async with self._sending:
            if kind and self._pace.free_at(kind) > (now := trio.current_time()):
                return False
            if self._torn:
                raise LinkLost("a message was cut off on its way to the upstream")
            if kind:
                self._pace.left(kind, now)
            self._torn = True
            try:
                await self._stream.send_all(frame)
            except _BROKEN as error:
                raise LinkLost(_HUNG_UP) from error
            self._torn = False
        return True


async def _dial(address: Address, proxy: Address | None) -> SocketStream:
    """A connected stream, over TLS where the address says so, through the proxy. Raises LinkLost."""
    context = ssl.create_default_context() if address.encrypted else None
    near = f"the proxy {proxy}" if proxy else str(address)
    try:
        if proxy is None:
            return await connect(address.host, address.port, context)
        stream = await tunnel(proxy, address.host, address.port)
        if context is not None:
            try:
                await stream.encrypt(context, address.host)
            except BaseException:
                stream.close()
                raise
        return stream
    except gaierror as error:
        raise LinkLost(f"cannot find {proxy.host if proxy else address.host}: {error.strerror}") from error
    except ProxyFailed as error:
        raise LinkLost(str(error), at_least=error.at_least) from error
    except OSError as error:
        raise LinkLost(f"cannot connect to {near}: {_why(error)}") from error
    except trio.BrokenResourceError as error:
        raise LinkLost(f"no TLS with {address}: {_why(error)}") from error


async def _shake_hands(
    address: Address, stream: SocketStream, headers: Collection[tuple[str, str]]
) -> tuple[Connection, bytes]:
    """The open connection, and the bytes behind the handshake. Raises LinkLost."""
    handshake = H11Handshake(ConnectionType.CLIENT)
    extra = [(name.encode(), value.encode()) for name, value in headers]
    if address.authorization is not None:
        extra.append((b"Authorization", address.authorization.encode()))
    request = handshake.send(Request(host=str(address), target=address.resource, extra_headers=extra))
    try:
        await stream.send_all(request)
        head, rest = await _head(stream)
        if refusal := _refusal(handshake, head):
            raise await _refused(handshake, refusal, stream, rest)
    except _BROKEN as error:
        raise LinkLost(f"{_HUNG_UP} during the handshake") from error
    if handshake.connection is None:
        raise LinkLost(_NO_WEBSOCKET)
    return handshake.connection, rest


async def _head(stream: SocketStream) -> tuple[bytes, bytes]:
    """The head of the final HTTP answer, and the bytes behind it. Others may come before that."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or _INTERIM(received):
        if end >= 0:
            received = received[end + 4 :]
            continue
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not data:
            raise LinkLost(f"{_HUNG_UP} during the handshake")
        received += data
        if not received.startswith(b"HTTP/"[: len(received)]) or len(received) > _MAX_HEAD:
            raise LinkLost("the upstream does not speak HTTP")
    return received[: end + 4], received[end + 4 :]


def _refusal(handshake: H11Handshake, head: bytes) -> RejectConnection | None:
    try:
        handshake.receive_data(head)
    except Exception as error:  # the library has many errors for wrong bytes
        raise LinkLost(f"{_NO_WEBSOCKET}: {error}") from error
    return next((event for event in handshake.events() if isinstance(event, RejectConnection)), None)


async def _refused(
    handshake: H11Handshake, refusal: RejectConnection, stream: SocketStream, rest: bytes
) -> LinkLost:
    """The end of a refused handshake, with what the upstream says about it."""
    reason = f"the handshake was refused with HTTP status {refusal.status_code}"
    named = by_name(refusal.headers)
    if 300 <= refusal.status_code < 400 and (location := named.get("location")):
        reason += f"; the new address is {excerpt(concealed(location))}"
    wait = retry_after(refusal.status_code, refusal.headers, time.time())
    if wait:
        reason += f"; to be tried again after {wait:g} s"
    if said := await _body(handshake, stream, rest):
        reason += f": {excerpt(said.decode(errors='replace'))}"
    return LinkLost(reason, at_least=wait)


async def _body(handshake: H11Handshake, stream: SocketStream, rest: bytes) -> bytes:
    """The beginning of the body of a refusal, as far as it comes at once."""
    body = b""
    with trio.move_on_after(_BODY_WITHIN), suppress(*_BROKEN, RemoteProtocolError):
        while len(body) < _MAX_BODY:
            if rest:
                handshake.receive_data(rest)
            for event in handshake.events():
                if isinstance(event, RejectData):
                    body += event.data
                    if event.body_finished:
                        return body
            rest = bytes(await stream.receive_some(_RECEIVE_BYTES))
            if not rest:
                break
    return body


def _why(error: BaseException) -> str:
    """The first cause, in the words of the operating system."""
    first = next(leaves(error.__cause__ or error))
    if isinstance(first, ssl.SSLError):
        return getattr(first, "verify_message", None) or first.reason or str(first)
    if isinstance(first, OSError) and first.errno:
        return os.strerror(first.errno)
    return str(first) or type(first).__name__
