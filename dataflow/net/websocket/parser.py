"""What a peer says, in WebSocket frames of either role: messages, pings and one goodbye.

Rules of this file: pure, no socket; the caller tells the time. It costs what the bytes cost:
- A message in fragments is checked as it comes, kept as bytes, and decoded once, at its end.
- Control frames and small fragments cost more than their bytes, so there is an allowance for them.
It agrees with wsproto about every stream of bytes. Tests hold one against the other.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator
from typing import ClassVar, Final

from attrs import frozen

from dataflow.net.allowance import A_SECOND, AT_ONCE, Allowance

NO_STATUS: Final = 1005
BROKEN: Final = 1002
TEXT_ONLY: Final = 1003
NOT_UTF8: Final = 1007
TOO_MANY: Final = 1008
TOO_BIG: Final = 1009

SMALL: Final = 64  # bytes; a fragment with fewer costs more than its bytes, unless it ends the message

_FINAL, _OPCODE, _CONTROL = 0x80, 0x0F, 0x08  # bits of the first byte
_MASKED: Final = 0x80
_LONG: Final = 126  # the length is in the next 2 bytes; with 127, in the next 8
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_DATA: Final = (_CONTINUATION, _TEXT, _BINARY)
_WHOLE_TEXT: Final = _FINAL | _TEXT
# All first bytes of a proper frame: no reserved bit, a known opcode, no fragment of a control frame.
PROPER: Final = frozenset((*_DATA, *(_FINAL | opcode for opcode in (*_DATA, _CLOSE, _PING, _PONG))))
_CODES: Final = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013))
_FREE_CODES: Final = range(3000, 5000)
_UTF8: Final = getincrementaldecoder("utf-8")
_TOO_MANY_WORDS: Final = (
    f"too many control frames and small fragments: {AT_ONCE} at once and {A_SECOND} a second are welcome"
)


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


class Broken(Exception):
    """The peer broke a rule. Never leaves a parser."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class Parser:
    """Turns the peer's bytes into messages, pings and one goodbye. After that it must not be fed."""

    __slots__ = (
        "_allowance",
        "_binary",
        "_check",
        "_final",
        "_joined",
        "_key",
        "_left",
        "_masked",
        "_max_bytes",
        "_rest",
    )

    _proper: ClassVar = PROPER  # the first bytes of frames that are welcome

    def __init__(self, *, masked: bool, max_message_bytes: int, binary: bool) -> None:
        """`masked`: the peer is a client. `binary`: binary messages are understood, as bytes.

        Without `binary` they break the rules, with 1003.
        """
        self._masked = _MASKED if masked else 0
        self._max_bytes = max_message_bytes
        self._binary = binary
        self._allowance = Allowance()
        self._rest = b""  # of a header, or of a control frame, that has not come whole
        self._left = 0  # bytes to come of a data frame that has begun
        self._key = b""  # its mask, for the next byte
        self._final = False  # it ends its message
        self._joined: bytearray | None = None  # the message that has begun
        self._check: IncrementalDecoder | None = None  # of its UTF-8; None: it is binary

    @property
    def is_joining(self) -> bool:
        """A message has begun, and its end has not come yet."""
        return self._joined is not None

    def feed(self, data: bytes, now: float) -> Iterator[FromPeer]:
        """The things that `data` completes, in order. `now`: seconds, of a clock that never goes back.

        A goodbye with fault: 1009 for a message that is too long, 1008 beyond the allowance, and so on.
        """
        try:
            yield from self._feed(data, now)
        except Broken as broken:
            yield Goodbye(broken.code, str(broken), fault=True)

    def _feed(self, data: bytes, now: float) -> Iterator[FromPeer]:
        at = 0
        if self._left:
            at = min(self._left, len(data))
            if (message := self._join(data[:at], self._left)) is not None:
                yield message
        elif self._rest:
            data = self._rest + data
        size, masked, key, proper = len(data), self._masked, 4 if self._masked else 0, self._proper
        while at + 2 <= size:
            first, second = data[at], data[at + 1]
            length = second - masked  # less than 0: not masked
            start = at + 2 + key
            if first not in proper or not 0 <= length < 128:
                raise Broken(BROKEN, _fault(first, first in proper, second >= _MASKED))
            if length >= _LONG:
                if first & _CONTROL:
                    raise Broken(BROKEN, "a control frame of more than 125 bytes")
                wide = 2 if length == _LONG else 8
                if at + 2 + wide > size:
                    break
                length = _length(data[at + 2 : at + 2 + wide])
                start += wide
            end = start + length
            if start > size or (end > size and first & _CONTROL):
                break
            payload = data[start:end]
            if masked:
                payload = unmasked(payload, data[start - 4 : start])
            at = end
            if first & _CONTROL:
                self._count(now)
                if first & _OPCODE == _PING:
                    yield Ping(payload)
                elif first & _OPCODE == _CLOSE:
                    yield _goodbye(payload)
                    return
            elif first == _WHOLE_TEXT and self._joined is None and end <= size and length <= self._max_bytes:
                try:
                    yield payload.decode()
                except UnicodeDecodeError as error:
                    raise Broken(NOT_UTF8, str(error)) from None
            else:
                if length < SMALL and not first & _FINAL:
                    self._count(now)
                self._begin(first)
                if masked:
                    self._key = data[start - 4 : start]
                if (message := self._take(payload, length)) is not None:
                    yield message
        self._rest = data[at:]

    def _count(self, now: float) -> None:
        if not self._allowance.take(now):
            raise Broken(TOO_MANY, _TOO_MANY_WORDS)

    def _begin(self, first: int) -> None:
        """Begin a data frame, and a message unless the frame goes on with one."""
        opcode = first & _OPCODE
        if (opcode == _CONTINUATION) is (self._joined is None):
            expected = "a message begins inside another" if opcode else "the continuation of no message"
            raise Broken(BROKEN, expected)
        if opcode == _BINARY and not self._binary:
            raise Broken(TEXT_ONLY, "text messages only")
        if opcode:
            self._joined = bytearray()
            self._check = _UTF8() if opcode == _TEXT else None
        self._final = bool(first & _FINAL)

    def _join(self, piece: bytes, left: int) -> str | bytes | None:
        """More of a data frame that came in pieces."""
        return self._take(unmasked(piece, self._key) if self._masked else piece, left)

    def _take(self, piece: bytes, left: int) -> str | bytes | None:
        """Add a piece of a frame of which `left` bytes were to come; returns the message that it ends."""
        assert self._joined is not None
        self._left = left - len(piece)
        turn = len(piece) % 4
        self._key = self._key[turn:] + self._key[:turn]
        over = self._final and not self._left
        piece = self._content(piece, len(self._joined), over)
        if self._check is not None:
            try:
                self._check.decode(piece, over)  # what is wrong is told at once
            except UnicodeDecodeError as error:
                raise Broken(NOT_UTF8, str(error)) from None
        self._joined += piece
        if len(self._joined) > self._max_bytes:
            raise too_big(self._max_bytes)
        if not over:
            return None
        message = bytes(self._joined) if self._check is None else self._joined.decode()
        self._joined = self._check = None
        return message

    def _content(self, piece: bytes, so_far: int, over: bool) -> bytes:
        """What `piece` of a frame means, `so_far` bytes into its message, which is `over` with it."""
        return piece


