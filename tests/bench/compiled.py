"""The C programs of the bench, compiled on the machine of the measurement."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "native"
BUILD = FOLDER / ".build"
_TLS = ["-DWITH_TLS", "-lssl", "-lcrypto"]
_ZLIB = ["-DWITH_ZLIB", "-lz"]


class Missing(Exception):
    """A program or package is not on this machine. The text names it and says how to get it."""


def compiler() -> str:
    """Raises Missing."""
    found = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if found is None:
        raise Missing("a C compiler is needed for the load client (on Debian: apt install gcc libc6-dev)")
    return found


def program(name: str) -> Path:
    """The binary of `native/NAME.c`. A newer source is compiled again. Raises Missing."""
    return _compiled(name, name, [])


def program_with_tls(name: str) -> Path:
    """The same with OpenSSL. Raises Missing when the headers of OpenSSL are not installed."""
    try:
        return _compiled(name, f"{name}_tls", _TLS)
    except Missing:
        raise Missing(
            "OpenSSL's headers are needed for TLS clients (on Debian: apt install libssl-dev)"
        ) from None


def program_with_zlib(name: str) -> Path:
    """The same with zlib. Raises Missing when its headers are not installed."""
    try:
        return _compiled(name, f"{name}_zlib", _ZLIB)
    except Missing:
        raise Missing(
            "zlib's headers are needed for clients that inflate (on Debian: apt install zlib1g-dev)"
        ) from None


def _compiled(name: str, target: str, options: list[str]) -> Path:
    source, binary = SOURCES / f"{name}.c", BUILD / target
    newest = max(path.stat().st_mtime for path in (source, SOURCES / "ws.h"))
    if not binary.exists() or binary.stat().st_mtime < newest:
        BUILD.mkdir(exist_ok=True)
        command = [compiler(), "-O2", "-Wall", "-Wextra", "-o", str(binary), str(source), *options]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise Missing(f"{source.name} does not compile:\n{made.stderr[-2000:]}")
    return binary
