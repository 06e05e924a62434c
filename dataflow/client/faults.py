"""Errors of this room: all of them are faults of the server.

What a client holds stays valid after each of them. The way on: a new connection, with `Client.connect`.
"""

from __future__ import annotations


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
