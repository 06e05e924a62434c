"""Answers of the server itself, without the application, as problem documents (RFC 9457).

Rules of this file: pure, but for the date, which RFC 9110 wants in every answer with a status of 4xx. A
refusal says what is wrong and what would be right.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final
from wsgiref.handlers import format_date_time

import msgspec
from attrs import field, frozen

Headers = tuple[tuple[bytes, bytes], ...]

HOST: Final = rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?"  # RFC 3986, section 3.2
WRONG_HOST: Final = "Host must be the name or the address of this server, perhaps with a port, and only once"
VERSION_NEEDED: Final = "a WebSocket handshake needs 'Sec-WebSocket-Version: 13', once"
METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE")
)  # an application may refuse them, with 405 and what it allows

is_host: Final = re.compile(HOST).fullmatch


@frozen
class Refusal:
    """An error answer. `detail` is for people, `more` are further headers."""

    status: int
    detail: str
    more: Headers = field(default=())

    @property
    def headers(self) -> Headers:
        """All headers but those of the connection, and the date."""
        return (
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
            *self.more,
        )

    @property
    def body(self) -> bytes:
        title = HTTPStatus(self.status).phrase
        told = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return msgspec.json.encode(told)

    def http1(self, now: float) -> bytes:
        """The whole answer, as the last one of a connection. `now`: seconds since the epoch."""
        headers = (*self.headers, (b"date", format_date_time(now).encode()), (b"connection", b"close"))
        first = b"HTTP/1.1 %d %b\r\n" % (self.status, HTTPStatus(self.status).phrase.encode())
        return first + b"".join([b"%b: %b\r\n" % header for header in headers]) + b"\r\n" + self.body

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        """In the place of an ASGI application."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


async def tell_server(_scope: Any, _receive: Any, send: Any) -> None:
    """An ASGI application for `OPTIONS *`, which asks about the server, not about a path."""
    allow = (b"allow", b", ".join(sorted(METHODS - {b"TRACE"})))
    await send({"type": "http.response.start", "status": 204, "headers": (allow,)})
    await send({"type": "http.response.body"})


def unknown_method(method: bytes) -> Refusal | None:
    """What is wrong with the method, which has a case; None if nothing is."""
    if method in METHODS:
        return None
    if method == b"CONNECT":
        return Refusal(501, "this server is no proxy: CONNECT opens WebSockets over HTTP/2 only (RFC 8441)")
    shown = method[:20].decode("latin-1")
    known = ", ".join(sorted(each.decode() for each in METHODS))
    return Refusal(501, f"the method {shown!r} is not known here; these are, in capital letters: {known}")
