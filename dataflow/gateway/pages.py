"""Which page asks: the names under which the daemon is served, and the pages that may use it.

Rules of this file: pure. It protects people whose browser has a foreign page open. Such a page is known by
its Origin; a name that was pointed at this machine for the purpose (DNS rebinding) is known by its Host. A
client that sends no Origin is no page: programs are not concerned.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from typing import Final

from dataflow.net.ip import address_of
from dataflow.server.handshake import Handshake

from .problems import Forbidden

ANY: Final = "*"

_NAME_AND_PORT: Final = re.compile(r"(\[[^]]*\]|[^:]*)(?::[0-9]*)?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class Pages:
    """In Host it accepts IP addresses, localhost, the name of this machine, and `hosts`, all with any port.

    It accepts the daemon's own pages, and those of `origins`; "*" stands for all.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._guests: dict[str, frozenset[str]] = {}  # by path
        self.adopt(hosts, origins)

    def invite(self, path: str, origins: Iterable[str]) -> None:
        """Accept pages of `origins` at `path` and below, too; they may send credentials there."""
        self._guests[path] = frozenset(origins)

    def adopt(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """Accept these `hosts` and `origins` from now on, and no others."""
        machine = socket.gethostname()
        names = ("localhost", machine, machine.partition(".")[0], *hosts)
        self._names = frozenset(name.lower().removesuffix(".") for name in names)
        self._origins = frozenset(origins)

    def check(self, client: Handshake) -> None:
        """Raises Forbidden for a foreign name or a foreign page."""
        name = named_host(client)
        if name is None or not (name == "" or name in self._names or address_of(name) is not None):
            raise Forbidden(
                f"this daemon is not served under the name {name or client.header('host')}: if it is,"
                " [gateway] hosts must have the name",
                key="[gateway] hosts",
            )
        origin = client.header("origin")
        if not is_own_page(client) and not self.invites(origin, client.path):
            raise Forbidden(
                f"a page of {origin} may not do this. If it is the daemon's own page, a proxy on the way must"
                f" pass on the Host of the request (here it is {client.header('host')}); another page must"
                " stand in [gateway] origins",
                key="[gateway] origins",
            )

    def admits(self, client: Handshake) -> bool:
        """Whether `check` has nothing against the client."""
        try:
            self.check(client)
        except Forbidden:
            return False
        return True

    def invites(self, origin: str | None, path: str = "") -> bool:
        """Whether the configuration invites pages of this origin, to this path."""
        invited = self._origins | (self._guests_of(path) or frozenset())
        return ANY in invited or origin in invited

    def takes_credentials(self, path: str) -> bool:
        """Whether invited pages may send credentials to this path: there a cookie has no meaning, and
        clients send theirs without being asked."""
        return self._guests_of(path) is not None

    def _guests_of(self, path: str) -> frozenset[str] | None:
        """The pages invited to this path beside the others; None where there is no such invitation."""
        if not self._guests:
            return None
        return next(
            (origins for at, origins in self._guests.items() if path == at or path.startswith(f"{at}/")), None
        )


def named_host(client: Handshake) -> str | None:
    """The name in the request's Host, in small letters, without the port; None if there is no sense in it.

    Empty if the request has no Host: no browser sends that.
    """
    found = _NAME_AND_PORT.fullmatch(client.header("host") or "")
    return None if found is None else found[1].lower().removesuffix(".")


def is_own_page(client: Handshake) -> bool:
    """Whether no page asks at all, or one that the daemon served under the same Host."""
    origin = client.header("origin")
    if origin is None:
        return True
    scheme, _, place = origin.lower().partition("://")
    if client.encrypted and scheme != "https":
        return False
    port, host = _DEFAULT_PORTS.get(scheme, ""), (client.header("host") or "").lower()
    return place != "" and place.removesuffix(port) == host.removesuffix(port)
