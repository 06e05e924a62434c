"""Identity: the token or the place of the client makes it the operator, and no header breaks the check."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.gateway.identity import ANONYMOUS, OPERATOR, Identity
from dataflow.gateway.problems import Forbidden, Unauthorised
from dataflow.server.handshake import Handshake

HERE = "127.0.0.1:50000"
THERE = "192.0.2.7:50000"


def client(peer: str = HERE, **headers: str | bytes) -> Handshake:
    """A client at `peer`; text in a header goes out as UTF-8."""
    sent = {"host": "127.0.0.1:8080"} | headers
    return Handshake(
        path="/actors",
        query="",
        headers=tuple(
            (name.encode(), value.encode() if isinstance(value, str) else value)
            for name, value in sent.items()
        ),
        peer=peer,
        encrypted=False,
    )


@pytest.mark.parametrize("token", ["secret", "gehëim", "à", "Å", "日本", "two words", "'quoted'"])
@pytest.mark.parametrize("peer", [HERE, THERE])
def test_the_token_makes_the_operator_from_everywhere(token: str, peer: str) -> None:
    """The header has the UTF-8 bytes of the token, also where a byte of them means a space in Latin-1."""
    identity, asks = Identity(token), client(peer, authorization=f"Bearer {token}")
    identity.require_operator(asks)
    assert identity(asks).roles == {OPERATOR}


def test_a_token_from_the_environment_may_be_no_text() -> None:
    """Python hands over undecodable bytes as surrogates; the header has the bytes."""
    token = b"\xff\xfe".decode("utf-8", "surrogateescape")
    Identity(token).require_operator(client(authorization=b"Bearer \xff\xfe"))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_has_no_case(scheme: str) -> None:
    """RFC 9110, section 11.1; spaces and tabs around the token do not count."""
    Identity("secret").require_operator(client(authorization=f"{scheme}  secret\t"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer secret2"},
        {"authorization": "Basic secret"},
        {"authorization": "secret"},
    ],
)
def test_without_the_token_nobody_is_the_operator(headers: dict[str, str]) -> None:
    """Once a token is set, the daemon's own machine is no proof any more."""
    identity, asks = Identity("secret"), client(HERE, **headers)
    with pytest.raises(Unauthorised):
        identity.require_operator(asks)
    assert identity(asks) is ANONYMOUS


@pytest.mark.parametrize(
    "peer", ["127.0.0.1:50000", "127.1.2.3:50000", "::1:50000", "[::1]:50000", "::ffff:127.0.0.1:1"]
)
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.0.0.2"])
def test_without_a_token_a_client_on_this_machine_is_the_operator(peer: str, host: str) -> None:
    """IPv4 and IPv6, under every name that always means this machine."""
    identity, asks = Identity(None), client(peer, host=host)
    identity.require_operator(asks)
    assert identity(asks).roles == {OPERATOR}


@pytest.mark.parametrize("peer", [THERE, "2001:db8::1:50000", "unknown", "", ":", "127.0.0.1.evil:1"])
def test_without_a_token_nobody_from_elsewhere_is_the_operator(peer: str) -> None:
    """An address that cannot be read counts as elsewhere."""
    identity, asks = Identity(None), client(peer, authorization="Bearer secret")
    with pytest.raises(Forbidden):
        identity.require_operator(asks)
    assert identity(asks) is ANONYMOUS


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1"},  # another port is another page
        {"origin": "null"},
        {"origin": ""},
        {"host": "evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},  # a name that points at this machine
        {"host": "192.0.2.7:8080"},
        {"host": ""},
        {"host": "["},
        {"host": "[::1"},
        {"host": "127.0.0.1:8080, evil.example"},
    ],
)
def test_a_foreign_page_on_this_machine_is_not_the_operator(headers: dict[str, str]) -> None:
    """A foreign origin or a foreign name of this machine: the browser is here, the page is not."""
    with pytest.raises(Forbidden):
        Identity(None).require_operator(client(HERE, **headers))


@pytest.mark.parametrize(
    "name", ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via", "X-Forwarded-For"]
)
@pytest.mark.parametrize("value", ["203.0.113.5", "127.0.0.1", "", "for=127.0.0.1"])
def test_what_came_through_a_proxy_is_not_of_this_machine(name: str, value: str) -> None:
    """A header takes the privilege away, and no value gives it back. The token is as good as ever."""
    with pytest.raises(Forbidden):
        Identity(None).require_operator(client(HERE, **{name: value}))
    Identity("secret").require_operator(client(HERE, authorization="Bearer secret", **{name: value}))


def test_this_machine_may_be_trusted_with_nothing() -> None:
    """Then only a token makes the operator, and the refusal names it."""
    with pytest.raises(Forbidden, match=r"\[operator\] token"):
        Identity(None, trust_local=False).require_operator(client(HERE))


@pytest.mark.parametrize("peer", [HERE, THERE])
def test_a_look_inside_needs_the_token_once_there_is_one(peer: str) -> None:
    """Without a token everybody may look."""
    Identity(None).require_insight(client(peer))
    Identity("secret").require_insight(client(peer, authorization="Bearer secret"))
    with pytest.raises(Unauthorised):
        Identity("secret").require_insight(client(peer))


def test_the_page_of_the_daemon_itself_is_the_operator() -> None:
    """Origin and host are the same name."""
    Identity(None).require_operator(client(HERE, host="localhost:8080", origin="http://localhost:8080"))


@example(b"[", None, None, HERE, None)
@example(b"//[", b"x", b"Bearer \xa0", HERE, "\xa0")
@given(
    st.none() | st.binary(),
    st.none() | st.binary(),
    st.none() | st.binary() | st.binary().map(b"Bearer ".__add__),
    st.sampled_from([HERE, THERE, "::1:5"]) | st.text(),
    st.none() | st.text(min_size=1),
)
def test_headers_of_any_bytes_raise_no_other_error(
    host: bytes | None, origin: bytes | None, authorization: bytes | None, peer: str, token: str | None
) -> None:
    """A client may send what it likes: it is the operator, or it is refused."""
    named = {"host": host, "origin": origin, "authorization": authorization}
    asks = client(peer, **{name: value for name, value in named.items() if value is not None})
    identity = Identity(token)
    try:
        identity.require_operator(asks)
    except (Unauthorised, Forbidden):
        assert identity(asks) is ANONYMOUS
    else:
        assert identity(asks).roles == {OPERATOR}
