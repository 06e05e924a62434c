"""Why nothing can listen at an address, and what to do, in words."""

from __future__ import annotations

import errno
import os
from socket import gaierror

_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)


def why_refused(error: OSError, host_key: str = "[gateway] host", port_key: str = "--port") -> str:
    """The reason and the remedy. `host_key`, `port_key`: where the user wrote the host and the port."""
    if error.errno == errno.EADDRINUSE:
        return f"something else listens there already; choose another with {port_key}"
    if error.errno == errno.EACCES:
        return (
            "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE (or root), so grant it, "
            f"or choose another with {port_key}"
        )
    # the system's own words: trio puts the address before them
    why = error.strerror if isinstance(error, gaierror) or not error.errno else os.strerror(error.errno)
    if isinstance(error, gaierror) or error.errno in _NOT_OURS:
        return f"{why}; {host_key} must be an address of this machine, or 0.0.0.0 for all of them"
    return str(why or error)
