"""A WebSocket that stays with the HTTP server: HTTP/2, or any ASGI server. Like `SocketWire`, but slower.

Rules of this file: every send waits, in the order of `write`; `write_nowait` takes nothing. The server
cancels the handler's task when the peer has left, so that task must stay until the wire is over: `take_over`
sees to it. ASGI does not tell everything, and nothing is guessed: without our server's `Seat` a peer's close
code is lost (1006), there are no pings, a connected peer counts as heard, and the pieces of a long message
are joined in memory, for ASGI sends whole messages only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

import trio
from attrs import frozen
from quart.wrappers import Websocket

from actors.session import Ending
from dataflow.net.websocket.frames import VANISHED
from dataflow.net.websocket.parser import TEXT_ONLY, TOO_BIG, Goodbye

from .connection import Seat
from .endings import CODES, WebSocketClosed
from .handshake import Messages, peer_in

_LOST: Final = Goodbye(VANISHED, "connection lost")


@frozen
class _Piece:
    """A piece of one message."""

    data: Any  # str or bytes
    last: bool

    def __len__(self) -> int:
        return len(self.data)


class AsgiWire:
    """One client through an accepted Quart websocket. A payload is a tuple of texts."""

    _HEARS: ClassVar = False  # binary messages

    def __init__(
        self, websocket: Websocket, seat: Seat | None, *, max_message_bytes: int, close_within: float = 2.0
    ) -> None:
        self.peer = peer_in(websocket.scope)
        self._websocket = websocket
        self._seat = seat
        self._max_bytes = max_message_bytes
        self._close_within = close_within
        self._end: Goodbye | None = None
        self._receiving = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._pieces: list[Any] = []  # of a message that is not whole yet, without a seat
        self._left = trio.Event()  # the server has ended the handler: there is no peer any more
        self._over = trio.Event()  # the handler may end

    @property
    def heard(self) -> float:
        """`trio.current_time()` of the last byte that came in."""
        return trio.current_time() if self._seat is None else self._seat.heard

    @staticmethod
    def pack(texts: Sequence[bytes]) -> tuple[Any, ...]:
        """k text messages as one payload. Pure."""
        return tuple([text.decode() for text in texts])

    @property
    def plain(self) -> Callable[[Sequence[bytes]], tuple[Any, ...]]:
        """The same as `pack`: nothing is compressed here."""
        return self.pack

    @staticmethod
    def size(payload: tuple[Any, ...]) -> int:
        """The characters of a payload."""
        return sum(map(len, payload))

    def piece(self, text: bytes, first: bool, last: bool) -> tuple[Any, ...]:
        """A piece of one message as a payload."""
        return (_Piece(text.decode(), last),)

    def turn_binary(self) -> None:
        raise AssertionError("this wire sends one kind of message")

    stays = True  # in a request of the HTTP server
    way = None  # ASGI has no socket

    def watch(self, watcher: object) -> None:
        """There is nothing to watch."""

    def cut(self, payload: Any, taken: int) -> Any:
        raise AssertionError("there is no short way")

    def write_nowait(self, payload: tuple[str, ...]) -> tuple[str, ...] | None:
        """Takes nothing: ASGI cannot send without waiting. Never raises."""
        return payload

    async def write(self, payloads: Sequence[tuple[str, ...]]) -> None:
        """Send all of it. Raises WireClosed. After a cancellation only `close` and `abort` are of use."""
        with trio.CancelScope() as self._sending:
            for payload in payloads:
                for text in payload:
                    self._check()
                    await self._send(text)
        self._check()

    async def _send(self, text: Any) -> None:
        if not isinstance(text, _Piece):
            await self._websocket.send(text)
        elif self._seat is not None:
            await self._seat.send_piece(text.data, text.last)
        else:
            self._pieces.append(text.data)
            if text.last:
                whole, self._pieces = text.data[:0].join(self._pieces), []
                await self._websocket.send(whole)

    async def receive(self) -> Any:
        """The next message: str. Raises WireClosed. Cancelling it loses nothing."""
        self._check()
        with trio.CancelScope() as self._receiving:
            message: object = await self._websocket.receive()
        self._check()
        if message is None:  # Quart's word for a binary message without bytes
            message = b""
        if isinstance(message, bytes) and self._HEARS and len(message) <= self._max_bytes:
            return message
        if not isinstance(message, str):
            await self._part(Goodbye(TEXT_ONLY, "text messages only", fault=True))
        elif len(message) > self._max_bytes or len(message.encode()) > self._max_bytes:
            await self._part(Goodbye(TOO_BIG, f"a message may have {self._max_bytes} bytes", fault=True))
        else:
            return message
        raise self._closed()

    async def ping(self) -> None:
        """Ask the peer for a pong."""
        if self._seat is not None and self._end is None:
            await self._seat.ping()
        else:
            await trio.lowlevel.checkpoint()

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        """End the wire for this reason, within a bound. Never raises."""
        await self.close_with(CODES[why] if code is None else code, words)

    async def close_with(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the peer to leave, within a bound. Never raises."""
        await self._part(Goodbye(code, reason))

    async def _part(self, end: Goodbye) -> None:
        if self._end is None:
            self._end = end
            self._receiving.cancel()
            try:
                with trio.move_on_after(self._close_within):
                    with suppress(RuntimeError):  # raised by Quart for a second close
                        await self._websocket.close(end.code, end.reason)
                    await self._left.wait()
            finally:
                self._over.set()

    def abort(self) -> None:
        """Close at once."""
        self._finish(Goodbye(VANISHED, "aborted"))
        if self._seat is not None:
            self._seat.abort()

    async def stay(self) -> None:
        """Keep the handler's task, which calls this, until the wire is over."""
        try:
            await self._over.wait()
        finally:
            self._left.set()
            goodbye = None if self._seat is None else self._seat.frames.goodbye
            self._finish(goodbye or _LOST)

    def _check(self) -> None:
        if self._end is not None:
            raise self._closed()

    def _closed(self) -> WebSocketClosed:
        """Always a new exception: one that is kept keeps its frames, and those keep us."""
        assert self._end is not None
        return WebSocketClosed(self._end.code, self._end.reason, self._end.fault)

    def _finish(self, end: Goodbye) -> None:
        self._end = self._end or end
        self._receiving.cancel()
        self._sending.cancel()
        self._over.set()


