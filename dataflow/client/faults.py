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
    param = details.get("param", "symbol")
    told = f"{param} {details.get('value')}: {problem}"
    if param == "symbol":
        symbol = about if about is not None else details.get("value")
        told = f"{symbol}: {problem}" if symbol is not None else f"{problem}"
    if details.get("nearest"):
        told += f"; did you mean {' or '.join(map(str, details['nearest']))}?"
    return told
