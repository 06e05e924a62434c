"""Errors that end a command. Every command imports this file, so it imports nothing large."""

from __future__ import annotations


class Mistake(Exception):
    """A mistake of the user: one line, exit code 1."""


class NotThere(Mistake):
    """The daemon answers, but has nothing at this address."""


def wrong(where: str, found: object, must: str) -> Mistake:
    """A value that cannot be: which option or variable, what it is, and what it must be."""
    return Mistake(f"{where}: found {found}; must be {must}")


class Failure(Exception):
    """Not the user's mistake, but clear without a traceback: exit code 2."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM before the work was done, or before what its text says: exit code 130."""


def only(error: BaseException) -> BaseException:
    """The error inside exception groups with one member, as nurseries make them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
