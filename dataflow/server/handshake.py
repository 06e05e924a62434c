"""A short way in for WebSocket clients: the handshake of RFC 6455 without the machines of an HTTP server.

Rules of this file: pure, no socket, no clock. Only what is beyond doubt is answered here: a whole request for
the one path, in the plainest of HTTP/1.1 and proper in every respect. For everything else the answer is None,
and the HTTP server, which gets the same bytes, says what is wrong: error answers have one home. What is
answered here h11 and wsproto would accept too, with the same response; a test holds that together. They are
not asked, for a storm of clients is when they cost: ten times as much as this.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from hashlib import sha1

from attrs import field, frozen

MAX_HEAD = 16384  # bytes

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
_NAME, _VALUE = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", rb"(?:[!-~](?:[ \t!-~]*[!-~])?)?"
_LINE = re.compile(rb"(%b):[ \t]*(%b)[ \t]*\r\n" % (_NAME, _VALUE))
_LINES = re.compile(rb"(?:%b:[ \t!-~]*\r\n)+" % _NAME)
_HOST = re.compile(rb"[0-9A-Za-z.:_\[\]-]+")
_ONCE = frozenset(
    (b"host", b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version")
)  # a second one is a doubt
_NEVER = frozenset((b"content-length", b"transfer-encoding", b"expect"))  # a body is one, too


@frozen
class Door:
    """Knows its client by the path, such as "/ws"; a query behind it is allowed and not looked at."""

    path: str
    _first_line: re.Pattern[bytes] = field(init=False)

    @_first_line.default
    def _(self) -> re.Pattern[bytes]:
        return re.compile(rb"GET %b(?:\?[!-~]*)? HTTP/1\.1\r\n" % re.escape(self.path.encode()))

    def answer(self, received: bytes) -> tuple[bytes, bytes] | None:
        """The response to send and the bytes that came behind the handshake; None when in doubt."""
        first = self._first_line.match(received)
        if first is None:
            return None
        end = received.find(b"\r\n\r\n", first.end() - 2, MAX_HEAD) + 2
        if end < 2 or _LINES.fullmatch(received, first.end(), end) is None:
            return None
        key = _key(_LINE.findall(received, first.end(), end))
        return None if key is None else (_response(key), received[end + 2 :])


def _response(key: bytes) -> bytes:
    return _RESPONSE % b64encode(sha1(key + _GUID).digest())


def _key(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The client's key, of a proper handshake."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        if name in _NEVER or (name in _ONCE and name in found):
            return None
        found[name] = value
    key = found.get(b"sec-websocket-key", b"")
    proper = (
        found.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in [token.strip() for token in found.get(b"connection", b"").lower().split(b",")]
        and found.get(b"sec-websocket-version") == b"13"
        and _HOST.fullmatch(found.get(b"host", b"")) is not None
        and _is_key(key)
    )
    return key if proper else None


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
