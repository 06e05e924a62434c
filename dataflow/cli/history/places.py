"""Where the history is, and who may open it how.

Rules of this file. Without an option it is found as `dataflow run` finds it. A store that does not answer is
told in one line. A mistake names what the user has written: an option, a folder, a file or a variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from dataflow import stores
from dataflow.cache.archive import ArchiveFailed, Contents
from dataflow.domain.errors import ConfigError
from dataflow.settings.load import read, shipped
from dataflow.settings.schema import History

from ..configured import in_place
from ..ends import Failure, Mistake

_KEY: Final = re.compile(r"\[history\] \w+: ")


@frozen
class Place:
    """Where a history is. `told`: a problem with it, in words of who has named it."""

    keys: History
    told: Callable[[str], str]


def in_files(directory: Path, named: str) -> Place:
    """A history in a folder. `named`: the option or the word that names it."""
    return Place(History(directory=str(directory)), partial(_as_named, named))


def in_postgres(dsn: str, named: str) -> Place:
    """A history in a PostgreSQL database."""
    return Place(History(store="postgres", dsn=dsn), partial(_as_named, named))


def _as_named(named: str, problem: str) -> str:
    return _KEY.sub(lambda _: f"{named}: ", problem, count=1)


def named(config: Sequence[Path] | None, directory: Path | None, dsn: str | None) -> Place:
    """The history of the options, or that of the configuration. Raises Mistake and ConfigError."""
    if directory is not None and dsn is not None:
        raise Mistake("--directory is a history in files, --dsn one in PostgreSQL: give one of them")
    if directory is not None:
        return in_files(directory, "--directory")
    if dsn is not None:
        return in_postgres(dsn, "--dsn")
    found = read(config or [shipped("server.toml")], os.environ)
    if not found.settings.history.is_on:
        raise Mistake("the configuration keeps no history: [history] directory is empty; see --directory")
    return Place(found.settings.history, partial(in_place, of=found))


@contextmanager
def reading(place: Place) -> Iterator[tuple[Any, Contents]]:
    """The store, only to be read, also beside a daemon, and what is in it. Raises ConfigError."""
    with _told(place):
        store = stores.plug(place.keys).Store.reading(place.keys)
    with _opened(store, place) as opened:
        yield opened


@contextmanager
def writing(place: Place) -> Iterator[tuple[Any, Contents]]:
    """The store for this process alone. Raises ConfigError while a daemon has it.

    Unless `begin` was called, it stays as clean as it was.
    """
    with _told(place):
        store = stores.plug(place.keys).Store(place.keys)
    with _opened(store, place) as opened:
        yield opened


@contextmanager
def _told(place: Place) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError([place.told(problem) for problem in error.problems]) from None


@contextmanager
def _opened(store: Any, place: Place) -> Iterator[tuple[Any, Contents]]:
    with lines():
        with _told(place):
            contents = store.open()
        try:
            yield store, contents
        finally:
            store.close(False)


@contextmanager
def lines() -> Iterator[None]:
    """What fails on the disk is a line for people."""
    try:
        yield
    except ArchiveFailed as error:
        raise Failure(str(error)) from error


def copies(store: Any, name: str, tool: str) -> Callable[[Path, Callable[[int], None]], None]:
    """The method `name` of a store, if it is one of files. `tool`: what copies others."""
    method: Callable[[Path, Callable[[int], None]], None] | None = getattr(store, name, None)
    if method is None:
        raise Mistake(f"only a history in files can be copied like this: use {tool}")
    return method
