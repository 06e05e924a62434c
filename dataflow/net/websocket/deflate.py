"""permessage-deflate (RFC 7692) in the server's role: the agreement, the frames sent, the messages received.

Rules of this file: pure, no socket, no clock.
1. A payload refers back to nothing but itself. So it is compressed once for all clients, it may be dropped as
   a whole, and no client costs memory. Its messages refer back to each other: a client keeps its window from
   one message to the next (RFC 7692, section 7.2.3.2), unless it asked for `server_no_context_takeover`. So
   many short messages shrink like a long one, and stay messages.
2. Only what pays is compressed: payloads of `LEAST` bytes. All else leaves as without the agreement.
3. Clients keep no context (`client_no_context_takeover`): an inflater lives as long as its message.
4. What comes in is bounded by what comes out of it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import define, frozen

from .frames import RESERVED_1, Opcode, binary_frames, frame_head, text_frames
from .parser import NOT_UTF8, PROPER, Broken, Parser, too_big

LEAST: Final = 1024  # bytes of a payload below which compression saves no time in any `send`
MOST: Final = 1 << 19  # bytes of a payload beyond which its compression would hold up the others: some 3 ms
LEVEL: Final = 4  # of updates: level 1 makes 14 % more bytes in the same time, level 6 3 % fewer in 7 % more
LEVEL_OF_PIECES: Final = 1  # of long answers, which nobody shares: a third less time, a fifth more bytes
WINDOW: Final = 12  # bits: 4 KiB hold the last dozen of updates; a larger window saves nothing
MEMORY: Final = 5  # as much as goes with that window

_NAME: Final = "permessage-deflate"
_TAIL: Final = b"\x00\x00\xff\xff"  # of each message; it is not sent
_EMPTY: Final = b"\x00"  # a message without data
_FINAL_BLOCK: Final = b"\x03\x00"
_BITS: Final = re.compile("[89]|1[0-5]")
_OFFER: Final = re.compile(r'(?:[^",]|"[^"]*")+')
_CLOSED: Final = re.compile(r'(?:[^"]|"[^"]*")*')  # every quotation
_PARAMETER: Final = re.compile(r'\s*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)\s*(?:=\s*(?:"([^"\\]*)"|([^\s"=]+))\s*)?')


# The agreement.


@frozen
class Agreement:
    """What was agreed on with a client. `chained`: messages of one payload may refer back to each other.

    `answer` is the value of the header `Sec-WebSocket-Extensions`.
    """

    chained: bool
    answer: str


_ANSWER: Final = f"{_NAME}; server_max_window_bits={WINDOW}; client_no_context_takeover"
_CHAINED: Final = Agreement(True, _ANSWER)
_APART: Final = Agreement(False, f"{_ANSWER}; server_no_context_takeover")


def agree(offers: str | None) -> Agreement | None:
    """The agreement on the first offer in a client's `Sec-WebSocket-Extensions` that we can keep."""
    if offers is None or _CLOSED.fullmatch(offers) is None:
        return None
    for offer in _OFFER.findall(offers):
        asked = _asked(offer)
        if asked is not None and int(asked.get("server_max_window_bits") or WINDOW) >= WINDOW:
            return _APART if "server_no_context_takeover" in asked else _CHAINED
    return None


def _asked(offer: str) -> Mapping[str, str | None] | None:
    """The parameters of an offer of permessage-deflate; None when it is another one, or has a mistake."""
    name, *rest = _split(offer)
    if name != (_NAME, None):
        return None
    asked = dict(rest)
    proper = len(asked) == len(rest) and all(_is_proper(name, value) for name, value in rest)
    return asked if proper else None


def _split(offer: str) -> list[tuple[str, str | None]]:
    found = [_PARAMETER.fullmatch(part) for part in offer.split(";")]
    return [
        ("", None) if each is None else (each[1], each[2] if each[3] is None else each[3]) for each in found
    ]


def _is_proper(name: str, value: str | None) -> bool:
    if name in ("server_no_context_takeover", "client_no_context_takeover"):
        return value is None
    if name == "client_max_window_bits" and value is None:
        return True
    is_window = name in ("server_max_window_bits", "client_max_window_bits")
    return is_window and value is not None and _BITS.fullmatch(value) is not None


# Frames that are sent.


def _deflater(level: int) -> Any:
    return zlib.compressobj(level, zlib.DEFLATED, -WINDOW, MEMORY)


