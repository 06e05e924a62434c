"""The history in SQLite files, one for each UTC day: see the README beside this folder."""

from .listing import StoredDay, StoredStream
from .store import Store

__all__ = ["Store", "StoredDay", "StoredStream"]
