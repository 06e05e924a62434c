"""A client's introduction, and the short way in for WebSockets: RFC 6455's handshake without an HTTP server.

Rules of this file: pure, no socket, no clock. The short way answers only requests without any doubt: a whole
request for one of the known paths, in the plainest HTTP/1.1, and proper in every respect. For everything else
the answer is None. Then the HTTP server gets the same bytes and says what is wrong: error answers have one
home. h11 and wsproto would give the same answer to the same bytes; a test proves it. They are not asked,
because handshakes come in storms, and the libraries take ten times as long.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from hashlib import sha1
from typing import Any

from attrs import define, frozen

from dataflow.net.websocket.deflate import Agreement, agree

MAX_HEAD = 16384  # bytes

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n%b\r\n"
)
_NAME, _VALUE = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", rb"(?:[!-~](?:[ \t!-~]*[!-~])?)?"
_LINE = re.compile(rb"(%b):[ \t]*(%b)[ \t]*\r\n" % (_NAME, _VALUE))
_LINES = re.compile(rb"(?:%b:[ \t!-~]*\r\n)+" % _NAME)
_FIRST_LINE = re.compile(rb"GET ([!->@-~]+)(?:\?([!-~]*))? HTTP/1\.1\r\n")
_HOST = re.compile(rb"[0-9A-Za-z.:_\[\]-]+")
_ONCE = frozenset(
    (
        *(b"host", b"upgrade", b"connection"),
        *(b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol"),
    )
)  # a second header of the name is a doubt
_EXTENSIONS = b"sec-websocket-extensions"
_NEVER = frozenset((b"content-length", b"transfer-encoding", b"expect"))  # a body is a doubt, too


@frozen
class Handshake:
    """The introduction of a client, by WebSocket or HTTP.

    `peer` is the address of its socket, "host:port". `subprotocol` is the one agreed on. Header values are
    Latin-1.
    """

    path: str
    query: str
    headers: tuple[tuple[bytes, bytes], ...]  # names in any case
    peer: str
    encrypted: bool
    subprotocol: str | None = None

    def header(self, name: str) -> str | None:
        """The value of the header `name` (lower case). Several headers of that name are joined by commas."""
        wanted = name.encode()
        found = [value for key, value in self.headers if key.lower() == wanted]
        return b", ".join(found).decode("latin-1") if found else None


def handshake_in(scope: Any, path: str, subprotocol: str | None = None) -> Handshake:
    """The introduction in a scope of ASGI, for `path`."""
    return Handshake(
        path=path,
        query=scope["query_string"].decode("latin-1"),
        headers=tuple(scope["headers"]),
        peer=peer_in(scope),
        encrypted=scope["scheme"] in ("wss", "https"),
        subprotocol=subprotocol,
    )


def peer_in(scope: Any) -> str:
    """The client's "host:port" in a scope of ASGI, as far as the server knows it."""
    return peer_at(scope.get("client"))


def peer_at(address: Any) -> str:
    """The address of a client's socket as "host:port"; without an address it is unknown."""
    return f"{address[0]}:{address[1]}" if address else "unknown"


Admits = Callable[[Handshake], bool]


class Messages(Enum):
    """The kinds of message on a path for WebSocket clients."""

    TEXT = "text"  # both ways
    BINARY = "binary"  # is sent; either kind is received
    EITHER = "either"  # is received; text is sent until the wire turns binary


@frozen
class Socket:
    """A path for WebSocket clients, such as "/ws", and the subprotocols and messages allowed there.

    A path may have variables, as Quart writes them: "/ws/<room>". Its clients come in through Quart.
    """

    path: str
    subprotocols: tuple[str, ...] = ()  # the best first
    messages: Messages = Messages.TEXT

    def choose(self, offered: Iterable[str]) -> str | None:
        """The subprotocol to speak with a client that offers these: our best, whatever comes first there."""
        known = list(offered)
        return next((each for each in self.subprotocols if each in known), None)


@define
class Opening:
    """An accepted handshake: the response to send, the bytes that came behind the request, and the client.

    `agreement`: on compressed messages, if the client offered it and we want it.
    """

    response: bytes
    early: bytes
    handshake: Handshake
    agreement: Agreement | None = None


class Door:
    """Answers handshakes for known paths. The query behind a path is for the handler.

    `admits(client)` may have a doubt about a client, too. `deflate`: agree on compressed messages.
    """

    def __init__(
        self, sockets: Iterable[Socket], admits: Admits | None = None, *, deflate: bool = False
    ) -> None:
        self._admits = admits
        self._deflate = deflate
        self._sockets: Mapping[bytes, Socket] = {socket.path.encode(): socket for socket in sockets}

    def messages(self, path: str) -> Messages:
        """The kinds of message on this path."""
        return self._sockets[path.encode()].messages

    def answer(self, received: bytes, peer: str = "", encrypted: bool = False) -> Opening | None:
        """The answer to a handshake; None when in doubt."""
        first = _FIRST_LINE.match(received)
        if first is None:
            return None
        path, query = first.groups(b"")
        socket = self._sockets.get(path)
        if socket is None:
            return None
        end = received.find(b"\r\n\r\n", first.end() - 2, MAX_HEAD) + 2
        if end < 2 or _LINES.fullmatch(received, first.end(), end) is None:
            return None
        headers = _LINE.findall(received, first.end(), end)
        found = _proper(headers)
        if found is None:
            return None
        offered = tokens(found.get(b"sec-websocket-protocol", b"").decode())
        chosen = socket.choose(offered)
        client = Handshake(socket.path, query.decode(), tuple(headers), peer, encrypted, chosen)
        if self._admits is not None and not self._admits(client):
            return None
        agreement = agreed_with(client) if self._deflate and _EXTENSIONS in found else None
        response = _response(found[b"sec-websocket-key"], chosen, agreement)
        return Opening(response, received[end + 2 :], client, agreement)


def agreed_with(client: Handshake) -> Agreement | None:
    """The agreement on compressed messages with a client, if it offers them."""
    return agree(client.header(_EXTENSIONS.decode()))


def tokens(value: str) -> list[str]:
    """The members of a header that is a list."""
    return [token for each in value.split(",") if (token := each.strip())]


def _response(key: bytes, subprotocol: str | None, agreement: Agreement | None) -> bytes:
    agreed = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode()
    if agreement is not None:
        agreed += b"Sec-WebSocket-Extensions: %b\r\n" % agreement.answer.encode()
    return _RESPONSE % (b64encode(sha1(key + _GUID).digest()), agreed)


def _proper(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """The headers of a proper handshake, by their names in lower case; None of any other."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        if name in _NEVER or (name in _ONCE and name in found):
            return None
        found[name] = value
    proper = (
        found.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in [token.strip() for token in found.get(b"connection", b"").lower().split(b",")]
        and found.get(b"sec-websocket-version") == b"13"
        and _HOST.fullmatch(found.get(b"host", b"")) is not None
        and is_key(found.get(b"sec-websocket-key", b""))
    )
    return found if proper else None


def is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
