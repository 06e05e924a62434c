"""The rights of a client: whether it may read only, or also change something.

Rules of this file. The handshake alone decides. Every client may read; only the operator may change
something. The token proves that a client is the operator. Without a configured token, every client on this
machine counts as the operator, unless its request may come from elsewhere.
"""

from __future__ import annotations

import hmac
from typing import Final, Protocol

from attrs import frozen

from dataflow.net.ip import is_loopback
from dataflow.server.handshake import Handshake

from .hops import passed_on_by
from .pages import is_own_page, named_host
from .problems import Forbidden, Unauthorised

OPERATOR: Final = "operator"


@frozen
class Principal:
    """The rights of a client. Clients with the same rights share one object."""

    name: str
    roles: frozenset[str] = frozenset()


ANONYMOUS: Final = Principal("anonymous")
_OPERATOR: Final = Principal("operator", frozenset({OPERATOR}))
_LOCAL: Final = Principal(ANONYMOUS.name, frozenset({OPERATOR}))  # by its address: it has proved no name


class Identify(Protocol):
    """Gives a new client its rights. Raises Unauthorised or Forbidden when the client must not come in."""

    def __call__(self, client: Handshake) -> Principal: ...


class Identity:
    """Recognises the operator by `token`. Without a token, by its address: this machine, if `trust_local`.

    `key`: where the token is configured, for people. A source has a token of its own for its producers.
    """

    def __init__(self, token: str | None, trust_local: bool = True, key: str = "[operator] token") -> None:
        self._token = token
        self._trust_local = trust_local
        self._key = key

    def __call__(self, client: Handshake) -> Principal:
        try:
            self.require_operator(client)
        except (Unauthorised, Forbidden):
            return ANONYMOUS
        return _LOCAL if self._token is None else _OPERATOR

    def require_operator(self, client: Handshake) -> None:
        """Raises Unauthorised or Forbidden unless the client may change something."""
        if self._token is not None:
            self._require_token(client, self._token)
        elif not self._trust_local:
            raise Forbidden(f"this needs a token, and none is configured: set {self._key}")
        else:
            _require_this_machine(client, self._key)

    def require_insight(self, client: Handshake) -> None:
        """Raises Unauthorised unless the client may look inside. Without a token, every client may."""
        if self._token is not None:
            self._require_token(client, self._token)

    def _require_token(self, client: Handshake, token: str) -> None:
        scheme, _, given = (client.header("authorization") or "").partition(" ")
        # Bytes are compared. As Latin-1 text, some bytes of a UTF-8 token would count as spaces.
        sent = given.encode("latin-1").strip(b" \t")
        expected = token.encode(errors="surrogateescape")  # the environment's bytes, UTF-8 or not
        if scheme.lower() != "bearer" or not hmac.compare_digest(sent, expected):
            raise Unauthorised(f"this needs the header 'Authorization: Bearer TOKEN' with {self._key}")


def _require_this_machine(client: Handshake, key: str) -> None:
    """Refuse a client elsewhere, and one on this machine that may speak for somebody elsewhere.

    A reverse proxy says so in a header. A page of another site, open in the operator's browser, has its
    Origin, or its own name points at this machine (DNS rebinding) and is the Host.
    """
    if not is_loopback(client.peer.rpartition(":")[0]):
        raise Forbidden(f"without {key} only the daemon's own machine may do this")
    header = passed_on_by(client)
    if header is not None:
        raise Forbidden(
            f"without {key} only the daemon's own machine may do this, and {header} says that the"
            " request came through a proxy"
        )
    if not is_own_page(client):
        raise Forbidden(f"a page of {client.header('origin')} may not do this")
    name = named_host(client)
    if name != "localhost" and not is_loopback(name or ""):
        raise Forbidden(f"without {key} this is not allowed under the name {name}")
