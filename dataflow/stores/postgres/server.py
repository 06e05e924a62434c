"""The server: connections, who may write, and what to say when it fails.

Rules of this file. No word of what the tables hold, and no password in any text: an address is never
repeated, only host and database. One process at a time has the lock, which the server holds for the
connection of the writer; when that dies the server notices within half a minute. Every statement has a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dataflow import plugs
from dataflow.cache.archive import ArchiveFailed, ArchiveFull
from dataflow.domain.errors import ConfigError
from dataflow.domain.secrets import concealed

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_PATIENCE: Final = 10  # seconds for a connection
_WRITE: Final = "SET statement_timeout = '60s'; SET lock_timeout = '5s'"
_BRIEFLY: Final = "SET lock_timeout = '2s'; "
_READ: Final = "SET statement_timeout = '10s'; SET default_transaction_read_only = on"
_LOOK: Final = "SET default_transaction_read_only = on"  # a command reads everything, and may take long
# The server must notice a writer that is gone, because that one has the lock.
_ALIVE: Final = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
_KEEPALIVE: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_LOCK: Final = "hashtext('dataflow history in ' || current_schema())"
_TAKE: Final = f"SELECT pg_advisory_lock({_LOCK})"
_HOLDER: Final = (
    "SELECT min(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    f"AND objid = ({_LOCK}::bigint & 4294967295)::oid"
)
_FULL: Final = ("53100",)  # SQLSTATE


class Server:
    """The database at `dsn`. Its connections commit by themselves, if not in `transaction`."""

    def __init__(self, dsn: str) -> None:
        self._psycopg = plugs.library("psycopg", "postgres", '[history] store = "postgres"')
        self._dsn = dsn
        self._lock = Lock()
        self._idle: list[Connection] = []
        self._is_closed = False
        self.is_patient = False
        self.name = self._name()

    def _name(self) -> str:
        """Database and host, for people. Raises ConfigError for an address that cannot be read."""
        try:
            found = self._psycopg.conninfo.conninfo_to_dict(self._dsn)
        except self._psycopg.Error:
            example = "postgresql://user@host/name"
            raise ConfigError([f"[history] dsn: this is no address of a database; see {example}"]) from None
        host = found.get("host") or found.get("hostaddr") or "this machine"
        return f"the database {found.get('dbname') or 'of the user'} at {host}"

    def writer(self) -> Connection:
        """A connection that has the lock. Raises ConfigError when another process has it."""
        connection = self._connect(_ALIVE)
        try:
            connection.execute(_BRIEFLY + _TAKE)  # a writer that has just ended may still have it
            connection.execute(_WRITE)
        except self._psycopg.errors.LockNotAvailable:
            ((process,),) = connection.execute(_HOLDER).fetchall()
            connection.close()
            holder = f"the server's process {process}"
            text = f"{self.name} is in use by another daemon ({holder}): stop it, or choose another schema"
            raise ConfigError([f"[history] dsn: {text}"]) from None
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for one question."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None and not self._is_alive(connection):
            connection.close()
            connection = None
        connection = connection or self._connect(_LOOK if self.is_patient else _READ)
        try:
            yield connection
        finally:
            with self._lock:
                is_kept = not (self._is_closed or connection.closed)
                if is_kept:
                    self._idle.append(connection)
            if not is_kept:
                connection.close()

    def _is_alive(self, connection: Connection) -> bool:
        """Whether it was not cut while nobody used it."""
        with suppress(self._psycopg.Error):
            connection.execute("SELECT 1")
            return True
        return False

    def _connect(self, settings: str) -> Connection:
        connection: Connection = self._psycopg.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=_PATIENCE,
            application_name="dataflow",
            client_encoding="UTF8",
            **_KEEPALIVE,
        )
        try:
            connection.execute(settings)
            connection.execute("SET TimeZone = 'UTC'")
        except BaseException:
            connection.close()
            raise
        return connection

    def open(self) -> None:
        """Connections may be kept."""
        self._is_closed = False

    def close(self) -> None:
        """End the idle connections; those in hand end by themselves."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Any error of the server is an ArchiveFailed."""
        try:
            yield
        except self._psycopg.Error as error:
            kind = ArchiveFull if error.sqlstate in _FULL else ArchiveFailed
            raise kind(f"the history in {self.name} fails: {_line(error)}") from None


def _line(error: Exception) -> str:
    """The first line of what the server or the library says."""
    lines = concealed(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
