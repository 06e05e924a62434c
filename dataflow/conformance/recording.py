"""Recordings for the checks of a connector: JSON lines, also compressed by gzip.

Rules of this file. A line is `{"dir": "in" | "out" | "connect" | "rest", "msg": text, ...}`, as
`tests/data/README.md` and most recorders have it; other keys are ignored. `connect` begins a new connection,
and so does another `conn`. `rest` is an answer over HTTP, with `symbol` (canonical) and `path`. A line that
cannot be read is a mistake of the user, never skipped.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from attrs import frozen


class BadRecording(ValueError):
    """The file is no recording. The message names file, line and reason."""


@frozen
class Answer:
    """An answer over HTTP to a question for the trades of `symbol`."""

    symbol: str
    path: str
    body: bytes


@frozen
class Recording:
    """`connections`: of each connection, what the upstream said, in order. `answers`: over HTTP."""

    connections: Sequence[Sequence[str]] = ()
    answers: Sequence[Answer] = ()


class _Line(msgspec.Struct):
    dir: Literal["in", "out", "connect", "rest"] = "in"
    msg: str = ""
    conn: int | None = None
    symbol: str = ""
    path: str = ""


_read = msgspec.json.Decoder(_Line).decode


def load(file: Path) -> Recording:
    """The recording in `file`. Raises BadRecording."""
    connections: dict[object, list[str]] = {}
    answers: list[Answer] = []
    begun = 0
    for number, text in enumerate(_lines(file), start=1):
        try:
            line = _read(text)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise BadRecording(f"{file}, line {number}: {error}") from None
        if line.dir == "connect":
            begun += 1
        elif line.dir == "rest":
            answers.append(Answer(line.symbol, line.path, line.msg.encode()))
        elif line.dir == "in":
            connections.setdefault(begun if line.conn is None else (line.conn,), []).append(line.msg)
    return Recording(tuple(map(tuple, connections.values())), tuple(answers))


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            yield from (line for line in opened if line.strip())
    except (OSError, EOFError, zlib.error) as error:
        raise BadRecording(f"{file}: {getattr(error, 'strerror', None) or error}") from None
