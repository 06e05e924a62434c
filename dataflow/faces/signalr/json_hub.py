"""The JSON hub protocol: each record is a JSON object, followed by 0x1e.

Rules of this file: pure. A text for the client stands inside the JSON as a string, so its bytes are escaped:
JSON text has no control characters, only backslashes and quotation marks need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from dataflow.faces.jsonrpc.protocol import PIECE_BYTES, Write

from .protocol import (
    CLOSE,
    END,
    IGNORED,
    PING,
    TARGET,
    BadRecord,
    Invocation,
    Record,
    plain,
    until_end,
)

HEAD: Final = b'{"type":1,"target":"%b","arguments":["' % TARGET.encode()
TAIL: Final = b'"]}' + END


class _Written(msgspec.Struct, rename="camel", gc=False):
    type: int
    invocation_id: str | None = None
    target: str = ""
    arguments: list[Any] = []


_decoder: Final = msgspec.json.Decoder(_Written)


def escaped(text: bytes) -> bytes:
    """JSON text, or a part of it, as a part of a JSON string."""
    return text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


class Pieces:
    """Answers of which a long one is sent piece by piece: it never stands in memory whole."""

    def __init__(self, begin: Write) -> None:
        self.size = 0
        self._begin = begin
        self._waiting: list[bytes] = []
        self._inside = False  # an answer has begun

    async def write(self, text: bytes) -> None:
        """A piece of an answer, which is not its end."""
        self._put(text)
        await self._begin(self.rest())

    async def end(self, text: bytes) -> None:
        """An answer, or the rest of one."""
        self._put(text)
        self._waiting.append(TAIL)
        self._inside = False
        if sum(map(len, self._waiting)) > PIECE_BYTES:
            await self._begin(self.rest())

    def rest(self) -> bytes:
        """What nobody has sent yet."""
        rest, self._waiting = b"".join(self._waiting), []
        return rest

    def _put(self, text: bytes) -> None:
        if not self._inside:
            self._waiting.append(HEAD)
            self._inside = True
        self._waiting.append(escaped(text))
        self.size += len(text)


class JsonHub:
    """Reads and writes records in JSON."""

    name = "json"
    binary = False
    ping = b'{"type":6}' + END

    def cut(self, received: bytearray, seen: int, most: int) -> tuple[bytes, int] | None:
        """Up to the first 0x1e."""
        return until_end(received, seen, most)

    def read(self, record: bytes) -> Record:
        """Raises BadRecord."""
        try:
            written = _decoder.decode(record)
        except (ValueError, RecursionError) as error:
            raise BadRecord(f"a record is not understood: {plain(error)}") from None
        if written.type in (1, 4):
            return Invocation(
                written.invocation_id, written.target, written.arguments, written.type == 4, len(record)
            )
        return PING if written.type == 6 else CLOSE if written.type == 7 else IGNORED

    def message(self, text: bytes) -> bytes:
        """The invocation that gives a client this one text."""
        return HEAD + escaped(text) + TAIL

    def joined(self, texts: Sequence[bytes]) -> Sequence[bytes]:
        """The messages for several texts as one."""
        return [b"".join([HEAD + escaped(text) + TAIL for text in texts])] if texts else ()

    def answers(self, begin: Write) -> Pieces:
        """For the answers to an invocation."""
        return Pieces(begin)

    def completion(self, invocation: str, error: str | None = None) -> bytes:
        """The end of an invocation."""
        outcome = {"result": None} if error is None else {"error": error}
        return msgspec.json.encode({"type": 3, "invocationId": invocation} | outcome) + END

    def close(self, error: str | None, allow_reconnect: bool) -> bytes:
        """The last record."""
        record: dict[str, Any] = {"type": 7}
        if error is not None:
            record["error"] = error
        if allow_reconnect:
            record["allowReconnect"] = True
        return msgspec.json.encode(record) + END


JSON: Final = JsonHub()
