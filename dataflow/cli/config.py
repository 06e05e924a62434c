"""`config`: the configuration as the daemon would have it, and the one that is shipped.

Rules of this file: what is shown is TOML, so that it can be written to a file and read again, but for its
secrets. No secret is shown. Each value has its origin: the file or the variable that wrote it last, or
`default`. So has what the shipped file repeats of the defaults.
"""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from attrs import frozen
from cyclopts import App, Parameter

from dataflow import plugs
from dataflow.domain.secrets import HIDDEN, concealed_value, is_secret
from dataflow.logs.terminal import painted, wants_colour
from dataflow.settings.changes import default_of
from dataflow.settings.load import FACES, Written, shipped

from . import examples
from .common import Json
from .configured import SHIPPED, nearer, warnings, written

DEFAULT: Final = "default"
DIM: Final = "2"


@frozen
class Entry:
    """A key of the configuration. `table`: its path. `value` as in TOML, None: no value."""

    table: tuple[str, ...]
    key: str
    value: Any
    origin: str


def show(
    *files: Path,
    changed: Annotated[bool, Parameter(help="Only what is not the default.")] = False,
    json: Json = False,
) -> None:
    """The configuration that these files and the environment make.

    Behind each value stands its origin: a file, a variable, or default.
    Secrets are shown as ***. Files are merged from left to right, as for
    `dataflow run`; without a file, it is the shipped one.

    Parameters
    ----------
    files
        TOML files.
    """
    found = written(files, " ".join(("dataflow config show {}", *map(str, files))))
    for warning in warnings():
        print(f"warning: {warning}", file=sys.stderr)
    shown = [entry for entry in entries(found) if not changed or entry.origin != DEFAULT]
    if json:
        print(json_.dumps(as_data(shown), ensure_ascii=False))
    else:
        print("\n".join(as_toml(shown, wants_colour(sys.stdout, os.environ))))


def default() -> None:
    """The configuration as shipped, every key with its unit and its effect.

    As a beginning for a file of your own, which needs only what it changes.
    """
    print(shipped(SHIPPED).read_text(encoding="utf-8"), end="")


def entries(of: Written) -> Iterator[Entry]:
    """Every key in the order of the tables. Raises no error for a face whose libraries are missing."""
    settings = of.settings
    faces = {name: settings.faces.get(name) or _usual(name) for name in plugs.names(FACES)}
    kept = {name: keys for name, keys in faces.items() if keys is not None}
    yield from _of_table(attrs.evolve(settings, faces=kept), (), of)


def _usual(face: str) -> Any:
    """The keys of a face without a table of its own; None: it cannot be used here."""
    try:
        return plugs.find(FACES, face).Settings()
    except ImportError:
        return None


def _of_table(table: Any, path: tuple[str, ...], of: Written, hidden: bool = False) -> Iterator[Entry]:
    below: list[tuple[str, Any, bool]] = []
    for key, value, usual, is_secretive in _members(table):
        if attrs.has(type(value)) or isinstance(value, Mapping):
            below.append((key, value, hidden or is_secretive))
            continue
        shown = _plain(value)
        if value:
            hide = hidden or is_secretive or is_secret(key)
            shown = HIDDEN if hide else concealed_value(shown, key)
        origin = of.origin(*path, key)
        repeats = origin == str(shipped(SHIPPED)) and value == usual
        yield Entry(path, key, shown, DEFAULT if origin is None or repeats else nearer(origin))
    for key, value, is_secretive in below:
        yield from _of_table(value, (*path, key), of, is_secretive)


def _members(table: Any) -> Iterator[tuple[str, Any, Any, bool]]:
    """Key, value, default, and whether its class keeps the value to itself."""
    if isinstance(table, Mapping):
        yield from ((str(key), value, attrs.NOTHING, False) for key, value in table.items())
    else:
        for a in attrs.fields(type(table)):
            yield a.name, getattr(table, a.name), default_of(a, table), not a.repr


def _plain(value: Any) -> Any:
    """A value as TOML has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if attrs.has(type(value)):
        return {key: _plain(each) for key, each, *_ in _members(value) if each is not None}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if value is None or isinstance(value, str | int | float) else str(value)


def as_data(shown: list[Entry]) -> dict[str, Any]:
    """Tables within tables; each key as {"value", "origin"}."""
    tree: dict[str, Any] = {}
    for entry in shown:
        table = tree
        for name in entry.table:
            table = table.setdefault(name, {})
        table[entry.key] = {"value": entry.value, "origin": entry.origin}
    return tree


def as_toml(shown: list[Entry], coloured: bool = False) -> Iterator[str]:
    """The lines of a TOML file. A key without a value is a comment, since TOML has no null."""
    width = max((len(_assignment(entry)) for entry in shown if len(_assignment(entry)) < 60), default=0)
    table: tuple[str, ...] | None = None
    for entry in shown:
        if entry.table != table:
            if table is not None:
                yield ""
            table = entry.table
            yield f"[{'.'.join(map(_name, table))}]"
        yield f"{_assignment(entry):<{width}}  {painted(f'# {entry.origin}', DIM, coloured)}"


def _assignment(entry: Entry) -> str:
    if entry.value is None:
        return f"# {_name(entry.key)} has no value"
    return f"{_name(entry.key)} = {_value(entry.value)}"


def _name(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_name(key)} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json_.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# name, function, one line of help, examples
CONFIG: Final[tuple[tuple[Any, ...], ...]] = (
    (
        "show",
        show,
        "The configuration that files and environment make, each value with its origin.",
        "dataflow config show server.toml mine.toml",
        "dataflow config show --changed",
        "DATAFLOW__GATEWAY__PORT=9000 dataflow config show --json | jq .gateway.port",
    ),
    (
        "default",
        default,
        "The configuration as shipped, every key explained.",
        "dataflow config default",
    ),
)
app = App(name="config", help_epilogue=examples(*(each for _, _, _, *shown in CONFIG for each in shown)))
for _key, _function, _help, *_shown in CONFIG:
    app.command(_function, name=_key, help_epilogue=examples(*_shown))
