"""A wire over the body of an HTTP response: the server streams, the client only listens.

Rules of this file. The session writes into a bounded buffer, the response takes from it. The rest waits
in the session's outbox, as with any slow client. The client's only message is its request, given when the
wire is made. A client is heard when it takes bytes. Nothing here knows the protocol.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import trio

from actors.session import Ending, WireClosed

BUFFER_BYTES = 65536  # taken from the session before the response takes it; one payload may be longer
CLOSE_WITHIN = 1.0  # seconds for the last bytes, once the session is over
START_WITHIN = 10.0  # seconds for the server to begin with the body: a client may have left before


class StreamingWire:
    """One client's response. A payload is bytes: a part of the body, the same for every client of a kind."""

    def __init__(self, request: Any, *, peer: str) -> None:
        self.peer = peer
        self.heard = trio.current_time()
        self._request: Any = request  # until it was received
        self._buffer: list[bytes] = []
        self._size = 0
        self._ended = False  # nothing more is put into the body
        self._closed: str | None = None  # why nobody takes any more
        self._start_until = trio.current_time() + START_WITHIN  # infinite once the body has begun
        self._changed = trio.Event()

    @staticmethod
    def pack(texts: Sequence[bytes]) -> bytes:
        """k texts as one payload. Pure."""
        return b"".join(texts)

    size = staticmethod(len)

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        """A piece of one text as a payload."""
        return text

    def turn_binary(self) -> None:
        raise AssertionError("a body is bytes anyway")

    # For the session.

    stays = True  # in a request of the HTTP server
    way = None  # the server has the socket

    def watch(self, watcher: object) -> None:
        """There is nothing to watch."""

    def cut(self, payload: Any, taken: int) -> Any:
        raise AssertionError("there is no short way")

    def write_nowait(self, payload: bytes) -> bytes | None:
        """Take `payload` while there is room; returns it when there is none. Never raises."""
        if self._ended or self._size >= BUFFER_BYTES:
            return payload
        self._put(payload)
        return None

    async def write(self, payloads: Sequence[bytes]) -> None:
        """Take all of it. Raises WireClosed."""
        await trio.lowlevel.checkpoint()
        for payload in payloads:
            while self._size >= BUFFER_BYTES and self._closed is None and not self._ended:
                await self._changed.wait()
            if self._closed is not None or self._ended:
                raise WireClosed(self._closed or "the response has ended")
            self._put(payload)

    async def receive(self) -> Any:
        """The request, then nothing more. Raises WireClosed when the client has gone."""
        await trio.lowlevel.checkpoint()
        if self._request is not None:
            request, self._request = self._request, None
            return request
        while self._closed is None:
            with trio.move_on_at(self._start_until) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                raise WireClosed("the response was never begun")
        raise WireClosed(self._closed)

    async def ping(self) -> None:
        """Nothing: HTTP has no sign of life; a protocol may have a word for it."""
        await trio.lowlevel.checkpoint()

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        """End the body behind everything that was written, within a bound. Never raises."""
        self._end()
        if self._request is None:  # otherwise no session ever listened, and no body will begin
            with trio.move_on_after(CLOSE_WITHIN):
                while self._closed is None:
                    await self._changed.wait()
        await trio.lowlevel.checkpoint()
        self.abort()

    def abort(self) -> None:
        """End the body at once."""
        self._buffer.clear()
        self._leave("aborted")

    # For the response.

    async def body(self) -> AsyncIterator[bytes]:
        """The body, piece by piece, until the session is over. To be closed by the server when the client
        leaves."""
        self._start_until = math.inf
        self._tell()
        try:
            while True:
                while not self._buffer and not self._ended:
                    await self._changed.wait()
                if not self._buffer:
                    return
                piece = b"".join(self._buffer)
                self._buffer.clear()
                yield piece
                self._size -= len(piece)  # only now: a piece that the client has not taken still counts
                self.heard = trio.current_time()
                self._tell()
        finally:
            self._leave("the client has left")

    def _put(self, payload: bytes) -> None:
        self._buffer.append(payload)
        self._size += len(payload)
        self._tell()

    def _end(self) -> None:
        self._ended = True
        self._tell()

    def _leave(self, why: str) -> None:
        self._closed = self._closed or why
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
