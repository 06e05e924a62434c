"""The common half of the wires over HTTP responses: what leaves and what comes waits here, within bounds.

Rules of this file. The session writes into a bounded buffer, and responses take from it. The rest waits in
the session's outbox, as with any slow client. What a client sends by requests beside the response waits in
an inbox until the session takes it. The inbox is bounded, too: what finds no room is refused, and the client
learns it by the answer to its request. Nothing here knows the protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from actors.session import Ending, WireClosed

BUFFER_BYTES: Final = 65536  # taken from the session before a response takes it; one payload may be longer
INBOX_MESSAGES: Final = 64  # that the session has not taken ...
INBOX_BYTES: Final = 131072  # ... and their length together; two of the greatest requests
CLOSE_WITHIN: Final = 1.0  # seconds for the last bytes, once the session is over


class InboxFull(Exception):
    """The session has not taken what the client sent before: this message is refused, and may come again."""


class ResponseWire:
    """One client. A payload is bytes: a part of a body, the same for every client of a kind."""

    room = BUFFER_BYTES  # of the class

    def __init__(self, *, peer: str) -> None:
        self.peer = peer
        self.heard = trio.current_time()
        self._inbox: list[Any] = []
        self._inbox_bytes = 0
        self._buffer: list[bytes] = []
        self._size = 0
        self._ended = False  # nothing more is put into a body
        self._closed: str | None = None  # why nobody takes any more
        self._listening = False  # a session has begun to receive
        self._gone_at = math.inf  # when the client counts as gone ...
        self._gone_words = ""  # ... and why
        self._changed = trio.Event()  # on the way out ...
        self._said = trio.Event()  # ... and on the way in: an update must not wake who waits for the client

    @staticmethod
    def pack(texts: Sequence[bytes]) -> bytes:
        """k texts as one payload. Pure."""
        return b"".join(texts)

    plain = pack  # nothing is compressed here
    size: Callable[[bytes], int] = staticmethod(len)

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        """A piece of one text as a payload."""
        return text

    def turn_binary(self) -> None:
        """Nothing changes: a body is bytes anyway."""

    @property
    def over(self) -> bool:
        """Whether the connection has ended: nothing is heard or sent any more."""
        return self._closed is not None

    # For the session.

    stays = True  # in a request of the HTTP server
    way = None  # the server has the socket

    def watch(self, watcher: object) -> None:
        """There is nothing to watch."""

    def cut(self, payload: Any, taken: int) -> Any:
        raise AssertionError("there is no short way")

    def write_nowait(self, payload: bytes) -> bytes | None:
        """Take `payload` while there is room; returns it when there is none. Never raises."""
        if self._ended or self._size >= self.room:
            return payload
        self._put(payload)
        return None

    async def write(self, payloads: Sequence[bytes]) -> None:
        """Take all of it. Raises WireClosed."""
        await trio.lowlevel.checkpoint()
        for payload in payloads:
            while self._size >= self.room and self._closed is None and not self._ended:
                await self._changed.wait()
            if self._closed is not None or self._ended:
                raise WireClosed(self._closed or "the response has ended")
            self._put(payload)

    async def receive(self) -> Any:
        """The next message that came. Raises WireClosed when the client has gone."""
        await trio.lowlevel.checkpoint()
        self._listening = True
        while not self._inbox and self._closed is None:
            with trio.move_on_at(self._gone_at):
                await self._said.wait()
            if trio.current_time() >= self._gone_at:
                raise WireClosed(self._gone_words)
        if not self._inbox:
            raise WireClosed(self._closed or "")
        message = self._inbox.pop(0)
        self._inbox_bytes -= len(message)
        return message

    async def ping(self) -> None:
        """Nothing: HTTP has no sign of life; a protocol may have a word for it."""
        await trio.lowlevel.checkpoint()

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        """End the body behind everything that was written, within a bound. Never raises."""
        self._ended = True
        self._tell()
        if self._listening:  # otherwise there was no session, and no body will begin
            with trio.move_on_after(CLOSE_WITHIN):
                while self._closed is None:
                    await self._changed.wait()
        await trio.lowlevel.checkpoint()
        self.abort()

    def abort(self) -> None:
        """End the body at once."""
        self._buffer.clear()
        self._inbox.clear()
        self.leave("aborted")

    # For requests beside the response.

    def hear(self, message: Any) -> None:
        """Give the session a message of the client's. Never waits. Raises InboxFull or WireClosed."""
        if self._ended:
            raise WireClosed(self._closed or "the response has ended")
        if self._inbox and (
            len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes + len(message) > INBOX_BYTES
        ):
            raise InboxFull("messages come faster than they are answered")
        self.heard = trio.current_time()
        self._inbox.append(message)
        self._inbox_bytes += len(message)
        self._wake_session()

    def leave(self, why: str) -> None:
        """The client has left: the session learns it behind what it has not heard yet."""
        self._closed = self._closed or why
        self._ended = True
        self._tell()
        self._wake_session()

    # For the response.

    def _take(self) -> bytes:
        """All that waits. It counts until `_taken`."""
        piece = b"".join(self._buffer)
        self._buffer.clear()
        return piece

    def _taken(self, piece: bytes) -> None:
        """The client has it: there is room again."""
        self._size -= len(piece)
        self.heard = trio.current_time()
        self._tell()

    def _put(self, payload: bytes) -> None:
        self._buffer.append(payload)
        self._size += len(payload)
        self._tell()

    def _tell(self) -> None:
        """Wake those who wait for something to send, or for room."""
        self._changed.set()
        self._changed = trio.Event()

    def _wake_session(self) -> None:
        """Have it look for a message, at the end, and at the time at which the client counts as gone."""
        self._said.set()
        self._said = trio.Event()
