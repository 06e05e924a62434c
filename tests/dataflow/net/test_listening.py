"""Why nothing can listen: one line with the reason and the remedy."""

from __future__ import annotations

import errno
import socket

import pytest

from dataflow.net.listening import why_refused


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EADDRINUSE, "x"), "something else listens there already; choose another with --port"),
        (PermissionError(errno.EACCES, "x"), "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE"),
        (
            OSError(errno.EADDRNOTAVAIL, "x"),
            "Cannot assign requested address; [gateway] host must be an address of this machine",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "Name or service not known; [gateway] host must be an address of this machine",
        ),
        (OSError(errno.ENOBUFS, "x"), "No buffer space available"),
        (OSError("odd"), "odd"),
    ],
)
def test_reason_and_remedy(error: OSError, told: str) -> None:
    """What failed, and where the user can change it."""
    assert why_refused(error).startswith(told)


def test_the_remedy_names_the_place_of_the_host() -> None:
    """An option of a command, for a simulated exchange."""
    assert "; --host must be" in why_refused(OSError(errno.EADDRNOTAVAIL, ""), "--host")
