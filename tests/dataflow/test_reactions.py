"""What follows from the supervisors' reports: a failed start is one line when it is the user's mistake."""

from __future__ import annotations

import errno
import io
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from loguru import logger

from dataflow import app, logs
from dataflow.cache.archive import ArchiveFailed
from dataflow.domain.errors import ConfigError
from dataflow.logs import logs as module
from dataflow.reactions import Reactions
from dataflow.settings.schema import Gateway, Settings
from supervisors import Event, StartFailed


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    monkeypatch.setattr(module, "_log", None)
    logs.configure("human", "info", out := io.StringIO())
    yield out
    logger.remove()


def start_failed(path: str, *errors: BaseException) -> Event:
    return Event("start_failed", path, 1, 0.0, errors=errors)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.EADDRINUSE, "x"),
            "cannot listen: something else listens there already; choose another",
        ),
        (PermissionError(errno.EACCES, "x"), "cannot listen: permission denied; ports below 1024"),
        (
            ConfigError(["[gateway] tls_key: key.pem: no such file"]),
            "[gateway] tls_key: key.pem: no such file",
        ),
        (ArchiveFailed("the server is down"), "[history]: the server is down"),
    ],
)
def test_a_mistake_that_only_the_start_finds_is_one_line(
    log: io.StringIO, error: BaseException, told: str
) -> None:
    """Also for the branches above, which do not start for the same reason."""
    react = Reactions(app.hall(Settings()))
    react(start_failed("gateway/http", error))
    react(start_failed("gateway", StartFailed("gateway/http")))
    (line,) = log.getvalue().splitlines()
    assert told in line
    assert react.mistake


def test_a_defect_keeps_its_traceback(log: io.StringIO) -> None:
    """It is no mistake of the user."""
    react = Reactions(app.hall(Settings()))
    react(start_failed("gateway/http", ValueError("defect")))
    assert "Traceback" not in log.getvalue().splitlines()[0]
    assert "ValueError: defect" in log.getvalue()
    assert not react.mistake


def test_a_mistake_is_forgotten_when_it_is_mended(log: io.StringIO) -> None:
    """A later failure of the same branch is told in full."""
    react = Reactions(app.hall(Settings()))
    react(start_failed("gateway/http", OSError(errno.EADDRINUSE, "x")))
    react(Event("ready", "gateway/http", 2, 1.0))
    assert not react.mistake
    react(start_failed("gateway", StartFailed("gateway/herald")))
    assert "gateway: did not start" in log.getvalue()


def test_an_address_that_is_taken_meanwhile(
    log: io.StringIO, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Between the check and the start another program may take it: one line, exit code 1, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = attrs.evolve(Gateway(), port=taken.getsockname()[1])
        assert app.run(Settings(gateway=gateway)) == 1
    (line,) = log.getvalue().splitlines()
    assert "gateway/http: cannot listen: something else listens there already" in line
    assert capsys.readouterr() == ("", "")
