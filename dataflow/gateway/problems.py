"""Questions without an answer, as exceptions: each protocol tells them in its own words and codes.

Rules of this file. `data` tells what was wrong and what would be right, and can be written as JSON. The class
tells whose fault it is.
"""

from __future__ import annotations

from typing import Any

from dataflow.domain.errors import DataflowError


class Problem(DataflowError):
    """Base of all refusals. `summary` is a short text; `data` helps the client to ask correctly."""

    def __init__(self, summary: str, **data: Any) -> None:
        super().__init__(summary)
        self.summary = summary
        self.data = data


class InvalidValue(Problem):
    """The client's mistake: a parameter has a wrong value. `help_` tells right ones."""

    def __init__(self, param: str, value: object, problem: str, **help_: Any) -> None:
        super().__init__(f"{param}: {problem}", param=param, value=value, problem=problem, **help_)


class Unavailable(Problem):
    """No mistake of the client: the answer cannot be had at present."""


class TooManySubscriptions(Problem):
    """The client has as many subscriptions as one client may have."""

    def __init__(
        self, limit: int, advice: str = "unsubscribe from a symbol first, or open another connection"
    ) -> None:
        super().__init__("too many subscriptions", limit=limit, advice=advice)


class TooManyRequests(Problem):
    """The client asks for more than its quota has room for at present; `retry_after` in seconds."""

    def __init__(self, what: str, retry_after: float) -> None:
        self.retry_after = round(retry_after, 3)
        super().__init__(f"too many {what}", limit=what, retryAfter=self.retry_after)


class Unauthorised(Problem):
    """The client must prove its identity, or the proof is wrong."""


class Forbidden(Problem):
    """The client may not do this, even with a proof of its identity."""
