"""The base classes of a protocol for clients: they leave a face nothing to write but its words.

Rules of this file. A face brings words, errors and heartbeats of its own. It has no queue, no policy and no
position of its own: sessions have an outbox and a policy, `Subscriptions` joins live and past, `Desk` answers
questions. One folder or file under `dataflow/faces` is one face: a module with the classes `Settings` and
`Face`.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import trio
from attrs import frozen
from quart import Response

from actors.session import Ending, Manners
from actors.update import Envelope, Personal, Rendering, rendering
from dataflow.domain import Gap, Topic
from dataflow.domain.notice import Draining, Notice
from dataflow.server.handshake import Handshake, Socket
from supervisors import Child

from .about import About, Sample
from .format import Format
from .identity import ANONYMOUS
from .limits import Account
from .problems import Problem
from .subscriptions import Subscriptions

if TYPE_CHECKING:
    from .clients import AnySession
    from .hall import Hall


class Conversation(ABC):
    """One client's side of a protocol: an `actors.session.Dialogue`, but for the answers.

    Each message gets a turn (see `admission`), an answer, and then the live updates of the topics it
    subscribed to.
    """

    __slots__ = ("_begun", "hall", "principal", "session", "subscriptions")

    format: Format  # of the class: one object for all clients of the face
    alarm: float = math.inf  # when `on_alarm` is called, on Trio's clock: see `actors.session.Dialogue`

    def __init__(self, session: AnySession, hall: Hall) -> None:
        self.session = session
        self.hall = hall
        self.subscriptions = Subscriptions(session, hall)
        self.principal = ANONYMOUS  # until the hall says who it is
        self._begun = False  # a part of the answer is sent already

    # For the face.

    @abstractmethod
    async def answer(self, message: Any) -> bytes | None:
        """The answer to one message. May raise Problem, and nothing else for what a client said.

        Between the return of `subscriptions.subscribe` and that of this there must be no checkpoint. Of an
        answer that has begun (`begin`) it returns the rest, and raises nothing any more.
        """

    @abstractmethod
    def refusal(self, problem: Problem) -> bytes | None:
        """The answer when there is none, in the protocol's words."""

    def resumes(self, message: Any) -> bool:
        """Whether the first message asks to go on where the client was: such clients come before new ones."""
        return False

    def heartbeat(self) -> bytes | None:
        """The protocol's own word for a sign of life; None: the wire's ping is enough."""
        return None

    def on_alarm(self) -> None:
        """The time of `alarm` has come: a client is too silent, say. Sets it anew. Never waits or raises."""
        raise AssertionError("a conversation with an alarm knows what to do")

    def rendering(self, envelope: Envelope | None = None, format: Format | None = None) -> Rendering[Any]:
        """How updates become payloads, alike for all clients of the kind. `envelope` joins several texts.

        `format`: another one than that of the conversation, for clients that may choose.
        """
        return rendering(format or self.format, envelope, self.session.frame)

    def personal(self, *heads: tuple[bytes, bytes]) -> Personal[Any]:
        """The same with a head and a tail of this client's own around each text: it shares texts, not
        payloads. With several pairs each text is sent once a pair."""
        return Personal(self.format, None, self.session.plain, heads)

    async def begin(self, text: bytes) -> None:
        """Send a piece of the answer, and let others have their turns until the client has taken it.

        For answers that are too long to stand in memory whole. A text may be cut between two characters. The
        session of a client that takes nothing for too long ends.
        """
        self._begun = True
        self.account.pay(len(text))
        self.session.begin(text)
        turns = self.subscriptions.turns
        if self.session.flushing:
            turns.leave()  # it can take seconds: nobody else shall wait for that
            await self.session.room()
        await turns.pause()

    @property
    def account(self) -> Account:
        """Who pays for its calls, and how much there may be of everything."""
        return self.subscriptions.account

    @property
    def protocol(self) -> str:
        """What it speaks, for people."""
        return self.format.name

    # For the session.

    async def hear(self, message: Any) -> None:
        turns = self.subscriptions.turns
        await turns.take(resuming=self.resumes(message))
        try:
            answer = await self._answer(message)
            self.account.pay(len(message) + len(answer or b""))
            if self._begun:
                self.session.complete(answer or b"")
                self._begun = False
            elif answer is not None:
                self.session.say(answer)
            self.subscriptions.answered()
            # Within the turn, so that a pass of the loop answers a bounded number of messages.
            await trio.lowlevel.checkpoint()
        finally:
            turns.leave()

    async def _answer(self, message: Any) -> bytes | None:
        try:
            return await self.answer(message)
        except Problem as problem:
            if self._begun:
                raise  # what has begun cannot become a refusal: the session ends
            return self.refusal(problem)

    def gap(self, topic: Topic, first: int, last: int, items: int) -> bytes | None:
        epoch = self.subscriptions.epoch(topic)
        return self.format.gap(topic, epoch, Gap(first, last, "slow_client"), items)

    def notice(self, notice: Notice) -> bytes | None:
        return self.format.notice(notice)

    def farewell(self) -> bytes | None:
        return self.format.notice(Draining())

    def reproach(self, words: str) -> Sequence[bytes]:
        """The last words to a client that broke a rule below the protocol; the close code tells it, too."""
        return ()

    def closed(self) -> None:
        self.subscriptions.close()


