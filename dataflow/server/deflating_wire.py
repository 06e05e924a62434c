"""A wire on a socket of its own for a client that agreed on permessage-deflate.

Rules of this file: what is compressed, and how, is decided in `net.websocket.deflate`. A client that did not
agree gets a wire of `socket_wire`, and nothing here concerns it. What comes in is understood in small parts:
a few bytes can become many, and what they become must fit into one turn and into little memory.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from dataflow.net.websocket.deflate import Agreement, InflatingParser, Packer, Pieces, packer
from dataflow.net.websocket.frames import Opcode

from .handshake import Messages
from .socket_wire import SOCKET_WIRES, SocketWire

UNDERSTOOD_BYTES: Final = 1024  # at once: they become 1 MiB at most, which takes some 2 ms


class DeflatingWire(SocketWire):
    """Compresses long payloads, and understands compressed messages."""

    __slots__ = ("_agreement", "_messages", "_pack", "_pieces", "_unread")

    def __init__(self, sock: socket.socket, messages: Messages, agreement: Agreement, **more: Any) -> None:
        self._messages = messages
        self._agreement = agreement
        self._pack = packer(Opcode.BINARY if messages is Messages.BINARY else Opcode.TEXT, agreement)
        self._pieces: Pieces | None = None  # of a long message that has begun
        self._unread = b""  # what has come, and is not understood yet
        super().__init__(sock, **more)

    def _parser(self, max_message_bytes: int) -> InflatingParser:
        binary = self._messages is not Messages.TEXT
        return InflatingParser(masked=True, max_message_bytes=max_message_bytes, binary=binary)

    @property
    def pack(self) -> Packer:
        """Makes one payload of k messages."""
        return self._pack

    @property
    def plain(self) -> Any:
        """As `pack`, for a payload that no other client gets: to compress it would not pay."""
        return self._pack.plain

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        """A piece of one message as a payload, which must be sent."""
        if first:
            self._pieces = Pieces(self._pack.opcode)
        assert self._pieces is not None
        frame = self._pieces.frame(text, last)
        if last:
            self._pieces = None
        return frame

    def turn_binary(self) -> None:
        """From now on send binary messages."""
        if self._messages is not Messages.EITHER:
            super().turn_binary()
        self._pack = packer(Opcode.BINARY, self._agreement)

    def _receive_nowait(self) -> bytes | None:
        unread, self._unread = self._unread, b""
        return unread or super()._receive_nowait()

    def _understand(self, data: bytes) -> None:
        self._unread = data[UNDERSTOOD_BYTES:]
        super()._understand(data[:UNDERSTOOD_BYTES])


def socket_wire(
    sock: socket.socket, messages: Messages, agreement: Agreement | None, **more: Any
) -> SocketWire:
    """The wire for a client of this kind. Owns `sock` from now on. `more`: see `SocketWire`."""
    if agreement is None:
        return SOCKET_WIRES[messages](sock, **more)
    return DeflatingWire(sock, messages, agreement, **more)