@define(eq=False)
class Packer:
    """Makes one payload of k messages. One object for all clients of a kind: its payloads are shared.

    `plain` makes the same without compression. `before` and `after` count the bytes of all payloads that were
    compressed.
    """

    opcode: Opcode
    chained: bool
    plain: Callable[[Sequence[bytes]], bytes]
    before: int = 0
    after: int = 0

    def __call__(self, texts: Sequence[bytes]) -> bytes:
        size = sum(map(len, texts))
        longest = size if self.chained else max(map(len, texts), default=0)
        if longest < LEAST or size > MOST:
            return self.plain(texts)
        made = b"".join(self._chained(texts) if self.chained else self._apart(texts))
        if len(made) >= size:  # it was compressed already, say
            return self.plain(texts)
        self.before += size
        self.after += len(made)
        return made

    def _chained(self, texts: Sequence[bytes]) -> Iterator[bytes]:
        deflater = _deflater(LEVEL)
        first = self.opcode | RESERVED_1
        for text in texts:
            data = deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH)
            yield frame_head(first, len(data) - len(_TAIL))
            yield data[: -len(_TAIL)]

    def _apart(self, texts: Sequence[bytes]) -> Iterator[bytes]:
        for text in texts:
            yield from self._chained([text]) if len(text) >= LEAST else (self.plain([text]),)


_PLAIN: Final = {Opcode.TEXT: text_frames, Opcode.BINARY: binary_frames}
_PACKERS: Final = {
    (opcode, chained): Packer(opcode, chained, plain)
    for opcode, plain in _PLAIN.items()
    for chained in (True, False)
}


def packer(opcode: Opcode, agreement: Agreement) -> Packer:
    """The one packer for messages of this kind."""
    return _PACKERS[opcode, agreement.chained]


def totals() -> tuple[int, int]:
    """Bytes of all payloads that were compressed in this process, before and after; once a payload, however
    many clients got it."""
    return sum(each.before for each in _PACKERS.values()), sum(each.after for each in _PACKERS.values())


class Pieces:
    """One long message, compressed piece by piece."""

    __slots__ = ("_deflater", "_opcode")

    def __init__(self, opcode: Opcode) -> None:
        self._opcode = opcode | RESERVED_1
        self._deflater = _deflater(LEVEL_OF_PIECES)

    def frame(self, text: bytes, last: bool) -> bytes:
        """The next piece, which goes to the client at once."""
        data: bytes = self._deflater.compress(text) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        if last:
            data = data[: -len(_TAIL)]
        head = frame_head(self._opcode, len(data), last)
        self._opcode = Opcode.CONTINUATION
        return head + data


# Messages that are received.


class InflatingParser(Parser):
    """Understands compressed messages too. Their bound counts twice: what comes out, and twice as much in."""

    __slots__ = ("_fed", "_inflater")

    _proper = PROPER | {first | RESERVED_1 for first in PROPER if first & 0x0F in _PLAIN}

    def __init__(self, *, masked: bool, max_message_bytes: int, binary: bool) -> None:
        super().__init__(masked=masked, max_message_bytes=max_message_bytes, binary=binary)
        self._inflater: Any = None  # of the message that has begun, if it is compressed
        self._fed = 0  # bytes of it

    def _begin(self, first: int) -> None:
        super()._begin(first & ~RESERVED_1)
        if first & RESERVED_1:
            self._inflater, self._fed = zlib.decompressobj(-zlib.MAX_WBITS), 0

    def _content(self, piece: bytes, so_far: int, over: bool) -> bytes:
        if self._inflater is None:
            return piece
        self._fed += len(piece)
        if self._fed > 2 * self._max_bytes:  # blocks without data have no end
            raise too_big(self._max_bytes)
        room = self._max_bytes + 1 - so_far
        try:
            made: bytes = self._inflater.decompress(piece, room)
            if len(made) == room:
                raise too_big(self._max_bytes)
            if over:
                self._finish()
        except zlib.error as error:
            raise Broken(NOT_UTF8, f"corrupt compressed data: {error}") from None
        return made

    def _finish(self) -> None:
        """The data of a message must end where a block ends: a part of it would be a guess."""
        inflater, self._inflater = self._inflater, None
        if inflater.eof:  # the client marked its last block; only an empty one may stand behind it
            is_whole = inflater.unused_data in (b"", _EMPTY)
        else:
            more = inflater.decompress(_TAIL + _FINAL_BLOCK, 1)
            is_whole = not more and inflater.eof and not inflater.unused_data
        if not is_whole:
            raise Broken(NOT_UTF8, "corrupt compressed data: it ends within a block")
