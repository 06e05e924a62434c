"""The way of a request: whether somebody passed it on, and from which address it comes.

Rules of this file: pure. Every header may be a client's invention. So a header can take a privilege away, and
never gives one. About an address, only a trusted proxy is believed, and only about the hop before it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from dataflow.net.ip import address_of
from dataflow.server.handshake import Handshake

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SIGNS: Final = (  # beginnings of the names of headers that proxies add
    *(b"forwarded", b"x-forwarded", b"x-original-forwarded", b"via", b"x-real-ip", b"x-client-ip"),
    *(b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip", b"fastly-client-ip", b"x-envoy-"),
)
_PAIR: Final = re.compile(r'[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("[^"\\]*"|[^\s;"]*)[ \t]*')


def passed_on_by(client: Handshake) -> str | None:
    """The header that says that a proxy passed the request on, whatever its value; None without one."""
    for name, _value in client.headers:
        if name.lower().startswith(_SIGNS):
            return name.decode("latin-1")
    return None


def networks(written: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks, such as "10.0.0.0/8". Raises ValueError."""
    return tuple(ipaddress.ip_network(each) for each in written)


def client_address(client: Handshake, trusted: Sequence[Network]) -> str:
    """The IP address of the client, without port and brackets, as far as it is believed.

    It is the address of the socket. If that is trusted, it is the last untrusted address in X-Forwarded-For,
    or in Forwarded (RFC 7239) without an X-Forwarded-For. What cannot be read ends the search at the proxy
    that wrote it. A socket without an IP address has its name as the address.
    """
    host = client.peer.rpartition(":")[0]
    address = address_of(host)
    if address is None:
        return host or client.peer
    for hop in _hops(client):  # from the last proxy backwards
        before = address_of(hop) if is_in(str(address), trusted) else None
        if before is None:
            break
        address = before
    return str(address)


def is_in(text: str, several: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks."""
    address = address_of(text)
    return address is not None and any(address in network for network in several)


def _hops(client: Handshake) -> Iterator[str]:
    """What proxies wrote about the hop before them, the last proxy first.

    Lists are cut at every comma, also within quotation marks: an address has none, and a client that opens a
    quotation could hide what the proxy wrote behind it.
    """
    said = client.header("x-forwarded-for")
    if said is not None:
        yield from reversed(said.split(","))
    else:
        yield from map(_for, reversed((client.header("forwarded") or "").split(",")))


def _for(element: str) -> str:
    """The node that an element of Forwarded names; an empty text if it is not in order."""
    pairs = [_PAIR.fullmatch(each) for each in element.split(";")]
    named = [pair[2].strip('"') for pair in pairs if pair is not None and pair[1].lower() == "for"]
    return named[0] if None not in pairs and len(named) == 1 else ""
