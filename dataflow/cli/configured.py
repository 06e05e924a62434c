"""The configuration of a command: read from its files and the environment, with every mistake in its place.

Rules of this file: a line about a mistake begins with the file or the variable that wrote the value, also
where the mistake shows only later, as that of a missing certificate does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dataflow.domain.errors import ConfigError
from dataflow.settings.environment import near_misses
from dataflow.settings.load import Written, read, shipped

SHIPPED: Final = "server.toml"
_PLACE: Final = re.compile(r"\[([^\]]+)\] (\w+): ")


def written(files: Sequence[Path] | None, again: str) -> Written:
    """The configuration of `files`, or the shipped one. `again`: the command with `{}` for its files.

    Raises ConfigError. If the files are fit to lie over the shipped one, a last line says so.
    """
    try:
        return read(files or [shipped(SHIPPED)], os.environ)
    except ConfigError as error:
        raise ConfigError([*error.problems, *_below(files or (), again)]) from None


def _below(files: Sequence[Path], again: str) -> Iterator[str]:
    base = shipped(SHIPPED)
    if not files or any(file.exists() and file.samefile(base) for file in files):
        return
    try:
        read([base, *files], os.environ)
    except ConfigError:
        return
    names, verb = " and ".join(map(str, files)), "lies" if len(files) == 1 else "lie"
    yield f"{names} {verb} over another file; name that one first: {again.format(nearer(str(base)))}"


def nearer(path: str) -> str:
    """A path as one would type it here. The name of a variable stays as it is."""
    return min(path, os.path.relpath(path), key=len) if os.path.isabs(path) else path


@contextmanager
def placed(of: Written) -> Iterator[None]:
    """Mistakes that show in the block are told with the origin of their key."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([in_place(problem, of) for problem in error.problems]) from None


def in_place(problem: str, of: Written) -> str:
    """A problem that names its block and key, behind the origin of the key."""
    found = _PLACE.match(problem)
    origin = of.origin(*found[1].split("."), found[2]) if found else None
    return f"{origin}: {problem}" if origin else problem


def warnings() -> list[str]:
    """Variables of the environment that were probably meant for dataflow, and are not read."""
    return near_misses(os.environ)
