"""What may be shown: everything but secrets, whatever they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import secrets
from dataflow.domain.errors import ConfigError
from dataflow.domain.secrets import concealed, concealed_value, is_secret, keep, secrets_in
from dataflow.sources.reading import EXCERPT, excerpt

PLANTED = "hunter22"


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_kept", set())
    monkeypatch.setattr(secrets, "_any_kept", None)


@pytest.mark.parametrize(
    "name",
    [
        *("token", "admin_token", "ADMIN_TOKEN", "apiKey", "api-key", "apikey", "listenKey", "password"),
        *("password_2", "client_secret", "secret_id", "dsn", "Authorization", "X-MBX-APIKEY", "signature"),
        "--token",
    ],
)
def test_names_of_secrets(name: str) -> None:
    """A word in any spelling, in snake case, camel case or a header's."""
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["tls_key", "KeyError", "key_id", "monkey", "author", "passage", "tokens_per_second", "url", ""]
)
def test_other_names(name: str) -> None:
    """What only contains such a word is shown. `tls_key` names a file."""
    assert not is_secret(name)


@pytest.mark.parametrize(
    "text",
    [
        "wss://user:{}@host/stream?streams=btcusdt@trade",
        "wss://{}@host/stream",
        "wss://user:p/{}@host/stream",
        "wss://user:p@{}@host/stream",
        "user:{}@host/stream",
        "postgres://u:{}@h/db",
        "wss://host/stream?apiKey={}&x=1",
        "wss://host/stream?x=1&token={}",
        "found {{'password': '{}'}}; must be text",
        '{{"event": "refused", "token": "{}"',
        r'"{{\"token\": \"{}\"}}"',
        'admin_token = "{}"',
        'Unknown option: "--token={}"',
        "Authorization: Bearer {}",
        "Authorization: Basic {}",
        "[(b'authorization', b'Basic {}')]",
        "host=db password={} user=x",
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----: no such file",
        "-----BEGIN EC PRIVATE KEY-----\n{}",
    ],
)
def test_a_secret_is_hidden_by_its_name_or_place(text: str) -> None:
    """Only the secret: the words around it stay."""
    told = concealed(text.format(PLANTED))
    assert PLANTED not in told
    assert "***" in told
    assert concealed(told) == told


@pytest.mark.parametrize(
    "text",
    [
        "wss://stream.binance.com:443/stream?streams=btcusdt@trade/ethusdt@trade",
        "ws://[::1]:8080/stream?streams=btcusdt@trade",
        "ws://127.0.0.1:abc/stream",
        "[gateway] admin_token: found something else; must be text",
        "this needs the header 'Authorization: Bearer <admin_token>'",
        "KeyError: 'x'",
        "connection lost: closed with 1008: Too many requests",
        'unknown key; did you mean "tls_key"? valid: admin_token, tls_key',
        'found "stream.binance.com:443/stream?streams=btcusdt@trade"',
        "2026-11-27 05:50:16.697 INFO    gateway/http: listening on http://127.0.0.1:47230/ (a@b)",
        "http://a:80/ and mail to x@y",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    """Hiding must not hide the mistake."""
    assert concealed(text) == text


@frozen
class Source:
    url: str
    api_secret: str = ""
    names: Mapping[str, str] = MappingProxyType({})
    headers: tuple[str, ...] = ()
    port: int = 1


def test_the_secrets_of_settings() -> None:
    """By key at any depth, and in addresses, as they are written and as they are sent."""
    settings = {
        "a": Source("wss://u:p%40ssword@h/?listenKey=abc%20def", "s3cret-s3cret", {"token": "deep-token"}),
        "b": Source("wss://h/", headers=("wss://x:in-a-list@h",)),
    }
    found = set(secrets_in(settings))
    assert found == {"p%40ssword", "p@ssword", "abc def", "s3cret-s3cret", "deep-token", "in-a-list"}


def test_a_kept_secret_is_hidden_wherever_it_turns_up() -> None:
    """An upstream may repeat it, an error may hold it. A word of a few letters is not hidden everywhere."""
    keep(Source("wss://u:p%40ssword@h/", api_secret="s3cret-s3cret"))
    keep(Source("wss://h/", api_secret="a"))
    assert (
        concealed("no access for p@ssword, p%40ssword and s3cret-s3cret-x")
        == "no access for ***, *** and ***-x"
    )
    assert concealed("a cat") == "a cat"


def test_plain_data() -> None:
    """Tables keep their shape and their other values."""
    value = {
        "port": 1,
        "token": ["x"],
        "source": {"url": "ws://u:p@h", "password": 12345, "symbols": ["A-B"]},
    }
    assert concealed_value(value) == {
        "port": 1,
        "token": "***",
        "source": {"url": "ws://u:***@h", "password": "***", "symbols": ["A-B"]},
    }


def test_mistakes_of_a_configuration_hold_no_secret() -> None:
    """Whoever raises them."""
    error = ConfigError([f"[gateway] url: found ws://u:{PLANTED}@h"])
    assert PLANTED not in f"{error} {error.problems}"


@given(st.text(alphabet="ab:/@?&=\"'\\ \n-.*{}[]tokenBearer", max_size=80))
def test_any_text_can_be_concealed(text: str) -> None:
    """No text is an error, and what is hidden once stays as it is."""
    once: Any = concealed(text)
    assert isinstance(once, str)


ANY = st.characters(exclude_characters="\"'\\<>/?#*", exclude_categories=["Cs", "Cc", "Z"])


@given(st.text(alphabet=ANY, min_size=6))
def test_any_password_in_an_address_is_hidden(password: str) -> None:
    """Whatever it is made of, at signs and colons included."""
    assert password not in concealed(f"wss://user:{password}@host/stream")


@pytest.mark.parametrize("before", range(EXCERPT - 30, EXCERPT + 1))
@pytest.mark.parametrize("as_bytes", [True, False])
def test_an_excerpt_does_not_cut_a_secret_in_two(before: int, as_bytes: bool) -> None:
    """An upstream may repeat our key, and the cut may come in its midst: no part of it is shown."""
    keep({"token": PLANTED})
    message = f"{'x' * before}{PLANTED} {'y' * 100}"
    shown = excerpt(message.encode() if as_bytes else message)
    assert PLANTED[:2] not in shown
    assert len(shown) <= EXCERPT
