"""What a protocol for clients has to be: the Protocols that the gateway drives, and what their plugs share.

Rules of this file. A face brings words, errors and heartbeats of its own. It has no queue, no policy and no
position of its own: sessions have an outbox and a policy, `Subscriptions` joins live and past, `Desk` answers
questions. One folder or file under `dataflow/faces` is one face: a module with the classes `Settings` and
`Face`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import frozen
from quart import Response

from actors.update import Encode
from dataflow.domain import Gap, Topic
from dataflow.domain.notice import Draining, Notice
from dataflow.server.handshake import Handshake, Socket
from supervisors import Child

from .subscriptions import Subscriptions

if TYPE_CHECKING:
    from .clients import AnySession
    from .hall import Hall

M_contra = TypeVar("M_contra", contravariant=True)


class Format(Protocol):
    """How entries and notices are written down, for all clients who want it so. One object, without state."""

    @property
    def name(self) -> str:
        """A label for people and metrics."""

    def encoder(self, topic: Topic, epoch: int) -> Encode:
        """Writes live entries of `topic`, a text each; it may keep what repeats."""

    def item(self, topic: Topic, epoch: int, entry: Any) -> bytes:
        """An item of the past, as it stands in an answer."""

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        """A gap of the past, as it stands in an answer."""

    def gap(self, topic: Topic, epoch: int, gap: Gap, skipped: int) -> bytes | None:
        """The notice that a slow client will not get these places, with so many items."""

    def notice(self, notice: Notice) -> bytes | None:
        """A notice; None: this protocol has no word for it."""


class Conversation(Protocol[M_contra]):
    """One client's side of a protocol. A face derives its own from `Talk`, which answers all but `hear`."""

    async def hear(self, message: M_contra) -> None:
        """Take one message; the answer is said through the session. Never raises for what was said."""


class Talk:
    """The part of an `actors.session.Dialogue` that all faces have alike."""

    __slots__ = ("session", "subscriptions")

    format: Format  # of the class: one object for all clients of the face

    def __init__(self, session: AnySession, hall: Hall) -> None:
        self.session = session
        self.subscriptions = Subscriptions(session, hall, self.format)

    def gap(self, topic: Topic, first: int, last: int, items: int) -> bytes | None:
        epoch = self.subscriptions.epoch(topic)
        return self.format.gap(topic, epoch, Gap(first, last, "slow_client"), items)

    def notice(self, notice: Notice) -> bytes | None:
        return self.format.notice(notice)

    def farewell(self) -> bytes | None:
        return self.format.notice(Draining())

    def closed(self) -> None:
        self.subscriptions.close()


@frozen
class Route:
    """An HTTP endpoint: `handler` is a Quart view and gets the variable parts of the path."""

    path: str
    handler: Callable[..., Awaitable[Response]]
    methods: Sequence[str] = ("GET",)


@frozen
class Entrance:
    """A WebSocket endpoint. `converse(session, client)` gives a new session its conversation."""

    socket: Socket
    converse: Callable[[AnySession, Handshake], Any]


class Face(Protocol):
    """A protocol for clients. Made once for a gateway, of its settings; everything else it needs is in the
    hall.

    Its module has a class `Settings` too, derived from `FaceSettings`: the keys of its `[faces.NAME]` block.
    """

    def routes(self, hall: Hall) -> Iterable[Route]:
        """Its HTTP endpoints."""

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        """Its WebSocket endpoints."""

    def children(self, hall: Hall) -> Iterable[Child]:
        """Actors of its own, such as a listener on another port; supervised in branch `gateway`."""
