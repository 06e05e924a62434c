"""A dialect: the WebSocket protocol of one exchange, as the server needs it. One session a connection.

Rule 1: a session is pure: no input or output, no clock, no random numbers. The server has those.
Rule 2: the texts that a session returns are sent in that order. So it numbers a text when it makes it.
Rule 3: the answers to REST are pure too: they follow from the question and from the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from attrs import field, frozen

from .trade import Item, Trade

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


Tape: TypeAlias = Callable[[str], Sequence[Trade]]
"""The trades of a symbol that the exchange has published, oldest first."""


@frozen
class Answer:
    """An HTTP answer to a question by REST. `weight`: what the question costs, as the exchange counts."""

    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    weight: int = field(default=1, kw_only=True)


Rest: TypeAlias = Callable[[str, Mapping[str, str], Tape], Answer]
"""Answers a GET: its path, its query (the first value of each name), and the tape. It never raises."""


Snapshot: TypeAlias = Callable[[Any, str, Sequence[Trade]], list[str]]
"""What a session of this dialect says to a new subscriber of a symbol, of its trades so far, oldest first."""


@frozen
class Dialect:
    """The protocol of an exchange.

    `path` is the path of its WebSocket URL. `open` makes the session of a new connection from the path with
    its query and from the headers (names in lower case), or raises `HandshakeRefused`. `sequenced` says
    whether its messages have sequence numbers, so that the fault `skip` makes sense. Durations are in
    seconds, None is never: `heartbeat` between two calls of `Session.beat`, `ping` between two WebSocket
    pings, `lifetime` until the exchange closes a connection. `frames_per_second`: a client that sends more
    messages and pongs than that within any one second is closed with 1008. `farewell` makes the message that
    announces the end of a connection, from the time in microseconds; None: there is no such message.

    `snapshot`: what a new subscriber gets behind the answer and before the next trade; None: nothing.
    `rest` answers questions by HTTP on the same port; None: there are none. `weight_a_minute`: what all of
    them may cost in a minute of the clock; what is more gets status 429. `weight_header` tells how much is
    used; None: the exchange does not tell.
    """

    name: str
    path: str
    open: Callable[[str, dict[str, str], Refuse], Session]
    sequenced: bool = field(default=False, kw_only=True)
    heartbeat: float | None = field(default=None, kw_only=True)
    ping: float | None = field(default=20.0, kw_only=True)
    lifetime: float | None = field(default=None, kw_only=True)
    frames_per_second: int | None = field(default=None, kw_only=True)
    farewell: Callable[[int], str] | None = field(default=None, kw_only=True)
    snapshot: Snapshot | None = field(default=None, kw_only=True)
    rest: Rest | None = field(default=None, kw_only=True)
    weight_a_minute: int | None = field(default=None, kw_only=True)
    weight_header: str | None = field(default=None, kw_only=True)
