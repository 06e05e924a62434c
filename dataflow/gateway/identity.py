"""Who a client is, and what it may do.

Rules of this file: decided from the handshake alone. Everybody may read. To change something takes the
operator: the admin token proves it; without a configured token, a client on this machine is believed to be
it.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final, Protocol
from urllib.parse import urlsplit

from attrs import frozen

from dataflow.server.handshake import Handshake

from .problems import Forbidden, Unauthorised

OPERATOR: Final = "operator"


@frozen
class Principal:
    """A client as far as its rights go: one shared object for all clients with the same."""

    name: str
    roles: frozenset[str] = frozenset()


ANONYMOUS: Final = Principal("anonymous")
_OPERATOR: Final = Principal("operator", frozenset({OPERATOR}))


class Identify(Protocol):
    """Tells who comes in. Raises Unauthorised or Forbidden for a client that is not to come in at all."""

    def __call__(self, client: Handshake) -> Principal: ...


class Identity:
    """The one who knows the operator: by `token`, or, when that is None, by the place where it sits."""

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
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                given.strip().encode("latin-1"),
                self._token.encode(),  # the very bytes
            ):
                raise Unauthorised("this needs the header 'Authorization: Bearer <admin_token>'")
            return
        if not _is_loopback(client.peer.rpartition(":")[0]):
            raise Forbidden("without an admin_token only the daemon's own machine may do this")
        _require_no_foreign_page(client)


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address((address or "").strip("[]")).is_loopback
    except ValueError:
        return False


def _require_no_foreign_page(client: Handshake) -> None:
    """A page of another site, open in the operator's browser, must not act in the operator's name: neither
    by a request across origins, nor under a name of its own that it lets point at this machine."""
    host = client.header("host") or ""
    origin = client.header("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise Forbidden(f"a page of {origin} may not do this")
    name = urlsplit(f"//{host}").hostname
    if name != "localhost" and not _is_loopback(name):
        raise Forbidden(f"without an admin_token this is not allowed under the name {name}")
