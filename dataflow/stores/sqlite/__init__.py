"""The history in SQLite files, one for each UTC day: see the README beside this folder."""

from .store import Store

__all__ = ["Store"]
