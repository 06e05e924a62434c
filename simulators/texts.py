"""What several dialects write and read in the same way. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from .dialect import Answer


def compact(value: Any) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


@lru_cache(10_000)
def quoted(name: str) -> str:
    """A name as JSON. Users choose the symbols of a simulation, so a name may hold any character."""
    return json.dumps(name, ensure_ascii=False)


def fields(message: str | bytes) -> dict[str, Any] | None:
    """The JSON object of a message; None for anything else."""
    try:
        found = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def names(value: Any) -> list[str] | None:
    """A list of texts; None for anything else."""
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else None


def rfc3339(us: int) -> str:
    """Microseconds since the epoch as ``2020-05-10T18:33:36.696315Z``."""
    whole, micros = divmod(us, 1_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def integer(query: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """A number in a query; `default` when it is missing or none."""
    text = query.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else default


def listing(rows: Iterable[str], headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An answer that is a list of rows of JSON."""
    return Answer(200, f"[{','.join(rows)}]".encode(), headers)
