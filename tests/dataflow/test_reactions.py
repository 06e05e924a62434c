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

from actors.connector import LinkLost
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


# -- what is kept as an event --------------------------------------------------------------------------------


def kept(*events: Event) -> list[tuple[str, str, str]]:
    """What the ring has of these events of the tree: kind, path and text."""
    hall = app.hall(Settings())
    react = Reactions(hall)
    for event in events:
        react(event)
    return [(each.kind.value, each.path, each.text) for each in hall.core.events.newest(100)]


def crash(path: str, *errors: BaseException, delay: float | None = 0.5) -> Event:
    return Event("crash", path, 1, 0.0, errors=errors, restarts=1, delay=delay)


def test_a_crash_is_one_event_with_what_was_lost(log: io.StringIO) -> None:
    """The messages in hand are told with the crash, not as an event of their own; then the actor is back."""
    shard = "cache/shard-0"
    assert kept(
        Event("dead_letter", shard, 1, 0.0, detail=([], [])),
        crash(shard, ValueError("defect")),
        Event("ready", shard, 2, 0.5),
    ) == [
        ("crashed", shard, "ValueError: defect; restart 1 in 0.5 s; 2 messages in hand lost"),
        ("restarted", shard, "back, incarnation 2"),
    ]


def test_what_was_lost_is_told_of_its_own_crash_alone(log: io.StringIO) -> None:
    """In a storm the supervisors leave crashes out. Nothing is remembered for each, or told of another."""
    react = Reactions(hall := app.hall(Settings()))
    for number in range(500):
        react(Event("dead_letter", f"topics/trades:{number}", 1, 0.0, detail=([],)))
    react(crash("cache/shard-0", ValueError("defect")))
    (told,) = hall.core.events.newest(10)
    assert "in hand lost" not in told.text
    assert all(len(value) < 500 for value in vars(react).values() if isinstance(value, dict | tuple | set))


def test_a_lost_link_is_no_crash(log: io.StringIO) -> None:
    """It is an attempt that failed. A line is ready before it is connected: that is no restart."""
    line = "sources/a/lines/1"
    assert kept(crash(line, LinkLost("refused")), Event("ready", line, 2, 0.5)) == [
        ("backoff", line, "link lost: refused; restart 1 in 0.5 s")
    ]


def test_those_who_come_and_go_are_no_events_until_they_crash(log: io.StringIO) -> None:
    """Sessions, topics and lines stop all the time. A crash of many sessions at once is one event."""
    crowd = ("gateway/sessions/1", "topics/trades:A", "sources/a/lines/2", "sources/a/connections/3")
    assert kept(*(Event("stopped", path, 1, 0.0) for path in crowd)) == []
    crashed = kept(*(crash(f"gateway/sessions/{n}", ValueError("x"), delay=None) for n in range(50)))
    assert crashed == [("crashed", "gateway/sessions/0", "ValueError: x; no restart")]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("given_up", ("given_up", "topics", "crashed too often, and was given up: ValueError: x")),
        ("escalated", ("given_up", "topics", "crashed too often, its supervisor gives up: ValueError: x")),
        ("unstopped", ("stopped", "topics", "did not stop when cancelled, and was left behind")),
        ("stopped", ("stopped", "topics", "stopped")),
        ("start_failed", ("crashed", "topics", "did not start: ValueError: x; no restart")),
        ("suppressed", ("crashed", "topics", "7 more crashes in the last second")),
        ("hung", None),
        ("exit", None),
        ("declined", None),
    ],
)
def test_the_kinds_of_the_tree(log: io.StringIO, kind: str, told: tuple[str, str, str] | None) -> None:
    """Each has its kind for people, or is none: a hung actor crashes next."""
    event = Event(kind, "topics", 1, 0.0, errors=(ValueError("x"),), detail=7)
    assert kept(event) == ([] if told is None else [told])
