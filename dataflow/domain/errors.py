"""Errors that this package raises on purpose."""

from __future__ import annotations


class DataflowError(Exception):
    """The base class of all of them."""


class ConfigError(DataflowError):
    """A mistake of the user in the configuration. `problems` lists all mistakes, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
