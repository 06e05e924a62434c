"""The MessagePack hub protocol: each record is an array, with its length in front.

Rules of this file: pure. The length is a number in groups of seven bits, the lowest first; each byte but the
last has its highest bit set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from dataflow.faces.jsonrpc.protocol import Write

from .protocol import CLOSE, IGNORED, PING, TARGET, BadRecord, Invocation, Record, plain

LENGTH_BYTES: Final = 5  # of a length at most
_ERROR, _RESULT = 1, 3  # kinds of a completion

_decoder: Final = msgspec.msgpack.Decoder()
_encode: Final = msgspec.msgpack.Encoder().encode
# [1, headers, no invocation id, target, [the text], no streams], up to the text and behind it
_HEAD: Final = b"\x96\x01\x80\xc0" + _encode(TARGET) + b"\x91"
_TAIL: Final = b"\x90"


class MessagePackHub:
    """Reads and writes records in MessagePack."""

    name = "messagepack"
    binary = True
    ping = b"\x02\x91\x06"

    def cut(self, received: bytearray, seen: int, most: int) -> tuple[bytes, int] | None:
        """As many bytes as the length in front says."""
        length = 0
        for at, byte in enumerate(received[:LENGTH_BYTES]):
            length |= (byte & 0x7F) << (7 * at)
            if length > most:
                raise BadRecord(f"a record may have {most} bytes")
            if byte < 0x80:
                end = at + 1 + length
                return (bytes(received[at + 1 : end]), end) if len(received) >= end else None
        if len(received) >= LENGTH_BYTES:
            raise BadRecord(f"the length of a record may have {LENGTH_BYTES} bytes")
        return None

    def read(self, record: bytes) -> Record:
        """Raises BadRecord."""
        try:
            written = _decoder.decode(record)
        except (ValueError, TypeError, RecursionError) as error:  # TypeError: a key that cannot be one
            raise BadRecord(f"a record is not understood: {plain(error)}") from None
        if not isinstance(written, list) or not written or type(written[0]) is not int:
            raise BadRecord("a record must be an array that begins with its type")
        kind = written[0]
        if kind in (1, 4):
            return _invocation(written, len(record))
        return PING if kind == 6 else CLOSE if kind == 7 else IGNORED

    def message(self, text: bytes) -> bytes:
        """The invocation that gives a client this one text."""
        return _prefixed(_HEAD + _text_head(len(text)) + text + _TAIL)

    def joined(self, texts: Sequence[bytes]) -> Sequence[bytes]:
        """The messages for several texts as one."""
        return [b"".join([self.message(text) for text in texts])] if texts else ()

    def answers(self, begin: Write) -> Whole:
        """For the answers to an invocation."""
        return Whole()

    def completion(self, invocation: str, error: str | None = None) -> bytes:
        """The end of an invocation."""
        outcome = (_RESULT, None) if error is None else (_ERROR, error)
        return _prefixed(_encode([3, {}, invocation, *outcome]))

    def close(self, error: str | None, allow_reconnect: bool) -> bytes:
        """The last record."""
        return _prefixed(_encode([7, error, allow_reconnect]))


MESSAGEPACK: Final = MessagePackHub()


class Whole:
    """Answers that stand in memory whole, because a record begins with its length."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes] = []  # of the answer that has begun
        self._records: list[bytes] = []

    async def write(self, text: bytes) -> None:
        """A piece of an answer, which is not its end."""
        self._pieces.append(text)
        self.size += len(text)

    async def end(self, text: bytes) -> None:
        """An answer, or the rest of one."""
        await self.write(text)
        self._records.append(MESSAGEPACK.message(b"".join(self._pieces)))
        self._pieces.clear()

    def rest(self) -> bytes:
        """What nobody has sent yet."""
        rest, self._records = b"".join(self._records), []
        return rest


def _invocation(written: list[Any], size: int) -> Invocation:
    """Raises BadRecord. What may follow the arguments are streams, which nobody reads."""
    if len(written) < 5:
        raise BadRecord("an invocation must have headers, an id or nil, a target and arguments")
    kind, _headers, id, target, arguments = written[:5]
    if not (isinstance(id, str | None) and isinstance(target, str) and isinstance(arguments, list)):
        raise BadRecord("an invocation has a string or nil as its id, a string as its target, and a list")
    return Invocation(id, target, arguments, kind == 4, size)


def _prefixed(record: bytes) -> bytes:
    prefix, length = bytearray(), len(record)
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + record


def _text_head(length: int) -> bytes:
    """The mark of a text of so many bytes."""
    if length < 1 << 8:
        return b"\xd9%c" % length
    if length < 1 << 16:
        return b"\xda" + length.to_bytes(2, "big")
    return b"\xdb" + length.to_bytes(4, "big")
