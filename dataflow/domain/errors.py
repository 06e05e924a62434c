"""What can go wrong, whose fault it is, and what to do now."""

from __future__ import annotations

from typing import Any


class DataflowError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(DataflowError):
    """The user's mistake in the configuration. `problems` lists every one found, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CallError(DataflowError):
    """A JSON-RPC call that cannot be answered with a result: the caller's fault or ours, by `code`."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
