"""The way of a request: an invented list of addresses never passes, and every sign of a proxy is seen."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.gateway.hops import client_address, networks, passed_on_by
from dataflow.net.ip import address_of
from dataflow.server.handshake import Handshake

TRUSTED = networks(["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"])
PROXY = "127.0.0.1:50000"
STRANGERS = st.ip_addresses().filter(lambda each: address_of(str(each)) == each and not trusted(str(each)))


def trusted(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in TRUSTED)


def client(peer: str, *headers: tuple[str, str]) -> Handshake:
    sent = tuple((name.encode(), value.encode("latin-1")) for name, value in headers)
    return Handshake("/", "", sent, peer, False)


@pytest.mark.parametrize("peer", ["203.0.113.5:1", "10.0.0.1:1", "2001:db8::1:50000", "[2001:db8::1]:50000"])
def test_nobody_is_believed_by_default(peer: str) -> None:
    """Without trusted proxies the address is the socket's own, whatever the headers say."""
    said = client(peer, ("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1"))
    assert client_address(said, ()) == peer.rpartition(":")[0].strip("[]")


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([("X-Forwarded-For", "203.0.113.5")], "203.0.113.5"),
        ([("X-Forwarded-For", "192.0.2.1, 203.0.113.5")], "203.0.113.5"),
        ([("X-Forwarded-For", "203.0.113.5, 10.0.0.7")], "203.0.113.5"),
        (
            [("X-Forwarded-For", "192.0.2.1"), ("x-forwarded-for", "203.0.113.5:4711, 10.1.1.1")],
            "203.0.113.5",
        ),
        ([("X-Forwarded-For", "[2001:db8::1]:80")], "2001:db8::1"),
        ([("X-Forwarded-For", "::ffff:203.0.113.5")], "203.0.113.5"),
        ([("X-Forwarded-For", "10.0.0.9, 10.0.0.7")], "10.0.0.9"),
        ([("X-Forwarded-For", "unknown, 10.0.0.7")], "10.0.0.7"),
        ([("X-Forwarded-For", "")], "127.0.0.1"),
        ([("X-Forwarded-For", "unknown"), ("Forwarded", "for=192.0.2.1")], "127.0.0.1"),
        ([("Forwarded", "for=203.0.113.5;proto=https;by=10.0.0.1")], "203.0.113.5"),
        ([("Forwarded", 'for=192.0.2.1, For="[2001:db8::1]:4711" ; proto=https')], "2001:db8::1"),
        ([("Forwarded", 'for="10.0.0.3:80"'), ("Forwarded", "proto=http;for=10.0.0.4")], "10.0.0.3"),
        ([("Forwarded", "for=_hidden")], "127.0.0.1"),
        ([("Forwarded", "for=192.0.2.1;for=203.0.113.5")], "127.0.0.1"),
        ([("Forwarded", 'for=192.0.2.1;host="a\\"b"')], "127.0.0.1"),
        ([("X-Real-IP", "192.0.2.1")], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
def test_a_trusted_proxy_is_believed(headers: list[tuple[str, str]], address: str) -> None:
    """The last untrusted address counts; what cannot be read ends the search at the proxy that wrote it."""
    assert client_address(client(PROXY, *headers), TRUSTED) == address


@pytest.mark.parametrize("peer", ["unknown", "", ":", "a.b:1", "127.0.0.1.evil:1"])
def test_a_socket_without_an_address_is_not_trusted(peer: str) -> None:
    """Nothing is believed, and nothing is raised."""
    told = client_address(client(peer, ("X-Forwarded-For", "192.0.2.1")), TRUSTED)
    assert told == (peer.rpartition(":")[0] or peer)


INVENTED = st.lists(
    st.tuples(
        st.sampled_from(["X-Forwarded-For", "Forwarded", "x-forwarded-for", "forwarded", "X-Real-IP", "Via"]),
        st.text('019.:,;="\\ []abcdefor_', max_size=40)
        | st.sampled_from(["10.0.0.1", "127.0.0.1, 10.0.0.1", 'for="10.0.0.1', "for=10.0.0.1", 'for="\\'])
        | st.ip_addresses().map(str),
    ),
    max_size=4,
)


@example([("X-Forwarded-For", "10.0.0.1")], ipaddress.ip_address("192.0.2.1"))
@example([("Forwarded", "for=10.0.0.1")], ipaddress.ip_address("192.0.2.1"))
@given(INVENTED, STRANGERS)
def test_an_invented_list_never_passes(
    invented: list[tuple[str, str]], stranger: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    """A trusted proxy appends the address that it saw: whatever the client sent before, that one counts."""
    seen = [*invented, ("X-Forwarded-For", str(stranger))]
    assert client_address(client(PROXY, *seen), TRUSTED) == str(stranger)
    directly = client(f"{stranger}:50000", *invented)
    assert client_address(directly, TRUSTED) == str(stranger)


@example([("Forwarded", 'for="10.0.0.1')], ipaddress.ip_address("192.0.2.1"))
@given(INVENTED, STRANGERS)
def test_an_invented_forwarded_never_passes(
    invented: list[tuple[str, str]], stranger: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    """The same with RFC 7239, from a proxy that removes the other header. An open quotation hides nothing."""
    kept = [(name, value) for name, value in invented if name.lower() != "x-forwarded-for"]
    node = f'"[{stranger}]:1"' if stranger.version == 6 else str(stranger)
    seen = [*kept, ("Forwarded", f"proto=https;for={node}")]
    assert client_address(client(PROXY, *seen), TRUSTED) == str(stranger)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=3), st.text(max_size=20))
def test_any_text_is_an_address_or_none(headers: list[tuple[str, str]], peer: str) -> None:
    """No header and no peer raises an error."""
    sent = tuple((name.encode(), value.encode()) for name, value in headers)
    asks = Handshake("/", "", (*sent, (b"x-forwarded-for", peer.encode())), peer, False)
    assert isinstance(client_address(asks, TRUSTED), str)
    address_of(peer)


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-FORWARDED-PROTO",
        "X-Real-IP",
        "Via",
        "CF-Connecting-IP",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", "", "?!"])
def test_every_sign_of_a_proxy_is_seen(name: str, value: str) -> None:
    """The name is enough, in any case and with any value."""
    assert passed_on_by(client(PROXY, ("Host", "a"), (name, value))) == name
    assert passed_on_by(client(PROXY, ("Host", "a"))) is None
