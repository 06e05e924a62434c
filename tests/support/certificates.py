"""Certificates for tests: signed by themselves, good for a day, made with the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from attrs import frozen

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@frozen
class Certificate:
    """PEM files. `certificate` is also the only authority that vouches for it."""

    certificate: Path
    key: Path

    def client_context(self, *protocols: str) -> ssl.SSLContext:
        """For a client that trusts this certificate and nothing else, and offers `protocols` by ALPN."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


def make_certificate(folder: Path) -> Certificate:
    """A certificate of localhost and 127.0.0.1 in `folder`. Raises FileNotFoundError without openssl."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", NAMES]
    command += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return made
