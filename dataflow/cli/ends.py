"""How a command can end badly, by whose fault. Every command imports it, so it imports nothing large."""

from __future__ import annotations


class Mistake(Exception):
    """The user's: told in one line, exit code 1."""


class Failure(Exception):
    """Not the user's, and clear without a traceback: exit code 2."""


def only(error: BaseException) -> BaseException:
    """What is inside groups of one, as nurseries make them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
