"""What the server needs of an exchange's dialect: one pure object a connection.

Rule 1: a session does no input or output, reads no clock and throws no dice; the server does.
Rule 2: what a session returns is sent in that order, so a sequence number is given out when a text is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen

from .trade import Item

Refuse = Callable[[str], bool]
"""Asked with a symbol whenever a subscription comes in; True refuses it."""


@frozen
class HandshakeRefused(Exception):
    """The handshake is refused with this HTTP status."""

    status: int
    text: str


class Session(Protocol):
    """One connection's side of an exchange's protocol."""

    @property
    def symbols(self) -> frozenset[str]:
        """Symbols whose trades this connection is subscribed to."""
        ...

    def receive(self, message: str | bytes) -> list[str]:
        """Take one message of the client; return the answers. Never raises, whatever the client wrote."""
        ...

    def wants(self, item: Item) -> bool:
        """Whether the connection is subscribed to what `item` belongs to."""
        ...

    def encode(self, item: Item) -> list[str]:
        """The texts that tell `item` to this connection (none when it is not subscribed)."""
        ...

    def beat(self, now_us: int) -> list[str]:
        """The heartbeat due now, if the connection has asked for one."""
        ...

    def skip(self) -> None:
        """Lose one sequence number. ValueError when the protocol has none."""
        ...


@frozen
class Dialect:
    """An exchange's protocol and its habits. Durations are seconds, None is never.

    `open` makes the session of a new connection from its path and headers, or raises `HandshakeRefused`.
    """

    name: str
    path: str
    open: Callable[[str, dict[str, str], Refuse], Session]
    sequenced: bool = field(default=False, kw_only=True)
    heartbeat: float | None = field(default=None, kw_only=True)
    ping: float | None = field(default=20.0, kw_only=True)
    lifetime: float | None = field(default=None, kw_only=True)
