"""HTTP/1.1 as its standards have it, where h11 and Hypercorn are more lenient, or would say nothing.

Rules of this file: heads only, and how a connection goes on behind them.
1. What is refused is told in a problem document, and ends the connection: its further bytes are not
   understood. An answer that begins before the request has ended is the last one, too, and says so.
2. No doubt about the length of a body (RFC 9112, section 6.1): a second request could hide in it.
3. Of several forms the rest of the server sees one: a path, one Host that agrees with the target (RFC 9112,
   section 3.2), and one Upgrade, which can only be to a WebSocket. Any other offer to upgrade is not taken,
   and the request is answered as it is (RFC 9110, section 7.8).
4. A handshake is whole, or refused in the words of RFC 6455, section 4.2.2.
HTTP/2 without TLS does not come here: `connection.py` knows it by its first line.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import h11
from attrs import define
from hypercorn.protocol.h11 import H11Protocol

from .handshake import is_key, tokens
from .refusals import HOST, VERSION_NEEDED, WRONG_HOST, Refusal, is_host, unknown_method

Fields = Mapping[bytes, Sequence[bytes]]  # the values by name

VERSION: Final = b"13"  # of the WebSocket protocol

_ABSOLUTE: Final = re.compile(rb"(?i:https?)://(%b)(/[^#]*|\?[^#]*)?" % HOST).fullmatch
_HEAD_ENDS: Final = re.compile(rb"\n\r?\n")
_WORDS: Final = {
    "no request line received": "the request must begin with its first line, such as 'GET / HTTP/1.1'",
    "illegal request line": "the first line must be like 'GET / HTTP/1.1', with one space between its parts",
    "illegal header line": "a header must be 'name: value', without a space before the colon and without"
    " control characters",
    "Missing mandatory Host": WRONG_HOST,
    "Found multiple Host": WRONG_HOST,
    "bad Content-Length": "Content-Length must be one number",
    "conflicting Content-Length": "Content-Length must be one number",
    "illegal chunk header": "a chunk must begin with its size, in hexadecimal digits and alone on a line",
    "peer unexpectedly closed connection": "the request ends in its midst",
}
_UPGRADE: Final = (
    (b"sec-websocket-version", VERSION),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
)


class _Refused(h11.RemoteProtocolError):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail, error_status_hint=refusal.status)
        self.refusal = refusal


def _refuse(status: int, detail: str, *more: tuple[bytes, bytes]) -> NoReturn:
    raise _Refused(Refusal(status, detail, more))


class StrictConnection(h11.Connection):
    """A server's connection. `refusal`: why nothing more is understood.

    `leaves_unread`: the answer in hand is the last one, and the client may still be sending.
    """

    def __init__(self, max_head: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head)
        self.refusal: Refusal | None = None
        self.leaves_unread = False
        self.is_head = False  # the answer must have no body
        self._max_head = max_head
        self._is_handshake = False

    def receive_data(self, data: bytes) -> None:
        """As of h11. Ignores an empty line before a request (RFC 9112, section 2.2)."""
        if self.their_state in (h11.IDLE, h11.DONE) and data[:2] == b"\r\n" and not self.trailing_data[0]:
            data = data[2:]
            if not data:  # to h11 it would be the end
                return
        super().receive_data(data)

    def next_event(self) -> Any:
        """As of h11. Raises RemoteProtocolError for every head that is refused."""
        try:
            if self.their_state is h11.IDLE:
                self._check_size()
            event = super().next_event()
            return self._take(event) if isinstance(event, h11.Request) else event
        except h11.RemoteProtocolError as error:
            self.leaves_unread = True
            self.refusal = self.refusal or self._told(error)
            raise

    def send(self, event: Any) -> Any:
        """As of h11. Adds `Connection: close` to an answer behind which nothing is read."""
        is_last = self.leaves_unread or self._is_handshake or self.their_state is h11.SEND_BODY
        if isinstance(event, h11.Response) and is_last:
            self.leaves_unread = True
            headers = [*event.headers, (b"connection", b"close")]
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        return super().send(event)

    def _check_size(self) -> None:
        received, _ = self.trailing_data
        if len(received) > self._max_head:
            end = _HEAD_ENDS.search(received)
            if end is None or end.end() > self._max_head:
                raise _Refused(self._too_long(received))

    def _take(self, request: h11.Request) -> h11.Request:
        self.is_head = request.method == b"HEAD"
        checked = _checked(request)
        self._is_handshake = any(name == b"upgrade" for name, _ in checked.headers)
        return checked

    def _told(self, error: h11.RemoteProtocolError) -> Refusal:
        if isinstance(error, _Refused):
            return error.refusal
        if error.error_status_hint == 431:
            return self._too_long(self.trailing_data[0])
        words = str(error)  # perhaps with what was received
        known = next((better for begin, better in _WORDS.items() if words.startswith(begin)), words)
        return Refusal(error.error_status_hint, known)

    def _too_long(self, received: bytes) -> Refusal:
        if self.their_state is h11.IDLE and b"\n" not in received[: self._max_head]:
            return Refusal(414, f"the first line and the headers may have {self._max_head} bytes")
        return Refusal(431, f"the headers may have {self._max_head} bytes")


@define
class _Refusing:
    """In the place of Hypercorn's error answer, which has no words."""

    protocol: H11Protocol
    connection: StrictConnection

    async def __call__(self, status: int) -> None:
        refusal = self.connection.refusal or Refusal(status, "this request cannot be understood")
        headers = [*refusal.headers, *self.protocol.config.response_headers("h11")]
        await self.protocol._send_h11_event(h11.Response(status_code=refusal.status, headers=headers))
        if not self.connection.is_head:
            await self.protocol._send_h11_event(h11.Data(data=refusal.body))
        await self.protocol._send_h11_event(h11.EndOfMessage())


