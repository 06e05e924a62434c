"""WebSocket frames in the server's role: the bytes it sends, and its reader of a client's bytes.

Rules of this file: pure, no socket, no clock. Outbound frames are whole, unmasked and uncompressed, so the
same bytes may go to every client. Of inbound frames, the fast loop here understands the plain ones: nearly
every client sends nothing else. The first frame that is not whole, not proper or not plain goes to the
parser, and so do all that follow it. That costs more time, and 2 KiB a session.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from enum import IntEnum
from typing import Final

from attrs import define
from wsproto.connection import Connection, ConnectionType

from .parser import FromPeer, Goodbye, Parser, Ping

CONTROL_BYTES = 125
NO_STATUS = 1005
VANISHED = 1006
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x81, 0x82, 0x88, 0x89, 0x8A  # first bytes of whole frames
_PLAIN_CODES = {b"\x03\xe8": 1000, b"\x03\xe9": 1001}  # nearly every client leaves with one of these
_UNSENDABLE = (VANISHED, 1015)  # may be observed, but not sent: 1011 is sent instead


class Opcode(IntEnum):
    """The opcodes that a server sends."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def text_frame(text: bytes) -> bytes:
    """One text message, UTF-8, as one frame."""
    return _header(Opcode.TEXT, len(text)) + text


def text_frames(texts: Sequence[bytes]) -> bytes:
    """k text messages as k frames in one piece."""
    try:
        return b"".join([part for text in texts for part in (_TEXT_HEADERS[len(text)], text)])
    except IndexError:  # one of them is long
        return b"".join(map(text_frame, texts))


def binary_frames(messages: Sequence[bytes]) -> bytes:
    """k binary messages as k frames in one piece."""
    return b"".join([_header(Opcode.BINARY, len(message)) + message for message in messages])


def piece_frame(opcode: Opcode, text: bytes, first: bool, last: bool) -> bytes:
    """A piece of one message, as a frame of `opcode` or, unless it is the first, of its continuation."""
    header = _header(opcode if first else Opcode.CONTINUATION, len(text))
    return header + text if last else bytes((header[0] & 0x7F,)) + header[1:] + text


def control_frame(opcode: Opcode, payload: bytes = b"") -> bytes:
    """A ping or pong with at most 125 bytes of payload. Raises ValueError for more."""
    if len(payload) > CONTROL_BYTES:
        raise ValueError(f"{len(payload)} bytes in a control frame, which holds {CONTROL_BYTES}")
    return _header(opcode, len(payload)) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close frame. The reason is cut to fit, between characters. Code 1005: a frame without a code."""
    if code == NO_STATUS:
        return control_frame(Opcode.CLOSE)
    said = 1011 if code in _UNSENDABLE else code
    text = reason.encode()[: CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return control_frame(Opcode.CLOSE, said.to_bytes(2, "big") + text)


def _header(opcode: Opcode, length: int) -> bytes:
    first = 0x80 | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


_TEXT_HEADERS: Final = tuple([_header(Opcode.TEXT, length) for length in range(2048)])  # a trade: some 250


def _unmasked(data: bytes, mask: bytes) -> bytes:
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    plain = int.from_bytes(data, "little") ^ int.from_bytes(key, "little")
    return plain.to_bytes(len(data), "little")


def _plain_goodbye(payload: bytes) -> Goodbye | None:
    """Of a close frame without a reason, with an ordinary code or none; None for any other."""
    if not payload:
        return Goodbye(NO_STATUS, "")
    code = _PLAIN_CODES.get(payload)
    return Goodbye(code, "") if code is not None else None


class FrameReader:
    """Turns a client's bytes into messages, pings and one goodbye. After that it must not be fed."""

    __slots__ = ("_binary", "_max_bytes", "_parser")

    def __init__(self, max_message_bytes: int, binary: bool = False) -> None:
        """`binary`: binary messages are understood, as bytes; otherwise they break the rules, with 1003."""
        self._max_bytes = max_message_bytes
        self._binary = binary
        self._parser: Parser | None = None  # once it is needed

    def feed(self, data: bytes) -> Iterator[FromPeer]:
        """The things that `data` completes, in order. A message that is too long: goodbye with 1009."""
        if self._parser is None:
            data = yield from self._plain_frames(data)
            if not data:
                return
            self._parser = Parser(Connection(ConnectionType.SERVER), self._max_bytes, self._binary)
        yield from self._parser.feed(data)

    def _plain_frames(self, data: bytes) -> Generator[FromPeer, None, bytes]:
        """Whole plain frames, up to the first other frame; returns the rest."""
        at = 0
        while at + 6 <= len(data):
            length = data[at + 1] - 0x80  # less than 0: not masked
            begin = at + 6
            if length == 126:
                length, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 8
                if length < 126 or data[at] not in (_TEXT, _BINARY):
                    break
            end = begin + length
            if not 0 <= length <= self._max_bytes or data[at + 1] == 0xFF or end > len(data):
                break
            payload = _unmasked(data[begin:end], data[begin - 4 : begin])
            if data[at] == _TEXT:
                try:
                    yield payload.decode()
                except UnicodeDecodeError:
                    break
            elif data[at] == _PING:
                yield Ping(payload)
            elif data[at] == _BINARY and self._binary:
                yield payload
            elif data[at] == _CLOSE and (goodbye := _plain_goodbye(payload)) is not None:
                yield goodbye
                return b""
            elif data[at] != _PONG:
                break
            at = end
        return data[at:]


@define
class ControlQueue:
    """Control frames that wait for the next boundary between frames: at most one of a kind.

    Of several unanswered pings only the last is answered, as RFC 6455 allows. That bounds the queue.
    Nothing goes out behind a close frame.
    """

    _begun: bytes = b""  # offered to a connection that has not taken all of it: comes first, unchanged
    _frames: dict[Opcode, bytes] | None = None
    _over: bool = False  # a close frame is among them, or was

    def __bool__(self) -> bool:
        return bool(self._begun or self._frames)

    def put(self, opcode: Opcode, frame: bytes) -> None:
        """Queue a frame, in place of one of its kind that has not begun to go out."""
        if not self._over:
            self._frames = self._frames or {}
            self._frames[opcode] = frame
            self._over = opcode is Opcode.CLOSE

    def waiting(self) -> bytes:
        """The bytes to send next. Nothing joins bytes that have begun, or they would grow with every ping."""
        return self._begun or b"".join((self._frames or {}).values())

    def sent(self, count: int) -> None:
        """The first `count` bytes of `waiting()` have gone out; the others have begun, even if it is 0."""
        if not self._begun:
            self._begun, self._frames = self.waiting(), None
        self._begun = self._begun[count:]
