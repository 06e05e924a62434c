"""The old home of `server_context`, which stands in `tls.py` now."""

from .tls import server_context

__all__ = ["server_context"]
