"""WebSocket frames in the client's role: the reader of an upstream's bytes.

Rules of this file: pure, no socket; the caller tells the time. Nearly every message of an exchange is one
whole text frame, in ASCII. The fast loop here cuts those out, at a fraction of the cost of a general parser.
Every other frame goes, whole, to the parser: fragments, control frames, and all that is illegal. The two must
never disagree about a stream of bytes; the tests hold one against the other.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from wsproto.connection import Connection, ConnectionState
from wsproto.events import CloseConnection, Pong
from wsproto.frame_protocol import CloseReason

from .parser import NO_STATUS, TOO_BIG, TOO_MANY, FromPeer, Goodbye, Parser, Ping

_WHOLE_TEXT: Final = 0x81  # a text message in one frame
_MASKED: Final = 0x80
_MEDIUM: Final = 126  # the length is in the next 2 bytes; with 127, in the next 8
_HEAD: Final = Struct(">HH")  # the first two bytes, and the next two: the length of a frame of medium size
_HEAD_BYTES: Final = 4
_SHORT_TEXT: Final = _WHOLE_TEXT << 8  # and its length
_MEDIUM_TEXT: Final = _SHORT_TEXT | _MEDIUM


class UpstreamReader:
    """Cuts bytes into `messages`. `owed` are frames to send in answer, `ended` the reason of the end.

    `max_bytes` bounds a message, whole or joined from fragments. `owed` holds one pong at most, for the
    newest ping, and behind it our part of the goodbye. wsproto's `connection` makes the frames.
    """

    def __init__(self, connection: Connection, max_bytes: int) -> None:
        self.messages: list[str | bytes] = []
        self.owed: list[bytes] = []
        self.ended: str | None = None
        self.at_fault = False  # the peer, which should read why
        self._connection = connection
        self._parser = Parser(masked=False, max_message_bytes=max_bytes, binary=True)
        self._max_bytes = max_bytes
        self._ping: Ping | None = None  # the newest that is not answered
        self._rest: bytes | bytearray = b""
        self._wanted = 0  # bytes of the frame that `rest` begins

    def feed(self, data: bytes | bytearray, now: float) -> None:
        """Understand more of the stream. Never raises. Ignores everything behind the end.

        `now`: seconds, of a clock that never goes back.
        """
        if len(self._rest) + len(data) < self._wanted:
            # Only kept: a long frame that comes in many pieces must not be copied for each of them.
            self._rest = bytearray(self._rest) if isinstance(self._rest, bytes) else self._rest
            self._rest += data
            return
        buffer = bytes(self._rest + data) if self._rest else bytes(data)
        # Every byte becomes a character. Then an ASCII message needs no decoding: it is only cut out.
        characters = buffer.decode("latin-1")
        position = self._wanted = 0
        while self.ended is None:
            position = self._whole_texts(buffer, characters, position)
            bounds = _bounds(buffer, position)
            if bounds is None:
                break
            start, end = bounds
            if end - start > self._max_bytes:
                self._too_big()
            elif end > len(buffer):
                self._wanted = end - position
                break
            else:
                for inbound in self._parser.feed(buffer[position:end], now):
                    self._take(inbound)
                position = end
        self._rest = buffer[position:]
        self._answer_ping()

    def _whole_texts(self, buffer: bytes, characters: str, position: int) -> int:
        """Take the ordinary messages that follow each other from `position`; returns where they end."""
        last = -1 if self._parser.is_joining else len(buffer) - _HEAD_BYTES
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
                except UnicodeDecodeError:  # the parser says so in the words of the protocol
                    break
            append(message)
            position = end
        return position

    def _take(self, inbound: FromPeer) -> None:
        if isinstance(inbound, str | bytes):
            self.messages.append(inbound)
        elif isinstance(inbound, Ping):
            self._ping = inbound
        elif inbound.fault and inbound.code == TOO_BIG:
            self._too_big()
        else:
            self._part(inbound)

    def _answer_ping(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None and self._connection.state is ConnectionState.OPEN:  # none behind a close frame
            self.owed[:] = [self._connection.send(Pong(ping.payload))]  # in place of an older one

    def _part(self, goodbye: Goodbye) -> None:
        words = _printable(goodbye.reason or _name(goodbye.code))
        self.at_fault = goodbye.fault
        if not goodbye.fault:
            self.ended = f"closed with {goodbye.code}: {words}"
        elif goodbye.code == TOO_MANY:
            self.ended = words
        else:
            self.ended = f"the protocol was broken: {words}"
        self._say(_answer(goodbye))

    def _too_big(self) -> None:
        self.ended = f"a message of more than {self._max_bytes} bytes"
        self.at_fault = True
        self._say(CloseConnection(TOO_BIG))

    def _say(self, goodbye: CloseConnection) -> None:
        self._answer_ping()
        if self._connection.state is ConnectionState.OPEN:
            self.owed.append(self._connection.send(goodbye))


def _answer(goodbye: Goodbye) -> CloseConnection:
    """With the same code and reason, as far as they may be said."""
    if goodbye.code == NO_STATUS:
        return CloseConnection(CloseReason.NO_STATUS_RCVD)  # wsproto knows it by identity only
    return CloseConnection(goodbye.code, goodbye.reason or None)


def _bounds(buffer: bytes, position: int) -> tuple[int, int] | None:
    """Start and end of the payload of the frame at `position`; None when its header is not complete.

    A server must not mask, so there is no room for a mask here: the parser refuses such a header.
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


def _printable(words: str) -> str:
    """Words from outside, which end up in logs and on terminals."""
    return words if words.isprintable() else ascii(words)


def _name(code: int) -> str:
    try:
        return CloseReason(code).name.lower().replace("_", " ")
    except ValueError:
        return "no reason"
