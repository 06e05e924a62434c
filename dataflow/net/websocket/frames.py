"""WebSocket frames in the server's role: the bytes it sends.

Rules of this file: pure, no socket, no clock. Frames are whole and unmasked, so the same bytes may go to
every client. What is compressed is made in `deflate.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from attrs import define

from .parser import NO_STATUS

CONTROL_BYTES = 125
RESERVED_1: Final = 0x40  # of the first byte; in the first frame of a message: it is compressed
VANISHED = 1006
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
    return frame_head(Opcode.TEXT, len(text)) + text


def text_frames(texts: Sequence[bytes]) -> bytes:
    """k text messages as k frames in one piece."""
    try:
        return b"".join([part for text in texts for part in (_TEXT_HEADERS[len(text)], text)])
    except IndexError:  # one of them is long
        return b"".join(map(text_frame, texts))


def binary_frames(messages: Sequence[bytes]) -> bytes:
    """k binary messages as k frames in one piece."""
    return b"".join([frame_head(Opcode.BINARY, len(message)) + message for message in messages])


def piece_frame(opcode: Opcode, text: bytes, first: bool, last: bool) -> bytes:
    """A piece of one message, as a frame of `opcode` or, unless it is the first, of its continuation."""
    return frame_head(opcode if first else Opcode.CONTINUATION, len(text), last) + text


def control_frame(opcode: Opcode, payload: bytes = b"") -> bytes:
    """A ping or pong with at most 125 bytes of payload. Raises ValueError for more."""
    if len(payload) > CONTROL_BYTES:
        raise ValueError(f"{len(payload)} bytes in a control frame, which holds {CONTROL_BYTES}")
    return frame_head(opcode, len(payload)) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close frame. The reason is cut to fit, between characters. Code 1005: a frame without a code."""
    if code == NO_STATUS:
        return control_frame(Opcode.CLOSE)
    said = 1011 if code in _UNSENDABLE else code
    text = reason.encode()[: CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return control_frame(Opcode.CLOSE, said.to_bytes(2, "big") + text)


def frame_head(opcode: int, length: int, final: bool = True) -> bytes:
    """What stands before the payload of a frame. `opcode`: with its reserved bits."""
    first = 0x80 | opcode if final else opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


_TEXT_HEADERS: Final = tuple([frame_head(Opcode.TEXT, length) for length in range(2048)])  # a trade: some 250


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
