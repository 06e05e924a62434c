"""The frames that both fast loops leave over: fragments, control frames, and all that is illegal.

Rules of this file: pure, no socket, no clock. wsproto parses. Two of its habits are corrected for both roles:
- It gives a message in pieces. Here the pieces are joined, within a bound.
- It reports its own parse errors in the words of a peer's close. Here the two are told apart.
The role, client or server, is that of the wsproto connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage
from wsproto.events import Ping as PingEvent

TEXT_ONLY: Final = 1003
TOO_BIG: Final = 1009


@frozen
class Ping:
    """The peer wants this back in a pong."""

    payload: bytes


@frozen
class Goodbye:
    """The last thing from the peer. `fault`: it broke a rule; otherwise it closed."""

    code: int
    reason: str
    fault: bool = False


FromPeer = str | bytes | Ping | Goodbye


class Parser:
    """Turns the peer's bytes into messages, pings and one goodbye. After that it must not be fed."""

    __slots__ = ("_binary", "_connection", "_max_bytes", "_parts", "_size")

    def __init__(self, connection: Connection, max_message_bytes: int, binary: bool) -> None:
        """`binary`: binary messages are understood, as bytes; otherwise they break the rules, with 1003."""
        self._connection = connection
        self._max_bytes = max_message_bytes
        self._binary = binary
        self._parts: list[Any] = []  # of a message in fragments
        self._size = 0  # of them

    @property
    def is_joining(self) -> bool:
        """A message has begun, and its end has not come yet."""
        return bool(self._parts)

    def feed(self, data: bytes) -> Iterator[FromPeer]:
        """The things that `data` completes, in order. A message that is too long: goodbye with 1009."""
        self._connection.receive_data(data)
        for event in self._connection.events():
            inbound = self._understand(event)
            if inbound is not None:
                yield inbound
            if isinstance(inbound, Goodbye) and inbound.fault:
                return
        # After a close the loop goes on to its end, or wsproto would keep itself from being freed.

    def _understand(self, event: Event) -> FromPeer | None:
        if isinstance(event, TextMessage):
            return self._join(event.data, event.message_finished)
        if isinstance(event, PingEvent):
            return Ping(bytes(event.payload))
        if isinstance(event, BytesMessage):
            if self._binary:
                return self._join(bytes(event.data), event.message_finished)
            return Goodbye(TEXT_ONLY, "text messages only", fault=True)
        if isinstance(event, CloseConnection):
            # After a peer's close the connection is not open any more; after a parse error it is.
            fault = self._connection.state is ConnectionState.OPEN
            return Goodbye(int(event.code), event.reason or "", fault)
        return None

    def _join(self, piece: str | bytes, finished: bool) -> FromPeer | None:
        # An empty fragment counts too, or a peer could send them without end.
        size = len(piece) if isinstance(piece, bytes) or piece.isascii() else len(piece.encode())
        self._size += max(1, size)
        if self._size > self._max_bytes:
            return Goodbye(TOO_BIG, f"a message may have {self._max_bytes} bytes", fault=True)
        self._parts.append(piece)
        if not finished:
            return None
        message: str | bytes = piece if len(self._parts) == 1 else piece[:0].join(self._parts)
        self._parts.clear()
        self._size = 0
        return message
