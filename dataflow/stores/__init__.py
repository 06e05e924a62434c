"""Stores: a history on disk. A file with a class `Store` is one; `[history] store` names it.

`Store(settings.history)` is an `Archive`: see `dataflow.cache.archive`.
"""
