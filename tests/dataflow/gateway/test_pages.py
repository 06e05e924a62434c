"""Which page asks: the daemon's own and the invited ones, under the daemon's own names, and no other."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.gateway.pages import Pages, is_own_page
from dataflow.gateway.problems import Forbidden
from dataflow.server.handshake import Handshake


def client(
    host: str | None = "127.0.0.1:8080", origin: str | None = None, encrypted: bool = False
) -> Handshake:
    named = {"host": host, "origin": origin}
    headers = tuple((name.encode(), text.encode()) for name, text in named.items() if text is not None)
    return Handshake("/ws", "", headers, "127.0.0.1:50000", encrypted)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "192.0.2.7",
        "[2001:db8::1]:80",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "feed.example:9",
        socket.gethostname(),
        "",
        None,
    ],
)
def test_own_names_are_accepted_with_any_port(host: str | None) -> None:
    """Addresses, localhost, this machine and what is configured; a request without Host comes from no browser."""
    assert Pages(["Feed.Example"]).admits(client(host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "feed.example.evil",
        "localhost.evil",
        "[::1",
        "a:b",
        "127.0.0.1:8080, evil",
        "2130706433",
    ],
)
def test_a_foreign_name_is_refused(host: str) -> None:
    """A name that was pointed at this machine: the refusal names the key that would accept it."""
    with pytest.raises(Forbidden, match=r"\[gateway\] hosts"):
        Pages(["feed.example"]).check(client(host))


@pytest.mark.parametrize(
    ("host", "origin", "encrypted"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("localhost", "http://localhost", False),
        ("localhost", "https://localhost", True),
        ("localhost:443", "https://localhost", False),  # the proxy before us has the certificate
        ("LocalHost:8080", "http://localhost:8080", False),
    ],
)
def test_the_daemons_own_page_is_admitted(host: str, origin: str, encrypted: bool) -> None:
    """Origin and Host are the same place."""
    assert Pages().admits(client(host, origin, encrypted))


FOREIGN = [
    "http://evil.example",
    "http://127.0.0.1",
    "http://127.0.0.1:8081",
    "null",
    "",
    "http://",
    "127.0.0.1:8080",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_page_is_refused(origin: str) -> None:
    """Another host or another port is another page. The refusal names the key that would invite it."""
    with pytest.raises(Forbidden, match=r"\[gateway\] origins"):
        Pages().check(client(origin=origin))


def test_a_page_that_came_unencrypted_is_not_ours_when_we_encrypt() -> None:
    """Somebody on the way may have written it."""
    assert not is_own_page(client("localhost", "http://localhost", encrypted=True))


def test_invited_pages_are_admitted() -> None:
    """By their whole origin; `*` invites all. An invitation changes nothing about the name."""
    pages = Pages(origins=["https://app.example"])
    assert pages.admits(client(origin="https://app.example"))
    assert not pages.admits(client(origin="https://app.example:8443"))
    assert not pages.admits(client(origin="http://app.example"))
    assert not pages.admits(client("evil.example", "https://app.example"))
    assert all(Pages(origins=["*"]).admits(client(origin=origin)) for origin in FOREIGN)


@given(st.none() | st.binary(), st.none() | st.binary(), st.booleans())
def test_any_bytes_are_admitted_or_refused(host: bytes | None, origin: bytes | None, encrypted: bool) -> None:
    """No header raises another error."""
    named = {b"host": host, b"origin": origin}
    headers = tuple((name, text) for name, text in named.items() if text is not None)
    Pages().admits(Handshake("/ws", "", headers, "", encrypted))
