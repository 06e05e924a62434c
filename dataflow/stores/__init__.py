"""Stores: a history on disk. A file with a class `Store` is one; `[history] store` names it.

`Store(settings.history)` is an `Archive`: see `dataflow.cache.archive`.
"""

from __future__ import annotations

from types import ModuleType

from dataflow import plugs
from dataflow.domain.errors import ConfigError
from dataflow.settings.schema import History


def plug(keys: History) -> ModuleType:
    """The module of the store that `keys` names. Raises ConfigError when there is none."""
    try:
        return plugs.find("stores", keys.store)
    except ModuleNotFoundError as error:
        if error.name not in (keys.store, f"dataflow.stores.{keys.store}"):
            raise
        known = ", ".join(f'"{name}"' for name in plugs.names("stores"))
        raise ConfigError([f'[history] store: there is no "{keys.store}"; there is {known}']) from None
