"""The history in a PostgreSQL database, a row a trade: see the README beside this folder."""

from .store import Store

__all__ = ["Store"]
