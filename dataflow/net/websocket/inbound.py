"""From a server's bytes to messages: the receiving half of a WebSocket client.

Rules of this file: pure, no socket. Nearly everything that an exchange sends is one whole text frame a
message, in ASCII; those are cut out in one loop, at a fiftieth of what a general parser costs. Every other
frame goes, whole, to wsproto: fragments, control frames, and all that is illegal. The two must never
disagree about what a stream of bytes says; the tests hold one against the other.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

_WHOLE_TEXT: Final = 0x81  # the last fragment, and the first, of a text message
_MASKED: Final = 0x80
_MEDIUM: Final = 126  # the length is in the next 2 bytes; with 127, in the next 8
_HEAD: Final = Struct(">HH")  # the first two bytes, and what is the length of a frame of medium size
_HEAD_BYTES: Final = 4
_SHORT_TEXT: Final = _WHOLE_TEXT << 8  # and its length
_MEDIUM_TEXT: Final = _SHORT_TEXT | _MEDIUM


class Inbound:
    """Cuts bytes into `messages`; `owed` are frames to send in answer; `ended` says why nothing more comes.

    `max_bytes` bounds a message, whole or put together from fragments.
    """

    def __init__(self, connection: Connection, max_bytes: int) -> None:
        self.messages: list[str | bytes] = []
        self.owed: list[bytes] = []
        self.ended: str | None = None
        self._connection = connection
        self._max_bytes = max_bytes
        self._rest = b""
        self._parts: list[Any] = []  # of a message in fragments
        self._parts_bytes = 0

    def feed(self, data: bytes | bytearray) -> None:
        """Understand more of the stream. Never raises; what comes after the end is ignored."""
        buffer = self._rest + data if self._rest else bytes(data)
        # Every byte as a character: cutting out an ASCII message is then all that there is to decoding it.
        characters = buffer.decode("latin-1")
        position = 0
        while self.ended is None:
            position = self._whole_texts(buffer, characters, position)
            bounds = _bounds(buffer, position)
            if bounds is None:
                break
            start, end = bounds
            if end - start > self._max_bytes:
                self._too_big()
            elif end > len(buffer):
                break
            else:
                self._frame(buffer[position:end])
                position = end
        self._rest = buffer[position:]

    def _whole_texts(self, buffer: bytes, characters: str, position: int) -> int:
        """Take the run of ordinary messages that begins at `position`; where it ends."""
        last = -1 if self._parts else len(buffer) - _HEAD_BYTES
        head_at, append, longest = _HEAD.unpack_from, self.messages.append, self._max_bytes
        while position <= last:
            head, length = head_at(buffer, position)
            if head == _MEDIUM_TEXT and length >= _MEDIUM:
                start = position + 4
            elif _SHORT_TEXT <= head < _MEDIUM_TEXT:
                start = position + 2
                length = head - _SHORT_TEXT
            else:
                break
            end = start + length
            if end > len(buffer) or length > longest:
                break
            message = characters[start:end]
            if not message.isascii():
                try:
                    message = buffer[start:end].decode()
                except UnicodeDecodeError:  # wsproto says it in the words of the protocol
                    break
            append(message)
            position = end
        return position

    def _frame(self, frame: bytes) -> None:
        self._connection.receive_data(frame)
        for event in self._connection.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, TextMessage | BytesMessage):
            self._fragment(event)
        elif isinstance(event, Ping):
            if self._connection.state is ConnectionState.OPEN:  # whoever is leaving owes no pong
                self.owed.append(self._connection.send(event.response()))
        elif isinstance(event, CloseConnection):
            self._closed(event)

    def _fragment(self, event: TextMessage | BytesMessage) -> None:
        self._parts.append(event.data)
        size = len(event.data if isinstance(event, BytesMessage) else event.data.encode())
        self._parts_bytes += max(size, 1)  # empty fragments cost memory too
        if self._parts_bytes > self._max_bytes:
            self._too_big()
        elif event.message_finished:
            empty: Any = b"" if isinstance(event, BytesMessage) else ""
            message = empty.join(self._parts)
            self.messages.append(bytes(message) if isinstance(event, BytesMessage) else message)
            self._parts, self._parts_bytes = [], 0

    def _closed(self, event: CloseConnection) -> None:
        broken = self._connection.state is ConnectionState.OPEN  # it is wsproto that wants to close
        words = event.reason or _name(event.code)
        self.ended = f"the protocol was broken: {words}" if broken else f"closed with {event.code}: {words}"
        answer = CloseConnection(event.code, event.reason) if broken else event.response()
        if self._connection.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self.owed.append(self._connection.send(answer))

    def _too_big(self) -> None:
        self.ended = f"a message of more than {self._max_bytes} bytes"
        if self._connection.state is ConnectionState.OPEN:
            self.owed.append(self._connection.send(CloseConnection(CloseReason.MESSAGE_TOO_BIG)))


def _bounds(buffer: bytes, position: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `position` starts and ends; None when that cannot be told yet.

    A server must not mask, so four bytes for the mask are not looked for: wsproto refuses at the header.
    """
    start = position + 2
    if start > len(buffer):
        return None
    second = buffer[position + 1]
    length = second & ~_MASKED
    if length >= _MEDIUM:
        size = 2 if length == _MEDIUM else 8
        if start + size > len(buffer):
            return None
        length = int.from_bytes(buffer[start : start + size], "big")
        start += size
    return start, start + length


def _name(code: int) -> str:
    try:
        return CloseReason(code).name.lower().replace("_", " ")
    except ValueError:
        return "no reason"
