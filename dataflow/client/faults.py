"""Errors of this room, and whose fault each is.

Of the server: `ServerFault` and its kinds. What a client holds stays valid after each of them; the way on is
a new connection, with `Client.connect`. Of the address or the network: `Unreachable`. Of the call:
`CallError`.
"""

from __future__ import annotations

from typing import Any


class ServerFault(Exception):
    """The server broke its contract."""


class WrongPlace(ServerFault):
    """An entry came at a place that is not its turn. `expected` and `came`: these two places."""

    def __init__(self, symbol: str, expected: int, came: int, problem: str) -> None:
        super().__init__(f"{symbol}: {problem}: place {came} came, {expected} was next")
        self.symbol = symbol
        self.expected = expected
        self.came = came


class Unreadable(ServerFault):
    """A message that is not of the protocol."""


class Unreachable(ConnectionError):
    """No daemon answers at the address. `status`: of an HTTP answer, if there was one."""

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.status = status


class CallError(Exception):
    """The daemon refuses a call. The text says what was wrong and what would be right.

    `code`: of JSON-RPC, see the errors of the protocol. `data`: the details of the daemon.
    """

    def __init__(self, code: int, message: str, data: Any = None, about: str | None = None) -> None:
        super().__init__(_in_words(message, data, about))
        self.code = code
        self.data = data


def _in_words(message: str, data: Any, about: str | None) -> str:
    details = data if isinstance(data, dict) else {}
    problem = details.get("problem", message)
    param, value = details.get("param", "symbol"), details.get("value")
    subject = param if value is None else f"{param} {value}"
    if "method" in details:
        subject = details["method"]
    elif param == "symbol":
        subject = about if about is not None else value
    told = f"{problem}" if subject is None else f"{subject}: {problem}"
    if nearest := _words(details.get("nearest")):
        return f"{told}; did you mean {' or '.join(nearest)}?"
    # Where a parameter is missing, `valid` has the names of all of them: that is no help.
    if (valid := _words(details.get("valid"))) and ("value" in details or "method" in details):
        return f"{told}; valid: {', '.join(valid)}"
    return f"{told}; {details['advice']}" if "advice" in details else told


def _words(several: Any) -> list[str]:
    """The suggestions of a server, which may have said anything."""
    return [str(each) for each in several if each is not None] if isinstance(several, list) else []
