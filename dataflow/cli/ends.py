"""How a command can end badly, by whose fault it is."""

from __future__ import annotations

from dataflow.domain.errors import DataflowError


class Mistake(DataflowError):
    """The user's: told in one line, exit code 1."""


class Failure(DataflowError):
    """Not the user's, and clear without a traceback: exit code 2."""


def only(error: BaseException) -> BaseException:
    """What is inside groups of one, as nurseries make them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
