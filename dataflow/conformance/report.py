"""Runs the checks over a connector. The result of each is a value; showing it is the business of others.

Rules of this file: one broken promise does not hide another. Each check runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum

from attrs import frozen

from .checks import CHECKS, Broken, Check, NotShown, promise
from .subject import Subject


class Verdict(StrEnum):
    """The result of a check."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_SHOWN = "not shown"  # the recording does not show what it looks at


@frozen
class Result:
    """One check: its name, its promise, and why it is not kept or not shown."""

    name: str
    promise: str
    verdict: Verdict
    reason: str | None = None


def run(subject: Subject) -> Iterator[Result]:
    """The results, one after the other."""
    for check in CHECKS:
        yield result(check, subject)


def result(check: Check, subject: Subject) -> Result:
    """Run one check."""
    verdict, reason = Verdict.KEPT, None
    try:
        check(subject)
    except NotShown as error:
        verdict, reason = Verdict.NOT_SHOWN, f"needs {error}"
    except Broken as error:
        verdict, reason = Verdict.BROKEN, str(error)
    except Exception as error:  # of the connector, at a place where no check expects one
        verdict, reason = Verdict.BROKEN, f"raises {type(error).__name__}: {error}"
    return Result(check.__name__, promise(check), verdict, reason)


@frozen
class Summary:
    """What the recording holds, as the connector understands it."""

    messages: int
    trades: int
    problems: Counter[str]


def summary(subject: Subject) -> Summary:
    """Counts over the whole recording."""
    heard = [each for connection in subject.heard for each in connection]
    problems = Counter(reason for each in heard for reason, _ in each.received.problems)
    return Summary(len(heard), len(subject.trades), problems)
