"""Errors that this package raises on purpose."""

from __future__ import annotations

from .secrets import concealed


class DataflowError(Exception):
    """The base class of all of them."""


class ConfigError(DataflowError):
    """A mistake of the user in the configuration. `problems`: all of them, one line each, no secrets."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = [concealed(problem) for problem in problems]
        super().__init__("\n".join(self.problems))
