"""A dialect: the WebSocket protocol of one exchange, as the server needs it. One session a connection.

Rule 1: a session is pure: no input or output, no clock, no random numbers. The server has those.
Rule 2: the texts that a session returns are sent in that order. So it numbers a text when it makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen

from .trade import Item

Refuse = Callable[[str], bool]
"""A session calls it with the symbol of each subscription that it receives; True refuses it."""


@frozen
class HandshakeRefused(Exception):
    """The handshake is refused with this HTTP status and this body."""

    status: int
    text: str


class Session(Protocol):
    """The state of one connection, as the exchange sees it."""

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades this connection is subscribed to."""
        ...

    def receive(self, message: str | bytes) -> list[str]:
        """Take one message of the client and return the answers. No message makes it raise."""
        ...

    def wants(self, item: Item) -> bool:
        """Whether the connection is subscribed to the stream of `item`."""
        ...

    def encode(self, item: Item) -> list[str]:
        """The messages that carry `item` to this connection (none when it is not subscribed)."""
        ...

    def beat(self, now_us: int) -> list[str]:
        """The heartbeat messages to send now (none when the connection has not asked for them)."""
        ...

    def skip(self) -> None:
        """Skip one sequence number (fault `skip`). ValueError when the protocol has none."""
        ...


@frozen
class Dialect:
    """The protocol of an exchange.

    `path` is the path of its WebSocket URL. `open` makes the session of a new connection from the path with
    its query and from the headers (names in lower case), or raises `HandshakeRefused`. `sequenced` says
    whether its messages have sequence numbers, so that the fault `skip` makes sense. Durations are in
    seconds, None is never: `heartbeat` between two calls of `Session.beat`, `ping` between two WebSocket
    pings, `lifetime` until the exchange closes a connection. `frames_per_second`: a client that sends more
    messages and pongs than that within any one second is closed with 1008.
    """

    name: str
    path: str
    open: Callable[[str, dict[str, str], Refuse], Session]
    sequenced: bool = field(default=False, kw_only=True)
    heartbeat: float | None = field(default=None, kw_only=True)
    ping: float | None = field(default=20.0, kw_only=True)
    lifetime: float | None = field(default=None, kw_only=True)
    frames_per_second: int | None = field(default=None, kw_only=True)