class Wish:
    """What a client wants, when its handshake or its request tells it: a message that comes before all
    others."""

    __slots__ = ()

    def __len__(self) -> int:
        return 1  # for the session, which bounds what it reads ahead


class Viewer(Conversation):
    """One client that says nothing: its wish, given by `session.hear_first`, is all that is heard of it."""

    __slots__ = ()

    async def hear(self, message: Any) -> None:
        if isinstance(message, Wish):
            await super().hear(message)

    def refusal(self, problem: Problem) -> None:
        self.session.end(Ending.REFUSED, problem.summary)


@frozen
class Route:
    """An HTTP endpoint: `handler` is a Quart view and gets the variable parts of the path.

    `operator`: for the operator only. `inside`: shows the inside of the daemon; once a token is configured,
    it is for the operator only, too. Both are refused before the handler is called. With a listener of the
    operator's own, both are served there only. `any_case`: small and capital letters of the path do not
    matter. `streams`: its handler reads the body piece by piece, and the client waits for that; the body has
    no greatest size. `about` describes it in the OpenAPI document. `face`: the name of its face, which the
    hall writes here.
    """

    path: str
    handler: Callable[..., Awaitable[Response]]
    methods: Sequence[str] = ("GET",)
    operator: bool = False
    inside: bool = False
    any_case: bool = False
    streams: bool = False
    about: About | None = None
    face: str = ""


@frozen
class Entrance:
    """A WebSocket endpoint. `converse(session, client)` gives a new session its conversation.

    `check(client)` may refuse a client before its WebSocket opens, as a route does: it raises a Problem or an
    HttpProblem. It never waits. `manners`: how its sessions treat their clients, if not as all do. `face`: as
    in `Route`.
    """

    socket: Socket
    converse: Callable[[AnySession, Handshake], Any]
    check: Callable[[Handshake], None] | None = None
    manners: Manners | None = None
    face: str = ""

    def admits(self, client: Handshake) -> bool:
        """Whether nothing is to be refused. If something is, `check` tells it."""
        if self.check is None:
            return True
        try:
            self.check(client)
        except Exception:  # whatever it is, it has one home: the HTTP application
            return False
        return True


class Face:
    """A protocol for clients, made once for a gateway. Everything it needs is in the hall.

    Its module has a class `Settings` too, derived from `FaceSettings`: the keys of its `[faces.NAME]` block.
    With `follows_days` it may ask the desk for aggregates, which are kept for its sake.
    """

    follows_days: ClassVar[bool] = False

    def __init__(self, settings: Any) -> None:
        """`settings`: an instance of the module's `Settings`."""

    @property
    def name(self) -> str:
        """That of its file or folder, and of its table."""
        return type(self).__module__.removeprefix("dataflow.faces.").partition(".")[0]

    @property
    def words(self) -> str:
        """A line about it."""
        return words(sys.modules[type(self).__module__])

    def routes(self, hall: Hall) -> Iterable[Route]:
        """Its HTTP endpoints."""
        return ()

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        """Its WebSocket endpoints."""
        return ()

    def children(self, hall: Hall) -> Iterable[Child]:
        """Actors of its own, such as a listener on another port; supervised in branch `gateway`."""
        return ()

    def about(self, hall: Hall) -> Iterable[Sample]:
        """What it serves, for the page `/faces`: with lines to copy."""
        return ()


def words(plug: ModuleType) -> str:
    """A line about a face: the first of its module's docstring."""
    return (plug.__doc__ or "").partition("\n")[0]
