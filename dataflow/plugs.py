"""Finds plugs by name. A room of plugs is a folder, and each file or folder in it is one plug.

Rules of this file: one lookup. The Protocol in the room that drives a plug says what the plug must define. A
plug is imported at its lookup, so that no room imports a plug.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from dataflow.domain.errors import ConfigError


def names(room: str) -> list[str]:
    """The plugs in `dataflow/ROOM`, in alphabetical order."""
    package = importlib.import_module(f"dataflow.{room}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def find(room: str, name: str) -> ModuleType:
    """The plug `name` of a room. A dotted name is a user's module. Raises any error of the import."""
    return importlib.import_module(name if "." in name else f"dataflow.{room}.{name}")


def library(name: str, extra: str, wanted_by: str) -> ModuleType:
    """A library that not everybody needs. Raises ConfigError with the remedy.

    `extra` brings it; `wanted_by` is the table of the plug, such as "[faces.docs]".
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError([f'{wanted_by}: needs a library: pip install "dataflow[{extra}]"']) from None
