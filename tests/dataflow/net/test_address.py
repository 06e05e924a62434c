"""Addresses: what is accepted can be used, what is refused is named, and nothing shows a secret."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.events import Request
from wsproto.handshake import H11Handshake

from dataflow.net.address import parse

TEXTS = st.text(max_size=30) | st.text("ws:/@.?#[]%:a1 \t", max_size=40).map("ws://h".__add__)


@pytest.mark.parametrize(
    ("text", "encrypted", "shown", "resource"),
    [
        ("wss://stream.binance.com:443/stream", True, "stream.binance.com", "/stream"),
        ("WS://Host:5001", False, "host:5001", "/"),
        ("ws://host:443/", False, "host:443", "/"),
        ("ws://[::1]:80/a", False, "[::1]", "/a"),
        ("ws://h/\u5e01?a=\u00e9&b=%20", False, "h", "/%E5%B8%81?a=%C3%A9&b=%20"),
        ("ws://h/ws/btcusdt@trade/ethusdt@trade", False, "h", "/ws/btcusdt@trade/ethusdt@trade"),
    ],
)
def test_an_address_is_understood(text: str, encrypted: bool, shown: str, resource: str) -> None:
    """Whether it is encrypted, host and port as in the header Host, and the target in ASCII."""
    address = parse(text)
    assert (address.encrypted, str(address), address.resource) == (encrypted, shown, resource)
    assert address.authorization is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://h/", "must begin with ws:// or wss://"),
        ("h/stream", "must be a whole address"),
        ("ws://", "must be a whole address"),
        ("ws://[::1/", "must be a whole address"),
        ("ws://h:99999/", "a port from 1 to 65535"),
        ("ws://h:0/", "a port from 1 to 65535"),
        ("ws://h:abc/", "a port from 1 to 65535"),
        ("ws://h/a b", "must not contain a space"),
        ("ws://h/a\nb", "must not contain a space or a control character"),
        ("ws://h/\ud800", "control character"),
        ("ws://h/a#b", "a WebSocket has no fragments"),
        ("ws://b\u00fccher/", "in ASCII"),
        ("ws://a..b/", "a host that exists in DNS"),
        (f"ws://{'a' * 64}.b/", "a host that exists in DNS"),
        ("ws://a%41/", "a host that exists in DNS"),
        ("ws://a%3Ab:c@h/", "a user with a colon"),
    ],
)
def test_what_is_wrong_is_named(text: str, why: str) -> None:
    """One sentence says what an address must be."""
    with pytest.raises(ValueError, match=why):
        parse(text)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("ws://user:p%40ss@h/", "Basic dXNlcjpwQHNz"),
        ("ws://token@h/", "Basic dG9rZW46"),
        ("ws://:pw@h/", "Basic OnB3"),
        ("ws://\u00e9:%C3%A9@h/", "Basic w6k6w6k="),
        ("ws://@h/", None),
    ],
)
def test_credentials_become_a_header(text: str, header: str | None) -> None:
    """Percent-decoded, in UTF-8, and not in the text of the address."""
    address = parse(text)
    assert address.authorization == header
    assert str(address) == "h"
    assert "Basic" not in repr(address)


@given(TEXTS)
@example("ws://[::1%lo]/")
def test_whatever_is_accepted_can_be_asked_for(text: str) -> None:
    """A request for it can be written; anything else is the one declared error."""
    try:
        address = parse(text)
    except ValueError:
        return
    handshake = H11Handshake(ConnectionType.CLIENT)
    request = handshake.send(Request(host=str(address), target=address.resource))
    assert request.startswith(b"GET /")
