"""IP addresses as they are written: by a peer, in a header, in an address of the configuration. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_BARE: Final = re.compile(r"\[([^]]*)\](?::[0-9]+)?|([^:]*):[0-9]+|(.*)")


def address_of(text: str) -> Address | None:
    """The IP address in "192.0.2.1", "192.0.2.1:80", "::1", "[::1]" or "[::1]:80"; None in anything else.

    An IPv4 address in the clothes of IPv6 (::ffff:192.0.2.1) is the IPv4 address.
    """
    found = _BARE.fullmatch(text.strip(" \t"))
    bare = (found[1] or found[2] or found[3] or "") if found is not None else ""
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_loopback(text: str) -> bool:
    """Whether it is an address that always means this machine."""
    address = address_of(text)
    return address is not None and address.is_loopback


def is_this_machine(host: str) -> bool:
    """Whether a host of an address always means this machine."""
    return host.lower() == "localhost" or is_loopback(host)