def too_big(most: int) -> Broken:
    """The end of a peer whose message has more than `most` bytes."""
    return Broken(TOO_BIG, f"a message may have {most} bytes")


def unmasked(data: bytes, key: bytes) -> bytes:
    """Or masked: it is the same."""
    whole = (key * (len(data) // 4 + 1))[: len(data)]
    plain = int.from_bytes(data, "little") ^ int.from_bytes(whole, "little")
    return plain.to_bytes(len(data), "little")


def _length(written: bytes) -> int:
    length = int.from_bytes(written, "big")
    if length < (_LONG if len(written) == 2 else 1 << 16):
        raise Broken(BROKEN, f"a length of {length} is written in {len(written)} bytes")
    if length >> 63:
        raise Broken(BROKEN, "a length of more than 63 bits")
    return length


def _fault(first: int, proper: bool, masked: bool) -> str:
    """What is wrong with the first two bytes of a frame. `proper`: it is not the first of them."""
    if first & 0x70 and not proper:
        return "a reserved bit is set, and no extension that was agreed on sets it there"
    if first & _OPCODE not in (*_DATA, _CLOSE, _PING, _PONG):
        return f"unknown opcode {first & _OPCODE:#x}"
    if not proper:
        return "a control frame in fragments"
    return "a server must not mask its frames" if masked else "a client must mask its frames"


def _goodbye(payload: bytes) -> Goodbye:
    if not payload:
        return Goodbye(NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _CODES or code in _FREE_CODES):
        raise Broken(BROKEN, "a close frame without a code that may be sent")
    try:
        return Goodbye(code, payload[2:].decode())
    except UnicodeDecodeError as error:
        raise Broken(NOT_UTF8, str(error)) from None
