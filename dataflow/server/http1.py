"""HTTP/1.1 without its doubtful corners: what h11 would let pass, and Hypercorn would act upon.

Rules of this file: heads only. A request with both Content-Length and Transfer-Encoding, or with the latter
in HTTP/1.0, may be an attempt to smuggle a second one past a proxy (RFC 9112, section 6.1): it is refused,
and the connection ends. An offer to upgrade to HTTP/2 in the clear is not taken: RFC 9113 has dropped it. The
request is answered as it is.
"""

from __future__ import annotations

from typing import Any

import h11
from hypercorn.protocol.h11 import H11Protocol


class StrictConnection(h11.Connection):
    """A server's connection."""

    def next_event(self) -> Any:
        """As of h11. Raises RemoteProtocolError for an ambiguous length, too."""
        event = super().next_event()
        return _checked(event) if isinstance(event, h11.Request) else event


def be_strict(protocol: H11Protocol, max_head: int) -> None:
    """Have `protocol`, which has heard nothing yet, take heads of at most `max_head` bytes strictly."""
    protocol.connection = StrictConnection(h11.SERVER, max_incomplete_event_size=max_head)


def _checked(request: h11.Request) -> h11.Request:
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        raise h11.RemoteProtocolError("the length of the body is ambiguous", error_status_hint=400)
    if (b"upgrade", b"h2c") not in [(name, value.lower()) for name, value in request.headers]:
        return request
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=[(name, value) for name, value in request.headers if name != b"upgrade"],
        http_version=request.http_version,
    )
