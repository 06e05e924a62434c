"""Where a daemon is: every way to write it, and mistakes that repeat no secret."""

from __future__ import annotations

import pytest

from dataflow.client.address import address_of


@pytest.mark.parametrize(
    ("url", "host", "port", "secure", "socket", "calls"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, False, "/ws", "/api/v1/rpc"),
        ("http://a.example/", "a.example", 80, False, "/ws", "/api/v1/rpc"),
        ("ws://a.example:1/ws", "a.example", 1, False, "/ws", "/api/v1/rpc"),
        ("wss://a.example/data/ws?k=1", "a.example", 443, True, "/data/ws?k=1", "/data/api/v1/rpc?k=1"),
        ("https://[::1]:8443/data/", "::1", 8443, True, "/data/ws", "/data/api/v1/rpc"),
    ],
)
def test_addresses(url: str, host: str, port: int, secure: bool, socket: str, calls: str) -> None:
    """The schemes of pages and of WebSockets, with a path prefix or without."""
    found = address_of(url)
    assert (found.host, found.port, found.secure, found.socket, found.calls) == (
        host,
        port,
        secure,
        socket,
        calls,
    )


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://u:hush@a.example", "http://", "http://u:hush@a.example", "http://u:hush@a:x", "http://a:99999?k=hush", "http://a#f", "http://a:0", "http://a/b c?k=hush", "http://a/\xe4"])  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    """It is refused at once, in words that hold neither password nor query."""
    with pytest.raises(ValueError, match=r"address|port") as error:
        address_of(url)
    assert "hush" not in str(error.value)
