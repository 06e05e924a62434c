"""SockJS frames (https://github.com/sockjs/sockjs-protocol): what WebSocket and HTTP carry alike.

Rules of this file: pure. The server says `o` once, `a` with an array of messages, `h` now and then, and `c`
at the end. The client sends an array of messages, or one message.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dataflow.domain.errors import DataflowError

GREETING: Final = b"Welcome to SockJS!\n"
OPENED: Final = b"o"
HEART_BEAT: Final = b"h"
HEART_BEAT_INTERVAL: Final = 25.0  # seconds
GO_AWAY: Final = 3000  # whatever the server ends
OCCUPIED: Final = 2010  # another response is open
NO_ROOM: Final = 1013  # as of WebSocket: come back later

_messages: Final = msgspec.json.Decoder(list[str] | str)


class BrokenFraming(DataflowError):
    """The client sent no JSON array of messages."""


def messages(sent: str | bytes) -> list[str]:
    """The messages in what a client sent. Raises BrokenFraming."""
    try:
        found = _messages.decode(sent)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenFraming(f"a JSON array of strings was expected: {error}") from None
    return [found] if isinstance(found, str) else found


def escaped(message: bytes) -> bytes:
    """A message, or a part of it, as it stands between the quotes of a JSON string."""
    return msgspec.json.encode(message.decode())[1:-1]


def closed(code: int = GO_AWAY, reason: str = "Go away!") -> bytes:
    """The last frame."""
    return b"c" + msgspec.json.encode((code, reason))
