"""Certificate and key of the gateway: loaded at its start, and renewed while it serves.

Rules of this file: a mistake of the configuration is a ConfigError, with one line that names key and file. A
certificate in service is only replaced by one that can be used.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import re
import ssl
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from loguru import logger

from dataflow.domain.errors import ConfigError
from dataflow.net.tls import server_context
from dataflow.settings.schema import Gateway

_MISMATCH = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the latter when the key types differ

_FIRST: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----([^-]*)-----END")


@frozen
class Certificate:
    """A usable certificate with its key. `fingerprint`: SHA-256, as `openssl x509 -fingerprint` shows it."""

    context: ssl.SSLContext
    fingerprint: str


class InService:
    """The certificate for new connections. It outlives the gateway's actors.

    A server keeps one context for ever. Before each handshake this one hands over to the newest.
    """

    def __init__(self) -> None:
        self.certificate: Certificate | None = None
        self._front: ssl.SSLContext | None = None

    def start(self, gateway: Gateway) -> ssl.SSLContext | None:
        """The context for a server that starts now; None without TLS.

        Files that cannot be used leave the certificate in service, with a warning. The first time there is
        none: raises ConfigError.
        """
        try:
            self.certificate = configured(gateway)
        except ConfigError as error:
            if self.certificate is None:
                raise
            logger.warning("the certificate in service stays: {}", "; ".join(error.problems))
        if self.certificate is None:
            return None
        if self._front is None:
            self._front = server_context()
            self._front.sni_callback = self._hand_over
        return self._front

    def _hand_over(self, sock: Any, _name: str | None, _front: ssl.SSLContext) -> None:
        """Called in each handshake, also without a name."""
        assert self.certificate is not None
        sock.context = self.certificate.context


def configured(gateway: Gateway) -> Certificate | None:
    """What `[gateway]` names; None without TLS. Raises ConfigError."""
    context = configured_context(gateway)
    if context is None or gateway.tls_certificate is None:
        return None
    return Certificate(context, _fingerprint(gateway.tls_certificate))


def _fingerprint(file: str) -> str:
    """Of the first certificate in a PEM file that OpenSSL has accepted."""
    pem = _FIRST.search(Path(file).read_text(encoding="latin-1"))
    digest = hashlib.sha256(base64.b64decode(pem[1])).hexdigest() if pem is not None else ""
    return ":".join(digest[each : each + 2].upper() for each in range(0, len(digest), 2))


def configured_context(gateway: Gateway) -> ssl.SSLContext | None:
    """The context that `[gateway]` configures; None without TLS. Raises ConfigError."""
    if gateway.tls_certificate is None or gateway.tls_key is None:
        return None
    return certified_context(gateway.tls_certificate, gateway.tls_key)


def certified_context(certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    """A server's context of `certificate` and `key`, both PEM files.

    The chain may follow the certificate in its file. Raises ConfigError with one line for each wrong file.
    """
    context = server_context()
    _load(context, str(certificate), str(key))
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    problems = [
        f"[gateway] {name}: {file}: {why}"
        for name, file in (("tls_certificate", certificate), ("tls_key", key))
        if (why := _unreadable(file)) is not None
    ]
    if problems:
        raise ConfigError(problems)
    try:
        # Without this, OpenSSL would ask for a password on the terminal, and a daemon has none.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError([_misfit(certificate, key, error)]) from None


def _no_password() -> str:
    raise ValueError("the key is protected by a password, which nobody is there to give")


def _unreadable(file: str) -> str | None:
    try:
        if Path(file).read_bytes().startswith(codecs.BOM_UTF8):  # OpenSSL then finds no PEM in it
            return "begins with a byte order mark, which PEM does not have; save it without"
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _misfit(certificate: str, key: str, error: ssl.SSLError | ValueError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason in _MISMATCH:
        return f"[gateway] tls_key: {key}: is not the key of {certificate}"
    why = str(error) if not isinstance(error, ssl.SSLError) else "no PEM certificate with a private key"
    return f"[gateway] tls_certificate, tls_key: {certificate}, {key}: {why}"
