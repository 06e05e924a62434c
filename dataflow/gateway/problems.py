"""Questions that cannot be answered, as values: each protocol says them in its own words and codes.

Rules of this file. A problem says what was wrong and what would be right, in `data`, ready to be written as
JSON. Whose fault it is follows from the class.
"""

from __future__ import annotations

from typing import Any

from dataflow.domain.errors import DataflowError


class Problem(DataflowError):
    """Base: a question without an answer. `data` helps the asker to do better."""

    def __init__(self, summary: str, **data: Any) -> None:
        super().__init__(summary)
        self.summary = summary
        self.data = data


class InvalidValue(Problem):
    """The asker's mistake: a parameter has a wrong value; `help_` says which ones are right."""

    def __init__(self, param: str, value: object, problem: str, **help_: Any) -> None:
        super().__init__(f"{param}: {problem}", param=param, value=value, problem=problem, **help_)


class Unavailable(Problem):
    """Nobody's mistake here: it cannot be had at present."""


class TooManySubscriptions(Problem):
    """The asker has as many subscriptions as one client may have."""

    def __init__(self, limit: int) -> None:
        advice = "unsubscribe from a symbol first, or open another connection"
        super().__init__("too many subscriptions", limit=limit, advice=advice)


class Unauthorised(Problem):
    """The asker has to say who it is, or said it wrongly."""


class Forbidden(Problem):
    """The asker may not do this, whoever it is."""
