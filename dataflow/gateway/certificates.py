"""Certificate and key of the gateway, loaded at its start.

Rules of this file: a mistake of the configuration is a ConfigError, with one line that names key and file.
"""

from __future__ import annotations

import codecs
import ssl
from pathlib import Path

from dataflow.domain.errors import ConfigError
from dataflow.net.tls import server_context
from dataflow.settings.schema import Gateway

_MISMATCH = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the latter when the key types differ


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