class BinaryAsgiWire(AsgiWire):
    """Sends binary messages and receives either kind: `receive` gives str or bytes."""

    _HEARS = True

    @staticmethod
    def pack(texts: Sequence[bytes]) -> tuple[Any, ...]:
        """k binary messages as one payload. Pure."""
        return tuple(texts)

    def piece(self, text: bytes, first: bool, last: bool) -> tuple[Any, ...]:
        """A piece of one message as a payload."""
        return (_Piece(text, last),)


class EitherAsgiWire(AsgiWire):
    """Receives either kind of message, and sends text until `turn_binary`."""

    _HEARS = True
    _binary = False

    @property
    def pack(self) -> Callable[[Sequence[bytes]], tuple[Any, ...]]:  # type: ignore[override]
        """Makes one payload of k messages. Pure."""
        return BinaryAsgiWire.pack if self._binary else AsgiWire.pack

    def piece(self, text: bytes, first: bool, last: bool) -> tuple[Any, ...]:
        """A piece of one message as a payload."""
        return (_Piece(text if self._binary else text.decode(), last),)

    def turn_binary(self) -> None:
        """From now on send binary messages."""
        self._binary = True


ASGI_WIRES: Final[Mapping[Messages, type[AsgiWire]]] = {
    Messages.TEXT: AsgiWire,
    Messages.BINARY: BinaryAsgiWire,
    Messages.EITHER: EitherAsgiWire,
}
