"""What may be shown of a text: everything but secrets. The one place that decides it.

Rules of this file: no I/O. A secret is known by its name (the key of a configuration, a parameter of a query,
a header), by its place (the password in an address, a private key in PEM), or by its value, once `keep` has
heard it. In doubt a value is hidden and its name is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

HIDDEN: Final = "***"
SHORTEST: Final = 6  # characters: a shorter value is no secret, and may be part of any word

# The last word of a name tells what it is: `apiKey` is a secret, and neither KeyError nor key_id is one.
_LAST: Final = frozenset(
    (
        *("accesskey", "apikey", "auth", "authentication", "authorization", "bearer", "cookie", "dsn", "jwt"),
        *("key", "listenkey", "pass", "passwd", "privatekey", "pw", "pwd", "secretkey", "sig", "signature"),
        *("token", "tokens"),
    )
)
_ANYWHERE: Final = frozenset(
    ("credential", "credentials", "passphrase", "password", "passwords", "secret", "secrets")
)
_FILES: Final = frozenset({"tls_key"})  # keys whose value is the name of a file
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

_PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL)
_PASSWORDS: Final = (
    re.compile(r"(://(?:[^\s/?#@:\"'<>]{0,200}:)?)[^\s/?#\"'<>]{1,400}@"),
    # with a slash, which ends the authority too early, or without a scheme; a port is no password
    re.compile(
        r"((?:://|(?<![\w/.@-])(?=\w))[^\s/?#@:\"'<>\[]{0,200}+:)"
        r"(?!//|\*\*\*@|[0-9]{0,5}(?:[/?#\s\"']|$))[^\s\"'<>]{1,400}@"
    ),
)
_HEADER: Final = re.compile(
    r"(?i)(\b(?:proxy-)?authorization\b[\"']?\s{0,3}[:,=]\s{0,3}(?:b(?=[\"']))?[\"']?(?:\w++\s++)?+)(?!<)[^\s\"',]+"
)
_BEARER: Final = re.compile(r"(\bBearer\s+)(?!<)[^\s\"',]+")
# name=value, name = "value", "name": "value", 'name': b'value', \"name\": \"value\"
_NAMED: Final = re.compile(
    r"(?<![\w-])([\w-]{1,60}+)(=|\\*[\"']?\s{0,3}[=:]\s{0,3}b?(?=\\*[\"']))"
    r"(\\+[\"'][^\"'\\]*+|\"[^\"]*+\"?|'[^']*+'?|[^\s&;,\"'<>\])}]++)"
)
_OPENING: Final = re.compile(r"\\*[\"']?")

_kept: set[str] = set()
_any_kept: re.Pattern[str] | None = None


def is_secret(name: str) -> bool:
    """Whether a value under this name is a secret: `admin_token`, `apiKey`, `password`, but not `tls_key`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return name not in _FILES and bool(words) and (words[-1] in _LAST or not _ANYWHERE.isdisjoint(words))


def without_kept(text: str) -> str:
    """`text` with `***` in the place of what `keep` has heard. For a text that is about to be cut: afterwards
    nobody would know half of a secret."""
    return text if _any_kept is None else _any_kept.sub(HIDDEN, text)


def concealed(text: str) -> str:
    """`text` with `***` in the place of every secret."""
    text = without_kept(text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(HIDDEN, text)
    if "@" in text:
        for password in _PASSWORDS:
            text = password.sub(rf"\1{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", _HEADER.sub(rf"\1{HIDDEN}", text))
    return _NAMED.sub(_without_value, text)


def concealed_value(value: Any, name: str = "") -> Any:
    """Plain data, such as a table of a configuration, with `***` in the place of every secret."""
    if isinstance(value, Mapping):
        return {key: concealed_value(each, str(key)) for key, each in value.items()}
    if name and is_secret(name):
        return HIDDEN
    if isinstance(value, list | tuple):
        return [concealed_value(each) for each in value]
    return concealed(value) if isinstance(value, str) else value


def keep(settings: Any) -> None:
    """Hide the secrets of `settings` wherever they turn up, whatever their name is there.

    An upstream may repeat our key in its refusal, and an error of a connector may hold anything.
    """
    global _any_kept
    _kept.update(each for each in secrets_in(settings) if len(each) >= SHORTEST)
    longest_first = sorted(map(re.escape, _kept), key=len, reverse=True)
    _any_kept = re.compile("|".join(longest_first)) if longest_first else None


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """The secrets in an attrs object, mapping, sequence or text, as they are written and as they are sent."""
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from secrets_in(getattr(value, field.name), field.name)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from secrets_in(each, str(key))
    elif isinstance(value, str):
        yield from (value,) if value and is_secret(name) else _in_address(value)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for each in value:
            yield from secrets_in(each, name)


def _in_address(text: str) -> Iterator[str]:
    if "://" not in text:
        return
    try:
        parts = urlsplit(text)
        password, query = parts.password or "", parse_qsl(parts.query)
    except ValueError:
        return
    for secret in (password, *(value for key, value in query if is_secret(key))):
        yield from {each for each in (secret, unquote(secret)) if each}


def _without_value(match: re.Match[str]) -> str:
    name, between, value = match.groups()
    opening = _OPENING.match(value)[0]  # type: ignore[index]  # it matches nothing, too
    closing = opening if value.endswith(opening) and len(value) > len(opening) else ""
    inner = value[len(opening) : len(value) - len(closing)]
    # a value that is none may hold one: what is quoted by a message, for example
    hidden = HIDDEN if is_secret(name) else _NAMED.sub(_without_value, inner) if opening else inner
    return f"{name}{between}{opening}{hidden}{closing}"
