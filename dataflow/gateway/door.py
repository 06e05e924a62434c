"""A short way in for WebSocket clients: the handshake of RFC 6455 without the machines of an HTTP server.

Rules of this file: pure, no socket, no clock. Only what is beyond doubt is answered here: a whole and proper
request for the one path, which h11 and wsproto find without fault. For everything else the answer is None,
and the HTTP server, which gets the same bytes, says what is wrong: error answers have one home.
"""

from __future__ import annotations

import binascii
from base64 import b64decode

import h11
from attrs import field, frozen
from wsproto import ConnectionType
from wsproto.events import AcceptConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import ProtocolError

_MAX_HEAD = 16384


@frozen
class Door:
    """Knows its client by the path, such as "/ws"; a query behind it is allowed and not looked at."""

    path: str
    _starts: tuple[bytes, ...] = field(init=False)

    @_starts.default
    def _(self) -> tuple[bytes, ...]:
        return (f"GET {self.path} ".encode(), f"GET {self.path}?".encode())

    def answer(self, received: bytes) -> tuple[bytes, bytes] | None:
        """The response to send and the bytes that came behind the handshake; None when in doubt."""
        if not received.startswith(self._starts):
            return None
        head, end, early = received.partition(b"\r\n\r\n")
        if not end or len(head) > _MAX_HEAD:
            return None
        response = _accept(head + end)
        return None if response is None else (response, early)


def _accept(head: bytes) -> bytes | None:
    handshake = H11Handshake(ConnectionType.SERVER)
    try:
        handshake.receive_data(head)
        request = next(iter(handshake.events()), None)
        if isinstance(request, Request) and _is_proper(head, request):
            return handshake.send(AcceptConnection())
    except (ProtocolError, h11.ProtocolError, ValueError):  # ValueError: text that cannot be decoded
        pass
    return None


def _is_proper(head: bytes, request: Request) -> bool:
    """What wsproto does not look at: the version of HTTP, a body, and whether the key is one."""
    line, _, _ = head.partition(b"\r\n")
    names = [name for name, _ in request.extra_headers]
    keys = [value for name, value in request.extra_headers if name == b"sec-websocket-key"]
    return (
        line.endswith(b" HTTP/1.1")
        and b"content-length" not in names
        and b"transfer-encoding" not in names
        and len(keys) == 1
        and _is_key(keys[0])
    )


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
