"""The frames of a WebSocket that stays with the HTTP server: our reader in Hypercorn's place for wsproto's.

Rules of this file: Hypercorn reads and sends through wsproto's `Connection`. What it sends still goes that
way. What comes in is read by the parser of all other clients: the same bounds, the same words, and a broken
rule is told to the client. Nothing is patched: each stream gets an object of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio
from hypercorn.protocol.ws_stream import Handshake, WSStream
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage
from wsproto.events import Ping as PingEvent
from wsproto.frame_protocol import CloseReason

from dataflow.net.websocket.parser import NO_STATUS, Goodbye, Parser, Ping


class FrameConnection(Connection):
    """A server's end. `goodbye`: the last word of the client, once it has come."""

    def __init__(self, max_message_bytes: int) -> None:
        self.goodbye: Goodbye | None = None
        self._reader = Parser(masked=True, max_message_bytes=max_message_bytes, binary=True)
        self._came: list[Event] = []
        super().__init__(ConnectionType.SERVER)

    @property
    def has_fault(self) -> bool:
        """The client broke a rule."""
        return self.goodbye is not None and self.goodbye.fault

    def receive_data(self, data: bytes | None) -> None:
        """Understand more. Of several pings the newest is told. Ignores everything behind the goodbye."""
        if not data or self.goodbye is not None:
            return
        ping: Ping | None = None
        for inbound in self._reader.feed(data, trio.current_time()):
            if isinstance(inbound, Ping):
                ping = inbound
            elif isinstance(inbound, Goodbye):
                self.goodbye = inbound
            elif isinstance(inbound, str):
                self._came.append(TextMessage(inbound))
            else:
                self._came.append(BytesMessage(inbound))
        if ping is not None:
            self._came.append(PingEvent(ping.payload))
        if self.goodbye is not None:
            self._came.append(self._part(self.goodbye))

    def events(self) -> Iterator[Event]:  # type: ignore[override]
        """What has come, in order."""
        while self._came:
            yield self._came.pop(0)

    def _part(self, goodbye: Goodbye) -> CloseConnection:
        # Of a fault too: then Hypercorn answers it like a close of the client's, with code and words.
        is_open = self._state is ConnectionState.OPEN
        self._state = ConnectionState.REMOTE_CLOSING if is_open else ConnectionState.CLOSED
        if goodbye.code == NO_STATUS:
            return CloseConnection(CloseReason.NO_STATUS_RCVD)  # wsproto knows it by identity only
        return CloseConnection(goodbye.code, goodbye.reason or None)


class _Handshake(Handshake):
    """Accepts with our connection."""

    ours: FrameConnection

    def accept(self, *arguments: Any) -> Any:
        status, headers, _ = super().accept(*arguments)
        return status, headers, self.ours


def read_frames(stream: WSStream, max_message_bytes: int) -> FrameConnection:
    """Have a websocket that is not accepted yet read by the returned connection."""
    stream.handshake.extensions = None  # permessage-deflate is never negotiated
    connection = FrameConnection(max_message_bytes)
    # A function in the place of `accept` would keep the handshake from being freed.
    vars(stream.handshake)["ours"] = connection
    stream.handshake.__class__ = _Handshake
    return connection
