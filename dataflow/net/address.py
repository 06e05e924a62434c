"""The address of an upstream: parsed in one place, for the check of a configuration and for the transport.

Rules of this file: pure. Whatever `parse` accepts can be dialled and asked for. Nothing that was written is
dropped: a part without a use is refused. Credentials leave only in the header that they are meant for.
"""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from attrs import field, frozen

_PORTS: Final = {"ws": 80, "wss": 443, "http": 80}
_AS_WRITTEN: Final = "!#$%&'()*+,/:;=?@[]~"  # characters of a path or query beside letters, digits and "-._"
_NAME: Final = re.compile(r"(?=.{1,253}$)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,57}\.?").fullmatch


@frozen
class Address:
    """Its text is host and port, as in the header Host. `resource`: path and query, in ASCII.

    `authorization`: the value of that header, if the address has credentials.
    """

    encrypted: bool
    host: str
    port: int
    resource: str
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        usual = self.port == _PORTS["wss" if self.encrypted else "ws"]
        return bracketed(self.host) if usual else with_port(self.host, self.port)


def parse(text: str) -> Address:
    """The address of a WebSocket. Raises ValueError, with what it must be."""
    parts = _whole(text)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError("must begin with ws:// or wss://")
    # Before anything is taken from the parts: urlsplit drops line ends and tabs without a word.
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("must not contain a space or a control character; a space in it is written %20")
    if "#" in text:
        raise ValueError('must not contain "#": a WebSocket has no fragments. The character is written %23')
    resource = quote(parts.path or "/", _AS_WRITTEN) + (
        f"?{quote(parts.query, _AS_WRITTEN)}" if parts.query else ""
    )
    return Address(parts.scheme == "wss", _host(parts), _port(parts), resource, _authorization(parts))


def parse_proxy(text: str) -> Address:
    """The address of an HTTP proxy. Raises ValueError, with what it must be."""
    parts = None
    with suppress(ValueError):  # raised for an invalid IPv6 address
        parts = urlsplit(text)
    if parts is None or parts.scheme != "http" or not parts.hostname or not _is_one_word(text):
        raise ValueError('must be the address of an HTTP proxy, such as "http://user:password@host:3128"')
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError("must end behind host and port: a proxy has no path")
    return Address(False, _host(parts), _port(parts), "/", _authorization(parts))


def _is_one_word(text: str) -> bool:
    return text.isprintable() and not any(character.isspace() for character in text)


def _whole(text: str) -> SplitResult:
    with suppress(ValueError):  # raised for an invalid IPv6 address
        parts = urlsplit(text)
        if parts.scheme and parts.hostname:
            return parts
    raise ValueError('must be a whole address, such as "wss://host/path"')


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host.isascii():
        raise ValueError("must name its host in ASCII, as DNS does: xn--...")
    if not (_NAME(host) or (":" in host and _is_ipv6(host))):
        raise ValueError("must name a host that exists in DNS, or an IP address")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host


def _port(parts: SplitResult) -> int:
    try:
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        port = 0
    if not port:
        raise ValueError("must have a port from 1 to 65535, or none")
    return port


def _authorization(parts: SplitResult) -> str | None:
    user, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
    if not user and not password:
        return None
    if b":" in user:
        raise ValueError("must not have a user with a colon, for HTTP takes it for the end of the name")
    return f"Basic {b64encode(user + b':' + password).decode()}"


def bracketed(host: str) -> str:
    """A host as addresses have it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def with_port(host: str, port: int) -> str:
    """Host and port in one text, such as "[::1]:8080"."""
    return f"{bracketed(host)}:{port}"


def check_origin(text: str) -> None:
    """An upstream that is asked by HTTP: scheme and host. Raises ValueError, with what it must be."""
    parts = SplitResult("", "", "", "", "")
    with suppress(ValueError):  # raised for an invalid IPv6 address
        parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('must be scheme and host, such as "https://api.example.com", or ""')
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("must not contain a space or a control character")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be scheme and host only: the connector knows its paths")
    _host(parts)
    with suppress(ValueError):
        if parts.port != 0:
            return
    raise ValueError("must have a port from 1 to 65535, or none")
