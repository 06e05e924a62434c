"""The rights of a client: whether it may read only, or also change something.

Rules of this file. The handshake alone decides. Every client may read; only the operator may change
something. The admin token proves that a client is the operator. Without a configured token, every client on
this machine counts as the operator.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from typing import Final, Protocol

from attrs import frozen

from dataflow.server.handshake import Handshake

from .problems import Forbidden, Unauthorised

OPERATOR: Final = "operator"

_NAME_AND_PORT: Final = re.compile(r"(\[[^]]*\]|[^:]*)(?::[0-9]*)?")


@frozen
class Principal:
    """The rights of a client. Clients with the same rights share one object."""

    name: str
    roles: frozenset[str] = frozenset()


ANONYMOUS: Final = Principal("anonymous")
_OPERATOR: Final = Principal("operator", frozenset({OPERATOR}))


class Identify(Protocol):
    """Gives a new client its rights. Raises Unauthorised or Forbidden when the client must not come in."""

    def __call__(self, client: Handshake) -> Principal: ...


class Identity:
    """Recognises the operator by `token`. Without a token, by its address: this machine."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, client: Handshake) -> Principal:
        try:
            self.require_operator(client)
        except (Unauthorised, Forbidden):
            return ANONYMOUS
        return _OPERATOR

    def require_operator(self, client: Handshake) -> None:
        """Raises Unauthorised or Forbidden unless the client may change something."""
        if self._token is not None:
            scheme, _, given = (client.header("authorization") or "").partition(" ")
            # Bytes are compared. As Latin-1 text, some bytes of a UTF-8 token would count as spaces.
            sent = given.encode("latin-1").strip(b" \t")
            expected = self._token.encode(errors="surrogateescape")  # the environment's bytes, UTF-8 or not
            if scheme.lower() != "bearer" or not hmac.compare_digest(sent, expected):
                raise Unauthorised("this needs the header 'Authorization: Bearer <admin_token>'")
            return
        if not _is_loopback(client.peer.rpartition(":")[0]):
            raise Forbidden("without an admin_token only the daemon's own machine may do this")
        _require_no_foreign_page(client)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def _require_no_foreign_page(client: Handshake) -> None:
    """Refuse a page of another site that is open in the operator's browser: it must not act for the operator.

    Such a page may send a request across origins. Or its own name points at this machine (DNS rebinding); the
    request is then within its origin, but the Host header has that name.
    """
    host = client.header("host") or ""
    origin = client.header("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise Forbidden(f"a page of {origin} may not do this")
    found = _NAME_AND_PORT.fullmatch(host)
    name = found[1].lower() if found is not None else None
    if name is None or (name != "localhost" and not _is_loopback(name)):
        raise Forbidden(f"without an admin_token this is not allowed under the name {name or host}")
