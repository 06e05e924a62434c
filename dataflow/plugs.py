"""Finds plugs by name: a room of plugs is a folder, and each file or folder in it is one plug.

Rules of this file: one lookup. What a plug has to define says the Protocol of the room that drives it. Plugs
are imported when they are asked for, so that a room never imports one.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def names(room: str) -> list[str]:
    """The plugs in `dataflow/ROOM`, in alphabetical order."""
    package = importlib.import_module(f"dataflow.{room}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def find(room: str, name: str) -> ModuleType:
    """The plug `name` of a room; a dotted name is a module of the user's. Raises what its import raises."""
    return importlib.import_module(name if "." in name else f"dataflow.{room}.{name}")
