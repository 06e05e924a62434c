"""What can go wrong, whose fault it is, and what to do now."""

from __future__ import annotations


class DataflowError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(DataflowError):
    """The user's mistake in the configuration. `problems` lists every one found, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
