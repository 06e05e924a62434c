"""Where the history is, and who may open it how.

Rules of this file. Without an option it is found as `dataflow run` finds it. A store that does not answer is
told in one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataflow import stores
from dataflow.cache.archive import ArchiveFailed, Contents
from dataflow.settings.load import load, shipped
from dataflow.settings.schema import History

from ..ends import Failure, Mistake


def named(config: Sequence[Path] | None, directory: Path | None, dsn: str | None) -> History:
    """The settings of the history. Raises Mistake and ConfigError."""
    if directory is not None and dsn is not None:
        raise Mistake("--directory is a history in files, --dsn one in PostgreSQL: give one of them")
    if directory is not None:
        return History(directory=str(directory))
    if dsn is not None:
        return History(store="postgres", dsn=dsn)
    found = load(config or [shipped("server.toml")], os.environ).history
    if not found.is_on:
        raise Mistake("the configuration keeps no history: [history] directory is empty; see --directory")
    return found


@contextmanager
def reading(keys: History) -> Iterator[tuple[Any, Contents]]:
    """The store, only to be read, also beside a daemon, and what is in it."""
    with _opened(stores.plug(keys).Store.reading(keys)) as opened:
        yield opened


@contextmanager
def writing(keys: History) -> Iterator[tuple[Any, Contents]]:
    """The store for this process alone. Raises ConfigError while a daemon has it.

    Unless `begin` was called, it stays as clean as it was.
    """
    with _opened(stores.plug(keys).Store(keys)) as opened:
        yield opened


@contextmanager
def _opened(store: Any) -> Iterator[tuple[Any, Contents]]:
    with lines():
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
