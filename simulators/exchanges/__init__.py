"""The exchanges that can be simulated: one file each.

To add an exchange, put a file `NAME.py` here that assigns a `Definition` to `DEFINITION`. Nothing else has to
change: `dataflow simulate NAME`, `dataflow simulate replay --as NAME` and `simulators.simulate("NAME")` find
it by the name of its file. `simulators/README.md` has a complete example.

A file whose name begins with an underscore is no exchange.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ..definition import Definition


def names() -> tuple[str, ...]:
    """The names of all exchanges, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def find(name: str) -> Definition:
    """The exchange of this name. ValueError when there is none; the message lists those that exist."""
    if name not in names():
        raise ValueError(f"no exchange {name!r}: {', '.join(names())}")
    definition = import_module(f"{__name__}.{name}").DEFINITION
    assert isinstance(definition, Definition)
    return definition