def be_strict(protocol: H11Protocol, max_head: int) -> StrictConnection:
    """Have `protocol`, which has heard nothing yet, take heads of at most `max_head` bytes strictly."""
    connection = StrictConnection(max_head)
    protocol.connection = connection
    vars(protocol)["_send_error_response"] = _Refusing(protocol, connection)  # of this object only
    return connection


def let_go(protocol: H11Protocol) -> None:
    """Break the cycle of references that `be_strict` made."""
    vars(protocol).pop("_send_error_response", None)


def _checked(request: h11.Request) -> h11.Request:
    """The request in its one form. Raises _Refused."""
    fields: dict[bytes, list[bytes]] = defaultdict(list)
    for name, value in request.headers:
        fields[name].append(value)
    if request.http_version[:2] != b"1.":
        _refuse(505, f"HTTP/{request.http_version.decode()} is not spoken here: HTTP/1.1 is")
    if refusal := unknown_method(request.method):
        raise _Refused(refusal)
    is_old = request.http_version == b"1.0"
    target, host = _place(request, fields)
    if not is_old and host is None:
        _refuse(400, "a request of HTTP/1.1 must have a Host")
    if b"transfer-encoding" in fields and (b"content-length" in fields or is_old):
        _refuse(400, "the length of the body is ambiguous: Content-Length or Transfer-Encoding, not both")
    headers = [(name, value) for name, value in request.headers if name not in (b"host", b"upgrade")]
    if host is not None:
        headers.insert(0, (b"host", host))
    if not is_old and request.method == b"GET" and _wants_websocket(fields):
        headers = _handshake(headers, fields)
    return h11.Request(
        method=request.method, target=target, headers=headers, http_version=b"1.0" if is_old else b"1.1"
    )


def _place(request: h11.Request, fields: Fields) -> tuple[bytes, bytes | None]:
    """The path with the query, and the Host. The Host of a whole address wins (RFC 9112, section 3.2.2)."""
    hosts, target = fields.get(b"host", ()), request.target
    if len(hosts) > 1 or not all(map(is_host, hosts)):
        _refuse(400, WRONG_HOST)
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
        return target, hosts[0] if hosts else None
    absolute = _ABSOLUTE(target)
    if absolute is None or not absolute[1]:
        _refuse(400, "the target of a request must be a path that begins with '/', or a whole http address")
    rest = absolute[2] or b"/"
    return rest if rest.startswith(b"/") else b"/" + rest, absolute[1]


def _wants_websocket(fields: Fields) -> bool:
    return _has(fields, b"upgrade", "websocket") and _has(fields, b"connection", "upgrade")


def _has(fields: Fields, name: bytes, token: str) -> bool:
    """Whether a header that is a list has `token`, in any case."""
    return token in tokens(_joined(fields, name).lower())


def _joined(fields: Fields, name: bytes) -> str:
    return b",".join(fields.get(name, ())).decode("latin-1")


def _handshake(headers: list[tuple[bytes, bytes]], fields: Fields) -> list[tuple[bytes, bytes]]:
    """The headers of a WebSocket handshake, with its lists in one header each. Raises _Refused."""
    if any(name in fields for name in (b"content-length", b"transfer-encoding", b"expect")):
        _refuse(400, "a WebSocket handshake has no body, and expects nothing")
    versions, keys = fields.get(b"sec-websocket-version", ()), fields.get(b"sec-websocket-key", ())
    if list(versions) != [VERSION]:
        status = 426 if len(versions) == 1 else 400
        _refuse(status, VERSION_NEEDED, *_UPGRADE)
    if len(keys) != 1 or not is_key(keys[0]):
        _refuse(400, "a WebSocket handshake needs one Sec-WebSocket-Key: 16 bytes in base64")
    kept = [each for each in headers if each[0] not in (b"connection", b"sec-websocket-protocol")]
    protocols = _joined(fields, b"sec-websocket-protocol").encode("latin-1")
    if protocols:
        kept.append((b"sec-websocket-protocol", protocols))
    return [*kept, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
