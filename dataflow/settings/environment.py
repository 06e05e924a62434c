"""Variables of the environment: which key each one sets, and what a wrong name was meant to be.

Rules of this file: pure. `DATAFLOW__TABLE__KEY` sets a key, `DATAFLOW__SOURCES__NAME__KEY` one of a table
with a name. A name with that prefix that can set nothing is a mistake. A name that only resembles one is not:
others give names, too, as Kubernetes does for a service `dataflow-gateway`. It is worth a warning.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import attrs

from .schema import Settings
from .structure import Leaf, Table, is_table

PREFIX: Final = "DATAFLOW"
_RESEMBLES: Final = 0.8  # as difflib counts


def layers(environ: Mapping[str, str]) -> Iterator[tuple[str, Table]]:
    """Each variable with our prefix, and the layer of configuration that it makes."""
    for name in sorted(environ):
        if name.startswith(f"{PREFIX}__"):
            *tables, key = name.lower().split("__")[1:]
            tree = Table(name, [(key, Leaf(_toml_value(environ[name]), name, environ[name]))])
            for table in reversed(tables):
                tree = Table(name, [(table, tree)])
            yield name, tree


def _toml_value(text: str) -> Any:
    """`text` read as a TOML value. Text that is not TOML stays text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def objection(name: str) -> str | None:
    """Why a variable with our prefix can set nothing, and which name was meant. None: it names a key, or the
    tables tell better what is wrong."""
    table, *others = name.lower().split("__")[1:]
    if table in tables() and not others:
        return f"[{table}] is a table; a variable sets one key of it, such as {_example(table)}"
    right = _meant(name)
    if right is None and not others:
        right = " or ".join(_name(each, table) for each, keys in tables().items() if table in keys)
    return f"no key of the configuration has this name; did you mean {right}?" if right else None


def near_misses(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that is not ours, though its name nearly is."""
    found = {name: _meant(name) for name in sorted(environ) if not name.startswith(f"{PREFIX}__")}
    return [f"{name} is not read; did you mean {right}?" for name, right in found.items() if right]


def _meant(name: str) -> str | None:
    """The name that was meant. None: it is right, or resembles none."""
    if (right := _flat_names().get(_flat(name))) is not None:
        return right if right != name.upper() or not name.startswith(PREFIX) else None
    first, _, rest = name.upper().partition("__" if "__" in name else "_")
    if not difflib.get_close_matches(first, [PREFIX], cutoff=_RESEMBLES):
        first, _, rest = name.upper().partition("_")  # DATAFLOW_SOURCES__X__EAGER
        if first != PREFIX:
            return None
    table, *others = rest.lower().split("__")
    near = difflib.get_close_matches(table, tables(), n=1, cutoff=_RESEMBLES)
    if not near or not others or (not _is_named(near[0]) and others[0] not in tables()[near[0]]):
        return None
    right = _name(near[0], *others)
    return None if right == name.upper() and name.startswith(f"{PREFIX}__") else right


@cache
def tables() -> Mapping[str, Sequence[str]]:
    """The tables of the configuration and their keys; none for a table that holds tables with names."""
    kinds = {a.name: a.type for a in attrs.fields(attrs.resolve_types(Settings)) if is_table(a.type)}
    return {
        name: [key.name for key in attrs.fields(kind)] if kind and attrs.has(kind) else []
        for name, kind in kinds.items()
    }


def _is_named(table: str) -> bool:
    return not tables()[table]


def _example(table: str) -> str:
    return _name(table, "NAME__KEY" if _is_named(table) else tables()[table][0])


def _name(*parts: str) -> str:
    return "__".join((PREFIX, *parts)).upper()


@cache
def _flat_names() -> Mapping[str, str]:
    names = (_name(table, key) for table, keys in tables().items() for key in keys)
    return {_flat(name): name for name in names}


def _flat(name: str) -> str:
    return name.upper().replace("_", "")
