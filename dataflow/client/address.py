"""Where a daemon is: one address for its WebSocket and for its calls by HTTP."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

_SENDABLE: Final = re.compile(r"[\x21-\x7e]*")
_SECURE = {"http": False, "ws": False, "https": True, "wss": True}


@frozen
class Address:
    """`url` is for messages: a query may hold a secret and is left out. `socket` and `calls` are the paths of
    /ws and of /api/v1/rpc."""

    url: str
    host: str
    port: int
    secure: bool
    socket: str
    calls: str

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def address_of(url: str) -> Address:
    """Read `http://HOST:PORT[/PREFIX]`, also with https, or `ws://HOST:PORT[/PREFIX]/ws`, also with wss.

    Raises ValueError.
    """
    parts, shown = urlsplit(url), url.rpartition("@")[2].partition("?")[0]
    if parts.scheme not in _SECURE or not parts.hostname:
        raise ValueError(f"{shown!r} is no address of a daemon, such as http://127.0.0.1:8080")
    if parts.username or parts.password or parts.fragment:
        raise ValueError(f"the address {parts.hostname} has a user, a password or a fragment: leave them out")
    if not _SENDABLE.fullmatch(parts.path + parts.query):
        raise ValueError(f"the address {shown!r} has a character that no request has: write it as %20 or so")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{shown!r} has no valid port: it is a number from 1 to 65535")
    secure = _SECURE[parts.scheme]
    prefix = parts.path.rstrip("/").removesuffix("/ws")
    query = f"?{parts.query}" if parts.query else ""
    return Address(
        url=shown,
        host=parts.hostname,
        port=port or (443 if secure else 80),
        secure=secure,
        socket=f"{prefix}/ws{query}",
        calls=f"{prefix}/api/v1/rpc{query}",
    )
