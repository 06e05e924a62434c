"""A source that is reached over a WebSocket: connects, and hands over everything that is waiting.

Rules of this file. It knows no exchange: what is said and understood is the codec's. Whatever ends or
prevents a connection comes out as `LinkLost` with a reason for people. Two tasks of its own read: the
library's, and a pump into a bounded channel; when that is full the pump waits, the library stops
reading, and TCP slows the upstream down: nothing is dropped here. Leaving the connection closes the
socket within half a second, whatever the peer does.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from socket import gaierror
from typing import Final
from urllib.parse import SplitResult, urlsplit

import trio
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import ProtocolError

from actors.connector import LinkLost, Received

from .domain import Item
from .ports import Codec, SourceSettings

_WAITING: Final = 256  # messages between the pump and the connector; full: the upstream is slowed down
_BATCH: Final = 256  # messages decoded without a checkpoint
_CLOSE_WITHIN: Final = 0.5  # seconds for a closing handshake
_RECEIVE_BYTES: Final = 1 << 16
_ABNORMAL: Final = 1006  # no closing handshake came
_PORTS: Final = {"ws": 80, "wss": 443}
_BROKEN: Final = (
    ConnectionClosed,
    ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


class WebSocketSource:
    """An upstream at `settings.url`; `make_codec` makes a fresh codec for every connection.

    Raises ValueError when the URL is not one of a WebSocket.
    """

    def __init__(self, name: str, settings: SourceSettings, make_codec: Callable[[], Codec]) -> None:
        self.name = name
        self._settings = settings
        self._make_codec = make_codec
        self._address = _Address(urlsplit(settings.url))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[WebSocketLink]:
        """A fresh connection. Entering raises LinkLost when there is none within `connect_within`."""
        codec = self._make_codec()
        headers, opening = codec.headers(), codec.opening()
        failure: BaseExceptionGroup[BaseException] | None = None
        inside: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                link = await self._open(nursery, codec, headers)
                try:
                    await link.say(opening)
                    yield link
                except BaseException as error:
                    inside = error
                    raise
                finally:
                    await link.close()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failure = group
        if failure is not None:
            raise _foremost(failure, inside)

    async def _open(
        self, nursery: trio.Nursery, codec: Codec, headers: Collection[tuple[str, str]]
    ) -> WebSocketLink:
        within = self._settings.connect_within
        try:
            with trio.fail_after(within):
                stream = _Watched(await self._address.dial())
                connection = await self._shake_hands(nursery, stream, headers)
        except trio.TooSlowError:
            raise LinkLost(f"no connection to {self._address} within {within:g} s") from None
        link = WebSocketLink(connection, stream, codec, self._settings.subscribe_within)
        nursery.start_soon(link.pump)
        return link

    async def _shake_hands(
        self, nursery: trio.Nursery, stream: _Watched, headers: Collection[tuple[str, str]]
    ) -> WebSocketConnection:
        try:
            async with trio.open_nursery() as attempt:
                attempt.start_soon(stream.lost_when_ended)
                connection = await wrap_client_stream(
                    nursery,
                    stream,  # type: ignore[arg-type]  # any stream will do
                    str(self._address),
                    self._address.resource,
                    extra_headers=[(name.encode(), value.encode()) for name, value in headers],
                    max_message_size=self._settings.max_message_bytes,
                    receive_buffer_size=_RECEIVE_BYTES,
                )
                attempt.cancel_scope.cancel()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return connection


class WebSocketLink:
    """One live connection: `actors.connector.Link` for trades."""

    def __init__(
        self, connection: WebSocketConnection, stream: trio.abc.Stream, codec: Codec, say_within: float
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._codec = codec
        self._say_within = say_within
        self._inlet, self._outlet = trio.open_memory_channel[str | bytes](_WAITING)
        self._ended = "the connection has ended"

    async def receive(self) -> Received[Item]:
        """Everything that is waiting, decoded, at least one message. Cancelling it loses nothing.

        Raises LinkLost when the connection has ended and all that came before was received.
        """
        try:
            message = await self._outlet.receive()
        except trio.EndOfChannel:
            raise LinkLost(self._ended) from None
        into: Received[Item] = Received()
        self._codec.decode(message, into)
        for message in self._waiting(_BATCH - 1):
            self._codec.decode(message, into)
        return into

    async def subscribe(self, topics: Collection[str]) -> None:
        """Ask for the trades of symbols. Raises LinkLost."""
        await self.say(self._codec.subscribe(topics))

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """Ask for their end. Raises LinkLost."""
        await self.say(self._codec.unsubscribe(topics))

    async def probe(self) -> None:
        """Provoke a sign of life. Raises LinkLost."""
        await self.say(self._codec.probe())

    async def say(self, messages: Sequence[str]) -> None:
        """Send messages in order. Raises LinkLost, also when the upstream does not take them in time."""
        try:
            with trio.fail_after(self._say_within):
                for message in messages:
                    await self._connection.send_message(message)
        except trio.TooSlowError:
            raise LinkLost(f"the upstream took no message for {self._say_within:g} s") from None
        except _BROKEN as error:
            raise LinkLost(_why(error)) from error

    async def pump(self) -> None:
        """Move messages to where `receive` finds them, until the connection ends."""
        async with self._inlet:
            try:
                while True:
                    await self._inlet.send(await self._connection.get_message())
            except ConnectionClosed as closed:
                self._ended = _why(closed)

    async def close(self) -> None:
        """Say goodbye, wait for the answer no longer than a moment, and close the socket in any case."""
        try:
            with trio.move_on_after(_CLOSE_WITHIN):
                await self._connection.aclose()
        except _BROKEN:
            return  # it was gone already
        finally:
            await trio.aclose_forcefully(self._stream)

    def _waiting(self, limit: int) -> Iterator[str | bytes]:
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            for _ in range(limit):
                yield self._outlet.receive_nowait()


class _Address:
    """Where to dial, and how to name it in the Host header."""

    def __init__(self, url: SplitResult) -> None:
        if url.scheme not in _PORTS:
            raise ValueError(f"not a ws:// or wss:// address: {url.geturl()}")
        self._encrypted = url.scheme == "wss"
        self._host = url.hostname or ""
        self._port = url.port or _PORTS[url.scheme]
        self.resource = (url.path or "/") + (f"?{url.query}" if url.query else "")

    def __str__(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return host if self._port in _PORTS.values() else f"{host}:{self._port}"

    async def dial(self) -> trio.abc.Stream:
        """A connected stream. Raises LinkLost."""
        try:
            stream = await trio.open_tcp_stream(self._host, self._port)
        except gaierror as error:
            raise LinkLost(f"cannot find {self._host}: {error.strerror}") from error
        except OSError as error:
            raise LinkLost(f"cannot connect to {self}: {_why(error)}") from error
        return await self._encrypt(stream) if self._encrypted else stream

    async def _encrypt(self, stream: trio.SocketStream) -> trio.abc.Stream:
        context = ssl.create_default_context()
        encrypted = trio.SSLStream(stream, context, server_hostname=self._host, https_compatible=True)
        try:
            await encrypted.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise LinkLost(f"no TLS with {self}: {_why(error)}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return encrypted


class _Watched(trio.abc.Stream):
    """A stream that tells when its peer hung up: in a handshake, trio-websocket would wait on."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._ended = trio.Event()

    async def lost_when_ended(self) -> None:
        """Raises LinkLost as soon as nothing more can come."""
        await self._ended.wait()
        raise LinkLost("the upstream hung up during the handshake")

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ended.set()
            raise
        if not data:
            self._ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _foremost(group: BaseExceptionGroup[BaseException], inside: BaseException | None) -> BaseException:
    """What the user of the connection should see: its own error, else why the connection failed."""
    if inside is not None and any(not isinstance(leaf, trio.Cancelled) for leaf in _leaves(inside)):
        return inside
    leaves = list(_leaves(group))
    failures = [leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)]
    if not failures:
        return inside or leaves[0]
    return _as_lost(next((leaf for leaf in failures if not isinstance(leaf, LinkLost)), failures[0]))


def _as_lost(error: BaseException) -> BaseException:
    """Our own code in the connection's tasks raises LinkLost; what else fails there is the connection."""
    if isinstance(error, LinkLost) or not isinstance(error, Exception):
        return error
    lost = LinkLost(_why(error))
    lost.__cause__ = error
    return lost


def _why(error: BaseException) -> str:
    """A short reason for people."""
    if isinstance(error, ConnectionClosed):
        return _why_closed(error.reason)
    if isinstance(error, ConnectionRejected):
        return f"the handshake was refused with HTTP status {error.status_code}"
    first = next(_leaves(error.__cause__ or error))
    if isinstance(first, ssl.SSLError):
        return getattr(first, "verify_message", None) or first.reason or str(first)
    if isinstance(first, OSError):
        return os.strerror(first.errno) if first.errno else str(first)
    return f"the protocol was broken: {type(first).__name__}"


def _why_closed(reason: CloseReason | None) -> str:
    if reason is None:
        return "the connection was closed"
    if reason.code == _ABNORMAL:
        return "the upstream hung up"
    return f"closed with {reason.code}: {reason.reason or reason.name.lower().replace('_', ' ')}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
